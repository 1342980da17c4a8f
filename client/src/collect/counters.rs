use std::sync::atomic::{AtomicU64, Ordering};

/// What went wrong while reading, counted since the start; for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Ticks at which no sample was taken, because the machine or the sampler was too late.
    pub missed_ticks: AtomicU64,
    /// Calls (`statvfs`, sensors) that did not answer within their deadline; one that hangs on counts once.
    pub hung_reads: AtomicU64,
    /// Calls that hang now.
    pub hanging_now: AtomicU64,
    /// Readings not asked for because too many threads hang already.
    pub skipped_reads: AtomicU64,
    /// Entries (mounts, disks, interfaces, sensors) over the protocol's caps, left out of samples.
    pub left_out: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
