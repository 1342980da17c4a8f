//! Drives history's engine over a storage in memory.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vitals_server::journal::{Journal, JournalReader};
use vitals_server::metrics::Metrics;
use vitals_server::store::{Engine, MemoryStorage, Now, Row, RowRef, Seal, StoreOptions};
use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use crate::ctx::Ctx;
use crate::oracle::Key;
use crate::samples::{host_id, host_of, tags};

/// Between two commits; short, so that a schedule of some minutes has many.
const COMMIT_MS: u64 = 2_000;
/// A sample is sealed by then.
const SEAL_MS: u64 = 12_000;
/// Records taken in at once.
const RECORDS: usize = 256;

/// See the module.
pub struct History {
    engine: Engine<MemoryStorage>,
    reader: JournalReader,
    commit_at: u64,
    read_at: u64,
}

impl History {
    pub fn open(
        ctx: &Ctx,
        storage: &MemoryStorage,
        journal: &Journal,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let options = StoreOptions {
            seal_after: Duration::from_millis(SEAL_MS),
            commit_every: Duration::from_millis(COMMIT_MS),
            ..StoreOptions::new(Path::new("history.db"))
        };
        let mut engine = Engine::open_on(storage.clone(), options, metrics, now(ctx))
            .map_err(|error| error.to_string())?;
        let reader = journal.reader("store", engine.cursor()).map_err(|error| error.to_string())?;
        engine.begin_at(reader.position());
        Ok(Self { engine, reader, commit_at: ctx.now + COMMIT_MS, read_at: ctx.now })
    }

    pub fn next_at(&self) -> u64 {
        self.commit_at.min(self.read_at)
    }

    /// The journal has more.
    pub fn news(&mut self, now: u64) {
        self.read_at = self.read_at.min(now);
    }

    /// Whether it has all that the journal has.
    pub fn is_at_rest(&self, journal: &Journal) -> bool {
        self.engine.position() >= journal.end()
    }

    /// As the store's thread does it. Gives whether something was committed.
    pub fn step(&mut self, ctx: &mut Ctx) -> bool {
        let is_time = self.commit_at <= ctx.now;
        let is_crowded = self.reader.is_crowded();
        let mut done = false;
        if is_time || is_crowded || self.engine.is_urgent() {
            self.commit(ctx, if is_crowded { Seal::All } else { Seal::Due });
            done = true;
        }
        if self.read_at <= ctx.now {
            self.read_at = ctx.now + 1_000;
            if !self.engine.is_full() {
                let _ = self.take_in(ctx, RECORDS);
            }
        }
        done
    }

    /// All that is there goes into the file, if it can.
    pub fn flush(&mut self, ctx: &mut Ctx) {
        if self.take_in(ctx, usize::MAX).is_ok() {
            self.commit(ctx, Seal::All);
        }
    }

    fn take_in(&mut self, ctx: &mut Ctx, count: usize) -> Result<(), ()> {
        for _ in 0..count {
            match self.reader.try_next() {
                Ok(Some(entry)) => self.engine.ingest(&entry.record, entry.after),
                Ok(None) => {
                    self.engine.caught_up(self.reader.position());
                    return Ok(());
                }
                Err(error) => {
                    ctx.trace(|| format!("history cannot read: {error}"));
                    return Err(());
                }
            }
        }
        self.read_at = ctx.now;
        Ok(())
    }

    fn commit(&mut self, ctx: &mut Ctx, seal: Seal) {
        self.commit_at = ctx.now + COMMIT_MS;
        let done = self.engine.commit(now(ctx), seal);
        self.reader.passed(self.engine.cursor());
        let done = done.and_then(|()| self.engine.tidy(now(ctx)));
        let cursor = self.engine.cursor();
        ctx.trace(|| format!("history: commit {done:?}, cursor {cursor}"));
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        self.engine.position()
    }

    /// All samples that a reader sees.
    pub fn keys(&self) -> Result<BTreeSet<Key>, String> {
        let mut keys = BTreeSet::new();
        for id in self.engine.hosts() {
            let host = host_of(id).ok_or_else(|| format!("history knows a host {id} that never was"))?;
            let times = self.engine.samples(id, i64::MIN, i64::MAX).map_err(|error| error.to_string())?;
            let count = times.len();
            keys.extend(times.into_iter().map(|time_ms| (host, time_ms)));
            if keys.range((host, i64::MIN)..=(host, i64::MAX)).count() != count {
                return Err(format!("history shows a sample of host {host} twice"));
            }
        }
        Ok(keys)
    }

    /// All hosts, ascending.
    pub fn hosts(&self) -> Vec<HostId> {
        let mut hosts = self.engine.hosts();
        hosts.sort_unstable();
        hosts
    }

    /// A host's lines for InfluxDB from a time to before another, whole samples, and where to go on.
    pub fn lines(
        &self,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
        max_lines: usize,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<i64>), String> {
        let tags = host_of(host).map(tags).ok_or("a host that never was")?;
        let (mut lines, mut next_ms) = (0, None);
        let each = |row: RowRef<'_>| {
            if lines >= max_lines {
                next_ms = Some(row.time_ms);
                return ControlFlow::Break(());
            }
            lines += row.write(out, &tags);
            ControlFlow::Continue(())
        };
        self.engine.each_row(host, from_ms, to_ms, each).map_err(|error| error.to_string())?;
        Ok((lines, next_ms))
    }

    /// A host's samples as points.
    pub fn rows(&self, host: usize) -> Result<Vec<Row>, String> {
        self.engine.rows(host_id(host), i64::MIN, i64::MAX, usize::MAX).map_err(|error| error.to_string())
    }
}

fn now(ctx: &Ctx) -> Now {
    Now { steady_ms: ctx.now as i64, wall_ms: ctx.wall_ms() }
}
