use serde::{Deserialize, Serialize};

use super::ReasonCount;
use crate::bounded::List;
use crate::limits::MAX_REASONS;

/// The client's own health, with some of a host's samples. Counters count since the client's start, but for those of
/// the spool, which outlive it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientHealth {
    /// Seconds since the start.
    pub uptime: u64,
    /// Seconds since the present connection began; `None` while there is none.
    pub connected: Option<u64>,
    /// Connections that came about.
    pub connections: u64,
    /// Samples taken.
    pub samples_taken: u64,
    /// Samples settled as durable, those that an earlier run left in the spool among them.
    pub samples_acked: u64,
    /// Samples that wait in memory.
    pub waiting_memory: u64,
    /// Samples that wait in the spool.
    pub waiting_disk: u64,
    /// Age in ms of the oldest sample that waits, by its own time; `None` while none waits.
    pub oldest_waiting_ms: Option<u64>,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// What the server's clock is ahead of this host's, in ms, at the last `Welcome` or `Ack`.
    pub skew_ms: Option<i64>,
    /// Steps of the host's clock.
    pub clock_steps: u64,
    /// The last of them in ms, forward positive.
    pub last_step_ms: Option<i64>,
    /// Resident memory in bytes; `None` where the system does not tell.
    pub memory: Option<u64>,
    /// CPU time used, in ms.
    pub cpu_ms: u64,
    /// Samples dropped, by reason.
    pub dropped: List<ReasonCount, MAX_REASONS>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden(
                "client_health_bare",
                Box::new(ClientHealth::default()),
                "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
            ),
            golden(
                "client_health_full",
                Box::new(ClientHealth {
                    uptime: 86_400,
                    connected: Some(3_600),
                    connections: 2,
                    samples_taken: 17_280,
                    samples_acked: 17_279,
                    waiting_memory: 1,
                    waiting_disk: 250,
                    oldest_waiting_ms: Some(5_000),
                    spool_bytes: 1 << 20,
                    skew_ms: Some(-3),
                    clock_steps: 1,
                    last_step_ms: Some(-3_600_000),
                    memory: Some(4_000_000),
                    cpu_ms: 8_640,
                    dropped: list(vec![ReasonCount { reason: text("queue_full"), count: 7 }]),
                }),
                "fc 80 51 01 00 01 fb 10 0e 02 fb 80 43 fb 7f 43 01 fa 01 fb 88 13 fc 00 00 10 00 01 05 01 01 fc \
                 ff dc 6d 00 01 fc 00 09 3d 00 fb c0 21 01 0a 71 75 65 75 65 5f 66 75 6c 6c 07",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(11, &vectors());
    }
}
