//! Reads the journal for the store and for InfluxDB's writer.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vitals_wire::log::{Damage, Position, Reader};
use vitals_wire::record::Record;
use vitals_wire::record::decode_record;

use super::shared::Shared;
use super::{JournalError, disk_error, lock, registry};

/// Damage is logged at once, then at most so often.
const DAMAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

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
pub struct JournalReader {
    shared: Arc<Shared>,
    name: Arc<str>,
    /// Bytes that it was given to hold, if not all.
    share: Option<u64>,
    reader: Reader,
    news: watch::Receiver<bool>,
    /// What of the log's damage has been counted.
    counted: Damage,
    unlogged: Damage,
    logged_at: Option<Instant>,
    /// Bytes that were lost and are not logged yet.
    unlogged_lost: u64,
    lost_logged_at: Option<Instant>,
    /// Bytes that were lost and were not asked for yet.
    lost: u64,
}

impl JournalReader {
    pub(super) fn new(shared: Arc<Shared>, name: Arc<str>, from: Position, share: Option<u64>) -> Self {
        let reader = shared.view.reader(from);
        let news = shared.news_for_tasks.subscribe();
        Self {
            shared,
            name,
            share,
            reader,
            news,
            counted: Damage::default(),
            unlogged: Damage::default(),
            logged_at: None,
            unlogged_lost: 0,
            lost_logged_at: None,
            lost: 0,
        }
    }

    /// The next committed record, if there is one now. A record that cannot be read is skipped, counted and logged.
    ///
    /// What was just committed comes from memory; what has waited long is read from the disk, which can take its time.
    ///
    /// # Errors
    /// `Disk`: the same place is tried again by the next call. Wait a second or so before it: what a device cannot read
    /// eight times in a row is taken for damaged and skipped.
    pub fn try_next(&mut self) -> Result<Option<Entry>, JournalError> {
        if self.share.is_none() {
            return self.next();
        }
        self.step_over_lost();
        let next = self.next();
        self.shared.registry().read(&self.name, self.reader.position());
        next
    }

    fn next(&mut self) -> Result<Option<Entry>, JournalError> {
        loop {
            let next = match self.reader.next_entry() {
                Ok(Some(entry)) => Ok(Some((entry.after, entry.bytes(), decode_record(entry.payload)))),
                Ok(None) => Ok(None),
                Err(error) => Err(disk_error(&error)),
            };
            let damage = self.reader.damage();
            if damage != self.counted {
                let stretches = damage.stretches - self.counted.stretches;
                let bytes = damage.bytes - self.counted.bytes;
                self.counted = damage;
                self.note(Damage { stretches, bytes }, "damaged");
            }
            match next? {
                None => return Ok(None),
                Some((after, bytes, Ok(record))) => return Ok(Some(Entry { after, record, bytes })),
                Some((_, bytes, Err(error))) => {
                    self.note(Damage { stretches: 1, bytes }, &error.to_string());
                }
            }
        }
    }

    /// Waits until there may be one, at most `timeout`; false when the journal was closed and all is read.
    pub fn wait_blocking(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut ended = lock(&self.shared.ended);
        loop {
            if self.may_have_next() {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if *ended || left.is_zero() {
                return !*ended;
            }
            ended = self.shared.news.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The same for tasks.
    pub async fn wait(&mut self, timeout: Duration) -> bool {
        // Moved as a whole: borrowing its parts one by one would make a future that no task can be spawned with.
        let this = &mut *self;
        let wait = async move {
            loop {
                let ended = *this.news.borrow_and_update();
                // Looked at after the news: what comes now makes new ones.
                if this.reader.position() < this.shared.view.end() {
                    return true;
                }
                if ended || this.news.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(timeout, wait).await.unwrap_or(true)
    }

    /// Everything before `position` is no longer needed by this reader, durably so: segments may go.
    pub fn passed(&self, position: Position) {
        if self.shared.registry().pass(&self.name, position) {
            self.shared.tidy();
        }
    }

    /// Where the next record begins, or will: the cursor when all that was read has been dealt with.
    pub fn position(&self) -> Position {
        self.reader.position()
    }

    /// Bytes between `position` and the journal's end.
    pub fn lag_bytes(&self, position: Position) -> u64 {
        self.shared.view.bytes_after(position)
    }

    /// Where a reader that may lag holds more than its share (half of the cap at most): the start of a segment up to which
    /// it is to give up, so that at most three quarters of the share are left. It notes durably what it is owed, then
    /// calls [`skip_to`](Self::skip_to). One that does not do so in time loses the oldest segments all the same, when it
    /// holds more than three quarters of the cap.
    pub fn over_share(&self) -> Option<Position> {
        let share = self.shared.limits().share(self.share?);
        let passed = self.shared.registry().passed(&self.name);
        if self.lag_bytes(passed) <= share {
            return None;
        }
        let to = registry::cut_to(&self.shared.view, passed, share / 4 * 3);
        (to > passed).then_some(to)
    }

    /// Goes on at `to`, or stays where it is if it has read further, and passes what lies before. It is not counted as
    /// lost: the caller has noted it.
    pub fn skip_to(&mut self, to: Position) {
        let to = to.min(self.shared.view.end());
        if to > self.reader.position() {
            self.reader = self.shared.view.reader(to);
            self.counted = Damage::default();
            self.shared.registry().read(&self.name, self.reader.position());
        }
        self.passed(to);
    }

    /// Bytes that the journal took away before they were read, since this was asked last. [`try_next`](Self::try_next)
    /// notices them.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Whether this reader alone holds more than half of what the journal may take, and could free at least a quarter
    /// by passing what it has read: then it should. So it is told once for each quarter, not all the time.
    pub fn is_crowded(&self) -> bool {
        let passed = self.shared.registry().passed(&self.name);
        let held = self.lag_bytes(passed);
        let freed = held.saturating_sub(self.lag_bytes(self.position()));
        let cap = self.shared.cap();
        held > cap / 2 && freed > cap / 4
    }

    /// Goes on behind what was removed although it was not read.
    fn step_over_lost(&mut self) {
        let lost = self.shared.registry().take_lost(&self.name);
        if lost > 0 {
            // Also where the file is still open: what was counted as lost is not read after all.
            self.reader = self.shared.view.reader(self.reader.position());
            self.counted = Damage::default();
            self.unlogged_lost += lost;
            self.lost += lost;
        }
        let is_due = self.lost_logged_at.is_none_or(|at| at.elapsed() >= DAMAGE_LOG_INTERVAL);
        if self.unlogged_lost > 0 && is_due {
            let (reader, bytes, from) = (&*self.name, self.unlogged_lost, self.reader.position());
            tracing::warn!(reader, bytes, %from, "a reader of the journal lagged too much and goes on behind a gap");
            self.unlogged_lost = 0;
            self.lost_logged_at = Some(Instant::now());
        }
    }

    fn may_have_next(&self) -> bool {
        self.reader.position() < self.shared.view.end()
    }

    fn note(&mut self, damage: Damage, error: &str) {
        self.shared.metrics.journal_damaged.add(damage.stretches);
        self.unlogged.stretches += damage.stretches;
        self.unlogged.bytes += damage.bytes;
        if self.logged_at.is_some_and(|at| at.elapsed() < DAMAGE_LOG_INTERVAL) {
            return;
        }
        let Damage { stretches, bytes } = std::mem::take(&mut self.unlogged);
        let (reader, before) = (&*self.name, self.reader.position());
        tracing::error!(reader, %before, stretches, bytes, error, "skipped what cannot be read of the journal");
        self.logged_at = Some(Instant::now());
    }
}
