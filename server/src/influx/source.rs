//! Records of the journal become batches of lines.
//!
//! Each batch knows the sample times that it holds, so that it can be owed instead. What the journal lost before it was
//! read is owed by what can be said of it: its live records came between the last record before and the first behind.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vitals_wire::ids::HostId;
use vitals_wire::line::{self, HostTags};
use vitals_wire::log::Position;

use super::TagsAt;
use super::owed::{NEAR_MS, Span, Stretch};
use crate::clock::now_ms;
use crate::journal::{Entry, JournalError, JournalReader};
use crate::metrics::TargetMetrics;

/// A batch ends at this size, whatever its lines.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Hosts without tags that are named in the log; the others are only counted.
const MAX_NAMED: usize = 1_000;

/// Lines of whole records, in the journal's order.
#[derive(Debug)]
pub struct Lines {
    /// The lines.
    pub body: Bytes,
    /// How many.
    pub lines: usize,
    /// The place after the last of the records.
    pub after: Position,
    /// When the first of them came, in ms since 1970 by the server's clock.
    pub received_ms: i64,
    /// When the last of them came.
    pub newest_ms: i64,
    /// The times of their samples.
    pub times: Stretch,
}

/// What has been read and not been taken.
#[derive(Debug)]
struct Partial {
    after: Position,
    received_ms: i64,
    since: Instant,
    times: Stretch,
}

/// Reads the journal and gathers lines.
pub struct Source {
    reader: JournalReader,
    tags_at: TagsAt,
    metrics: Arc<TargetMetrics>,
    body: Vec<u8>,
    lines: usize,
    partial: Option<Partial>,
    named: HashSet<HostId>,
    nobody: HostTags,
    max_lines: usize,
    /// When the last record came that was read, or lies before the place where this began.
    newest_ms: i64,
    /// Something between the last record and the next is missing.
    has_gap: bool,
    /// What is missing, as far as it is known.
    missing: Stretch,
    /// What is given up and not noted yet: nothing is read meanwhile.
    giving_up: Option<Stretch>,
}

impl Source {
    /// Begins where `reader` stands. A batch ends with the record that reaches `max_lines`. `newest_ms` is when the last
    /// record before came, 0 where that is not known; with `has_gap` there were others between it and the reader's place.
    pub fn new(
        reader: JournalReader,
        tags_at: TagsAt,
        metrics: Arc<TargetMetrics>,
        max_lines: usize,
        (newest_ms, has_gap): (i64, bool),
    ) -> Self {
        Self {
            newest_ms,
            has_gap,
            missing: Stretch::new(),
            giving_up: None,
            reader,
            tags_at,
            metrics,
            body: Vec::new(),
            lines: 0,
            partial: None,
            named: HashSet::new(),
            nobody: HostTags::new("nobody", []),
            max_lines,
        }
    }

    /// Whether nothing more should be read before the batch is taken.
    pub fn is_full(&self) -> bool {
        self.lines >= self.max_lines || self.body.len() >= MAX_BATCH_BYTES || self.giving_up.is_some()
    }

    /// Reads until the batch is full or the journal's end is reached; `true` where there may be more. Blocks on the
    /// disk for as long as that takes. After an error what was read before is still there, and it can be tried again.
    pub fn fill(&mut self) -> Result<bool, JournalError> {
        while !self.is_full() {
            match self.next()? {
                Some(entry) => self.add(&entry),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<Entry>, JournalError> {
        let entry = self.reader.try_next();
        // Also where nothing could be read: the reader's place is behind the gap.
        let lost = self.reader.take_lost();
        self.metrics.given_up_bytes.add(lost);
        self.has_gap |= lost > 0;
        let received_ms = entry.as_ref().ok().and_then(Option::as_ref);
        let received_ms = received_ms.map_or_else(now_ms, |entry| entry.record.received_ms);
        if std::mem::take(&mut self.has_gap) {
            let from_ms = if self.newest_ms == 0 { received_ms } else { self.newest_ms };
            self.missing.add_all(Span {
                from_ms: from_ms.min(received_ms).saturating_sub(NEAR_MS),
                to_ms: from_ms.max(received_ms).saturating_add(NEAR_MS),
            });
        }
        if let Ok(Some(_)) = &entry {
            self.newest_ms = received_ms;
        }
        entry
    }

    /// What the journal lost before it was read.
    pub fn take_missing(&mut self) -> Option<Stretch> {
        (!self.missing.is_empty()).then(|| std::mem::take(&mut self.missing))
    }

    /// Whether so much waits in the journal that a part has to be given up, or was and is not noted yet.
    pub fn must_give_up(&self) -> bool {
        self.giving_up.is_some() || self.reader.over_share().is_some()
    }

    /// Whether something was read to be given up and is not noted yet.
    pub fn is_giving_up(&self) -> bool {
        self.giving_up.is_some()
    }

    /// Reads what has to be given up, and gives the times of it and of the batch that was being gathered. Blocks on the
    /// disk. Until [`Source::gave_up`] nothing else is read; after an error it can be tried again.
    pub fn give_up(&mut self) -> Result<&mut Stretch, JournalError> {
        let to = self.reader.over_share();
        let mut times = self.giving_up.take().unwrap_or_default();
        if let Some(partial) = self.partial.take() {
            times.add(&partial.times);
            (self.lines, self.body) = (0, Vec::new());
        }
        let mut outcome = Ok(());
        while to.is_some_and(|to| self.reader.position() < to) {
            match self.next() {
                Ok(Some(entry)) => times.add_record(&entry.record),
                Ok(None) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // Noted with it: the cursor goes behind that gap too.
        times.add(&std::mem::take(&mut self.missing));
        let times = self.giving_up.insert(times);
        outcome.map(|()| times)
    }

    /// What was given up is noted: reading goes on behind it, and the journal may forget it.
    pub fn gave_up(&mut self) {
        self.giving_up = None;
        self.reader.skip_to(self.reader.position());
    }

    fn add(&mut self, entry: &Entry) {
        let record = &entry.record;
        let partial = self.partial.get_or_insert_with(|| Partial {
            after: entry.after,
            received_ms: record.received_ms,
            since: Instant::now(),
            times: Stretch::new(),
        });
        partial.after = entry.after;
        partial.times.add_record(record);
        for sample in &record.samples {
            match (self.tags_at)(record.host, sample.time_ms) {
                Some(tags) => self.lines += line::write_sample(&mut self.body, &tags, sample),
                None => {
                    // Written out only to know how many lines are lost.
                    let before = self.body.len();
                    let lines = line::write_sample(&mut self.body, &self.nobody, sample);
                    self.body.truncate(before);
                    self.metrics.dropped.add("no_host", lines as u64);
                    if self.named.len() < MAX_NAMED && self.named.insert(record.host) {
                        tracing::warn!(
                            influx = &*self.metrics.name,
                            host = %record.host,
                            reason = "no_host",
                            "samples of a host that nobody knows are not written to influxdb"
                        );
                    }
                }
            }
        }
    }

    /// Since when the batch waits to be taken, and how many lines it has; `None` while nothing was read.
    pub fn waiting(&self) -> Option<(Instant, usize)> {
        self.partial.as_ref().map(|partial| (partial.since, self.lines))
    }

    /// When the first record of the batch came, in ms since 1970.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.partial.as_ref().map(|partial| partial.received_ms)
    }

    /// Takes the batch.
    pub fn take(&mut self) -> Option<Lines> {
        let Partial { after, received_ms, times, .. } = self.partial.take()?;
        // The next one is likely to be as long.
        let next = Vec::with_capacity(self.body.len());
        let body = std::mem::replace(&mut self.body, next).into();
        let lines = std::mem::take(&mut self.lines);
        Some(Lines { body, lines, after, received_ms, newest_ms: self.newest_ms, times })
    }

    /// When the last record came that was read, in ms since 1970; 0 where none was.
    pub fn newest_ms(&self) -> i64 {
        self.newest_ms
    }

    /// Waits until there may be more to read; `false` when the journal was closed and all is read.
    pub async fn wait(&mut self, timeout: Duration) -> bool {
        self.reader.wait(timeout).await
    }

    /// Where the next record begins.
    pub fn position(&self) -> Position {
        self.reader.position()
    }

    /// Lets the journal forget what lies before `position`.
    pub fn passed(&self, position: Position) {
        self.reader.passed(position);
    }

    /// Bytes of the journal from `position` to its end.
    pub fn lag_bytes(&self, position: Position) -> u64 {
        self.reader.lag_bytes(position)
    }
}
