use serde::{Deserialize, Serialize};

use super::Name;
use crate::bounded::List;
use crate::centi::Centi;
use crate::limits::MAX_PROCESS_GROUPS;

/// What uses most: the ten groups of processes with the most CPU and the ten with the most memory, each once.
///
/// Processes are summed by command name; pids and command lines never leave the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TopProcesses {
    /// Ordered by name, so that the same groups make the same series.
    pub groups: List<ProcessGroup, MAX_PROCESS_GROUPS>,
}

/// All processes of one command name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessGroup {
    /// The command's name (`/proc/PID/comm`).
    pub name: Name,
    /// How many there are.
    pub count: u32,
    /// CPU since the walk before, in percent of one core.
    pub cpu: Centi,
    /// Resident memory in bytes; shared pages count in each.
    pub memory: u64,
}
