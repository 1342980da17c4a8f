//! Reading: memory and blobs together.
//!
//! A reader first copies what it wants out of memory and then opens a read transaction. A sample that is sealed in between
//! is in both, and the merge makes it one; it can never be in neither.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range, RangeInclusive};

use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::blob::{self, BlobError, Directory, Entry, HEADER_BYTES, Header};
use super::db::{self, Blobs, StoredEvent};
use super::points::{self, Events, Row, RowRef};
use super::rows::Rows;
use super::storage::{StorageError, View, read_from};
use super::table::{Table, merge};
use super::{FieldInfo, Series, Shared, StoreError, Value, read};
use crate::field::FieldSelector;

/// Read at once of a blob: mostly its directory and times.
const FIRST_READ_BYTES: usize = 2 << 10;
/// Events that `each_row` holds at once; far more than one sample tells of.
const EVENTS: usize = 16 * vitals_wire::limits::MAX_EVENTS;
/// `fields` looks this far back from a host's newest sample.
const FIELDS_MS: i64 = 24 * 3_600_000;

/// Which columns of a blob are wanted.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// These numbers, ascending.
    Columns(&'a [u32]),
    /// The first value of each.
    Names,
    /// Every one.
    All,
    /// None, but of blobs that are whole.
    Times,
}

impl Wanted<'_> {
    fn has(self, number: u32) -> bool {
        match self {
            Self::Columns(columns) => columns.binary_search(&number).is_ok(),
            Self::Names | Self::All => true,
            Self::Times => false,
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
        self.each_hour(host, times.clone(), Wanted::Times, |table| {
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
        let Some(copied) = self.copy(host, &times) else { return Ok(()) };
        read_from(&*self.readers, |view| {
            if host != HostId::SERVER {
                return self.rows_among(view, &copied, times, Vec::new(), take).map(drop);
            }
            let mut from = times.start;
            loop {
                let mut events = joined(&copied.events, view, from..times.end, EVENTS)?;
                let mut to = times.end;
                if events.len() == EVENTS
                    && let Some(last) = events.last().map(|event| event.time_ms)
                {
                    // There may be more of its time.
                    events.retain(|event| event.time_ms < last);
                    to = last;
                }
                let go_on = self.rows_among(view, &copied, from..to, events, take)?;
                if to >= times.end || go_on.is_break() {
                    return Ok(());
                }
                from = to;
            }
        })
    }

    /// Gives `take` the host's samples with these events among them.
    fn rows_among(
        &self,
        view: &dyn View,
        copied: &Copied,
        times: Range<i64>,
        events: Vec<StoredEvent>,
        take: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut events = Events::new(events);
        let mut go_on = ControlFlow::Continue(());
        self.each_hour_of(view, copied, &times, Wanted::All, |table| {
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
        let in_file = read_from(&*self.readers, |view| {
            let mut before = i64::MAX;
            loop {
                let last = [Blobs::Pieces, Blobs::Raw].map(|blobs| view.last_key(blobs, before));
                let [pieces, raw] = last;
                let Some(last) = pieces?.max(raw?) else { return Ok(None) };
                let (hour, _) = db::hour_and_host(last);
                if newest.is_some_and(|newest| db::hour_start(hour + 1) <= newest) {
                    return Ok(None);
                }
                let tables = self.blobs_of(view, hour, number, Wanted::Columns(&[]))?;
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
        read_from(&*self.readers, |view| joined(&waiting, view, times, limit))
    }

    pub(super) fn last_events(&self) -> Result<Vec<StoredEvent>, StoreError> {
        let waiting = read(&self.memory).events.clone();
        let mut events = read_from(&*self.readers, |view| Ok(view.last_events()?))?;
        // Behind those of the file, in the order in which they came.
        events.extend(waiting.into_iter().filter(StoredEvent::says_presence));
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
        take: impl FnMut(&Table) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(copied) = self.copy(host, &times) else { return Ok(()) };
        read_from(&*self.readers, |view| self.each_hour_of(view, &copied, &times, wanted, take))
    }

    /// What memory holds of a host; `None` of one that is not known.
    fn copy(&self, host: HostId, times: &Range<i64>) -> Option<Copied> {
        let hours = hours_of(times);
        let memory = read(&self.memory);
        let number = memory.number(host)?;
        let open = memory.hosts[number as usize].open.iter();
        let rows = open.filter(|rows| hours.contains(&rows.hour)).cloned().collect();
        let events = if host == HostId::SERVER { memory.events.clone() } else { Vec::new() };
        Some(Copied { number, rows, events })
    }

    fn each_hour_of(
        &self,
        view: &dyn View,
        copied: &Copied,
        times: &Range<i64>,
        wanted: Wanted<'_>,
        mut take: impl FnMut(&Table) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        if times.is_empty() {
            return Ok(());
        }
        let hours = hours_of(times);
        let mut from = *hours.start();
        while let Some(hour) = next_hour(view, &copied.rows, from)?.filter(|hour| hours.contains(hour)) {
            from = hour + 1;
            let mut tables = self.blobs_of(view, hour, copied.number, wanted)?;
            let in_memory = copied.rows.iter().filter(|rows| rows.hour == hour);
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
    }

    /// The host's blobs of an hour, as far as they can be read: that of the merge first, then pieces as they came.
    fn blobs_of(
        &self,
        view: &dyn View,
        hour: i64,
        host: u32,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Table>, StoreError> {
        let mut tables = Vec::new();
        for blobs in [Blobs::Raw, Blobs::Pieces] {
            let keys = match view.keys(blobs, db::keys(hour, host)) {
                Ok(keys) => keys,
                Err(StorageError::Damaged(detail)) => {
                    self.damaged(blobs, db::key(hour, host), 0, &detail);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for key in keys {
                match read_blob(view, blobs, key, wanted) {
                    Ok(table) => tables.push(table),
                    Err(ReadError::Blob(error)) => {
                        let samples = view.blob(blobs, key).ok().flatten();
                        let samples = samples.map_or(0, |blob| blob::samples_of(&blob));
                        self.damaged(blobs, key, samples, &error.to_string());
                    }
                    Err(ReadError::Storage(StorageError::Damaged(detail))) => {
                        self.damaged(blobs, key, 0, &detail);
                    }
                    Err(ReadError::Storage(error)) => return Err(error.into()),
                }
            }
        }
        Ok(tables)
    }
}

/// What a reader copied out of memory, before it opened its view.
struct Copied {
    number: u32,
    rows: Vec<Rows>,
    /// All that wait, for those who ask for the server's own.
    events: Vec<StoredEvent>,
}

/// The hours that may hold samples of these times.
fn hours_of(times: &Range<i64>) -> RangeInclusive<i64> {
    let first = db::hour_of(times.start.max(0)).unwrap_or(i64::MAX);
    let last = times.end.saturating_sub(1);
    first..=db::hour_of(last).unwrap_or(if last < 0 { -1 } else { i64::MAX })
}

/// The first events within `times` of those that wait and those of the file.
fn joined(
    waiting: &[StoredEvent],
    view: &dyn View,
    times: Range<i64>,
    limit: usize,
) -> Result<Vec<StoredEvent>, StoreError> {
    let waiting = waiting.iter().filter(|event| times.contains(&event.time_ms)).cloned();
    let mut events = view.events(times.clone(), limit)?;
    events.extend(waiting);
    // Stable, so that what is in the file comes first of those with the same key.
    events.sort_by_key(|event| (event.time_ms, event.place));
    events.dedup_by_key(|event| (event.time_ms, event.place));
    events.truncate(limit);
    Ok(events)
}

/// The first hour from `from` on in which any host has samples.
fn next_hour(view: &dyn View, memory: &[Rows], from: i64) -> Result<Option<i64>, StoreError> {
    if db::hour_of(db::hour_start(from)).is_none() {
        return Ok(None);
    }
    let mut next = memory.iter().map(|rows| rows.hour).filter(|hour| *hour >= from).min();
    for blobs in [Blobs::Raw, Blobs::Pieces] {
        let hour = view.first_key(blobs, db::key(from, 0))?.map(|key| db::hour_and_host(key).0);
        next = next.into_iter().chain(hour).min();
    }
    Ok(next)
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Reads the wanted columns of a blob and little else.
fn read_blob(view: &dyn View, blobs: Blobs, key: i64, wanted: Wanted<'_>) -> Result<Table, ReadError> {
    if matches!(wanted, Wanted::All | Wanted::Times) {
        let blob = view.blob(blobs, key)?.ok_or(BlobError::Short)?;
        let table = match wanted {
            Wanted::Times => blob::read_times(&blob).map(|times| Table { times, columns: Vec::new() }),
            _ => blob::read_all(&blob),
        };
        return Ok(table?);
    }
    let blob = view.open_blob(blobs, key)?;
    let mut head = vec![0; blob.size().min(FIRST_READ_BYTES)];
    blob.read_at(&mut head, 0)?;
    let header = Header::read(&head)?;
    if header.head_bytes > blob.size() || header.head_bytes < HEADER_BYTES {
        return Err(BlobError::Short.into());
    }
    if header.head_bytes > head.len() {
        head.resize(header.head_bytes, 0);
        blob.read_at(&mut head, 0)?;
    }
    let directory = Directory::read(&head)?;
    let mut data = Vec::new();
    let mut read_data = |entry: &Entry| {
        let end = entry.offset.checked_add(entry.bytes).filter(|end| *end <= blob.size());
        let end = end.ok_or(BlobError::Short)?;
        data.clear();
        match head.get(entry.offset..end) {
            Some(found) => data.extend_from_slice(found),
            None => {
                data.resize(entry.bytes, 0);
                blob.read_at(&mut data, entry.offset)?;
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
