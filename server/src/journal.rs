//! The journal: the one durable log. Committing to it is what acknowledges.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vitals_wire::log::Position;
use vitals_wire::record::Record;

use crate::metrics::Metrics;

/// How the journal is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Its directory.
    pub dir: PathBuf,
    /// Size at which a new segment begins.
    pub segment_bytes: u64,
    /// Size at which appends are refused until readers have passed the oldest segments.
    pub cap_bytes: u64,
    /// Time that a commit waits for others to join it.
    pub group: Duration,
}

/// Why a record was not committed. Nothing of it stays; the sender keeps its batch and sends it again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The queue of records that wait for a commit is full.
    #[error("the journal's queue is full")]
    Busy,
    /// The journal is at its cap and the store has not passed its oldest segment.
    #[error("the journal is full")]
    Full,
    /// The disk said no.
    #[error("{0}")]
    Disk(String),
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// A handle to the journal, cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {}

/// Resolves when the record is on disk, or will never be.
#[derive(Debug)]
pub struct Commit {}

/// A committed record, and the place after it.
#[derive(Debug)]
pub struct Entry {
    /// Where the next record begins: the cursor once this one has been dealt with.
    pub after: Position,
    /// The record.
    pub record: Record,
    /// Bytes it takes in the journal.
    pub bytes: u64,
}

/// Reads committed records from a place on.
#[derive(Debug)]
pub struct JournalReader {}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Journal {
    pub fn open(options: JournalOptions, metrics: Arc<Metrics>) -> Result<Journal, JournalError> {
        todo!()
    }
    /// Hands over a record without waiting. The returned `Commit` is awaited for the outcome.
    pub fn append(&self, record: &Record) -> Result<Commit, JournalError> {
        todo!()
    }
    /// Registers a reader by name from `from` on (a place that is gone means the oldest that is left). Segments go
    /// when every registered reader has passed them.
    pub fn reader(&self, name: &'static str, from: Position) -> Result<JournalReader, JournalError> {
        todo!()
    }
    /// Why nothing can be committed now, if so.
    pub fn trouble(&self) -> Option<String> {
        todo!()
    }
    /// The place after the last committed record.
    pub fn end(&self) -> Position {
        todo!()
    }
    /// Commits what waits, refuses what comes after, and ends the thread.
    pub async fn close(&self) {
        todo!()
    }
}

#[allow(missing_docs, clippy::todo)]
impl Commit {
    pub async fn wait(self) -> Result<(), JournalError> {
        todo!()
    }
}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl JournalReader {
    /// The next committed record, if there is one now. A record that cannot be read is skipped, counted and logged.
    pub fn try_next(&mut self) -> Result<Option<Entry>, JournalError> {
        todo!()
    }
    /// Waits until there may be one, at most `timeout`; false when the journal was closed and all is read.
    pub fn wait_blocking(&self, timeout: Duration) -> bool {
        todo!()
    }
    /// The same for tasks.
    pub async fn wait(&mut self, timeout: Duration) -> bool {
        todo!()
    }
    /// Everything before `position` is no longer needed by this reader, durably so: segments may go.
    pub fn passed(&self, position: Position) {
        todo!()
    }
    /// Bytes between `position` and the journal's end.
    pub fn lag_bytes(&self, position: Position) -> u64 {
        todo!()
    }
}
