//! Readings of this machine against `/proc` at the same time, and the two back ends against each other.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use vitals_client::collect::{BackEnd, CollectConfig, Roots};
use vitals_client::sampler::Sampler;
use vitals_wire::mapping::{Point, Value, map_sample};
use vitals_wire::sample::Sample;

/// Fields by `measurement,tag=value field`.
fn fields(sample: &Sample) -> BTreeMap<String, f64> {
    let mut fields = BTreeMap::new();
    map_sample(sample, &mut |point: Point<'_>| {
        let tags: String = point.tags.iter().map(|tag| format!(",{}={}", tag.key, tag.value)).collect();
        for field in point.fields {
            let value = match field.value {
                Value::Float(float) => float,
                Value::Integer(integer) => integer as f64,
                Value::Text(_) => continue,
            };
            fields.insert(format!("{}{tags} {}", point.measurement, field.name), value);
        }
    });
    fields
}

fn sampler(back_end: BackEnd) -> Sampler {
    Sampler::new(&CollectConfig { back_end, ..CollectConfig::default() })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The figure behind `name` in a file of names and figures.
fn figure(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn assert_near(name: &str, a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{name}: {a} and {b} differ by more than {tolerance}");
}

#[test]
fn figures_are_those_of_proc_at_the_same_time() {
    let mut sampler = sampler(BackEnd::Procfs);
    sampler.first();
    // Enough for the clock of each core to tick.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let fields = fields(&sampler.next());
    let (meminfo, stat) = (read("/proc/meminfo"), read("/proc/stat"));
    let total = figure(&meminfo, "MemTotal:") * 1024.0;
    assert_eq!(fields["mem total"], total);
    // Other programs go on meanwhile.
    let some = total * 0.05;
    assert_near("free", fields["mem free"], figure(&meminfo, "MemFree:") * 1024.0, some);
    assert_near("available", fields["mem available"], figure(&meminfo, "MemAvailable:") * 1024.0, some);
    let cached = (figure(&meminfo, "Cached:") + figure(&meminfo, "SReclaimable:")) * 1024.0;
    assert_near("cached", fields["mem cached"], cached, some);
    assert_eq!(fields["mem commit_limit"], figure(&meminfo, "CommitLimit:") * 1024.0);
    assert_eq!(fields["swap total"], figure(&meminfo, "SwapTotal:") * 1024.0);
    assert_eq!(fields["kernel boot_time"], figure(&stat, "btime"));
    let uptime: f64 = read("/proc/uptime").split(' ').next().unwrap().parse().unwrap();
    assert_near("uptime", fields["system uptime"], uptime, 2.0);
    let cores = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    assert_eq!(fields["system n_cpus"], cores as f64);
    assert_eq!(fields.keys().filter(|key| key.ends_with(" usage_idle")).count(), cores + 1);
    let load: f64 = read("/proc/loadavg").split(' ').next().unwrap().parse().unwrap();
    assert_near("load", fields["system load1"], load, 1.0);
    for (key, received) in fields.iter().filter(|(key, _)| key.ends_with(" bytes_recv")) {
        let name = key.split_once("interface=").unwrap().1.split(' ').next().unwrap();
        let now: f64 = read(&format!("/sys/class/net/{name}/statistics/rx_bytes")).trim().parse().unwrap();
        assert!(*received <= now && now - received < 1e8, "{name}: {received} and {now}");
    }
    for (key, reads) in fields.iter().filter(|(key, _)| key.starts_with("diskio") && key.ends_with(" reads"))
    {
        let name = key.split_once("name=").unwrap().1.split(' ').next().unwrap();
        let now: f64 = read(&format!("/sys/class/block/{name}/stat"))
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(*reads <= now && now - reads < 1e5, "{name}: {reads} and {now}");
    }
    let root = fields.keys().find(|key| key.starts_with("disk,") && key.ends_with("path=/ total"));
    if let Some(root) = root {
        let space = rustix::fs::statvfs("/").unwrap();
        assert_eq!(fields[root], (space.f_blocks * space.f_frsize) as f64);
    }
}

#[test]
fn shares_of_a_core_add_up_and_a_busy_core_is_seen() {
    let mut sampler = sampler(BackEnd::Procfs);
    sampler.first();
    let until = std::time::Instant::now() + std::time::Duration::from_millis(700);
    while std::time::Instant::now() < until {
        std::hint::black_box(until);
    }
    let fields = fields(&sampler.next());
    let shares = ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal"];
    let cpus = fields.keys().filter_map(|key| key.strip_suffix(" usage_idle"));
    for cpu in cpus {
        let sum: f64 = shares.iter().map(|share| fields[&format!("{cpu} usage_{share}")]).sum();
        assert_near(cpu, sum, 100.0, 0.06);
    }
    let busiest = fields.iter().filter(|(key, _)| key.ends_with("usage_active")).map(|(_, share)| *share);
    assert!(busiest.fold(0.0, f64::max) > 30.0, "{fields:?}");
}

#[test]
fn both_back_ends_agree_on_what_both_know() {
    let (mut procfs, mut sysinfo) = (sampler(BackEnd::Procfs), sampler(BackEnd::Sysinfo));
    procfs.first();
    sysinfo.first();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let (ours, theirs) = (fields(&procfs.next()), fields(&sysinfo.next()));
    let mut compared = 0;
    for (key, &theirs) in &theirs {
        // Neither busy by the way it counts, nor by processes, at two moments; and `used` is another definition there.
        let (series, field) = key.split_once(' ').unwrap();
        if series.starts_with("vitals_process") || field.starts_with("usage_") || field == "frequency_mhz" {
            continue;
        }
        let Some(&ours) = ours.get(key) else {
            // Of interfaces that are down sysinfo tells, too.
            let is_expected =
                series.starts_with("net,") || series.starts_with("disk,") || series == "processes";
            assert!(is_expected, "only sysinfo has {key}");
            continue;
        };
        let tolerance = match (series.split(',').next().unwrap(), field) {
            ("mem", _) => {
                if field.ends_with("percent") {
                    5.0
                } else {
                    ours * 0.05 + 5e8
                }
            }
            ("system", "uptime") | ("kernel", _) => 2.0,
            ("system", "n_cpus" | "n_physical_cpus") => 0.0,
            ("system", _) => 1.0,
            ("processes", _) => 50.0,
            // What is kept for root is used there.
            ("disk", "used" | "used_percent") => continue,
            ("disk", _) => {
                if field.ends_with("percent") {
                    6.0
                } else {
                    ours * 0.1
                }
            }
            ("net", _) => ours * 0.01 + 1e6,
            _ => 0.0,
        };
        assert_near(key, ours, theirs, tolerance);
        compared += 1;
    }
    assert!(compared >= 15, "only {compared} figures could be compared: {theirs:?}");
    let busy = |fields: &BTreeMap<String, f64>| fields["cpu,cpu=cpu-total usage_active"];
    assert!((0.0..=100.0).contains(&busy(&theirs)) && (0.0..=100.0).contains(&busy(&ours)));
}

#[test]
fn what_is_excluded_is_not_there() {
    let everything = vec!["*".to_owned()];
    let config = CollectConfig {
        exclude_mount_points: everything.clone(),
        exclude_disks: everything.clone(),
        exclude_interfaces: everything,
        process_walk_interval: 0,
        ..CollectConfig::default()
    };
    let kinds: Vec<u32> =
        Sampler::new(&config).first().sections.iter().map(|section| section.kind()).collect();
    assert_eq!(kinds.iter().filter(|&&kind| kind != 9).copied().collect::<Vec<_>>(), [1, 2, 3, 7, 8]);
}

/// A host made of files.
struct FakeHost {
    dir: tempfile::TempDir,
}

impl FakeHost {
    /// With what every host has, and nothing more.
    fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        host.write("proc/meminfo", "MemTotal: 9 kB\nMemFree: 5 kB\n");
        host.write("proc/loadavg", "0.10 0.20 0.30 1/7 99\n");
        host.write("proc/uptime", "77.5 1\n");
        host.write("proc/1/mountinfo", "");
        host.tick(1);
        host
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Lets time pass on two cores.
    fn tick(&self, ticks: u32) {
        let text = format!(
            "cpu  {ticks} 0 0 {ticks} 0 0 0 0 0 0\ncpu0 {ticks} 0 0 0\ncpu1 0 0 0 {ticks}\nbtime 5\n"
        );
        self.write("proc/stat", text);
    }

    /// Has interfaces of these names.
    fn interfaces(&self, names: &[&str]) {
        let line = |name: &&str| format!("{name}: 1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n");
        self.write("proc/net/dev", names.iter().map(line).collect::<String>());
    }

    fn sampler(&self) -> Sampler {
        let root = self.dir.path();
        let roots = Roots { proc: root.join("proc"), sys: root.join("sys"), run: root.join("run") };
        let config = CollectConfig { process_walk_interval: 0, ..CollectConfig::default() };
        Sampler::with_roots(&config, &roots)
    }
}

/// The names of a tag.
fn series(sample: &Sample, prefix: &str) -> Vec<String> {
    let fields = fields(sample);
    let names: std::collections::BTreeSet<&str> =
        fields.keys().filter_map(|key| key.strip_prefix(prefix)?.split(' ').next()).collect();
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn frequencies_and_temperatures_come_from_their_files_into_a_sample() {
    let host = FakeHost::new();
    host.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2400000\n");
    host.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "800123\n");
    host.write("sys/class/hwmon/hwmon0/name", "coretemp\n");
    host.write("sys/class/hwmon/hwmon0/temp1_input", "45500\n");
    host.write("sys/class/hwmon/hwmon0/temp1_label", "Package id 0\n");
    host.write("sys/class/hwmon/hwmon1/name", "acpitz\n");
    host.write("sys/class/hwmon/hwmon1/temp1_input", "-5000\n");
    let mut sampler = host.sampler();
    sampler.first();
    host.tick(11);
    let first = fields(&sampler.next());
    assert_eq!(first["cpu,cpu=cpu0 frequency_mhz"], 2400.0);
    assert!((first["cpu,cpu=cpu1 frequency_mhz"] - 800.0).abs() < 0.5, "{first:?}");
    assert_eq!(first["cpu,cpu=cpu0 usage_active"], 100.0);
    assert_eq!(first["temp,sensor=coretemp_package_id_0 temp"], 45.5);
    assert_eq!(first["temp,sensor=acpitz temp"], -5.0);
    // They are read anew each time; a core that has none any more loses its own only.
    host.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1200000\n");
    host.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "");
    host.write("sys/class/hwmon/hwmon0/temp1_input", "46000\n");
    host.write("sys/class/hwmon/hwmon1/temp1_input", "");
    host.tick(21);
    let second = fields(&sampler.next());
    assert_eq!(second["cpu,cpu=cpu0 frequency_mhz"], 1200.0);
    assert_eq!(second.get("cpu,cpu=cpu1 frequency_mhz"), None);
    assert_eq!(second["temp,sensor=coretemp_package_id_0 temp"], 46.0);
    assert_eq!(second.get("temp,sensor=acpitz temp"), None);
}

#[test]
fn loopback_is_left_out_by_its_name_where_nothing_is_known_of_interfaces() {
    let host = FakeHost::new();
    host.interfaces(&["lo", "eth0"]);
    assert_eq!(series(&host.sampler().first(), "net,interface="), ["eth0"]);
}

#[test]
fn an_interface_that_replaces_one_of_its_name_is_looked_at_before_it_is_shown() {
    for (flags, shown) in [("0x1002\n", &[][..]), ("0x1003\n", &["eth0"])] {
        let host = FakeHost::new();
        host.interfaces(&["eth0"]);
        host.write("sys/class/net/eth0/flags", "0x1003\n");
        let mut sampler = host.sampler();
        assert_eq!(series(&sampler.first(), "net,interface="), ["eth0"]);
        // The file that is open says nothing any more, and another one is in its place.
        host.write("sys/class/net/eth0/flags", "");
        std::fs::remove_file(host.dir.path().join("sys/class/net/eth0/flags")).unwrap();
        host.write("sys/class/net/eth0/flags", flags);
        for _ in 0..2 {
            assert_eq!(series(&sampler.next(), "net,interface="), shown, "{flags}");
        }
    }
}

#[test]
fn disks_that_never_did_anything_are_there_unless_there_is_nothing_behind_them() {
    let host = FakeHost::new();
    let disk = |name: &str| format!("8 0 {name} 0 0 0 0 0 0 0 0 0 0 0\n");
    let names = ["sda", "sdb", "cciss/c0d0", "sdd", "nbd0", "loop0"];
    host.write("proc/diskstats", names.map(disk).concat());
    host.write("sys/class/block/sdb/size", "0\n");
    host.write("sys/class/block/cciss!c0d0/size", "0\n");
    host.write("sys/class/block/sdd/size", "2048\n");
    let mut sampler = host.sampler();
    assert_eq!(series(&sampler.first(), "diskio,name="), ["sda", "sdd"]);
    // A card is put in and read.
    host.write("proc/diskstats", names.map(disk).concat().replace("sdb 0", "sdb 1"));
    assert_eq!(series(&sampler.next(), "diskio,name="), ["sda", "sdb", "sdd"]);
}

#[test]
fn what_does_not_fit_a_sample_is_counted() {
    let host = FakeHost::new();
    let long = "x".repeat(600);
    let mounts = format!("1 0 8:1 / /{long} rw - ext4 /dev/sda1 rw\n2 0 8:2 / /");
    let mounts = [mounts.as_bytes(), b"\xff rw - ext4 /dev/sda2 rw\n"].concat();
    host.write("proc/1/mountinfo", mounts);
    let mut sampler = host.sampler();
    let counters = sampler.counters();
    let left_out = || counters.left_out.load(std::sync::atomic::Ordering::Relaxed);
    sampler.first();
    // At both readings of the first sample.
    assert_eq!(left_out(), 4);
    for ticks in [1, 2] {
        let core = |at: u32| format!("cpu{at} {ticks} 0 0 {ticks}\n");
        let cores: String = (0..4106).map(core).collect();
        host.write("proc/stat", format!("cpu  {ticks} 0 0 {ticks}\n{cores}btime 5\n"));
        sampler.next();
    }
    assert_eq!(left_out(), 4 + 4 + 10);
}

/// Interfaces and disks come and go in a copy of the kernel's files.
#[test]
fn what_comes_is_picked_up_and_what_goes_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let roots =
        Roots { proc: dir.path().join("proc"), sys: dir.path().join("sys"), run: dir.path().join("run") };
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let interface = |name: &str, bytes: u32| format!("{name}: {bytes} 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n");
    let disk = |name: &str, reads: u32| format!("8 0 {name} {reads} 0 16 5 1 0 8 5 0 {reads} 9\n");
    write(
        "proc/stat",
        "cpu  1 0 0 1 0 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\nbtime 5\nprocs_running 1\nprocs_blocked 0\n",
    );
    write("proc/meminfo", "MemTotal: 9 kB\nMemFree: 5 kB\n");
    write("proc/loadavg", "0.10 0.20 0.30 1/7 99\n");
    write("proc/uptime", "77.5 1\n");
    write("proc/1/mountinfo", "");
    write("proc/net/dev", &(interface("eth0", 1) + &interface("wg0", 2)));
    write("proc/diskstats", &(disk("sda", 1) + &disk("sdb", 0) + &disk("sdc", 3)));
    write("sys/class/net/eth0/flags", "0x1003\n");
    write("sys/class/net/eth0/speed", "1000\n");
    write("sys/class/net/wg0/flags", "0x1002\n");
    let config = CollectConfig { process_walk_interval: 0, temperatures: false, ..CollectConfig::default() };
    let mut sampler = Sampler::with_roots(&config, &roots);
    let names = |sample: &Sample| {
        let fields = fields(sample);
        let of = |prefix: &str| -> Vec<String> {
            let series: std::collections::BTreeSet<&str> =
                fields.keys().filter_map(|key| key.strip_prefix(prefix)?.split(' ').next()).collect();
            series.into_iter().map(str::to_owned).collect()
        };
        (of("net,interface="), of("diskio,name="))
    };
    let first = sampler.first();
    assert_eq!(names(&first), (vec!["eth0".into()], vec!["sda".into(), "sdb".into(), "sdc".into()]));
    let first = fields(&first);
    assert_eq!(first["net,interface=eth0 speed"], 1000.0);
    assert_eq!(first["system uptime"], 77.0);
    assert_eq!(first.get("cpu,cpu=cpu-total usage_idle"), None, "no time has passed in there");
    assert_eq!(first.get("diskio,name=sda io_await"), None, "no request in between");
    assert_eq!(first["diskio,name=sda io_util"], 0.0);
    // eth0 is gone, wg0 comes up, a new one is there; a disk is gone and another one came first.
    write("sys/class/net/wg0/flags", "0x1003\n");
    write("sys/class/net/new0/flags", "0x1003\n");
    write("proc/net/dev", &(interface("wg0", 3) + &interface("new0", 4)));
    write("proc/diskstats", &(disk("nvme0n1", 9) + &disk("sda", 3) + &disk("sdc", 4)));
    write(
        "proc/stat",
        "cpu  3 0 0 5 0 0 0 0 0 0\ncpu0 2 0 0 4 0 0 0 0 0 0\ncpu1 1 0 0 1 0 0 0 0 0 0\nbtime 5\n",
    );
    let second = sampler.next();
    assert_eq!(
        names(&second),
        (vec!["new0".into(), "wg0".into()], vec!["nvme0n1".into(), "sda".into(), "sdc".into()])
    );
    let second = fields(&second);
    assert_eq!(second["diskio,name=sda io_svctm"], 1.0);
    assert_eq!(second.get("diskio,name=nvme0n1 io_util"), None, "there is one reading of it");
    assert_eq!(second["cpu,cpu=cpu0 usage_idle"], 75.0);
    assert_eq!(second.get("cpu,cpu=cpu1 usage_idle"), None, "there is one reading of it");
    assert_eq!(second.get("processes running"), None, "this is not in the file any more");
    // A file says nothing any more: its section is absent until it does again.
    for _ in 0..2 {
        write("proc/net/dev", "");
        assert_eq!(names(&sampler.next()).0, [""; 0]);
        write("proc/net/dev", &interface("wg0", 5));
        assert_eq!(names(&sampler.next()), (vec!["wg0".into()], names(&sampler.next()).1));
    }
}
