//! Tells a clone from a client that restarts: plain logic without I/O or clocks.
//!
//! A client has one run at a time, and a run that has ended never speaks again. So a run that is heard after another one
//! was heard has not ended: two clients use one identity. One such return can be what lay in a network or a proxy; two
//! within [`WINDOW`], as in A, B, A, B, cannot.

use std::net::SocketAddr;
use std::time::Duration;

use vitals_wire::ids::RunId;

/// Time in which runs have to alternate to be taken for clones, time between two reports of a host, and time for which
/// one is suspected after it was last seen.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Time for which a run that is silent is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Runs that are remembered of a host. The one that holds the seat is always among them.
const MAX_RUNS: usize = 8;
/// Returns within the window that make a clone.
const RETURNS: usize = 2;

/// Two addresses from which one identity is used; the second was heard last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloned(pub [SocketAddr; 2]);

/// The runs of one host. Times are counted from any fixed moment.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// In the order in which they were last heard, each once.
    runs: Vec<Turn>,
    /// For each return, when the run before it began its turn; the newest of them.
    returns: [Option<Duration>; RETURNS],
    seen: Option<(Cloned, Duration)>,
    told: Option<Duration>,
}

#[derive(Debug)]
struct Turn {
    run: RunId,
    address: SocketAddr,
    /// When it was first heard after another.
    since: Duration,
    heard: Duration,
}

impl Turns {
    /// A run is heard from there. Gives what is to be reported, at most once in a window.
    pub(super) fn heard(&mut self, run: RunId, address: SocketAddr, now: Duration) -> Option<Cloned> {
        if let Some(last) = self.runs.last_mut().filter(|last| last.run == run) {
            (last.address, last.heard) = (address, last.heard.max(now));
            return None;
        }
        self.runs.retain(|turn| now.saturating_sub(turn.heard) <= REMEMBERED);
        let before = self.runs.last().map(|last| (last.address, last.since));
        let known = self.runs.iter().position(|turn| turn.run == run);
        if let Some(at) = known {
            self.runs.remove(at);
        } else if self.runs.len() >= MAX_RUNS {
            self.runs.remove(0);
        }
        // Most hosts have one run for weeks.
        self.runs.reserve_exact(1);
        self.runs.push(Turn { run, address, since: now, heard: now });
        let (Some(_), Some((other, since))) = (known, before) else { return None };
        self.returns.rotate_left(1);
        self.returns[RETURNS - 1] = Some(since);
        let is_recent = |since: &Option<Duration>| since.is_some_and(|since| within(since, now));
        if !self.returns.iter().all(is_recent) {
            return None;
        }
        let cloned = Cloned([other, address]);
        self.seen = Some((cloned, now));
        if self.told.is_some_and(|told| now.saturating_sub(told) < WINDOW) {
            return None;
        }
        self.told = Some(now);
        Some(cloned)
    }

    /// When a run was last heard.
    pub(super) fn last(&self) -> Duration {
        self.runs.last().map_or(Duration::ZERO, |last| last.heard)
    }

    /// Whether there is a clone, as far as is known.
    pub(super) fn suspected(&self, now: Duration) -> Option<Cloned> {
        self.seen.filter(|(_, seen)| within(*seen, now)).map(|(cloned, _)| cloned)
    }

    /// Whether nothing of it matters any more.
    pub(super) fn is_stale(&self, now: Duration) -> bool {
        now.saturating_sub(self.last()) > REMEMBERED
    }
}

fn within(since: Duration, now: Duration) -> bool {
    now.saturating_sub(since) <= WINDOW
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
