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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("processes_bare", Processes::default(), "00 00 00 00"),
            golden(
                "processes_full",
                Processes {
                    running: Some(2),
                    blocked: Some(0),
                    total_threads: Some(166),
                    walk: Some(ProcessStates {
                        total: 88,
                        sleeping: 48,
                        zombies: 0,
                        stopped: 0,
                        idle: 38,
                        dead: 0,
                        paging: 0,
                        unknown: 0,
                    }),
                },
                "01 02 01 00 01 a6 01 58 30 00 00 26 00 00 00",
            ),
            golden(
                "processes_extreme",
                Processes {
                    running: Some(u32::MAX),
                    blocked: None,
                    total_threads: Some(u32::MAX),
                    walk: Some(ProcessStates {
                        total: u32::MAX,
                        sleeping: 1,
                        zombies: 2,
                        stopped: 3,
                        idle: 4,
                        dead: 5,
                        paging: 6,
                        unknown: 7,
                    }),
                },
                "01 fc ff ff ff ff 00 01 fc ff ff ff ff 01 fc ff ff ff ff 01 02 03 04 05 06 07",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(8, &vectors());
    }
}
