use serde::{Deserialize, Serialize};

/// Counts of processes. What costs nothing is in every sample; what needs a walk over all processes only after one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Processes {
    /// Running or ready to run (`procs_running` of `/proc/stat`).
    pub running: Option<u32>,
    /// Waiting in the kernel, mostly for a disk (`procs_blocked`).
    pub blocked: Option<u32>,
    /// Threads of all processes (`/proc/loadavg`).
    pub total_threads: Option<u32>,
    /// From a walk that ended since the sample before.
    pub walk: Option<ProcessStates>,
}

/// Processes by state (`/proc/PID/stat`, third field).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessStates {
    /// All of them.
    pub total: u32,
    /// `S`.
    pub sleeping: u32,
    /// `Z`.
    pub zombies: u32,
    /// `T` and `t`.
    pub stopped: u32,
    /// `I`: idle kernel threads.
    pub idle: u32,
    /// `X`.
    pub dead: u32,
    /// `W`, of kernels before 2.6.
    pub paging: u32,
    /// Any other letter but `R` and `D`.
    pub unknown: u32,
}
