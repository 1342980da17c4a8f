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
