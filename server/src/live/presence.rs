//! Whether a host is there: a plain state machine without clocks.
//!
//! | from | on | to | told |
//! |---|---|---|---|
//! | new, down, off | heard | up | up |
//! | unknown (known before this start of the server) | heard | up | nothing: it was there all the time |
//! | up | silent for longer than its down limit | down | down |
//! | up | bye | off | bye |
//! | unknown (known before this start of the server) | silent until the grace ends | down | down |
//!
//! A host that is off stays off until it is heard again, however long that takes.

use std::time::Duration;

use vitals_wire::message::ByeReason;
use vitals_wire::section::EventKind;

/// The shortest silence after which a host is down.
pub const LEAST_DOWN_LIMIT: Duration = Duration::from_secs(15);
/// How long hosts known before a start of the server have to speak.
pub const START_GRACE: Duration = Duration::from_secs(60);

/// The silence after which a host with this interval is down: three intervals, at least 15 s.
pub fn down_limit(interval: Duration) -> Duration {
    (interval * 3).max(LEAST_DOWN_LIMIT)
}

/// Whether a host is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Not heard since the server's start.
    Unknown,
    /// It speaks.
    Up,
    /// It is silent and did not say why.
    Down,
    /// It said good-bye.
    Off(ByeReason),
}

impl Presence {
    /// The word used by the API and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
            Self::Off(ByeReason::Suspend) => "asleep",
            Self::Off(_) => "off",
        }
    }
}

/// A host's presence over time. Times are counted from any fixed moment.
#[derive(Debug, Clone)]
pub struct Watch {
    presence: Presence,
    since: Duration,
    /// When it was heard last, or for a host not heard yet when watching began.
    heard: Duration,
    interval: Duration,
}

impl Watch {
    /// A host known from before this start of the server, as it was then; one that was up is unknown now.
    pub fn known(now: Duration, interval: Duration, presence: Presence) -> Self {
        Self { presence, since: now, heard: now, interval }
    }

    /// A host that nobody knew.
    pub fn new(now: Duration, interval: Duration) -> Self {
        Self::known(now, interval, Presence::Down)
    }

    /// What it is now.
    pub fn presence(&self) -> Presence {
        self.presence
    }

    /// Since when.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// The host said something.
    pub fn heard(&mut self, now: Duration, interval: Duration) -> Option<EventKind> {
        self.heard = now;
        self.interval = interval;
        let was_there = self.presence == Presence::Unknown;
        self.turn(Presence::Up, now, EventKind::Up).filter(|_| !was_there)
    }

    /// The host said good-bye.
    pub fn bye(&mut self, now: Duration, reason: ByeReason) -> Option<EventKind> {
        self.heard = now;
        self.turn(Presence::Off(reason), now, EventKind::Bye)
    }

    /// Time has passed. Down is counted from the end of the limit.
    pub fn tick(&mut self, now: Duration) -> Option<EventKind> {
        let limit = match self.presence {
            Presence::Unknown => START_GRACE.max(down_limit(self.interval)),
            Presence::Up => down_limit(self.interval),
            Presence::Down | Presence::Off(_) => return None,
        };
        if now.saturating_sub(self.heard) <= limit {
            return None;
        }
        self.turn(Presence::Down, now, EventKind::Down)
    }

    /// How long it has been silent.
    pub fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    fn turn(&mut self, presence: Presence, now: Duration, event: EventKind) -> Option<EventKind> {
        if self.presence == presence {
            return None;
        }
        self.presence = presence;
        self.since = now;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_host_is_down_after_three_intervals_but_never_before_15_s() {
        let mut fast = Watch::new(at(0), Duration::from_secs(1));
        assert_eq!(fast.heard(at(1), Duration::from_secs(1)), Some(EventKind::Up));
        assert_eq!(fast.tick(at(16)), None);
        assert_eq!(fast.tick(at(17)), Some(EventKind::Down));
        assert_eq!(fast.tick(at(18)), None, "told once");

        let mut slow = Watch::new(at(0), at(60));
        slow.heard(at(0), at(60));
        assert_eq!(slow.tick(at(180)), None);
        assert_eq!(slow.tick(at(181)), Some(EventKind::Down));
        assert_eq!(slow.heard(at(200), at(60)), Some(EventKind::Up));
    }

    #[test]
    fn a_host_that_said_good_bye_is_off_and_never_down() {
        let mut host = Watch::known(at(0), FIVE, Presence::Unknown);
        host.heard(at(1), FIVE);
        assert_eq!(host.bye(at(2), ByeReason::Shutdown), Some(EventKind::Bye));
        assert_eq!(host.tick(at(100_000)), None);
        assert_eq!(host.presence().word(), "off");
        assert_eq!(host.heard(at(100_001), FIVE), Some(EventKind::Up));
    }

    #[test]
    fn after_a_start_of_the_server_hosts_are_unknown_for_a_minute() {
        let mut host = Watch::known(at(10), FIVE, Presence::Unknown);
        assert_eq!(host.tick(at(70)), None);
        assert_eq!(host.presence(), Presence::Unknown);
        assert_eq!(host.tick(at(71)), Some(EventKind::Down));
        let mut back = Watch::known(at(10), FIVE, Presence::Unknown);
        assert_eq!(back.heard(at(12), FIVE), None, "a restart of the server is nobody's news");
        assert_eq!(back.presence(), Presence::Up);
        let mut slow = Watch::known(at(0), at(3600), Presence::Unknown);
        assert_eq!(slow.tick(at(10_800)), None, "its own limit, if that is longer");
    }
}
