//! Measures what history costs: CPU a sample, memory, bytes a value, and time of reading.
//!
//! The readings are made up: 117 fields in 23 series that walk about as those of a busy machine do. Figures of real
//! readings differ; what is compared here is one version of the store with another.
//!
//! `cargo run --profile ci -p vitals-server --example store_cost`

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use vitals_server::metrics::Metrics;
use vitals_server::store::{Engine, Now, Seal, StoreOptions};
use vitals_wire::bounded::{List, Text};
use vitals_wire::centi::Centi;
use vitals_wire::ids::HostId;
use vitals_wire::line::HostTags;
use vitals_wire::log::Position;
use vitals_wire::record::Record;
use vitals_wire::sample::Sample;
use vitals_wire::section::{
    Core, Cpu, CpuUsage, Disk, DiskIo, DiskTimes, FileSystem, FileSystems, Inodes, Interface, Memory,
    Network, Processes, Section, Swap, System,
};

const START_MS: i64 = 472_222 * 3_600_000;
const INTERVAL_MS: i64 = 5_000;
const FIELDS: u64 = 117;

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("vitals-store-cost-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let measured = memory(&dir, 1_000, 130)
        .and_then(|()| memory(&dir, 10_000, 130))
        .and_then(|()| cost(&dir, 1_000, 130 * 60 / 5))
        .and_then(|()| reading(&dir, 100, 25 * 3600 / 5));
    std::fs::remove_dir_all(&dir)?;
    measured
}

/// Memory in the steady state, a little more than two sealing cycles in.
fn memory(dir: &std::path::Path, hosts: usize, steps: usize) -> Result<()> {
    let mut fleet = Fleet::new(dir, &format!("memory-{hosts}"), hosts)?;
    let before = resident_kb()?;
    let mut largest = 0;
    for _ in 0..steps {
        fleet.step(true)?;
        largest = largest.max(resident_kb()?);
    }
    println!(
        "memory, {hosts} hosts: {} kB in all, {:.1} kB a host over that of the hosts' own state here",
        largest,
        (largest.saturating_sub(before)) as f64 / hosts as f64
    );
    Ok(())
}

/// CPU of taking in, sealing and merging, less that of making samples up.
fn cost(dir: &std::path::Path, hosts: usize, steps: usize) -> Result<()> {
    let samples = (hosts * steps) as u64;
    let mut dry = Fleet::new(dir, "dry", hosts)?;
    let start = cpu_ns()?;
    for _ in 0..steps {
        dry.step(false)?;
    }
    let idle = cpu_ns()? - start;
    drop(dry);
    let mut fleet = Fleet::new(dir, "cost", hosts)?;
    let start = cpu_ns()?;
    for _ in 0..steps {
        fleet.step(true)?;
    }
    let busy = cpu_ns()? - start;
    let us = busy.saturating_sub(idle) as f64 / samples as f64 / 1000.0;
    let usage = fleet.engine.usage()?;
    println!(
        "cpu, {hosts} hosts, {:.1} h: {us:.2} µs a sample (taking in {:.2}, sealing {:.2}, merging {:.2}); at 2,000 samples/s {:.2} % of a core",
        steps as f64 * 5.0 / 3600.0,
        us - (fleet.sealing + fleet.merging) as f64 / samples as f64 / 1000.0,
        fleet.sealing as f64 / samples as f64 / 1000.0,
        fleet.merging as f64 / samples as f64 / 1000.0,
        us * 0.2
    );
    println!(
        "small blobs: {} of {:.1} kB, {:.2} B a value",
        usage.piece_blobs,
        usage.piece_bytes as f64 / usage.piece_blobs as f64 / 1e3,
        usage.piece_bytes as f64 / (usage.piece_blobs * 58 * FIELDS) as f64
    );
    Ok(())
}

/// Bytes at rest, and times of reading.
fn reading(dir: &std::path::Path, hosts: usize, steps: usize) -> Result<()> {
    let mut fleet = Fleet::new(dir, "reading", hosts)?;
    for _ in 0..steps {
        fleet.step(true)?;
    }
    let last_ms = fleet.now.wall_ms;
    fleet.engine.commit(fleet.now, Seal::All)?;
    let later = Now { wall_ms: last_ms + 7_200_000, ..fleet.now };
    fleet.engine.merge_hosts(0..hosts as u32, later)?;
    let usage = fleet.engine.usage()?;
    let values = (hosts * steps) as u64 * FIELDS;
    println!(
        "at rest: {:.3} B a value in 1 h blobs, {:.3} with SQLite's pages; {:.2} MB a host and day",
        usage.raw_bytes as f64 / values as f64,
        usage.used_bytes as f64 / values as f64,
        usage.used_bytes as f64 / values as f64 * (FIELDS * 17_280) as f64 / 1e6
    );
    let fields = ["cpu.usage_user", "mem.available", "net.bytes_recv{interface=eth0}"];
    for (hours, name) in [(1, "1 h"), (24, "24 h")] {
        let from = last_ms - hours * 3_600_000;
        let mut points = 0;
        let each = timed(200, |i| {
            let series =
                fleet.engine.series(host(i % hosts), &fields[i % 3].parse()?, from, last_ms, usize::MAX)?;
            points = series.iter().map(|series| series.points.len()).sum();
            Ok(())
        })?;
        println!("reading one field of one host, {name}: {each:.3} ms, {points} points");
    }
    let from = last_ms - 3_600_000;
    let all = timed(10, |i| {
        for number in 0..hosts {
            fleet.engine.series(host(number), &fields[i % 3].parse()?, from, last_ms, usize::MAX)?;
        }
        Ok(())
    })?;
    println!("reading one field of {hosts} hosts, 1 h: {all:.2} ms");
    whole(&fleet, hosts, last_ms, "merged")?;
    // The same where the last hour still lies in small blobs and memory.
    for _ in 0..(50 * 60 / 5) {
        fleet.step(true)?;
    }
    let last_ms = fleet.now.wall_ms;
    let all = timed(10, |i| {
        for number in 0..hosts {
            let field = fields[i % 3].parse()?;
            fleet.engine.series(host(number), &field, last_ms - 3_600_000, last_ms, usize::MAX)?;
        }
        Ok(())
    })?;
    println!("the same, the last hour not merged yet: {all:.2} ms");
    whole(&fleet, hosts, last_ms, "not merged yet")
}

/// Whole samples of the last hour as line protocol.
fn whole(fleet: &Fleet, hosts: usize, last_ms: i64, name: &str) -> Result<()> {
    let tags = HostTags::new("web-1", [("zone", "north")]);
    let (mut out, mut lines, mut bytes) = (Vec::new(), 0, 0);
    let start = cpu_ns()?;
    for number in 0..hosts {
        fleet.engine.each_row(host(number), last_ms - 3_600_000, last_ms, |row| {
            lines += row.write(&mut out, &tags);
            ControlFlow::Continue(())
        })?;
        bytes += out.len();
        out.clear();
    }
    let ns = cpu_ns()? - start;
    println!(
        "whole samples as lines, {hosts} hosts, 1 h {name}: {lines} lines, {:.0} bytes each, {:.0} a second and core",
        bytes as f64 / lines as f64,
        lines as f64 / (ns as f64 / 1e9)
    );
    Ok(())
}

/// CPU ms of one of `count` calls.
fn timed(count: usize, mut call: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    call(0)?;
    let start = cpu_ns()?;
    for i in 0..count {
        call(i)?;
    }
    Ok((cpu_ns()? - start) as f64 / count as f64 / 1e6)
}

fn cpu_ns() -> Result<u64> {
    // Waiting brings the figure up to date.
    std::thread::sleep(Duration::from_micros(50));
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn resident_kb() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn host(number: usize) -> HostId {
    HostId((number as u128 + 1).to_be_bytes())
}

/// An engine and made-up hosts.
struct Fleet {
    engine: Engine,
    hosts: Vec<Machine>,
    now: Now,
    place: u64,
    sealing: u64,
    merging: u64,
}

impl Fleet {
    fn new(dir: &std::path::Path, name: &str, hosts: usize) -> Result<Self> {
        let now = Now { steady_ms: 0, wall_ms: START_MS };
        let options = StoreOptions::new(dir.join(format!("{name}.db")));
        let engine = Engine::open(options, Arc::new(Metrics::new()), now)?;
        let hosts = (0..hosts as u64).map(Machine::new).collect();
        Ok(Self { engine, hosts, now, place: 0, sealing: 0, merging: 0 })
    }

    fn step(&mut self, is_real: bool) -> Result<()> {
        for (number, machine) in self.hosts.iter_mut().enumerate() {
            let phase = (number as i64 * 37) % INTERVAL_MS;
            let samples = vec![machine.next(self.now.wall_ms + phase)];
            let record = Record { host: host(number), received_ms: 0, backlog: false, samples };
            self.place += 1;
            if is_real {
                self.engine.ingest(&record, Position { segment: 1, offset: self.place });
            } else {
                std::hint::black_box(record);
            }
        }
        self.now.wall_ms += INTERVAL_MS;
        self.now.steady_ms += INTERVAL_MS;
        if is_real {
            let start = cpu_ns()?;
            self.engine.commit(self.now, Seal::Due)?;
            let sealed = cpu_ns()?;
            self.engine.tidy(self.now)?;
            self.sealing += sealed - start;
            self.merging += cpu_ns()? - sealed;
        }
        Ok(())
    }
}

/// A made-up host.
struct Machine {
    random: fastrand::Rng,
    up: u64,
    load: f64,
    available: u64,
    cached: u64,
    dirty: u64,
    free_disk: u64,
    inodes: u64,
    reads: u64,
    writes: u64,
    read_bytes: u64,
    write_bytes: u64,
    io_time: u64,
    received: [u64; 2],
    sent: [u64; 2],
    threads: u32,
    averages: [f64; 3],
}

impl Machine {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            up: random.u64(1_000..10_000_000),
            load: random.f64() * 40.0,
            available: random.u64(1 << 30..1 << 33),
            cached: random.u64(1 << 30..1 << 32),
            dirty: 1 << 20,
            free_disk: random.u64(1 << 33..1 << 38),
            inodes: random.u64(1 << 20..1 << 24),
            reads: random.u64(0..1 << 24),
            writes: random.u64(0..1 << 26),
            read_bytes: random.u64(0..1 << 40),
            write_bytes: random.u64(0..1 << 42),
            io_time: random.u64(0..1 << 28),
            received: [random.u64(0..1 << 42), random.u64(0..1 << 30)],
            sent: [random.u64(0..1 << 42), random.u64(0..1 << 30)],
            threads: random.u32(100..900),
            averages: [1.0; 3],
            random,
        }
    }

    fn usage(&mut self, cores: u32) -> CpuUsage {
        let r = &mut self.random;
        let all = 500 * cores;
        let user = ((self.load * (0.7 + 0.6 * r.f64())) / 100.0 * f64::from(all)) as u32;
        let system = user / 4 + r.u32(0..4);
        let iowait = if r.u8(0..8) == 0 { r.u32(0..20) } else { 0 };
        let softirq = r.u32(0..3);
        let steal = if r.u8(0..5) == 0 { r.u32(0..3) } else { 0 };
        let busy = user + system + iowait + softirq + steal;
        let whole = all + r.u32(0..3);
        let percent = |ticks: u32| Centi::percent(ticks.into(), whole.into()).unwrap_or_default();
        CpuUsage {
            user: percent(user),
            system: percent(system),
            idle: percent(whole.saturating_sub(busy)),
            nice: Some(Centi(0)),
            iowait: Some(percent(iowait)),
            irq: Some(Centi(0)),
            softirq: Some(percent(softirq)),
            steal: Some(percent(steal)),
            guest: Some(Centi(0)),
            guest_nice: Some(Centi(0)),
        }
    }

    fn next(&mut self, time_ms: i64) -> Sample {
        let time_ms = time_ms + self.random.i64(0..3);
        self.up += 5;
        self.load = (self.load + (self.random.f64() - 0.5) * 4.0).clamp(0.5, 70.0);
        let cores = (0..2).map(|number| Core { number, usage: self.usage(1), frequency_khz: None }).collect();
        let cpu = Cpu { total: self.usage(2), cores: List::first(cores).0 };
        let r = &mut self.random;
        let mut walk = |value: &mut u64, pages: u64| {
            *value = (value.saturating_add(r.u64(0..pages * 2) << 12)).saturating_sub(pages << 12) & !0xfff;
            *value
        };
        let available = walk(&mut self.available, 900);
        let cached = walk(&mut self.cached, 120);
        let dirty = walk(&mut self.dirty, 60);
        let total = 16_384_000_000 & !0xfff;
        let memory = Memory {
            total,
            available,
            free: available.saturating_sub(cached),
            cached: Some(cached),
            buffered: Some(523_292_672 + (self.up / 60 % 50) * 4096),
            active: Some(cached + (1 << 30)),
            inactive: Some((cached / 2) & !0xfff),
            shared: Some(13_459_456),
            slab: Some(412_000_256 + (self.up / 10 % 300) * 4096),
            sreclaimable: Some(300_000_256 + (self.up / 10 % 200) * 4096),
            sunreclaim: Some(112_001_024),
            page_tables: Some((u64::from(self.threads) * 40) << 12),
            mapped: Some(193_683_456 + (self.up / 30 % 9) * 4096),
            dirty: Some(dirty),
            write_back: Some(0),
            write_back_tmp: Some(0),
            commit_limit: Some(total / 2),
            committed_as: Some(((available / 3) & !0xfff) + (1 << 31)),
            huge_pages_total: Some(0),
            huge_pages_free: Some(0),
            huge_page_size: Some(2 << 20),
            swap_cached: Some(0),
            swap_total: Some(2 << 30),
            swap_free: Some(2 << 30),
        };
        let swap = Swap { total: 2 << 30, free: 2 << 30, bytes_in: Some(0), bytes_out: Some(0) };
        if r.u8(0..3) == 0 {
            self.free_disk = self.free_disk.saturating_sub(r.u64(0..40) << 12);
            self.inodes -= u64::from(r.u8(0..8) == 0);
        }
        let file_system = FileSystem {
            device: Text::cut("vda1"),
            path: Text::cut("/"),
            fstype: Text::cut("ext4"),
            read_only: false,
            total: 1 << 39,
            free: self.free_disk,
            used: (1 << 39) - self.free_disk,
            inodes: Some(Inodes { total: 1 << 25, free: self.inodes }),
        };
        let writes = r.u64(0..60);
        let reads = if r.u8(0..4) == 0 { r.u64(0..30) } else { 0 };
        let busy = (writes + reads) * r.u64(1..4);
        self.writes += writes;
        self.reads += reads;
        self.write_bytes += (writes * r.u64(1..16)) << 12;
        self.read_bytes += (reads * r.u64(1..30)) << 12;
        self.io_time += busy;
        let hundredths = |value: f64| (value * 100.0).round() / 100.0;
        let disk = Disk {
            name: Text::cut("vda"),
            reads: self.reads,
            writes: self.writes,
            read_bytes: self.read_bytes,
            write_bytes: self.write_bytes,
            read_time: Some(self.reads * 2),
            write_time: Some(self.writes * 3 / 2),
            io_time: Some(self.io_time),
            weighted_io_time: Some(self.io_time * 3 / 2),
            iops_in_progress: Some(0),
            merged_reads: Some(self.reads / 7),
            merged_writes: Some(self.writes / 3),
            times: Some(DiskTimes {
                io_await: Some(hundredths(busy as f64 / (writes + reads).max(1) as f64 * 1.37)),
                io_svctm: Some(hundredths(busy as f64 / (writes + reads).max(1) as f64)),
                io_util: hundredths(busy as f64 / 50.0),
            }),
        };
        let mut interface = |number: usize, name: &str| {
            let packets = if number == 0 { r.u64(20..900) } else { r.u64(0..12) };
            self.received[number] += packets * r.u64(80..900);
            self.sent[number] += packets * r.u64(60..300);
            Interface {
                name: Text::cut(name),
                bytes_recv: self.received[number],
                bytes_sent: self.sent[number],
                packets_recv: self.received[number] / 420,
                packets_sent: self.sent[number] / 180,
                err_in: 0,
                err_out: 0,
                drop_in: Some(0),
                drop_out: Some(0),
                speed: Some(-1),
            }
        };
        let interfaces = vec![interface(0, "eth0"), interface(1, "docker0")];
        for (average, minutes) in self.averages.iter_mut().zip([1.0, 5.0, 15.0]) {
            *average += (self.load / 20.0 - *average) * 5.0 / (60.0 * minutes);
        }
        let system = System {
            load: Some(self.averages.map(|average| Centi::round(average).unwrap_or_default())),
            n_cpus: 2,
            n_physical_cpus: Some(2),
            n_users: Some(1),
            uptime: self.up,
            boot_time: Some(1_699_000_000),
        };
        if r.u8(0..4) == 0 {
            self.threads = (self.threads + r.u32(0..7)).saturating_sub(3).max(50);
        }
        let processes = Processes {
            running: Some(r.u32(1..4)),
            blocked: Some(u32::from(r.u8(0..20) == 0)),
            total_threads: Some(self.threads),
            walk: None,
        };
        let sections: Vec<Section> = vec![
            cpu.into(),
            Section::Memory(Box::new(memory)),
            swap.into(),
            FileSystems { file_systems: List::first(vec![file_system]).0 }.into(),
            DiskIo { disks: List::first(vec![disk]).0 }.into(),
            Network { interfaces: List::first(interfaces).0 }.into(),
            system.into(),
            processes.into(),
        ];
        Sample { time_ms, sections: List::first(sections).0 }
    }
}
