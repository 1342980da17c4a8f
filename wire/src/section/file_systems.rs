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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("file_systems_none", FileSystems::default(), "00"),
            golden(
                "file_systems_two",
                FileSystems {
                    file_systems: list(vec![
                        FileSystem {
                            device: text("vda"),
                            path: text("/"),
                            fstype: text("ext4"),
                            read_only: false,
                            total: 270_553_174_016,
                            free: 70_789_054_464,
                            used: 27_004_239_872,
                            inodes: Some(Inodes { total: 16_777_216, free: 15_999_750 }),
                        },
                        FileSystem {
                            device: text(""),
                            path: text("/mnt/写 真"),
                            fstype: text("iso9660"),
                            read_only: true,
                            total: u64::MAX,
                            free: 0,
                            used: u64::MAX,
                            inodes: None,
                        },
                    ]),
                },
                "02 03 76 64 61 01 2f 04 65 78 74 34 00 fd 00 d0 39 fe 3e 00 00 00 fd 00 40 5b 7b 10 00 00 00 fd \
                 00 00 94 49 06 00 00 00 01 fc 00 00 00 01 fc 06 23 f4 00 00 0c 2f 6d 6e 74 2f e5 86 99 20 e7 9c \
                 9f 07 69 73 6f 39 36 36 30 01 fd ff ff ff ff ff ff ff ff 00 fd ff ff ff ff ff ff ff ff 00",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(4, &vectors());
    }
}
