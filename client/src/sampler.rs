//! Samples of this host, on a steady interval.
//!
//! The sampler knows nothing of what becomes of its samples. Reading takes a fraction of a millisecond and never blocks:
//! what may block is asked one deadline before a sample is due, on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use vitals_wire::bounded::List;
use vitals_wire::sample::Sample;

use crate::clock::{SampleClock, Stamp};
use crate::collect::{CollectConfig, Collectors, Counters, Roots};

/// Between the two readings that the first sample needs: long enough for percentages to mean something.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How much longer the first sample waits for the first walk over processes.
const FIRST_WALK: Duration = Duration::from_millis(250);
/// The shortest and the longest interval.
pub const INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Takes samples of this host.
pub struct Sampler {
    collectors: Collectors,
    counters: Arc<Counters>,
    deadline: Duration,
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
        Self { collectors, counters, deadline: config.read_deadline() }
    }

    /// What went wrong so far, for metrics.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// The first sample, complete: two readings half a second apart. Sleeps in between.
    pub fn first(&mut self) -> Sample {
        self.prime();
        let due = Instant::now() + FIRST_PAUSE;
        self.wait_until(due);
        let latest = due + FIRST_WALK;
        while self.collectors.is_first_walk_under_way() && Instant::now() < latest {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.take(wall_ms())
    }

    /// The next sample. Waits for what may block, mostly less than a millisecond and at most its deadline.
    pub fn next(&mut self) -> Sample {
        self.collectors.begin();
        let due = Instant::now() + self.deadline;
        while !self.collectors.poll() && Instant::now() < due {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.take(wall_ms())
    }

    /// The reading that the first sample is compared with.
    fn prime(&mut self) {
        self.collectors.begin();
        // What this reading tells is of no use, what it leaves in the collectors is.
        drop(self.collectors.read());
        self.collectors.begin();
    }

    fn wait_until(&mut self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.collectors.poll();
            std::thread::sleep(left.min(self.collectors.patience()));
        }
    }

    /// Reads at once. What may block was asked before, or is not in it.
    fn take(&mut self, time_ms: i64) -> Sample {
        // There are fewer collectors than sections may be.
        Sample { time_ms, sections: List::first(self.collectors.read()).0 }
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
pub async fn run_sampler(
    mut sampler: Sampler,
    interval: Duration,
    phase: Duration,
    mut clock: SampleClock,
    out: mpsc::Sender<Sample>,
    shutdown: CancellationToken,
) {
    let work = async {
        sample_forever(&mut sampler, interval, phase, &mut clock, &out).await;
        debug!("nobody takes samples any more");
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

async fn sample_forever(
    sampler: &mut Sampler,
    interval: Duration,
    phase: Duration,
    clock: &mut SampleClock,
    out: &mpsc::Sender<Sample>,
) {
    let interval = interval.clamp(*INTERVALS.start(), *INTERVALS.end());
    let mut ticks = Ticks::new(Instant::now(), wall_ms(), interval, phase);
    // What may block has this long before a sample, which at an interval of 1 s is less than its deadline.
    let lead = sampler.deadline.min(interval * 3 / 4);
    sampler.prime();
    let mut due = Instant::now() + FIRST_PAUSE;
    poll_until(sampler, due).await;
    while sampler.collectors.is_first_walk_under_way() && Instant::now() < due + FIRST_WALK {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    loop {
        tokio::time::sleep_until(due.into()).await;
        let time_ms = loop {
            match clock.stamp(wall_ms(), steady_ms()) {
                Stamp::Take(time_ms) => break time_ms,
                Stamp::Wait(wait) => {
                    warn!(
                        wait_ms = wait.as_millis() as u64,
                        "the clock was set back a little, waiting for it"
                    );
                    tokio::time::sleep(wait).await;
                }
            }
        };
        let sample = sampler.take(time_ms);
        if out.send(sample).await.is_err() {
            return;
        }
        let (next, missed) = ticks.after(Instant::now());
        if missed > 0 {
            Counters::add(&sampler.counters.missed_ticks, missed as usize);
            warn!(missed, "too late for some samples, skipped them");
        }
        due = next;
        tokio::time::sleep_until((due - lead).into()).await;
        sampler.collectors.begin();
        poll_until(sampler, due).await;
    }
}

/// Gives what may block the time until `due`, looking after it now and then, and returns early when all has answered.
async fn poll_until(sampler: &mut Sampler, due: Instant) {
    loop {
        let next = (Instant::now() + sampler.collectors.patience()).min(due);
        tokio::time::sleep_until(next.into()).await;
        if sampler.collectors.poll() || next >= due {
            return;
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

fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
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
