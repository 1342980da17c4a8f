//! Counts of processes: what costs nothing from `/proc/stat` and `/proc/loadavg`, the rest after a walk.

use vitals_wire::section::Processes;

use super::super::{Collector, Reading};
use super::scan;

pub(super) struct ProcessesCollector;

impl Collector for ProcessesCollector {
    fn collect(&mut self, reading: &mut Reading<'_>) {
        let (running, blocked) = reading.shared.stat().map(parse_stat).unwrap_or_default();
        let total_threads = reading.shared.loadavg().and_then(parse_threads);
        let (states, top) = reading.walk.take().map_or((None, None), |walk| (Some(walk.states), walk.top));
        let processes = Processes { running, blocked, total_threads, walk: states };
        if processes != Processes::default() {
            reading.sections.push(processes.into());
        }
        if let Some(top) = top {
            reading.sections.push(top.into());
        }
    }
}

/// Running and blocked ones.
fn parse_stat(stat: &[u8]) -> (Option<u32>, Option<u32>) {
    let find = |prefix: &[u8]| {
        let value = scan::lines(stat).find_map(|line| line.strip_prefix(prefix)).and_then(scan::number)?;
        u32::try_from(value).ok()
    };
    (find(b"procs_running "), find(b"procs_blocked "))
}

/// The second figure of `1/102`.
fn parse_threads(loadavg: &[u8]) -> Option<u32> {
    let word = scan::words(loadavg).nth(3)?;
    let slash = word.iter().position(|&b| b == b'/')?;
    scan::number(&word[slash + 1..])?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_blocked_and_threads_are_found() {
        assert_eq!(parse_stat(b"cpu 1\nprocesses 7\nprocs_running 3\nprocs_blocked 0\n"), (Some(3), Some(0)));
        assert_eq!(parse_threads(b"0.37 0.26 0.28 1/102 25168\n"), Some(102));
        assert_eq!((parse_stat(b""), parse_threads(b"0.1 0.2 0.3 1102 5")), ((None, None), None));
    }
}
