//! What a client knows of itself: counted where things happen, read by the status socket and by the sampler.
//!
//! Whoever knows something says it here ([`Health::taken`], [`Health::connected`] …), under a lock that is held for
//! nanoseconds; [`Health::snapshot`] gives all of it at one instant. [`Health::section`] gives the section
//! `vitals_client` when it is due: with the first sample, after each new connection and each step of the clock, and else
//! every [`EVERY`]. It is of the moment before its sample, which is not counted in it yet. What it costs a sample that does not carry it is one look under the lock, and no allocation.
//!
//! Nothing here knows sampler, spool or link.

mod usage;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use vitals_wire::bounded::{List, Text};
use vitals_wire::limits::MAX_REASONS;
use vitals_wire::section::{ClientHealth, ReasonCount, Section};

use crate::clock::Steps;
pub use usage::Usage;
use usage::UsageFiles;

/// How often samples say how the client is, at the least.
pub const EVERY: Duration = Duration::from_secs(30);
/// A sample that comes this little too soon carries it: ticks are not exact.
const EARLY: Duration = Duration::from_millis(500);
/// Longest text of an error that is kept: a server may write a great deal, and what to do stands at its end.
const MAX_ERROR_BYTES: usize = 1000;
/// Where losses are counted for whose reason there is no room any more; a server can make up any number of reasons.
pub const OTHER_REASONS: &str = "other";

/// What waits, as the link last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Samples in memory.
    pub memory: u64,
    /// Samples in the spool.
    pub disk: u64,
    /// Time of the oldest of them in ms since 1970.
    pub oldest_ms: Option<i64>,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
}

/// A connection that a server took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The server, as it is configured.
    pub server: String,
    /// Its version.
    pub server_version: String,
    /// What it calls this host.
    pub name: String,
    /// Since when.
    pub since: Instant,
}

/// Why there was no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When, in ms since 1970 by this host's clock.
    pub time_ms: i64,
    /// The server, as it is configured.
    pub server: String,
    /// What went wrong, for people.
    pub text: String,
}

/// All that is counted, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// `None` while there is no connection.
    pub connection: Option<Connection>,
    /// Connections that came about.
    pub connections: u64,
    /// Samples taken.
    pub taken: u64,
    /// Samples settled as durable.
    pub acked: u64,
    /// Samples that wait. Until the link has said what waits, those taken and neither settled nor dropped.
    pub waiting: Waiting,
    /// Samples dropped, by reason.
    pub dropped: Vec<(String, u64)>,
    /// What the server's clock is ahead of this host's, in ms, when it was last heard.
    pub skew_ms: Option<i64>,
    /// Steps of this host's clock.
    pub steps: Steps,
    /// The last connection that ended, or did not come about.
    pub last_error: Option<LastError>,
    /// Whether a server took this host, now or before.
    pub is_joined: bool,
    /// Whether its secret is being changed.
    pub has_next_secret: bool,
}

impl Snapshot {
    /// Samples dropped for any reason.
    pub fn dropped_in_all(&self) -> u64 {
        self.dropped.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Debug, Default)]
struct State {
    now: Snapshot,
    has_said_what_waits: bool,
    /// When a sample last carried the section; `None` for "the next one is to".
    said: Option<Instant>,
}

/// What a client knows of itself; see the module.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    started_ms: i64,
    usage: UsageFiles,
    state: Mutex<State>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Of a client that starts now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            started_ms: wall_ms(),
            usage: UsageFiles::open(),
            state: Mutex::default(),
        }
    }

    /// When the client started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The same by the host's clock, as it was then, in ms since 1970.
    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }

    /// Memory and CPU time of this process.
    pub fn usage(&self) -> Usage {
        self.usage.read()
    }

    /// A sample was taken.
    pub fn taken(&self) {
        self.state().now.taken += 1;
    }

    /// A sample was settled as durable.
    pub fn settled(&self) {
        self.state().now.acked += 1;
    }

    /// So many samples are lost for this reason; also for what an earlier run lost and this one found out.
    pub fn dropped(&self, reason: &str, count: u64) {
        let dropped = &mut self.state().now.dropped;
        let has_room = dropped.len() + 1 < MAX_REASONS;
        let at = |dropped: &[(String, u64)], reason| dropped.iter().position(|(known, _)| known == reason);
        let reason = if has_room || at(dropped, reason).is_some() { reason } else { OTHER_REASONS };
        match at(dropped, reason) {
            Some(at) => dropped[at].1 += count,
            None => dropped.push((reason.to_owned(), count)),
        }
    }

    /// What waits has changed.
    pub fn waiting(&self, waiting: Waiting) {
        let mut state = self.state();
        state.now.waiting = waiting;
        state.has_said_what_waits = true;
    }

    /// A server took the connection. The next sample says so.
    pub fn connected(&self, connection: Connection) {
        let mut state = self.state();
        state.now.connections += 1;
        state.now.connection = Some(connection);
        state.said = None;
    }

    /// A connection, or the attempt at one, ended.
    pub fn closed(&self, server: &str, why: &str) {
        let text: String = why.chars().scan(0, within(MAX_ERROR_BYTES)).collect();
        let error = LastError { time_ms: wall_ms(), server: server.to_owned(), text };
        let mut state = self.state();
        state.now.connection = None;
        state.now.last_error = Some(error);
    }

    /// So this host stands with its server.
    pub fn stands(&self, is_joined: bool, has_next_secret: bool) {
        let now = &mut self.state().now;
        (now.is_joined, now.has_next_secret) = (is_joined, has_next_secret);
    }

    /// The server's clock shows this now, in ms since 1970.
    pub fn server_clock(&self, server_time_ms: i64) {
        let skew_ms = server_time_ms.saturating_sub(wall_ms());
        self.state().now.skew_ms = Some(skew_ms);
    }

    /// So the clock has stepped so far. After another step the next sample says so.
    pub fn clock_steps(&self, steps: Steps) {
        let mut state = self.state();
        if state.now.steps != steps {
            state.now.steps = steps;
            state.said = None;
        }
    }

    /// All that is counted.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let mut now = state.now.clone();
        if !state.has_said_what_waits {
            now.waiting.memory = now.taken.saturating_sub(now.acked + now.dropped_in_all());
        }
        now
    }

    /// The section for a sample taken at `now`, if it is due.
    pub fn section(&self, now: Instant) -> Option<Section> {
        {
            let mut state = self.state();
            if state.said.is_some_and(|said| now.saturating_duration_since(said) + EARLY < EVERY) {
                return None;
            }
            state.said = Some(now);
        }
        Some(Section::ClientHealth(Box::new(self.client_health(now))))
    }

    fn client_health(&self, now: Instant) -> ClientHealth {
        let is = self.snapshot();
        let usage = self.usage();
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let dropped = is.dropped.iter();
        let dropped = dropped.map(|(reason, count)| ReasonCount { reason: Text::cut(reason), count: *count });
        ClientHealth {
            uptime: seconds(self.started),
            connected: is.connection.as_ref().map(|connection| seconds(connection.since)),
            connections: is.connections,
            samples_taken: is.taken,
            samples_acked: is.acked,
            waiting_memory: is.waiting.memory,
            waiting_disk: is.waiting.disk,
            oldest_waiting_ms: is.waiting.oldest_ms.map(age_ms),
            spool_bytes: is.waiting.spool_bytes,
            skew_ms: is.skew_ms,
            clock_steps: is.steps.count,
            last_step_ms: (is.steps.count > 0).then_some(is.steps.last_ms),
            memory: usage.memory,
            cpu_ms: usage.cpu_ms,
            // There are fewer reasons than fit.
            dropped: List::first(dropped.collect()).0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How old a sample of this time is, in ms; 0 where the clock was set back since.
pub fn age_ms(time_ms: i64) -> u64 {
    u64::try_from(wall_ms().saturating_sub(time_ms)).unwrap_or_default()
}

/// This host's clock in ms since 1970.
pub fn wall_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// Lets characters pass until they take more than `most` bytes.
fn within(most: usize) -> impl FnMut(&mut usize, char) -> Option<char> {
    move |bytes, c| {
        *bytes += c.len_utf8();
        (*bytes <= most).then_some(c)
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
