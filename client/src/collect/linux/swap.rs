//! Swap space: `/proc/meminfo` for its size, `/proc/vmstat` for what moved.

use vitals_wire::section::Swap;

use super::super::{Collector, Reading, Setup};
use super::file::HeldFile;
use super::{memory, scan};

pub(super) struct SwapCollector {
    vmstat: HeldFile,
    moved: Moved,
}

/// Pages in and out since the start.
type Moved = (Option<u64>, Option<u64>);

impl SwapCollector {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        Self { vmstat: HeldFile::optional(setup.roots.proc.join("vmstat")), moved: Moved::default() }
    }
}

impl Collector for SwapCollector {
    fn collect(&mut self, reading: &mut Reading<'_>) {
        let Some((total, free)) = reading.shared.meminfo().and_then(parse_size) else { return };
        // Without swap space nothing moves, and the file is the longest of all.
        if total > 0 || reading.rescan {
            self.moved = self.vmstat.read().map(parse_moved).unwrap_or_default();
        }
        let (pages_in, pages_out) = self.moved;
        let page_size = rustix::param::page_size() as u64;
        let bytes = |pages: Option<u64>| pages.map(|pages| pages.saturating_mul(page_size));
        let swap = Swap { total, free, bytes_in: bytes(pages_in), bytes_out: bytes(pages_out) };
        reading.sections.push(swap.into());
    }
}

/// Total and free bytes.
fn parse_size(meminfo: &[u8]) -> Option<(u64, u64)> {
    let find =
        |wanted: &[u8]| memory::entries(meminfo).find(|(name, _)| *name == wanted).map(|(_, value)| value);
    Some((find(b"SwapTotal")?, find(b"SwapFree")?))
}

fn parse_moved(vmstat: &[u8]) -> Moved {
    let find =
        |prefix: &[u8]| scan::lines(vmstat).find_map(|line| line.strip_prefix(prefix)).and_then(scan::number);
    (find(b"pswpin "), find(b"pswpout "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_moved_pages_are_found() {
        assert_eq!(parse_size(b"SwapCached: 1 kB\nSwapTotal: 8 kB\nSwapFree: 3 kB\n"), Some((8192, 3072)));
        assert_eq!(parse_moved(b"nr_x 1\npswpin 12\npswpout 34\n"), (Some(12), Some(34)));
        assert_eq!((parse_size(b""), parse_moved(b"pswpin x\n")), (None, (None, None)));
    }
}
