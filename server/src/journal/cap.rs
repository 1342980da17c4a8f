//! How large the journal may get: what is configured, or half of what the disk could give it.

use std::path::Path;

/// The cap never falls below so many segments: with fewer, passing the oldest would free too much at once.
const FEW_SEGMENTS: u64 = 4;
/// A small disk makes segments smaller, but not smaller than this.
const LEAST_SEGMENT_BYTES: u64 = 1 << 20;

/// What bounds the journal's size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cap {
    configured: u64,
    floor: u64,
}

impl Cap {
    /// The bounds of a journal of `own` bytes on a disk with `free` bytes, where that is known, and the size of its
    /// segments.
    pub(super) fn at_open(configured: u64, segment_bytes: u64, own: u64, free: Option<u64>) -> (Self, u64) {
        let by_disk = free.map_or(u64::MAX, |free| half(own, free) / FEW_SEGMENTS);
        let segment = segment_bytes.min(configured / FEW_SEGMENTS).min(by_disk.max(LEAST_SEGMENT_BYTES));
        (Self { configured, floor: configured.min(segment * FEW_SEGMENTS) }, segment)
    }

    /// The cap where the journal has `own` bytes and the disk `free` ones.
    pub(super) fn with(self, own: u64, free: Option<u64>) -> u64 {
        let by_disk = free.map_or(u64::MAX, |free| half(own, free));
        self.configured.min(by_disk).max(self.floor)
    }

    /// The cap where the disk has plenty.
    pub(super) fn configured(self) -> u64 {
        self.configured
    }
}

/// Half of what the journal could have if it took the whole disk.
fn half(own: u64, free: u64) -> u64 {
    own.saturating_add(free) / 2
}

/// Bytes that this process may still write to the file system of `dir`; none where nobody can tell.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    // A directory that is not made yet will be on the file system of the one above it.
    dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok()).map(|disk| {
        let block = if disk.f_frsize == 0 { disk.f_bsize } else { disk.f_frsize };
        disk.f_bavail.saturating_mul(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn half_of_what_the_disk_could_give_is_the_most() {
        let (cap, segment) = Cap::at_open(2 * GIB, 16 << 20, GIB, Some(100 * GIB));
        assert_eq!((cap.with(GIB, Some(100 * GIB)), segment), (2 * GIB, 16 << 20));
        assert_eq!(cap.with(GIB, Some(GIB)), GIB, "the journal's own bytes are not lost to it");
        assert_eq!(cap.with(GIB, None), 2 * GIB);
        assert_eq!(cap.with(0, Some(0)), 64 << 20, "a few segments whatever the disk says");
    }

    #[test]
    fn a_small_disk_and_a_small_cap_make_small_segments() {
        let (cap, segment) = Cap::at_open(2 * GIB, 16 << 20, 0, Some(8 << 20));
        assert_eq!((segment, cap.with(0, Some(8 << 20)), cap.with(0, Some(0))), (1 << 20, 4 << 20, 4 << 20));
        let (cap, segment) = Cap::at_open(20_000, 16 << 20, 0, Some(0));
        assert_eq!((segment, cap.with(0, Some(0))), (5_000, 20_000));
    }
}
