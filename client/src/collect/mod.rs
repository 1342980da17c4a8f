//! Reading this host: from its files to sections.
//!
//! [`config`] says what is wanted; `linux` has one collector per file for `/proc` and `/sys`, `portable` is the `sysinfo`
//! back end; `slow` asks what may block, `walk` goes over processes now and then. [`Collectors`] drives them all and
//! knows nothing of time, transport or storage.

pub mod config;
mod counters;
#[cfg(target_os = "linux")]
mod linux;
mod pattern;
mod portable;
mod slow;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vitals_wire::section::Section;

pub use config::{BackEnd, CollectConfig, CollectConfigError};
pub use counters::Counters;
use slow::SlowReads;
use walk::{Walk, Walker};

/// New sensors, interfaces' speeds and the like are looked for this often.
const RESCAN_INTERVAL: Duration = Duration::from_secs(60);

/// Where a host's files are; a container that watches its host has them elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// `/run`.
    pub run: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), run: "/run".into() }
    }
}

/// What collectors are made from.
struct Setup<'a> {
    config: &'a CollectConfig,
    roots: &'a Roots,
    counters: Arc<Counters>,
}

/// One kind of reading. It keeps its open files and the reading before, if it needs one.
trait Collector: Send {
    /// Registers what may block; called some time before `collect`, so that it can be answered by then.
    fn prepare(&mut self, _slow: &mut SlowReads, _rescan: bool) {}

    /// Adds its section to the reading. What cannot be read is left out.
    fn collect(&mut self, reading: &mut Reading<'_>);
}

/// A reading under way.
struct Reading<'a> {
    #[cfg(target_os = "linux")]
    shared: &'a mut linux::SharedFiles,
    /// Looking for what is new is due.
    rescan: bool,
    /// What a walk over processes found, once.
    walk: Option<Walk>,
    sections: &'a mut Vec<Section>,
}

/// All collectors of this host.
pub struct Collectors {
    collectors: Vec<Box<dyn Collector>>,
    #[cfg(target_os = "linux")]
    shared: linux::SharedFiles,
    slow: SlowReads,
    walker: Option<Walker>,
    next_rescan: Instant,
    rescanning: bool,
}

impl Collectors {
    /// Collectors as `config` wants them. Nothing is read yet.
    pub fn new(config: &CollectConfig, roots: &Roots, counters: Arc<Counters>) -> Self {
        let setup = Setup { config, roots, counters: counters.clone() };
        let (collectors, walk) = make(&setup);
        Self {
            collectors,
            #[cfg(target_os = "linux")]
            shared: linux::SharedFiles::new(roots),
            slow: SlowReads::new(config.read_deadline(), counters),
            walker: config.walk_interval().and_then(|interval| Walker::start(interval, walk)),
            next_rescan: Instant::now(),
            rescanning: true,
        }
    }

    /// Begins to ask what may block; what has answered by the time of [`Self::read`] is in that reading.
    pub fn begin(&mut self) {
        let now = Instant::now();
        if now >= self.next_rescan {
            self.next_rescan = now + RESCAN_INTERVAL;
            self.rescanning = true;
        }
        for collector in &mut self.collectors {
            collector.prepare(&mut self.slow, self.rescanning);
        }
        self.slow.begin_round(now);
    }

    /// Waits until all that [`Self::begin`] asked has answered or is known to take long, at most until `due`, or until
    /// `go_on` says no.
    pub fn settle(&mut self, due: Instant, go_on: impl Fn() -> bool) {
        self.slow.settle(due, go_on);
    }

    /// Whether the first walk over processes is still under way.
    pub fn is_first_walk_under_way(&self) -> bool {
        self.walker.as_ref().is_some_and(Walker::is_first_under_way)
    }

    /// Reads all, at once. Takes a fraction of a millisecond and never blocks.
    pub fn read(&mut self) -> Vec<Section> {
        self.slow.end_round(Instant::now());
        let mut sections = Vec::with_capacity(self.collectors.len());
        #[cfg(target_os = "linux")]
        self.shared.new_reading();
        let mut reading = Reading {
            #[cfg(target_os = "linux")]
            shared: &mut self.shared,
            rescan: std::mem::take(&mut self.rescanning),
            walk: self.walker.as_ref().and_then(Walker::take),
            sections: &mut sections,
        };
        for collector in &mut self.collectors {
            collector.collect(&mut reading);
        }
        sections
    }
}

type MadeOf = (Vec<Box<dyn Collector>>, walk::Source);

#[cfg(target_os = "linux")]
fn make(setup: &Setup<'_>) -> MadeOf {
    match setup.config.back_end {
        BackEnd::Auto | BackEnd::Procfs => (linux::collectors(setup), linux::walk_source(setup.roots)),
        BackEnd::Sysinfo => (portable::collectors(setup), portable::walk_source()),
    }
}

#[cfg(not(target_os = "linux"))]
fn make(setup: &Setup<'_>) -> MadeOf {
    (portable::collectors(setup), portable::walk_source())
}
