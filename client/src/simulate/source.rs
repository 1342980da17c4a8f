//! When simulated hosts take their samples.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use vitals_wire::sample::Sample;

use super::Options;
use super::host::Host;
use super::script::{At, Given, Step};
use crate::link::driver::Source;

/// Times of a host are this far apart at least; the last digit of a ms tells simulations on one directory apart, as in a
/// client.
const LEAST_STEP_MS: i64 = 10;

/// Between two samples of a script.
const BETWEEN_STEPS: Duration = Duration::from_millis(1);

/// The clock with this last digit.
pub(super) fn clock_ms(digit: u8) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64 / LEAST_STEP_MS * LEAST_STEP_MS + i64::from(digit)
}

/// A sample each interval.
pub(super) struct Ticking {
    host: Arc<Host>,
    interval: Duration,
    next: Instant,
    end: Option<Instant>,
    last_ms: i64,
    digit: u8,
    shutdown: CancellationToken,
}

impl Ticking {
    pub(super) fn new(
        host: Arc<Host>,
        options: &Options,
        started: Instant,
        digit: u8,
        shutdown: CancellationToken,
    ) -> Self {
        let interval = options.interval.duration();
        let next = started + interval.mul_f64(host.phase());
        let end = options.duration.map(|duration| started + duration);
        Self { host, interval, next, end, last_ms: i64::MIN, digit, shutdown }
    }
}

impl Source for Ticking {
    async fn next(&mut self) -> Option<Sample> {
        let is_last = self.end.is_some_and(|end| end <= self.next);
        let until = self.end.map_or(self.next, |end| end.min(self.next));
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            () = sleep_until(until.into()) => {}
        }
        if is_last {
            return None;
        }
        // A tick that was missed is skipped, not made up for.
        let late = self.next.elapsed().as_nanos() / self.interval.as_nanos().max(1);
        self.next += self.interval * (late as u32 + 1);
        self.last_ms = clock_ms(self.digit).max(self.last_ms.saturating_add(LEAST_STEP_MS));
        Some(self.host.sample(self.last_ms, &Given::default()))
    }
}

/// The samples of a script.
pub(super) struct Played {
    host: Arc<Host>,
    steps: std::vec::IntoIter<Step>,
    current: Option<Step>,
    started: Instant,
    last: Instant,
    last_ms: i64,
    digit: u8,
    shutdown: CancellationToken,
}

impl Played {
    pub(super) fn new(
        host: Arc<Host>,
        steps: Vec<Step>,
        started: Instant,
        digit: u8,
        shutdown: CancellationToken,
    ) -> Self {
        let mut steps = steps.into_iter();
        let current = steps.next();
        Self { host, steps, current, started, last: started, last_ms: i64::MIN, digit, shutdown }
    }
}

impl Source for Played {
    async fn next(&mut self) -> Option<Sample> {
        let step = self.current.as_ref()?;
        let until = match step.at {
            At::AfterStart(seconds) | At::Both(seconds, _) => self.started + Duration::from_secs_f64(seconds),
            At::TimeMs(time_ms) => {
                let ahead = u64::try_from(time_ms.saturating_sub(clock_ms(0))).unwrap_or_default();
                Instant::now() + Duration::from_millis(ahead)
            }
        };
        // Steps that are all due at once still go one after the other, so that most find the connection idle.
        let until = until.max(self.last + BETWEEN_STEPS);
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => return None,
            () = sleep_until(until.into()) => {}
        }
        self.last = Instant::now();
        let time_ms = match step.at {
            At::AfterStart(_) => {
                self.last_ms = clock_ms(self.digit).max(self.last_ms.saturating_add(LEAST_STEP_MS));
                self.last_ms
            }
            At::TimeMs(time_ms) | At::Both(_, time_ms) => time_ms,
        };
        let sample = self.host.sample(time_ms, &step.given);
        self.current = self.steps.next();
        Some(sample)
    }
}
