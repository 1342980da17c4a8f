//! What to send next, and what to do after each answer: plain logic without I/O, driven by [`super::writer`].
//!
//! There are two lanes: live batches, in the journal's order, and owed ones, which fill from history what was given up.
//! Live ones go first: an owed request is begun only while no live one waits to be sent. Each batch has at most one
//! request under way, so a batch that must be split is a small story of its own; several batches are under way at once. A
//! batch is settled when each of its lines is written or counted as dropped, and the cursor moves over the settled live
//! batches at the front alone.
//!
//! **Splitting.** A 400 stores nothing and a 413 is too large: the request is cut in two, down to single lines. A line
//! that is refused alone is dropped only if the fault is known to be the line's: InfluxDB's parser says so, or another
//! request of the same batch was taken. Otherwise, or when [`MAX_SUSPECTS`] lines in a row were refused and none taken,
//! what answers refuses everything, and the whole batch is kept and tried again slowly.
//!
//! After a 422 the good lines are stored already and are sent again, which is harmless, to find the others: down to
//! single lines, but with at most [`MAX_CONFLICT_SPLITS`] cuts a batch. A conflict that concerns every host would else
//! multiply the requests; beyond it InfluxDB's own count is taken.
//!
//! **The gate.** After a failure that is not the lines' fault nothing is sent until a wait is over, and then a single
//! request to see: `backoff_min` doubled with each failure up to `backoff_max`, of which a random share is waited (full
//! jitter), `Retry-After` if it is longer, or `slow_retry` where a person has to do something first. An answer that
//! shows InfluxDB at work (lines taken, or one parsed and refused) opens the gate. Answers of requests that were under way when it closed move no gate.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vitals_wire::log::Position;

use super::answer::{self, Action, Answer, Reason};

/// Single lines of one batch refused without anything of it taken after which the batch is kept instead.
pub const MAX_SUSPECTS: usize = 16;
/// Cuts of a batch in search of lines of a wrong type or too old. One such line among 5,000 takes 13.
pub const MAX_CONFLICT_SPLITS: usize = 32;
/// A 413 never makes later requests smaller than this many lines: one odd answer must not bring the writer to a crawl.
const MIN_CAP_LINES: usize = 100;

/// How much at once, and how long to wait.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Live batches, and so their requests, under way at once.
    pub in_flight: usize,
    /// Of owed ones the same; no less than one.
    pub owed_in_flight: usize,
    /// Lines of a request.
    pub max_lines: usize,
    /// Upper bound of the first wait after a failure.
    pub backoff_min: Duration,
    /// Upper bound of any such wait.
    pub backoff_max: Duration,
    /// Wait after a failure that only a person can mend.
    pub slow_retry: Duration,
}

/// Lines to be sent in one request. Given back with the answer.
#[derive(Debug)]
pub struct Job {
    /// Whole lines, each with its newline.
    pub body: Bytes,
    /// How many.
    pub lines: usize,
    batch: u64,
    epoch: u64,
}

/// What to do now.
#[derive(Debug)]
pub enum Next {
    /// Send this.
    Send(Job),
    /// Ask again at this time.
    At(Instant),
    /// Ask again after an answer or a new batch.
    Nothing,
}

/// Lines that are never sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// One of `metrics::INFLUX_DROPS`.
    pub reason: &'static str,
    /// How many.
    pub lines: usize,
    /// InfluxDB's own words.
    pub words: String,
    /// The line, where it is known which.
    pub line: Option<Bytes>,
}

/// A change that a person may want to read about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// InfluxDB takes nothing now, or for another reason than before.
    Trouble {
        /// Why.
        reason: Reason,
        /// InfluxDB's own words.
        words: String,
        /// What a person has to do; empty where nothing.
        advice: &'static str,
    },
    /// It takes lines again.
    Back {
        /// For how long it did not.
        away: Duration,
    },
}

/// What an answer led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the lines were owed ones.
    pub is_owed: bool,
    /// Lines that InfluxDB took.
    pub taken: usize,
    /// Why the request failed, if it did.
    pub error: Option<Reason>,
    /// What is given up.
    pub dropped: Vec<Dropped>,
    /// What is new.
    pub change: Option<Change>,
}

/// Whole lines of a batch.
#[derive(Debug, Clone)]
struct Piece {
    body: Bytes,
    lines: usize,
}

impl Piece {
    /// Cuts off the first `lines`, of which there must be more.
    fn split(mut self, lines: usize) -> (Piece, Piece) {
        let newlines = self.body.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let at = newlines.map(|(at, _)| at + 1).nth(lines.saturating_sub(1)).unwrap_or(self.body.len());
        let first = Piece { body: self.body.split_to(at), lines };
        self.lines -= lines;
        (first, self)
    }
}

#[derive(Debug)]
struct Suspect {
    line: Bytes,
    reason: &'static str,
    words: String,
}

#[derive(Debug)]
struct Batch {
    id: u64,
    after: Position,
    received_ms: i64,
    whole: Piece,
    /// What is still to be sent, the first last.
    todo: Vec<Piece>,
    flying: bool,
    /// Whether anything of it was taken since it was last begun.
    accepted: bool,
    suspects: Vec<Suspect>,
    conflict_splits: usize,
}

impl Batch {
    fn is_done(&self) -> bool {
        self.todo.is_empty() && !self.flying
    }

    /// From the beginning.
    fn restart(&mut self) {
        self.todo = vec![self.whole.clone()];
        self.suspects.clear();
        self.accepted = false;
        self.conflict_splits = 0;
    }

    /// Cuts a refused piece in two, or keeps its only line in mind.
    fn refuse(&mut self, piece: Piece, reason: &'static str, words: String) {
        if piece.lines > 1 {
            self.halve(piece);
        } else {
            self.suspects.push(Suspect { line: piece.body, reason, words });
        }
    }

    fn halve(&mut self, piece: Piece) {
        let half = piece.lines / 2;
        let (first, second) = piece.split(half);
        self.todo.extend([second, first]);
    }

    /// Whether the suspects may be dropped (`true`), must be kept (`false`), or nothing is known yet.
    fn conclude(&self) -> Option<bool> {
        if self.suspects.is_empty() {
            return None;
        }
        if self.accepted || self.suspects.iter().all(|suspect| answer::blames_the_line(&suspect.words)) {
            return Some(true);
        }
        (self.is_done() || self.suspects.len() >= MAX_SUSPECTS).then_some(false)
    }
}

#[derive(Debug)]
enum Gate {
    Open,
    Closed {
        reason: Reason,
        since: Instant,
        until: Instant,
        /// Failures in a row.
        failures: u32,
        probing: bool,
    },
}

/// Batches on their way to one InfluxDB.
#[derive(Debug)]
pub struct Delivery {
    limits: Limits,
    live: VecDeque<Batch>,
    owed: VecDeque<Batch>,
    next_id: u64,
    gate: Gate,
    /// Raised whenever the gate closes: tells answers to older requests.
    epoch: u64,
    /// Lines of a request at most, as learned.
    cap_lines: usize,
}

impl Delivery {
    /// Nothing under way, the gate open.
    pub fn new(limits: Limits) -> Self {
        let cap_lines = limits.max_lines.max(1);
        let (live, owed) = (VecDeque::new(), VecDeque::new());
        Self { limits, live, owed, next_id: 0, gate: Gate::Open, epoch: 0, cap_lines }
    }

    /// Whether another live batch may be offered.
    pub fn has_room(&self) -> bool {
        self.live.len() < self.limits.in_flight.max(1)
    }

    /// Whether another owed batch may be offered.
    pub fn has_owed_room(&self) -> bool {
        self.owed.len() < self.limits.owed_in_flight.max(1)
    }

    /// Whether every live batch that was offered is settled.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether InfluxDB takes lines, as far as is known.
    pub fn is_open(&self) -> bool {
        matches!(self.gate, Gate::Open)
    }

    /// When the oldest unsettled live lines came to the server, in ms since 1970.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.live.front().map(|batch| batch.received_ms)
    }

    /// Takes a live batch: `lines` whole lines, whose last record ends at `after` in the journal and whose first came at
    /// `received_ms`. A batch without lines only moves the cursor.
    pub fn offer(&mut self, body: Bytes, lines: usize, after: Position, received_ms: i64) {
        let batch = self.batch(body, lines, after, received_ms);
        self.live.push_back(batch);
    }

    /// Takes an owed batch of whole lines, or of none.
    pub fn offer_owed(&mut self, body: Bytes, lines: usize) {
        let batch = self.batch(body, lines, Position::default(), 0);
        self.owed.push_back(batch);
    }

    fn batch(&mut self, body: Bytes, lines: usize, after: Position, received_ms: i64) -> Batch {
        let whole = Piece { body, lines };
        let todo = if lines == 0 { Vec::new() } else { vec![whole.clone()] };
        let id = self.next_id;
        self.next_id += 1;
        Batch {
            id,
            after,
            received_ms,
            whole,
            todo,
            flying: false,
            accepted: false,
            suspects: Vec::new(),
            conflict_splits: 0,
        }
    }

    /// What to do now.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Gate::Closed { until, probing, .. } = &self.gate {
            if *probing {
                return Next::Nothing;
            }
            if now < *until {
                return Next::At(*until);
            }
        }
        let waiting = self.live.iter_mut().chain(&mut self.owed).filter(|batch| !batch.flying);
        let Some((batch, piece)) = waiting.filter_map(|batch| batch.todo.pop().map(|p| (batch, p))).next()
        else {
            return Next::Nothing;
        };
        batch.flying = true;
        let piece = if piece.lines > self.cap_lines {
            let (first, rest) = piece.split(self.cap_lines);
            batch.todo.push(rest);
            first
        } else {
            piece
        };
        if let Gate::Closed { probing, .. } = &mut self.gate {
            *probing = true;
        }
        Next::Send(Job { body: piece.body, lines: piece.lines, batch: batch.id, epoch: self.epoch })
    }

    /// Takes the answer to a job. `jitter` is a random number from 0 to 1.
    pub fn answered(&mut self, job: Job, answer: &Answer, now: Instant, jitter: f64) -> Outcome {
        let mut outcome = Outcome::default();
        let Job { body, lines, batch: id, epoch } = job;
        outcome.is_owed = self.owed.iter().any(|batch| batch.id == id);
        let lane = if outcome.is_owed { &mut self.owed } else { &mut self.live };
        // A batch under way is never settled, so it is there.
        let Some(batch) = lane.iter_mut().find(|batch| batch.id == id) else {
            return outcome;
        };
        batch.flying = false;
        let piece = Piece { body, lines };
        let verdict = answer::judge(answer);
        // What closes the gate, and for how long at least.
        let mut trouble: Option<(Reason, Option<Duration>, &'static str)> = None;
        match verdict.action {
            Action::Written => {
                outcome.taken = lines;
                batch.accepted = true;
            }
            Action::Partly(said) => {
                outcome.error = Some(Reason::Rejected);
                // Where InfluxDB does not say how many, all may be lost and are counted so.
                let gone = said.unwrap_or(lines).clamp(1, lines);
                batch.accepted |= gone < lines;
                if gone < lines && batch.conflict_splits < MAX_CONFLICT_SPLITS {
                    batch.conflict_splits += 1;
                    batch.halve(piece);
                } else {
                    outcome.taken = lines - gone;
                    outcome.dropped.push(Dropped {
                        reason: answer::drop_reason(&verdict.words),
                        lines: gone,
                        words: verdict.words.clone(),
                        line: (lines == 1).then_some(piece.body),
                    });
                }
            }
            Action::Split => {
                outcome.error = Some(Reason::Rejected);
                batch.refuse(piece, answer::drop_reason(&verdict.words), verdict.words.clone());
            }
            Action::Halve => {
                outcome.error = Some(Reason::TooLarge);
                self.cap_lines = self.cap_lines.min((lines / 2).max(MIN_CAP_LINES));
                batch.refuse(piece, "too_large", verdict.words.clone());
            }
            Action::Retry(reason, after) => {
                outcome.error = Some(reason);
                batch.todo.push(piece);
                trouble = Some((reason, after, ""));
            }
            Action::Hold(reason, advice) => {
                outcome.error = Some(reason);
                batch.todo.push(piece);
                trouble = Some((reason, Some(self.limits.slow_retry), advice));
            }
        }
        match batch.conclude() {
            Some(true) => outcome.dropped.extend(batch.suspects.drain(..).map(|suspect| Dropped {
                reason: suspect.reason,
                lines: 1,
                words: suspect.words,
                line: Some(suspect.line),
            })),
            Some(false) => {
                batch.restart();
                let reason = outcome.error.unwrap_or(Reason::Rejected);
                trouble = Some((reason, Some(self.limits.slow_retry), REFUSES_ALL));
            }
            None => {}
        }
        if epoch == self.epoch {
            let at_work = match verdict.action {
                Action::Written | Action::Partly(_) => true,
                Action::Split => answer::blames_the_line(&verdict.words),
                _ => false,
            };
            outcome.change = match trouble {
                None if at_work => self.open(now),
                None => self.ask_on(),
                Some((reason, wait, advice)) => self
                    .close(reason, wait, now, jitter)
                    .then_some(Change::Trouble { reason, words: verdict.words, advice }),
            };
        }
        outcome
    }

    /// Forgets the settled live batches at the front and gives the place after them.
    pub fn settle(&mut self) -> Option<Position> {
        let mut after = None;
        while let Some(batch) = self.live.pop_front_if(|batch| batch.is_done()) {
            after = Some(batch.after);
        }
        after
    }

    /// Forgets the settled owed batches at the front, and gives how many.
    pub fn settle_owed(&mut self) -> usize {
        let mut settled = 0;
        while self.owed.pop_front_if(|batch| batch.is_done()).is_some() {
            settled += 1;
        }
        settled
    }

    /// Live batches that are not settled.
    pub fn under_way(&self) -> usize {
        self.live.len()
    }

    /// Owed batches that are not settled.
    pub fn owed_under_way(&self) -> usize {
        self.owed.len()
    }

    fn open(&mut self, now: Instant) -> Option<Change> {
        match std::mem::replace(&mut self.gate, Gate::Open) {
            Gate::Open => None,
            Gate::Closed { since, .. } => Some(Change::Back { away: now.duration_since(since) }),
        }
    }

    /// The gate stays as it is; where it is closed, the next single request may follow at once.
    fn ask_on(&mut self) -> Option<Change> {
        if let Gate::Closed { probing, .. } = &mut self.gate {
            *probing = false;
        }
        None
    }

    /// Gives whether the reason is a new one.
    fn close(&mut self, reason: Reason, wait: Option<Duration>, now: Instant, jitter: f64) -> bool {
        let (before, since, failures) = match self.gate {
            Gate::Open => (None, now, 0),
            Gate::Closed { reason, since, failures, .. } => (Some(reason), since, failures),
        };
        let backoff =
            self.limits.backoff_min.saturating_mul(1 << failures.min(20)).min(self.limits.backoff_max);
        let wait = backoff.mul_f64(jitter.clamp(0.0, 1.0)).max(wait.unwrap_or_default());
        self.gate = Gate::Closed { reason, since, until: now + wait, failures: failures + 1, probing: false };
        self.epoch += 1;
        before != Some(reason)
    }
}

const REFUSES_ALL: &str = "every line is refused: check InfluxDB's URL and what stands between";

#[cfg(test)]
#[path = "delivery_tests.rs"]
mod tests;
