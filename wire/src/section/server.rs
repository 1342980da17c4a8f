use serde::{Deserialize, Serialize};

use super::Name;
use crate::bounded::List;
use crate::limits::MAX_REASONS;

/// The server's own health, each 10 s. Counters count since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServerHealth {
    /// Seconds since the start.
    pub uptime: u64,
    /// Hosts known.
    pub hosts: u64,
    /// Hosts that speak.
    pub hosts_up: u64,
    /// Open connections.
    pub connections: u64,
    /// Samples that came in.
    pub samples_received: u64,
    /// Samples settled as durable.
    pub samples_acked: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// Bytes of the journal that the store has not passed.
    pub store_lag_bytes: u64,
    /// Bytes of the journal that InfluxDB has not; `None` without one.
    pub influx_lag_bytes: Option<u64>,
    /// Age in ms of the oldest sample that InfluxDB has not.
    pub influx_lag_ms: Option<u64>,
    /// Lines that InfluxDB took.
    pub influx_lines: Option<u64>,
    /// Resident memory in bytes.
    pub memory: u64,
    /// CPU time used, in ms.
    pub cpu_ms: u64,
    /// Samples dropped, by reason.
    pub dropped: List<ReasonCount, MAX_REASONS>,
}

/// How often something happened for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The reason's word.
    pub reason: Name,
    /// How often.
    pub count: u64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden(
                "server_health_bare",
                ServerHealth::default(),
                "00 00 00 00 00 00 00 00 00 00 00 00 00 00",
            ),
            golden(
                "server_health_full",
                ServerHealth {
                    uptime: 86_400,
                    hosts: 10_000,
                    hosts_up: 9_999,
                    connections: 10_001,
                    samples_received: 2_000_000_000,
                    samples_acked: 1_999_999_999,
                    journal_bytes: 64 << 20,
                    store_lag_bytes: 0,
                    influx_lag_bytes: Some(65_535),
                    influx_lag_ms: Some(u64::MAX),
                    influx_lines: Some(0),
                    memory: 400_000_000,
                    cpu_ms: 250,
                    dropped: list(vec![
                        ReasonCount { reason: text("clock_ahead"), count: 1 },
                        ReasonCount { reason: text("zu_früh"), count: u64::MAX },
                    ]),
                },
                "fc 80 51 01 00 fb 10 27 fb 0f 27 fb 11 27 fc 00 94 35 77 fc ff 93 35 77 fc 00 00 00 04 00 01 fb \
                 ff ff 01 fd ff ff ff ff ff ff ff ff 01 00 fc 00 84 d7 17 fa 02 0b 63 6c 6f 63 6b 5f 61 68 65 61 \
                 64 01 08 7a 75 5f 66 72 c3 bc 68 fd ff ff ff ff ff ff ff ff",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(100, &vectors());
    }
}
