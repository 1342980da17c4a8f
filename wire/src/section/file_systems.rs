use serde::{Deserialize, Serialize};

use super::Name;
use crate::bounded::{List, Text};
use crate::limits::{MAX_FILE_SYSTEMS, MAX_PATH_BYTES};

/// Space and inodes of mounted file systems (`/proc/self/mountinfo`, `statvfs`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileSystems {
    /// Each of them once, ordered by path.
    pub file_systems: List<FileSystem, MAX_FILE_SYSTEMS>,
}

/// One file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// The device without `/dev/`.
    pub device: Name,
    /// Where it is mounted.
    pub path: Text<MAX_PATH_BYTES>,
    /// Its type, such as `ext4`.
    pub fstype: Name,
    /// Mounted read-only: the file system itself, not one view of it.
    pub read_only: bool,
    /// Bytes there are.
    pub total: u64,
    /// Bytes that any user may still fill.
    pub free: u64,
    /// Bytes in use; `free` + `used` is less than `total` where some is kept for root.
    pub used: u64,
    /// `None` for a file system without a fixed number of them.
    pub inodes: Option<Inodes>,
}

/// Inodes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inodes {
    /// How many there are.
    pub total: u64,
    /// How many are free.
    pub free: u64,
}
