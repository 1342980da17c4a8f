//! Temperature sensors: `/sys/class/hwmon`, else `/sys/class/thermal`, read on the thread for calls that may block.
//!
//! Names are those of Telegraf's current format: the chip's name and the sensor's label in lower case, blanks as `_`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitals_wire::bounded::{List, Text};
use vitals_wire::section::{Temperature, Temperatures};

use super::super::slow::{Answer, SlowItem, SlowReads};
use super::super::{Collector, Counters, Reading, Setup};
use super::file::Attribute;
use super::scan;

pub(super) struct TemperaturesCollector {
    sys: PathBuf,
    counters: Arc<Counters>,
    /// By the path of what is read; the order of readings is that of names.
    known: BTreeMap<PathBuf, Known>,
}

struct Known {
    sensor: String,
    call: Arc<SlowItem>,
}

/// A sensor as it was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    sensor: String,
    /// What tells two of the same name apart, whatever their order at a start: the device.
    device: String,
    path: PathBuf,
}

impl TemperaturesCollector {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        Self { sys: setup.roots.sys.clone(), counters: setup.counters.clone(), known: BTreeMap::new() }
    }
}

impl Collector for TemperaturesCollector {
    fn prepare(&mut self, slow: &mut SlowReads, rescan: bool) {
        if !rescan {
            return;
        }
        let mut old = std::mem::take(&mut self.known);
        for Found { sensor, path, .. } in find(&self.sys) {
            let call = match old.remove(&path) {
                Some(known) => known.call,
                // Sensors of a chip that went to sleep answer errors and wake again: the file stays open.
                None => match Attribute::open(&path) {
                    Ok(file) => slow.add(path.display().to_string(), false, move || {
                        file.number().map_or(Answer::Failed, Answer::Number)
                    }),
                    Err(_) => continue,
                },
            };
            self.known.insert(path, Known { sensor, call });
        }
    }

    fn collect(&mut self, reading: &mut Reading<'_>) {
        let answered = self.known.values().filter_map(|known| {
            let Some(Answer::Number(value)) = known.call.take() else { return None };
            Some(Temperature { sensor: Text::cut(&known.sensor), millidegrees: value.try_into().ok()? })
        });
        let mut sensors: Vec<Temperature> = answered.collect();
        if sensors.is_empty() {
            return;
        }
        sensors.sort_by(|a, b| a.sensor.cmp(&b.sensor));
        let (sensors, left_out) = List::first(sensors);
        self.counters.leave_out("sensors", left_out);
        reading.sections.push(Temperatures { sensors }.into());
    }
}

/// All sensors, with names of their own.
fn find(sys: &Path) -> Vec<Found> {
    let mut found = find_hwmon(sys);
    if found.is_empty() {
        found = find_thermal(sys);
    }
    found.sort();
    // Two disks of one kind have sensors of the same name: the second gets `_2`.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for sensor in &mut found {
        let count = seen.entry(sensor.sensor.clone()).or_default();
        *count += 1;
        if *count > 1 {
            sensor.sensor = format!("{}_{count}", sensor.sensor);
        }
    }
    found
}

/// Entries of a directory whose names begin so, if it can be read.
fn entries(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let is_named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    entries.flatten().map(|entry| entry.path()).filter(is_named).collect()
}

fn text(path: &Path) -> Option<String> {
    let text = scan::trimmed(&std::fs::read(path).ok()?);
    (!text.is_empty()).then_some(text)
}

fn find_hwmon(sys: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for chip in entries(&sys.join("class/hwmon"), "hwmon") {
        // Old kernels have the files one level deeper.
        for dir in [chip.clone(), chip.join("device")] {
            let device = std::fs::read_link(dir.join("device")).ok();
            let device = device
                .as_deref()
                .and_then(Path::file_name)
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            for input in entries(&dir, "temp") {
                let Some(file) = input.file_name().and_then(|name| name.to_str()) else { continue };
                let Some(number) = file.strip_suffix("_input") else { continue };
                let mut sensor = text(&dir.join("name")).unwrap_or_else(|| device.to_owned());
                if let Some(label) = text(&dir.join(format!("{number}_label"))) {
                    sensor = format!("{sensor}_{}", label.to_lowercase().replace(' ', "_"));
                }
                if !sensor.is_empty() {
                    found.push(Found { sensor, device: device.to_owned(), path: input });
                }
            }
            if !found.is_empty() && dir == chip && !entries(&dir, "temp").is_empty() {
                break;
            }
        }
    }
    found
}

fn find_thermal(sys: &Path) -> Vec<Found> {
    let zones = entries(&sys.join("class/thermal"), "thermal_zone");
    zones
        .into_iter()
        .filter_map(|zone| {
            let device = zone.file_name()?.to_str()?.to_owned();
            Some(Found { sensor: text(&zone.join("type"))?, device, path: zone.join("temp") })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        find(dir.path()).into_iter().map(|found| found.sensor).collect()
    }

    #[test]
    fn names_are_telegrafs() {
        let dir = tree(&[
            ("class/hwmon/hwmon0/name", "coretemp\n"),
            ("class/hwmon/hwmon0/temp1_input", "45000\n"),
            ("class/hwmon/hwmon0/temp1_label", "Package id 0\n"),
            ("class/hwmon/hwmon0/temp2_input", "44000\n"),
            ("class/hwmon/hwmon0/temp2_label", "Core 0\n"),
            ("class/hwmon/hwmon0/temp2_max", "100000\n"),
            ("class/hwmon/hwmon1/name", "acpitz\n"),
            ("class/hwmon/hwmon1/temp1_input", "27800\n"),
            ("class/thermal/thermal_zone0/type", "x86_pkg_temp\n"),
            ("class/thermal/thermal_zone0/temp", "1\n"),
        ]);
        assert_eq!(names(&dir), ["acpitz", "coretemp_core_0", "coretemp_package_id_0"]);
    }

    #[test]
    fn two_disks_of_one_kind_keep_their_sensors_apart() {
        let dir = tree(&[
            ("class/hwmon/hwmon0/name", "nvme\n"),
            ("class/hwmon/hwmon0/temp1_input", "1\n"),
            ("class/hwmon/hwmon0/temp1_label", "Composite\n"),
            ("class/hwmon/hwmon1/name", "nvme\n"),
            ("class/hwmon/hwmon1/temp1_input", "2\n"),
            ("class/hwmon/hwmon1/temp1_label", "Composite\n"),
        ]);
        assert_eq!(names(&dir), ["nvme_composite", "nvme_composite_2"]);
    }

    #[test]
    fn thermal_zones_serve_where_there_is_no_hwmon_and_old_kernels_files_lie_deeper() {
        let zones = tree(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal\n"),
            ("class/thermal/thermal_zone0/temp", "1\n"),
        ]);
        assert_eq!(names(&zones), ["cpu-thermal"]);
        let old = tree(&[
            ("class/hwmon/hwmon0/device/name", "coretemp\n"),
            ("class/hwmon/hwmon0/device/temp1_input", "45000\n"),
        ]);
        assert_eq!(names(&old), ["coretemp"]);
        assert_eq!(names(&tree(&[])), [""; 0]);
    }
}
