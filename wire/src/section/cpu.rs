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
