//! Where history lies, as the engine and readers see it: `sqlite` is what a server uses, `memory_storage` serves simulations.

use std::fmt::Debug;
use std::ops::Range;

use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::StoreError;
use super::db::{Blobs, StoredEvent};
use super::dictionary::{ColumnKey, Dictionary};

/// Why a storage did not do what was asked of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// What lies in that place is damaged, and stays as it is; the rest may be readable.
    #[error("{0}")]
    Damaged(String),
    /// The disk, or the file as a whole. Nothing changed; worth trying again.
    #[error("{0}")]
    Failed(String),
}

/// What it holds beside blobs and events.
#[derive(Debug)]
pub struct Loaded {
    /// By number, without holes.
    pub hosts: Vec<HostId>,
    pub dictionary: Dictionary,
    pub cursor: Position,
}

/// What can be read, all as of one moment.
pub trait View {
    /// The keys of blobs in a range, ascending.
    fn keys(&self, blobs: Blobs, keys: Range<i64>) -> Result<Vec<i64>, StorageError>;
    /// The least key from `key` on.
    fn first_key(&self, blobs: Blobs, key: i64) -> Result<Option<i64>, StorageError>;
    /// The greatest key before `key`.
    fn last_key(&self, blobs: Blobs, key: i64) -> Result<Option<i64>, StorageError>;
    /// A whole blob.
    fn blob(&self, blobs: Blobs, key: i64) -> Result<Option<Vec<u8>>, StorageError>;
    /// A blob to be read in parts. It is there.
    fn open_blob(&self, blobs: Blobs, key: i64) -> Result<Box<dyn OpenBlob + '_>, StorageError>;
    /// The first events from `times`, in order of time and place, at most `limit`.
    fn events(&self, times: Range<i64>, limit: usize) -> Result<Vec<StoredEvent>, StorageError>;
    /// The newest event of each host that says whether it is there, ascending by host.
    fn last_events(&self) -> Result<Vec<StoredEvent>, StorageError>;
}

/// A blob to be read in parts.
pub trait OpenBlob {
    fn size(&self) -> usize;
    /// Fills `into` from `offset` on, or fails.
    fn read_at(&self, into: &mut [u8], offset: usize) -> Result<(), StorageError>;
}

/// Changes that come all or not at all. Dropped, none of them comes.
pub trait Transaction {
    /// What is there with the changes so far.
    fn view(&self) -> &dyn View;
    fn put_host(&mut self, number: u32, id: HostId) -> Result<(), StorageError>;
    fn put_column(&mut self, number: u32, key: &ColumnKey) -> Result<(), StorageError>;
    /// An event that is there stays as it is.
    fn put_event(&mut self, event: &StoredEvent) -> Result<(), StorageError>;
    fn put_cursor(&mut self, cursor: Position) -> Result<(), StorageError>;
    fn put_blob(&mut self, blobs: Blobs, key: i64, blob: &[u8]) -> Result<(), StorageError>;
    fn delete_blob(&mut self, blobs: Blobs, key: i64) -> Result<(), StorageError>;
    /// Deletes the first blobs below `key`, at most `limit`.
    fn delete_below(&mut self, blobs: Blobs, key: i64, limit: usize) -> Result<(), StorageError>;
    /// Deletes the first events before a time, at most `limit`.
    fn delete_events_before(&mut self, time_ms: i64, limit: usize) -> Result<(), StorageError>;
    /// Returns when all changes are durable.
    fn commit(self: Box<Self>) -> Result<(), StorageError>;
}

/// Gives views of what was committed.
pub trait Readers: Debug + Send {
    /// Runs `work` once, unless it cannot begin.
    fn read(&self, work: &mut dyn FnMut(&dyn View) -> Result<(), StoreError>) -> Result<(), StoreError>;
}

/// Where the engine, which alone writes, keeps history.
pub trait Storage: Readers {
    /// Reads hosts, dictionary and cursor.
    fn load(&self) -> Result<Loaded, StoreError>;
    /// Begins to change something.
    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StorageError>;
    /// For readers beside the engine.
    fn readers(&self) -> Box<dyn Readers + Sync>;
}

/// What `work` makes of a view.
pub(super) fn read_from<T>(
    readers: &dyn Readers,
    work: impl FnOnce(&dyn View) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let (mut work, mut made) = (Some(work), None);
    readers.read(&mut |view| {
        if let Some(work) = work.take() {
            made = Some(work(view)?);
        }
        Ok(())
    })?;
    made.ok_or(StoreError::Closed)
}
