//! One InfluxDB that is written to: what belongs to it, shared by its writer, the API and the commands.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use vitals_wire::ids::HostId;
use vitals_wire::log::{Fs, Position};

use super::answer::Reason;
use super::book::Book;
use super::delivery::Change;
use super::owed::{Span, Stretch};
use super::quarantine::Quarantine;
use super::{InfluxError, InfluxOptions};
use crate::clock::now_ms;
use crate::metrics::{Metrics, TargetMetrics};

/// How an InfluxDB was when it was written to last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It takes lines, or none were sent yet.
    Ok,
    /// It takes nothing now, and is tried again by itself.
    Away {
        /// Since when, in ms since 1970.
        since_ms: i64,
        /// Why.
        reason: Reason,
        /// InfluxDB's own words.
        words: String,
    },
    /// It takes nothing until a person has mended something.
    Held {
        /// Since when, in ms since 1970.
        since_ms: i64,
        /// Why.
        reason: Reason,
        /// InfluxDB's own words.
        words: String,
        /// What to do.
        advice: &'static str,
    },
}

/// A target. Its directory is its own.
#[derive(Debug)]
pub struct Target {
    /// Where and how to write.
    pub options: InfluxOptions,
    /// Its figures.
    pub metrics: Arc<TargetMetrics>,
    /// What it is owed.
    pub book: Book,
    /// What it refused.
    pub quarantine: Quarantine,
    health: Mutex<Health>,
    /// What was filled last was too old for history.
    is_expiring: AtomicBool,
}

impl Target {
    /// Opens what is in the directory, which must be there. A target that is new, and only such a one, is owed `history`
    /// from `start_ms` on, where that is given; `history` is all that can be owed.
    ///
    /// # Errors
    /// `Book`: the list of what it is owed cannot be read. Nothing was changed.
    pub fn open(
        options: InfluxOptions,
        fs: Arc<dyn Fs>,
        metrics: &Metrics,
        history: Span,
        start_ms: Option<i64>,
    ) -> Result<Arc<Self>, InfluxError> {
        let name = options.name.clone();
        let (book, existed) = Book::open(fs, options.owed_file(), history)
            .map_err(|error| InfluxError::Book { name: name.clone(), error })?;
        if !existed {
            let mut stretch = Stretch::new();
            if let Some(start_ms) = start_ms {
                stretch.add_all(Span { from_ms: start_ms.max(history.from_ms), to_ms: history.to_ms });
                tracing::info!(
                    influx = name,
                    from = crate::time::format(start_ms),
                    "a new influxdb is owed history from this time on"
                );
            }
            book.owe_unsaved(&stretch, Position::default());
            // That there is a file says that the target is not new. Without it the same happens again at the next start.
            if let Err(error) = book.save() {
                tracing::warn!(influx = name, file = %book.file().display(), %error, "what influxdb is owed cannot be written");
            }
        }
        let metrics = metrics.influx.of(&name);
        let quarantine = Quarantine::new(&options.dir);
        let target = Self {
            options,
            metrics,
            book,
            quarantine,
            health: Mutex::new(Health::Ok),
            is_expiring: AtomicBool::new(false),
        };
        target.measure_owed();
        Ok(Arc::new(target))
    }

    /// How InfluxDB was when it was written to last.
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Owes a stretch of history again, of one host or of all, once history has come to `needs` in the journal: what is
    /// wanted may be in the journal alone now. On disk when this returns.
    ///
    /// # Errors
    /// The disk said no: nothing more is owed than before.
    pub fn backfill(&self, host: Option<HostId>, span: Span, needs: Position) -> io::Result<()> {
        let mut stretch = Stretch::new();
        match host {
            Some(host) => stretch.add_host(host, span),
            None => stretch.add_all(span),
        }
        self.book.owe(&stretch, needs)?;
        self.measure_owed();
        Ok(())
    }

    /// Counts time that was owed and that history does not go back to any more; begins of such stretches are logged.
    pub(super) fn has_expired(&self, ms: u64) {
        let begins = !self.is_expiring.swap(ms > 0, Relaxed);
        self.metrics.owed_expired_ms.add(ms);
        if ms > 0 && begins {
            tracing::error!(
                influx = self.options.name,
                "history does not go back to all that influxdb is owed: what is too old is lost for it"
            );
        }
    }

    /// Puts what is owed into the metrics.
    pub(super) fn measure_owed(&self) {
        let (spans, ms) = self.book.look(|owed| (owed.stretch().count(), owed.stretch().total_ms()));
        self.metrics.owed_spans.set(spans as u64);
        self.metrics.owed_ms.set(ms);
    }

    /// Takes down and logs that something is new about InfluxDB.
    pub(super) fn changed(&self, change: Change) {
        let InfluxOptions { name, url, org, bucket, .. } = &self.options;
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let since_ms = match *health {
            Health::Ok => now_ms(),
            Health::Away { since_ms, .. } | Health::Held { since_ms, .. } => since_ms,
        };
        match change {
            Change::Trouble { reason, words, advice: "" } => {
                tracing::warn!(
                    influx = name,
                    url,
                    reason = reason.word(),
                    error = words,
                    "influxdb takes nothing; it is kept and tried again"
                );
                *health = Health::Away { since_ms, reason, words };
            }
            Change::Trouble { reason, words, advice } => {
                tracing::error!(
                    influx = name,
                    url,
                    org,
                    bucket,
                    reason = reason.word(),
                    error = words,
                    advice,
                    "influxdb takes nothing until this is mended; it is kept and tried again"
                );
                *health = Health::Held { since_ms, reason, words, advice };
            }
            Change::Back { away } => {
                tracing::info!(influx = name, url, away_s = away.as_secs(), "influxdb takes lines again");
                *health = Health::Ok;
            }
        }
    }
}
