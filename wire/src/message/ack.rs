use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::limits::{MAX_ACK_BATCHES, MAX_ACK_REFUSED};

/// These batches are settled: durable but for the samples refused, which never will be. The client forgets both, and
/// counts the refused ones as dropped, by reason. Without any batch it says that the server is there and has put off what it
/// got: that comes again.
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
        /// More than a host may send.
        5 OverLimit "over_limit",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, list};
    use crate::message::ServerMessage;

    pub(crate) fn vectors() -> Vec<Golden<ServerMessage>> {
        vec![
            golden("ack_nothing", Ack::default(), "41 00 00 00"),
            golden(
                "ack_two_batches",
                Ack {
                    server_time_ms: 1_795_232_825_000,
                    batches: list(vec![1, 250]),
                    refused: list(vec![RefusedSample {
                        time_ms: 1_795_232_820_000,
                        reason: DropReason::ClockAhead,
                    }]),
                },
                "41 fd 50 fd 6d f8 43 03 00 00 02 01 fa 01 fd 40 d6 6d f8 43 03 00 00 01",
            ),
            golden(
                "ack_extreme",
                Ack {
                    server_time_ms: i64::MIN,
                    batches: list(vec![0, u64::MAX]),
                    refused: list(vec![
                        RefusedSample { time_ms: i64::MAX, reason: DropReason::Unreadable },
                        RefusedSample { time_ms: -1, reason: DropReason::Other(u16::MAX) },
                    ]),
                },
                "41 fd ff ff ff ff ff ff ff ff 02 00 fd ff ff ff ff ff ff ff ff 02 fd fe ff ff ff ff ff ff ff 04 \
                 01 fb ff ff",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
