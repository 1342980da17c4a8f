//! Samples as a real host might give them, and what of them must be found in InfluxDB.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use vitals_wire::bounded::{List, Text};
use vitals_wire::centi::Centi;
use vitals_wire::mapping::{Point, Value, map_sample};
use vitals_wire::sample::Sample;
use vitals_wire::section::*;

use super::influxd::Row;

/// A field's value, floats by their bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stored {
    Float(u64),
    Integer(i64),
    Text(String),
}

/// One field of one point.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredField {
    pub measurement: String,
    pub tags: BTreeMap<String, String>,
    pub field: String,
    pub ns: i64,
    pub value: Stored,
}

fn name(text: &str) -> Name {
    Text::new(text).unwrap()
}

fn usage(random: &mut fastrand::Rng) -> CpuUsage {
    let mut some = || Some(Centi(random.u32(0..2_000)));
    CpuUsage {
        user: Centi(1234),
        system: Centi(7),
        idle: Centi(8_000),
        nice: some(),
        iowait: some(),
        irq: Some(Centi(0)),
        softirq: some(),
        steal: some(),
        guest: None,
        guest_nice: None,
    }
}

/// A reading with 23 lines or so, a different one for each `seed`.
pub fn sample(time_ms: i64, seed: u64) -> Sample {
    let mut random = fastrand::Rng::with_seed(seed);
    let cores = (0..4)
        .map(|number| Core {
            number,
            usage: usage(&mut random),
            frequency_khz: Some(random.u32(800_000..4_000_000)),
        })
        .collect();
    let cpu = Cpu { total: usage(&mut random), cores: List::new(cores).unwrap() };
    let memory = Memory {
        total: 16 << 30,
        available: random.u64(1 << 30..8 << 30),
        free: random.u64(0..1 << 30),
        cached: Some(random.u64(0..1 << 30)),
        buffered: Some(random.u64(0..1 << 30)),
        dirty: Some(random.u64(0..1 << 20)),
        ..Memory::default()
    };
    let file_systems = ["/", "/var", "/home/a b", "/mnt/x=y,z"]
        .map(|path| FileSystem {
            device: name("nvme0n1p2"),
            path: Text::new(path).unwrap(),
            fstype: name("ext4"),
            read_only: path == "/mnt/x=y,z",
            total: 1 << 40,
            free: random.u64(0..1 << 39),
            used: random.u64(0..1 << 39),
            inodes: Some(Inodes { total: 1 << 26, free: random.u64(0..1 << 26) }),
        })
        .to_vec();
    let disks = ["nvme0n1", "nvme0n1p2"]
        .map(|disk| Disk {
            name: name(disk),
            reads: random.u64(..),
            writes: random.u64(0..1 << 40),
            read_bytes: random.u64(0..1 << 50),
            write_bytes: random.u64(0..1 << 62),
            read_time: Some(random.u64(0..1 << 40)),
            write_time: None,
            io_time: Some(random.u64(0..1 << 40)),
            weighted_io_time: Some(random.u64(0..1 << 40)),
            iops_in_progress: Some(0),
            merged_reads: Some(1),
            merged_writes: Some(2),
            times: Some(DiskTimes {
                // All 53 bits of them, and the ends of the range.
                io_await: Some(random.f64() * 1e3),
                io_svctm: Some(f64::from_bits(random.u64(1..1 << 62))),
                io_util: if seed.is_multiple_of(7) { f64::NAN } else { 1e21 * random.f64() },
            }),
        })
        .to_vec();
    let interfaces = ["eth0", "wlan0", "tun 1"]
        .map(|interface| Interface {
            name: name(interface),
            bytes_recv: random.u64(0..1 << 60),
            bytes_sent: random.u64(0..1 << 60),
            packets_recv: random.u64(0..1 << 40),
            packets_sent: random.u64(0..1 << 40),
            err_in: 0,
            err_out: 1,
            drop_in: Some(2),
            drop_out: None,
            speed: Some(-1),
        })
        .to_vec();
    let sensors = [("coretemp_package_id_0", 43_500), ("nvme \"composite\"", -5_123)]
        .map(|(sensor, millidegrees)| Temperature { sensor: name(sensor), millidegrees })
        .to_vec();
    let groups = ["postgres", "my prog, v=2", "数据库"]
        .map(|process| ProcessGroup {
            name: name(process),
            count: 3,
            cpu: Centi(99),
            memory: random.u64(0..1 << 33),
        })
        .to_vec();
    let sections: Vec<Section> = vec![
        cpu.into(),
        Box::new(memory).into(),
        Swap { total: 1 << 30, free: random.u64(0..1 << 30), bytes_in: Some(1), bytes_out: Some(2) }.into(),
        FileSystems { file_systems: List::new(file_systems).unwrap() }.into(),
        DiskIo { disks: List::new(disks).unwrap() }.into(),
        Network { interfaces: List::new(interfaces).unwrap() }.into(),
        System {
            load: Some([Centi(12), Centi(random.u32(0..9_999)), Centi(0)]),
            n_cpus: 4,
            n_physical_cpus: Some(2),
            n_users: Some(1),
            uptime: random.u64(0..1 << 30),
            boot_time: Some(1_700_000_000),
        }
        .into(),
        Processes { running: Some(2), blocked: Some(0), total_threads: Some(321), walk: None }.into(),
        Temperatures { sensors: List::new(sensors).unwrap() }.into(),
        TopProcesses { groups: List::new(groups).unwrap() }.into(),
    ];
    Sample { time_ms, sections: List::new(sections).unwrap() }
}

/// The smallest reading: one line with one field that `seed` gives.
pub fn small_sample(time_ms: i64, seed: i32) -> Sample {
    let sensors = vec![Temperature { sensor: name("t"), millidegrees: seed }];
    let temperatures = Temperatures { sensors: List::new(sensors).unwrap() };
    Sample { time_ms, sections: List::new(vec![temperatures.into()]).unwrap() }
}

/// What must be stored of a sample of a host with these tags, `host` among them.
pub fn expected(tags: &[(&str, &str)], sample: &Sample) -> BTreeSet<StoredField> {
    let mut stored = BTreeSet::new();
    map_sample(sample, &mut |point: Point<'_>| {
        let own = point.tags.iter().map(|tag| (tag.key, tag.value));
        let tags: BTreeMap<String, String> =
            tags.iter().copied().chain(own).map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        for field in point.fields {
            stored.insert(StoredField {
                measurement: point.measurement.to_owned(),
                tags: tags.clone(),
                field: field.name.to_owned(),
                ns: sample.time_ms * 1_000_000,
                value: match field.value {
                    Value::Float(float) => Stored::Float(float.to_bits()),
                    Value::Integer(integer) => Stored::Integer(integer),
                    Value::Text(text) => Stored::Text(text.to_owned()),
                },
            });
        }
    });
    stored
}

/// What Flux gave, from `Influxd::everything`.
pub fn from_flux(rows: Vec<Row>) -> BTreeSet<StoredField> {
    let read = |row: Row| {
        let value = match row["#_value"].as_str() {
            "double" => Stored::Float(row["_value"].parse::<f64>().unwrap().to_bits()),
            "long" => Stored::Integer(row["_value"].parse().unwrap()),
            "string" => Stored::Text(row["_value"].clone()),
            other => panic!("type {other}"),
        };
        let tags = row
            .iter()
            .filter(|(key, value)| !key.starts_with(['#', '_']) && *key != "ns" && !value.is_empty())
            .filter(|(key, _)| !matches!(key.as_str(), "result" | "table"));
        StoredField {
            measurement: row["_measurement"].clone(),
            tags: tags.map(|(key, value)| (key.clone(), value.clone())).collect(),
            field: row["_field"].clone(),
            ns: row["ns"].parse().unwrap(),
            value,
        }
    };
    rows.into_iter().map(read).collect()
}

/// What InfluxQL gave for `select * from /.*/ group by *`. It does not say whether a figure is a float: `like` does.
pub fn from_influxql(results: &Json, like: &BTreeSet<StoredField>) -> BTreeSet<StoredField> {
    let mut stored = BTreeSet::new();
    let floats: BTreeSet<(&str, &str)> = like
        .iter()
        .filter(|field| matches!(field.value, Stored::Float(_)))
        .map(|field| (field.measurement.as_str(), field.field.as_str()))
        .collect();
    for series in results[0]["series"].as_array().into_iter().flatten() {
        let measurement = series["name"].as_str().unwrap();
        let tags: BTreeMap<String, String> = series["tags"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let columns: Vec<&str> =
            series["columns"].as_array().unwrap().iter().map(|column| column.as_str().unwrap()).collect();
        for values in series["values"].as_array().unwrap() {
            for (field, value) in columns.iter().zip(values.as_array().unwrap()).skip(1) {
                let value = match value {
                    Json::Null => continue,
                    Json::String(text) => Stored::Text(text.clone()),
                    number if floats.contains(&(measurement, *field)) => {
                        Stored::Float(number.as_f64().unwrap().to_bits())
                    }
                    number => Stored::Integer(number.as_i64().unwrap()),
                };
                stored.insert(StoredField {
                    measurement: measurement.to_owned(),
                    tags: tags.clone(),
                    field: (*field).to_owned(),
                    ns: values[0].as_i64().unwrap(),
                    value,
                });
            }
        }
    }
    stored
}
