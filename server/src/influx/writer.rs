//! The task that drives [`Source`], [`Delivery`], [`WriteClient`], the cursor, and what a target is owed.
//!
//! Reading and turning into lines happens on a blocking thread, which takes the source along and brings it back;
//! requests are tasks of their own. When this task is dropped at any point its requests end with it, and whoever goes
//! on from the cursor file writes again what was under way.
//!
//! A target that holds more than its share of the journal gives up the oldest part: the times of its samples are read,
//! noted durably in the [`Book`](super::book::Book), and only then does the journal hear that it may forget it. What is
//! owed is filled from history beside the live lines, when InfluxDB takes lines again.

mod upkeep;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use vitals_wire::log::Position;

use super::answer::Answer;
use super::delivery::{Delivery, Job, Limits, Next, Outcome};
use super::drops::Drops;
use super::filler::{Filler, Gathered};
use super::http::WriteClient;
use super::owed::Stretch;
use super::source::Source;
use super::{History, InfluxError, TagsAt, Target, cursor, setup};
use crate::journal::{JournalError, JournalReader};

/// How often the cursor is written and the lag is measured, at most and at least.
const TICK: Duration = Duration::from_secs(1);
/// Pause after the journal could not be read.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// Time at shutdown in which what is left is still written. The rest stays in the journal.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Writes what `reader` gives to InfluxDB until `shutdown`, and what is left then for some seconds if InfluxDB takes
/// it. `reader` must stand at [`super::starting_point`]. Fails at once where the options cannot be used, and later only by a
/// bug ([`InfluxError::Broken`]): then it can be run again with a new reader.
pub async fn run(
    target: Arc<Target>,
    reader: JournalReader,
    tags_at: TagsAt,
    history: Arc<dyn History>,
    shutdown: CancellationToken,
) -> Result<(), InfluxError> {
    let options = &target.options;
    options.check()?;
    let client = WriteClient::new(options)?;
    // Beside the writer: a slow answer to it must not hold anything up.
    let mut requests = JoinSet::new();
    let mut checking = JoinSet::new();
    checking.spawn(setup::check_and_log(options.clone()));
    let limits = Limits {
        in_flight: options.in_flight,
        owed_in_flight: options.owed_in_flight,
        // A batch ends with the record that reaches `max_lines`: cutting off a small rest would double the requests.
        max_lines: options.max_lines.saturating_mul(2),
        backoff_min: options.backoff_min,
        backoff_max: options.backoff_max,
        slow_retry: options.slow_retry,
    };
    let settled = reader.position();
    // A cursor that cannot be read was told of when the reader was made.
    let known = cursor::load(&options.cursor_file()).ok().flatten().unwrap_or_default();
    // The journal does not reach back to it, or is another one: at worst what is owed then was written already.
    let has_gap = known.position != Position::default() && known.position != settled;
    let since = (known.received_ms, has_gap);
    let source = Source::new(reader, tags_at, target.metrics.clone(), options.max_lines, since);
    let filler = Filler::new(history, options.max_lines);
    let mut writer = Writer {
        delivery: Delivery::new(limits),
        reading: Reading::Home(Box::new(source)),
        may_have_more: true,
        journal_ended: false,
        read_again_at: None,
        settled,
        settled_ms: known.received_ms,
        saved: settled,
        passed: settled,
        offered: VecDeque::new(),
        filler,
        giving_up: false,
        tick_at: Instant::now() + TICK,
        troubles: Troubles::default(),
        drops: Drops::default(),
        client,
        target,
    };
    writer.drive(&mut requests, shutdown).await
}

/// Where the source is.
enum Reading {
    Home(Box<Source>),
    Away(JoinHandle<(Box<Source>, Read)>),
    /// Nowhere: between two of the others.
    Gone,
}

/// What came of a trip.
enum Read {
    /// Lines were gathered: whether there may be more.
    Lines(Result<bool, JournalError>),
    /// A part of the journal was to be given up.
    GaveUp(Result<(), GiveUpError>),
}

/// Why nothing was given up. It is tried again.
#[derive(Debug, thiserror::Error)]
enum GiveUpError {
    /// The journal cannot be read.
    #[error("the journal: {0}")]
    Journal(#[from] JournalError),
    /// The list of what is owed cannot be written.
    #[error("{0}")]
    Book(#[from] std::io::Error),
}

/// What was logged as being wrong, so that it is logged once.
#[derive(Default)]
struct Troubles {
    journal: bool,
    cursor: bool,
    book: bool,
}

/// A batch that was offered, so that it can be owed instead.
struct Offered {
    newest_ms: i64,
    times: Stretch,
}

struct Writer {
    target: Arc<Target>,
    client: WriteClient,
    delivery: Delivery,
    /// What of the journal is in `delivery`, in order.
    offered: VecDeque<Offered>,
    filler: Filler,
    /// The source is away to give up a part of the journal, and writes the cursor itself.
    giving_up: bool,
    drops: Drops,
    reading: Reading,
    may_have_more: bool,
    journal_ended: bool,
    read_again_at: Option<Instant>,
    /// All before it is written, owed or counted, ...
    settled: Position,
    /// (and its newest record came then)
    settled_ms: i64,
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
    Read(Result<(Box<Source>, Read), JoinError>),
    Gathered(Result<Gathered, JoinError>),
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
            for _ in 0..self.delivery.settle_owed() {
                self.filler.settled(&self.target.book);
            }
            if let Some(settled) = self.delivery.settle() {
                self.settle(settled);
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
            if !draining && self.delivery.is_open() && self.delivery.has_owed_room() {
                self.filler.begin(&self.target.book, now);
            }
            // What is over already and could not be begun must not keep this from sleeping.
            let read_again_at = self.read_again_at.filter(|at| *at > now);
            let wake_at = [next, self.batch_due(), read_again_at, give_up_at, self.filler.again_at(now)]
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
                Woken::Gathered(gathered) => {
                    let gathered = gathered.map_err(InfluxError::Broken)?;
                    let name = self.target.options.name.as_str();
                    let expired_ms = gathered.expired_ms;
                    if let Some((body, lines)) = self.filler.came(name, gathered, &self.target.book) {
                        self.delivery.offer_owed(body.into(), lines);
                        self.target.has_expired(expired_ms);
                    }
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
        let influx = self.target.options.name.as_str();
        tracing::info!(influx, position = %self.settled, "the writer to influxdb has ended");
        Ok(())
    }

    fn settle(&mut self, settled: Position) {
        // A batch that was given up in between may settle behind what has been given up since.
        self.settled = self.settled.max(settled);
        // By number and not by place: batches that end within the same block of the journal end at the same place.
        while self.offered.len() > self.delivery.under_way()
            && let Some(offered) = self.offered.pop_front()
        {
            self.settled_ms = self.settled_ms.max(offered.newest_ms);
        }
    }

    /// Offers what was read, if there is enough of it or it has waited long enough, and reads on.
    fn hand_over(&mut self, now: Instant, draining: bool) {
        let source = match std::mem::replace(&mut self.reading, Reading::Gone) {
            Reading::Home(mut source) => {
                let (wait, lines) = (self.target.options.batch_wait, self.target.options.batch_lines);
                let is_due = source
                    .waiting()
                    .is_some_and(|(since, had)| draining || had >= lines || now >= since + wait);
                if is_due
                    && self.delivery.has_room()
                    && let Some(batch) = source.take()
                {
                    self.delivery.offer(batch.body, batch.lines, batch.after, batch.received_ms);
                    self.offered.push_back(Offered { newest_ms: batch.newest_ms, times: batch.times });
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
                (source, Read::Lines(read))
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
                source.waiting().map(|(since, _)| since + self.target.options.batch_wait)
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
            gathered = self.filler.gathered() => Woken::Gathered(gathered),
            () = tokio::time::sleep_until(until.into()) => Woken::Time,
            () = shutdown.cancelled(), if !draining => Woken::Shutdown,
        }
    }

    fn came_home(&mut self, mut source: Box<Source>, read: Read) {
        self.giving_up = false;
        let influx = self.target.options.name.as_str();
        if let Some(missing) = source.take_missing() {
            tracing::warn!(influx, spans = ?missing.all(), "a part of the journal was lost for influxdb; it is owed by its time");
            // In memory until the next tick: the disk may be what is wrong.
            self.target.book.owe_unsaved(&missing, source.position());
        }
        match read {
            Read::Lines(Ok(more)) => {
                self.may_have_more |= more;
                if std::mem::take(&mut self.troubles.journal) {
                    tracing::info!(influx, "the journal can be read again for influxdb");
                }
            }
            Read::Lines(Err(error)) => {
                self.read_again_at = Some(Instant::now() + JOURNAL_RETRY);
                if !std::mem::replace(&mut self.troubles.journal, true) {
                    tracing::error!(influx, %error, "the journal cannot be read for influxdb; trying on");
                }
            }
            Read::GaveUp(Ok(())) => {
                let position = source.position();
                let bytes = source.lag_bytes(self.settled).saturating_sub(source.lag_bytes(position));
                self.target.metrics.owed_bytes.add(bytes);
                (self.settled, self.settled_ms) = (position, source.newest_ms());
                // All of it is on disk already; what is under way of it may still arrive.
                (self.saved, self.passed) = (position, position);
                self.may_have_more = true;
                self.target.measure_owed();
                let owed_spans = self.target.metrics.owed_spans.get();
                tracing::warn!(
                    influx,
                    bytes,
                    owed_spans,
                    "influxdb lags more than its share of the journal: a part is owed from history"
                );
            }
            Read::GaveUp(Err(error)) => {
                if !std::mem::replace(&mut self.troubles.book, true) {
                    tracing::error!(influx, %error, "what influxdb is owed cannot be noted; the journal keeps it as long as it can");
                }
            }
        }
        self.look_back(&source);
        self.reading = Reading::Home(source);
    }

    fn answered(&mut self, job: Job, answer: &Answer, took: Duration) {
        let Outcome { is_owed, taken, error, dropped, change } =
            self.delivery.answered(job, answer, Instant::now(), fastrand::f64());
        match error {
            None => self.target.metrics.request.observe(took),
            Some(reason) => self.target.metrics.errors.add(reason.word(), 1),
        }
        let metrics = &self.target.metrics;
        metrics.lines.add(taken as u64);
        if is_owed {
            metrics.filled_lines.add(taken as u64);
        }
        for dropped in dropped {
            self.drops.take(&self.target.options.name, dropped, metrics);
        }
        if let Some(change) = change {
            self.target.changed(change);
        }
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
