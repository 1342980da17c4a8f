//! The spool: samples that wait on disk until a server settles them.
//!
//! A directory with a log ([`vitals_wire::log`], not compressed) and a small [`header`] beside it. It is made when the
//! first sample is put into it. A record of the log is one byte, 1 for a sample that was sent before and 0 for one that
//! was not, and the sample as [`vitals_wire::sample::encode_sample`] writes it.
//!
//! [`Spool`] has no thread and no clock: it does what it is asked by [`job::Job`]s, on the thread of who asks.
//!
//! # Invariants
//!
//! - What is put is on disk when the answer says so.
//! - The cursor in the header stands before every sample that is neither settled nor dropped. What lies before it goes:
//!   first the header is replaced, then segments are removed. A kill between the two leaves segments that nobody needs,
//!   which go at the next start.
//! - Samples that have to go for the cap are counted in the same header that moves the cursor behind them: whatever
//!   happens between any two calls, they are there and not counted, or counted and not read again.
//! - Only where a full disk has no room for the header, one segment that is settled or dropped goes before that is noted.
//! - Reading a sample twice is harmless, and happens: the cursor follows what is settled at some distance.

pub mod header;
pub mod job;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use vitals_wire::log::{
    Fs, LogError, LogOptions, MAX_RECORD_BYTES, Position, RECORD_HEADER_BYTES, Reader, RealFs, View, Writer,
};
use vitals_wire::sample::decode_sample;

use crate::queue::content_hash;
use header::{Found, Header};
use job::{Drops, Gone, Job, Keep, Kept, Opened, Outcome, Record, Standing};

/// Bytes that a spool takes at most unless told otherwise.
pub const DEFAULT_MAX_BYTES: u64 = 64 << 20;
/// A full spool gives up a segment at a time, which is about this part of it.
const SEGMENTS: u64 = 32;
const SMALLEST_SEGMENT_BYTES: u64 = 1 << 10;
const LARGEST_SEGMENT_BYTES: u64 = 1 << 20;
/// Errors in a row at which counting what is kept gives up: it is an estimate then.
const MAX_COUNT_ERRORS: u32 = 64;
/// Bytes of a record beside the sample.
pub const EXTRA_BYTES: usize = RECORD_HEADER_BYTES + 1;

/// What went wrong; all that was kept is still kept.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The log: see there. Mostly worth trying again.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The header could not be read or replaced. Worth trying again.
    #[error("cannot {what} {}: {source}", path.display())]
    Header {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A later version of Vitals wrote the header. Nothing was changed; only that version, or a later one, can go on with
    /// it.
    #[error("{} was written by a newer version of Vitals (version {version}): start that version", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The sample is larger than the spool may be. Trying again is no use for it.
    #[error("a sample of {len} bytes has no room in a spool of {max}")]
    TooLarge {
        /// Its bytes.
        len: usize,
        /// Bytes that the spool may take.
        max: u64,
    },
}

impl SpoolError {
    fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Header { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// A spool in a directory of its own.
pub struct Spool {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    max_bytes: u64,
    header: Header,
    /// Whether the header says what the file says, as far as it matters.
    lost_header: bool,
    /// Open while there is something in it.
    log: Option<Writer>,
    /// The highest number of a segment so far: a place that was given out means the same for ever.
    highest: u64,
    /// A reader that met an error, and where it began: it counts how often it was tried.
    stuck: Option<(Position, Reader)>,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("dir", &self.dir).field("header", &self.header).finish_non_exhaustive()
    }
}

impl Spool {
    /// A spool in `dir` of the real file system; nothing is touched before the first job.
    pub fn new(dir: &Path, max_bytes: u64) -> Self {
        Self::new_on(Arc::new(RealFs), dir, max_bytes)
    }

    /// The same on another file system.
    pub fn new_on(fs: Arc<dyn Fs>, dir: &Path, max_bytes: u64) -> Self {
        Self {
            fs,
            dir: dir.to_owned(),
            max_bytes,
            header: Header::default(),
            lost_header: false,
            log: None,
            highest: 0,
            stuck: None,
        }
    }

    /// What was ever dropped, as the header has it.
    pub fn drops(&self) -> Drops {
        self.header.drops
    }

    fn header_path(&self) -> PathBuf {
        self.dir.join("header")
    }

    fn standing(&self) -> Standing {
        let bytes = self.log.as_ref().map_or(0, |log| log.view().bytes());
        Standing { cursor: self.header.cursor, bytes }
    }

    /// Finds out what is kept. Makes nothing.
    fn open(&mut self) -> Result<Opened, SpoolError> {
        (self.log, self.stuck) = (None, None);
        let is_there = match self.fs.list(&self.dir) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(source) => return Err(LogError::Open { path: self.dir.clone(), source }.into()),
        };
        let mut opened = Opened { max_bytes: Some(self.max_bytes), ..Opened::default() };
        if is_there {
            self.open_log()?;
            let (counted, damaged) = self.count();
            (opened.samples, opened.first_ms) = counted;
            if opened.samples == 0 {
                // Whatever is left of it nobody will read.
                opened.damaged += damaged.map_or(0, |stretches| self.rest(stretches));
            }
            opened.standing = self.standing();
        }
        opened.drops = self.header.drops;
        opened.damaged += u64::from(self.lost_header);
        Ok(opened)
    }

    /// Nothing waits but so many damaged stretches: keeps no file open, and next to nothing on disk. Gives how many of
    /// them are counted now.
    fn rest(&mut self, damaged: u64) -> u64 {
        let Some(end) = self.log.as_ref().map(|log| log.view().end()) else { return 0 };
        let drops = Drops { damaged, ..Drops::default() };
        // What cannot go now goes with the next samples.
        self.pass(end, drops).map_or(0, |_| damaged)
    }

    /// Opens log and header where they are not open.
    fn open_log(&mut self) -> Result<&mut Writer, SpoolError> {
        let log = match self.log.take() {
            Some(log) => log,
            None => {
                // First of all: a log is changed by opening it.
                self.read_header()?;
                let segment_bytes =
                    (self.max_bytes / SEGMENTS).clamp(SMALLEST_SEGMENT_BYTES, LARGEST_SEGMENT_BYTES);
                let options = LogOptions { dir: self.dir.clone(), segment_bytes, compress: false };
                let (mut log, _) = Writer::open_on(self.fs.clone(), options)?;
                log.number_from(self.highest.saturating_add(1));
                let view = log.view();
                // Somebody took segments away: their numbers come again.
                if self.header.cursor > view.end() {
                    self.header.cursor = view.first();
                    self.write_header(self.header)?;
                }
                // What a kill left. What cannot be removed now is in nobody's way.
                let _ = log.remove_before(self.header.cursor);
                log
            }
        };
        Ok(self.log.insert(log))
    }

    fn read_header(&mut self) -> Result<(), SpoolError> {
        let path = self.header_path();
        match self.fs.read(&path).map(|bytes| Header::of(&bytes)) {
            Ok(Found::Good(header)) => self.header = header,
            Ok(Found::Newer(version)) => return Err(SpoolError::Newer { path, version }),
            Ok(Found::Damaged) => (self.header, self.lost_header) = (Header::default(), true),
            // Taken away, if there was one: what it counted is not forgotten.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.header.cursor = Position::default(),
            Err(source) => return Err(SpoolError::Header { what: "read", path, source }),
        }
        Ok(())
    }

    fn write_header(&mut self, header: Header) -> Result<(), SpoolError> {
        let path = self.header_path();
        self.fs.replace(&path, &header.to_bytes()).map_err(|source| SpoolError::Header {
            what: "write",
            path,
            source,
        })?;
        self.header = header;
        Ok(())
    }

    /// Samples behind the cursor and the time of the first; and damaged stretches there, if all of it could be looked at.
    fn count(&self) -> ((u64, Option<i64>), Option<u64>) {
        let Some(view) = self.log.as_ref().map(Writer::view) else { return ((0, None), None) };
        let mut reader = view.reader(self.header.cursor);
        let (mut samples, mut first_ms, mut errors) = (0, None, 0);
        while errors < MAX_COUNT_ERRORS {
            match reader.next_entry() {
                Ok(Some(entry)) => {
                    if first_ms.is_none() {
                        first_ms = record(entry.payload).map(|(time_ms, _)| time_ms);
                    }
                    (samples, errors) = (samples + 1, 0);
                }
                Ok(None) => return ((samples, first_ms), Some(reader.damage().stretches)),
                Err(_) => errors += 1,
            }
        }
        ((samples, first_ms), None)
    }

    fn first_ms(&self) -> Option<i64> {
        let mut reader = self.log.as_ref()?.view().reader(self.header.cursor);
        let entry = reader.next_entry().ok()??;
        record(entry.payload).map(|(time_ms, _)| time_ms)
    }

    fn put(&mut self, samples: &[Record]) -> Result<Outcome, SpoolError> {
        if self.log.as_ref().is_some_and(Writer::is_taken_away) {
            self.log = None;
        }
        let max = self.max_bytes;
        self.open_log()?;
        let cursor = self.header.cursor;
        let log = self.open_log()?;
        let mut free = max.saturating_sub(log.view().bytes());
        let needed = samples.first().map_or(0, |first| first.encoded.len() + EXTRA_BYTES);
        if needed as u64 > free {
            log.remove_before(cursor)?;
            free = max.saturating_sub(log.view().bytes());
        }
        if needed as u64 > max / 2 || needed > MAX_RECORD_BYTES {
            return Err(SpoolError::TooLarge { len: needed, max });
        }
        let mut taken = 0;
        let mut payload = Vec::new();
        for sample in samples {
            let Some(left) = free.checked_sub((sample.encoded.len() + EXTRA_BYTES) as u64) else { break };
            payload.clear();
            payload.push(u8::from(sample.was_sent));
            payload.extend_from_slice(&sample.encoded);
            match log.append(&payload) {
                Ok(()) => {}
                // The others of this kind wait for the next job.
                Err(LogError::Uncommitted | LogError::TooLarge { .. }) if taken > 0 => break,
                Err(error) => return Err(self.write_failed(error)),
            }
            (free, taken) = (left, taken + 1);
        }
        if taken == 0 {
            return Ok(Outcome::Full);
        }
        if let Err(error) = log.commit() {
            return Err(self.write_failed(error));
        }
        Ok(Outcome::Put { samples: taken, standing: self.standing() })
    }

    /// A directory that was taken away is made anew by the next attempt.
    fn write_failed(&mut self, error: LogError) -> SpoolError {
        if let LogError::Write { source, .. } = &error
            && source.kind() == io::ErrorKind::NotFound
        {
            self.log = None;
        }
        error.into()
    }

    fn read(&mut self, from: Position, samples: usize, bytes: usize) -> Result<Outcome, SpoolError> {
        let from = from.max(self.header.cursor);
        let view = self.open_log()?.view().clone();
        let mut reader = match self.stuck.take() {
            Some((place, reader)) if place == from => reader,
            _ => view.reader(from),
        };
        let (mut found, mut size) = (Vec::<Kept>::new(), 0);
        // Stretches so far, and those of them that were told; a whole record that is no sample is as good as damaged.
        let (mut strange, mut told) = (0, 0);
        let mut after = from;
        let is_end = loop {
            if found.len() >= samples || size >= bytes {
                break false;
            }
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break true,
                Err(_) if !found.is_empty() => break false,
                Err(error) => {
                    self.stuck = Some((from, reader));
                    return Err(error.into());
                }
            };
            after = entry.after;
            let Some((time_ms, record)) = record(entry.payload) else {
                strange += 1;
                continue;
            };
            size += record.encoded.len();
            let seen = reader.damage().stretches + strange;
            found.push(Kept { time_ms, record, after, damaged: seen - told });
            told = seen;
        };
        if is_end {
            after = reader.position().max(after);
        }
        let damaged = if is_end { reader.damage().stretches + strange - told } else { 0 };
        Ok(Outcome::Read { samples: found, after, is_end, damaged })
    }

    fn pass(&mut self, to: Position, drops: Drops) -> Result<Outcome, SpoolError> {
        self.open_log()?;
        let mut header = self.header;
        header.cursor = header.cursor.max(to);
        header.drops.add(drops);
        let mut written = if header == self.header { Ok(()) } else { self.write_header(header) };
        if matches!(&written, Err(error) if error.is_full()) && self.remove_one_before(to) {
            written = self.write_header(header);
        }
        if written.is_err() && drops != Drops::default() {
            return written.map(|()| Outcome::Passed(self.standing()));
        }
        // Without a header what goes is not known to be settled, and not there to be sent again either. On a full disk
        // that is what makes room. What cannot be removed now goes next time.
        let log = self.open_log()?;
        let is_drained = to >= log.view().end();
        if !is_drained || log.remove_all().is_err() {
            let _ = log.remove_before(to);
        }
        let standing = self.standing();
        if is_drained && written.is_ok() {
            // Nothing waits: no file stays open.
            self.log = None;
        }
        written.map(|()| Outcome::Passed(standing))
    }

    /// A full disk has no room even for the header. If it is the spool that fills it, only the spool can help: the oldest
    /// segment goes, if all of it may, and what was dropped of it is counted next.
    fn remove_one_before(&mut self, to: Position) -> bool {
        let Ok(log) = self.open_log() else { return false };
        let Some(oldest) = log.view().segments().first().copied() else { return false };
        let end = Position { segment: oldest.number, offset: oldest.bytes };
        end <= to && log.remove_before(end).is_ok_and(|removed| removed.segments > 0)
    }

    fn make_room(&mut self, settled: &[i64], under_way: &[i64]) -> Result<Outcome, SpoolError> {
        let cursor = self.header.cursor;
        let log = self.open_log()?;
        let Some(oldest) = log.view().segments().first().copied() else {
            return Ok(Outcome::Room { gone: Vec::new(), first_ms: None, standing: self.standing() });
        };
        let (gone, damaged) = records_of(log.view(), cursor, oldest.number)?;
        if gone.iter().any(|(time_ms, _)| under_way.contains(time_ms)) {
            return Ok(Outcome::Held);
        }
        let gone: Vec<Gone> = gone
            .into_iter()
            .map(|(time_ms, hash)| Gone { time_ms, hash, was_settled: settled.contains(&time_ms) })
            .collect();
        let mut header = self.header;
        header.cursor = header.cursor.max(Position { segment: oldest.number, offset: oldest.bytes });
        header.drops.spool_full += gone.iter().filter(|gone| !gone.was_settled).count() as u64;
        header.drops.damaged += damaged;
        self.write_header(header)?;
        // What cannot be removed now goes before the next put; until then the spool stays full.
        let _ = self.open_log()?.remove_oldest();
        let first_ms = self.first_ms();
        Ok(Outcome::Room { gone, first_ms, standing: self.standing() })
    }
}

impl Keep for Spool {
    fn perform(&mut self, job: Job) -> Outcome {
        let done = match job {
            Job::Open => self.open().map(Outcome::Opened),
            Job::Put { samples } => self.put(&samples),
            Job::Read { from, samples, bytes } => self.read(from, samples, bytes),
            Job::Pass { to, drops } => self.pass(to, drops),
            Job::MakeRoom { settled, under_way } => self.make_room(&settled, &under_way),
        };
        let end = self.log.as_ref().map_or(0, |log| log.view().end().segment);
        self.highest = self.highest.max(end);
        done.unwrap_or_else(|error| {
            let is_final = match &error {
                SpoolError::Log(error) => !error.can_try_again(),
                SpoolError::Newer { .. } => true,
                SpoolError::Header { .. } | SpoolError::TooLarge { .. } => false,
            };
            Outcome::Failed { why: error.to_string(), is_final }
        })
    }
}

/// Time and content of a record; `None` where it is no sample.
fn record(payload: &[u8]) -> Option<(i64, Record)> {
    let (&flag, encoded) = payload.split_first()?;
    let sample = decode_sample(encoded).ok()?;
    Some((sample.time_ms, Record { encoded: encoded.into(), was_sent: flag != 0 }))
}

/// Times and hashes of a segment's samples behind `cursor`, and damaged stretches among them.
fn records_of(view: &View, cursor: Position, segment: u64) -> Result<(Vec<(i64, u64)>, u64), SpoolError> {
    let mut found = Vec::new();
    let mut damaged = 0;
    let mut errors = 0;
    if cursor.segment > segment {
        return Ok((found, damaged));
    }
    let mut reader = view.reader(cursor);
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) if entry.at.segment == segment => match record(entry.payload) {
                Some((time_ms, record)) => found.push((time_ms, content_hash(&record.encoded))),
                None => damaged += 1,
            },
            Ok(_) => return Ok((found, damaged + reader.damage().stretches)),
            // What cannot be read now is lost all the same, unless it is the whole disk that is away for a moment.
            Err(error) if errors >= MAX_COUNT_ERRORS => return Err(error.into()),
            Err(_) => errors += 1,
        }
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
