//! What a process holds, and whether that grows.

use std::fs;
use std::path::{Path, PathBuf};

/// A figure that grew by no more than this share is good,
const MOST_SHARE: f64 = 0.05;
/// or by no more than these bytes,
const MOST_BYTES: f64 = (4 << 20) as f64;
/// or, of a count, by no more than this.
const MOST_COUNT: f64 = 4.0;
const KIB: f64 = 1024.0;

/// In what a figure is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Pieces.
    Count,
}

/// One figure of one process over time.
#[derive(Debug)]
pub struct Figure {
    /// Whose.
    pub process: String,
    /// What.
    pub name: &'static str,
    /// In what.
    pub unit: Unit,
    /// One value a look.
    pub values: Vec<f64>,
}

/// The middle and the last third of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thirds {
    /// Median of the middle third.
    pub middle: f64,
    /// Median of the last third.
    pub last: f64,
    /// The most that the last may be.
    pub limit: f64,
}

impl Thirds {
    /// Whether it does not grow.
    pub fn is_good(&self) -> bool {
        self.last <= self.limit
    }
}

impl Figure {
    /// `None` with fewer than three values.
    pub fn thirds(&self) -> Option<Thirds> {
        let third = self.values.len() / 3;
        let middle = median(self.values.get(third..2 * third)?)?;
        let last = median(self.values.get(2 * third..)?)?;
        let slack = match self.unit {
            Unit::Bytes => MOST_BYTES,
            Unit::Count => MOST_COUNT,
        };
        Some(Thirds { middle, last, limit: middle + slack.max(middle * MOST_SHARE) })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// A process that is looked at, with the directory in which it keeps what waits.
#[derive(Debug)]
pub struct Watched {
    /// What it is called.
    pub name: &'static str,
    /// Its id.
    pub pid: u32,
    /// Its journal or spool.
    pub waiting: PathBuf,
}

/// The figures of these processes.
#[derive(Debug, Default)]
pub struct Figures(pub Vec<Figure>);

impl Figures {
    /// Looks once.
    pub fn look(&mut self, watched: &[Watched]) {
        for process in watched {
            for (name, unit, value) in look(process) {
                let of = |figure: &&mut Figure| figure.process == process.name && figure.name == name;
                match self.0.iter_mut().find(of) {
                    Some(figure) => figure.values.push(value),
                    None => {
                        let process = process.name.to_owned();
                        self.0.push(Figure { process, name, unit, values: vec![value] });
                    }
                }
            }
        }
    }

    /// A line for each look, a column for each figure.
    pub fn csv(&self) -> String {
        let names: Vec<String> =
            self.0.iter().map(|figure| format!("{}_{}", figure.process, figure.name)).collect();
        let mut text = names.join(",").replace(' ', "_");
        for look in 0..self.0.iter().map(|figure| figure.values.len()).max().unwrap_or_default() {
            let row = self.0.iter().map(|figure| figure.values.get(look).map(f64::to_string));
            text.push('\n');
            text.push_str(&row.map(Option::unwrap_or_default).collect::<Vec<_>>().join(","));
        }
        text
    }
}

fn look(process: &Watched) -> Vec<(&'static str, Unit, f64)> {
    let proc = PathBuf::from(format!("/proc/{}", process.pid));
    let mut found = Vec::new();
    let rollup = fs::read_to_string(proc.join("smaps_rollup")).unwrap_or_default();
    for (name, word) in [("RSS", "Rss:"), ("PSS", "Pss:"), ("anonymous", "Anonymous:")] {
        if let Some(value) = number(&rollup, word) {
            found.push((name, Unit::Bytes, value * KIB));
        }
    }
    if let Ok(files) = fs::read_dir(proc.join("fd")) {
        found.push(("open files", Unit::Count, files.count() as f64));
    }
    let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
    if let Some(value) = number(&status, "Threads:") {
        found.push(("threads", Unit::Count, value));
    }
    found.push(("waiting on disk", Unit::Bytes, bytes_below(&process.waiting) as f64));
    found
}

/// The number behind `word` at the beginning of a line.
fn number(text: &str, word: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

fn bytes_below(dir: &Path) -> u64 {
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    fs::read_dir(dir).into_iter().flatten().flatten().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(unit: Unit, values: impl IntoIterator<Item = f64>) -> Figure {
        Figure { process: "server".to_owned(), name: "RSS", unit, values: values.into_iter().collect() }
    }

    #[test]
    fn what_grows_after_the_first_third_is_found_and_what_grew_before_is_not() {
        let mib = f64::from(1 << 20);
        let grows = figure(Unit::Bytes, (0..300).map(|n| f64::from(n) * mib / 10.0));
        assert!(!grows.thirds().unwrap().is_good());
        let levels = figure(Unit::Bytes, (0..300).map(|n| f64::from(n.min(100)) * mib));
        assert!(levels.thirds().unwrap().is_good());
        let leaks = figure(Unit::Count, (0..300).map(|n| f64::from(n / 10)));
        assert!(!leaks.thirds().unwrap().is_good());
        let is_steady = figure(Unit::Count, (0..300).map(|n| f64::from(20 + n % 3)));
        assert!(is_steady.thirds().unwrap().is_good());
    }

    #[test]
    fn of_what_is_large_a_twentieth_is_allowed() {
        let grows = |by: f64| figure(Unit::Bytes, (0..9).map(|n| if n < 6 { 1e9 } else { 1e9 + by }));
        assert!(grows(4e7).thirds().unwrap().is_good());
        assert!(!grows(6e7).thirds().unwrap().is_good());
    }

    #[test]
    fn this_process_has_all_figures() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), [0; 7]).unwrap();
        let watched = Watched { name: "me", pid: std::process::id(), waiting: dir.path().to_owned() };
        let mut figures = Figures::default();
        figures.look(&[watched]);
        let values: Vec<f64> = figures.0.iter().map(|figure| figure.values[0]).collect();
        assert!(values.len() == 6 && values[..5].iter().all(|value| *value >= 1.0), "{figures:?}");
        assert_eq!(values[5], 7.0);
    }
}
