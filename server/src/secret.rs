//! Secrets: made at random, kept as digests, compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

/// SHA-256 of a secret or of a public key. Fit for random secrets alone: a password needs argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut own = [0; 32];
        // SHA-256 has 32 bytes.
        own.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(own)
    }

    /// Whether these bytes have it; takes as long for any other.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        self.0.ct_eq(&Self::of(bytes).0).into()
    }
}

/// The system gives no random bits.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gives no random bits")]
pub struct NoRandom;

/// Random bytes from the system.
///
/// # Errors
/// There are none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// A random secret of 256 bits as text: `prefix` and 43 characters of URL-safe base64.
///
/// # Errors
/// The system gives no random bits.
pub fn random_text(prefix: &str) -> Result<String, NoRandom> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

/// A random id to name something by in lists and commands: 12 hexadecimal digits. No secret.
///
/// # Errors
/// The system gives no random bits.
pub fn random_id() -> Result<String, NoRandom> {
    Ok(random::<6>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_its_own_bytes_alone() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.0[..4], [0xba, 0x78, 0x16, 0xbf], "FIPS 180-4");
        assert!(digest.is_of(b"abc") && !digest.is_of(b"abd"));
    }

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, other) = (random_text("vt_").unwrap(), random_text("vt_").unwrap());
        assert!(one.starts_with("vt_") && one.len() == 46 && one != other);
        assert_eq!(random_id().unwrap().len(), 12);
    }
}
