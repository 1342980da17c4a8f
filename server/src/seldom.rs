//! Keeps strangers from filling logs: what they cause is counted always, and written down seldom.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time after which lines are counted anew.
const PAUSE: Duration = Duration::from_secs(10);
/// The same for entries of the audit log, which are kept.
const AUDIT_PAUSE: Duration = Duration::from_secs(60);
/// Lines or entries within that time; what is beyond is only counted.
const BURST: u32 = 20;

/// Decides whether a line of one kind is written now.
#[derive(Debug)]
pub struct Seldom {
    pause: Duration,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    /// When the present burst began.
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Default for Seldom {
    /// For lines of the log.
    fn default() -> Self {
        Self { pause: PAUSE, recent: Mutex::default() }
    }
}

impl Seldom {
    /// For entries of the audit log.
    pub fn for_audit() -> Self {
        Self { pause: AUDIT_PAUSE, recent: Mutex::default() }
    }

    /// `Some` when one may be written, with the number of those left out since the last.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.since.is_none_or(|since| now.saturating_duration_since(since) >= self.pause) {
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
    fn a_flood_leaves_few_lines_in_a_while_and_says_how_many_were_left_out() {
        for (seldom, pause) in [(Seldom::default(), PAUSE), (Seldom::for_audit(), AUDIT_PAUSE)] {
            let start = Instant::now();
            let logged = (0..100).filter_map(|_| seldom.due(start)).count();
            assert_eq!(logged, BURST as usize);
            assert_eq!(seldom.due(start + pause - Duration::from_millis(1)), None);
            assert_eq!(seldom.due(start + pause), Some(81));
            assert_eq!(seldom.due(start + pause), Some(0));
        }
    }
}
