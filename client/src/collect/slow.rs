//! Calls that may block, on a thread of their own.
//!
//! A round begins some time before a reading. One worker thread makes the calls one after another; the reading takes
//! what has answered by then. A call that takes longer than the *patience* keeps its thread to itself, and a fresh one
//! goes on with the others, so that nothing else is late. One that takes longer than the *deadline* hangs: it is named,
//! counted, and asked again only some time after it has returned. File systems that may hang are asked last, and not at
//! all while [`MAX_STUCK`] threads hang.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use vitals_wire::section::Section;

use super::Counters;

/// Threads that may hang in calls that are known to be risky.
const MAX_STUCK: usize = 4;
/// Threads in all, whatever hangs.
const MAX_THREADS: usize = 8;
/// A worker needs little stack.
const STACK_BYTES: usize = 128 << 10;
/// A call that once hung is asked again this long after it returned; the pause doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What a call answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// Of a file system.
    Space(Space),
    /// A sensor's or an attribute's figure.
    Number(i64),
    /// Figures by the numbers of what they are of, ascending.
    Numbers(Vec<(u32, i64)>),
    /// Sections, ready to send.
    Sections(Vec<Section>),
    /// It failed.
    Failed,
}

/// Space of a file system, in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub total: u64,
    pub free_for_all: u64,
    pub free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

type Call = Box<dyn Fn() -> Answer + Send + Sync>;

/// One call, made once each round for as long as its owner keeps it.
pub(super) struct SlowItem {
    /// What it is about, for logs: a path.
    name: Box<str>,
    is_risky: bool,
    call: Call,
    state: Mutex<ItemState>,
}

#[derive(Default)]
struct ItemState {
    is_queued: bool,
    started: Option<Instant>,
    answer: Option<Answer>,
    is_reported: bool,
    pause: Option<Duration>,
    ask_again: Option<Instant>,
}

impl SlowItem {
    /// The answer of this round, once; or that of the round before, if it came in time but after the reading.
    pub(super) fn take(&self) -> Option<Answer> {
        lock(&self.state).answer.take()
    }
}

/// All calls that may block.
pub(super) struct SlowReads {
    items: Vec<Arc<SlowItem>>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    is_exhausted: bool,
}

struct Shared {
    work: Mutex<Work>,
    /// There is something to do.
    wake: Condvar,
    /// There is nothing left to do.
    done: Condvar,
    deadline: Duration,
}

#[derive(Default)]
struct Work {
    queue: VecDeque<Arc<SlowItem>>,
    /// The worker that serves the queue; one of an older number is stuck, or was, and ends when it returns.
    worker: u64,
    has_worker: bool,
    busy_since: Option<Instant>,
    stuck: usize,
    has_ended: bool,
}

/// The lock, also after a panic of another thread: what it guards is valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SlowReads {
    pub(super) fn new(deadline: Duration, counters: Arc<Counters>) -> Self {
        let shared = Shared { work: Mutex::default(), wake: Condvar::new(), done: Condvar::new(), deadline };
        Self { items: Vec::new(), shared: Arc::new(shared), counters, is_exhausted: false }
    }

    /// How long a call keeps others waiting: a quarter of the deadline.
    fn patience(&self) -> Duration {
        self.shared.deadline / 4
    }

    /// Adds a call. It is made in each round until the returned handle is dropped.
    pub(super) fn add(
        &mut self,
        name: impl Into<Box<str>>,
        is_risky: bool,
        call: impl Fn() -> Answer + Send + Sync + 'static,
    ) -> Arc<SlowItem> {
        let item = SlowItem { name: name.into(), is_risky, call: Box::new(call), state: Mutex::default() };
        let item = Arc::new(item);
        self.items.push(item.clone());
        // Those that may hang come last.
        self.items.sort_by_key(|item| item.is_risky);
        item
    }

    /// Queues all calls that do not hang.
    pub(super) fn begin_round(&mut self, now: Instant) {
        // A call under way is also held by its thread.
        self.items.retain(|item| Arc::strong_count(item) > 1);
        self.report(now);
        let shared = self.shared.clone();
        let mut work = lock(&shared.work);
        // What the round before did not come to: each begins with those that answer quickly.
        for item in work.queue.drain(..) {
            lock(&item.state).is_queued = false;
        }
        let mut skipped = 0;
        for item in &self.items {
            let mut state = lock(&item.state);
            // An answer that came after the reading before stays for the next, until this round has a newer one.
            if state.is_queued || state.started.is_some() || state.ask_again.is_some_and(|at| at > now) {
                continue;
            }
            if item.is_risky && work.stuck >= MAX_STUCK {
                skipped += 1;
                continue;
            }
            state.is_queued = true;
            work.queue.push_back(item.clone());
        }
        Counters::add(&self.counters.skipped_reads, skipped);
        if work.queue.is_empty() {
            return;
        }
        if !work.has_worker {
            self.spawn(&mut work);
        }
        drop(work);
        shared.wake.notify_one();
    }

    /// Waits until all calls of the round have answered, but for those that are known to hang; at most until `due`, or
    /// until `go_on` says no. It is asked every quarter of the deadline, and so is who takes long.
    pub(super) fn settle(&mut self, due: Instant, go_on: impl Fn() -> bool) {
        loop {
            let now = Instant::now();
            self.poll(now);
            let work = lock(&self.shared.work);
            let is_waited_for = |item: &Arc<SlowItem>| {
                let state = lock(&item.state);
                state.started.is_some() && !state.is_reported
            };
            let is_settled = work.queue.is_empty() && work.busy_since.is_none();
            if (is_settled && !self.items.iter().any(is_waited_for)) || now >= due || !go_on() {
                return;
            }
            drop(self.shared.done.wait_timeout(work, self.patience().min(due - now)));
        }
    }

    /// Gives a fresh thread to the others if one takes long.
    fn poll(&mut self, now: Instant) {
        let shared = self.shared.clone();
        let mut work = lock(&shared.work);
        let Some(since) = work.busy_since else {
            return;
        };
        if now.saturating_duration_since(since) >= self.patience() {
            // The worker keeps its call and ends with it.
            work.worker += 1;
            work.stuck += 1;
            work.busy_since = None;
            work.has_worker = false;
            if work.stuck >= MAX_STUCK {
                let waiting = work.queue.len();
                work.queue.retain(|item| {
                    lock(&item.state).is_queued = !item.is_risky;
                    !item.is_risky
                });
                Counters::add(&self.counters.skipped_reads, waiting - work.queue.len());
            }
            if !work.queue.is_empty() {
                self.spawn(&mut work);
            }
        }
    }

    /// The reading is due: what hangs is named and counted.
    pub(super) fn end_round(&mut self, now: Instant) {
        self.poll(now);
        self.report(now);
    }

    fn report(&self, now: Instant) {
        let mut hanging = 0;
        for item in &self.items {
            let mut state = lock(&item.state);
            let hangs =
                state.started.is_some_and(|at| now.saturating_duration_since(at) >= self.shared.deadline);
            hanging += u64::from(hangs);
            if hangs && !state.is_reported {
                state.is_reported = true;
                Counters::add(&self.counters.hung_reads, 1);
                warn!(path = %item.name, deadline_ms = self.shared.deadline.as_millis() as u64, "does not answer, left out");
            } else if state.is_reported && state.started.is_none() && state.pause.is_none() {
                state.is_reported = false;
                info!(path = %item.name, "answers again");
            }
        }
        self.counters.hanging_now.store(hanging, std::sync::atomic::Ordering::Relaxed);
    }

    fn spawn(&mut self, work: &mut Work) {
        if work.stuck >= MAX_THREADS {
            if !self.is_exhausted {
                error!(
                    threads = work.stuck,
                    "too many threads hang, no file system is read until one returns"
                );
            }
            self.is_exhausted = true;
            return;
        }
        self.is_exhausted = false;
        let (shared, number) = (self.shared.clone(), work.worker);
        let builder = thread::Builder::new().name("slow-reads".into()).stack_size(STACK_BYTES);
        match builder.spawn(move || shared.serve(number)) {
            Ok(_) => work.has_worker = true,
            Err(error) => error!(%error, "cannot start the thread for slow readings"),
        }
    }
}

impl Drop for SlowReads {
    fn drop(&mut self) {
        // Threads that hang are left behind: they end with their call, or with the process.
        lock(&self.shared.work).has_ended = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    /// A worker's life.
    fn serve(&self, number: u64) {
        let mut work = lock(&self.work);
        loop {
            if work.has_ended || work.worker != number {
                return;
            }
            let Some(item) = work.queue.pop_front() else {
                work.busy_since = None;
                self.done.notify_all();
                work = self.wake.wait(work).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let started = Instant::now();
            work.busy_since = Some(started);
            drop(work);
            {
                let mut state = lock(&item.state);
                state.is_queued = false;
                state.started = Some(started);
            }
            let answer = (item.call)();
            item.answered(answer, started.elapsed() < self.deadline);
            work = lock(&self.work);
            if work.worker != number {
                work.stuck = work.stuck.saturating_sub(1);
                self.done.notify_all();
                return;
            }
        }
    }
}

impl SlowItem {
    fn answered(&self, answer: Answer, is_in_time: bool) {
        let mut state = lock(&self.state);
        state.started = None;
        if is_in_time {
            state.answer = Some(answer);
            state.pause = None;
            state.ask_again = None;
        } else {
            let pause = state.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
            state.pause = Some(pause);
            state.ask_again = Some(Instant::now() + pause);
        }
    }
}

#[cfg(test)]
#[path = "slow_tests.rs"]
mod tests;
