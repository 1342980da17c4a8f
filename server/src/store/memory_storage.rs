//! A storage in memory, for simulations: quick, deterministic, and told when to fail. What a server stores is lost with it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::StoreError;
use super::db::{Blobs, StoredEvent};
use super::dictionary::{ColumnKey, Dictionary};
use super::storage::{Loaded, OpenBlob, Readers, Storage, StorageError, Transaction, View};

/// How a storage in memory fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFault {
    /// Every change fails, as on a full disk.
    Full,
    /// The process dies: every call fails, and what was not committed is gone.
    Crash,
    /// As `Crash`, but a commit that is the first to fail was durable already.
    CrashAfterCommit,
}

/// A handle to a place in memory that stays when an engine is dropped; each clone is another handle to the same. An
/// engine that was dropped or crashed is followed by one on a clone, which finds what was committed.
///
/// No two engines may write at once.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// Readers hold on to what they began with.
    state: Arc<State>,
    /// Changing calls so far.
    calls: u64,
    /// From the call of this number on.
    fault: Option<(u64, MemoryFault)>,
}

#[derive(Debug, Clone, Default)]
struct State {
    hosts: Vec<HostId>,
    columns: Vec<ColumnKey>,
    pieces: BTreeMap<i64, Arc<[u8]>>,
    raw: BTreeMap<i64, Arc<[u8]>>,
    events: BTreeMap<(i64, u32), StoredEvent>,
    cursor: Position,
}

impl MemoryStorage {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fails in this way from now on, after `calls` more changing calls (to begin, to put, to delete, to commit).
    pub fn fail_after(&self, calls: u64, fault: MemoryFault) {
        let mut disk = self.lock();
        disk.fault = Some((disk.calls + calls, fault));
    }

    /// Ends a fault: there is room again, or the process is started anew. What an engine that crashed holds in its memory
    /// is not to be used any more.
    pub fn heal(&self) {
        self.lock().fault = None;
    }

    /// Changing calls so far.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Whether a fault has come that is not healed.
    pub fn is_failing(&self) -> bool {
        self.lock().fault().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> Result<Arc<State>, StorageError> {
        let disk = self.lock();
        match disk.fault() {
            Some(MemoryFault::Crash | MemoryFault::CrashAfterCommit) => Err(crashed()),
            Some(MemoryFault::Full) | None => Ok(disk.state.clone()),
        }
    }
}

fn crashed() -> StorageError {
    StorageError::Failed("the process has died".to_owned())
}

impl Disk {
    /// The fault that has come.
    fn fault(&self) -> Option<MemoryFault> {
        self.fault.filter(|(at, _)| self.calls > *at).map(|(_, fault)| fault)
    }

    /// Counts a changing call, and fails if its time has come.
    fn call(&mut self) -> Result<(), StorageError> {
        self.calls += 1;
        match self.fault() {
            None => Ok(()),
            Some(MemoryFault::Full) => Err(StorageError::Failed("the disk is full".to_owned())),
            Some(MemoryFault::Crash | MemoryFault::CrashAfterCommit) => Err(crashed()),
        }
    }
}

impl State {
    fn blobs(&self, blobs: Blobs) -> &BTreeMap<i64, Arc<[u8]>> {
        match blobs {
            Blobs::Pieces => &self.pieces,
            Blobs::Raw => &self.raw,
        }
    }

    fn blobs_mut(&mut self, blobs: Blobs) -> &mut BTreeMap<i64, Arc<[u8]>> {
        match blobs {
            Blobs::Pieces => &mut self.pieces,
            Blobs::Raw => &mut self.raw,
        }
    }
}

impl Readers for MemoryStorage {
    fn read(&self, work: &mut dyn FnMut(&dyn View) -> Result<(), StoreError>) -> Result<(), StoreError> {
        work(&*self.state()?)
    }
}

impl Storage for MemoryStorage {
    fn load(&self) -> Result<Loaded, StoreError> {
        let state = self.state()?;
        let mut dictionary = Dictionary::default();
        for key in &state.columns {
            dictionary.number(key.clone());
        }
        Ok(Loaded { hosts: state.hosts.clone(), dictionary, cursor: state.cursor })
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StorageError> {
        let mut disk = self.lock();
        disk.call()?;
        Ok(Box::new(Changes { disk, undo: Vec::new(), is_committed: false }))
    }

    fn readers(&self) -> Box<dyn Readers + Sync> {
        Box::new(self.clone())
    }
}

fn within<K: Ord>(range: &Range<K>) -> bool {
    range.start < range.end
}

impl View for State {
    fn keys(&self, blobs: Blobs, keys: Range<i64>) -> Result<Vec<i64>, StorageError> {
        if !within(&keys) {
            return Ok(Vec::new());
        }
        Ok(self.blobs(blobs).range(keys).map(|(key, _)| *key).collect())
    }

    fn first_key(&self, blobs: Blobs, key: i64) -> Result<Option<i64>, StorageError> {
        Ok(self.blobs(blobs).range(key..).next().map(|(key, _)| *key))
    }

    fn last_key(&self, blobs: Blobs, key: i64) -> Result<Option<i64>, StorageError> {
        Ok(self.blobs(blobs).range(..key).next_back().map(|(key, _)| *key))
    }

    fn blob(&self, blobs: Blobs, key: i64) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.blobs(blobs).get(&key).map(|blob| blob.to_vec()))
    }

    fn open_blob(&self, blobs: Blobs, key: i64) -> Result<Box<dyn OpenBlob + '_>, StorageError> {
        let blob = self.blobs(blobs).get(&key);
        Ok(Box::new(&**blob.ok_or_else(|| StorageError::Failed("no such blob".to_owned()))?))
    }

    fn events(&self, times: Range<i64>, limit: usize) -> Result<Vec<StoredEvent>, StorageError> {
        if !within(&times) {
            return Ok(Vec::new());
        }
        let events = self.events.range((times.start, 0)..(times.end, 0));
        Ok(events.take(limit).map(|(_, event)| event.clone()).collect())
    }

    fn last_events(&self) -> Result<Vec<StoredEvent>, StorageError> {
        let of_presence = self.events.values().filter(|event| event.says_presence());
        let by_host: BTreeMap<HostId, &StoredEvent> = of_presence.map(|event| (event.host, event)).collect();
        Ok(by_host.into_values().cloned().collect())
    }
}

impl OpenBlob for &[u8] {
    fn size(&self) -> usize {
        self.len()
    }

    fn read_at(&self, into: &mut [u8], offset: usize) -> Result<(), StorageError> {
        let part = offset.checked_add(into.len()).and_then(|end| self.get(offset..end));
        into.copy_from_slice(part.ok_or_else(|| StorageError::Failed("the blob is shorter".to_owned()))?);
        Ok(())
    }
}

/// How a change is taken back.
#[derive(Debug)]
enum Undo {
    Host,
    Column,
    Blob(Blobs, i64, Option<Arc<[u8]>>),
    Event((i64, u32), Option<StoredEvent>),
    Cursor(Position),
}

/// Changes under way. They are made at once and taken back unless they are committed; readers cannot begin meanwhile.
struct Changes<'a> {
    disk: MutexGuard<'a, Disk>,
    undo: Vec<Undo>,
    is_committed: bool,
}

impl Changes<'_> {
    /// What is to be changed, if changes do not fail.
    fn change(&mut self) -> Result<(&mut State, &mut Vec<Undo>), StorageError> {
        self.disk.call()?;
        Ok((Arc::make_mut(&mut self.disk.state), &mut self.undo))
    }
}

impl Drop for Changes<'_> {
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        let state = Arc::make_mut(&mut self.disk.state);
        for undo in self.undo.drain(..).rev() {
            match undo {
                Undo::Host => drop(state.hosts.pop()),
                Undo::Column => drop(state.columns.pop()),
                Undo::Blob(blobs, key, Some(before)) => drop(state.blobs_mut(blobs).insert(key, before)),
                Undo::Blob(blobs, key, None) => drop(state.blobs_mut(blobs).remove(&key)),
                Undo::Event(key, Some(before)) => drop(state.events.insert(key, before)),
                Undo::Event(key, None) => drop(state.events.remove(&key)),
                Undo::Cursor(before) => state.cursor = before,
            }
        }
    }
}

impl Transaction for Changes<'_> {
    fn view(&self) -> &dyn View {
        &*self.disk.state
    }

    fn put_host(&mut self, number: u32, id: HostId) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        if state.hosts.len() != number as usize {
            return Err(StorageError::Failed("a host's number is taken, or one is missing".to_owned()));
        }
        state.hosts.push(id);
        undo.push(Undo::Host);
        Ok(())
    }

    fn put_column(&mut self, number: u32, key: &ColumnKey) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        if state.columns.len() != number as usize {
            return Err(StorageError::Failed("a column's number is taken, or one is missing".to_owned()));
        }
        state.columns.push(key.clone());
        undo.push(Undo::Column);
        Ok(())
    }

    fn put_event(&mut self, event: &StoredEvent) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        let key = (event.time_ms, event.place);
        if let Entry::Vacant(place) = state.events.entry(key) {
            place.insert(event.clone());
            undo.push(Undo::Event(key, None));
        }
        Ok(())
    }

    fn put_cursor(&mut self, cursor: Position) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        undo.push(Undo::Cursor(std::mem::replace(&mut state.cursor, cursor)));
        Ok(())
    }

    fn put_blob(&mut self, blobs: Blobs, key: i64, blob: &[u8]) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        let before = state.blobs_mut(blobs).insert(key, blob.into());
        undo.push(Undo::Blob(blobs, key, before));
        Ok(())
    }

    fn delete_blob(&mut self, blobs: Blobs, key: i64) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        let before = state.blobs_mut(blobs).remove(&key);
        undo.push(Undo::Blob(blobs, key, before));
        Ok(())
    }

    fn delete_below(&mut self, blobs: Blobs, key: i64, limit: usize) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        let old: Vec<i64> = state.blobs(blobs).range(..key).take(limit).map(|(key, _)| *key).collect();
        for key in old {
            undo.push(Undo::Blob(blobs, key, state.blobs_mut(blobs).remove(&key)));
        }
        Ok(())
    }

    fn delete_events_before(&mut self, time_ms: i64, limit: usize) -> Result<(), StorageError> {
        let (state, undo) = self.change()?;
        let old: Vec<_> = state.events.range(..(time_ms, 0)).take(limit).map(|(key, _)| *key).collect();
        for key in old {
            undo.push(Undo::Event(key, state.events.remove(&key)));
        }
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<(), StorageError> {
        let was_failing = self.disk.fault().is_some();
        let called = self.disk.call();
        // One that dies before its answer comes.
        let is_durable = !was_failing && self.disk.fault() == Some(MemoryFault::CrashAfterCommit);
        self.is_committed = called.is_ok() || is_durable;
        called
    }
}

#[cfg(test)]
#[path = "memory_storage_tests.rs"]
mod tests;
