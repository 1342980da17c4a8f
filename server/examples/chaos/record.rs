//! What the simulation says that it took, and what became of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One sample.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// Of its content.
    pub hash: u64,
    /// It was taken: the others are told of samples that were.
    pub is_taken: bool,
    /// The server said that it is durable.
    pub is_settled: bool,
    /// It was given up, and counted so.
    pub is_dropped: bool,
}

/// All samples, by host and time in ms.
#[derive(Debug, Default)]
pub struct Record {
    /// By name and time.
    pub hosts: BTreeMap<String, BTreeMap<i64, Taken>>,
    /// Lines of drops, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Lines that a kill cut off.
    pub cut_lines: u64,
    /// What cannot be: a time that was used twice, or a sample that was settled with another content.
    pub faults: Vec<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    event: &'a str,
    name: &'a str,
    time_ms: i64,
    hash: &'a str,
    reason: Option<&'a str>,
}

impl Record {
    /// Reads these files, the oldest first.
    pub fn read(files: &[PathBuf]) -> io::Result<Self> {
        let mut record = Self::default();
        for file in files.iter().filter(|file| file.exists()) {
            for line in BufReader::new(File::open(file)?).split(b'\n') {
                let line = line?;
                let text = String::from_utf8_lossy(&line);
                match serde_json::from_str(&text) {
                    Ok(line) => record.take(&line),
                    Err(_) => record.take_torn(&text),
                }
            }
        }
        Ok(record)
    }

    /// A line that a kill cut off has the next one glued to it.
    fn take_torn(&mut self, text: &str) {
        self.cut_lines += 1;
        let whole = text.rfind("{\"event\"").and_then(|at| text.get(at..));
        if let Some(Ok(line)) = whole.map(serde_json::from_str) {
            self.take(&line);
        }
    }

    fn take(&mut self, line: &Line<'_>) {
        let hash = u64::from_str_radix(line.hash, 16).unwrap_or_default();
        if !self.hosts.contains_key(line.name) {
            self.hosts.insert(line.name.to_owned(), BTreeMap::new());
        }
        let Some(host) = self.hosts.get_mut(line.name) else { return };
        let sample = host.entry(line.time_ms).or_default();
        let what = match line.event {
            "taken" if sample.is_taken => "taken twice",
            "taken" => {
                (sample.is_taken, sample.hash) = (true, hash);
                return;
            }
            _ if !sample.is_taken => "never taken",
            _ if sample.hash != hash => "of another content than taken",
            "settled" => {
                sample.is_settled = true;
                return;
            }
            "dropped" => {
                if !std::mem::replace(&mut sample.is_dropped, true) {
                    *self.dropped.entry(line.reason.unwrap_or("no reason").to_owned()).or_default() += 1;
                }
                return;
            }
            other => other,
        };
        self.faults.push(format!("record: {} {} {}: {what}", line.name, line.time_ms, line.event));
    }
}

/// Counts lines of a file that grows.
#[derive(Debug, Default)]
pub struct Tail {
    offset: u64,
    /// Samples taken.
    pub taken: u64,
    /// Samples settled or dropped.
    pub done: u64,
}

impl Tail {
    /// Reads what was added.
    pub fn follow(&mut self, file: &Path) {
        // It is there once the simulation has begun.
        let Ok(mut file) = File::open(file) else { return };
        let mut text = Vec::new();
        if file.seek(SeekFrom::Start(self.offset)).is_err() || file.read_to_end(&mut text).is_err() {
            return;
        }
        let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else { return };
        self.offset += end as u64 + 1;
        for line in text.get(..end).unwrap_or_default().split(|byte| *byte == b'\n') {
            match line.starts_with(b"{\"event\":\"taken\"") {
                true => self.taken += 1,
                false => self.done += 1,
            }
        }
    }

    /// Samples that are neither settled nor dropped, those lost at kills among them.
    pub fn waiting(&self) -> u64 {
        self.taken.saturating_sub(self.done)
    }
}
