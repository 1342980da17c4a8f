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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("system_bare", System::default(), "00 00 00 00 00 00"),
            golden(
                "system_full",
                System {
                    load: Some([Centi(663), Centi(624), Centi(332)]),
                    n_cpus: 2,
                    n_physical_cpus: Some(2),
                    n_users: Some(0),
                    uptime: 1_126,
                    boot_time: Some(1_795_231_699),
                },
                "01 fb 97 02 fb 70 02 fb 4c 01 02 01 02 01 00 fb 66 04 01 fc a6 1f 02 d6",
            ),
            golden(
                "system_extreme",
                System {
                    load: Some([Centi(u32::MAX), Centi(0), Centi(250)]),
                    n_cpus: u32::MAX,
                    n_physical_cpus: Some(u32::MAX),
                    n_users: Some(u32::MAX),
                    uptime: u64::MAX,
                    boot_time: Some(i64::MIN),
                },
                "01 fc ff ff ff ff 00 fa fc ff ff ff ff 01 fc ff ff ff ff 01 fc ff ff ff ff fd ff ff ff ff ff ff \
                 ff ff 01 fd ff ff ff ff ff ff ff ff",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(7, &vectors());
    }
}
