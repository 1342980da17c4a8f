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
    /// Mean time a request took, queueing included, in ms. `None` without any request.
    pub io_await: Option<f64>,
    /// Mean time the disk was busy for a request, in ms. `None` without any request.
    pub io_svctm: Option<f64>,
    /// Share of the interval during which the disk was busy, in percent.
    pub io_util: f64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("disk_io_none", DiskIo::default(), "00"),
            golden(
                "disk_io_two",
                DiskIo {
                    disks: list(vec![
                        Disk {
                            name: text("vda"),
                            reads: 189_796,
                            writes: 146_047,
                            read_bytes: 4_317_348_864,
                            write_bytes: 19_518_869_504,
                            read_time: Some(168_643),
                            write_time: Some(233_024),
                            io_time: Some(36_528),
                            weighted_io_time: Some(407_248),
                            iops_in_progress: Some(0),
                            merged_reads: Some(31_064),
                            merged_writes: Some(430_513),
                            times: Some(DiskTimes {
                                io_await: Some(1.64),
                                io_svctm: Some(0.07),
                                io_util: f64::MAX,
                            }),
                        },
                        Disk {
                            name: text("é"),
                            reads: u64::MAX,
                            writes: 0,
                            read_bytes: 250,
                            write_bytes: 251,
                            read_time: None,
                            write_time: None,
                            io_time: None,
                            weighted_io_time: None,
                            iops_in_progress: None,
                            merged_reads: None,
                            merged_writes: None,
                            times: None,
                        },
                    ]),
                },
                "02 03 76 64 61 fc 64 e5 02 00 fc 7f 3a 02 00 fd 00 84 55 01 01 00 00 00 fd 00 50 6a 8b 04 00 00 \
                 00 01 fc c3 92 02 00 01 fc 40 8e 03 00 01 fb b0 8e 01 fc d0 36 06 00 01 00 01 fb 58 79 01 fc b1 \
                 91 06 00 01 01 3d 0a d7 a3 70 3d fa 3f 01 ec 51 b8 1e 85 eb b1 3f ff ff ff ff ff ff ef 7f 02 c3 a9 fd \
                 ff ff ff ff ff ff ff ff 00 fa fb fb 00 00 00 00 00 00 00 00 00",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(5, &vectors());
    }
}
