//! History in SQLite: one connection for the engine, some for readers.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::{Connection, MAIN_DB, TransactionBehavior};
use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::StoreError;
use super::db::{self, Blobs, StoredEvent};
use super::dictionary::ColumnKey;
use super::storage::{Loaded, OpenBlob, Readers, Storage, StorageError, Transaction, View};

/// Connections for reading; more readers than these wait for one.
const READERS: usize = 4;

/// The file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    pub(super) connection: Connection,
}

impl Sqlite {
    /// Opens the file; makes it where there is none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { path: path.to_owned(), connection: db::open(path)? })
    }
}

impl Readers for Sqlite {
    fn read(&self, work: &mut dyn FnMut(&dyn View) -> Result<(), StoreError>) -> Result<(), StoreError> {
        work(&self.connection)
    }
}

impl Storage for Sqlite {
    fn load(&self) -> Result<Loaded, StoreError> {
        db::load(&self.path, &self.connection)
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>, StorageError> {
        Ok(Box::new(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?))
    }

    fn readers(&self) -> Box<dyn Readers + Sync> {
        Box::new(Pool::new(&self.path))
    }
}

impl View for Connection {
    fn keys(&self, blobs: Blobs, keys: Range<i64>) -> Result<Vec<i64>, StorageError> {
        Ok(db::keys_in(self, blobs, keys)?)
    }

    fn first_key(&self, blobs: Blobs, key: i64) -> Result<Option<i64>, StorageError> {
        Ok(db::first_key(self, blobs, key)?)
    }

    fn last_key(&self, blobs: Blobs, key: i64) -> Result<Option<i64>, StorageError> {
        Ok(db::last_key(self, blobs, key)?)
    }

    fn blob(&self, blobs: Blobs, key: i64) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(db::blob(self, blobs, key)?)
    }

    fn open_blob(&self, blobs: Blobs, key: i64) -> Result<Box<dyn OpenBlob + '_>, StorageError> {
        Ok(Box::new(self.blob_open(MAIN_DB, blobs.table(), "blob", key, true)?))
    }

    fn events(&self, times: Range<i64>, limit: usize) -> Result<Vec<StoredEvent>, StorageError> {
        Ok(db::events(self, times, limit)?)
    }

    fn last_events(&self) -> Result<Vec<StoredEvent>, StorageError> {
        Ok(db::last_events(self)?)
    }
}

impl OpenBlob for rusqlite::blob::Blob<'_> {
    fn size(&self) -> usize {
        self.len()
    }

    fn read_at(&self, into: &mut [u8], offset: usize) -> Result<(), StorageError> {
        Ok(self.read_at_exact(into, offset)?)
    }
}

impl Transaction for rusqlite::Transaction<'_> {
    fn view(&self) -> &dyn View {
        &**self
    }

    fn put_host(&mut self, number: u32, id: HostId) -> Result<(), StorageError> {
        Ok(db::put_host(self, number, id)?)
    }

    fn put_column(&mut self, number: u32, key: &ColumnKey) -> Result<(), StorageError> {
        Ok(db::put_column(self, number, key)?)
    }

    fn put_event(&mut self, event: &StoredEvent) -> Result<(), StorageError> {
        Ok(db::put_event(self, event)?)
    }

    fn put_cursor(&mut self, cursor: Position) -> Result<(), StorageError> {
        Ok(db::put_cursor(self, cursor)?)
    }

    fn put_blob(&mut self, blobs: Blobs, key: i64, blob: &[u8]) -> Result<(), StorageError> {
        Ok(db::put_blob(self, blobs, key, blob)?)
    }

    fn delete_blob(&mut self, blobs: Blobs, key: i64) -> Result<(), StorageError> {
        Ok(db::delete_blob(self, blobs, key)?)
    }

    fn delete_below(&mut self, blobs: Blobs, key: i64, limit: usize) -> Result<(), StorageError> {
        Ok(db::delete_below(self, blobs, key, limit)?)
    }

    fn delete_events_before(&mut self, time_ms: i64, limit: usize) -> Result<(), StorageError> {
        Ok(db::delete_events_before(self, time_ms, limit)?)
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok((*self).commit()?)
    }
}

impl From<rusqlite::Error> for StorageError {
    /// Damage is what is wrong with what lies in one place, not with the disk or the file as a whole.
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, TypeMismatch};
        let is_damage = matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | TypeMismatch))
            || matches!(error, rusqlite::Error::InvalidColumnType(..));
        if is_damage { Self::Damaged(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

/// Connections for reading.
#[derive(Debug)]
struct Pool {
    path: PathBuf,
    free: Mutex<Free>,
    returned: Condvar,
}

#[derive(Debug)]
struct Free {
    connections: Vec<Connection>,
    /// How many are open, free or not.
    open: usize,
}

impl Pool {
    fn new(path: &Path) -> Self {
        let free = Mutex::new(Free { connections: Vec::new(), open: 0 });
        Self { path: path.to_owned(), free, returned: Condvar::new() }
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(connection) = free.connections.pop() {
                return Ok(connection);
            }
            if free.open < READERS {
                let connection = db::open_reader(&self.path)?;
                free.open += 1;
                return Ok(connection);
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Readers for Pool {
    /// Runs `work` in a read transaction.
    fn read(&self, work: &mut dyn FnMut(&dyn View) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let slot = Slot { pool: self, connection: Some(self.take()?) };
        let Some(connection) = &slot.connection else { return Err(StoreError::Closed) };
        let transaction = connection.unchecked_transaction()?;
        work(&*transaction)
    }
}

/// Gives a connection back, also when the reader fails.
struct Slot<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.connections.extend(self.connection.take());
        self.pool.returned.notify_one();
    }
}
