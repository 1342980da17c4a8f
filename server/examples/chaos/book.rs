//! What was done to whom and when: the accounts that the oracle holds the samples against.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::schedule::{Disk, Target};

/// Lines kept of each kind of trouble.
const MOST_LINES: usize = 20;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By SIGKILL.
    Killed,
    /// After SIGTERM.
    Stopped,
    /// By itself.
    ByItself,
}

/// A process that ended at a time in ms since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Which.
    pub target: Target,
    /// When it was gone.
    pub at_ms: i64,
    /// How.
    pub end: End,
}

/// All of it.
#[derive(Debug, Default, Clone)]
pub struct Entries {
    /// Ends of processes, in order.
    pub marks: Vec<Mark>,
    /// SIGSTOPs.
    pub stops: u64,
    /// Logs that were torn.
    pub torn: u64,
    /// When which disk was full: from and to, in ms since 1970.
    pub full: Vec<(Disk, i64, i64)>,
    /// Starts that failed while the disk was full.
    pub starts_failed_on_full: u64,
    /// What else was said by a process that did not start, or ended by itself.
    pub troubles: Vec<String>,
}

impl Entries {
    /// How often this process ended so.
    pub fn count(&self, target: Target, end: End) -> usize {
        self.marks.iter().filter(|mark| mark.target == target && mark.end == end).count()
    }

    /// Whether this disk was full at some time between these.
    pub fn was_full(&self, disk: Disk, from_ms: i64, to_ms: i64) -> bool {
        self.full.iter().any(|(which, from, to)| *which == disk && *from <= to_ms && from_ms <= *to)
    }
}

/// Shared by all that write into it.
#[derive(Debug, Default)]
pub struct Book(Mutex<Entries>);

impl Book {
    /// To read or to write.
    pub fn lock(&self) -> MutexGuard<'_, Entries> {
        // No writer leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process is gone.
    pub fn mark(&self, target: Target, end: End) {
        self.lock().marks.push(Mark { target, at_ms: now_ms(), end });
    }

    /// Something that nobody meant to happen.
    pub fn trouble(&self, what: String) {
        let mut entries = self.lock();
        if entries.troubles.len() < MOST_LINES {
            entries.troubles.push(what);
        }
    }
}

/// Now, in ms since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
