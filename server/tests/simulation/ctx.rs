//! What everything in a schedule shares: the clock, chance, the network, the accounts and the trace.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::net::Net;
use crate::oracle::Oracle;
use crate::plan::WALL_MS;

/// See the module.
#[derive(Debug)]
pub struct Ctx {
    /// Virtual time in ms.
    pub now: u64,
    base: Instant,
    pub rng: Rng,
    pub net: Net,
    pub oracle: Oracle,
    /// What happened, where that is wanted.
    trace: Option<Vec<String>>,
    live_trace: bool,
    failure: Option<String>,
}

impl Ctx {
    pub fn new(rng: Rng, net: Net, oracle: Oracle, traced: bool) -> Self {
        let live_trace = traced && std::env::var_os("VITALS_SIM_TRACE").is_some();
        let trace = traced.then(Vec::new);
        Self { now: 0, base: Instant::now(), rng, net, oracle, trace, live_trace, failure: None }
    }

    /// The clock that never steps, for code that wants one.
    pub fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now)
    }

    /// The virtual time of such an instant, not in the past.
    pub fn time_of(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.base);
        // Up: a deadline has passed when it is due.
        let ms = since.as_nanos().div_ceil(1_000_000) as u64;
        ms.max(self.now)
    }

    /// The true time in ms since 1970, which is the server's.
    pub fn wall_ms(&self) -> i64 {
        WALL_MS + self.now as i64
    }

    /// Something that should never be. The first of these ends the schedule.
    pub fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.trace(|| format!("FAILURE: {what}"));
        let at = self.now;
        self.failure.get_or_insert_with(|| format!("at {at} ms: {what}"));
    }

    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Notes what happened.
    pub fn trace(&mut self, what: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let line = format!("{:>9} {}", self.now, what());
        if self.live_trace {
            eprintln!("{line}");
        }
        trace.push(line);
    }

    /// All of it so far.
    pub fn into_trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }
}
