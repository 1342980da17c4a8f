//! Linux: one collector per file, on files below `/proc` and `/sys` that are opened once and read with `pread`.

mod cpu;
mod disk_io;
mod file;
mod file_systems;
mod memory;
mod mounts;
mod network;
mod processes;
mod scan;
mod swap;
mod system;
mod temperatures;
mod walk;

use file::HeldFile;
pub(super) use walk::source as walk_source;

use super::{Collector, Roots, Setup};

/// The collectors, in the order of their sections in a sample.
pub(super) fn collectors(setup: &Setup<'_>) -> Vec<Box<dyn Collector>> {
    let mut list: Vec<Box<dyn Collector>> = vec![
        Box::new(cpu::CpuCollector::new(setup)),
        Box::new(memory::MemoryCollector),
        Box::new(swap::SwapCollector::new(setup)),
        Box::new(file_systems::FileSystemsCollector::new(setup)),
        Box::new(disk_io::DiskIoCollector::new(setup)),
        Box::new(network::NetworkCollector::new(setup)),
        Box::new(system::SystemCollector::new(setup)),
        Box::new(processes::ProcessesCollector),
    ];
    if setup.config.temperatures {
        list.push(Box::new(temperatures::TemperaturesCollector::new(setup)));
    }
    list
}

/// Files that several collectors look into; each is read at most once a reading.
pub(super) struct SharedFiles {
    stat: HeldFile,
    meminfo: HeldFile,
    loadavg: HeldFile,
}

impl SharedFiles {
    pub(super) fn new(roots: &Roots) -> Self {
        Self {
            stat: HeldFile::new(roots.proc.join("stat")),
            meminfo: HeldFile::new(roots.proc.join("meminfo")),
            loadavg: HeldFile::new(roots.proc.join("loadavg")),
        }
    }

    /// What was read before is old now.
    pub(super) fn new_reading(&mut self) {
        self.stat.forget();
        self.meminfo.forget();
        self.loadavg.forget();
    }

    /// `/proc/stat`.
    fn stat(&mut self) -> Option<&[u8]> {
        self.stat.read_once()
    }

    /// `/proc/meminfo`.
    fn meminfo(&mut self) -> Option<&[u8]> {
        self.meminfo.read_once()
    }

    /// `/proc/loadavg`.
    fn loadavg(&mut self) -> Option<&[u8]> {
        self.loadavg.read_once()
    }
}
