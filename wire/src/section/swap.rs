use serde::{Deserialize, Serialize};

/// Swap space (`/proc/meminfo`, `/proc/vmstat`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Swap {
    /// Bytes there are.
    pub total: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes read back from swap since the start.
    pub bytes_in: Option<u64>,
    /// Bytes written to swap since the start.
    pub bytes_out: Option<u64>,
}
