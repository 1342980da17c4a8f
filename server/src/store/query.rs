//! Reading: memory and blobs together.
//!
//! A reader first copies what it wants out of memory and then opens a read transaction. A sample that is sealed in between
//! is in both, and the merge makes it one; it can never be in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::{Connection, MAIN_DB};
use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::blob::{self, BlobError, Directory, Entry, HEADER_BYTES, Header};
use super::db::{self, Blobs, StoredEvent};
use super::engine::is_damage;
use super::points::{self, Events, Row, RowRef};
use super::rows::Rows;
use super::table::{Table, merge};
use super::{FieldInfo, Series, Shared, StoreError, Value, read};
use crate::field::FieldSelector;

/// Connections for reading; more readers than these wait for one.
const READERS: usize = 4;
/// Read at once of a blob: mostly its directory and times.
const FIRST_READ_BYTES: usize = 2 << 10;
/// Events that `each_row` holds at once; far more than one sample tells of.
const EVENTS: usize = 16 * vitals_wire::limits::MAX_EVENTS;
/// `fields` looks this far back from a host's newest sample.
const FIELDS_MS: i64 = 24 * 3_600_000;

/// Connections for reading.
#[derive(Debug)]
pub(super) struct Pool {
    path: std::path::PathBuf,
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
    pub(super) fn new(path: &std::path::Path) -> Self {
        let free = Mutex::new(Free { connections: Vec::new(), open: 0 });
        Self { path: path.to_owned(), free, returned: Condvar::new() }
    }

    /// Runs `work` in a read transaction.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let slot = Slot { pool: self, connection: Some(self.take()?) };
        let Some(connection) = &slot.connection else { return Err(StoreError::Closed) };
        let transaction = connection.unchecked_transaction()?;
        work(&transaction)
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

/// Which columns of a blob are wanted.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// These numbers, ascending.
    Columns(&'a [u32]),
    /// The first value of each.
    Names,
    /// Every one.
    All,
}

impl Wanted<'_> {
    fn has(self, number: u32) -> bool {
        match self {
            Self::Columns(columns) => columns.binary_search(&number).is_ok(),
            Self::Names | Self::All => true,
        }
    }
}

impl Shared {
    pub(super) fn series(
        &self,
        host: HostId,
        selector: &FieldSelector,
        times: Range<i64>,
        limit: usize,
    ) -> Result<Vec<Series>, StoreError> {
        let columns = read(&self.dictionary).select(selector);
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let mut found: BTreeMap<u32, Vec<(i64, Value)>> = BTreeMap::new();
        let mut left = limit;
        self.each_hour(host, times.clone(), Wanted::Columns(&columns), |table| {
            for column in &table.columns {
                let rows = column.rows.iter().map(|row| table.times[*row as usize]).zip(&column.cells);
                let within = rows.filter(|(time, _)| times.contains(time));
                let points: Vec<_> = within.map(|(time, cell)| (time, column.kind.value(*cell))).collect();
                left = left.checked_sub(points.len()).ok_or(StoreError::TooManyPoints { limit })?;
                if !points.is_empty() {
                    found.entry(column.number).or_default().extend(points);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let dictionary = read(&self.dictionary);
        let series = found.into_iter().filter_map(|(number, points)| {
            let column = dictionary.column(number)?;
            Some(Series {
                measurement: column.measurement.to_string(),
                tags: column.tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
                field: column.field.to_string(),
                points,
            })
        });
        let mut series: Vec<Series> = series.collect();
        series.sort_by(|a, b| a.tags.cmp(&b.tags));
        Ok(series)
    }

    pub(super) fn samples(&self, host: HostId, times: Range<i64>) -> Result<Vec<i64>, StoreError> {
        let mut found = Vec::new();
        self.each_hour(host, times.clone(), Wanted::Columns(&[]), |table| {
            found.extend(table.times.iter().copied().filter(|time| times.contains(time)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    pub(super) fn rows(&self, host: HostId, times: Range<i64>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.each_row(host, times, &mut |row| {
            if rows.len() < limit {
                rows.push(row.to_row());
            }
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(rows)
    }

    pub(super) fn each_row(
        &self,
        host: HostId,
        times: Range<i64>,
        take: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if host != HostId::SERVER {
            return self.rows_among(host, times, Vec::new(), take).map(drop);
        }
        let mut from = times.start;
        loop {
            // Events first: those that come later come with samples that come later, and no stretch is final before
            // `position` has passed it.
            let mut events = self.events(from..times.end, EVENTS)?;
            let mut to = times.end;
            if events.len() == EVENTS
                && let Some(last) = events.last().map(|event| event.time_ms)
            {
                // There may be more of its time.
                events.retain(|event| event.time_ms < last);
                to = last;
            }
            let go_on = self.rows_among(host, from..to, events, take)?;
            if to >= times.end || go_on.is_break() {
                return Ok(());
            }
            from = to;
        }
    }

    /// Gives `take` the host's samples with these events among them.
    fn rows_among(
        &self,
        host: HostId,
        times: Range<i64>,
        events: Vec<StoredEvent>,
        take: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut events = Events::new(events);
        let mut go_on = ControlFlow::Continue(());
        self.each_hour(host, times.clone(), Wanted::All, |table| {
            let keys: Vec<_> = {
                let dictionary = read(&self.dictionary);
                table.columns.iter().map(|column| dictionary.column(column.number).cloned()).collect()
            };
            go_on = points::each_row(table, &keys, &times, &mut events, take);
            Ok(go_on)
        })?;
        if go_on.is_continue() {
            go_on = events.before(times.end, take);
        }
        Ok(go_on)
    }

    pub(super) fn fields(&self, host: HostId) -> Result<Vec<FieldInfo>, StoreError> {
        let Some(newest) = self.newest_ms(host)? else { return Ok(Vec::new()) };
        let mut numbers = BTreeSet::new();
        let since = newest.saturating_sub(FIELDS_MS)..newest.saturating_add(1);
        self.each_hour(host, since, Wanted::Names, |table| {
            numbers.extend(table.columns.iter().map(|column| column.number));
            Ok(ControlFlow::Continue(()))
        })?;
        let dictionary = read(&self.dictionary);
        let mut fields: Vec<FieldInfo> = numbers
            .into_iter()
            .filter_map(|number| dictionary.column(number))
            .map(|column| FieldInfo {
                measurement: column.measurement.to_string(),
                tags: column.tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
                field: column.field.to_string(),
                is_float: column.is_float,
            })
            .collect();
        fields.sort();
        Ok(fields)
    }

    pub(super) fn hosts(&self) -> Vec<HostId> {
        read(&self.memory).hosts.iter().map(|host| host.id).collect()
    }

    pub(super) fn position(&self) -> Position {
        read(&self.memory).position
    }

    pub(super) fn newest_ms(&self, host: HostId) -> Result<Option<i64>, StoreError> {
        let (number, newest) = {
            let memory = read(&self.memory);
            let Some(number) = memory.number(host) else { return Ok(None) };
            (number, memory.hosts[number as usize].newest_ms)
        };
        // Samples since the start may all be backlog: the file can know newer ones.
        let in_file = self.pool.read(|connection| {
            let mut before = i64::MAX;
            loop {
                let last = [Blobs::Pieces, Blobs::Raw].map(|blobs| db::last_key(connection, blobs, before));
                let [pieces, raw] = last;
                let Some(last) = pieces?.max(raw?) else { return Ok(None) };
                let (hour, _) = db::hour_and_host(last);
                if newest.is_some_and(|newest| db::hour_start(hour + 1) <= newest) {
                    return Ok(None);
                }
                let tables = self.blobs_of(connection, hour, number, Wanted::Columns(&[]))?;
                let newest = tables.iter().filter_map(|table| table.times.last().copied()).max();
                if newest.is_some() {
                    return Ok(newest);
                }
                before = db::key(hour, 0);
            }
        })?;
        Ok(newest.max(in_file))
    }

    pub(super) fn events(&self, times: Range<i64>, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        let waiting: Vec<StoredEvent> = read(&self.memory)
            .events
            .iter()
            .filter(|event| times.contains(&event.time_ms))
            .cloned()
            .collect();
        let mut events = self.pool.read(|connection| Ok(db::events(connection, times, limit)?))?;
        events.extend(waiting);
        // Stable, so that what is in the file comes first of those with the same key.
        events.sort_by_key(|event| (event.time_ms, event.place));
        events.dedup_by_key(|event| (event.time_ms, event.place));
        events.truncate(limit);
        Ok(events)
    }

    pub(super) fn last_events(&self) -> Result<Vec<StoredEvent>, StoreError> {
        let waiting = read(&self.memory).events.clone();
        let mut events = self.pool.read(|connection| Ok(db::last_events(connection)?))?;
        // Behind those of the file, in the order in which they came.
        events.extend(waiting);
        let mut newest: BTreeMap<HostId, StoredEvent> = BTreeMap::new();
        for event in events {
            let known = newest.entry(event.host).or_insert_with(|| event.clone());
            if (event.time_ms, event.place) > (known.time_ms, known.place) {
                *known = event;
            }
        }
        Ok(newest.into_values().collect())
    }

    /// Gives `take` the host's samples hour by hour, ascending, each once.
    fn each_hour(
        &self,
        host: HostId,
        times: Range<i64>,
        wanted: Wanted<'_>,
        mut take: impl FnMut(&Table) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        if times.is_empty() {
            return Ok(());
        }
        let hours = db::hour_of(times.start.max(0)).unwrap_or(i64::MAX)
            ..=db::hour_of(times.end - 1).unwrap_or(if times.end <= 0 { -1 } else { i64::MAX });
        let (number, memory) = {
            let memory = read(&self.memory);
            let Some(number) = memory.number(host) else { return Ok(()) };
            let open = memory.hosts[number as usize].open.iter();
            (number, open.filter(|rows| hours.contains(&rows.hour)).cloned().collect::<Vec<Rows>>())
        };
        self.pool.read(|connection| {
            let mut from = *hours.start();
            while let Some(hour) = next_hour(connection, &memory, from)?.filter(|hour| hours.contains(hour)) {
                from = hour + 1;
                let mut tables = self.blobs_of(connection, hour, number, wanted)?;
                let in_memory = memory.iter().filter(|rows| rows.hour == hour);
                tables.extend(in_memory.map(|rows| rows.table(|number| wanted.has(number))));
                let go_on = match &tables[..] {
                    [] => ControlFlow::Continue(()),
                    [table] if table.is_settled() => take(table)?,
                    tables => take(&merge(tables).0)?,
                };
                if go_on.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// The host's blobs of an hour, as far as they can be read: that of the merge first, then pieces as they came.
    fn blobs_of(
        &self,
        connection: &Connection,
        hour: i64,
        host: u32,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Table>, StoreError> {
        let mut tables = Vec::new();
        for blobs in [Blobs::Raw, Blobs::Pieces] {
            let keys = match db::keys_in(connection, blobs, db::keys(hour, host)) {
                Ok(keys) => keys,
                Err(error) if is_damage(&error) => {
                    self.damaged(blobs, db::key(hour, host), &error.to_string());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for key in keys {
                match read_blob(connection, blobs, key, wanted) {
                    Ok(table) => tables.push(table),
                    Err(ReadError::Blob(error)) => self.damaged(blobs, key, &error.to_string()),
                    Err(ReadError::Sql(error)) if is_damage(&error) => {
                        self.damaged(blobs, key, &error.to_string());
                    }
                    Err(ReadError::Sql(error)) => return Err(error.into()),
                }
            }
        }
        Ok(tables)
    }
}

/// The first hour from `from` on in which any host has samples.
fn next_hour(connection: &Connection, memory: &[Rows], from: i64) -> Result<Option<i64>, StoreError> {
    if db::hour_of(db::hour_start(from)).is_none() {
        return Ok(None);
    }
    let mut next = memory.iter().map(|rows| rows.hour).filter(|hour| *hour >= from).min();
    for blobs in [Blobs::Raw, Blobs::Pieces] {
        let hour = db::first_key(connection, blobs, db::key(from, 0))?.map(|key| db::hour_and_host(key).0);
        next = next.into_iter().chain(hour).min();
    }
    Ok(next)
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Reads the wanted columns of a blob and little else.
fn read_blob(
    connection: &Connection,
    blobs: Blobs,
    key: i64,
    wanted: Wanted<'_>,
) -> Result<Table, ReadError> {
    if matches!(wanted, Wanted::All) {
        let blob = db::blob(connection, blobs, key)?.ok_or(BlobError::Short)?;
        return Ok(blob::read_all(&blob)?);
    }
    let blob = connection.blob_open(MAIN_DB, blobs.table(), "blob", key, true)?;
    let mut head = vec![0; blob.len().min(FIRST_READ_BYTES)];
    blob.read_at_exact(&mut head, 0)?;
    let header = Header::read(&head)?;
    if header.head_bytes > blob.len() || header.head_bytes < HEADER_BYTES {
        return Err(BlobError::Short.into());
    }
    if header.head_bytes > head.len() {
        head.resize(header.head_bytes, 0);
        blob.read_at_exact(&mut head, 0)?;
    }
    let directory = Directory::read(&head)?;
    let mut data = Vec::new();
    let mut read_data = |entry: &Entry| {
        let end = entry.offset.checked_add(entry.bytes).filter(|end| *end <= blob.len());
        let end = end.ok_or(BlobError::Short)?;
        data.clear();
        match head.get(entry.offset..end) {
            Some(found) => data.extend_from_slice(found),
            None => {
                data.resize(entry.bytes, 0);
                blob.read_at_exact(&mut data, entry.offset)?;
            }
        }
        Ok::<_, ReadError>(std::mem::take(&mut data))
    };
    if matches!(wanted, Wanted::Names) {
        let names =
            directory.columns.iter().map(|entry| super::table::Column::new(entry.number, entry.kind()));
        return Ok(Table { times: Vec::new(), columns: names.collect() });
    }
    let times = directory.times(&read_data(&directory.times)?)?;
    let mut columns = Vec::new();
    for entry in directory.columns.iter().filter(|entry| wanted.has(entry.number)) {
        columns.push(directory.column(entry, &read_data(entry)?)?);
    }
    Ok(Table { times, columns })
}
