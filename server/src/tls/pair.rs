//! A private key with its certificate, as PEM.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use chrono::{DateTime, Datelike, Days, Utc};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

use crate::secret::Digest;

/// How long a certificate of our own holds. Clients know the key, so nothing is won by a shorter time.
const YEARS: i32 = 10;
/// What a certificate of our own is made out to. Clients do not look at it.
const NAME: &str = "vitals-server";

/// SHA-256 of a public key (SPKI), by which clients know a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// Of the public key in this certificate.
    ///
    /// # Errors
    /// It is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, PairError> {
        let parsed = ParsedCertificate::try_from(certificate).map_err(|_| PairError::NoCertificate)?;
        Ok(Self(Digest::of(&parsed.subject_public_key_info()).0))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// Why a text is no key with its certificate. Never says what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// There is no certificate, or it is damaged.
    #[error("there is no whole certificate in it")]
    NoCertificate,
    /// There is no private key, or it is damaged.
    #[error("there is no whole private key in it that this server can use (PEM; ECDSA, Ed25519 or RSA)")]
    NoKey,
    /// The key is another's.
    #[error("the private key is not that of the certificate")]
    Mismatch,
    /// None could be made.
    #[error("no key can be made: the system gives no random bits")]
    NoRandom,
}

/// A private key with its certificate.
#[derive(Clone)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    pin: Pin,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pair({})", self.pin)
    }
}

impl Pair {
    /// Makes one: an ECDSA key on P-256 and a certificate that it signs itself. Gives it as PEM, the certificate first.
    ///
    /// # Errors
    /// The system gives no random bits.
    pub fn make(now: DateTime<Utc>) -> Result<(Self, String), PairError> {
        let made = |_| PairError::NoRandom;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).map_err(made)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, NAME);
        // A client's clock may be behind.
        let from = now.checked_sub_days(Days::new(2)).unwrap_or(now);
        // There is no 29th of February in ten years' time.
        let date = |years| date_time_ymd(from.year() + years, from.month() as u8, from.day().min(28) as u8);
        (params.not_before, params.not_after) = (date(0), date(YEARS));
        let certificate = params.self_signed(&key).map_err(made)?;
        let mut pem = certificate.pem();
        let _ = write!(pem, "{}", key.serialize_pem());
        Ok((Self::of(pem.as_bytes(), pem.as_bytes())?, pem))
    }

    /// Reads one. Both texts may be the same.
    ///
    /// # Errors
    /// They are not whole, or do not belong together.
    pub fn of(certificate: &[u8], key: &[u8]) -> Result<Self, PairError> {
        let chain = chain_of(certificate)?;
        let pin = Pin::of(chain.first().ok_or(PairError::NoCertificate)?)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| PairError::NoKey)?;
        let key = default_provider().key_provider.load_private_key(key).map_err(|_| PairError::NoKey)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| PairError::Mismatch)?;
        Ok(Self { certified: Arc::new(certified), pin })
    }

    /// By what clients know it.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// As rustls wants it.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// The pin of the first certificate in a text.
///
/// # Errors
/// There is none, or it is damaged.
pub fn pin_of(pem: &[u8]) -> Result<Pin, PairError> {
    Pin::of(chain_of(pem)?.first().ok_or(PairError::NoCertificate)?)
}

/// Whether a text holds, or is to hold, a private key.
pub fn has_key(pem: &[u8]) -> bool {
    let begin = b"PRIVATE KEY-----";
    pem.windows(begin.len()).any(|some| some == begin)
}

fn chain_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PairError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| PairError::NoCertificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_read_again_with_the_same_pin() {
        let (made, pem) = Pair::make(Utc::now()).unwrap();
        let read = Pair::of(pem.as_bytes(), pem.as_bytes()).unwrap();
        assert_eq!(made.pin(), read.pin());
        assert_eq!(pin_of(pem.as_bytes()), Ok(made.pin()));
        assert!(has_key(pem.as_bytes()));
        let (other, _) = Pair::make(Utc::now()).unwrap();
        assert_ne!(made.pin(), other.pin());
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_certificate_can_be_made_on_any_day() {
        for day in
            ["2024-02-29T12:00:00Z", "2024-03-02T00:00:00Z", "2026-01-31T23:59:59Z", "2027-12-31T00:00:00Z"]
        {
            Pair::make(day.parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn no_half_of_a_file_is_taken_for_a_whole_one() {
        let (_, pem) = Pair::make(Utc::now()).unwrap();
        let pem = pem.trim_end().as_bytes();
        for end in 0..pem.len() {
            assert!(Pair::of(&pem[..end], &pem[..end]).is_err(), "{end} of {} bytes", pem.len());
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_told_apart() {
        let ((_, one), (_, other)) = (Pair::make(Utc::now()).unwrap(), Pair::make(Utc::now()).unwrap());
        assert_eq!(Pair::of(one.as_bytes(), other.as_bytes()).unwrap_err(), PairError::Mismatch);
    }
}
