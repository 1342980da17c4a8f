//! What was taken and what became of it, as JSON lines.
//!
//! ```text
//! {"event":"taken","host":"3f…","name":"sim-00001","time_ms":1767225600000,"hash":"8594…"}
//! {"event":"settled","host":"3f…","name":"sim-00001","time_ms":1767225600000,"hash":"8594…","age_ms":3.1}
//! {"event":"dropped","host":"3f…","name":"sim-00001","time_ms":1767225600000,"hash":"8594…","reason":"queue_full"}
//! ```
//!
//! `hash` is [`crate::queue::content_hash`] of the sample as [`vitals_wire::sample::encode_sample`] writes it, in 16
//! hexadecimal digits. A line is handed to the system, with one write, before what it tells of can be seen by others: the
//! `taken` of a sample before it can be sent. So the record of a simulation that is killed can be trusted; a settled or
//! dropped sample of which the process did not come to tell is settled or dropped again by the next one, but for what is
//! dropped because a spool is full (the spool's header counts those). A simulation that ends in the middle of a line may
//! leave it torn; the next begins a line of its own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use vitals_wire::ids::HostId;

use crate::link::event::Event;

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    host: &'a str,
    name: &'a str,
    time_ms: i64,
    hash: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A file of such lines, shared by all hosts.
#[derive(Debug)]
pub struct Record {
    file: Mutex<File>,
}

impl Record {
    /// Begins a new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Mutex::new(File::create(path)?) })
    }

    /// Goes on with the file, if there is one.
    pub fn append(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(Self { file: Mutex::new(file) })
    }

    /// Writes what `event` says about a sample; others are left out.
    pub fn write(&self, host: HostId, name: &str, event: &Event) -> io::Result<()> {
        let (what, time_ms, hash, age, reason) = match event {
            Event::Taken { time_ms, hash } => ("taken", time_ms, hash, None, None),
            Event::Settled { time_ms, hash, age } => ("settled", time_ms, hash, age.map(millis), None),
            Event::Dropped { time_ms, hash, loss } => {
                ("dropped", time_ms, hash, None, Some(loss.to_string()))
            }
            _ => return Ok(()),
        };
        let line = Line {
            event: what,
            host: &host.to_string(),
            name,
            time_ms: *time_ms,
            hash: &format!("{hash:016x}"),
            age_ms: age,
            reason,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        // One write a line, so that none is torn; a poisoned lock only means that another write panicked.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
    }
}

/// A time in ms with three decimals.
pub fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
