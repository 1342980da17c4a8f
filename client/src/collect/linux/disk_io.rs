//! Counters of disks and partitions: `/proc/diskstats`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vitals_wire::bounded::{List, Text};
use vitals_wire::section::{Disk, DiskIo, DiskTimes};

use super::super::{CollectConfig, Collector, Counters, Reading, Setup};
use super::file::{Attribute, HeldFile};
use super::scan;

/// What the kernel calls a sector, whatever the disk says.
const SECTOR_BYTES: u64 = 512;

pub(super) struct DiskIoCollector {
    config: CollectConfig,
    counters: Arc<Counters>,
    diskstats: HeldFile,
    /// `/sys/class/block`.
    class: PathBuf,
    before: Vec<Known>,
    read_at: Option<Instant>,
}

/// A device as it was at the reading before.
struct Known {
    name: Box<str>,
    figures: Figures,
    /// It has no size: the kernel keeps some devices ready that are nothing yet.
    is_nothing: bool,
}

/// One line. Partitions of kernels before 2.6.25 have the first four only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Figures {
    reads: u64,
    writes: u64,
    read_sectors: u64,
    write_sectors: u64,
    more: Option<More>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct More {
    merged_reads: u64,
    read_time: u64,
    merged_writes: u64,
    write_time: u64,
    in_progress: u64,
    io_time: u64,
    weighted_io_time: u64,
}

impl DiskIoCollector {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        Self {
            config: setup.config.clone(),
            counters: setup.counters.clone(),
            diskstats: HeldFile::optional(setup.roots.proc.join("diskstats")),
            class: setup.roots.sys.join("class/block"),
            before: Vec::new(),
            read_at: None,
        }
    }
}

impl Collector for DiskIoCollector {
    fn collect(&mut self, reading: &mut Reading<'_>) {
        let now = Instant::now();
        let elapsed = self.read_at.replace(now).map(|before| now.duration_since(before));
        let Some(text) = self.diskstats.read() else {
            self.before.clear();
            return;
        };
        let mut disks = Vec::with_capacity(self.before.len());
        let mut seen = 0;
        for (name, figures) in scan::lines(text).filter_map(parse_line) {
            if !self.config.wants_disk(name) {
                continue;
            }
            // The order of the lines changes only when disks come and go.
            let then = self.before[seen..].iter().position(|known| *known.name == *name);
            let mut times = None;
            match then {
                Some(skipped) => {
                    self.before.drain(seen..seen + skipped);
                    let before = std::mem::replace(&mut self.before[seen].figures, figures);
                    times = elapsed.and_then(|elapsed| derive(&before, &figures, elapsed));
                }
                None => self.before.insert(seen, Known { name: name.into(), figures, is_nothing: false }),
            }
            let known = &mut self.before[seen];
            seen += 1;
            if figures.reads > 0 || figures.writes > 0 {
                known.is_nothing = false;
            } else if then.is_none() || reading.rescan {
                known.is_nothing = has_no_size(&self.class, name);
            }
            if known.is_nothing {
                continue;
            }
            disks.push(disk(name, &figures, times));
        }
        self.before.truncate(seen);
        if disks.is_empty() {
            return;
        }
        let (disks, left_out) = List::first(disks);
        self.counters.leave_out("disks", left_out);
        reading.sections.push(DiskIo { disks }.into());
    }
}

/// Whether the kernel says that there is nothing behind a device. Asked only of those that never did anything.
fn has_no_size(class: &Path, name: &str) -> bool {
    // Slashes in names of devices are exclamation marks there.
    let path = class.join(name.replace('/', "!")).join("size");
    Attribute::open(&path).and_then(|size| size.number()).is_ok_and(|sectors| sectors == 0)
}

fn disk(name: &str, figures: &Figures, times: Option<DiskTimes>) -> Disk {
    let more = figures.more;
    Disk {
        name: Text::cut(name),
        reads: figures.reads,
        writes: figures.writes,
        read_bytes: figures.read_sectors.saturating_mul(SECTOR_BYTES),
        write_bytes: figures.write_sectors.saturating_mul(SECTOR_BYTES),
        read_time: more.map(|more| more.read_time),
        write_time: more.map(|more| more.write_time),
        io_time: more.map(|more| more.io_time),
        weighted_io_time: more.map(|more| more.weighted_io_time),
        iops_in_progress: more.map(|more| more.in_progress),
        merged_reads: more.map(|more| more.merged_reads),
        merged_writes: more.map(|more| more.merged_writes),
        times,
    }
}

/// `8 0 sda reads merged sectors ms writes merged sectors ms in-progress ms weighted-ms …`; later kernels add more, an
/// old kernel's partition has `8 1 sda1 reads sectors writes sectors`.
fn parse_line(line: &[u8]) -> Option<(&str, Figures)> {
    let mut words = scan::words(line).skip(2);
    let name = std::str::from_utf8(words.next()?).ok()?;
    let mut values = [0; 11];
    let mut count = 0;
    for (value, word) in values.iter_mut().zip(words) {
        *value = scan::number(word)?;
        count += 1;
    }
    let [a, b, c, d, e, f, g, h, i, j, k] = values;
    let figures = match count {
        4 => Figures { reads: a, read_sectors: b, writes: c, write_sectors: d, more: None },
        11 => Figures {
            reads: a,
            writes: e,
            read_sectors: c,
            write_sectors: g,
            more: Some(More {
                merged_reads: b,
                read_time: d,
                merged_writes: f,
                write_time: h,
                in_progress: i,
                io_time: j,
                weighted_io_time: k,
            }),
        },
        _ => return None,
    };
    Some((name, figures))
}

/// As Telegraf derives them, rounded to two decimals. `None` after a counter wrapped. Without a request in between
/// there is no mean time of one.
fn derive(before: &Figures, now: &Figures, elapsed: Duration) -> Option<DiskTimes> {
    let (old, new) = (before.more?, now.more?);
    let requests = now.reads.checked_sub(before.reads)? + now.writes.checked_sub(before.writes)?;
    let time = new.read_time.checked_sub(old.read_time)? + new.write_time.checked_sub(old.write_time)?;
    let busy = new.io_time.checked_sub(old.io_time)?;
    let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
    if elapsed_ms <= 0.0 {
        return None;
    }
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let mean = |ms: u64| (requests > 0).then(|| round(ms as f64 / requests as f64));
    Some(DiskTimes {
        io_await: mean(time),
        io_svctm: mean(busy),
        // Ticks of the kernel's clock can make a busy disk a little busier than time.
        io_util: round((busy as f64 * 100.0 / elapsed_ms).min(100.0)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_old_and_new_kernels_are_read() {
        let new = b" 254       0 vda 153060 37690 18207874 54772 32905 163031 30698040 107794 1 24672 163755 11649 13 2142432 1146 1246 41";
        let (name, figures) = parse_line(new).unwrap();
        assert_eq!((name, figures.reads, figures.writes), ("vda", 153_060, 32_905));
        assert_eq!((figures.read_sectors, figures.write_sectors), (18_207_874, 30_698_040));
        let more = figures.more.unwrap();
        assert_eq!(
            (more.merged_reads, more.read_time, more.merged_writes, more.write_time),
            (37_690, 54_772, 163_031, 107_794)
        );
        assert_eq!((more.in_progress, more.io_time, more.weighted_io_time), (1, 24_672, 163_755));
        let (name, figures) = parse_line(b"   3    1   hda1 35486 38030 38030 38031").unwrap();
        assert_eq!(name, "hda1");
        assert_eq!(
            figures,
            Figures {
                reads: 35_486,
                read_sectors: 38_030,
                writes: 38_030,
                write_sectors: 38_031,
                more: None
            }
        );
        for torn in [&b""[..], b"8 0", b"8 0 sda 1 2 3", b"8 0 sda 1 2 x 4", b"8 0 \xff 1 2 3 4"] {
            assert_eq!(parse_line(torn), None);
        }
    }

    fn figures(reads: u64, writes: u64, read_time: u64, io_time: u64) -> Figures {
        Figures {
            reads,
            writes,
            more: Some(More { read_time, io_time, ..More::default() }),
            ..Figures::default()
        }
    }

    #[test]
    fn times_follow_from_two_readings_and_are_rounded() {
        let times = derive(&figures(1, 1, 10, 100), &figures(3, 2, 20, 350), Duration::from_secs(1)).unwrap();
        assert_eq!((times.io_await, times.io_svctm, times.io_util), (Some(3.33), Some(83.33), 25.0));
    }

    #[test]
    fn an_idle_disk_has_no_mean_times_but_is_known_to_be_idle() {
        let same = figures(1, 1, 10, 100);
        let times = derive(&same, &same, Duration::from_secs(1)).unwrap();
        assert_eq!(times, DiskTimes { io_await: None, io_svctm: None, io_util: 0.0 });
    }

    #[test]
    fn a_counter_that_wrapped_gives_no_times() {
        let (before, now) = (figures(1, 1, 10, 4_294_967_000), figures(2, 2, 11, 5));
        assert_eq!(derive(&before, &now, Duration::from_secs(1)), None);
    }
}
