//! Keeps strangers from filling the log: what they cause is counted always and logged seldom.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two log lines of one kind.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines in a row before the pause counts.
const BURST: u32 = 20;

/// Decides whether a line of one kind is logged now.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    /// When the present burst began.
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Seldom {
    /// `Some` when a line may be logged, with the number of lines left out since the last.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.since.is_none_or(|since| now.saturating_duration_since(since) >= PAUSE) {
            recent.since = Some(now);
            recent.lines = 0;
        }
        if recent.lines >= BURST {
            recent.left_out += 1;
            return None;
        }
        recent.lines += 1;
        Some(std::mem::take(&mut recent.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_burst_a_second_and_says_how_much_was_left_out() {
        let seldom = Seldom::default();
        let start = Instant::now();
        let logged = (0..100).filter_map(|_| seldom.due(start)).count();
        assert_eq!(logged, BURST as usize);
        assert_eq!(seldom.due(start + PAUSE), Some(80));
        assert_eq!(seldom.due(start + PAUSE), Some(0));
    }
}
