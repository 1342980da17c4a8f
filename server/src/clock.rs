//! The server's wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in ms since 1970; negative on a machine that thinks it is earlier.
pub fn now_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}
