//! Timestamps of samples, decided without I/O.
//!
//! A timestamp is the wall clock in ms with its last digit replaced by a small counter. Within one stretch, between two
//! steps of the wall clock, timestamps ascend, at least 10 ms apart. A step raises the counter, and so does a start (its
//! owner gives the next one), so that a stretch that comes after a step back meets no timestamp of the stretch before.
//! After a step back by less than an interval there is nothing to tell apart: it is waited out.
//!
//! Whoever keeps the counter for the next start, or tells of steps, is told when it rises: see [`SampleClock::steps`].
//!
//! Nobody rewrites a timestamp later.

use std::time::Duration;

use tokio::sync::watch;

/// Counters of stretches are one digit.
const COUNTERS: u8 = 10;
/// Milliseconds that share all digits but the last.
const STEP_MS: i64 = 10;
/// Clocks differ by this much without one of them having stepped: scheduling between the two readings.
const TOLERANCE_MS: i64 = 100;
/// And by one ms in so many: the kernel slews by up to 500 ppm.
const SLEW: i64 = 1000;

/// What to do for the next timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// Use this one, in ms since 1970.
    Take(i64),
    /// Ask again after this long: the clock stepped back a little.
    Wait(Duration),
}

/// Gives unique timestamps; see the module.
#[derive(Debug, Clone)]
pub struct SampleClock {
    counter: u8,
    interval_ms: i64,
    last: Option<Last>,
    steps: watch::Sender<Steps>,
}

/// Steps of the wall clock that were followed; those that were waited out are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steps {
    /// How many: so often the counter rose.
    pub count: u64,
    /// The last of them in ms, forward positive; 0 before the first. Known to some ms: the two clocks are not read in the
    /// same instant.
    pub last_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    wall_ms: i64,
    steady_ms: i64,
    stamp: i64,
}

impl SampleClock {
    /// A clock for samples every `interval`. `counter` is one more than at the end of the run before; only its last
    /// digit counts.
    pub fn new(counter: u8, interval: Duration) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        Self { counter: counter % COUNTERS, interval_ms, last: None, steps: watch::Sender::default() }
    }

    /// The counter of this stretch, 0 to 9: what to remember for the next start.
    pub fn counter(&self) -> u8 {
        self.counter
    }

    /// How often the counter has risen, for who keeps it: a run that begins with the counter of a stretch before could
    /// meet that stretch's timestamps. Closed when the clock is gone.
    pub fn steps(&self) -> watch::Receiver<Steps> {
        self.steps.subscribe()
    }

    /// The steps so far.
    pub fn steps_so_far(&self) -> Steps {
        *self.steps.borrow()
    }

    /// The timestamp of a sample taken now.
    ///
    /// `wall_ms` is the wall clock in ms since 1970; `steady_ms` a clock that nobody sets, which goes on while the
    /// machine sleeps if there is one.
    pub fn stamp(&mut self, wall_ms: i64, steady_ms: i64) -> Stamp {
        if let Some(last) = self.last {
            let elapsed = steady_ms.saturating_sub(last.steady_ms);
            let step = wall_ms.saturating_sub(last.wall_ms).saturating_sub(elapsed);
            let tolerance = TOLERANCE_MS + elapsed.max(0) / SLEW;
            if step > tolerance || step <= -self.interval_ms.max(tolerance) {
                self.counter = (self.counter + 1) % COUNTERS;
                self.steps.send_modify(|steps| *steps = Steps { count: steps.count + 1, last_ms: step });
            } else if self.stamped(wall_ms) <= last.stamp {
                let ms = last.stamp.saturating_add(STEP_MS).saturating_sub(self.stamped(wall_ms)).max(1);
                return Stamp::Wait(Duration::from_millis(ms.unsigned_abs()));
            }
        }
        let stamp = self.stamped(wall_ms);
        self.last = Some(Last { wall_ms, steady_ms, stamp });
        Stamp::Take(stamp)
    }

    fn stamped(&self, wall_ms: i64) -> i64 {
        wall_ms.div_euclid(STEP_MS).saturating_mul(STEP_MS).saturating_add(self.counter.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn clock() -> SampleClock {
        let mut clock = SampleClock::new(13, Duration::from_secs(5));
        assert_eq!(clock.stamp(NOW + 7, 1000), Stamp::Take(NOW + 3));
        clock
    }

    #[test]
    fn the_last_digit_is_the_counter_and_stays_while_nothing_steps() {
        let mut clock = clock();
        assert_eq!(clock.stamp(NOW + 5012, 6000), Stamp::Take(NOW + 5013));
        assert_eq!(clock.stamp(NOW + 10_000, 10_995), Stamp::Take(NOW + 10_003));
    }

    #[test]
    fn two_samples_within_ten_milliseconds_are_kept_apart() {
        let mut clock = clock();
        assert_eq!(clock.stamp(NOW + 9, 1002), Stamp::Wait(Duration::from_millis(10)));
        assert_eq!(clock.stamp(NOW + 19, 1012), Stamp::Take(NOW + 13));
    }

    #[test]
    fn a_step_forward_is_followed_under_the_next_counter() {
        let mut clock = clock();
        assert_eq!(clock.stamp(NOW + 3_600_000, 6000), Stamp::Take(NOW + 3_600_004));
        assert_eq!(clock.counter(), 4);
        assert_eq!(clock.steps_so_far(), Steps { count: 1, last_ms: 3_600_000 - 5007 });
    }

    #[test]
    fn a_step_back_by_an_interval_or_more_is_followed_under_the_next_counter() {
        let mut clock = clock();
        assert_eq!(clock.stamp(NOW - 3_600_000, 6000), Stamp::Take(NOW - 3_599_996));
        assert_eq!(clock.steps_so_far(), Steps { count: 1, last_ms: -3_600_000 - 5007 });
        assert_eq!(clock.stamp(NOW - 3_595_000, 11_000), Stamp::Take(NOW - 3_594_996));
        assert_eq!(clock.steps_so_far().count, 1, "the new time goes on");
    }

    #[test]
    fn a_step_back_by_less_is_waited_out() {
        let mut clock = SampleClock::new(0, Duration::from_secs(5));
        assert_eq!(clock.stamp(NOW, 0), Stamp::Take(NOW));
        assert_eq!(clock.stamp(NOW + 1000, 1000), Stamp::Take(NOW + 1000));
        // One second later the clock stands three seconds earlier.
        assert_eq!(clock.stamp(NOW - 1000, 2000), Stamp::Wait(Duration::from_millis(2010)));
        assert_eq!(clock.stamp(NOW + 1010, 4010), Stamp::Take(NOW + 1010));
        // If it is past the last timestamp anyway there is nothing to wait for.
        assert_eq!(clock.stamp(NOW + 2000, 9010), Stamp::Take(NOW + 2000));
        assert_eq!((clock.counter(), clock.steps_so_far()), (0, Steps::default()));
    }

    #[test]
    fn slewing_is_no_step() {
        let mut clock = SampleClock::new(0, Duration::from_secs(3600));
        clock.stamp(NOW, 0);
        assert_eq!(clock.stamp(NOW + 3_601_800, 3_600_000), Stamp::Take(NOW + 3_601_800));
        assert_eq!(clock.counter(), 0);
    }

    #[test]
    fn timestamps_are_unique_whatever_the_clock_does() {
        let mut seen = std::collections::HashSet::new();
        let mut clock = SampleClock::new(0, Duration::from_secs(5));
        let (mut wall, mut steady) = (NOW, 0);
        let mut random = fastrand::Rng::with_seed(1);
        let mut steps = 0;
        for _ in 0..2000 {
            let elapsed = random.i64(4000..6000);
            steady += elapsed;
            wall += elapsed;
            // Fewer steps back than counters, as long as the stretches overlap.
            if random.u8(..) < 3 && steps < 9 {
                wall += random.i64(-60_000..60_000);
                steps += 1;
            }
            let stamp = loop {
                match clock.stamp(wall, steady) {
                    Stamp::Take(stamp) => break stamp,
                    Stamp::Wait(wait) => {
                        assert!(wait <= Duration::from_secs(6), "{wait:?}");
                        wall += wait.as_millis() as i64;
                        steady += wait.as_millis() as i64;
                    }
                }
            };
            assert!(seen.insert(stamp), "{stamp} twice");
            assert!((stamp - wall).abs() < 10);
        }
        assert!(steps > 5, "the test did not step");
    }
}
