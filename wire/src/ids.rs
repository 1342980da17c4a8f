//! Who is who: hosts, runs and secrets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A host, for as long as it exists: 128 random bits made by its client at its first start.
///
/// Text form: 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct HostId(pub [u8; 16]);

impl HostId {
    /// The reserved id under which the server writes what it has to say for itself. No client may use it.
    pub const SERVER: HostId = HostId([0; 16]);
}

/// One run of a client's process: 128 random bits. It tells a client's own half-open connection from a clone's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct RunId(pub [u8; 16]);

/// A host's secret: 256 random bits. Its debug form shows none of them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; 32]);

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A text that is not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a host id is 32 hexadecimal digits")]
pub struct NotAHostId;

impl FromStr for HostId {
    type Err = NotAHostId;

    fn from_str(text: &str) -> Result<Self, NotAHostId> {
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(NotAHostId);
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| (digit as char).to_digit(16).ok_or(NotAHostId);
            // Two digits below 16 always fit a byte.
            *byte = (nibble(pair[0])? * 16 + nibble(pair[1])?) as u8;
        }
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_id_survives_its_text_form() {
        let id = HostId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(id.to_string(), "000102030405060708090a0bfcfdfeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00".parse::<HostId>(), Err(NotAHostId));
        assert_eq!("+0000000000000000000000000000000".parse::<HostId>(), Err(NotAHostId));
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(…)");
    }
}
