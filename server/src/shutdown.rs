//! The way down: one deadline for all parts of the server, and a word each second about who is waited for.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

/// How often it is said what is waited for.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// When everything has to be over, and each step before it.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    began: Instant,
    limit: Duration,
}

impl Deadline {
    /// The way down begins now, and takes no longer than `limit`.
    pub fn from_now(limit: Duration) -> Self {
        Self { began: Instant::now(), limit }
    }

    /// When so many percent of the time are over: a step that takes too long leaves the others their part.
    pub fn after_percent(&self, percent: u32) -> Instant {
        self.began + self.limit * percent / 100
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Waits for `done` until then, and says each second that it waits for `part`. None: it was not done in time.
pub async fn wait<T>(part: &str, until: Instant, done: impl Future<Output = T>) -> Option<T> {
    let mut done = pin!(done);
    loop {
        let now = Instant::now();
        match timeout_at(until.min(now + SAY_EVERY), &mut done).await {
            Ok(outcome) => return Some(outcome),
            Err(_) if Instant::now() >= until => {
                warn!(part, "still not done; going down all the same");
                return None;
            }
            Err(_) => info!(waiting_for = part, "vitals-server goes down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_is_waited_for_until_the_deadline_and_no_longer() {
        let deadline = Deadline::from_now(Duration::from_millis(200));
        assert_eq!(wait("quick", deadline.after_percent(50), async { 7 }).await, Some(7));
        assert!(deadline.elapsed() < Duration::from_millis(100));
        let hangs = wait("slow", deadline.after_percent(50), std::future::pending::<()>()).await;
        assert!(hangs.is_none() && deadline.elapsed() >= Duration::from_millis(100));
        // A step whose time is over is still asked once.
        assert_eq!(wait("late", deadline.after_percent(0), async { 8 }).await, Some(8));
    }
}
