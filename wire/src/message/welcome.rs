use serde::{Deserialize, Serialize};

use crate::bounded::{List, Text};
use crate::limits::{MAX_HOST_NAME_BYTES, MAX_PINS, MAX_VERSION_BYTES};

/// Come in. The answer to a valid `Hello`; its form never changes within version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of the protocol that the server speaks.
    pub protocol: u16,
    /// The server's own version.
    pub server_version: Text<MAX_VERSION_BYTES>,
    /// The server's clock in ms since 1970.
    pub server_time_ms: i64,
    /// What the server calls the host.
    pub name: Text<MAX_HOST_NAME_BYTES>,
    /// Batches of backlog that may be under way at once. Live samples are not held back by it.
    pub window: u32,
    /// What the server takes at most.
    pub limits: Limits,
    /// Samples older than this, in ms since 1970, will not be stored.
    pub oldest_ms: i64,
    /// SHA-256 of the public keys that the server has or will have.
    pub pins: List<[u8; 32], MAX_PINS>,
    /// The client should make a new secret and tell it with `NewSecret`.
    pub rotate_secret: bool,
}

/// What a server takes at most; never more than the protocol's own caps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a frame's body.
    pub frame_bytes: u32,
    /// Samples in a batch.
    pub batch_samples: u32,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, list, text};
    use crate::message::ServerMessage;

    pub(crate) fn vectors() -> Vec<Golden<ServerMessage>> {
        vec![
            golden(
                "welcome_bare",
                Welcome {
                    protocol: 0,
                    server_version: text(""),
                    server_time_ms: 0,
                    name: text(""),
                    window: 0,
                    limits: Limits { frame_bytes: 0, batch_samples: 0 },
                    oldest_ms: 0,
                    pins: list(vec![]),
                    rotate_secret: false,
                },
                "40 00 00 00 00 00 00 00 00 00 00",
            ),
            golden(
                "welcome_usual",
                Welcome {
                    protocol: 1,
                    server_version: text("0.1.0"),
                    server_time_ms: 1_795_232_825_000,
                    name: text("数据库"),
                    window: 4,
                    limits: Limits { frame_bytes: 1 << 20, batch_samples: 256 },
                    oldest_ms: 1_794_628_025_000,
                    pins: list(vec![[0xa5; 32]]),
                    rotate_secret: true,
                },
                "40 01 05 30 2e 31 2e 30 fd 50 fd 6d f8 43 03 00 00 09 e6 95 b0 e6 8d ae e5 ba 93 04 fc 00 00 10 \
                 00 fb 00 01 fd 50 f5 54 b0 43 03 00 00 01 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 \
                 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 01",
            ),
            golden(
                "welcome_extreme",
                Welcome {
                    protocol: u16::MAX,
                    server_version: text("v"),
                    server_time_ms: i64::MAX,
                    name: text("a b,c=\"d\""),
                    window: u32::MAX,
                    limits: Limits { frame_bytes: u32::MAX, batch_samples: u32::MAX },
                    oldest_ms: i64::MIN,
                    pins: list(vec![[0; 32], [0xff; 32]]),
                    rotate_secret: false,
                },
                "40 fb ff ff 01 76 fd fe ff ff ff ff ff ff ff 09 61 20 62 2c 63 3d 22 64 22 fc ff ff ff ff fc ff \
                 ff ff ff fc ff ff ff ff fd ff ff ff ff ff ff ff ff 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
                 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff ff ff ff ff ff ff \
                 ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff 00",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
