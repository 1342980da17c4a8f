//! Records of the journal become batches of lines.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vitals_wire::ids::HostId;
use vitals_wire::line::{self, HostTags};
use vitals_wire::log::Position;

use super::TagsAt;
use crate::journal::{Entry, JournalError, JournalReader};
use crate::metrics::Metrics;

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
}

/// What has been read and not been taken.
#[derive(Debug)]
struct Partial {
    after: Position,
    received_ms: i64,
    since: Instant,
}

/// Reads the journal and gathers lines.
pub struct Source {
    reader: JournalReader,
    tags_at: TagsAt,
    metrics: Arc<Metrics>,
    body: Vec<u8>,
    lines: usize,
    partial: Option<Partial>,
    named: HashSet<HostId>,
    nobody: HostTags,
    max_lines: usize,
}

impl Source {
    /// Begins where `reader` stands. A batch ends with the record that reaches `max_lines`.
    pub fn new(reader: JournalReader, tags_at: TagsAt, metrics: Arc<Metrics>, max_lines: usize) -> Self {
        Self {
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
        self.lines >= self.max_lines || self.body.len() >= MAX_BATCH_BYTES
    }

    /// Reads until the batch is full or the journal's end is reached; `true` where there may be more. Blocks on the
    /// disk for as long as that takes. After an error what was read before is still there, and it can be tried again.
    pub fn fill(&mut self) -> Result<bool, JournalError> {
        while !self.is_full() {
            match self.reader.try_next()? {
                Some(entry) => self.add(&entry),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn add(&mut self, entry: &Entry) {
        let record = &entry.record;
        let partial = self.partial.get_or_insert_with(|| Partial {
            after: entry.after,
            received_ms: record.received_ms,
            since: Instant::now(),
        });
        partial.after = entry.after;
        for sample in &record.samples {
            match (self.tags_at)(record.host, sample.time_ms) {
                Some(tags) => self.lines += line::write_sample(&mut self.body, &tags, sample),
                None => {
                    // Written out only to know how many lines are lost.
                    let before = self.body.len();
                    let lines = line::write_sample(&mut self.body, &self.nobody, sample);
                    self.body.truncate(before);
                    self.metrics.influx_dropped.add("no_host", lines as u64);
                    if self.named.len() < MAX_NAMED && self.named.insert(record.host) {
                        tracing::warn!(
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
        let Partial { after, received_ms, .. } = self.partial.take()?;
        // The next one is likely to be as long.
        let next = Vec::with_capacity(self.body.len());
        let body = std::mem::replace(&mut self.body, next).into();
        Some(Lines { body, lines: std::mem::take(&mut self.lines), after, received_ms })
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
