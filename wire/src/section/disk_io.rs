use serde::{Deserialize, Serialize};

use super::Name;
use crate::bounded::List;
use crate::limits::MAX_DISKS;

/// Counters of disks and partitions (`/proc/diskstats`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DiskIo {
    /// In the kernel's order.
    pub disks: List<Disk, MAX_DISKS>,
}

/// One disk or partition. Counters count since the start; times are in ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// The kernel's name, such as `sda1`.
    pub name: Name,
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Spent reading, summed over requests.
    pub read_time: Option<u64>,
    /// Spent writing, summed over requests.
    pub write_time: Option<u64>,
    /// During which at least one request was under way.
    pub io_time: Option<u64>,
    /// `io_time` weighted by the number of requests under way.
    pub weighted_io_time: Option<u64>,
    /// Requests under way now.
    pub iops_in_progress: Option<u64>,
    /// Reads merged with a neighbour.
    pub merged_reads: Option<u64>,
    /// Writes merged with a neighbour.
    pub merged_writes: Option<u64>,
    /// What follows from this reading and the one before it; `None` in the first.
    pub times: Option<DiskTimes>,
}

/// What Telegraf derives from two readings, rounded to two decimals. Floats, so a hostile client can say NaN here: such
/// a figure is left out by the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DiskTimes {
    /// Mean time a request took, queueing included, in ms.
    pub io_await: f64,
    /// Mean time the disk was busy for a request, in ms.
    pub io_svctm: f64,
    /// Share of the interval during which the disk was busy, in percent.
    pub io_util: f64,
}
