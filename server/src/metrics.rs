//! Counters and gauges of the server, kept where things happen and read by `/metrics` and `vitals_server`.
//!
//! Whatever drops something counts it here, by a reason from a closed list.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds one until the guard is dropped.
    pub fn hold(&self) -> Held<'_> {
        self.0.fetch_add(1, Relaxed);
        Held(self)
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Holds a gauge one higher.
#[derive(Debug)]
pub struct Held<'a>(&'a Gauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// One counter for each reason of a closed list.
#[derive(Debug)]
pub struct Reasons(Box<[(&'static str, Counter)]>);

impl Reasons {
    /// Counters for these reasons.
    pub fn new(reasons: impl IntoIterator<Item = &'static str>) -> Self {
        Self(reasons.into_iter().map(|reason| (reason, Counter::default())).collect())
    }

    /// Adds `n` for `reason`; one that is not on the list counts as the last.
    pub fn add(&self, reason: &str, n: u64) {
        let found = self.0.iter().find(|(word, _)| *word == reason).or(self.0.last());
        if let Some((_, counter)) = found {
            counter.add(n);
        }
    }

    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(reason, counter)| (*reason, counter.get()))
    }
}

/// A distribution of durations in fixed buckets, as Prometheus reads it.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Self::BOUNDS_MS.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Upper bounds of the buckets in ms; a last one takes the rest.
    pub const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

    /// Takes one duration.
    pub fn observe(&self, duration: std::time::Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS_MS.partition_point(|bound| bound * 1_000 < us);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    /// Counts per bucket (not cumulated) and the sum in µs.
    pub fn snapshot(&self) -> ([u64; Self::BOUNDS_MS.len() + 1], u64) {
        (std::array::from_fn(|i| self.buckets[i].get()), self.sum_us.get())
    }
}

/// All of the server's own figures.
#[derive(Debug)]
pub struct Metrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Connections accepted.
    pub connections_accepted: Counter,
    /// Messages of kinds that this version does not know.
    pub unknown_messages: Counter,
    /// Connections refused or closed by the server, by `Refusal::word`.
    pub refused: Reasons,
    /// Samples that came in, live and backlog.
    pub samples_received: Counter,
    /// Samples settled as durable.
    pub samples_acked: Counter,
    /// Samples that will never be stored, by reason.
    pub samples_dropped: Reasons,
    /// Sections of a kind that this version does not know.
    pub sections_unknown: Counter,
    /// Sections of a known kind that could not be read.
    pub sections_damaged: Counter,
    /// Figures that were NaN or infinite, and left out.
    pub figures_not_finite: Counter,
    /// Batches not kept because too many of the same client waited for their commit. It sends them again.
    pub batches_deferred: Counter,
    /// Batches of backlog not taken because their host is beyond its limits. It sends them again.
    pub batches_over_limit: Counter,
    /// Samples for the live view alone that were ignored because their host is beyond its limits.
    pub live_over_limit: Counter,
    /// Points of series beyond their host's cap, taken out of samples before they are kept, by measurement.
    pub series_dropped: Reasons,
    /// Samples of the server's own, and events, that could not be kept.
    pub own_dropped: Counter,
    /// Samples that the store already had.
    pub samples_duplicate: Counter,
    /// Time from a batch's arrival to its commit.
    pub batch_commit: Histogram,
    /// Commits of the journal that failed.
    pub journal_errors: Counter,
    /// Stretches of the journal that could not be read and were skipped; each reader counts them for itself.
    pub journal_damaged: Counter,
    /// Bytes of the journal on disk.
    pub journal_bytes: Gauge,
    /// Size at which the journal takes no more: what is configured, or what the disk allows.
    pub journal_cap_bytes: Gauge,
    /// Bytes of the journal that the store has not passed.
    pub store_lag_bytes: Gauge,
    /// Bytes of the journal that went although readers with a share had not read them. How many samples they were is not
    /// known. What a writer to InfluxDB gives up by itself it owes, and it is not counted here.
    pub influx_given_up_bytes: Counter,
    /// The writers to InfluxDB, each with figures of its own.
    pub influx: Targets,
    /// The port of the page and the API.
    pub http: HttpMetrics,
}

/// The figures of the port of the page and the API.
#[derive(Debug)]
pub struct HttpMetrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Connections closed and requests refused because a bound was reached: see [`HTTP_TURNED_AWAY`].
    pub turned_away: Reasons,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self { connections: Gauge::default(), turned_away: Reasons::new(HTTP_TURNED_AWAY) }
    }
}

/// Too many connections, in all or of one address; too many TLS handshakes at once; one that failed or took too long; too
/// many requests at once; one that took too long.
pub const HTTP_TURNED_AWAY: [&str; 6] =
    ["connections", "connections_of_address", "handshakes", "handshake", "requests", "time"];

/// The figures of all targets, in the order of the configuration.
#[derive(Debug, Default)]
pub struct Targets(RwLock<Vec<Arc<TargetMetrics>>>);

impl Targets {
    /// The figures of the target of this name, made where there are none yet.
    pub fn of(&self, name: &str) -> Arc<TargetMetrics> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|target| *target.name == *name) {
            return known.clone();
        }
        let new = Arc::new(TargetMetrics::new(name));
        all.push(new.clone());
        new
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<TargetMetrics>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The worst that any of them says; `None` where there are none.
    pub fn worst(&self, figure: impl Fn(&TargetMetrics) -> u64) -> Option<u64> {
        self.all().iter().map(|target| figure(target)).max()
    }
}

/// The figures of one writer to InfluxDB.
#[derive(Debug)]
pub struct TargetMetrics {
    /// What the target is called.
    pub name: Box<str>,
    /// Bytes of the journal that it has not.
    pub lag_bytes: Gauge,
    /// How long ago in ms the oldest live batch came in that it has not.
    pub lag_ms: Gauge,
    /// Lines that it took, live and owed.
    pub lines: Counter,
    /// Those of them that were owed.
    pub filled_lines: Counter,
    /// Time of a write request that succeeded.
    pub request: Histogram,
    /// Write requests that failed, by reason: see `influx`.
    pub errors: Reasons,
    /// Lines that it will never take, by reason.
    pub dropped: Reasons,
    /// Lines that were put into quarantine.
    pub quarantined: Counter,
    /// Dropped lines that are not in quarantine, by reason.
    pub quarantine_lost: Reasons,
    /// Spans of time that it is owed.
    pub owed_spans: Gauge,
    /// Their length in ms, summed over the hosts that have spans of their own; one that concerns all hosts counts once.
    pub owed_ms: Gauge,
    /// Time in ms that it was owed and that history did not go back to any more.
    pub owed_expired_ms: Counter,
    /// Bytes of the journal that it gave up and that are owed since.
    pub owed_bytes: Counter,
    /// Bytes of the journal that went before it had them or could note them. What can be said of their time is owed.
    pub given_up_bytes: Counter,
}

impl TargetMetrics {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            lag_bytes: Gauge::default(),
            lag_ms: Gauge::default(),
            lines: Counter::default(),
            filled_lines: Counter::default(),
            request: Histogram::default(),
            errors: Reasons::new(INFLUX_ERRORS),
            dropped: Reasons::new(INFLUX_DROPS),
            quarantined: Counter::default(),
            quarantine_lost: Reasons::new(QUARANTINE_LOSSES),
            owed_spans: Gauge::default(),
            owed_ms: Gauge::default(),
            owed_expired_ms: Counter::default(),
            owed_bytes: Counter::default(),
            given_up_bytes: Counter::default(),
        }
    }
}

/// Why a write request to InfluxDB failed.
pub const INFLUX_ERRORS: [&str; 9] = [
    "unreachable",
    "timeout",
    "unauthorized",
    "not_found",
    "rejected",
    "too_large",
    "busy",
    "server_error",
    "unexpected",
];
/// Why a line is never written to InfluxDB.
pub const INFLUX_DROPS: [&str; 6] =
    ["malformed", "type_conflict", "too_old", "too_large", "no_host", "refused"];
/// Why a dropped line is not in quarantine: it was not singled out among others, the disk did not take it, too many
/// waited for the disk, or it was the oldest when the quarantine was full.
pub const QUARANTINE_LOSSES: [&str; 4] = ["unknown_line", "disk", "too_many", "oldest"];

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        use vitals_wire::message::{DropReason, Refusal};
        Self {
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            unknown_messages: Counter::default(),
            refused: Reasons::new(Refusal::ALL.iter().map(|refusal| refusal.word())),
            samples_received: Counter::default(),
            samples_acked: Counter::default(),
            samples_dropped: Reasons::new(DropReason::ALL.iter().map(|reason| reason.word())),
            sections_unknown: Counter::default(),
            sections_damaged: Counter::default(),
            figures_not_finite: Counter::default(),
            batches_deferred: Counter::default(),
            batches_over_limit: Counter::default(),
            live_over_limit: Counter::default(),
            series_dropped: Reasons::new(crate::session::LIMITED_MEASUREMENTS),
            own_dropped: Counter::default(),
            samples_duplicate: Counter::default(),
            batch_commit: Histogram::default(),
            journal_errors: Counter::default(),
            journal_damaged: Counter::default(),
            journal_bytes: Gauge::default(),
            journal_cap_bytes: Gauge::default(),
            store_lag_bytes: Gauge::default(),
            influx_given_up_bytes: Counter::default(),
            influx: Targets::default(),
            http: HttpMetrics::default(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_reason_that_is_not_listed_counts_as_the_last() {
        let reasons = Reasons::new(["a", "other"]);
        reasons.add("a", 2);
        reasons.add("x", 1);
        assert_eq!(reasons.iter().collect::<Vec<_>>(), [("a", 2), ("other", 1)]);
    }

    #[test]
    fn a_duration_falls_into_the_bucket_that_bounds_it() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_micros(1_001));
        histogram.observe(Duration::from_secs(60));
        let (buckets, sum_us) = histogram.snapshot();
        assert_eq!((buckets[0], buckets[1], buckets[12]), (1, 1, 1));
        assert_eq!(sum_us, 1_000 + 1_001 + 60_000_000);
    }

    #[test]
    fn a_target_keeps_its_figures_and_the_worst_of_all_is_told() {
        let targets = Targets::default();
        assert_eq!(targets.worst(|target| target.lag_bytes.get()), None);
        targets.of("a").lag_bytes.set(7);
        targets.of("b").lag_bytes.set(9);
        assert_eq!(targets.of("a").lag_bytes.get(), 7);
        assert_eq!(targets.worst(|target| target.lag_bytes.get()), Some(9));
        assert_eq!(targets.all().len(), 2);
    }

    #[test]
    fn a_held_gauge_falls_when_let_go() {
        let gauge = Gauge::default();
        let held = gauge.hold();
        assert_eq!(gauge.get(), 1);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }
}
