//! What of a link's samples waits outside of memory, decided without I/O.
//!
//! Says which [`Job`](crate::spool::job::Job) is to be done next and takes in how it ended; one job at a time. Samples come here from the queue
//! in the order in which they were taken, and are read again in that order. A sample that is kept is in one of these
//! places:
//!
//! ```text
//! settled: pass | fetched: idle, under way, settled | unread (of these: away = under way, early = settled)
//!               ^ cursor                            ^ read_from
//! ```
//!
//! What is settled before the oldest that is not is passed, durably, now and then: reading it again after a kill does no
//! harm.

mod jobs;
mod sending;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use vitals_wire::log::Position;

use super::event::{Event, Loss, News};
use crate::queue::{Entry, Queue};
use crate::spool::job::{Drops, Gone, Kept, Opened, Outcome, Record, Standing};

/// What failed is tried again after this, then after twice that, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// At the latest after this.
const RETRY_LAST: Duration = Duration::from_secs(60);
/// How often what is settled is passed, while there is more.
const PASS_EVERY: Duration = Duration::from_secs(10);
/// Samples of one `Put`.
pub const MAX_PUT_SAMPLES: usize = 64;
/// Bytes of one `Put`, but one sample goes however large it is.
pub const MAX_PUT_BYTES: usize = 256 << 10;
/// Bytes that are fetched and not settled, at which no more are fetched.
pub const MAX_FETCHED_BYTES: usize = 256 << 10;
/// Samples that are settled before they are read again, at most: later ones are sent again.
const MAX_EARLY: usize = 1024;

/// Where a fetched sample stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Idle,
    /// In this batch of the present connection.
    UnderWay(u64),
    Settled,
}

#[derive(Debug)]
struct Fetched {
    time_ms: i64,
    record: Record,
    after: Position,
    /// What is counted once it is passed: damage just before it, and why it was dropped if it was.
    drops: Drops,
    stand: Stand,
}

/// A sample that was sent from memory and kept since.
#[derive(Debug)]
struct Away {
    batch: u64,
    time_ms: i64,
    hash: u64,
    age_from: Instant,
}

/// When a kind of job may be tried.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
    at: Option<Instant>,
}

impl Retry {
    fn may(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    fn failed(&mut self, now: Instant) {
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_LAST);
        self.failures += 1;
        self.at = Some(now + wait);
    }

    fn worked(&mut self) {
        *self = Self::default();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// There is none, or none that can be used.
    Off,
    /// To be opened.
    Closed,
    Open,
}

/// The kinds of jobs, each with a patience of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Write,
    Read,
    Pass,
}

/// What a sample that is kept is sent with.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Its time.
    pub time_ms: i64,
    /// The sample, encoded.
    pub encoded: &'a [u8],
}

/// What is wanted of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// Not now, and none after it.
    Stop,
    /// Never.
    Drop(Loss),
}

/// What is wanted now.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// What was taken longer ago than this is to be kept; zero for all.
    pub keep_after: Duration,
    /// So many samples should be at hand, of so many bytes, while there is somebody to send them to.
    pub at_hand: Option<(usize, usize)>,
    /// The end is near: what can be passed is passed at once.
    pub is_closing: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Disk {
    mode: Mode,
    busy: Option<Kind>,
    retries: [Retry; 4],
    is_troubled: bool,
    /// Nothing can be put.
    takes_none: bool,
    /// Times of the samples of the `Put` under way.
    putting: Vec<i64>,
    fetched: VecDeque<Fetched>,
    fetched_bytes: usize,
    read_from: Position,
    /// What is before this place is passed.
    cursor: Position,
    /// Nothing, damaged or not, is known to be behind `read_from`.
    is_at_end: bool,
    /// Damaged stretches behind the last sample that was read.
    tail_damage: u64,
    /// Samples behind `read_from`.
    unread: u64,
    away: Vec<Away>,
    early: BTreeSet<i64>,
    pass: Option<Position>,
    /// What was dropped before `pass`.
    drops: Drops,
    /// The `Pass` under way.
    passing: Option<(Position, Drops)>,
    passed_at: Instant,
    wants_room: bool,
    bytes: u64,
    max_bytes: u64,
    first_ms: Option<i64>,
}

impl Disk {
    /// One that keeps nothing, and asks for nothing.
    pub fn off(now: Instant) -> Self {
        Self {
            mode: Mode::Off,
            busy: None,
            retries: Default::default(),
            is_troubled: false,
            takes_none: false,
            putting: Vec::new(),
            fetched: VecDeque::new(),
            fetched_bytes: 0,
            read_from: Position::default(),
            cursor: Position::default(),
            is_at_end: true,
            tail_damage: 0,
            unread: 0,
            away: Vec::new(),
            early: BTreeSet::new(),
            pass: None,
            drops: Drops::default(),
            passing: None,
            passed_at: now,
            wants_room: false,
            bytes: 0,
            max_bytes: 0,
            first_ms: None,
        }
    }

    /// One that is to be opened first.
    pub fn closed(now: Instant) -> Self {
        Self { mode: Mode::Closed, ..Self::off(now) }
    }

    /// Samples that are kept and not settled.
    pub fn samples(&self) -> u64 {
        let fetched = self.fetched.iter().filter(|fetched| fetched.stand != Stand::Settled).count();
        self.unread.saturating_sub(self.early.len() as u64) + fetched as u64
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may be on disk; 0 where that is not known, or there is no end to it.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Time of the oldest that is kept and not settled, as far as that is known.
    pub fn oldest_ms(&self) -> Option<i64> {
        let fetched = self.fetched.iter().find(|fetched| fetched.stand != Stand::Settled);
        fetched.map(|fetched| fetched.time_ms).or(self.first_ms.filter(|_| self.samples() > 0))
    }

    /// Whether all is settled and passed, and nothing is being done.
    pub fn is_at_rest(&self) -> bool {
        match self.mode {
            Mode::Off => true,
            Mode::Closed => self.retry(Kind::Open).failures > 0,
            Mode::Open => {
                self.busy.is_none()
                    && self.samples() == 0
                    && (self.pass.is_none() || self.retry(Kind::Pass).failures > 0)
            }
        }
    }

    /// Whether something is being written, or is to be and may be tried now.
    pub fn is_writing(&self, now: Instant, queue: &Queue) -> bool {
        let may_write = match self.mode {
            Mode::Off => false,
            Mode::Closed => self.retry(Kind::Open).may(now),
            Mode::Open => !self.takes_none && self.retry(Kind::Write).may(now),
        };
        may_write && !queue.is_empty() || self.busy == Some(Kind::Write)
    }

    /// Whether samples are kept that could be had and are not at hand, so that newer ones should wait.
    pub fn has_more(&self) -> bool {
        self.mode == Mode::Open
            && self.unread > self.early.len() as u64 + self.away.len() as u64
            && self.retry(Kind::Read).failures == 0
    }

    /// Whether one is at hand that could go.
    pub fn has_idle(&self) -> bool {
        !self.wants_room && self.fetched.iter().any(|fetched| fetched.stand == Stand::Idle)
    }

    /// What failed may be tried at once.
    pub fn hurry(&mut self) {
        self.retries.iter_mut().for_each(|retry| retry.at = None);
    }

    /// The job ended. Gives the samples of the queue that are now kept.
    pub fn performed(
        &mut self,
        now: Instant,
        outcome: Outcome,
        queue: &mut Queue,
        events: &mut Vec<Event>,
    ) -> Vec<Entry> {
        let Some(kind) = self.busy.take() else { return Vec::new() };
        let putting = std::mem::take(&mut self.putting);
        let mut kept = Vec::new();
        match outcome {
            Outcome::Opened(opened) => self.opened(now, opened, events),
            Outcome::Put { samples, standing } => {
                self.stands(standing);
                kept = self.put(&putting, samples, queue);
            }
            Outcome::Full => self.wants_room = true,
            Outcome::Read { samples, after, is_end, damaged } => {
                self.read(samples, after, is_end, damaged, events)
            }
            Outcome::Passed(standing) => {
                (self.passing, self.passed_at) = (None, now);
                // What wants room is put again: it may have it now.
                self.wants_room &= standing.bytes >= self.bytes;
                self.stands(standing);
            }
            Outcome::Room { gone, first_ms, standing } if !gone.is_empty() || standing.bytes < self.bytes => {
                self.room(&gone, standing, events);
                self.first_ms = first_ms;
                self.wants_room = false;
            }
            Outcome::Room { .. } => {
                let why = "a full spool cannot be made smaller".to_owned();
                self.failed(now, kind, why, false, events);
                queue.not_put_away();
                return kept;
            }
            Outcome::Held => {
                // What is under way is settled or given up within half a minute.
                self.retry_mut(kind).at = Some(now + Duration::from_secs(1));
                return kept;
            }
            Outcome::Failed { why, is_final } => {
                queue.not_put_away();
                self.failed(now, kind, why, is_final, events);
                return kept;
            }
        }
        queue.not_put_away();
        self.retry_mut(kind).worked();
        if self.is_troubled && self.retries.iter().all(|retry| retry.failures == 0) {
            self.is_troubled = false;
            events.push(Event::Spool(News::Recovered));
        }
        kept
    }

    fn failed(&mut self, now: Instant, kind: Kind, why: String, is_final: bool, events: &mut Vec<Event>) {
        if is_final {
            *self = Self::off(now);
            events.push(Event::Spool(News::Off { why }));
            return;
        }
        if let Some((to, drops)) = self.passing.take() {
            self.pass = self.pass.max(Some(to));
            self.drops.add(drops);
        }
        self.retry_mut(kind).failed(now);
        if !std::mem::replace(&mut self.is_troubled, true) {
            events.push(Event::Spool(News::Trouble { why }));
        }
    }

    fn opened(&mut self, now: Instant, opened: Opened, events: &mut Vec<Event>) {
        self.mode = Mode::Open;
        self.takes_none = opened.max_bytes.is_none();
        self.max_bytes = opened.max_bytes.unwrap_or_default();
        (self.unread, self.is_at_end) = (opened.samples, opened.samples == 0);
        self.first_ms = opened.first_ms;
        self.passed_at = now;
        self.stands(opened.standing);
        events.push(Event::Spool(News::Opened {
            samples: opened.samples,
            bytes: opened.standing.bytes,
            drops: opened.drops,
        }));
        if opened.damaged > 0 {
            events.push(Event::Spool(News::Damaged { stretches: opened.damaged }));
        }
    }

    fn stands(&mut self, standing: Standing) {
        (self.bytes, self.cursor) = (standing.bytes, standing.cursor);
        if self.fetched.is_empty() && self.pass.is_none() {
            self.read_from = standing.cursor.max(self.read_from);
        }
    }

    fn put(&mut self, putting: &[i64], samples: usize, queue: &mut Queue) -> Vec<Entry> {
        let putting = &putting[..samples.min(putting.len())];
        let mut entries = queue.take_put_away(putting).into_iter().peekable();
        let mut kept = Vec::new();
        if self.samples() == 0 {
            self.first_ms = putting.first().copied();
        }
        for &time_ms in putting {
            (self.unread, self.is_at_end) = (self.unread + 1, false);
            match entries.next_if(|entry| entry.time_ms == time_ms) {
                Some(entry) => {
                    if entry.is_under_way() {
                        let (batch, hash) = (entry.batch(), entry.hash());
                        self.away.push(Away { batch, time_ms, hash, age_from: entry.taken });
                    }
                    kept.push(entry);
                }
                // Settled or dropped while it was being written.
                None => {
                    self.early.insert(time_ms);
                }
            }
        }
        kept
    }

    fn read(
        &mut self,
        samples: Vec<Kept>,
        after: Position,
        is_end: bool,
        damaged: u64,
        events: &mut Vec<Event>,
    ) {
        let stretches = samples.iter().map(|kept| kept.damaged).sum::<u64>() + damaged;
        if stretches > 0 {
            events.push(Event::Spool(News::Damaged { stretches }));
        }
        self.unread = self.unread.saturating_sub(samples.len() as u64);
        self.read_from = after;
        for Kept { time_ms, record, after, damaged } in samples {
            let away = self.away.iter().position(|away| away.time_ms == time_ms);
            let stand = match away.map(|at| self.away.swap_remove(at)) {
                Some(away) => Stand::UnderWay(away.batch),
                None if self.early.remove(&time_ms) => Stand::Settled,
                None => Stand::Idle,
            };
            self.fetched_bytes += record.encoded.len();
            let drops = Drops { damaged, ..Drops::default() };
            self.fetched.push_back(Fetched { time_ms, record, after, drops, stand });
        }
        self.is_at_end = is_end;
        if is_end {
            // Exact again, whatever was damaged meanwhile.
            self.unread = 0;
            self.early.clear();
            self.tail_damage += damaged;
        }
        self.advance();
    }

    fn room(&mut self, gone: &[Gone], standing: Standing, events: &mut Vec<Event>) {
        for gone in gone {
            if !gone.was_settled {
                let (time_ms, hash) = (gone.time_ms, gone.hash);
                events.push(Event::Dropped { time_ms, hash, loss: Loss::SpoolFull });
            }
        }
        let mut left = gone.len() as u64;
        while self.fetched.front().is_some_and(|first| first.after <= standing.cursor) {
            if let Some(first) = self.fetched.pop_front() {
                self.fetched_bytes -= first.record.encoded.len();
                // Damage was counted with the room that it gave.
                self.drops.add(Drops { damaged: 0, ..first.drops });
                left = left.saturating_sub(1);
            }
        }
        self.unread = self.unread.saturating_sub(left);
        gone.iter().for_each(|gone| {
            self.early.remove(&gone.time_ms);
        });
        // What of it was settled or dropped by itself and not passed is passed now.
        self.pass = self.pass.filter(|pass| *pass > standing.cursor);
        (self.bytes, self.cursor) = (standing.bytes, standing.cursor);
        self.read_from = self.read_from.max(standing.cursor);
    }

    /// Notes what may be passed.
    fn advance(&mut self) {
        while self.fetched.front().is_some_and(|first| first.stand == Stand::Settled) {
            if let Some(first) = self.fetched.pop_front() {
                self.fetched_bytes -= first.record.encoded.len();
                self.drops.add(first.drops);
                self.pass = Some(first.after);
            }
        }
        if !self.fetched.is_empty() {
            return;
        }
        if self.is_at_end && self.read_from > self.cursor {
            // What is damaged at the end goes, too.
            self.drops.damaged += std::mem::take(&mut self.tail_damage);
            self.pass = self.pass.max(Some(self.read_from));
        }
        if self.fetched.capacity() > 0 {
            self.fetched = VecDeque::new();
        }
    }

    fn retry(&self, kind: Kind) -> &Retry {
        &self.retries[kind as usize]
    }

    fn retry_mut(&mut self, kind: Kind) -> &mut Retry {
        &mut self.retries[kind as usize]
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
