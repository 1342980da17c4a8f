//! History: SQLite with compressed stretches of time series in it.
//!
//! In the order in which data flow:
//!
//! - `layout` and `dictionary`: which columns the values of a sample belong to; `cell`: values as whole numbers.
//! - `rows` and `memory`: the newest samples of each host, in few bytes.
//! - `table`: samples by column, and the one merge; `column_codec`, `pack` and `blob`: a table at rest.
//! - `storage`: what a place for history does; `sqlite` and `db`: the file; `memory_storage`: one for simulations. `engine`: takes samples in, seals them into small blobs within minutes (`sweep`: each host at its own
//!   time), and about once an hour merges those into one blob for each host and hour.
//! - `query`: reads memory and file together; `points`: whole samples back as points. `thread`: reads the journal and drives the engine.
//!
//! The cursor in the file stands before the oldest sample that is only in memory, and moves in the transaction that seals;
//! after a crash the journal is read again from there. A sample that was sealed already is then there twice until the next
//! merge, and no reader sees it twice.

mod blob;
mod cell;
mod column_codec;
mod db;
mod dictionary;
mod engine;
mod error;
mod layout;
mod memory;
mod memory_storage;
mod pack;
mod points;
mod query;
mod rows;
mod spoke;
mod sqlite;
mod storage;
mod sweep;
mod table;
mod thread;
mod varint;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tracing::error;

pub use cell::Value;
pub use db::{StoredEvent, Usage};
pub use engine::{Engine, Now, Seal};
pub use error::StoreError;
#[doc(hidden)]
pub use memory_storage::{MemoryFault, MemoryStorage};
pub use points::{Row, RowPoint, RowRef, RowValue, write_row};
pub use spoke::spoke_since;
pub use thread::Store;

use crate::metrics::Counter;
use db::Blobs;
use dictionary::Dictionary;
use memory::Memory;
use storage::Readers;

/// Damaged blobs that are remembered, so that each is logged and counted once.
const MAX_DAMAGED: usize = 4096;

/// How history is kept.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The file, `history.db`; SQLite keeps two more beside it.
    pub path: PathBuf,
    /// How long raw samples are kept.
    pub keep_raw: Duration,
    /// How long events are kept.
    pub keep_events: Duration,
    /// How long a sample stays in memory (and in the journal) at most.
    pub seal_after: Duration,
    /// Time between transactions.
    pub commit_every: Duration,
    /// Memory for samples that are not sealed yet. When it is full they are sealed early; when that fails too the
    /// journal is not read until it succeeds.
    pub memory_bytes: usize,
}

impl StoreOptions {
    /// The defaults, at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            keep_raw: Duration::from_secs(7 * 24 * 3600),
            keep_events: Duration::from_secs(730 * 24 * 3600),
            seal_after: Duration::from_secs(300),
            commit_every: Duration::from_secs(5),
            memory_bytes: 256 << 20,
        }
    }

    /// The time before which raw samples may be gone: whole hours go.
    fn oldest_kept_ms(&self, now_ms: i64) -> i64 {
        let oldest =
            now_ms.saturating_sub(i64::try_from(self.keep_raw.as_millis()).unwrap_or(i64::MAX)).max(0);
        db::hour_of(oldest).map_or(oldest, db::hour_start)
    }
}

/// One field of one series of a host, over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Such as `disk`.
    pub measurement: String,
    /// Ascending by key, without the host's own.
    pub tags: Vec<(String, String)>,
    /// Such as `used_percent`.
    pub field: String,
    /// Time in ms and value, ascending by time, each time once.
    pub points: Vec<(i64, Value)>,
}

/// A field that a host has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldInfo {
    /// Such as `disk`.
    pub measurement: String,
    /// Ascending by key, without the host's own.
    pub tags: Vec<(String, String)>,
    /// Such as `used_percent`.
    pub field: String,
    /// A float, or else a whole number.
    pub is_float: bool,
}

/// What the store counts beside the server's `Metrics`.
#[derive(Debug, Default)]
pub struct StoreCounters {
    /// Blobs that could not be read and are skipped, each once since the start.
    pub damaged_blobs: Counter,
    /// Samples of such blobs: none of them is among `samples` and `rows` any more, though `series` reads those fields
    /// that are whole. As the blob says itself; 0 where SQLite cannot read it at all.
    pub damaged_samples: Counter,
    /// Transactions that failed and were tried again.
    pub failed_commits: Counter,
    /// Hours of a host that were merged.
    pub merged: Counter,
    /// Samples or fields for which no room was left in a bounded number: hosts, columns, pieces of an hour.
    pub unstorable: Counter,
}

/// What the store's thread and readers share.
#[derive(Debug)]
struct Shared {
    memory: RwLock<Memory>,
    dictionary: RwLock<Dictionary>,
    readers: Box<dyn Readers + Sync>,
    counters: StoreCounters,
    damaged: Mutex<HashSet<(Blobs, i64)>>,
}

impl Shared {
    fn new(readers: Box<dyn Readers + Sync>, memory: Memory, dictionary: Dictionary) -> Self {
        Self {
            memory: RwLock::new(memory),
            dictionary: RwLock::new(dictionary),
            readers,
            counters: StoreCounters::default(),
            damaged: Mutex::default(),
        }
    }

    /// Notes a blob of so many samples that cannot be read.
    fn damaged(&self, blobs: Blobs, key: i64, samples: usize, detail: &str) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if damaged.len() >= MAX_DAMAGED || !damaged.insert((blobs, key)) {
            return;
        }
        drop(damaged);
        self.counters.damaged_blobs.add(1);
        self.counters.damaged_samples.add(samples as u64);
        let (hour, number) = db::hour_and_host(key);
        let host = read(&self.memory).hosts.get(number as usize).map(|host| host.id.to_string());
        error!(
            host = host.as_deref().unwrap_or("unknown"),
            hour_ms = db::hour_start(hour),
            table = blobs.table(),
            key,
            samples,
            error = detail,
            "a stretch of history is damaged and is skipped"
        );
    }
}

// A reader that panicked has changed nothing, and the writer leaves memory whole between two calls.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod fault_tests;
#[cfg(test)]
#[path = "model_tests.rs"]
mod model_tests;
#[cfg(test)]
mod test_support;
