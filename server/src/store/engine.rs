//! What the store's thread does: takes samples in, seals and merges them. Time is told to it, so that tests need no clock.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use tracing::{error, info, warn};
use vitals_wire::ids::HostId;
use vitals_wire::log::Position;
use vitals_wire::message::DropReason;
use vitals_wire::record::Record;
use vitals_wire::sample::Sample;
use vitals_wire::section::Section;

use super::blob::{self, BlobEncoder};
use super::db::{self, Blobs, StoredEvent, Usage};
use super::layout::Layouts;
use super::memory::Memory;
use super::rows::Scratch;
use super::sqlite::Sqlite;
use super::storage::{Storage, StorageError, Transaction, read_from};
use super::sweep::Sweep;
use super::table::{Table, merge};
use super::{Row, RowRef, Series, Shared, StoreCounters, StoreError, StoreOptions, read, write};
use crate::field::FieldSelector;
use crate::metrics::Metrics;

/// Hours that a host may have open; samples for more of them (a clock that jumps) make it be sealed early.
pub(super) const MAX_OPEN_HOURS: usize = 4;
/// Bytes of samples for one hour of a host that make it be sealed early.
const MAX_ROWS_BYTES: usize = 64 << 10;
/// Rows beyond those bounds that make a commit come at once.
const MAX_SURPLUS: usize = 256;
/// Hosts sealed in one transaction.
const SEAL_HOSTS: usize = 512;
/// Hosts merged in one transaction.
const MERGE_HOSTS: usize = 32;
/// Pieces of a host in an hour that are merged although the hour is not over.
const CROWDED: usize = 48;
/// Bytes of blobs that are merged into one; a host that sends more an hour keeps its pieces.
const MAX_MERGE_BYTES: usize = 32 << 20;
/// Blobs, and events, deleted in one transaction because of their age.
const DELETE_ROWS: usize = 512;
/// An hour is merged this long after it ended and its last samples were due to be sealed.
const MERGE_SLACK_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Rising, from any beginning.
    pub steady_ms: i64,
    /// Since 1970.
    pub wall_ms: i64,
}

/// What a commit seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// Whose turn it is, and the surplus.
    Due,
    /// All.
    All,
}

/// The store without its thread and its journal: for measurements and simulations. `Store` is what a server uses.
#[derive(Debug)]
pub struct Engine<S: Storage = Sqlite> {
    pub(super) shared: Arc<Shared>,
    pub(super) storage: S,
    options: StoreOptions,
    metrics: Arc<Metrics>,
    layouts: Layouts,
    values: Vec<i64>,
    scratch: Scratch,
    encoder: BlobEncoder,
    /// The place in the journal up to which samples were taken in.
    position: Position,
    /// The place in the file.
    cursor: Position,
    /// Hosts and columns that the file does not have yet begin at these numbers.
    hosts_in_file: usize,
    columns_in_file: usize,
    /// Hosts that are sealed at the next commit, whosever turn it is.
    surplus_hosts: BTreeSet<u32>,
    surplus: usize,
    seal_sweep: Sweep,
    merge_sweep: Sweep,
}

impl Engine {
    /// Opens the file and reads what is needed of it.
    pub fn open(options: StoreOptions, metrics: Arc<Metrics>, now: Now) -> Result<Self, StoreError> {
        let storage = Sqlite::open(&options.path)?;
        Self::open_on(storage, options, metrics, now)
    }

    /// What the file holds.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        Ok(db::usage(&self.storage.connection)?)
    }

    /// Copies the write-ahead log into the file, as far as readers let it.
    pub(super) fn checkpoint(&self) {
        let busy = self
            .storage
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        let why = match busy {
            Ok(false) => return,
            Ok(true) => "a reader is in the way".to_owned(),
            Err(error) => error.to_string(),
        };
        warn!(error = why, "the log of history could not be copied into its file and stays beside it");
    }
}

impl<S: Storage> Engine<S> {
    /// Opens what lies in `storage`; the path of the options plays no part.
    pub fn open_on(
        storage: S,
        options: StoreOptions,
        metrics: Arc<Metrics>,
        now: Now,
    ) -> Result<Self, StoreError> {
        let loaded = storage.load()?;
        let mut memory = Memory::default();
        memory.position = loaded.cursor;
        for id in &loaded.hosts {
            memory.add(*id);
        }
        let hosts = memory.hosts.len();
        let cycle = options.seal_after.saturating_sub(options.commit_every * 2).max(options.seal_after / 2);
        let columns_in_file = loaded.dictionary.len();
        let shared = Arc::new(Shared::new(storage.readers(), memory, loaded.dictionary));
        Ok(Self {
            shared,
            storage,
            layouts: Layouts::default(),
            values: Vec::new(),
            scratch: Scratch::default(),
            encoder: BlobEncoder::default(),
            position: loaded.cursor,
            cursor: loaded.cursor,
            hosts_in_file: hosts,
            columns_in_file,
            surplus_hosts: BTreeSet::new(),
            surplus: 0,
            seal_sweep: Sweep::new(cycle.as_millis() as i64, now.steady_ms, hosts),
            merge_sweep: Sweep::new(HOUR_MS, now.wall_ms, hosts),
            options,
            metrics,
        })
    }

    /// The place in the journal from which samples are wanted after a restart.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// The place in the journal up to which samples were taken in.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Samples are taken in from this place on: the cursor, or what the journal has instead of it.
    pub fn begin_at(&mut self, position: Position) {
        // A new history begins where the journal does.
        if position != self.cursor && self.cursor != Position::default() {
            warn!(cursor = %self.cursor, %position, "the journal does not reach back to the cursor of history");
        }
        self.position = position;
        self.cursor = position;
        write(&self.shared.memory).position = position;
    }

    /// All before `to` was taken in, or cannot be read: what is damaged at the journal's end comes with no record.
    pub fn caught_up(&mut self, to: Position) {
        if to > self.position {
            self.position = to;
            write(&self.shared.memory).position = to;
        }
    }

    /// Takes a record in; `after` is the place behind it.
    pub fn ingest(&mut self, record: &Record, after: Position) {
        let first = self.position;
        self.position = after;
        let shared = self.shared.clone();
        let mut memory = write(&shared.memory);
        // Whoever sees it sees the record's samples too: they come under the same lock.
        memory.position = after;
        let known = memory.number(record.host);
        let host = match known {
            Some(host) => host,
            None if memory.hosts.len() >= db::MAX_HOSTS => {
                error!(host = %record.host, "no more hosts can be stored");
                self.shared.counters.unstorable.add(record.samples.len() as u64);
                return;
            }
            None => memory.add(record.host),
        };
        for sample in &record.samples {
            self.ingest_sample(&mut memory, host, sample, first);
        }
        let without_column = std::mem::take(&mut self.layouts.without_column);
        if without_column > 0 {
            error!(host = %record.host, fields = without_column, "no more fields can be stored");
            self.shared.counters.unstorable.add(without_column);
        }
    }

    fn ingest_sample(&mut self, memory: &mut Memory, host: u32, sample: &Sample, first: Position) {
        let Some(hour) = db::hour_of(sample.time_ms) else {
            let reason = if sample.time_ms < 0 { DropReason::TooOld } else { DropReason::ClockAhead };
            self.metrics.samples_dropped.add(reason.word(), 1);
            return;
        };
        for section in &sample.sections {
            if let Section::Events(events) = section {
                memory.events.extend(events.events.iter().zip(0..).map(|(event, place)| StoredEvent {
                    time_ms: sample.time_ms,
                    place,
                    host: event.host,
                    name: event.name.to_string(),
                    kind: event.kind.word().to_owned(),
                    detail: event.detail.to_string(),
                }));
            }
        }
        let Some(of_host) = memory.hosts.get_mut(host as usize) else { return };
        let layout =
            self.layouts.resolve(sample, of_host.layout.as_ref(), &self.shared.dictionary, &mut self.values);
        let open = of_host.open.len();
        let place = of_host.rows_of(hour, first);
        let is_new = of_host.open.len() > open;
        let rows = &mut of_host.open[place];
        let before = if is_new { 0 } else { rows.memory() };
        rows.push(sample.time_ms, &layout, &self.values, &mut self.scratch);
        memory.bytes = memory.bytes + rows.memory() - before;
        let is_long = rows.len() > MAX_ROWS_BYTES;
        let is_one_more = is_new && of_host.open.len() > MAX_OPEN_HOURS;
        of_host.layout = Some(layout);
        of_host.newest_ms = of_host.newest_ms.max(Some(sample.time_ms));
        if is_one_more || (is_long && !self.surplus_hosts.contains(&host)) {
            self.surplus += 1;
            self.surplus_hosts.insert(host);
        }
    }

    /// Whether a commit should not wait.
    pub fn is_urgent(&self) -> bool {
        self.surplus >= MAX_SURPLUS || self.is_full()
    }

    /// Whether memory holds as much as it may: then nothing is to be taken in until a commit has succeeded.
    pub fn is_full(&self) -> bool {
        read(&self.shared.memory).bytes >= self.options.memory_bytes
    }

    /// Seals what is to be sealed, in transactions that also move the cursor. A failure leaves memory as it is, to be
    /// tried again.
    pub fn commit(&mut self, now: Now, seal: Seal) -> Result<(), StoreError> {
        let hosts = read(&self.shared.memory).hosts.len();
        let (ranges, after) = self.seal_sweep.due(now.steady_ms, hosts);
        let mut targets: Vec<u32> = if seal == Seal::All || self.is_full() {
            (0..hosts as u32).collect()
        } else {
            let due = ranges.into_iter().flatten().map(|host| host as u32);
            due.chain(self.surplus_hosts.iter().copied()).collect()
        };
        targets.sort_unstable();
        targets.dedup();
        {
            let memory = read(&self.shared.memory);
            targets.retain(|host| !memory.hosts[*host as usize].open.is_empty());
        }
        let mut batches = targets.chunks(SEAL_HOSTS);
        // Also where nothing is to be sealed: events, new names and the cursor want to go on.
        self.seal(batches.next().unwrap_or_default())?;
        for batch in batches {
            self.seal(batch)?;
        }
        self.seal_sweep = after;
        self.surplus_hosts.clear();
        self.surplus = 0;
        self.layouts.forget_unused();
        Ok(())
    }

    /// Seals all of these hosts, ascending, in one transaction.
    fn seal(&mut self, hosts: &[u32]) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        // Readers go on; nobody else writes.
        let memory = read(&shared.memory);
        let dictionary = read(&shared.dictionary);
        let cursor = memory.oldest(|host| hosts.binary_search(&host).is_ok()).unwrap_or(self.position);
        let (events, columns) = (memory.events.len(), dictionary.len());
        let is_idle = hosts.is_empty()
            && cursor == self.cursor
            && events == 0
            && memory.hosts.len() == self.hosts_in_file
            && columns == self.columns_in_file;
        if is_idle {
            return Ok(());
        }
        let mut transaction = self.storage.begin()?;
        for (number, host) in memory.hosts.iter().enumerate().skip(self.hosts_in_file) {
            transaction.put_host(number as u32, host.id)?;
        }
        for number in self.columns_in_file as u32..columns as u32 {
            if let Some(column) = dictionary.column(number) {
                transaction.put_column(number, column)?;
            }
        }
        for event in &memory.events {
            transaction.put_event(event)?;
        }
        let (mut duplicates, mut lost) = (0, 0);
        for host in hosts {
            for rows in &memory.hosts[*host as usize].open {
                let mut table = rows.table(|_| true);
                if !table.is_settled() {
                    let (settled, twice) = merge(&[table]);
                    table = settled;
                    duplicates += twice;
                }
                let stored = match self.encoder.encode(&table) {
                    Ok(blob) => put_piece(&mut *transaction, rows.hour, *host, &blob)?,
                    Err(error) => {
                        error!(host = %memory.hosts[*host as usize].id, %error, "samples cannot be encoded");
                        false
                    }
                };
                if !stored {
                    lost += table.times.len() as u64;
                }
            }
        }
        transaction.put_cursor(cursor)?;
        transaction.commit()?;
        let hosts_known = memory.hosts.len();
        drop((memory, dictionary));

        let mut memory = write(&shared.memory);
        memory.events.drain(..events);
        hosts.iter().for_each(|host| memory.sealed(*host));
        drop(memory);
        self.hosts_in_file = hosts_known;
        self.columns_in_file = columns;
        self.cursor = cursor;
        self.metrics.samples_duplicate.add(duplicates);
        if lost > 0 {
            error!(samples = lost, "samples could not be stored: their hour has no room left");
            self.shared.counters.unstorable.add(lost);
        }
        Ok(())
    }

    /// Merges the pieces of the hosts whose turn it is, and deletes what is too old. What fails stays and is tried again.
    pub fn tidy(&mut self, now: Now) -> Result<(), StoreError> {
        let hosts = read(&self.shared.memory).hosts.len();
        let (ranges, after) = self.merge_sweep.due(now.wall_ms, hosts);
        for range in ranges {
            self.merge_hosts(range.start as u32..range.end as u32, now)?;
        }
        self.merge_sweep = after;
        self.delete_old(now.wall_ms)
    }

    /// Merges the pieces of these hosts in every hour that is over.
    pub fn merge_hosts(&mut self, hosts: std::ops::Range<u32>, now: Now) -> Result<(), StoreError> {
        if hosts.is_empty() {
            return Ok(());
        }
        let slack = MERGE_SLACK_MS.saturating_add(self.options.seal_after.as_millis() as i64);
        let found = read_from(&self.storage, |view| {
            let mut found: Vec<Vec<i64>> = Vec::new();
            let mut from = 0;
            while let Some(first) = view.first_key(Blobs::Pieces, from)? {
                let (hour, _) = db::hour_and_host(first);
                from = db::key(hour + 1, 0);
                let keys = db::key(hour, hosts.start)..db::keys(hour, hosts.end - 1).end;
                let is_over = db::hour_start(hour + 1).saturating_add(slack) <= now.wall_ms;
                let keys = view.keys(Blobs::Pieces, keys)?;
                let of_hosts = keys.chunk_by(|a, b| db::hour_and_host(*a) == db::hour_and_host(*b));
                found.extend(of_hosts.filter(|keys| is_over || keys.len() >= CROWDED).map(<[i64]>::to_vec));
            }
            Ok(found)
        })?;
        for batch in found.chunks(MERGE_HOSTS) {
            let mut transaction = self.storage.begin()?;
            let mut duplicates = 0;
            for pieces in batch {
                duplicates += merge_pieces(&mut *transaction, &self.shared, &mut self.encoder, pieces)?;
            }
            transaction.commit()?;
            self.metrics.samples_duplicate.add(duplicates);
        }
        Ok(())
    }

    fn delete_old(&mut self, wall_ms: i64) -> Result<(), StoreError> {
        let key = db::key(db::hour_of(self.options.oldest_kept_ms(wall_ms)).unwrap_or_default(), 0);
        let events_before = wall_ms.saturating_sub(self.options.keep_events.as_millis() as i64);
        let is_old = |found: Option<i64>| found.is_some_and(|found| found < key);
        let (has_old, has_old_events) = read_from(&self.storage, |view| {
            let has_old = is_old(view.first_key(Blobs::Raw, 0)?) || is_old(view.first_key(Blobs::Pieces, 0)?);
            Ok((has_old, !view.events(i64::MIN..events_before, 1)?.is_empty()))
        })?;
        if !has_old && !has_old_events {
            return Ok(());
        }
        let mut transaction = self.storage.begin()?;
        transaction.delete_below(Blobs::Raw, key, DELETE_ROWS)?;
        transaction.delete_below(Blobs::Pieces, key, DELETE_ROWS)?;
        transaction.delete_events_before(events_before, DELETE_ROWS)?;
        transaction.commit()?;
        Ok(())
    }

    /// `Store::samples`.
    pub fn samples(&self, host: HostId, from_ms: i64, to_ms: i64) -> Result<Vec<i64>, StoreError> {
        self.shared.samples(host, from_ms..to_ms)
    }

    /// `Store::rows`.
    pub fn rows(&self, host: HostId, from_ms: i64, to_ms: i64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.shared.rows(host, from_ms..to_ms, limit)
    }

    /// `Store::each_row`.
    pub fn each_row(
        &self,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
        mut take: impl FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.shared.each_row(host, from_ms..to_ms, &mut take)
    }

    /// `Store::events`.
    pub fn events(&self, from_ms: i64, to_ms: i64, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.shared.events(from_ms..to_ms, limit)
    }

    /// `Store::last_events`.
    pub fn last_events(&self) -> Result<Vec<StoredEvent>, StoreError> {
        self.shared.last_events()
    }

    /// `Store::newest_ms`.
    pub fn newest_ms(&self, host: HostId) -> Result<Option<i64>, StoreError> {
        self.shared.newest_ms(host)
    }

    /// `Store::hosts`.
    pub fn hosts(&self) -> Vec<HostId> {
        self.shared.hosts()
    }

    /// `Store::counters`.
    pub fn counters(&self) -> &StoreCounters {
        &self.shared.counters
    }

    /// `Store::series`.
    pub fn series(
        &self,
        host: HostId,
        field: &FieldSelector,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Series>, StoreError> {
        self.shared.series(host, field, from_ms..to_ms, limit)
    }

    /// Logs the start.
    pub(super) fn log_start(&self) {
        let (hosts, columns) = (self.hosts_in_file, self.columns_in_file);
        info!(path = %self.options.path.display(), hosts, columns, cursor = %self.cursor, "history is open");
    }

    /// Layouts and points that are known.
    #[cfg(test)]
    pub(super) fn layouts(&self) -> (usize, usize) {
        self.layouts.len()
    }
}

/// Merges the pieces of one host and hour with the blob that is there, and tells how many samples were there twice.
fn merge_pieces(
    transaction: &mut dyn Transaction,
    shared: &Shared,
    encoder: &mut BlobEncoder,
    pieces: &[i64],
) -> Result<u64, StorageError> {
    let Some(first) = pieces.first() else { return Ok(0) };
    let (hour, host) = db::hour_and_host(*first);
    let raw_key = db::key(hour, host);
    let mut tables: Vec<Table> = Vec::with_capacity(pieces.len() + 1);
    let mut bytes = 0;
    match read_damaged(transaction, shared, Blobs::Raw, raw_key, &mut bytes)? {
        Some(Ok(table)) => tables.push(table),
        None => {}
        // Writing the hour anew would lose what is still readable of it; the pieces can be read as they are.
        Some(Err(())) => return Ok(0),
    }
    let mut merged = Vec::with_capacity(pieces.len());
    for key in pieces {
        if let Some(Ok(table)) = read_damaged(transaction, shared, Blobs::Pieces, *key, &mut bytes)? {
            tables.push(table);
            merged.push(*key);
        }
        if bytes > MAX_MERGE_BYTES {
            return Ok(0);
        }
    }
    if merged.is_empty() {
        return Ok(0);
    }
    let (table, duplicates) = merge(&tables);
    match encoder.encode(&table) {
        Ok(blob) => {
            transaction.put_blob(Blobs::Raw, raw_key, &blob)?;
            for key in merged {
                transaction.delete_blob(Blobs::Pieces, key)?;
            }
            shared.counters.merged.add(1);
            Ok(duplicates)
        }
        Err(error) => {
            warn!(host = host, hour, %error, "pieces cannot be merged and stay as they are");
            Ok(0)
        }
    }
}

/// Reads a blob that is to be merged, and adds its size to `bytes`. One that is damaged is noted.
fn read_damaged(
    transaction: &dyn Transaction,
    shared: &Shared,
    blobs: Blobs,
    key: i64,
    bytes: &mut usize,
) -> Result<Option<Result<Table, ()>>, StorageError> {
    let (samples, detail) = match transaction.view().blob(blobs, key) {
        Ok(None) => return Ok(None),
        Ok(Some(blob)) => {
            *bytes += blob.len();
            match blob::read_all(&blob) {
                Ok(table) => return Ok(Some(Ok(table))),
                Err(error) => (blob::samples_of(&blob), error.to_string()),
            }
        }
        Err(StorageError::Damaged(detail)) => (0, detail),
        Err(error @ StorageError::Failed(_)) => return Err(error),
    };
    shared.damaged(blobs, key, samples, &detail);
    Ok(Some(Err(())))
}

/// Adds a piece behind those that the host has in this hour; false when it can have no more.
fn put_piece(
    transaction: &mut dyn Transaction,
    hour: i64,
    host: u32,
    blob: &[u8],
) -> Result<bool, StorageError> {
    let keys = db::keys(hour, host);
    let last = transaction.view().last_key(Blobs::Pieces, keys.end)?.filter(|last| *last >= keys.start);
    let key = last.map_or(keys.start, |last| last + 1);
    if key >= keys.end {
        return Ok(false);
    }
    transaction.put_blob(Blobs::Pieces, key, blob)?;
    Ok(true)
}
