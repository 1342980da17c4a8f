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
