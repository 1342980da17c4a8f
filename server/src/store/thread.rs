//! The store's thread and the handle to it.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, info};
use vitals_wire::ids::HostId;
use vitals_wire::log::Position;

use super::engine::{Engine, Now, Seal};
use super::{FieldInfo, Row, RowRef, Series, Shared, StoreCounters, StoreError, StoreOptions, StoredEvent};
use crate::clock::now_ms;
use crate::field::FieldSelector;
use crate::journal::{Journal, JournalReader, panic_text};
use crate::metrics::Metrics;

/// Requests that wait for the thread; more callers than these wait in turn.
const REQUESTS: usize = 16;
/// The thread looks for requests at least this often.
const LOOK: Duration = Duration::from_millis(200);
/// Records taken in before the thread looks for anything else.
const RECORDS: usize = 256;
/// Time before the journal is read again after a failure.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// A failure that goes on is logged again after this time.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// A handle to history, cheap to clone. Its calls block, for a millisecond or a few.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    options: StoreOptions,
    lag_bytes: Arc<AtomicU64>,
    condition: Arc<Condition>,
    requests: SyncSender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How the thread is.
#[derive(Debug)]
struct Condition {
    /// Why history cannot be read or written now, or what the thread's panic said.
    trouble: Mutex<Option<String>>,
    ended: watch::Sender<bool>,
}

impl Condition {
    fn set_trouble(&self, why: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }
}

/// However the thread ends, those who wait for that are told.
struct Ending(Arc<Condition>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

enum Request {
    Flush(SyncSender<Result<(), StoreError>>),
    Close(SyncSender<Result<(), StoreError>>),
    #[cfg(test)]
    Panic,
}

impl Store {
    /// Opens the file, or makes it, and starts to read the journal from the file's cursor.
    pub fn open(options: StoreOptions, journal: &Journal, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let started = Instant::now();
        let mut engine = Engine::open(options.clone(), metrics.clone(), now(started))?;
        engine.log_start();
        let reader = journal.reader("store", engine.cursor())?;
        engine.begin_at(reader.position());
        let (requests, receiver) = sync_channel(REQUESTS);
        let shared = engine.shared.clone();
        let lag_bytes = Arc::new(AtomicU64::new(reader.lag_bytes(engine.position())));
        let condition = Arc::new(Condition { trouble: Mutex::default(), ended: watch::Sender::new(false) });
        let worker = Worker {
            engine,
            condition: condition.clone(),
            reader,
            requests: receiver,
            metrics,
            lag_bytes: lag_bytes.clone(),
            started,
            commit_every: options.commit_every,
            last_commit: started,
            failing_since: None,
            last_logged: None,
            last_read_logged: None,
            cannot_read: false,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(|| worker.watched())
            .map_err(|error| StoreError::Failed(format!("its thread does not start: {error}")))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { shared, options, lag_bytes, condition, requests, thread }) })
    }

    /// The series of a host that a selector means, with their points from `from_ms` on and before `to_ms`. A host that is
    /// not known has none. More than `limit` points in all are an error.
    pub fn series(
        &self,
        host: HostId,
        field: &FieldSelector,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Series>, StoreError> {
        self.inner.shared.series(host, field, from_ms..to_ms, limit)
    }

    /// The fields that a host had within the 24 h before its newest sample.
    pub fn fields(&self, host: HostId) -> Result<Vec<FieldInfo>, StoreError> {
        self.inner.shared.fields(host)
    }

    /// The time of a host's newest sample.
    pub fn newest_ms(&self, host: HostId) -> Result<Option<i64>, StoreError> {
        self.inner.shared.newest_ms(host)
    }

    /// The times of all samples of a host from `from_ms` on and before `to_ms`, ascending, each once: of those that can be
    /// read whole.
    pub fn samples(&self, host: HostId, from_ms: i64, to_ms: i64) -> Result<Vec<i64>, StoreError> {
        self.inner.shared.samples(host, from_ms..to_ms)
    }

    /// Gives `take` a host's samples from `from_ms` on and before `to_ms` as points, ascending by time, each time once,
    /// until it breaks off; to go on, ask from the last time + 1 ms. Those of `HostId::SERVER` come with the events. One
    /// of few reading connections is held meanwhile. Damaged stretches are skipped, and their samples counted.
    pub fn each_row(
        &self,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
        mut take: impl FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.inner.shared.each_row(host, from_ms..to_ms, &mut take)
    }

    /// As `each_row`, the first `limit` samples, to be kept.
    pub fn rows(&self, host: HostId, from_ms: i64, to_ms: i64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.inner.shared.rows(host, from_ms..to_ms, limit)
    }

    /// All hosts that ever had samples here, `HostId::SERVER` among them, in the order in which they first came. Those
    /// whose samples are all gone stay.
    pub fn hosts(&self) -> Vec<HostId> {
        self.inner.shared.hosts()
    }

    /// The journal before this place is visible to all who ask from now on. It rises, but after a restart it begins at
    /// the oldest sample that was not sealed.
    pub fn position(&self) -> Position {
        self.inner.shared.position()
    }

    /// What happened to hosts from `from_ms` on and before `to_ms`: the first `limit`.
    pub fn events(&self, from_ms: i64, to_ms: i64, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner.shared.events(from_ms..to_ms, limit)
    }

    /// The newest event of each host that says whether it is there, ascending by host. What the journal holds and the store has not taken
    /// in is not among them: ask when `lag_bytes` is 0.
    pub fn last_events(&self) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner.shared.last_events()
    }

    /// Why history cannot be written now, if so: for people.
    pub fn trouble(&self) -> Option<String> {
        let condition = &self.inner.condition;
        let trouble = condition.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if *condition.ended.borrow() {
            return Some(trouble.map_or_else(|| "ended".to_owned(), |why| format!("ended: {why}")));
        }
        trouble
    }

    /// Resolves when the store's thread has ended, for whatever reason: from then on nothing is stored. It keeps no
    /// handle.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.inner.condition.ended.subscribe();
        async move {
            // An error: all handles are gone, and the thread.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// The time before which raw samples are not kept: older ones should not be taken.
    pub fn oldest_kept_ms(&self, now_ms: i64) -> i64 {
        self.inner.options.oldest_kept_ms(now_ms)
    }

    /// Bytes of the journal that were not taken in yet.
    pub fn lag_bytes(&self) -> u64 {
        self.inner.lag_bytes.load(Ordering::Relaxed)
    }

    /// What the store counts beside the server's metrics.
    pub fn counters(&self) -> &StoreCounters {
        &self.inner.shared.counters
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.inner.options.path
    }

    /// Takes in all that the journal holds and seals all of it. Blocks; seconds with thousands of hosts.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.ask(Request::Flush)
    }

    /// Flushes and ends the thread. What could not be sealed is still in the journal. Readers can go on.
    pub fn close(&self) -> Result<(), StoreError> {
        let closed = self.ask(Request::Close);
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It has logged its own panic.
            let _ = thread.join();
        }
        closed
    }

    fn ask(
        &self,
        request: impl FnOnce(SyncSender<Result<(), StoreError>>) -> Request,
    ) -> Result<(), StoreError> {
        let (answer, answered) = sync_channel(1);
        self.inner.requests.send(request(answer)).map_err(|_| StoreError::Closed)?;
        answered.recv().map_err(|_| StoreError::Closed)?
    }
}

fn now(started: Instant) -> Now {
    Now { steady_ms: started.elapsed().as_millis() as i64, wall_ms: now_ms() }
}

struct Worker {
    engine: Engine,
    condition: Arc<Condition>,
    reader: JournalReader,
    requests: Receiver<Request>,
    metrics: Arc<Metrics>,
    lag_bytes: Arc<AtomicU64>,
    started: Instant,
    commit_every: Duration,
    last_commit: Instant,
    failing_since: Option<Instant>,
    last_logged: Option<Instant>,
    last_read_logged: Option<Instant>,
    /// Reading the journal failed last time.
    cannot_read: bool,
}

/// Whether to log something again that was logged last at this time.
fn is_due(logged: &mut Option<Instant>) -> bool {
    let is_due = logged.is_none_or(|logged| logged.elapsed() >= LOG_AGAIN);
    if is_due {
        *logged = Some(Instant::now());
    }
    is_due
}

impl Worker {
    /// Runs it and says so when it panics.
    fn watched(self) {
        let ending = Ending(self.condition.clone());
        // What it leaves behind is only read: the file is whole after any end, and so is memory between two calls.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.run())) {
            let error = panic_text(&*panic);
            error!(error, "the store's thread panicked; nothing is stored any more and the journal fills up");
            ending.0.set_trouble(Some(error));
        }
    }

    fn run(mut self) {
        loop {
            if self.answer_requests(Duration::ZERO).is_break() {
                return;
            }
            let is_time = self.last_commit.elapsed() >= self.commit_every;
            // A commit that failed is not tried again before its time, however urgent.
            if is_time || self.failing_since.is_none() {
                // Where the journal is small, what is in memory only would fill it long before its turn.
                let is_crowded = self.reader.is_crowded();
                if is_crowded || is_time || self.engine.is_urgent() {
                    // Failures are logged and tried again.
                    let _ = self.commit(if is_crowded { Seal::All } else { Seal::Due });
                }
            }
            let pause = self.commit_every.saturating_sub(self.last_commit.elapsed()).min(LOOK);
            if self.engine.is_full() {
                if self.failing_since.is_some() && self.answer_requests(pause).is_break() {
                    return;
                }
                continue;
            }
            match self.take_in(RECORDS) {
                Ok(true) => {}
                Ok(false) => {
                    // A closed journal does not wait.
                    if !self.reader.wait_blocking(pause) && self.answer_requests(pause).is_break() {
                        return;
                    }
                }
                Err(()) => {
                    if self.answer_requests(READ_AGAIN).is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes in at most `count` records; false when there are no more now.
    fn take_in(&mut self, count: usize) -> Result<bool, ()> {
        for _ in 0..count {
            let next = self.reader.try_next();
            if next.is_ok() && std::mem::take(&mut self.cannot_read) && self.failing_since.is_none() {
                self.condition.set_trouble(None);
            }
            match next {
                Ok(Some(entry)) => self.engine.ingest(&entry.record, entry.after),
                Ok(None) => {
                    self.engine.caught_up(self.reader.position());
                    self.note_lag();
                    return Ok(false);
                }
                Err(error) => {
                    if is_due(&mut self.last_read_logged) {
                        error!(%error, "history cannot read the journal; it is tried again");
                    }
                    self.cannot_read = true;
                    self.condition.set_trouble(Some(format!("the journal cannot be read: {error}")));
                    return Err(());
                }
            }
            if self.engine.is_urgent() {
                break;
            }
        }
        self.note_lag();
        Ok(true)
    }

    fn note_lag(&self) {
        let lag = self.reader.lag_bytes(self.engine.position());
        self.lag_bytes.store(lag, Ordering::Relaxed);
        self.metrics.store_lag_bytes.set(lag);
    }

    fn commit(&mut self, seal: Seal) -> Result<(), StoreError> {
        let now = now(self.started);
        let committed = self.engine.commit(now, seal);
        self.last_commit = Instant::now();
        // Also after a failure: a part may have been committed.
        self.reader.passed(self.engine.cursor());
        if let Err(error) = committed.and_then(|()| self.engine.tidy(now)) {
            self.engine.shared.counters.failed_commits.add(1);
            self.failed(&error);
            return Err(error);
        }
        if let Some(since) = self.failing_since.take() {
            info!(seconds = since.elapsed().as_secs(), "history can be written again");
            self.last_logged = None;
            if !self.cannot_read {
                self.condition.set_trouble(None);
            }
        }
        Ok(())
    }

    fn failed(&mut self, error: &StoreError) {
        self.failing_since.get_or_insert_with(Instant::now);
        self.condition.set_trouble(Some(error.to_string()));
        if is_due(&mut self.last_logged) {
            error!(%error, "history cannot be written; it waits in memory and in the journal, and is tried again");
        }
    }

    /// Answers what is asked, waiting at most `pause` for the first request.
    fn answer_requests(&mut self, pause: Duration) -> ControlFlow<()> {
        let mut request = match self.requests.recv_timeout(pause) {
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) => return ControlFlow::Continue(()),
            // Every handle is gone.
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        };
        loop {
            match request {
                Request::Flush(answer) => {
                    let _ = answer.send(self.flush());
                }
                Request::Close(answer) => {
                    let flushed = self.flush();
                    self.engine.checkpoint();
                    let _ = answer.send(flushed);
                    return ControlFlow::Break(());
                }
                #[cfg(test)]
                Request::Panic => panic!("asked to"),
            }
            request = match self.requests.try_recv() {
                Ok(request) => request,
                Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
                Err(TryRecvError::Disconnected) => return ControlFlow::Break(()),
            };
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        loop {
            match self.take_in(RECORDS) {
                Ok(true) if self.engine.is_urgent() => self.commit(Seal::Due)?,
                Ok(true) => {}
                Ok(false) => return self.commit(Seal::All),
                Err(()) => return Err(StoreError::Failed("the journal cannot be read".to_owned())),
            }
        }
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
