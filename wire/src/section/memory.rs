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
