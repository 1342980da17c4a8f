//! The one place that gives a reading its measurements, tags and fields.
//!
//! Names and types are Telegraf's (its plugins `cpu`, `mem`, `swap`, `disk`, `diskio`, `net`, `system`, `kernel`,
//! `processes`, `temp`), so that dashboards made for Telegraf mean the same here; what Telegraf has no name for begins
//! with `vitals_`. Line protocol, the store's columns and JSON all come from here.
//!
//! Tags within a point and fields within a point are in ascending order of their names. A figure that is not finite or
//! does not fit a signed integer is left out.

use crate::centi::Centi;
use crate::sample::Sample;
use crate::section::{
    ClientHealth, Cpu, CpuUsage, DiskIo, Events, FileSystems, Memory, Network, Processes, Section,
    ServerHealth, Swap, System, Temperatures, TopProcesses,
};

/// A figure or text of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Finite.
    Float(f64),
    /// A count, bytes, or another whole figure.
    Integer(i64),
    /// A text, for people.
    Text(&'a str),
}

/// A field with its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// Such as `usage_user`.
    pub name: &'a str,
    /// Its value.
    pub value: Value<'a>,
}

/// A tag with its value, which may be empty; writers then leave the tag out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'a> {
    /// Such as `cpu`.
    pub key: &'a str,
    /// Such as `cpu-total`.
    pub value: &'a str,
}

/// One point: what stands on one line of line protocol.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<'a> {
    /// Such as `cpu`.
    pub measurement: &'a str,
    /// The host that it is about, where that is not the one that took the sample. Its `host` tag is this name, and the
    /// taker's labels do not apply.
    pub about: Option<&'a str>,
    /// Tags beside `host` and the host's labels, ascending.
    pub tags: &'a [Tag<'a>],
    /// Fields, ascending, at least one.
    pub fields: &'a [Field<'a>],
}

/// The measurements, in the order in which `map_sample` gives them where sections stand in the order of their kinds, as
/// clients send them.
pub const MEASUREMENTS: &[&str] = &[
    "cpu",
    "mem",
    "swap",
    "disk",
    "diskio",
    "net",
    "system",
    "kernel",
    "processes",
    "temp",
    "vitals_process",
    "vitals_client",
    "vitals_server",
    "vitals_event",
];

/// Tags and fields of what happened to a host.
#[derive(Debug, Clone, Copy)]
pub struct EventPoint<'a> {
    about: &'a str,
    tags: [Tag<'a>; 1],
    fields: [Field<'a>; 2],
}

impl<'a> EventPoint<'a> {
    /// Of the host called `name`; `kind` is the event's word.
    pub fn new(name: &'a str, kind: &'a str, detail: &'a str) -> Self {
        Self {
            about: name,
            tags: [Tag { key: "event", value: kind }],
            fields: [
                Field { name: "count", value: Value::Integer(1) },
                Field { name: "detail", value: Value::Text(detail) },
            ],
        }
    }

    /// It as a point.
    pub fn point(&self) -> Point<'_> {
        Point { measurement: "vitals_event", about: Some(self.about), tags: &self.tags, fields: &self.fields }
    }
}

/// Takes the points of a sample, one after another.
pub trait Points {
    /// Takes one.
    fn point(&mut self, point: Point<'_>);
}

impl<F: FnMut(Point<'_>)> Points for F {
    fn point(&mut self, point: Point<'_>) {
        self(point);
    }
}

/// Gives `points` each point of `sample` in the order of its sections. Sections that are not understood map to nothing.
pub fn map_sample(sample: &Sample, points: &mut impl Points) {
    let mut mapper = Mapper { fields: Vec::with_capacity(32), points };
    for section in &sample.sections {
        match section {
            Section::Cpu(cpu) => mapper.cpu(cpu),
            Section::Memory(memory) => mapper.memory(memory),
            Section::Swap(swap) => mapper.swap(swap),
            Section::FileSystems(file_systems) => mapper.disk(file_systems),
            Section::DiskIo(disk_io) => mapper.diskio(disk_io),
            Section::Network(network) => mapper.net(network),
            Section::System(system) => mapper.system(system),
            Section::Processes(processes) => mapper.processes(processes),
            Section::Temperatures(temperatures) => mapper.temp(temperatures),
            Section::TopProcesses(top) => mapper.vitals_process(top),
            Section::ClientHealth(health) => mapper.vitals_client(health),
            Section::ServerHealth(health) => mapper.vitals_server(health),
            Section::Events(events) => mapper.vitals_event(events),
            Section::Opaque(_) => {}
        }
    }
}

/// A whole figure, if there is one that fits.
trait Whole {
    fn whole(self) -> Option<i64>;
}

impl Whole for u32 {
    fn whole(self) -> Option<i64> {
        Some(self.into())
    }
}

impl Whole for u64 {
    fn whole(self) -> Option<i64> {
        self.try_into().ok()
    }
}

impl Whole for i64 {
    fn whole(self) -> Option<i64> {
        Some(self)
    }
}

impl<T: Whole> Whole for Option<T> {
    fn whole(self) -> Option<i64> {
        self.and_then(Whole::whole)
    }
}

struct Mapper<'a, P> {
    /// The fields of the point under way; one allocation serves a whole sample.
    fields: Vec<Field<'a>>,
    points: &'a mut P,
}

impl<'a, P: Points> Mapper<'a, P> {
    fn float(&mut self, name: &'a str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into().filter(|value| value.is_finite()) {
            self.fields.push(Field { name, value: Value::Float(value) });
        }
    }

    fn centi(&mut self, name: &'a str, value: impl Into<Option<Centi>>) {
        if let Some(value) = value.into() {
            self.fields.push(Field { name, value: Value::Float(value.value()) });
        }
    }

    fn integer(&mut self, name: &'a str, value: impl Whole) {
        if let Some(value) = value.whole() {
            self.fields.push(Field { name, value: Value::Integer(value) });
        }
    }

    fn point(&mut self, measurement: &str, tags: &[Tag<'_>]) {
        self.point_about(None, measurement, tags);
    }

    fn point_about(&mut self, about: Option<&str>, measurement: &str, tags: &[Tag<'_>]) {
        if !self.fields.is_empty() {
            self.points.point(Point { measurement, about, tags, fields: &self.fields });
            self.fields.clear();
        }
    }

    /// Telegraf's `cpu` with `percpu`, `totalcpu` and `report_active`; frequency as `frequency_mhz`.
    fn cpu(&mut self, cpu: &Cpu) {
        self.cpu_usage(&cpu.total, "cpu-total", None);
        for core in &cpu.cores {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(core.number).as_bytes();
            let mut name = [b'c', b'p', b'u', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            name[3..3 + digits.len()].copy_from_slice(digits);
            // ASCII only, so always valid.
            let name = std::str::from_utf8(&name[..3 + digits.len()]).unwrap_or("cpu");
            self.cpu_usage(&core.usage, name, core.frequency_khz);
        }
    }

    fn cpu_usage(&mut self, usage: &CpuUsage, name: &str, frequency_khz: Option<u32>) {
        if let Some(khz) = frequency_khz {
            self.float("frequency_mhz", f64::from(khz) / 1000.0);
        }
        self.centi("usage_active", usage.active());
        self.centi("usage_guest", usage.guest);
        self.centi("usage_guest_nice", usage.guest_nice);
        self.centi("usage_idle", usage.idle);
        self.centi("usage_iowait", usage.iowait);
        self.centi("usage_irq", usage.irq);
        self.centi("usage_nice", usage.nice);
        self.centi("usage_softirq", usage.softirq);
        self.centi("usage_steal", usage.steal);
        self.centi("usage_system", usage.system);
        self.centi("usage_user", usage.user);
        self.point("cpu", &[Tag { key: "cpu", value: name }]);
    }

    /// Telegraf's `mem`. `used` is total less available.
    fn memory(&mut self, memory: &Memory) {
        let used = memory.total.saturating_sub(memory.available);
        self.integer("active", memory.active);
        self.integer("available", memory.available);
        self.centi("available_percent", Centi::percent(memory.available, memory.total));
        self.integer("buffered", memory.buffered);
        self.integer("cached", memory.cached);
        self.integer("commit_limit", memory.commit_limit);
        self.integer("committed_as", memory.committed_as);
        self.integer("dirty", memory.dirty);
        self.integer("free", memory.free);
        self.integer("huge_page_size", memory.huge_page_size);
        self.integer("huge_pages_free", memory.huge_pages_free);
        self.integer("huge_pages_total", memory.huge_pages_total);
        self.integer("inactive", memory.inactive);
        self.integer("mapped", memory.mapped);
        self.integer("page_tables", memory.page_tables);
        self.integer("shared", memory.shared);
        self.integer("slab", memory.slab);
        self.integer("sreclaimable", memory.sreclaimable);
        self.integer("sunreclaim", memory.sunreclaim);
        self.integer("swap_cached", memory.swap_cached);
        self.integer("swap_free", memory.swap_free);
        self.integer("swap_total", memory.swap_total);
        self.integer("total", memory.total);
        self.integer("used", used);
        self.centi("used_percent", Centi::percent(used, memory.total));
        self.integer("write_back", memory.write_back);
        self.integer("write_back_tmp", memory.write_back_tmp);
        self.point("mem", &[]);
    }

    /// Telegraf's `swap`. A host without swap space has a total of 0 and, as there, 0 % of it used.
    fn swap(&mut self, swap: &Swap) {
        let used = swap.total.saturating_sub(swap.free);
        self.integer("free", swap.free);
        self.integer("in", swap.bytes_in);
        self.integer("out", swap.bytes_out);
        self.integer("total", swap.total);
        self.integer("used", used);
        self.centi("used_percent", Centi::percent(used, swap.total).unwrap_or_default());
        self.point("swap", &[]);
    }

    /// Telegraf's `disk`. `used_percent` is of what any user may use, as `df` shows it.
    fn disk(&mut self, file_systems: &FileSystems) {
        for fs in &file_systems.file_systems {
            self.integer("free", fs.free);
            if let Some(inodes) = fs.inodes {
                let used = inodes.total.saturating_sub(inodes.free);
                self.integer("inodes_free", inodes.free);
                self.integer("inodes_total", inodes.total);
                self.integer("inodes_used", used);
                self.centi("inodes_used_percent", Centi::percent(used, inodes.total));
            }
            self.integer("total", fs.total);
            self.integer("used", fs.used);
            self.centi("used_percent", Centi::percent(fs.used, fs.used.saturating_add(fs.free)));
            self.point(
                "disk",
                &[
                    Tag { key: "device", value: &fs.device },
                    Tag { key: "fstype", value: &fs.fstype },
                    Tag { key: "mode", value: if fs.read_only { "ro" } else { "rw" } },
                    Tag { key: "path", value: &fs.path },
                ],
            );
        }
    }

    /// Telegraf's `diskio`.
    fn diskio(&mut self, disk_io: &DiskIo) {
        for disk in &disk_io.disks {
            if let Some(times) = disk.times {
                self.float("io_await", times.io_await);
                self.float("io_svctm", times.io_svctm);
            }
            self.integer("io_time", disk.io_time);
            if let Some(times) = disk.times {
                self.float("io_util", times.io_util);
            }
            self.integer("iops_in_progress", disk.iops_in_progress);
            self.integer("merged_reads", disk.merged_reads);
            self.integer("merged_writes", disk.merged_writes);
            self.integer("read_bytes", disk.read_bytes);
            self.integer("read_time", disk.read_time);
            self.integer("reads", disk.reads);
            self.integer("weighted_io_time", disk.weighted_io_time);
            self.integer("write_bytes", disk.write_bytes);
            self.integer("write_time", disk.write_time);
            self.integer("writes", disk.writes);
            self.point("diskio", &[Tag { key: "name", value: &disk.name }]);
        }
    }

    /// Telegraf's `net`.
    fn net(&mut self, network: &Network) {
        for interface in &network.interfaces {
            self.integer("bytes_recv", interface.bytes_recv);
            self.integer("bytes_sent", interface.bytes_sent);
            self.integer("drop_in", interface.drop_in);
            self.integer("drop_out", interface.drop_out);
            self.integer("err_in", interface.err_in);
            self.integer("err_out", interface.err_out);
            self.integer("packets_recv", interface.packets_recv);
            self.integer("packets_sent", interface.packets_sent);
            self.integer("speed", interface.speed);
            self.point("net", &[Tag { key: "interface", value: &interface.name }]);
        }
    }

    /// Telegraf's `system`, and the `boot_time` of its `kernel`.
    fn system(&mut self, system: &System) {
        if let Some([one, five, fifteen]) = system.load {
            self.centi("load1", one);
            self.centi("load15", fifteen);
            self.centi("load5", five);
        }
        self.integer("n_cpus", system.n_cpus);
        self.integer("n_physical_cpus", system.n_physical_cpus);
        self.integer("n_users", system.n_users);
        self.integer("uptime", system.uptime);
        self.point("system", &[]);
        self.integer("boot_time", system.boot_time);
        self.point("kernel", &[]);
    }

    /// Telegraf's `processes`.
    fn processes(&mut self, processes: &Processes) {
        let walk = processes.walk.as_ref();
        self.integer("blocked", processes.blocked);
        self.integer("dead", walk.map(|walk| walk.dead));
        self.integer("idle", walk.map(|walk| walk.idle));
        self.integer("paging", walk.map(|walk| walk.paging));
        self.integer("running", processes.running);
        self.integer("sleeping", walk.map(|walk| walk.sleeping));
        self.integer("stopped", walk.map(|walk| walk.stopped));
        self.integer("total", walk.map(|walk| walk.total));
        self.integer("total_threads", processes.total_threads);
        self.integer("unknown", walk.map(|walk| walk.unknown));
        self.integer("zombies", walk.map(|walk| walk.zombies));
        self.point("processes", &[]);
    }

    /// Telegraf's `temp`.
    fn temp(&mut self, temperatures: &Temperatures) {
        for sensor in &temperatures.sensors {
            self.float("temp", f64::from(sensor.millidegrees) / 1000.0);
            self.point("temp", &[Tag { key: "sensor", value: &sensor.sensor }]);
        }
    }

    /// The field and tag names of Telegraf's `procstat`, summed by command name.
    fn vitals_process(&mut self, top: &TopProcesses) {
        for group in &top.groups {
            self.integer("count", group.count);
            self.centi("cpu_usage", group.cpu);
            self.integer("memory_rss", group.memory);
            self.point("vitals_process", &[Tag { key: "process_name", value: &group.name }]);
        }
    }

    fn vitals_client(&mut self, health: &ClientHealth) {
        self.integer("clock_steps", health.clock_steps);
        self.integer("connected", health.connected);
        self.integer("connections", health.connections);
        self.integer("cpu_ms", health.cpu_ms);
        self.integer("last_step_ms", health.last_step_ms);
        self.integer("memory_rss", health.memory);
        self.integer("oldest_waiting_ms", health.oldest_waiting_ms);
        self.integer("samples_acked", health.samples_acked);
        self.integer("samples_taken", health.samples_taken);
        self.integer("skew_ms", health.skew_ms);
        self.integer("spool_bytes", health.spool_bytes);
        self.integer("uptime", health.uptime);
        self.integer("waiting_disk", health.waiting_disk);
        self.integer("waiting_memory", health.waiting_memory);
        self.point("vitals_client", &[]);
        for dropped in &health.dropped {
            self.integer("dropped", dropped.count);
            self.point("vitals_client", &[Tag { key: "reason", value: &dropped.reason }]);
        }
    }

    fn vitals_server(&mut self, health: &ServerHealth) {
        self.integer("connections", health.connections);
        self.integer("cpu_ms", health.cpu_ms);
        self.integer("hosts", health.hosts);
        self.integer("hosts_up", health.hosts_up);
        self.integer("influx_lag_bytes", health.influx_lag_bytes);
        self.integer("influx_lag_ms", health.influx_lag_ms);
        self.integer("influx_lines", health.influx_lines);
        self.integer("journal_bytes", health.journal_bytes);
        self.integer("memory_rss", health.memory);
        self.integer("samples_acked", health.samples_acked);
        self.integer("samples_received", health.samples_received);
        self.integer("store_lag_bytes", health.store_lag_bytes);
        self.integer("uptime", health.uptime);
        self.point("vitals_server", &[]);
        for dropped in &health.dropped {
            self.integer("dropped", dropped.count);
            self.point("vitals_server", &[Tag { key: "reason", value: &dropped.reason }]);
        }
    }

    /// `detail` is a text, for annotations; `count` makes the events countable.
    fn vitals_event(&mut self, events: &Events) {
        for event in &events.events {
            let event = EventPoint::new(&event.name, event.kind.word(), &event.detail);
            self.points.point(event.point());
        }
    }
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
