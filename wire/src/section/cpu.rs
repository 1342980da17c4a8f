use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::centi::Centi;
use crate::limits::MAX_CORES;

/// CPU usage between two readings (`/proc/stat`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// All cores together, as shares of their summed time.
    pub total: CpuUsage,
    /// Each core that is online, by ascending number.
    pub cores: List<Core, MAX_CORES>,
}

/// One core.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Core {
    /// The kernel's number of it: 0 is `cpu0`.
    pub number: u32,
    /// What it did.
    pub usage: CpuUsage,
    /// Current frequency in kHz (`cpufreq/scaling_cur_freq`).
    pub frequency_khz: Option<u32>,
}

/// Shares of time in percent of the interval. As in Telegraf, `user` and `nice` leave out the guests' part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuUsage {
    /// In user mode at normal priority.
    pub user: Centi,
    /// In kernel mode.
    pub system: Centi,
    /// Doing nothing.
    pub idle: Centi,
    /// In user mode at low priority. `None` where the system does not tell it apart.
    pub nice: Option<Centi>,
    /// Idle while waiting for a disk.
    pub iowait: Option<Centi>,
    /// Serving interrupts.
    pub irq: Option<Centi>,
    /// Serving soft interrupts.
    pub softirq: Option<Centi>,
    /// Taken by the hypervisor for others.
    pub steal: Option<Centi>,
    /// Running guests at normal priority.
    pub guest: Option<Centi>,
    /// Running guests at low priority.
    pub guest_nice: Option<Centi>,
}

impl CpuUsage {
    /// All that is not idle: 100 % less `idle`, as Telegraf's `usage_active` (iowait counts as active there).
    pub fn active(&self) -> Centi {
        Centi(10_000u32.saturating_sub(self.idle.0))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("cpu_bare", Cpu::default(), "00 00 00 00 00 00 00 00 00 00 00"),
            golden(
                "cpu_full",
                Cpu {
                    total: CpuUsage {
                        user: Centi(339),
                        system: Centi(1627),
                        idle: Centi(10),
                        nice: Some(Centi(8014)),
                        iowait: Some(Centi(0)),
                        irq: Some(Centi(250)),
                        softirq: Some(Centi(251)),
                        steal: Some(Centi(10)),
                        guest: Some(Centi(0)),
                        guest_nice: Some(Centi(10000)),
                    },
                    cores: list(vec![
                        Core {
                            number: 0,
                            usage: CpuUsage { idle: Centi(10_000), ..CpuUsage::default() },
                            frequency_khz: None,
                        },
                        Core {
                            number: u32::MAX,
                            usage: CpuUsage {
                                user: Centi(u32::MAX),
                                system: Centi(u32::MAX),
                                idle: Centi(u32::MAX),
                                nice: Some(Centi(u32::MAX)),
                                iowait: Some(Centi(u32::MAX)),
                                irq: Some(Centi(u32::MAX)),
                                softirq: Some(Centi(u32::MAX)),
                                steal: Some(Centi(u32::MAX)),
                                guest: Some(Centi(u32::MAX)),
                                guest_nice: Some(Centi(u32::MAX)),
                            },
                            frequency_khz: Some(u32::MAX),
                        },
                    ]),
                },
                "fb 53 01 fb 5b 06 0a 01 fb 4e 1f 01 00 01 fa 01 fb fb 00 01 0a 01 00 01 fb 10 27 02 00 00 00 fb \
                 10 27 00 00 00 00 00 00 00 00 fc ff ff ff ff fc ff ff ff ff fc ff ff ff ff fc ff ff ff ff 01 fc \
                 ff ff ff ff 01 fc ff ff ff ff 01 fc ff ff ff ff 01 fc ff ff ff ff 01 fc ff ff ff ff 01 fc ff ff \
                 ff ff 01 fc ff ff ff ff 01 fc ff ff ff ff",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(1, &vectors());
    }
}
