//! The file: SQLite's tables and what is asked of them.
//!
//! | table | what |
//! |---|---|
//! | `hosts` | a small number for each host |
//! | `columns` | the dictionary: a number for each measurement, tags, field and type |
//! | `pieces` | small blobs as they were sealed, until the merge |
//! | `raw` | one blob for each host and hour, made by the merge |
//! | `events` | what happened to hosts |
//! | `cursor` | the place in the journal up to which all is in this file |
//!
//! Keys of `pieces` and `raw` are numbers: from the highest bits down the hour (23 bits, since 1970), the host's number (24)
//! and, for pieces, a running number (16). So what is written together lies together, and what is old lies at the front.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, OptionalExtension, Transaction, params};
use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::StoreError;
use super::dictionary::{ColumnKey, Dictionary};
use super::storage::Loaded;

/// Layout of the tables.
pub(super) const VERSION: i64 = 1;
/// Marks the file as ours (`PRAGMA application_id`): "VitH".
const APPLICATION_ID: i64 = 0x5669_7448;
const HOUR_MS: i64 = 3_600_000;
const HOST_BITS: u32 = 24;
const PIECE_BITS: u32 = 16;
/// Hours that a key can hold: up to the year 2926.
const HOURS: Range<i64> = 0..1 << 23;
/// Hosts that a key can hold.
pub(super) const MAX_HOSTS: usize = 1 << HOST_BITS;
/// A writer waits this long for another process that looks into the file.
const BUSY: Duration = Duration::from_secs(5);
/// The write-ahead log is cut back to this size once it has been copied.
const WAL_BYTES: i64 = 64 << 20;

const SCHEMA: &str = "
CREATE TABLE hosts (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE columns (
    number INTEGER PRIMARY KEY,
    measurement TEXT NOT NULL,
    tags TEXT NOT NULL, -- JSON: [[key, value], …], ascending by key
    field TEXT NOT NULL,
    is_float INTEGER NOT NULL
) STRICT;
CREATE TABLE pieces (key INTEGER PRIMARY KEY, blob BLOB NOT NULL) STRICT;
CREATE TABLE raw (key INTEGER PRIMARY KEY, blob BLOB NOT NULL) STRICT;
CREATE TABLE events (
    time_ms INTEGER NOT NULL,
    place INTEGER NOT NULL, -- within the sample that told of it
    host BLOB NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (time_ms, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (
    one INTEGER PRIMARY KEY CHECK (one = 1), segment INTEGER NOT NULL, byte INTEGER NOT NULL
) STRICT;
";

/// For the newest event of each host. Made where it is missing: files of this layout were made without it.
const EVENTS_OF_HOST: &str = "CREATE INDEX IF NOT EXISTS events_of_host ON events (host, time_ms, place)";

/// The hour that a time lies in; `None` outside what a key can hold.
pub(super) fn hour_of(time_ms: i64) -> Option<i64> {
    Some(time_ms.div_euclid(HOUR_MS)).filter(|hour| HOURS.contains(hour))
}

/// When an hour begins, in ms.
pub(super) fn hour_start(hour: i64) -> i64 {
    hour * HOUR_MS
}

/// The first key of a host in an hour: that of its blob in `raw`, and of its first piece.
pub(super) fn key(hour: i64, host: u32) -> i64 {
    hour << (HOST_BITS + PIECE_BITS) | i64::from(host) << PIECE_BITS
}

/// Keys of one host in an hour.
pub(super) fn keys(hour: i64, host: u32) -> Range<i64> {
    key(hour, host)..key(hour, host) + (1 << PIECE_BITS)
}

/// The hour and the host that a key belongs to.
pub(super) fn hour_and_host(key: i64) -> (i64, u32) {
    (key >> (HOST_BITS + PIECE_BITS), (key >> PIECE_BITS) as u32 & ((1 << HOST_BITS) - 1))
}

/// The two tables of blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blobs {
    Pieces,
    Raw,
}

impl Blobs {
    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Pieces => "pieces",
            Self::Raw => "raw",
        }
    }
}

/// Opens the file for writing; makes it where there is none.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let explain = |error: rusqlite::Error| explain(path, &error);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(explain)?;
    connection.busy_timeout(BUSY).map_err(explain)?;
    let pragma = |connection: &Connection, name: &str| -> Result<i64, StoreError> {
        connection.pragma_query_value(None, name, |row| row.get(0)).map_err(explain)
    };
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(explain)?;
    let version = pragma(&connection, "user_version")?;
    if tables > 0 {
        if pragma(&connection, "application_id")? != APPLICATION_ID {
            return Err(StoreError::NotOurs { path: path.to_owned() });
        }
        if version > VERSION {
            return Err(StoreError::Newer { path: path.to_owned(), found: version, known: VERSION });
        }
    }
    if connection.is_readonly(MAIN_DB).map_err(explain)? {
        return Err(StoreError::Unavailable { path: path.to_owned(), detail: "it is read-only".to_owned() });
    }
    let set = |name: &str, value: &dyn rusqlite::ToSql| {
        connection.pragma_update(None, name, value).map_err(explain)
    };
    if tables == 0 {
        set("page_size", &4096)?;
    }
    set("journal_mode", &"WAL")?;
    set("synchronous", &"FULL")?;
    set("journal_size_limit", &WAL_BYTES)?;
    set("cache_size", &-8192)?;
    connection.set_prepared_statement_cache_capacity(32);
    if tables == 0 {
        let transaction = connection.transaction().map_err(explain)?;
        transaction.execute_batch(SCHEMA).map_err(explain)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(explain)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(explain)?;
        transaction.commit().map_err(explain)?;
    }
    connection.execute_batch(EVENTS_OF_HOST).map_err(explain)?;
    Ok(connection)
}

/// Opens the file for reading beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn explain(path: &Path, error: &rusqlite::Error) -> StoreError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError::NotOurs { path },
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged { path, detail },
        _ => StoreError::Unavailable { path, detail },
    }
}

/// Reads hosts, dictionary and cursor.
pub(super) fn load(path: &Path, connection: &Connection) -> Result<Loaded, StoreError> {
    let damaged = |detail: &str| StoreError::Damaged { path: path.to_owned(), detail: detail.to_owned() };
    let explain = |error| explain(path, &error);
    let mut hosts = Vec::new();
    let mut statement =
        connection.prepare("SELECT number, id FROM hosts ORDER BY number").map_err(explain)?;
    let mut rows = statement.query([]).map_err(explain)?;
    while let Some(row) = rows.next().map_err(explain)? {
        let (number, id): (i64, Vec<u8>) = (row.get(0).map_err(explain)?, row.get(1).map_err(explain)?);
        let id = <[u8; 16]>::try_from(id).map_err(|_| damaged("a host's id is of another size"))?;
        if number != hosts.len() as i64 {
            return Err(damaged("a host is missing"));
        }
        hosts.push(HostId(id));
    }
    let mut dictionary = Dictionary::default();
    let mut statement = connection
        .prepare("SELECT number, measurement, tags, field, is_float FROM columns ORDER BY number")
        .map_err(explain)?;
    let mut rows = statement.query([]).map_err(explain)?;
    while let Some(row) = rows.next().map_err(explain)? {
        let tags: String = row.get(2).map_err(explain)?;
        let tags: Vec<(Box<str>, Box<str>)> =
            serde_json::from_str(&tags).map_err(|_| damaged("a column's tags cannot be read"))?;
        let key = ColumnKey {
            measurement: row.get::<_, String>(1).map_err(explain)?.into(),
            tags: tags.into(),
            field: row.get::<_, String>(3).map_err(explain)?.into(),
            is_float: row.get(4).map_err(explain)?,
        };
        let number: i64 = row.get(0).map_err(explain)?;
        if dictionary.len() as i64 != number
            || dictionary.number(key).is_none_or(|given| i64::from(given) != number)
        {
            return Err(damaged("a column is missing"));
        }
    }
    let cursor = connection
        .query_row("SELECT segment, byte FROM cursor", [], |row| {
            Ok(Position { segment: row.get::<_, i64>(0)? as u64, offset: row.get::<_, i64>(1)? as u64 })
        })
        .optional()
        .map_err(explain)?
        .unwrap_or_default();
    Ok(Loaded { hosts, dictionary, cursor })
}

/// One thing that happened to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// When, in ms since 1970.
    pub time_ms: i64,
    /// Its place among those of the same time.
    pub place: u32,
    /// To whom.
    pub host: HostId,
    /// What the host was called then.
    pub name: String,
    /// What happened: `up`, `down`, `bye` or `cloned`.
    pub kind: String,
    /// For people: why, or for how long.
    pub detail: String,
}

impl StoredEvent {
    /// Whether it says that its host is there or not.
    pub(super) fn says_presence(&self) -> bool {
        *self.kind != *"cloned"
    }
}

pub(super) fn put_host(transaction: &Transaction<'_>, number: u32, id: HostId) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO hosts (number, id) VALUES (?1, ?2)")?
        .execute(params![number, id.0])
        .map(drop)
}

pub(super) fn put_column(
    transaction: &Transaction<'_>,
    number: u32,
    key: &ColumnKey,
) -> rusqlite::Result<()> {
    let tags = serde_json::to_string(&key.tags)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    transaction
        .prepare_cached(
            "INSERT INTO columns (number, measurement, tags, field, is_float) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![number, key.measurement, tags, key.field, key.is_float])
        .map(drop)
}

pub(super) fn put_event(transaction: &Transaction<'_>, event: &StoredEvent) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT OR IGNORE INTO events (time_ms, place, host, name, kind, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![event.time_ms, event.place, event.host.0, event.name, event.kind, event.detail])
        .map(drop)
}

pub(super) fn put_cursor(transaction: &Transaction<'_>, cursor: Position) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO cursor (one, segment, byte) VALUES (1, ?1, ?2)")?
        .execute(params![cursor.segment as i64, cursor.offset as i64])
        .map(drop)
}

/// Puts a blob where there is none, but for `raw`, where it takes the place of the one before.
pub(super) fn put_blob(
    transaction: &Transaction<'_>,
    blobs: Blobs,
    key: i64,
    blob: &[u8],
) -> rusqlite::Result<()> {
    let sql = match blobs {
        Blobs::Pieces => "INSERT INTO pieces (key, blob) VALUES (?1, ?2)",
        Blobs::Raw => "INSERT OR REPLACE INTO raw (key, blob) VALUES (?1, ?2)",
    };
    transaction.prepare_cached(sql)?.execute(params![key, blob]).map(drop)
}

pub(super) fn delete_blob(transaction: &Transaction<'_>, blobs: Blobs, key: i64) -> rusqlite::Result<()> {
    let sql = match blobs {
        Blobs::Pieces => "DELETE FROM pieces WHERE key = ?1",
        Blobs::Raw => "DELETE FROM raw WHERE key = ?1",
    };
    transaction.prepare_cached(sql)?.execute([key]).map(drop)
}

/// Deletes at most `limit` blobs below `key` from a table.
pub(super) fn delete_below(
    transaction: &Transaction<'_>,
    blobs: Blobs,
    key: i64,
    limit: usize,
) -> rusqlite::Result<()> {
    let table = blobs.table();
    let sql = format!(
        "DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE key < ?1 ORDER BY key LIMIT ?2)"
    );
    transaction.prepare_cached(&sql)?.execute(params![key, limit as i64]).map(drop)
}

pub(super) fn delete_events_before(
    transaction: &Transaction<'_>,
    time_ms: i64,
    limit: usize,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM events WHERE (time_ms, place) IN \
             (SELECT time_ms, place FROM events WHERE time_ms < ?1 ORDER BY time_ms, place LIMIT ?2)",
        )?
        .execute(params![time_ms, limit as i64])
        .map(drop)
}

/// Keys of a table from `keys`, ascending.
pub(super) fn keys_in(connection: &Connection, blobs: Blobs, keys: Range<i64>) -> rusqlite::Result<Vec<i64>> {
    let sql = match blobs {
        Blobs::Pieces => "SELECT key FROM pieces WHERE key >= ?1 AND key < ?2 ORDER BY key",
        Blobs::Raw => "SELECT key FROM raw WHERE key >= ?1 AND key < ?2 ORDER BY key",
    };
    connection.prepare_cached(sql)?.query_map(params![keys.start, keys.end], |row| row.get(0))?.collect()
}

/// The least key of a table from `key` on.
pub(super) fn first_key(connection: &Connection, blobs: Blobs, key: i64) -> rusqlite::Result<Option<i64>> {
    let sql = match blobs {
        Blobs::Pieces => "SELECT min(key) FROM pieces WHERE key >= ?1",
        Blobs::Raw => "SELECT min(key) FROM raw WHERE key >= ?1",
    };
    connection.prepare_cached(sql)?.query_row([key], |row| row.get(0))
}

/// The greatest key of a table before `key`.
pub(super) fn last_key(connection: &Connection, blobs: Blobs, key: i64) -> rusqlite::Result<Option<i64>> {
    let sql = match blobs {
        Blobs::Pieces => "SELECT max(key) FROM pieces WHERE key < ?1",
        Blobs::Raw => "SELECT max(key) FROM raw WHERE key < ?1",
    };
    connection.prepare_cached(sql)?.query_row([key], |row| row.get(0))
}

/// A whole blob.
pub(super) fn blob(connection: &Connection, blobs: Blobs, key: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = match blobs {
        Blobs::Pieces => "SELECT blob FROM pieces WHERE key = ?1",
        Blobs::Raw => "SELECT blob FROM raw WHERE key = ?1",
    };
    connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
}

/// The first events from `times`, in order, at most `limit`.
pub(super) fn events(
    connection: &Connection,
    times: Range<i64>,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    connection
        .prepare_cached(
            "SELECT time_ms, place, host, name, kind, detail FROM events \
             WHERE time_ms >= ?1 AND time_ms < ?2 ORDER BY time_ms, place LIMIT ?3",
        )?
        .query_map(params![times.start, times.end, limit.min(i64::MAX as usize) as i64], event)?
        .collect()
}

/// The newest event of each host that says whether it is there, ascending by host. Goes from host to host in the index, so it takes as long as there
/// are hosts, however many events.
pub(super) fn last_events(connection: &Connection) -> rusqlite::Result<Vec<StoredEvent>> {
    connection
        .prepare_cached(
            "WITH RECURSIVE known (host) AS (
                 SELECT min(host) FROM events
                 UNION ALL
                 SELECT (SELECT min(host) FROM events WHERE host > known.host) FROM known
                 WHERE known.host IS NOT NULL
             )
             SELECT events.time_ms, events.place, events.host, name, kind, detail FROM known CROSS JOIN events
             ON (events.time_ms, events.place) = (
                 SELECT time_ms, place FROM events AS of_host WHERE of_host.host = known.host AND kind <> 'cloned'
                 ORDER BY time_ms DESC, place DESC LIMIT 1
             )
             WHERE known.host IS NOT NULL",
        )?
        .query_map([], event)?
        .collect()
}

fn event(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        time_ms: row.get(0)?,
        place: row.get(1)?,
        host: HostId(row.get(2)?),
        name: row.get(3)?,
        kind: row.get(4)?,
        detail: row.get(5)?,
    })
}

/// What the file holds, in bytes and blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Pages in use.
    pub used_bytes: u64,
    /// Pages that are free for what comes next.
    pub free_bytes: u64,
    /// Merged blobs, one for each host and hour.
    pub raw_blobs: u64,
    /// Their bytes.
    pub raw_bytes: u64,
    /// Blobs that wait for a merge.
    pub piece_blobs: u64,
    /// Their bytes.
    pub piece_bytes: u64,
}

/// Looks at every blob's length: seconds for a large file.
pub(super) fn usage(connection: &Connection) -> rusqlite::Result<Usage> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let page = pragma("page_size")?;
    let free = pragma("freelist_count")?;
    let used = pragma("page_count")? - free;
    let count = |blobs: Blobs| {
        let sql = format!("SELECT count(*), ifnull(sum(length(blob)), 0) FROM {}", blobs.table());
        connection.query_row(&sql, [], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))
    };
    let ((raw_blobs, raw_bytes), (piece_blobs, piece_bytes)) = (count(Blobs::Raw)?, count(Blobs::Pieces)?);
    let (used_bytes, free_bytes) = ((used * page) as u64, (free * page) as u64);
    Ok(Usage { used_bytes, free_bytes, raw_blobs, raw_bytes, piece_blobs, piece_bytes })
}
