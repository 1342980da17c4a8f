//! Samples of this host, on a steady interval.
//!
//! The sampler knows nothing of what becomes of its samples. Reading takes a fraction of a millisecond and never blocks:
//! what may block is asked one deadline before a sample is due, on a thread of its own.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use vitals_wire::bounded::List;
use vitals_wire::sample::Sample;

use crate::clock::{SampleClock, Stamp};
use crate::collect::{CollectConfig, Collectors, Counters, Roots};
use crate::health::{Health, wall_ms};

/// Between the two readings that the first sample needs: long enough for percentages to mean something.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How much longer the first sample waits for the first walk over processes.
const FIRST_WALK: Duration = Duration::from_millis(250);
/// Between two attempts to send where nobody takes samples for the time being.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// The sampler's thread needs little stack.
const STACK_BYTES: usize = 256 << 10;
/// The shortest and the longest interval.
pub const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Takes samples of this host.
pub struct Sampler {
    collectors: Collectors,
    counters: Arc<Counters>,
    deadline: Duration,
    health: Option<Arc<Health>>,
}

impl Sampler {
    /// A sampler that reads what `config` says. Nothing is read yet.
    pub fn new(config: &CollectConfig) -> Self {
        Self::with_roots(config, &Roots::default())
    }

    /// The same for a host whose files are elsewhere.
    pub fn with_roots(config: &CollectConfig, roots: &Roots) -> Self {
        let counters = Arc::new(Counters::default());
        let collectors = Collectors::new(config, roots, counters.clone());
        Self { collectors, counters, deadline: config.read_deadline(), health: None }
    }

    /// Adds what the client knows of itself, when it says that it is due, and tells it of steps of the clock.
    pub fn with_health(self, health: Arc<Health>) -> Self {
        Self { health: Some(health), ..self }
    }

    /// What went wrong so far, for metrics.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// The first sample, complete: two readings half a second apart. Sleeps in between.
    pub fn first(&mut self) -> Sample {
        self.prime(&Stop::default());
        self.take(wall_ms())
    }

    /// The next sample. Waits for what may block, mostly less than a millisecond and at most its deadline.
    #[allow(clippy::should_implement_trait, reason = "it has no end, and each takes time")]
    pub fn next(&mut self) -> Sample {
        self.collectors.begin();
        self.collectors.settle(Instant::now() + self.deadline, || true);
        self.take(wall_ms())
    }

    /// Takes the reading that the first sample is compared with, and waits until that one is due.
    fn prime(&mut self, stop: &Stop) {
        self.collectors.begin();
        // What this reading tells is of no use, what it leaves in the collectors is.
        drop(self.collectors.read());
        let due = Instant::now() + FIRST_PAUSE;
        self.collectors.begin();
        self.collectors.settle(due, || !stop.is_set());
        stop.sleep_until(due);
        let latest = due + FIRST_WALK;
        while self.collectors.is_first_walk_under_way() && Instant::now() < latest {
            if !stop.sleep_until(Instant::now() + Duration::from_millis(5)) {
                return;
            }
        }
    }

    /// Reads at once. What may block was asked before, or is not in it.
    fn take(&mut self, time_ms: i64) -> Sample {
        let mut sections = self.collectors.read();
        if let Some(section) = self.health.as_ref().and_then(|health| health.section(Instant::now())) {
            sections.push(section);
        }
        // There are fewer collectors than sections may be.
        Sample { time_ms, sections: List::first(sections).0 }
    }
}

/// Takes samples until `shutdown` and puts them into `out`: the first at once, then one each `interval`, at times that are
/// `phase` after a multiple of it. See [`run_sampler`].
pub async fn run(
    config: CollectConfig,
    interval: Duration,
    phase: Duration,
    clock: SampleClock,
    out: mpsc::Sender<Sample>,
    shutdown: CancellationToken,
) {
    run_sampler(Sampler::new(&config), interval, phase, clock, out, shutdown).await;
}

/// As [`run`], with a sampler made by the caller, who keeps its counters.
///
/// `interval` is held within [`INTERVALS`]. A tick that cannot be kept, because the machine slept or `out` was full, is
/// skipped and counted; samples never bunch. Ends when `shutdown` is cancelled or nobody takes samples any more.
///
/// The work is done on a thread of its own: nothing on the caller's runtime waits for it, and one precise sleep costs less
/// than a runtime's timers.
pub async fn run_sampler(
    sampler: Sampler,
    interval: Duration,
    phase: Duration,
    clock: SampleClock,
    out: mpsc::Sender<Sample>,
    shutdown: CancellationToken,
) {
    let interval = interval.clamp(*INTERVALS.start(), *INTERVALS.end());
    let stop = Arc::new(Stop::default());
    let (ended, has_ended) = oneshot::channel();
    let mut work = Work { sampler, interval, phase, clock, out, stop: stop.clone() };
    let thread =
        std::thread::Builder::new().name("sampler".into()).stack_size(STACK_BYTES).spawn(move || {
            work.sample();
            // Nobody waits any more where the runtime ended first.
            let _ = ended.send(());
        });
    if let Err(error) = thread {
        error!(%error, "cannot start the sampler's thread");
        return;
    }
    // However this future ends, the thread does, too.
    let _stop_at_drop = StopAtDrop(&stop);
    let mut has_ended = std::pin::pin!(has_ended);
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = &mut has_ended => {
            debug!("nobody takes samples any more");
            return;
        }
    }
    stop.set();
    // It looks within a quarter of the deadline.
    let _ = has_ended.await;
}

/// Tells the sampler's thread to end.
#[derive(Default)]
struct Stop {
    is_set: Mutex<bool>,
    wake: Condvar,
}

impl Stop {
    fn is_set(&self) -> bool {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Whether it slept until `due`; not, if it was stopped.
    fn sleep_until(&self, due: Instant) -> bool {
        let mut is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if *is_set || left.is_zero() {
                return !*is_set;
            }
            is_set = self.wake.wait_timeout(is_set, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

struct StopAtDrop<'a>(&'a Stop);

impl Drop for StopAtDrop<'_> {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// What the sampler's thread does.
struct Work {
    sampler: Sampler,
    interval: Duration,
    phase: Duration,
    clock: SampleClock,
    out: mpsc::Sender<Sample>,
    stop: Arc<Stop>,
}

impl Work {
    /// Samples until it is stopped, or nobody takes samples.
    fn sample(&mut self) {
        let mut ticks = Ticks::new(Instant::now(), wall_ms(), self.interval, self.phase);
        // What may block has this long before a sample, which at an interval of 1 s is less than its deadline.
        let lead = self.sampler.deadline.min(self.interval * 3 / 4);
        self.sampler.prime(&self.stop);
        while !self.stop.is_set() {
            let Some(time_ms) = self.stamp() else { return };
            let sample = self.sampler.take(time_ms);
            if !self.send(sample) {
                return;
            }
            let (due, missed) = ticks.after(Instant::now());
            if missed > 0 {
                Counters::add(&self.sampler.counters.missed_ticks, missed as usize);
                warn!(missed, "too late for some samples, skipped them");
            }
            if !self.stop.sleep_until(due - lead) {
                return;
            }
            self.sampler.collectors.begin();
            self.sampler.collectors.settle(due, || !self.stop.is_set());
            self.stop.sleep_until(due);
        }
    }

    /// The time of a sample taken now; `None` if stopped while waiting for a clock that was set back.
    fn stamp(&mut self) -> Option<i64> {
        loop {
            match self.clock.stamp(wall_ms(), steady_ms()) {
                Stamp::Take(time_ms) => {
                    if let Some(health) = &self.sampler.health {
                        health.clock_steps(self.clock.steps_so_far());
                    }
                    return Some(time_ms);
                }
                Stamp::Wait(wait) => {
                    warn!(
                        wait_ms = wait.as_millis() as u64,
                        "the clock was set back a little, waiting for it"
                    );
                    if !self.stop.sleep_until(Instant::now() + wait) {
                        return None;
                    }
                }
            }
        }
    }

    /// Whether somebody took the sample. Waits while the channel is full: ticks missed meanwhile are counted.
    fn send(&self, mut sample: Sample) -> bool {
        loop {
            match self.out.try_send(sample) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
                Err(mpsc::error::TrySendError::Full(back)) => sample = back,
            }
            if !self.stop.sleep_until(Instant::now() + FULL_PAUSE) {
                return false;
            }
        }
    }
}

/// When samples are due: a plain calculation.
#[derive(Debug)]
struct Ticks {
    /// The tick that comes next.
    next: Instant,
    interval: Duration,
    has_begun: bool,
}

impl Ticks {
    /// Ticks at wall times that are `phase` after a multiple of `interval`. They keep their pace when the wall clock is
    /// set.
    fn new(now: Instant, wall_ms: i64, interval: Duration, phase: Duration) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let phase_ms = i64::try_from(phase.as_millis()).unwrap_or(0);
        let to_next = interval_ms - wall_ms.saturating_sub(phase_ms).rem_euclid(interval_ms);
        Self { next: now + Duration::from_millis(to_next.unsigned_abs()), interval, has_begun: false }
    }

    /// The tick to wait for after a sample at `now`, and how many were missed: those that have passed or come sooner
    /// than half an interval. Before the second sample none is missed, as the first comes at no tick.
    fn after(&mut self, now: Instant) -> (Instant, u32) {
        let earliest = now + self.interval / 2;
        let mut missed = 0;
        while self.next < earliest {
            self.next += self.interval;
            missed += 1;
        }
        // The tick of the sample that was just taken is not missed.
        let missed = if std::mem::replace(&mut self.has_begun, true) { missed - missed.min(1) } else { 0 };
        (self.next, missed)
    }
}

/// A clock that nobody sets and that goes on while the machine sleeps.
#[cfg(target_os = "linux")]
fn steady_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn steady_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000)
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
