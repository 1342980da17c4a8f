use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::limits::{MAX_ACK_BATCHES, MAX_ACK_REFUSED};

/// These batches are settled: durable but for the samples refused, which never will be. The client forgets both, and
/// counts the refused ones as dropped, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ack {
    /// The server's clock in ms since 1970, from which the client learns its skew.
    pub server_time_ms: i64,
    /// The client's numbers of the batches.
    pub batches: List<u64, MAX_ACK_BATCHES>,
    /// Samples of these batches that will never be stored.
    pub refused: List<RefusedSample, MAX_ACK_REFUSED>,
}

/// A sample that will never be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSample {
    /// Its time.
    pub time_ms: i64,
    /// Why.
    pub reason: DropReason,
}

super::codes! {
    /// Why a sample is never stored.
    DropReason {
        /// More than 24 h ahead of the server's clock.
        1 ClockAhead "clock_ahead",
        /// Older than raw samples are kept.
        2 TooOld "too_old",
        /// A spool or queue at its cap gave up its oldest.
        3 QueueFull "queue_full",
        /// Nothing in it could be read.
        4 Unreadable "unreadable",
    }
}
