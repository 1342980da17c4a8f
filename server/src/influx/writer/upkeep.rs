//! What the writer does each second beside writing: quarantine, what is owed, cursor, and measuring the lag.

use std::time::Instant;

use super::{GiveUpError, Read, Reading, TICK, Writer};
use crate::clock::now_ms;
use crate::influx::cursor::{self, Cursor};
use crate::influx::owed::Stretch;
use crate::influx::source::Source;
use crate::influx::{Target, drops};

impl Writer {
    /// Writes quarantine, list of what is owed and cursor, tells the journal, measures the lag.
    pub(super) async fn tick(&mut self) {
        let now = Instant::now();
        self.tick_at = now + TICK;
        let target = self.target.clone();
        let influx = target.options.name.as_str();
        self.drops.tick(influx, now);
        let entries = self.drops.take_waiting();
        if !entries.is_empty() {
            // Before the cursor, which says that these lines are dealt with.
            let count = entries.len();
            let outcome = drops::write(target.quarantine.clone(), entries).await;
            self.drops.written(influx, count, outcome, &target.metrics);
        }
        // Before the cursor, which may stand behind a gap that is owed.
        if !target.book.is_saved() {
            let target = target.clone();
            match blocking(move || target.book.save()).await {
                Ok(()) => {
                    if std::mem::take(&mut self.troubles.book) {
                        tracing::info!(influx, "what influxdb is owed can be written again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.troubles.book, true) {
                        tracing::error!(influx, %error, "what influxdb is owed cannot be written; trying on");
                    }
                }
            }
        }
        if self.settled != self.saved && target.book.is_saved() && !self.giving_up {
            let (file, settled) = (target.options.cursor_file(), self.settled);
            let cursor = Cursor { position: settled, received_ms: self.settled_ms };
            match blocking(move || cursor::save(&file, cursor)).await {
                Ok(()) => {
                    self.saved = settled;
                    if std::mem::take(&mut self.troubles.cursor) {
                        tracing::info!(influx, "influxdb's cursor can be written again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.troubles.cursor, true) {
                        let file = target.options.cursor_file();
                        tracing::error!(influx, file = %file.display(), %error, "influxdb's cursor cannot be written; the journal keeps more");
                    }
                }
            }
        }
        target.measure_owed();
        // What is gathered right now is a second old at most.
        let mut oldest = self.delivery.oldest_ms();
        match std::mem::replace(&mut self.reading, Reading::Gone) {
            Reading::Home(source) => {
                oldest = oldest.or(source.oldest_ms());
                self.look_back(&source);
                self.reading = self.give_up_if_needed(source);
            }
            other => self.reading = other,
        }
        let age = oldest.map_or(0, |oldest| now_ms().saturating_sub(oldest));
        target.metrics.lag_ms.set(u64::try_from(age).unwrap_or(0));
    }

    /// Sends the source away to give up a part of the journal, where it has to.
    fn give_up_if_needed(&mut self, mut source: Box<Source>) -> Reading {
        if !source.must_give_up() {
            return Reading::Home(source);
        }
        self.giving_up = true;
        let target = self.target.clone();
        let mut under_way = Stretch::new();
        self.offered.iter().for_each(|offered| under_way.add(&offered.times));
        Reading::Away(tokio::task::spawn_blocking(move || {
            let gave_up = give_up(&target, &mut source, &under_way);
            (source, Read::GaveUp(gave_up))
        }))
    }

    /// Tells the journal what it need not keep for InfluxDB, and measures what InfluxDB has not.
    pub(super) fn look_back(&mut self, source: &Source) {
        if source.waiting().is_none() && self.delivery.is_empty() && !source.is_giving_up() {
            // Also over damaged records at the end, after which none came.
            (self.settled, self.settled_ms) = (source.position(), source.newest_ms());
        }
        if self.passed != self.saved {
            source.passed(self.saved);
            self.passed = self.saved;
        }
        self.target.metrics.lag_bytes.set(source.lag_bytes(self.settled));
    }
}

/// Notes what is owed, then lets the journal forget it. After an error nothing is forgotten.
fn give_up(target: &Target, source: &mut Source, under_way: &Stretch) -> Result<(), GiveUpError> {
    let times = source.give_up()?;
    times.add(under_way);
    let times = times.clone();
    let position = source.position();
    target.book.owe(&times, position)?;
    // Should this fail, the next start finds a cursor before the journal's beginning, and owes the same once more.
    let cursor = Cursor { position, received_ms: source.newest_ms() };
    if let Err(error) = cursor::save(&target.options.cursor_file(), cursor) {
        tracing::warn!(influx = target.options.name, %error, "influxdb's cursor cannot be written");
    }
    source.gave_up();
    Ok(())
}

async fn blocking(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> std::io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
