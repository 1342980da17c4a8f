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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("top_processes_none", TopProcesses::default(), "00"),
            golden(
                "top_processes_two",
                TopProcesses {
                    groups: list(vec![
                        ProcessGroup { name: text("(sd-pam)"), count: 1, cpu: Centi(0), memory: 4_096 },
                        ProcessGroup {
                            name: text("数 据=库"),
                            count: u32::MAX,
                            cpu: Centi(u32::MAX),
                            memory: u64::MAX,
                        },
                    ]),
                },
                "02 08 28 73 64 2d 70 61 6d 29 01 00 fb 00 10 0b e6 95 b0 20 e6 8d ae 3d e5 ba 93 fc ff ff ff ff \
                 fc ff ff ff ff fd ff ff ff ff ff ff ff ff",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(10, &vectors());
    }
}
