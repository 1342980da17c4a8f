//! Lines that InfluxDB will never take: logged with restraint, and gathered for the quarantine.

use std::time::{Duration, Instant};

use super::answer::is_for_quarantine;
use super::delivery::Dropped;
use super::quarantine::{Entry, MAX_WAITING, Quarantine};
use crate::clock::now_ms;
use crate::metrics::TargetMetrics;

/// Dropped lines that are logged within a minute; the rest of them as a count.
const MAX_LOGGED: u32 = 20;

/// What was dropped and is not dealt with yet.
#[derive(Debug, Default)]
pub(super) struct Drops {
    since: Option<Instant>,
    logged: u32,
    unlogged: usize,
    waiting: Vec<Entry>,
    /// The disk does not take them.
    failing: bool,
}

impl Drops {
    /// Counts, logs, and keeps for the quarantine.
    pub(super) fn take(&mut self, influx: &str, dropped: Dropped, metrics: &TargetMetrics) {
        metrics.dropped.add(dropped.reason, dropped.lines as u64);
        self.log(influx, &dropped);
        if !is_for_quarantine(dropped.reason) {
            return;
        }
        let Some(line) = dropped.line else {
            metrics.quarantine_lost.add("unknown_line", dropped.lines as u64);
            return;
        };
        if self.waiting.len() >= MAX_WAITING {
            metrics.quarantine_lost.add("too_many", 1);
            return;
        }
        self.waiting.push(Entry {
            time_ms: now_ms(),
            reason: dropped.reason.to_owned(),
            words: dropped.words,
            line: String::from_utf8_lossy(&line).trim_end().to_owned(),
        });
    }

    /// Keeps a conflict that concerns every host from filling the log.
    fn log(&mut self, influx: &str, dropped: &Dropped) {
        if self.logged >= MAX_LOGGED {
            self.unlogged += dropped.lines;
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        self.logged += 1;
        let line = dropped.line.as_deref().map(String::from_utf8_lossy);
        tracing::warn!(
            influx,
            reason = dropped.reason,
            lines = dropped.lines,
            line = line.as_deref().map_or("unknown", str::trim_end),
            error = dropped.words,
            "influxdb will never take these lines"
        );
    }

    /// Begins the next minute when this one is over.
    pub(super) fn tick(&mut self, influx: &str, now: Instant) {
        if self.since.is_some_and(|since| now >= since + Duration::from_secs(60)) {
            if self.unlogged > 0 {
                tracing::warn!(
                    influx,
                    lines = self.unlogged,
                    "influxdb did not take more lines than were logged"
                );
            }
            (self.since, self.logged, self.unlogged) = (None, 0, 0);
        }
    }

    /// What waits for the quarantine.
    pub(super) fn take_waiting(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.waiting)
    }

    /// Counts what became of entries.
    pub(super) fn written(
        &mut self,
        influx: &str,
        count: usize,
        outcome: std::io::Result<u64>,
        metrics: &TargetMetrics,
    ) {
        match outcome {
            Ok(oldest) => {
                metrics.quarantined.add(count as u64);
                metrics.quarantine_lost.add("oldest", oldest);
                self.failing = false;
            }
            Err(error) => {
                metrics.quarantine_lost.add("disk", count as u64);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(influx, %error, "the quarantine cannot be written; what influxdb refuses is only counted");
                }
            }
        }
    }
}

/// Writes entries on a thread that may wait for the disk.
pub(super) async fn write(quarantine: Quarantine, entries: Vec<Entry>) -> std::io::Result<u64> {
    let writing = tokio::task::spawn_blocking(move || quarantine.append(&entries));
    writing.await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
