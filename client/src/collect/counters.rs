use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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
    /// Entries (cores, mounts, disks, interfaces, sensors) left out of samples because there are more than the protocol
    /// has room for, or because their names are no text or too long; once for each sample.
    pub left_out: AtomicU64,
    /// Of what some was left out, which is logged once.
    told: Mutex<BTreeSet<&'static str>>,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Some `what` were left out of a sample.
    pub(crate) fn leave_out(&self, what: &'static str, count: usize) {
        if count == 0 {
            return;
        }
        Self::add(&self.left_out, count);
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(what) {
            tracing::warn!(
                what,
                count,
                "some do not fit a sample and are left out of it, from now on counted only"
            );
        }
    }
}
