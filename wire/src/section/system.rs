use serde::{Deserialize, Serialize};

use crate::centi::Centi;

/// The system as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct System {
    /// Load averages over 1, 5 and 15 minutes (`/proc/loadavg`).
    pub load: Option<[Centi; 3]>,
    /// CPUs that can be scheduled on.
    pub n_cpus: u32,
    /// Cores without counting hyper-threads.
    pub n_physical_cpus: Option<u32>,
    /// Sessions of logged-in users (`utmp`).
    pub n_users: Option<u32>,
    /// Seconds since the start (`/proc/uptime`).
    pub uptime: u64,
    /// When it started, in seconds since 1970 (`btime` of `/proc/stat`).
    pub boot_time: Option<i64>,
}
