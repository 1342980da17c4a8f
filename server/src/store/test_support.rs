//! An engine with a journal of records in memory, and samples of many shapes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vitals_wire::bounded::{List, Text};
use vitals_wire::centi::Centi;
use vitals_wire::ids::HostId;
use vitals_wire::line::{HostTags, write_sample};
use vitals_wire::log::Position;
use vitals_wire::mapping::{self, Point, map_sample};
use vitals_wire::record::Record;
use vitals_wire::sample::Sample;
use vitals_wire::section::{
    Cpu, CpuUsage, Disk, DiskIo, DiskTimes, Interface, Memory, Network, ProcessGroup, ProcessStates,
    Processes, Section, System, Temperature, Temperatures, TopProcesses,
};

use super::engine::{Engine, Now, Seal};
use super::sqlite::Sqlite;
use super::storage::Storage;
use super::{MemoryStorage, RowRef, StoreError, StoreOptions, Value, read};
use crate::metrics::Metrics;

/// An hour's beginning in 2023.
pub const BASE_MS: i64 = 472_222 * 3_600_000;

pub fn host(number: u8) -> HostId {
    HostId([number; 16])
}

/// A sample whose content follows from host and time, with sections and fields that come and go.
pub fn sample(host: HostId, time_ms: i64) -> Sample {
    let mut random = fastrand::Rng::with_seed(time_ms as u64 ^ u64::from(host.0[0]) << 56);
    let mut sections: Vec<Section> = Vec::new();
    let mut usage = || CpuUsage {
        user: Centi(random.u32(0..10_000)),
        idle: Centi(random.u32(0..10_000)),
        steal: random.bool().then(|| Centi(random.u32(0..10))),
        ..CpuUsage::default()
    };
    let total = usage();
    sections.push(Cpu { total, cores: List::default() }.into());
    if random.u8(0..10) > 0 {
        let memory = Memory {
            total: 1 << 34,
            available: random.u64(0..1 << 34) & !0xfff,
            free: u64::MAX,
            cached: random.bool().then(|| random.u64(..)),
            ..Memory::default()
        };
        sections.push(Section::Memory(Box::new(memory)));
    }
    let interfaces = (0..random.u8(0..4)).map(|number| Interface {
        name: Text::cut(&format!("eth{}", number % 3)),
        bytes_recv: (time_ms as u64).wrapping_mul(1000) / 2 + random.u64(0..1000),
        bytes_sent: random.u64(..),
        packets_recv: 0,
        packets_sent: 1,
        err_in: 0,
        err_out: 0,
        drop_in: None,
        drop_out: random.bool().then_some(7),
        speed: Some(-1),
    });
    sections.push(Network { interfaces: List::first(interfaces.collect()).0 }.into());
    let disk = |float: f64| Disk {
        name: Text::cut("sda"),
        reads: 5,
        writes: 6,
        read_bytes: 7 << 12,
        write_bytes: 8 << 9,
        read_time: None,
        write_time: None,
        io_time: None,
        weighted_io_time: None,
        iops_in_progress: None,
        merged_reads: None,
        merged_writes: None,
        times: Some(DiskTimes { io_await: Some(float), io_svctm: Some(-0.0), io_util: 1e-300 }),
    };
    let float = match random.u8(0..4) {
        0 => 12.34,
        1 => f64::NAN,
        2 => f64::from_bits(random.u64(..)),
        _ => 1.0 / 3.0,
    };
    sections.push(DiskIo { disks: List::first(vec![disk(float)]).0 }.into());
    let load = random.bool().then(|| [Centi(1), Centi(random.u32(..)), Centi(0)]);
    sections.push(System { load, n_cpus: 2, uptime: time_ms as u64 / 1000, ..System::default() }.into());
    let sensor = Temperature { sensor: Text::cut("cpu, \"hot\""), millidegrees: random.i32(-1000..90_000) };
    sections.push(Temperatures { sensors: List::first(vec![sensor]).0 }.into());
    if random.u8(0..6) == 0 {
        let walk = ProcessStates { total: random.u32(..), ..ProcessStates::default() };
        sections.push(Processes { running: Some(1), walk: Some(walk), ..Processes::default() }.into());
        let group = ProcessGroup {
            name: Text::cut(["a", "b", "c", "", "日本"][random.usize(0..5)]),
            count: 1,
            cpu: Centi(5),
            memory: random.u64(..),
        };
        sections.push(TopProcesses { groups: List::first(vec![group]).0 }.into());
    } else {
        sections.push(Processes { running: Some(random.u32(0..3)), ..Processes::default() }.into());
    }
    if random.u8(0..20) == 0 {
        sections.clear();
    }
    // As clients send them.
    sections.sort_by_key(Section::kind);
    Sample { time_ms, sections: List::first(sections).0 }
}

/// `measurement`, tags and field of a series, and the bits of its values by time.
pub type Expected = BTreeMap<(String, Vec<(String, String)>, String), BTreeMap<i64, (bool, u64)>>;

/// What a plain store would answer for these samples: of two values for the same time the first.
pub fn expected<'a>(samples: impl Iterator<Item = &'a Sample>) -> Expected {
    let mut expected = Expected::new();
    for sample in samples {
        map_sample(sample, &mut |point: Point<'_>| {
            let tags = point.tags.iter().filter(|tag| !tag.value.is_empty());
            let tags: Vec<_> = tags.map(|tag| (tag.key.to_owned(), tag.value.to_owned())).collect();
            for field in point.fields {
                let value = match field.value {
                    mapping::Value::Float(float) => (true, float.to_bits()),
                    mapping::Value::Integer(integer) => (false, integer as u64),
                    mapping::Value::Text(_) => continue,
                };
                let key = (point.measurement.to_owned(), tags.clone(), field.name.to_owned());
                expected.entry(key).or_default().entry(sample.time_ms).or_insert(value);
            }
        });
    }
    expected
}

/// With labels before and after the mapping's own tags.
pub fn tags() -> HostTags {
    HostTags::new("web, 1", [("a", "1"), ("zone", "north")])
}

/// What `write_sample` makes of these samples in order of time, of those with the same time the first.
pub fn written(samples: &[Sample], times: std::ops::Range<i64>) -> String {
    let mut by_time = BTreeMap::new();
    for sample in samples.iter().filter(|sample| times.contains(&sample.time_ms)) {
        by_time.entry(sample.time_ms).or_insert(sample);
    }
    let mut out = Vec::new();
    for sample in by_time.into_values() {
        write_sample(&mut out, &tags(), sample);
    }
    String::from_utf8(out).unwrap()
}

/// An engine, and what it needs to be killed and started again.
pub struct Rig<S: Storage = Sqlite> {
    pub engine: Option<Engine<S>>,
    open: fn(&Self) -> Result<S, StoreError>,
    /// Where a rig in memory keeps its storage.
    pub memory: MemoryStorage,
    pub options: StoreOptions,
    pub metrics: Arc<Metrics>,
    /// The journal; a place is the index of a record.
    pub journal: Vec<Record>,
    pub now: Now,
    _dir: tempfile::TempDir,
}

fn place(index: usize) -> Position {
    Position { segment: 1, offset: index as u64 }
}

impl Rig {
    pub fn new() -> Self {
        Self::on(|rig| Sqlite::open(&rig.options.path))
    }

    pub fn connection(&self) -> &rusqlite::Connection {
        &self.engine.as_ref().unwrap().storage.connection
    }
}

impl Rig<MemoryStorage> {
    pub fn in_memory() -> Self {
        Self::on(|rig| Ok(rig.memory.clone()))
    }
}

impl<S: Storage> Rig<S> {
    fn on(open: fn(&Self) -> Result<S, StoreError>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            commit_every: Duration::from_secs(5),
            seal_after: Duration::from_secs(300),
            ..StoreOptions::new(dir.path().join("history.db"))
        };
        let now = Now { steady_ms: 0, wall_ms: BASE_MS };
        let mut rig = Self {
            engine: None,
            open,
            memory: MemoryStorage::new(),
            options,
            metrics: Arc::new(Metrics::new()),
            journal: Vec::new(),
            now,
            _dir: dir,
        };
        rig.reopen();
        rig
    }

    pub fn engine(&mut self) -> &mut Engine<S> {
        self.engine.as_mut().unwrap()
    }

    /// Kills the engine with all that is in its memory, and starts it again.
    pub fn reopen(&mut self) {
        drop(self.engine.take());
        let storage = (self.open)(self).unwrap();
        let mut engine =
            Engine::open_on(storage, self.options.clone(), self.metrics.clone(), self.now).unwrap();
        let from = engine.cursor().offset as usize;
        for (index, record) in self.journal.iter().enumerate().skip(from) {
            engine.ingest(record, place(index + 1));
        }
        self.engine = Some(engine);
    }

    pub fn send(&mut self, host: HostId, samples: Vec<Sample>) {
        let record = Record { host, received_ms: self.now.wall_ms, backlog: false, samples };
        self.journal.push(record);
        let after = place(self.journal.len());
        let record = self.journal.last().unwrap().clone();
        self.engine().ingest(&record, after);
    }

    pub fn pass(&mut self, ms: i64) {
        self.now.steady_ms += ms;
        self.now.wall_ms += ms;
    }

    pub fn commit(&mut self, seal: Seal) {
        let now = self.now;
        self.engine().commit(now, seal).unwrap();
    }

    /// Merges whatever can be merged now, whosever turn it is.
    pub fn merge_all(&mut self) {
        let now = self.now;
        let hosts = read(&self.engine().shared.memory).hosts.len() as u32;
        self.engine().merge_hosts(0..hosts, now).unwrap();
    }

    /// All that can be read of a host.
    pub fn readable(&mut self, host: HostId) -> Expected {
        let shared = self.engine().shared.clone();
        let mut found = Expected::new();
        let keys: Vec<_> = {
            let dictionary = read(&shared.dictionary);
            (0..dictionary.len() as u32).filter_map(|number| dictionary.column(number).cloned()).collect()
        };
        for key in keys {
            let tags: Vec<String> = key
                .tags
                .iter()
                .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let tags = if tags.is_empty() { String::new() } else { format!("{{{}}}", tags.join(",")) };
            let selector = format!("{}.{}{tags}", key.measurement, key.field).parse().unwrap();
            for series in shared.series(host, &selector, i64::MIN..i64::MAX, usize::MAX).unwrap() {
                assert!(series.points.is_sorted_by(|a, b| a.0 < b.0), "{selector}: times do not ascend");
                let points = series.points.iter().map(|(time, value)| match value {
                    Value::Float(float) => (*time, (true, float.to_bits())),
                    Value::Integer(integer) => (*time, (false, *integer as u64)),
                });
                found.insert((series.measurement, series.tags, series.field), points.collect());
            }
        }
        found
    }

    /// The samples of a host as lines.
    pub fn lines(&mut self, host: HostId, times: std::ops::Range<i64>) -> String {
        let mut out = Vec::new();
        let shared = self.engine().shared.clone();
        let take = &mut |row: RowRef<'_>| {
            row.write(&mut out, &tags());
            ControlFlow::Continue(())
        };
        shared.each_row(host, times, take).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Compares all that can be read of every host with the journal.
    pub fn check(&mut self) {
        let hosts: std::collections::BTreeSet<HostId> =
            self.journal.iter().map(|record| record.host).collect();
        for host in hosts {
            let sent: Vec<Sample> =
                self.journal.iter().filter(|r| r.host == host).flat_map(|r| r.samples.clone()).collect();
            let times: std::collections::BTreeSet<i64> = sent.iter().map(|sample| sample.time_ms).collect();
            let shared = self.engine().shared.clone();
            let found = shared.samples(host, i64::MIN..i64::MAX).unwrap();
            assert_eq!(found, times.iter().copied().collect::<Vec<_>>(), "times of {host}");
            assert_eq!(shared.newest_ms(host).unwrap(), times.last().copied());
            let (found, expected) = (self.readable(host), expected(sent.iter()));
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "series of {host}"
            );
            for (series, points) in &expected {
                assert_eq!(&found[series], points, "{series:?} of {host}");
            }
            let lines = written(&sent, i64::MIN..i64::MAX);
            assert_eq!(self.lines(host, i64::MIN..i64::MAX), lines, "lines of {host}");
        }
    }
}
