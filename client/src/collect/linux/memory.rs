//! Memory: `/proc/meminfo`.

use vitals_wire::section::Memory;

use super::super::{Collector, Reading};
use super::scan;

pub(super) struct MemoryCollector;

impl Collector for MemoryCollector {
    fn collect(&mut self, reading: &mut Reading<'_>) {
        if let Some(memory) = reading.shared.meminfo().and_then(parse) {
            reading.sections.push(Box::new(memory).into());
        }
    }
}

/// The lines of `/proc/meminfo` as name and figure; kB become bytes.
pub(super) fn entries(text: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    scan::lines(text).filter_map(|line| {
        let colon = line.iter().position(|&b| b == b':')?;
        let mut words = scan::words(&line[colon + 1..]);
        let value = scan::number(words.next()?)?;
        let factor = if words.next() == Some(b"kB") { 1024 } else { 1 };
        Some((&line[..colon], value.saturating_mul(factor)))
    })
}

/// `None` without a total.
fn parse(text: &[u8]) -> Option<Memory> {
    let mut memory = Memory::default();
    let (mut total, mut available, mut free, mut cached) = (None, None, None, None);
    for (name, value) in entries(text) {
        let field = match name {
            b"MemTotal" => &mut total,
            b"MemAvailable" => &mut available,
            b"MemFree" => &mut free,
            b"Cached" => &mut cached,
            b"Buffers" => &mut memory.buffered,
            b"Active" => &mut memory.active,
            b"Inactive" => &mut memory.inactive,
            b"Shmem" => &mut memory.shared,
            b"Slab" => &mut memory.slab,
            b"SReclaimable" => &mut memory.sreclaimable,
            b"SUnreclaim" => &mut memory.sunreclaim,
            b"PageTables" => &mut memory.page_tables,
            b"Mapped" => &mut memory.mapped,
            b"Dirty" => &mut memory.dirty,
            b"Writeback" => &mut memory.write_back,
            b"WritebackTmp" => &mut memory.write_back_tmp,
            b"CommitLimit" => &mut memory.commit_limit,
            b"Committed_AS" => &mut memory.committed_as,
            b"HugePages_Total" => &mut memory.huge_pages_total,
            b"HugePages_Free" => &mut memory.huge_pages_free,
            b"Hugepagesize" => &mut memory.huge_page_size,
            b"SwapCached" => &mut memory.swap_cached,
            b"SwapTotal" => &mut memory.swap_total,
            b"SwapFree" => &mut memory.swap_free,
            _ => continue,
        };
        *field = Some(value);
    }
    memory.total = total?;
    memory.free = free?;
    memory.cached = cached.map(|cached| cached.saturating_add(memory.sreclaimable.unwrap_or(0)));
    // Kernels before 3.14 do not tell it: free memory and what can be given back is the usual estimate.
    let estimate = || {
        memory.free.saturating_add(memory.buffered.unwrap_or(0)).saturating_add(memory.cached.unwrap_or(0))
    };
    memory.available = available.unwrap_or_else(estimate).min(memory.total);
    Some(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_become_bytes_and_counts_stay() {
        let memory = parse(
            b"MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\nBuffers:   10 kB\n\
              Cached:          200 kB\nSReclaimable:    30 kB\nActive:          7 kB\nActive(anon):      1 kB\n\
              HugePages_Total:       3\nHugepagesize:       2048 kB\nCommitted_AS:   5 kB\n",
        )
        .unwrap();
        assert_eq!((memory.total, memory.free, memory.available), (1_024_000, 102_400, 614_400));
        assert_eq!(memory.cached, Some(230 * 1024), "with reclaimable slab, as Telegraf counts it");
        assert_eq!((memory.huge_pages_total, memory.huge_page_size), (Some(3), Some(2 << 20)));
        assert_eq!((memory.active, memory.committed_as), (Some(7 * 1024), Some(5 * 1024)));
        assert_eq!((memory.shared, memory.swap_total), (None, None), "what is not told is absent");
    }

    #[test]
    fn an_old_kernel_without_available_memory_gets_an_estimate() {
        let memory = parse(
            b"MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 10 kB\nCached: 200 kB\nSReclaimable: 5 kB\n",
        );
        assert_eq!(memory.unwrap().available, 315 * 1024);
    }

    #[test]
    fn garbage_is_no_memory() {
        assert_eq!(parse(b"MemFree: 1 kB\nMemTotal:\nx\n: 5 kB"), None);
    }
}
