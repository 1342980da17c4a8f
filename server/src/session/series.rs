//! How many distinct series a host may have in 24 h: plain logic without clocks.
//!
//! A host that names a new disk, container or process each second would make history and InfluxDB grow without end. What
//! is beyond the cap is taken out of a sample before anybody sees it, so that the live picture, the journal, and with it
//! history and every InfluxDB, hold the same. Whether a series is within the cap is decided when it first comes and holds
//! while it is heard; so a sample that is sent again is cut as it was, unless a series was forgotten in between or the
//! server was started anew. Then what comes in addition is added to what is stored of it, in history and in InfluxDB alike.
//!
//! Only series whose names a host chooses count; the others are few. What only the server may say of itself and of hosts
//! is taken out of a host's sample altogether.

use std::hash::{DefaultHasher, Hash, Hasher};

use vitals_wire::bounded::List;
use vitals_wire::sample::Sample;
use vitals_wire::section::Section;

/// Time after which a series that was not heard counts no more, in minutes.
const FORGOTTEN: u16 = 24 * 60;
/// Time between two looks for what is to be forgotten, in minutes; far shorter than the time in which minutes repeat.
const SWEEP: u16 = 60;
/// Share of the cap that names of processes may take.
const PROCESSES: (usize, usize) = (2, 5);
/// Series that are named where some are dropped.
const MAX_NAMED: usize = 5;

/// The measurements whose series count, or that no host may send.
pub const MEASUREMENTS: [&str; 9] = [
    "cpu",
    "disk",
    "diskio",
    "net",
    "temp",
    "vitals_process",
    "vitals_client",
    "vitals_server",
    "vitals_event",
];

/// The series of one host. 8 bytes each: 47 bits of a hash, one that says whether it is a process, 16 of the minute in
/// which it was last heard; ascending.
#[derive(Debug, Default)]
pub(super) struct SeriesBook {
    known: Vec<u64>,
    processes: usize,
    swept: u16,
}

/// What was taken out of samples.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Surplus {
    /// How many points, by measurement, in the order of [`MEASUREMENTS`].
    pub(super) points: [u64; MEASUREMENTS.len()],
    /// Some of their series, for people.
    pub(super) named: Vec<String>,
}

impl Surplus {
    fn note(&mut self, measurement: usize, name: impl FnOnce() -> String) {
        self.points[measurement] += 1;
        if self.named.len() < MAX_NAMED {
            self.named.push(format!("{} {}", MEASUREMENTS[measurement], name()));
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.points.iter().sum()
    }
}

impl SeriesBook {
    /// Takes out of a sample what is beyond `cap` series. `minute` counts from any fixed moment, and may begin anew.
    pub(super) fn trim(&mut self, sample: &mut Sample, cap: u32, minute: u16, surplus: &mut Surplus) {
        let is_ours = |section: &Section| matches!(section, Section::ServerHealth(_) | Section::Events(_));
        if sample.sections.iter().any(is_ours) {
            sample.sections.retain(|section| {
                let measurement = if matches!(section, Section::Events(_)) { 8 } else { 7 };
                let is_ours = is_ours(section);
                if is_ours {
                    surplus.note(measurement, || "of a host".to_owned());
                }
                !is_ours
            });
        }
        let mut page = Page { book: self, cap: cap as usize, minute, surplus };
        let sections = std::mem::take(&mut sample.sections).into_vec();
        let sections = sections.into_iter().map(|mut section| {
            match &mut section {
                Section::Cpu(cpu) => {
                    page.keep(
                        &mut cpu.cores,
                        0,
                        |core, h| core.number.hash(h),
                        |core| core.number.to_string(),
                    );
                }
                Section::FileSystems(all) => page.keep(
                    &mut all.file_systems,
                    1,
                    |fs, h| (&*fs.device, &*fs.fstype, fs.read_only, &*fs.path).hash(h),
                    |fs| fs.path.to_string(),
                ),
                Section::DiskIo(all) => {
                    page.keep(
                        &mut all.disks,
                        2,
                        |disk, h| (*disk.name).hash(h),
                        |disk| disk.name.to_string(),
                    );
                }
                Section::Network(all) => {
                    page.keep(
                        &mut all.interfaces,
                        3,
                        |net, h| (*net.name).hash(h),
                        |net| net.name.to_string(),
                    );
                }
                Section::Temperatures(all) => {
                    page.keep(
                        &mut all.sensors,
                        4,
                        |one, h| (*one.sensor).hash(h),
                        |one| one.sensor.to_string(),
                    );
                }
                Section::TopProcesses(all) => {
                    page.keep(
                        &mut all.groups,
                        PROCESS,
                        |one, h| (*one.name).hash(h),
                        |one| one.name.to_string(),
                    );
                }
                Section::ClientHealth(health) => {
                    page.keep(
                        &mut health.dropped,
                        6,
                        |one, h| (*one.reason).hash(h),
                        |one| one.reason.to_string(),
                    );
                }
                _ => {}
            }
            section
        });
        // As many as there were.
        sample.sections = List::first(sections.collect()).0;
    }

    /// Whether a series is within the cap; notes that it was heard.
    fn admit(&mut self, hash: u64, is_process: bool, cap: usize, minute: u16) -> bool {
        if minute.wrapping_sub(self.swept) >= SWEEP {
            self.forget(minute);
        }
        let key = hash & !0x1_ffff | u64::from(is_process) << 16;
        let place = self.known.partition_point(|known| known & !0xffff < key);
        if let Some(known) = self.known.get_mut(place).filter(|known| **known & !0xffff == key) {
            *known = key | u64::from(minute);
            return true;
        }
        let is_full = |book: &Self| {
            book.known.len() >= cap || is_process && book.processes >= cap * PROCESSES.0 / PROCESSES.1
        };
        if is_full(self) {
            // Once a minute, a series may have been forgotten meanwhile.
            if self.swept == minute {
                return false;
            }
            self.forget(minute);
            if is_full(self) {
                return false;
            }
        }
        let place = self.known.partition_point(|known| *known < key);
        self.known.insert(place, key | u64::from(minute));
        self.processes += usize::from(is_process);
        true
    }

    fn forget(&mut self, minute: u16) {
        self.swept = minute;
        self.known.retain(|known| minute.wrapping_sub(*known as u16) < FORGOTTEN);
        self.processes = self.known.iter().filter(|known| *known & 0x1_0000 != 0).count();
        self.known.shrink_to_fit();
    }
}

/// The place of `vitals_process` among the measurements.
const PROCESS: usize = 5;

/// A book with what is written into it now.
struct Page<'a> {
    book: &'a mut SeriesBook,
    cap: usize,
    minute: u16,
    surplus: &'a mut Surplus,
}

impl Page<'_> {
    fn keep<T, const MAX: usize>(
        &mut self,
        entries: &mut List<T, MAX>,
        measurement: usize,
        tags: impl Fn(&T, &mut DefaultHasher),
        name: impl Fn(&T) -> String,
    ) {
        entries.retain(|entry| {
            let mut hasher = DefaultHasher::new();
            measurement.hash(&mut hasher);
            tags(entry, &mut hasher);
            let is_known = self.book.admit(hasher.finish(), measurement == PROCESS, self.cap, self.minute);
            if !is_known {
                self.surplus.note(measurement, || name(entry));
            }
            is_known
        });
    }
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
