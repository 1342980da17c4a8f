//! What a simulation did.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::record::millis;
use crate::link::event::Event;

/// Counts of all hosts together.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Samples taken.
    pub taken: u64,
    /// Samples that the server settled.
    pub settled: u64,
    /// Samples lost, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Hosts connected now.
    pub connected: u64,
    /// Connections that a server welcomed.
    pub opened: u64,
    /// Connections, and attempts at one, that failed or ended before their time.
    pub closed: u64,
    /// Connections that were refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Hosts that were welcomed at least once.
    pub welcomed: u64,
    /// Lines that could not be recorded.
    pub unrecorded: u64,
    ages: Histogram,
}

impl Totals {
    /// Counts an event of a host that has been connected for so long.
    pub fn count(&mut self, event: &Event, connected_for: Option<Duration>) {
        match event {
            Event::Taken { .. } => self.taken += 1,
            Event::Settled { age, .. } => {
                self.settled += 1;
                // How long the others waited tells of the connection, not of the server.
                if let (Some(time), Some(age)) = (connected_for, *age)
                    && time >= age
                {
                    self.ages.add(age);
                }
            }
            Event::Dropped { loss, .. } => *self.dropped.entry(loss.to_string()).or_default() += 1,
            Event::Opened { .. } => self.opened += 1,
            Event::Closed { why, .. } => {
                self.closed += 1;
                if let crate::link::event::Closed::Refused { code, .. } = why {
                    *self.refused.entry(code.to_string()).or_default() += 1;
                }
            }
            Event::Ignored { .. }
            | Event::Spool(_)
            | Event::Trust(_)
            | Event::Standing(_)
            | Event::Waiting(_)
            | Event::ServerClock { .. } => {}
        }
    }

    /// The sum, with `waiting` samples neither settled nor dropped.
    pub fn summary(&self, hosts: usize, elapsed: Duration, waiting: u64) -> Summary {
        Summary {
            hosts,
            seconds: elapsed.as_millis() as f64 / 1000.0,
            taken: self.taken,
            settled: self.settled,
            waiting,
            dropped: self.dropped.clone(),
            welcomed: self.welcomed,
            reconnects: self.opened.saturating_sub(self.welcomed),
            refused: self.refused.clone(),
            unrecorded: self.unrecorded,
            ack_p50_ms: self.ages.quantile(0.5).map(millis),
            ack_p99_ms: self.ages.quantile(0.99).map(millis),
            ack_max_ms: (self.ages.count > 0).then(|| millis(self.ages.max)),
        }
    }
}

/// What a simulation did. `taken` = `settled` + `waiting` + all of `dropped`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Hosts played.
    pub hosts: usize,
    /// How long it took.
    pub seconds: f64,
    /// Samples taken.
    pub taken: u64,
    /// Samples that the server settled.
    pub settled: u64,
    /// Samples that were neither settled nor dropped at the end.
    pub waiting: u64,
    /// Samples lost, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Hosts that were welcomed at least once.
    pub welcomed: u64,
    /// Connections after a host's first.
    pub reconnects: u64,
    /// Connections refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Lines that could not be written to the record.
    pub unrecorded: u64,
    /// Half of the samples that were taken while connected were settled within this many ms.
    pub ack_p50_ms: Option<f64>,
    /// 99 of 100 were.
    pub ack_p99_ms: Option<f64>,
    /// All were.
    pub ack_max_ms: Option<f64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "hosts       {} ({} welcomed, {} reconnects) in {:.1} s",
            self.hosts, self.welcomed, self.reconnects, self.seconds
        )?;
        for (code, count) in &self.refused {
            writeln!(f, "refused     {count} {code}")?;
        }
        writeln!(f, "taken       {}", self.taken)?;
        writeln!(f, "settled     {}", self.settled)?;
        writeln!(f, "waiting     {}", self.waiting)?;
        writeln!(f, "dropped     {}", self.dropped.values().sum::<u64>())?;
        for (reason, count) in &self.dropped {
            writeln!(f, "            {count} {reason}")?;
        }
        if let (Some(p50), Some(p99), Some(max)) = (self.ack_p50_ms, self.ack_p99_ms, self.ack_max_ms) {
            writeln!(f, "ack         p50 {p50:.1} ms, p99 {p99:.1} ms, longest {max:.1} ms")?;
        }
        if self.unrecorded > 0 {
            writeln!(f, "unrecorded  {}", self.unrecorded)?;
        }
        Ok(())
    }
}

/// Times in buckets that are 1/16 of a power of two wide: quantiles to 6 %, in a few kB however many there are.
#[derive(Debug, Clone)]
struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

/// 64 powers of two of µs.
const BUCKETS: usize = 64 * 16;

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max: Duration::ZERO }
    }
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let micros = (time.as_micros() as u64).max(1);
        let power = micros.ilog2() as usize;
        // The four bits after the first.
        let part = if power >= 4 { micros >> (power - 4) } else { micros << (4 - power) } as usize & 15;
        if let Some(bucket) = self.buckets.get_mut(power * 16 + part) {
            *bucket += 1;
        }
        self.count += 1;
        self.max = self.max.max(time);
    }

    /// The upper bound of the bucket in which the quantile lies.
    fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        let micros = 2f64.powi((index / 16) as i32) * (1.0 + ((index % 16) + 1) as f64 / 16.0);
        Some(Duration::from_micros(micros as u64).min(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_sixteenth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=1000).for_each(|ms| histogram.add(Duration::from_millis(ms)));
        for (quantile, ms) in [(0.5, 500.0), (0.99, 990.0), (0.001, 1.0)] {
            let found = millis(histogram.quantile(quantile).unwrap());
            assert!((ms..=ms * 1.07).contains(&found), "{quantile}: {found}");
        }
        assert_eq!(histogram.quantile(1.0), Some(Duration::from_secs(1)));
    }
}
