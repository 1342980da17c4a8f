use serde::{Deserialize, Serialize};

/// Memory in bytes (`/proc/meminfo`; the names are Telegraf's).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What new programs could get without swapping.
    pub available: u64,
    /// Used for nothing at all.
    pub free: u64,
    /// Page cache and reclaimable slab, as `free` counts it: `Cached` + `SReclaimable` as Telegraf does.
    pub cached: Option<u64>,
    /// Raw block device pages.
    pub buffered: Option<u64>,
    /// Recently used.
    pub active: Option<u64>,
    /// Not recently used.
    pub inactive: Option<u64>,
    /// Shared memory and tmpfs.
    pub shared: Option<u64>,
    /// Kernel data structures.
    pub slab: Option<u64>,
    /// The part of `slab` that can be given back.
    pub sreclaimable: Option<u64>,
    /// The part of `slab` that cannot.
    pub sunreclaim: Option<u64>,
    /// Page tables.
    pub page_tables: Option<u64>,
    /// Files mapped into memory.
    pub mapped: Option<u64>,
    /// Waiting to be written to disk.
    pub dirty: Option<u64>,
    /// Being written to disk.
    pub write_back: Option<u64>,
    /// Temporary FUSE buffers.
    pub write_back_tmp: Option<u64>,
    /// What may be promised to programs.
    pub commit_limit: Option<u64>,
    /// What is promised to programs.
    pub committed_as: Option<u64>,
    /// Number of huge pages.
    pub huge_pages_total: Option<u64>,
    /// Number of huge pages that are free.
    pub huge_pages_free: Option<u64>,
    /// Size of a huge page in bytes.
    pub huge_page_size: Option<u64>,
    /// In swap and in memory at once.
    pub swap_cached: Option<u64>,
    /// Size of all swap space.
    pub swap_total: Option<u64>,
    /// Free swap space.
    pub swap_free: Option<u64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden(
                "memory_bare",
                Box::new(Memory::default()),
                "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
            ),
            golden(
                "memory_full",
                Box::new(Memory {
                    total: 25_276_510_208,
                    available: 23_949_627_392,
                    free: 12_759_613_440,
                    cached: Some(11_324_112_896),
                    buffered: Some(243_859_456),
                    active: Some(3_121_233_920),
                    inactive: Some(7_701_594_112),
                    shared: Some(9_068_544),
                    slab: Some(1_210_662_912),
                    sreclaimable: Some(1_125_437_440),
                    sunreclaim: Some(85_225_472),
                    page_tables: Some(4_292_608),
                    mapped: Some(193_683_456),
                    dirty: Some(54_259_712),
                    write_back: Some(8_192),
                    write_back_tmp: Some(0),
                    commit_limit: Some(12_638_253_056),
                    committed_as: Some(1_457_668_096),
                    huge_pages_total: Some(0),
                    huge_pages_free: Some(0),
                    huge_page_size: Some(2_097_152),
                    swap_cached: Some(0),
                    swap_total: Some(0),
                    swap_free: Some(0),
                }),
                "fd 00 f0 98 e2 05 00 00 00 fd 00 50 82 93 05 00 00 00 fd 00 40 88 f8 02 00 00 00 01 fd 00 40 f8 \
                 a2 02 00 00 00 01 fc 00 00 89 0e 01 fc 00 40 0a ba 01 fd 00 00 0d cb 01 00 00 00 01 fc 00 60 8a \
                 00 01 fc 00 40 29 48 01 fc 00 d0 14 43 01 fc 00 70 14 05 01 fc 00 80 41 00 01 fc 00 60 8b 0b 01 \
                 fc 00 f0 3b 03 01 fb 00 20 01 00 01 fd 00 70 4c f1 02 00 00 00 01 fc 00 40 e2 56 01 00 01 00 01 \
                 fc 00 00 20 00 01 00 01 00 01 00",
            ),
            golden(
                "memory_extreme",
                Box::new(Memory {
                    total: u64::MAX,
                    available: u64::MAX,
                    free: u64::MAX,
                    cached: Some(u64::MAX),
                    buffered: Some(u64::MAX),
                    active: Some(u64::MAX),
                    inactive: Some(u64::MAX),
                    shared: Some(u64::MAX),
                    slab: Some(u64::MAX),
                    sreclaimable: Some(u64::MAX),
                    sunreclaim: Some(u64::MAX),
                    page_tables: Some(u64::MAX),
                    mapped: Some(u64::MAX),
                    dirty: Some(u64::MAX),
                    write_back: Some(u64::MAX),
                    write_back_tmp: Some(u64::MAX),
                    commit_limit: Some(u64::MAX),
                    committed_as: Some(u64::MAX),
                    huge_pages_total: Some(u64::MAX),
                    huge_pages_free: Some(u64::MAX),
                    huge_page_size: Some(u64::MAX),
                    swap_cached: Some(u64::MAX),
                    swap_total: Some(u64::MAX),
                    swap_free: Some(u64::MAX),
                }),
                "fd ff ff ff ff ff ff ff ff fd ff ff ff ff ff ff ff ff fd ff ff ff ff ff ff ff ff 01 fd ff ff ff \
                 ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff \
                 ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff \
                 ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 \
                 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff \
                 ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff \
                 ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 fd ff ff ff ff ff \
                 ff ff ff 01 fd ff ff ff ff ff ff ff ff",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(2, &vectors());
    }
}
