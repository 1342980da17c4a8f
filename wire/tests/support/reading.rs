//! Readings for tests and benchmarks.

#![allow(missing_docs, dead_code, reason = "each of those who include this file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a support file of tests is not test code to clippy")]

use vitals_wire::bounded::{List, Text};
use vitals_wire::centi::Centi;
use vitals_wire::sample::Sample;
use vitals_wire::section::{
    Core, Cpu, CpuUsage, Disk, DiskIo, DiskTimes, FileSystem, FileSystems, Inodes, Interface, Memory,
    Network, ProcessGroup, ProcessStates, Processes, Section, Swap, System, Temperature, Temperatures,
    TopProcesses,
};

fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).unwrap()
}

fn list<T, const MAX: usize>(entries: Vec<T>) -> List<T, MAX> {
    List::new(entries).map_err(|error| error.to_string()).unwrap()
}

fn percent(value: f64) -> Centi {
    Centi::round(value).unwrap()
}

/// Shares in the order user, system, idle, nice, steal; the rest was 0.
fn usage([user, system, idle, nice, steal]: [f64; 5]) -> CpuUsage {
    CpuUsage {
        user: percent(user),
        system: percent(system),
        idle: percent(idle),
        nice: Some(percent(nice)),
        iowait: Some(Centi(0)),
        irq: Some(Centi(0)),
        softirq: Some(Centi(0)),
        steal: Some(percent(steal)),
        guest: Some(Centi(0)),
        guest_nice: Some(Centi(0)),
    }
}

fn cpu() -> Cpu {
    let core = |number, shares| Core { number, usage: usage(shares), frequency_khz: None };
    Cpu {
        total: usage([3.393213572854615, 16.267465069860265, 0.09980039920150623, 80.1397205588821, 0.0998]),
        cores: list(vec![
            core(0, [3.2000000000005002, 15.599999999999739, 0.0, 81.20000000000005, 0.0]),
            core(1, [3.6072144288578456, 16.833667334669375, 0.0, 79.35871743486976, 0.2004]),
        ]),
    }
}

fn memory() -> Memory {
    Memory {
        total: 25276510208,
        available: 23949627392,
        free: 12759613440,
        cached: Some(11324112896),
        buffered: Some(243859456),
        active: Some(3121233920),
        inactive: Some(7701594112),
        shared: Some(9068544),
        slab: Some(1210662912),
        sreclaimable: Some(1125437440),
        sunreclaim: Some(85225472),
        page_tables: Some(4292608),
        mapped: Some(193683456),
        dirty: Some(54259712),
        write_back: Some(8192),
        write_back_tmp: Some(0),
        commit_limit: Some(12638253056),
        committed_as: Some(1457668096),
        huge_pages_total: Some(0),
        huge_pages_free: Some(0),
        huge_page_size: Some(2097152),
        swap_cached: Some(0),
        swap_total: Some(0),
        swap_free: Some(0),
    }
}

fn file_systems() -> FileSystems {
    FileSystems {
        file_systems: list(vec![FileSystem {
            device: text("vda"),
            path: text("/"),
            fstype: text("ext4"),
            read_only: false,
            total: 270553174016,
            free: 70789054464,
            used: 27004239872,
            inodes: Some(Inodes { total: 16777216, free: 15999750 }),
        }]),
    }
}

fn disk_io() -> DiskIo {
    DiskIo {
        disks: list(vec![Disk {
            name: text("vda"),
            reads: 189796,
            writes: 146047,
            read_bytes: 4317348864,
            write_bytes: 19518869504,
            read_time: Some(168643),
            write_time: Some(233024),
            io_time: Some(36528),
            weighted_io_time: Some(407248),
            iops_in_progress: Some(0),
            merged_reads: Some(31064),
            merged_writes: Some(430513),
            times: Some(DiskTimes { io_await: Some(1.64), io_svctm: Some(0.07), io_util: 1.68 }),
        }]),
    }
}

fn interface(name: &str, bytes: [u64; 2], packets: [u64; 2], drop_out: u64) -> Interface {
    Interface {
        name: text(name),
        bytes_recv: bytes[0],
        bytes_sent: bytes[1],
        packets_recv: packets[0],
        packets_sent: packets[1],
        err_in: 0,
        err_out: 0,
        drop_in: Some(0),
        drop_out: Some(drop_out),
        speed: Some(-1),
    }
}

fn system(n_users: Option<u32>, boot_time: Option<i64>) -> System {
    System {
        load: Some([Centi(663), Centi(624), Centi(332)]),
        n_cpus: 2,
        n_physical_cpus: Some(2),
        n_users,
        uptime: 1126,
        boot_time,
    }
}

/// What `data/telegraf.lp` says, as a sample.
pub fn telegraf() -> Sample {
    Sample {
        time_ms: 1795232825000,
        sections: list(vec![
            cpu().into(),
            Section::Memory(Box::new(memory())),
            Swap { total: 0, free: 0, bytes_in: Some(0), bytes_out: Some(0) }.into(),
            file_systems().into(),
            disk_io().into(),
            Network {
                interfaces: list(vec![
                    interface("eth0", [1683075226, 7293249], [93408, 66663], 0),
                    interface("docker0", [85971, 95632155], [1229, 2087], 7),
                ]),
            }
            .into(),
            system(None, None).into(),
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
            }
            .into(),
        ]),
    }
}

/// What a small machine says every 5 s: 23 lines with 120 fields.
pub fn usual() -> Sample {
    let sensors = (0..12i32).map(|number| Temperature {
        sensor: text(&format!("coretemp_core_{number}")),
        millidegrees: 45_000 + 250 * number,
    });
    Sample {
        time_ms: 1795232825003,
        sections: list(vec![
            cpu().into(),
            Section::Memory(Box::new(memory())),
            Swap { total: 4 << 30, free: 3 << 30, bytes_in: Some(81920), bytes_out: Some(0) }.into(),
            file_systems().into(),
            disk_io().into(),
            Network { interfaces: list(vec![interface("eth0", [1683075226, 7293249], [93408, 66663], 0)]) }
                .into(),
            system(Some(1), Some(1795231699)).into(),
            Processes { running: Some(2), blocked: Some(0), total_threads: Some(166), walk: None }.into(),
            Temperatures { sensors: list(sensors.collect()) }.into(),
        ]),
    }
}

/// The usual reading after a walk over processes: 20 groups beside it.
pub fn after_a_walk() -> Sample {
    let groups = (0..20u32).map(|number| ProcessGroup {
        name: text(&format!("worker-{number}")),
        count: number,
        cpu: Centi(number * 97),
        memory: u64::from(number) << 24,
    });
    let mut sample = usual();
    sample.sections.push(TopProcesses { groups: list(groups.collect()) }.into()).unwrap();
    sample
}
