//! A host that is not there: plausible figures as a function of seed and time alone.
//!
//! A second run with the same seed plays the same hosts, their counters go on where they would be by now, and a test
//! that knows seed and time can compute each sample again. So nothing is kept between samples.

use vitals_wire::bounded::{List, Text};
use vitals_wire::centi::Centi;
use vitals_wire::ids::{HostId, Secret};
use vitals_wire::message::Facts;
use vitals_wire::name::nearest_host_name;
use vitals_wire::sample::Sample;
use vitals_wire::section::{
    Core, Cpu, CpuUsage, Disk, DiskIo, DiskTimes, FileSystem, FileSystems, Inodes, Interface, Memory, Name,
    Network, ProcessGroup, ProcessStates, Processes, Section, Swap, System, Temperature, Temperatures,
    TopProcesses,
};

use super::script::Given;

/// When the oldest of them started, in seconds since 1970: a year with plausible uptimes follows.
const FIRST_BOOT: i64 = 1_767_225_600;
const DAY: f64 = 86_400.0;
/// From one look at all processes to the next, as the real client does it.
const WALK_MS: i64 = 30_000;
/// The filling disk is full after this, and then emptied.
const FILL: f64 = 6.0 * 3600.0;
const GIB: u64 = 1 << 30;
const COMMANDS: [&str; 12] = [
    "chronyd",
    "containerd",
    "cron",
    "java",
    "journald",
    "nginx",
    "node",
    "postgres",
    "python3",
    "redis",
    "sshd",
    "vector",
];
/// Of `COMMANDS`, how many a host runs.
const GROUPS: usize = 8;

/// What is special about a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Character {
    /// Nothing.
    Ordinary,
    /// Its CPU is nearly always busy.
    Busy,
    /// Its root file system fills within hours, again and again.
    Filling,
    /// Its connection breaks every so often.
    Flapping,
}

/// One simulated host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its id, from the seed.
    pub id: HostId,
    /// Its secret, from the seed: no secret at all, then.
    pub secret: Secret,
    /// What it calls itself.
    pub name: String,
    /// What is special about it.
    pub character: Character,
    interval_ms: i64,
    seed: u64,
}

/// Spreads the bits of a number (splitmix64).
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn centi(value: f64) -> Centi {
    Centi::round(value).unwrap_or_default()
}

fn name(text: &str) -> Name {
    Text::cut(text)
}

impl Host {
    /// Host number `index` of a fleet. The second is busy, the third has a filling disk, the fourth a bad connection.
    pub fn numbered(seed: u64, index: u32, prefix: &str, interval_ms: u32) -> Self {
        let character = match index {
            1 => Character::Busy,
            2 => Character::Filling,
            3 => Character::Flapping,
            _ => Character::Ordinary,
        };
        let name = nearest_host_name(&format!("{prefix}{:05}", u64::from(index) + 1)).to_string();
        Self::new(mix(seed) ^ u64::from(index), name, character, interval_ms)
    }

    /// The host of this name.
    pub fn named(seed: u64, name: &str, interval_ms: u32) -> Self {
        let of_name = crate::queue::content_hash(name.as_bytes());
        Self::new(mix(seed).wrapping_add(of_name), name.to_owned(), Character::Ordinary, interval_ms)
    }

    fn new(seed: u64, name: String, character: Character, interval_ms: u32) -> Self {
        let seed = mix(seed);
        let mut id = [0; 16];
        let mut secret = [0; 32];
        for (index, bytes) in id.chunks_exact_mut(8).chain(secret.chunks_exact_mut(8)).enumerate() {
            bytes.copy_from_slice(&mix(seed ^ mix(index as u64)).to_be_bytes());
        }
        // The id of all zeros is taken.
        id[0] |= 1;
        let interval_ms = i64::from(interval_ms);
        Self { id: HostId(id), secret: Secret(secret), name, character, interval_ms, seed }
    }

    /// What it is.
    pub fn facts(&self) -> Facts {
        let fact = |text| Some(Text::cut(text));
        Facts {
            os: fact("Debian GNU/Linux 13 (trixie)"),
            kernel: fact("6.12.48+deb13-amd64"),
            architecture: fact("x86_64"),
            cpu_model: fact("Simulated CPU @ 2.60GHz"),
            cpus: Some(self.cores()),
            memory: Some(self.memory_total()),
            boot_time: Some(self.boot_time()),
        }
    }

    /// Its share of the interval, 0 to 1, after which it takes its samples.
    pub fn phase(&self) -> f64 {
        self.fixed(0)
    }

    /// A figure between 0 and 1 that never changes.
    fn fixed(&self, channel: u64) -> f64 {
        (mix(self.seed ^ mix(channel)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A figure between 0 and 1 that wanders, with `period` seconds from one random point to the next.
    fn wander(&self, channel: u64, seconds: f64, period: f64) -> f64 {
        let at = seconds / period;
        let point = |n: f64| self.fixed(mix(channel + 1000) ^ (n as i64 as u64));
        let part = at - at.floor();
        let part = part * part * (3.0 - 2.0 * part);
        point(at.floor()) * (1.0 - part) + point(at.floor() + 1.0) * part
    }

    /// 0 at night, 1 at the host's noon.
    fn daylight(&self, seconds: f64) -> f64 {
        0.5 - 0.5 * sine(seconds / DAY + 0.2 * self.fixed(1) + 0.25)
    }

    /// A counter that never falls: the integral of a rate that moves with the day, in 10 minutes and in 47 seconds.
    fn counter(&self, channel: u64, uptime: f64, rate: f64) -> f64 {
        let wave = |part: f64, period: f64, n: u64| {
            let shift = self.fixed(mix(channel) + n);
            part * period / STEEPEST_SINE * (sine(uptime / period + shift) - sine(shift))
        };
        // The parts sum to less than 1, so the rate stays above zero.
        (rate * (uptime + wave(0.5, DAY, 1) + wave(0.3, 600.0, 2) + wave(0.15, 47.0, 3))).max(0.0)
    }

    fn cores(&self) -> u32 {
        if self.fixed(2) < 0.75 { 2 } else { 4 }
    }

    fn memory_total(&self) -> u64 {
        (4 * GIB) << (self.fixed(3) * 4.0) as u32
    }

    fn boot_time(&self) -> i64 {
        FIRST_BOOT + (self.fixed(4) * 200.0 * DAY) as i64
    }

    /// Its reading at a time, but for the values that are given.
    pub fn sample(&self, time_ms: i64, given: &Given) -> Sample {
        let seconds = time_ms as f64 / 1000.0;
        let uptime = (seconds - self.boot_time() as f64).max(0.0);
        let active = given.cpu.unwrap_or_else(|| self.active(seconds));
        let walked = time_ms.div_euclid(WALK_MS) != (time_ms - self.interval_ms).div_euclid(WALK_MS);
        let mut sections: Vec<Section> = Vec::with_capacity(10);
        sections.push(self.cpu(seconds, active, given.cpu.is_some()).into());
        sections.push(Box::new(self.memory(seconds, given.mem)).into());
        sections.push(self.swap(seconds, uptime, given.swap).into());
        sections.push(self.file_systems(seconds, given.disk).into());
        sections.push(self.disk_io(seconds, uptime).into());
        sections.push(self.network(uptime).into());
        sections.push(self.system(seconds, uptime, active, given.load).into());
        sections.push(self.processes(seconds, active, walked).into());
        let degrees = given.temp.or_else(|| (self.fixed(5) < 0.5).then_some(35.0 + 0.4 * active));
        if let Some(degrees) = degrees {
            let millidegrees = (degrees * 1000.0).round() as i32;
            let sensor = Temperature { sensor: name("coretemp_package_id_0"), millidegrees };
            sections.push(Temperatures { sensors: List::first(vec![sensor]).0 }.into());
        }
        if walked {
            sections.push(self.top_processes(seconds, active).into());
        }
        Sample { time_ms, sections: List::first(sections).0 }
    }

    /// CPU in percent that is not idle.
    fn active(&self, seconds: f64) -> f64 {
        if self.character == Character::Busy {
            return 88.0 + 11.0 * self.wander(10, seconds, 20.0);
        }
        let base = 2.0 + 8.0 * self.fixed(6);
        let day = (10.0 + 30.0 * self.fixed(7)) * self.daylight(seconds);
        let minutes = 12.0 * self.wander(11, seconds, 90.0);
        (base + day + minutes + 6.0 * self.wander(12, seconds, 5.0)).min(99.0)
    }

    fn cpu(&self, seconds: f64, active: f64, is_given: bool) -> Cpu {
        let cores: Vec<Core> = (0..self.cores())
            .map(|number| {
                // Given figures hold for each core; else one does more than the other.
                let share = if is_given {
                    1.0
                } else {
                    0.7 + 0.6 * self.wander(20 + u64::from(number), seconds, 15.0)
                };
                let usage = self.usage(seconds, (active * share).min(100.0), 30 + u64::from(number));
                Core { number, usage, frequency_khz: None }
            })
            .collect();
        Cpu { total: self.usage(seconds, active, 29), cores: List::first(cores).0 }
    }

    /// Parts of 100.00 %, exactly.
    fn usage(&self, seconds: f64, active: f64, channel: u64) -> CpuUsage {
        let active = centi(active.clamp(0.0, 100.0)).0;
        let share = |part: f64| Centi((f64::from(active) * part) as u32);
        let system = share(0.15 + 0.1 * self.wander(channel, seconds, 10.0));
        let (iowait, softirq, steal, nice) = (share(0.05), share(0.02), share(0.01), share(0.01));
        let user = Centi(active - system.0 - iowait.0 - softirq.0 - steal.0 - nice.0);
        CpuUsage {
            user,
            system,
            idle: Centi(10_000 - active),
            nice: Some(nice),
            iowait: Some(iowait),
            irq: Some(Centi(0)),
            softirq: Some(softirq),
            steal: Some(steal),
            guest: Some(Centi(0)),
            guest_nice: Some(Centi(0)),
        }
    }

    fn memory(&self, seconds: f64, used_percent: Option<f64>) -> Memory {
        let total = self.memory_total();
        let pages = |share: f64| (total as f64 * share / 4096.0) as u64 * 4096;
        let used = used_percent.map_or_else(
            || {
                0.25 + 0.4 * self.fixed(8)
                    + 0.1 * self.wander(40, seconds, 600.0)
                    + 0.02 * self.wander(41, seconds, 10.0)
            },
            |percent| percent / 100.0,
        );
        let available = total - pages(used.clamp(0.0, 1.0));
        let cached = available / 2 / 4096 * 4096;
        let slab = pages(0.02 + 0.01 * self.wander(42, seconds, 900.0));
        Memory {
            total,
            available,
            free: available - cached,
            cached: Some(cached),
            buffered: Some(pages(0.01)),
            active: Some(pages(used * 0.8)),
            inactive: Some(pages(0.2)),
            shared: Some(pages(0.005)),
            slab: Some(slab),
            sreclaimable: Some(slab / 8192 * 4096),
            sunreclaim: Some(slab - slab / 8192 * 4096),
            page_tables: Some(pages(0.002)),
            mapped: Some(pages(0.03 + 0.01 * self.wander(43, seconds, 300.0))),
            dirty: Some(pages(0.002 * self.wander(44, seconds, 5.0))),
            write_back: Some(0),
            commit_limit: Some(total / 2),
            committed_as: Some(pages(used * 0.9)),
            ..Memory::default()
        }
    }

    fn swap(&self, seconds: f64, uptime: f64, used_percent: Option<f64>) -> Swap {
        let total = 2 * GIB;
        let share = used_percent
            .map_or_else(|| 0.02 + 0.05 * self.wander(45, seconds, 3600.0), |percent| percent / 100.0);
        let pages = |bytes: f64| Some((bytes / 4096.0) as u64 * 4096);
        Swap {
            total,
            free: total - (total as f64 * share.clamp(0.0, 1.0)) as u64,
            bytes_in: pages(self.counter(46, uptime, 300.0)),
            bytes_out: pages(self.counter(47, uptime, 500.0)),
        }
    }

    fn disks(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        let both = &[("vda", "vda1", "/"), ("vdb", "vdb1", "/var/lib/data")];
        if self.fixed(9) < 0.6 { &both[..1] } else { both }
    }

    fn file_systems(&self, seconds: f64, used_percent: Option<f64>) -> FileSystems {
        let list = self.disks().iter().enumerate().map(|(index, (_, device, path))| {
            let channel = 50 + index as u64;
            let total = (40 * GIB) << (self.fixed(channel) * 4.0) as u32;
            let usable = total / 100 * 95;
            let share = match (index, used_percent) {
                (0, Some(percent)) => percent / 100.0,
                (0, None) if self.character == Character::Filling => 0.55 + 0.445 * (seconds / FILL).fract(),
                _ => 0.2 + 0.5 * self.fixed(channel + 10) + 0.02 * self.wander(channel, seconds, 1800.0),
            };
            let used = (usable as f64 * share.clamp(0.0, 1.0) / 4096.0).round() as u64 * 4096;
            let inodes = total / 16_384;
            FileSystem {
                device: name(device),
                path: Text::cut(path),
                fstype: name("ext4"),
                read_only: false,
                total,
                free: usable.saturating_sub(used),
                used,
                inodes: Some(Inodes {
                    total: inodes,
                    free: inodes - (inodes as f64 * share.clamp(0.0, 1.0) * 0.3) as u64,
                }),
            }
        });
        FileSystems { file_systems: List::first(list.collect()).0 }
    }

    fn disk_io(&self, seconds: f64, uptime: f64) -> DiskIo {
        let list = self.disks().iter().enumerate().map(|(index, (disk, _, _))| {
            let channel = 60 + 4 * index as u64;
            let sectors = |bytes: f64| (bytes / 4096.0) as u64 * 4096;
            let read_bytes = sectors(self.counter(channel, uptime, 20e3 + 400e3 * self.fixed(channel)));
            let write_bytes =
                sectors(self.counter(channel + 1, uptime, 50e3 + 900e3 * self.fixed(channel + 1)));
            let (reads, writes) = (read_bytes / 16_384, write_bytes / 12_288);
            let busy = self.wander(channel + 2, seconds, 8.0);
            Disk {
                name: name(disk),
                reads,
                writes,
                read_bytes,
                write_bytes,
                read_time: Some(reads * 4 / 10),
                write_time: Some(writes * 12 / 10),
                io_time: Some((reads + writes) * 3 / 10),
                weighted_io_time: Some((reads + writes) * 9 / 10),
                iops_in_progress: Some((busy * 3.0) as u64),
                merged_reads: Some(reads / 20),
                merged_writes: Some(writes / 3),
                times: Some(DiskTimes {
                    io_await: Some(centi(0.4 + busy).value()),
                    io_svctm: Some(centi(0.2 + busy / 4.0).value()),
                    io_util: centi(8.0 * busy).value(),
                }),
            }
        });
        DiskIo { disks: List::first(list.collect()).0 }
    }

    fn network(&self, uptime: f64) -> Network {
        let list =
            [("eth0", 1.0), ("eth1", 0.1)].into_iter().enumerate().map(|(index, (interface, scale))| {
                let channel = 70 + 4 * index as u64;
                let rate = scale * (10e3 + 2e6 * self.fixed(channel).powi(3));
                let received = self.counter(channel, uptime, rate) as u64;
                let sent = self.counter(channel + 1, uptime, rate * (0.2 + self.fixed(channel + 1))) as u64;
                Interface {
                    name: name(interface),
                    bytes_recv: received,
                    bytes_sent: sent,
                    packets_recv: received / 850,
                    packets_sent: sent / 620,
                    err_in: 0,
                    err_out: 0,
                    drop_in: Some(received / 500_000_000),
                    drop_out: Some(0),
                    speed: Some(1000),
                }
            });
        Network { interfaces: List::first(list.collect()).0 }
    }

    fn system(&self, seconds: f64, uptime: f64, active: f64, load: Option<f64>) -> System {
        let mean = active / 100.0 * f64::from(self.cores());
        let over = |channel, period| {
            load.unwrap_or_else(|| mean * (0.7 + 0.6 * self.wander(channel, seconds, period)))
        };
        System {
            load: Some([centi(over(80, 60.0)), centi(over(81, 300.0)), centi(over(82, 900.0))]),
            n_cpus: self.cores(),
            n_physical_cpus: Some(self.cores()),
            n_users: Some((self.wander(83, seconds, 3600.0) * 3.0) as u32),
            uptime: uptime as u64,
            boot_time: Some(self.boot_time()),
        }
    }

    fn processes(&self, seconds: f64, active: f64, walked: bool) -> Processes {
        let many = 90.0 + 100.0 * self.fixed(84);
        let total = (many + 20.0 * self.wander(84, seconds, 120.0)) as u32;
        let running = 1 + (active / 100.0 * f64::from(self.cores())) as u32;
        let blocked = (self.wander(85, seconds, 10.0) * 1.3) as u32;
        Processes {
            running: Some(running),
            blocked: Some(blocked),
            total_threads: Some(total * 3),
            walk: walked.then(|| ProcessStates {
                total,
                sleeping: total - running - blocked - total / 3,
                idle: total / 3,
                ..ProcessStates::default()
            }),
        }
    }

    fn top_processes(&self, seconds: f64, active: f64) -> TopProcesses {
        let skip = (self.fixed(86) * (COMMANDS.len() - GROUPS + 1) as f64) as usize;
        let groups = COMMANDS.iter().skip(skip).take(GROUPS).enumerate().map(|(index, command)| {
            let channel = 90 + index as u64;
            let share = self.fixed(channel).powi(2);
            ProcessGroup {
                name: name(command),
                count: 1 + (share * 8.0) as u32,
                cpu: centi(active * share * (0.5 + self.wander(channel, seconds, 30.0))),
                memory: (self.memory_total() as f64
                    * 0.1
                    * share
                    * (0.9 + 0.1 * self.wander(channel + 10, seconds, 300.0))
                    / 4096.0) as u64
                    * 4096,
            }
        });
        TopProcesses { groups: List::first(groups.collect()).0 }
    }
}

/// Of [`sine`], per turn.
const STEEPEST_SINE: f64 = 8.0;

/// Two parabolas that look like a sine of so many turns. The real one would bring a library of mathematics into the
/// memory of every client, which else needs none.
fn sine(turns: f64) -> f64 {
    let part = turns - turns.floor();
    if part < 0.5 { 16.0 * part * (0.5 - part) } else { -16.0 * (part - 0.5) * (1.0 - part) }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
