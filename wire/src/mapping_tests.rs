use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::golden::{list, text};
use crate::ids::HostId;
use crate::line;
use crate::name::RESERVED_LABEL_KEYS;
use crate::reading;
use crate::section::*;

/// A point that can be kept.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    measurement: String,
    about: Option<String>,
    tags: Vec<(String, String)>,
    fields: Vec<(String, String)>,
}

impl Kept {
    fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// A value with its type as line protocol tells it.
fn written(value: Value<'_>) -> String {
    match value {
        Value::Float(float) => format!("{float}"),
        Value::Integer(integer) => format!("{integer}i"),
        Value::Text(text) => format!("{text:?}"),
    }
}

fn points_of(sections: Vec<Section>) -> Vec<Kept> {
    let sample = Sample { time_ms: 0, sections: list(sections) };
    let mut kept = Vec::new();
    map_sample(&sample, &mut |point: Point<'_>| {
        kept.push(Kept {
            measurement: point.measurement.to_owned(),
            about: point.about.map(str::to_owned),
            tags: point.tags.iter().map(|tag| (tag.key.to_owned(), tag.value.to_owned())).collect(),
            fields: point.fields.iter().map(|f| (f.name.to_owned(), written(f.value))).collect(),
        });
    });
    kept
}

/// One section of each kind with every option present.
fn full_sections() -> Vec<Section> {
    let mut sections = reading::telegraf().sections.into_vec();
    sections.push(
        System {
            load: None,
            n_cpus: 2,
            n_physical_cpus: None,
            n_users: Some(3),
            uptime: 1,
            boot_time: Some(1_795_231_699),
        }
        .into(),
    );
    let core = Core { number: 7, usage: CpuUsage::default(), frequency_khz: Some(2_400_500) };
    sections.push(Cpu { total: CpuUsage::default(), cores: list(vec![core]) }.into());
    let sensor = Temperature { sensor: text("coretemp_core_0"), millidegrees: 45_500 };
    sections.push(Temperatures { sensors: list(vec![sensor]) }.into());
    let group = ProcessGroup { name: text("postgres"), count: 9, cpu: Centi(1_250), memory: 1 << 30 };
    sections.push(TopProcesses { groups: list(vec![group]) }.into());
    let dropped = ReasonCount { reason: text("clock_ahead"), count: 5 };
    sections.push(
        ServerHealth {
            influx_lag_bytes: Some(1),
            influx_lag_ms: Some(2),
            influx_lines: Some(3),
            dropped: list(vec![dropped]),
            ..ServerHealth::default()
        }
        .into(),
    );
    let event =
        Event { host: HostId([1; 16]), name: text("db 1"), kind: EventKind::Down, detail: text("15 s") };
    sections.push(Events { events: list(vec![event]) }.into());
    sections
}

type Series = (String, Vec<(String, String)>);

/// Series and fields of a line of Telegraf's, which escapes nothing in the fixture.
fn telegraf_line(line: &str) -> (Series, Vec<(String, String)>) {
    let mut parts = line.splitn(3, ' ');
    let pairs = |text: &str| -> Vec<(String, String)> {
        text.split(',')
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let (measurement, tags) = parts.next().unwrap().split_once(',').unwrap();
    let mut tags = pairs(tags);
    tags.retain(|(key, _)| key != "host");
    ((measurement.to_owned(), tags), pairs(parts.next().unwrap()))
}

/// What the design leaves out of Telegraf's fields.
fn left_out(measurement: &str, field: &str) -> bool {
    let of_mem = ["high_", "low_", "vmalloc_"].iter().any(|prefix| field.starts_with(prefix));
    field == "uptime_format" || (measurement == "mem" && of_mem)
}

/// Equal, or floats that are equal in two decimals.
fn agree(ours: &str, theirs: &str) -> bool {
    match (ours.strip_suffix('i'), theirs.strip_suffix('i')) {
        (Some(ours), Some(theirs)) => ours == theirs,
        (None, None) => {
            let (ours, theirs): (f64, f64) = (ours.parse().unwrap(), theirs.parse().unwrap());
            (ours - theirs).abs() <= 0.005 + 1e-9
        }
        _ => false,
    }
}

#[test]
fn everything_that_telegraf_says_is_said_with_its_names_types_and_figures() {
    let mut ours: BTreeMap<Series, BTreeMap<String, String>> = BTreeMap::new();
    for point in points_of(reading::telegraf().sections.into_vec()) {
        assert!(ours.insert((point.measurement, point.tags), point.fields.into_iter().collect()).is_none());
    }
    let mut compared = 0;
    for line in include_str!("../tests/data/telegraf.lp").lines() {
        let (series, fields) = telegraf_line(line);
        for (field, theirs) in fields.into_iter().filter(|(field, _)| !left_out(&series.0, field)) {
            let point = ours.get_mut(&series).unwrap_or_else(|| panic!("no series {series:?}"));
            let ours = point.remove(&field).unwrap_or_else(|| panic!("{series:?} has no {field}"));
            assert!(agree(&ours, &theirs), "{series:?} {field}: {ours} where Telegraf says {theirs}");
            compared += 1;
        }
    }
    assert_eq!(compared, 30 + 27 + 6 + 8 + 14 + 18 + 6 + 11, "fields of the fixture");
    let more: BTreeSet<String> = ours.into_values().flat_map(BTreeMap::into_keys).collect();
    assert_eq!(more, BTreeSet::from(["usage_active".to_owned()]), "what Telegraf says only when told to");
}

#[test]
fn tags_and_fields_ascend_in_every_point() {
    let points = points_of(full_sections());
    let measurements: BTreeSet<&str> = points.iter().map(|point| point.measurement.as_str()).collect();
    let all = [
        "cpu",
        "disk",
        "diskio",
        "kernel",
        "mem",
        "net",
        "processes",
        "swap",
        "system",
        "temp",
        "vitals_event",
        "vitals_process",
        "vitals_server",
    ];
    assert!(measurements.iter().eq(&all), "{measurements:?}");
    for point in &points {
        assert!(point.fields.is_sorted_by(|a, b| a.0 < b.0), "{point:?}");
        assert!(point.tags.is_sorted_by(|a, b| a.0 < b.0), "{point:?}");
        assert!(!point.fields.is_empty(), "{point:?}");
    }
}

#[test]
fn points_of_sections_in_the_order_of_their_kinds_come_in_the_order_of_the_measurements() {
    let mut sections = full_sections();
    sections.push(Box::<ClientHealth>::default().into());
    sections.sort_by_key(Section::kind);
    let places: Vec<_> = points_of(sections)
        .iter()
        .map(|point| MEASUREMENTS.iter().position(|measurement| *measurement == point.measurement).unwrap())
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), MEASUREMENTS.len(), "each is there");
}

#[test]
fn reserved_label_keys_are_the_tags_of_the_mapping_and_those_that_influxdb_refuses() {
    let points = points_of(full_sections());
    let mut keys: BTreeSet<&str> =
        points.iter().flat_map(|point| point.tags.iter().map(|(key, _)| key.as_str())).collect();
    keys.extend(["host", "time"]);
    assert!(keys.iter().eq(RESERVED_LABEL_KEYS), "{keys:?}");
}

#[test]
fn what_is_absent_stays_absent() {
    fn names(section: impl Into<Section>) -> Vec<(String, Vec<String>)> {
        let owned =
            |point: Kept| (point.measurement.clone(), point.names().iter().map(|n| (*n).into()).collect());
        points_of(vec![section.into()]).into_iter().map(owned).collect()
    }
    let cpu = [("cpu", vec!["usage_active", "usage_idle", "usage_system", "usage_user"])];
    let expect = |got: Vec<(String, Vec<String>)>, want: &[(&str, Vec<&str>)]| {
        let got: Vec<(&str, Vec<&str>)> =
            got.iter().map(|(m, f)| (m.as_str(), f.iter().map(String::as_str).collect())).collect();
        assert_eq!(got, want);
    };
    expect(names(Cpu::default()), &cpu);
    // Without a total there is no share of it.
    expect(names(Box::<Memory>::default()), &[("mem", vec!["available", "free", "total", "used"])]);
    expect(names(Swap::default()), &[("swap", vec!["free", "total", "used", "used_percent"])]);
    expect(names(System::default()), &[("system", vec!["n_cpus", "uptime"])]);
    expect(names(Processes::default()), &[]);
    let free = Processes { running: Some(1), blocked: Some(0), total_threads: Some(9), walk: None };
    expect(names(free), &[("processes", vec!["blocked", "running", "total_threads"])]);
    let disk = Disk {
        name: text("vda"),
        reads: 0,
        writes: 0,
        read_bytes: 0,
        write_bytes: 0,
        read_time: None,
        write_time: None,
        io_time: None,
        weighted_io_time: None,
        iops_in_progress: None,
        merged_reads: None,
        merged_writes: None,
        times: None,
    };
    let counters = vec!["read_bytes", "reads", "write_bytes", "writes"];
    expect(names(DiskIo { disks: list(vec![disk]) }), &[("diskio", counters)]);
    let interface = Interface {
        name: text("eth0"),
        bytes_recv: 0,
        bytes_sent: 0,
        packets_recv: 0,
        packets_sent: 0,
        err_in: 0,
        err_out: 0,
        drop_in: None,
        drop_out: None,
        speed: None,
    };
    let counters = vec!["bytes_recv", "bytes_sent", "err_in", "err_out", "packets_recv", "packets_sent"];
    expect(names(Network { interfaces: list(vec![interface]) }), &[("net", counters)]);
    let tmpfs = FileSystem {
        device: text("tmpfs"),
        path: text("/run"),
        fstype: text("tmpfs"),
        read_only: false,
        total: 0,
        free: 0,
        used: 0,
        inodes: None,
    };
    expect(
        names(FileSystems { file_systems: list(vec![tmpfs]) }),
        &[("disk", vec!["free", "total", "used"])],
    );
    for empty in [Section::from(FileSystems::default()), Network::default().into(), Events::default().into()]
    {
        expect(names(empty), &[]);
    }
    expect(names(Section::Opaque(Opaque { kind: 1, bytes: [0].into() })), &[]);
    let health = points_of(vec![ServerHealth::default().into()]);
    assert!(!health[0].names().iter().any(|name| name.starts_with("influx")), "no InfluxDB, no lag");
}

#[test]
fn figures_that_line_protocol_cannot_say_are_left_out() {
    let mut disk = match &reading::telegraf().sections[4] {
        Section::DiskIo(disk_io) => disk_io.disks[0].clone(),
        other => panic!("{other:?}"),
    };
    disk.times = Some(DiskTimes {
        io_await: Some(f64::NAN),
        io_svctm: Some(f64::INFINITY),
        io_util: f64::NEG_INFINITY,
    });
    disk.reads = u64::MAX;
    disk.writes = i64::MAX as u64;
    let points = points_of(vec![DiskIo { disks: list(vec![disk]) }.into()]);
    let names = points[0].names();
    assert!(
        !names.iter().any(|name| ["io_await", "io_svctm", "io_util", "reads"].contains(name)),
        "{names:?}"
    );
    assert!(points[0].fields.contains(&("writes".to_owned(), format!("{}i", i64::MAX))));
}

#[test]
fn a_core_has_its_number_and_frequency_and_the_total_has_neither() {
    let usage = CpuUsage { idle: Centi(2_500), iowait: Some(Centi(1_000)), ..CpuUsage::default() };
    let core = |number, frequency_khz| Core { number, usage, frequency_khz };
    let cores = list(vec![core(0, Some(2_400_500)), core(u32::MAX, None)]);
    let points = points_of(vec![Cpu { total: usage, cores }.into()]);
    let tags: Vec<&str> = points.iter().map(|point| point.tags[0].1.as_str()).collect();
    assert_eq!(tags, ["cpu-total", "cpu0", "cpu4294967295"]);
    assert_eq!(points[1].fields[0], ("frequency_mhz".to_owned(), "2400.5".to_owned()));
    assert!(points[0].fields.contains(&("usage_active".to_owned(), "75".to_owned())));
    assert_eq!(points[2].fields[0].0, "usage_active");
}

#[test]
fn shares_survive_hostile_figures() {
    let over = CpuUsage { idle: Centi(10_001), ..CpuUsage::default() };
    assert_eq!(over.active(), Centi(0));
    let memory = Memory { total: 100, available: 200, free: 1, ..Memory::default() };
    let fields = &points_of(vec![Section::Memory(Box::new(memory))])[0].fields;
    assert!(fields.contains(&("used".to_owned(), "0i".to_owned())), "{fields:?}");
    let full = FileSystem {
        device: text("d"),
        path: text("/"),
        fstype: text("f"),
        read_only: true,
        total: u64::MAX,
        free: u64::MAX,
        used: u64::MAX,
        inodes: Some(Inodes { total: 0, free: u64::MAX }),
    };
    let points = points_of(vec![FileSystems { file_systems: list(vec![full]) }.into()]);
    assert!(points[0].tags.contains(&("mode".to_owned(), "ro".to_owned())));
    assert_eq!(points[0].names(), ["inodes_total", "inodes_used", "used_percent"]);
}

#[test]
fn an_event_is_about_its_host_and_can_be_counted() {
    let point = points_of(full_sections()).pop().unwrap();
    assert_eq!((point.measurement.as_str(), point.about.as_deref()), ("vitals_event", Some("db 1")));
    assert_eq!(point.tags, [("event".to_owned(), "down".to_owned())]);
    assert_eq!(
        point.fields,
        [("count".to_owned(), "1i".to_owned()), ("detail".to_owned(), "\"15 s\"".to_owned())]
    );
}

#[test]
fn the_usual_reading_is_what_the_budget_speaks_of() {
    let host = line::HostTags::new("vm", []);
    let mut out = Vec::new();
    assert_eq!(line::write_sample(&mut out, &host, &reading::usual()), 23);
    let fields: usize = points_of(reading::usual().sections.into_vec()).iter().map(|p| p.fields.len()).sum();
    assert_eq!(fields, 120);
    assert_eq!(line::write_sample(&mut out, &host, &reading::after_a_walk()), 43);
}
