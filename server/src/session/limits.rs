//! How much a host may send: plain logic without clocks.
//!
//! Averaged over a minute: a host that was quiet may send a minute's worth at once. Live samples beyond are dropped, one
//! by one; a batch of backlog waits until it fits as a whole, and leaves a quarter for live samples, so that a host whose
//! backlog is slowed loses none of them.

use std::time::Duration;

use vitals_wire::limits::{MAX_BATCH_SAMPLES, MAX_FRAME_BYTES};

use crate::config::HostLimits;

/// Seconds that are averaged over.
const MINUTE: u64 = 60;
/// Share of a minute's worth that backlog may take at once.
const BACKLOG_SHARE: (u64, u64) = (3, 4);
/// Parts of one in which a level is kept, so that what comes in a moment is not lost to rounding.
const PARTS: u64 = 1_000_000;

/// The largest batch of backlog, in samples and in bytes of its frame, that ever fits: what clients are told.
pub(super) fn largest_batch(limits: &HostLimits) -> (u32, u32) {
    let share = |a_second: u64| a_second.saturating_mul(MINUTE) / BACKLOG_SHARE.1 * BACKLOG_SHARE.0;
    let samples = share(limits.samples_per_second.into()).min(MAX_BATCH_SAMPLES as u64);
    let bytes = share(limits.bytes_per_second.as_u64()).min(MAX_FRAME_BYTES as u64);
    // Both caps are far below 2^32.
    (samples as u32, bytes as u32)
}

/// What is left to one host.
#[derive(Debug)]
pub(super) struct Budget {
    samples: Bucket,
    bytes: Bucket,
}

impl Budget {
    /// A minute's worth. Times are counted from any fixed moment.
    pub(super) fn new(limits: &HostLimits, now: Duration) -> Self {
        Self {
            samples: Bucket::new(limits.samples_per_second.into(), now),
            bytes: Bucket::new(limits.bytes_per_second.as_u64(), now),
        }
    }

    /// Takes of a live batch what may pass: so many of its samples, from the first on.
    pub(super) fn live(&mut self, samples: usize, bytes: usize, now: Duration) -> usize {
        self.fill(now);
        let (count, bytes) = (samples as u64, bytes as u64);
        if count == 0 {
            return 0;
        }
        let each = bytes.div_ceil(count).max(1);
        let passing = count.min(self.samples.left()).min(self.bytes.left() / each);
        self.samples.take(passing);
        self.bytes.take(passing * each);
        // At most as many as there were.
        passing as usize
    }

    /// Whether a batch of backlog may pass; takes it, if so.
    pub(super) fn backlog(&mut self, samples: usize, bytes: usize, now: Duration) -> bool {
        self.fill(now);
        let (samples, bytes) = (samples as u64, bytes as u64);
        let fits = self.samples.spares(samples) && self.bytes.spares(bytes);
        if fits {
            self.samples.take(samples);
            self.bytes.take(bytes);
        }
        fits
    }

    fn fill(&mut self, now: Duration) {
        self.samples.fill(now);
        self.bytes.fill(now);
    }
}

/// Fills at a steady rate, up to a minute's worth.
#[derive(Debug)]
struct Bucket {
    a_second: u64,
    /// In parts of one.
    level: u64,
    filled: Duration,
}

impl Bucket {
    fn new(a_second: u64, now: Duration) -> Self {
        // Far above what any network carries, and far below where a level overflows.
        let a_second = a_second.min(u64::MAX / MINUTE / PARTS);
        Self { a_second, level: a_second * MINUTE * PARTS, filled: now }
    }

    fn full(&self) -> u64 {
        self.a_second * MINUTE * PARTS
    }

    fn fill(&mut self, now: Duration) {
        let micros = u64::try_from(now.saturating_sub(self.filled).as_micros()).unwrap_or(u64::MAX);
        // A part a microsecond for each in a second.
        self.level = self.level.saturating_add(self.a_second.saturating_mul(micros)).min(self.full());
        self.filled = self.filled.max(now);
    }

    fn left(&self) -> u64 {
        self.level / PARTS
    }

    /// Whether so many can be taken and backlog's share is kept.
    fn spares(&self, count: u64) -> bool {
        let kept = self.full() / BACKLOG_SHARE.1 * (BACKLOG_SHARE.1 - BACKLOG_SHARE.0);
        count.saturating_mul(PARTS).saturating_add(kept) <= self.level
    }

    fn take(&mut self, count: u64) {
        self.level = self.level.saturating_sub(count.saturating_mul(PARTS));
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    fn limits(samples_per_second: u32, bytes_per_second: u64) -> HostLimits {
        HostLimits {
            samples_per_second,
            bytes_per_second: ByteSize::b(bytes_per_second),
            ..HostLimits::default()
        }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_limits_never_touch_a_client_at_its_shortest_interval_with_all_it_may_send() {
        let mut budget = Budget::new(&HostLimits::default(), at(0));
        for second in 0..7_200 {
            // One to keep, one for the live view, and ten of backlog; 16 KiB each is far more than any host's.
            assert_eq!(budget.live(1, 16 << 10, at(second * 1_000)), 1);
            assert_eq!(budget.live(1, 16 << 10, at(second * 1_000 + 500)), 1);
            assert!(budget.backlog(10, 160 << 10, at(second * 1_000 + 700)));
        }
    }

    #[test]
    fn live_samples_beyond_a_minute_s_worth_are_dropped_and_the_average_holds() {
        let mut budget = Budget::new(&limits(2, 1 << 20), at(0));
        assert_eq!(budget.live(256, 1_000, at(0)), 120);
        assert_eq!(budget.live(1, 1_000, at(499)), 0);
        assert_eq!(budget.live(2, 1_000, at(500)), 1);
        let passed: usize = (1..=600).map(|tenth| budget.live(5, 500, at(500 + tenth * 100))).sum();
        assert_eq!(passed, 120);
        assert_eq!(budget.live(0, 10, at(0)), 0, "a time that goes back fills nothing");
    }

    #[test]
    fn bytes_count_as_samples_do() {
        let mut budget = Budget::new(&limits(1_000, 100), at(0));
        assert_eq!(budget.live(1, 4_000, at(0)), 1);
        assert_eq!(budget.live(4, 4_000, at(0)), 2);
        assert_eq!(budget.live(1, 100, at(1_000)), 1);
        assert_eq!(budget.live(1, 100, at(1_000)), 0);
    }

    #[test]
    fn backlog_passes_whole_or_not_at_all_and_leaves_room_for_live_samples() {
        let mut budget = Budget::new(&limits(1, 1 << 20), at(0));
        assert!(budget.backlog(40, 100, at(0)));
        assert!(!budget.backlog(6, 100, at(0)) && budget.backlog(5, 100, at(0)));
        assert!(!budget.backlog(1, 100, at(0)));
        for second in 1..600 {
            // Whatever the backlog tries, a live sample a second passes.
            budget.backlog(10, 100, at(second * 1_000));
            assert_eq!(budget.live(1, 100, at(second * 1_000)), 1, "second {second}");
        }
    }

    #[test]
    fn the_largest_batch_that_a_client_is_told_fits_when_it_waited_for_a_minute() {
        assert_eq!(largest_batch(&HostLimits::default()), (256, 1 << 20));
        for limits in [HostLimits::default(), limits(1, 1_024), limits(3, 20_000), limits(100_000, u64::MAX)]
        {
            let mut budget = Budget::new(&limits, at(0));
            budget.live(256, 1 << 20, at(0));
            let (samples, bytes) = largest_batch(&limits);
            assert!(budget.backlog(samples as usize, bytes as usize, at(60_000)), "{limits:?}");
            assert!(samples > 0 && bytes >= 16 << 10);
        }
    }
}
