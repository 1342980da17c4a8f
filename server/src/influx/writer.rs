//! The task that drives [`Source`], [`Delivery`], [`WriteClient`] and the cursor.
//!
//! Reading and turning into lines happens on a blocking thread, which takes the source along and brings it back;
//! requests are tasks of their own. When this task is dropped at any point its requests end with it, and whoever goes
//! on from the cursor file writes again what was under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use vitals_wire::log::Position;

use super::answer::Answer;
use super::delivery::{Change, Delivery, Dropped, Job, Limits, Next, Outcome};
use super::http::WriteClient;
use super::source::Source;
use super::{InfluxError, InfluxOptions, TagsAt, cursor, setup};
use crate::clock::now_ms;
use crate::journal::{JournalError, JournalReader};
use crate::metrics::Metrics;

/// How often the cursor is written and the lag is measured, at most and at least.
const TICK: Duration = Duration::from_secs(1);
/// Pause after the journal could not be read.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// Dropped lines that are logged within a minute; the rest of them as a count.
const MAX_DROPS_LOGGED: u32 = 20;
/// Time at shutdown in which what is left is still written. The rest stays in the journal.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Writes what `reader` gives to InfluxDB until `shutdown`, and what is left then for some seconds if InfluxDB takes
/// it. `reader` must stand at [`super::starting_point`]. Fails at once where `options` cannot be used, and later only by a
/// bug ([`InfluxError::Broken`]): then it can be run again with a new reader.
pub async fn run(
    options: InfluxOptions,
    reader: JournalReader,
    tags_at: TagsAt,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<(), InfluxError> {
    options.check()?;
    let client = WriteClient::new(&options)?;
    // Beside the writer: a slow answer to it must not hold anything up.
    let mut requests = JoinSet::new();
    let mut checking = JoinSet::new();
    checking.spawn(setup::check_and_log(options.clone()));
    let limits = Limits {
        in_flight: options.in_flight,
        // A batch ends with the record that reaches `max_lines`: cutting off a small rest would double the requests.
        max_lines: options.max_lines.saturating_mul(2),
        backoff_min: options.backoff_min,
        backoff_max: options.backoff_max,
        slow_retry: options.slow_retry,
    };
    let settled = reader.position();
    let source = Box::new(Source::new(reader, tags_at, metrics.clone(), options.max_lines));
    let mut writer = Writer {
        delivery: Delivery::new(limits),
        reading: Reading::Home(source),
        may_have_more: true,
        journal_ended: false,
        read_again_at: None,
        settled,
        saved: settled,
        passed: settled,
        tick_at: Instant::now() + TICK,
        troubles: Troubles::default(),
        options,
        client,
        metrics,
    };
    writer.drive(&mut requests, shutdown).await
}

/// Where the source is.
enum Reading {
    Home(Box<Source>),
    Away(JoinHandle<(Box<Source>, Result<bool, JournalError>)>),
    /// Nowhere: between two of the others.
    Gone,
}

/// What was logged as being wrong, so that it is logged once.
#[derive(Default)]
struct Troubles {
    journal: bool,
    cursor: bool,
    drops: Drops,
}

/// Keeps a conflict that concerns every host from filling the log.
#[derive(Default)]
struct Drops {
    since: Option<Instant>,
    logged: u32,
    unlogged: usize,
}

impl Drops {
    fn log(&mut self, dropped: &Dropped) {
        if self.logged >= MAX_DROPS_LOGGED {
            self.unlogged += dropped.lines;
            return;
        }
        self.since.get_or_insert_with(Instant::now);
        self.logged += 1;
        let line = dropped.line.as_deref().map(String::from_utf8_lossy);
        tracing::warn!(
            reason = dropped.reason,
            lines = dropped.lines,
            line = line.as_deref().map_or("unknown", str::trim_end),
            error = dropped.words,
            "influxdb will never take these lines"
        );
    }

    /// Begins the next minute when this one is over.
    fn tick(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now >= since + Duration::from_secs(60)) {
            if self.unlogged > 0 {
                tracing::warn!(lines = self.unlogged, "influxdb did not take more lines than were logged");
            }
            *self = Self::default();
        }
    }
}

struct Writer {
    options: InfluxOptions,
    client: WriteClient,
    metrics: Arc<Metrics>,
    delivery: Delivery,
    reading: Reading,
    may_have_more: bool,
    journal_ended: bool,
    read_again_at: Option<Instant>,
    /// All before it is written or counted, ...
    settled: Position,
    /// ... is in the cursor file, ...
    saved: Position,
    /// ... and the journal knows.
    passed: Position,
    tick_at: Instant,
    troubles: Troubles,
}

type Requests = JoinSet<(Job, Answer, Duration)>;

/// What ended a wait.
enum Woken {
    Answered(Option<Result<(Job, Answer, Duration), JoinError>>),
    Read(Result<(Box<Source>, Result<bool, JournalError>), JoinError>),
    MayHaveMore(bool),
    Time,
    Shutdown,
}

impl Writer {
    async fn drive(
        &mut self,
        requests: &mut Requests,
        shutdown: CancellationToken,
    ) -> Result<(), InfluxError> {
        let mut give_up_at = None;
        loop {
            let now = Instant::now();
            let draining = give_up_at.is_some();
            self.hand_over(now, draining);
            let next = self.send(requests, now);
            if let Some(settled) = self.delivery.settle() {
                self.settled = settled;
                // There may be room again.
                self.hand_over(now, draining);
                continue;
            }
            if now >= self.tick_at {
                self.tick().await;
            }
            if give_up_at.is_some_and(|at| now >= at || self.is_drained() || !self.delivery.is_open()) {
                break;
            }
            let wake_at = [next, self.batch_due(), self.read_again_at, give_up_at]
                .into_iter()
                .flatten()
                .fold(self.tick_at, Instant::min);
            match self.wait(requests, wake_at, &shutdown, draining).await {
                Woken::Answered(Some(Ok((job, answer, took)))) => self.answered(job, &answer, took),
                Woken::Answered(Some(Err(error))) => return Err(InfluxError::Broken(error)),
                Woken::Answered(None) | Woken::Time => {}
                Woken::Read(read) => {
                    let (source, read) = read.map_err(InfluxError::Broken)?;
                    self.came_home(source, read);
                }
                Woken::MayHaveMore(more) => {
                    self.may_have_more = true;
                    self.journal_ended = !more;
                }
                Woken::Shutdown => {
                    self.may_have_more = true;
                    give_up_at = Some(Instant::now() + SHUTDOWN_GRACE);
                }
            }
        }
        requests.shutdown().await;
        self.tick().await;
        tracing::info!(position = %self.settled, "the writer to influxdb has ended");
        Ok(())
    }

    /// Offers what was read, if there is enough of it or it has waited long enough, and reads on.
    fn hand_over(&mut self, now: Instant, draining: bool) {
        let source = match std::mem::replace(&mut self.reading, Reading::Gone) {
            Reading::Home(mut source) => {
                let (wait, lines) = (self.options.batch_wait, self.options.batch_lines);
                let is_due = source
                    .waiting()
                    .is_some_and(|(since, had)| draining || had >= lines || now >= since + wait);
                if is_due
                    && self.delivery.has_room()
                    && let Some(batch) = source.take()
                {
                    self.delivery.offer(batch.body, batch.lines, batch.after, batch.received_ms);
                }
                source
            }
            other => {
                self.reading = other;
                return;
            }
        };
        if self.read_again_at.is_some_and(|at| now >= at) {
            self.read_again_at = None;
            self.may_have_more = true;
        }
        self.reading = if self.may_have_more && self.read_again_at.is_none() && !source.is_full() {
            self.may_have_more = false;
            Reading::Away(tokio::task::spawn_blocking(move || {
                let mut source = source;
                let read = source.fill();
                (source, read)
            }))
        } else {
            Reading::Home(source)
        };
    }

    /// Sends what may be sent; gives when to ask again.
    fn send(&mut self, requests: &mut Requests, now: Instant) -> Option<Instant> {
        loop {
            match self.delivery.next(now) {
                Next::Send(job) => {
                    let client = self.client.clone();
                    requests.spawn(async move {
                        let begun = Instant::now();
                        let answer = client.write(job.body.clone()).await;
                        (job, answer, begun.elapsed())
                    });
                }
                Next::At(at) => return Some(at),
                Next::Nothing => return None,
            }
        }
    }

    /// When the batch that is being gathered must go.
    fn batch_due(&self) -> Option<Instant> {
        match &self.reading {
            Reading::Home(source) if self.delivery.has_room() => {
                source.waiting().map(|(since, _)| since + self.options.batch_wait)
            }
            _ => None,
        }
    }

    fn is_drained(&self) -> bool {
        let nothing_read = match &self.reading {
            Reading::Home(source) => source.waiting().is_none() && !self.may_have_more,
            Reading::Away(_) => false,
            Reading::Gone => true,
        };
        nothing_read && self.delivery.is_empty()
    }

    async fn wait(
        &mut self,
        requests: &mut Requests,
        until: Instant,
        shutdown: &CancellationToken,
        draining: bool,
    ) -> Woken {
        let wait_for_more =
            !self.journal_ended && !self.may_have_more && self.read_again_at.is_none() && !draining;
        tokio::select! {
            answered = requests.join_next(), if !requests.is_empty() => Woken::Answered(answered),
            woken = read_or_wait(&mut self.reading, wait_for_more) => woken,
            () = tokio::time::sleep_until(until.into()) => Woken::Time,
            () = shutdown.cancelled(), if !draining => Woken::Shutdown,
        }
    }

    fn came_home(&mut self, source: Box<Source>, read: Result<bool, JournalError>) {
        self.look_back(&source);
        self.reading = Reading::Home(source);
        match read {
            Ok(more) => {
                self.may_have_more |= more;
                if std::mem::take(&mut self.troubles.journal) {
                    tracing::info!("the journal can be read again for influxdb");
                }
            }
            Err(error) => {
                self.read_again_at = Some(Instant::now() + JOURNAL_RETRY);
                if !std::mem::replace(&mut self.troubles.journal, true) {
                    tracing::error!(%error, "the journal cannot be read for influxdb; trying on");
                }
            }
        }
    }

    fn answered(&mut self, job: Job, answer: &Answer, took: Duration) {
        let Outcome { taken, error, dropped, change } =
            self.delivery.answered(job, answer, Instant::now(), fastrand::f64());
        match error {
            None => self.metrics.influx_request.observe(took),
            Some(reason) => self.metrics.influx_errors.add(reason.word(), 1),
        }
        self.metrics.influx_lines.add(taken as u64);
        for dropped in &dropped {
            self.metrics.influx_dropped.add(dropped.reason, dropped.lines as u64);
            self.troubles.drops.log(dropped);
        }
        let url = self.options.url.as_str();
        match change {
            Some(Change::Trouble { reason, words, advice: "" }) => {
                let reason = reason.word();
                tracing::warn!(
                    url,
                    reason,
                    error = words,
                    "influxdb takes nothing; it is kept and tried again"
                );
            }
            Some(Change::Trouble { reason, words, advice }) => {
                let reason = reason.word();
                let (org, bucket) = (self.options.org.as_str(), self.options.bucket.as_str());
                tracing::error!(
                    url,
                    org,
                    bucket,
                    reason,
                    error = words,
                    advice,
                    "influxdb takes nothing until this is mended; it is kept and tried again"
                );
            }
            Some(Change::Back { away }) => {
                tracing::info!(url, away_s = away.as_secs(), "influxdb takes lines again");
            }
            None => {}
        }
    }

    /// Writes the cursor, tells the journal, measures the lag.
    async fn tick(&mut self) {
        let now = Instant::now();
        self.tick_at = now + TICK;
        self.troubles.drops.tick(now);
        if self.settled != self.saved {
            let (file, settled) = (self.options.cursor_file.clone(), self.settled);
            let saving = tokio::task::spawn_blocking(move || cursor::save(&file, settled));
            match saving.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                Ok(()) => {
                    self.saved = settled;
                    if std::mem::take(&mut self.troubles.cursor) {
                        tracing::info!("influxdb's cursor can be written again");
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.troubles.cursor, true) {
                        let file = self.options.cursor_file.display();
                        tracing::error!(%file, %error, "influxdb's cursor cannot be written; the journal keeps more");
                    }
                }
            }
        }
        // What is gathered right now is a second old at most.
        let mut oldest = self.delivery.oldest_ms();
        let mut reading = std::mem::replace(&mut self.reading, Reading::Gone);
        if let Reading::Home(source) = &mut reading {
            oldest = oldest.or(source.oldest_ms());
            self.look_back(source);
        }
        self.reading = reading;
        let age = oldest.map_or(0, |oldest| now_ms().saturating_sub(oldest));
        self.metrics.influx_lag_ms.set(u64::try_from(age).unwrap_or(0));
    }

    /// Tells the journal what it need not keep for InfluxDB, and measures what InfluxDB has not.
    fn look_back(&mut self, source: &Source) {
        if source.waiting().is_none() && self.delivery.is_empty() {
            // Also over damaged records at the end, after which none came.
            self.settled = source.position();
        }
        if self.passed != self.saved {
            source.passed(self.saved);
            self.passed = self.saved;
        }
        self.metrics.influx_lag_bytes.set(source.lag_bytes(self.settled));
    }
}

/// Waits for the source to come home, or at home for the journal to have more.
async fn read_or_wait(reading: &mut Reading, wait_for_more: bool) -> Woken {
    match reading {
        Reading::Away(read) => Woken::Read(read.await),
        Reading::Home(source) if wait_for_more && !source.is_full() => {
            Woken::MayHaveMore(source.wait(TICK).await)
        }
        _ => std::future::pending().await,
    }
}
