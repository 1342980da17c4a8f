//! The `sysinfo` back end, for systems other than Linux: fewer figures, the same names.
//!
//! It tells a CPU's usage in one figure, which stands as `user` here; disks' counters it does not tell.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sysinfo::{
    Components, CpuRefreshKind, DiskRefreshKind, Disks, Networks, ProcessRefreshKind, ProcessStatus,
    ProcessesToUpdate, System as Host,
};
use tracing::warn;
use vitals_wire::bounded::{List, Text};
use vitals_wire::centi::Centi;
use vitals_wire::section::{
    Core, Cpu, CpuUsage, FileSystem, FileSystems, Interface, Memory, Network, ProcessStates, Processes,
    Section, Swap, System, Temperature, Temperatures,
};

use super::slow::{Answer, SlowItem, SlowReads};
use super::walk::{Groups, Share, Source, Walk};
use super::{CollectConfig, Collector, Reading, Setup};

/// Both collectors: what is quick, and what may block.
pub(super) fn collectors(setup: &Setup<'_>) -> Vec<Box<dyn Collector>> {
    let slow = SlowSections::new(setup.config);
    match Quick::new(setup.config) {
        Ok(quick) => vec![Box::new(quick), Box::new(slow)],
        Err(error) => {
            warn!(%error, "sysinfo cannot read this system");
            vec![Box::new(slow)]
        }
    }
}

struct Quick {
    config: CollectConfig,
    host: Host,
    networks: Networks,
    has_baseline: bool,
}

impl Quick {
    fn new(config: &CollectConfig) -> Result<Self, sysinfo::Error> {
        Ok(Self {
            config: config.clone(),
            host: Host::new()?,
            networks: Networks::new()?,
            has_baseline: false,
        })
    }

    /// `None` in the first reading, which has none before it.
    fn cpu(&mut self) -> Option<Cpu> {
        self.host.refresh_cpu_specifics(CpuRefreshKind::nothing().with_usage().with_frequency());
        if !std::mem::replace(&mut self.has_baseline, true) {
            return None;
        }
        let cores = self.host.cpus().iter().enumerate().map(|(number, core)| Core {
            number: number as u32,
            usage: usage(core.usage()),
            frequency_khz: u32::try_from(core.frequency().saturating_mul(1000)).ok().filter(|&khz| khz > 0),
        });
        let total = usage(self.host.global_cpu_usage());
        Some(Cpu { total, cores: List::first(cores.collect()).0 })
    }

    fn memory(&mut self) -> Option<(Memory, Swap)> {
        self.host.refresh_memory();
        let total = self.host.total_memory();
        if total == 0 {
            return None;
        }
        let memory = Memory {
            total,
            available: self.host.available_memory(),
            free: self.host.free_memory(),
            swap_total: Some(self.host.total_swap()),
            swap_free: Some(self.host.free_swap()),
            ..Memory::default()
        };
        let swap = Swap {
            total: self.host.total_swap(),
            free: self.host.free_swap(),
            bytes_in: None,
            bytes_out: None,
        };
        Some((memory, swap))
    }

    fn network(&mut self) -> Network {
        self.networks.refresh(true);
        let mut interfaces = Vec::new();
        for (name, data) in self.networks.iter() {
            let name = name.to_string_lossy();
            let is_loopback = data.ip_networks().iter().any(|network| network.addr.is_loopback());
            if is_loopback || !self.config.wants_interface(&name) {
                continue;
            }
            interfaces.push(Interface {
                name: Text::cut(&name),
                bytes_recv: data.total_received(),
                bytes_sent: data.total_transmitted(),
                packets_recv: data.total_packets_received(),
                packets_sent: data.total_packets_transmitted(),
                err_in: data.total_errors_on_received(),
                err_out: data.total_errors_on_transmitted(),
                drop_in: None,
                drop_out: None,
                speed: None,
            });
        }
        interfaces.sort_by(|a, b| a.name.cmp(&b.name));
        Network { interfaces: List::first(interfaces).0 }
    }

    fn system(&self) -> Option<System> {
        let load = Host::load_average().ok();
        let load = load.and_then(|load| {
            Some([Centi::round(load.one)?, Centi::round(load.five)?, Centi::round(load.fifteen)?])
        });
        Some(System {
            load,
            n_cpus: self.host.cpus().len() as u32,
            n_physical_cpus: Host::physical_core_count().ok().map(|count| count as u32),
            n_users: None,
            uptime: Host::uptime().ok()?,
            boot_time: Host::boot_time().ok().and_then(|time| time.try_into().ok()),
        })
    }
}

impl Collector for Quick {
    fn collect(&mut self, reading: &mut Reading<'_>) {
        reading.sections.extend(self.cpu().map(Section::from));
        if let Some((memory, swap)) = self.memory() {
            reading.sections.push(Box::new(memory).into());
            reading.sections.push(swap.into());
        }
        let network = self.network();
        if !network.interfaces.is_empty() {
            reading.sections.push(network.into());
        }
        reading.sections.extend(self.system().map(Section::from));
        if let Some(walk) = reading.walk.take() {
            let processes = Processes { walk: Some(walk.states), ..Processes::default() };
            reading.sections.push(processes.into());
            reading.sections.extend(walk.top.map(Section::from));
        }
    }
}

fn usage(percent: f32) -> CpuUsage {
    let busy = Centi::round(f64::from(percent)).unwrap_or_default().min(Centi(10_000));
    CpuUsage { user: busy, idle: Centi(10_000 - busy.0), ..CpuUsage::default() }
}

/// File systems and sensors, which may block: read on the thread for such calls.
struct SlowSections {
    source: Option<Box<dyn Fn() -> Answer + Send + Sync>>,
    call: Option<Arc<SlowItem>>,
}

impl SlowSections {
    fn new(config: &CollectConfig) -> Self {
        let config = config.clone();
        let state = Mutex::new((None::<Disks>, None::<Components>));
        let source = move || {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (disks, components) = &mut *state;
            if disks.is_none() {
                *disks = Disks::new().ok();
            }
            if components.is_none() && config.temperatures {
                *components = Components::new().ok();
            }
            let mut sections = Vec::new();
            sections.extend(disks.as_mut().and_then(|disks| file_systems(disks, &config)).map(Section::from));
            sections.extend(components.as_mut().and_then(temperatures).map(Section::from));
            Answer::Sections(sections)
        };
        Self { source: Some(Box::new(source)), call: None }
    }
}

impl Collector for SlowSections {
    fn prepare(&mut self, slow: &mut SlowReads, _rescan: bool) {
        if let Some(source) = self.source.take() {
            self.call = Some(slow.add("file systems and sensors", true, source));
        }
    }

    fn collect(&mut self, reading: &mut Reading<'_>) {
        if let Some(Answer::Sections(sections)) = self.call.as_ref().and_then(|call| call.take()) {
            reading.sections.extend(sections);
        }
    }
}

fn file_systems(disks: &mut Disks, config: &CollectConfig) -> Option<FileSystems> {
    disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
    let mut found: Vec<FileSystem> = Vec::new();
    for disk in disks.iter() {
        let fstype = disk.file_system().to_string_lossy();
        let device = disk.name().to_string_lossy();
        let Some(path) = disk.mount_point().to_str() else { continue };
        if !config.wants_file_system(&fstype, path) || disk.total_space() == 0 {
            continue;
        }
        found.push(FileSystem {
            device: Text::cut(device.strip_prefix("/dev/").unwrap_or(&device)),
            path: Text::new(path).ok()?,
            fstype: Text::cut(&fstype),
            read_only: disk.is_read_only(),
            total: disk.total_space(),
            free: disk.available_space(),
            used: disk.total_space().saturating_sub(disk.available_space()),
            inodes: None,
        });
    }
    // One device, one file system: the others are doubles.
    found.sort_by(|a, b| a.device.cmp(&b.device).then_with(|| a.path.len().cmp(&b.path.len())));
    found.dedup_by(|later, first| later.device == first.device);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    (!found.is_empty()).then(|| FileSystems { file_systems: List::first(found).0 })
}

fn temperatures(components: &mut Components) -> Option<Temperatures> {
    components.refresh(true);
    let read = components.iter().filter_map(|component| {
        let degrees = component.temperature().filter(|degrees| degrees.is_finite())?;
        let sensor = component.label().trim().to_lowercase().replace(' ', "_");
        Some(Temperature { sensor: Text::cut(&sensor), millidegrees: (degrees * 1000.0).round() as i32 })
    });
    let mut sensors: Vec<Temperature> = read.filter(|sensor| !sensor.sensor.is_empty()).collect();
    sensors.sort_by(|a, b| a.sensor.cmp(&b.sensor));
    sensors.dedup_by(|a, b| a.sensor == b.sensor);
    (!sensors.is_empty()).then(|| Temperatures { sensors: List::first(sensors).0 })
}

/// Walks over processes as `sysinfo` sees them.
pub(super) fn walk_source() -> Source {
    let mut host: Option<Host> = None;
    let mut walked_at: Option<Instant> = None;
    Box::new(move || {
        if host.is_none() {
            host = Host::new().ok();
        }
        let host = host.as_mut()?;
        let kind = ProcessRefreshKind::nothing().with_cpu().with_memory().without_tasks();
        host.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let elapsed = walked_at.replace(Instant::now()).map(|before| before.elapsed());
        let mut states = ProcessStates::default();
        let mut groups = Groups::default();
        // `sysinfo` gives percent of one core since its last refresh: as much as one second's worth here.
        for process in host.processes().values() {
            states.total += 1;
            match process.status() {
                ProcessStatus::Run | ProcessStatus::UninterruptibleDiskSleep => {}
                ProcessStatus::Sleep => states.sleeping += 1,
                ProcessStatus::Zombie => states.zombies += 1,
                ProcessStatus::Stop | ProcessStatus::Tracing => states.stopped += 1,
                ProcessStatus::Idle => states.idle += 1,
                ProcessStatus::Dead => states.dead += 1,
                _ => states.unknown += 1,
            }
            let cpu = f64::from(process.cpu_usage()) / 100.0;
            let share = Share { count: 1, cpu, memory: process.memory() };
            groups.add(&process.name().to_string_lossy(), share);
        }
        Some(Walk { states, top: elapsed.map(|_| groups.top(Duration::from_secs(1))) })
    })
}
