//! Opens a log, appends to it and removes from it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::block::Packer;
use super::catalog::{SegmentInfo, View};
use super::format::{self, FIRST_OFFSET, RECORD_HEADER_BYTES, Seed, SegmentHeader};
use super::fs::{AppendFile, Fs, RealFs};
use super::scan::{self, Scan};
use super::{Damage, LogError, MAX_RECORD_BYTES, MAX_UNCOMMITTED_BYTES, Position, compress};

/// Capacity that the buffer of uncommitted records keeps after a commit.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Its directory; made if it is missing.
    pub dir: PathBuf,
    /// Size at which the next commit begins a new segment. A segment is larger than that by at most one commit.
    pub segment_bytes: u64,
    /// Whether the records of a commit are compressed together. Needs the feature `compress`. What was written otherwise
    /// is read all the same.
    pub compress: bool,
}

/// What was found when a log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// Bytes behind the last whole record, which a commit that was cut off leaves. They are gone.
    pub cut_bytes: u64,
    /// Damage before that record in the newest segment, the only one that was looked through. Every reader skips and
    /// counts it again.
    pub damage: Damage,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Appends to a log. There is one for each directory.
#[derive(Debug)]
pub struct Writer {
    segment_bytes: u64,
    view: View,
    current: Option<Current>,
    /// Number of the next segment that is made.
    next_number: u64,
    /// What was appended since the last commit, as it will lie in the current segment.
    uncommitted: Vec<u8>,
    /// What was appended after that and is yet to be compressed; None in a log that is not.
    packer: Option<Packer>,
    /// Segments and the lengths to which they still have to be cut; 0: to be removed. The disk did not let us.
    uncut: Vec<(u64, u64)>,
}

/// The segment that grows.
#[derive(Debug)]
struct Current {
    file: Box<dyn AppendFile>,
    number: u64,
    seed: Seed,
    /// Bytes that are committed; 0 for a new one.
    committed: u64,
}

impl Writer {
    /// Opens the log in a directory, or makes one.
    ///
    /// # Errors
    /// `Open`, also where it is to be compressed and this build cannot; `Newer`, `Compressed`, and `Remove` or `Sync` when the torn tail could not be cut. The log is as it was.
    pub fn open(options: LogOptions) -> Result<(Self, Opened), LogError> {
        Self::open_on(Arc::new(RealFs), options)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(fs: Arc<dyn Fs>, options: LogOptions) -> Result<(Self, Opened), LogError> {
        let LogOptions { dir, segment_bytes, compress } = options;
        let open_error = |source| LogError::Open { path: dir.clone(), source };
        let packer = compress.then(Packer::new).transpose().map_err(open_error)?;
        fs.create_dir(&dir).map_err(open_error)?;
        let files = fs.list(&dir).map_err(open_error)?;
        let mut segments: Vec<SegmentInfo> = files
            .into_iter()
            .filter_map(|(name, bytes)| Some(SegmentInfo { number: format::number_of(&name)?, bytes }))
            .collect();
        segments.sort_by_key(|segment| segment.number);
        let next_number = segments.last().map_or(1, |last| last.number.saturating_add(1));

        let mut opened = Opened::default();
        let mut kept = VecDeque::new();
        for segment in segments {
            if segment.bytes < FIRST_OFFSET {
                // Made by a commit that was cut off at once: no record fits in.
                let path = dir.join(format::file_name(segment.number));
                fs.remove(&path).map_err(|source| LogError::Remove { path, source })?;
                opened.cut_bytes += segment.bytes;
            } else {
                kept.push_back(segment);
            }
        }
        // Only to read with: the newest segment's length is not known yet.
        let unchecked = View::new(fs.clone(), dir.clone(), kept.clone());
        for segment in &kept {
            refuse_unreadable(&unchecked, segment.number)?;
        }
        if let Some(newest) = kept.back_mut() {
            let (end, damage) = end_of(&unchecked, *newest)?;
            opened.cut_bytes += newest.bytes - end;
            opened.damage = damage;
            // Also when nothing is cut: what a killed process wrote may be in the page cache only, and is about to be
            // called committed.
            let path = unchecked.path(newest.number);
            fs.cut(&path, end).map_err(|source| LogError::Sync { path, source })?;
            newest.bytes = end;
        }
        fs.sync_dir(&dir).map_err(|source| LogError::Sync { path: dir.clone(), source })?;

        let writer = Self {
            segment_bytes,
            view: View::new(fs, dir, kept),
            current: None,
            next_number,
            uncommitted: Vec::new(),
            packer,
            uncut: Vec::new(),
        };
        Ok((writer, opened))
    }

    /// What readers are made from.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Gives the next segment this number, or a higher one. For a log that was made anew while places of the one before it
    /// are still known to somebody: they mean nothing in it then.
    pub fn number_from(&mut self, number: u64) {
        self.next_number = self.next_number.max(number);
    }

    /// Whether somebody took away the file that grows: what is appended to it would be on no disk.
    pub fn is_taken_away(&self) -> bool {
        let committed = self.current.as_ref().filter(|current| current.committed > 0);
        committed.is_some_and(|current| {
            let opened = self.view.fs().open(&self.view.path(current.number));
            opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        })
    }

    /// Takes a record; [`commit`](Self::commit) brings it to disk.
    ///
    /// # Errors
    /// `TooLarge` and `Uncommitted`: only this record is not taken. `Write`: the next segment cannot be made; nothing
    /// waited for a commit.
    pub fn append(&mut self, payload: &[u8]) -> Result<(), LogError> {
        if payload.len() > MAX_RECORD_BYTES {
            return Err(LogError::TooLarge { len: payload.len() });
        }
        if self.waiting_bytes() + RECORD_HEADER_BYTES + payload.len() > MAX_UNCOMMITTED_BYTES {
            return Err(LogError::Uncommitted);
        }
        let (segment_bytes, is_idle) = (self.segment_bytes, self.waiting_bytes() == 0);
        let full = |current: &Current| current.committed >= segment_bytes && is_idle;
        let current = match self.current.take_if(|current| !full(current)) {
            Some(current) => current,
            None => self.new_segment()?,
        };
        match &mut self.packer {
            Some(packer) => packer.push(payload, current.seed, &mut self.uncommitted),
            None => format::put_record(&mut self.uncommitted, current.seed, payload),
        }
        self.current = Some(current);
        Ok(())
    }

    /// Bytes that wait for a commit, as they will lie on disk or somewhat more.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.uncommitted.len() + self.packer.as_ref().map_or(0, Packer::bytes)
    }

    /// Brings what was appended to disk, and lets readers see it. Gives the end of the log.
    ///
    /// # Errors
    /// `Write` and `Sync`: nothing stays of what was appended since the last commit.
    pub fn commit(&mut self) -> Result<Position, LogError> {
        if self.waiting_bytes() == 0 {
            return Ok(self.view.end());
        }
        self.cut_leftovers();
        // Taken out: a failure must not leave it for the next commit.
        let Some(mut current) = self.current.take() else { return Ok(self.view.end()) };
        if let Some(packer) = &mut self.packer {
            packer.flush(current.seed, &mut self.uncommitted);
        }
        let outcome = self.write_and_sync(&mut current);
        let written = self.uncommitted.len() as u64;
        self.uncommitted.clear();
        self.uncommitted.shrink_to(KEPT_BUFFER_BYTES);
        let path = self.view.path(current.number);
        match outcome {
            Ok(()) => {
                current.committed += written;
                self.view.publish(current.number, current.committed);
                self.current = Some(current);
                Ok(self.view.end())
            }
            Err(Failed::Write(source)) => {
                // Nothing was asked to be durable: cut to its committed length the file is what it was before.
                if current.committed > 0 && current.file.cut(current.committed).is_ok() {
                    self.current = Some(current);
                } else {
                    self.abandon(current);
                }
                Err(LogError::Write { path, source })
            }
            Err(Failed::Sync(source)) => {
                self.abandon(current);
                Err(LogError::Sync { path, source })
            }
        }
    }

    /// Removes the segments that end at or before `position`. The newest stays, unless it is full and can be replaced
    /// by an empty one.
    ///
    /// # Errors
    /// `Remove`: the oldest that should go and those after it are still there. `Write` or `Sync`: the empty segment
    /// could not be made; all others that should go are gone.
    pub fn remove_before(&mut self, position: Position) -> Result<Removed, LogError> {
        let mut removed = self.remove_passed(position)?;
        let full = self.view.newest().is_some_and(|newest| newest.bytes >= self.segment_bytes);
        if full && position >= self.view.end() && self.waiting_bytes() == 0 {
            let end = self.end_newest()?;
            let more = self.remove_passed(end)?;
            removed.segments += more.segments;
            removed.bytes += more.bytes;
        }
        Ok(removed)
    }

    /// Removes all that is committed: an empty segment, of some bytes, takes the place of the newest. While records wait
    /// for a commit the newest stays.
    ///
    /// # Errors
    /// As [`remove_before`](Self::remove_before); first the empty segment is made, and if that fails nothing is gone.
    pub fn remove_all(&mut self) -> Result<Removed, LogError> {
        if self.waiting_bytes() == 0 && self.view.newest().is_some_and(|newest| newest.bytes > FIRST_OFFSET) {
            self.end_newest()?;
        }
        self.remove_passed(self.view.end())
    }

    /// Removes the oldest segment whatever it holds, and tells which it was; for logs that must not grow. To know what
    /// was in it read it before: its records are those at [`View::first`] and after, up to the next number. None when
    /// there is nothing to remove: no record is committed, or all are in the newest and others wait for a commit.
    ///
    /// # Errors
    /// As [`remove_before`](Self::remove_before); the segment is still there.
    pub fn remove_oldest(&mut self) -> Result<Option<SegmentInfo>, LogError> {
        let segments = self.view.segments();
        let Some(oldest) = segments.first().copied() else { return Ok(None) };
        if segments.len() == 1 {
            if oldest.bytes <= FIRST_OFFSET || self.waiting_bytes() > 0 {
                return Ok(None);
            }
            self.end_newest()?;
        }
        self.remove_passed(oldest.end())?;
        Ok(Some(oldest))
    }

    /// Puts an empty segment behind the newest, and gives the end of the log. Nothing waits for a commit.
    fn end_newest(&mut self) -> Result<Position, LogError> {
        let current = self.new_segment()?;
        self.current = Some(current);
        self.commit()
    }

    fn remove_passed(&mut self, position: Position) -> Result<Removed, LogError> {
        let mut removed = Removed::default();
        while let Some(segment) = self.view.take_before(position) {
            let path = self.view.path(segment.number);
            match self.view.fs().remove(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    self.view.put_back(segment);
                    return Err(LogError::Remove { path, source });
                }
                _ => {}
            }
            self.uncut.retain(|(number, _)| *number != segment.number);
            removed.segments += 1;
            removed.bytes += segment.bytes;
        }
        Ok(removed)
    }

    /// Makes the next segment, its header waiting to be written. No number is tried twice.
    fn new_segment(&mut self) -> Result<Current, LogError> {
        let number = self.next_number;
        let path = self.view.path(number);
        self.next_number = number.saturating_add(1);
        let file = self.view.fs().create(&path).map_err(|source| LogError::Write { path, source })?;
        self.uncommitted.clear();
        let seed =
            format::put_segment_header(&mut self.uncommitted, number, format::salt(), self.packer.is_some());
        Ok(Current { file, number, seed, committed: 0 })
    }

    fn write_and_sync(&self, current: &mut Current) -> Result<(), Failed> {
        current.file.append(&self.uncommitted).map_err(Failed::Write)?;
        current.file.sync().map_err(Failed::Sync)?;
        if current.committed == 0 {
            self.view.fs().sync_dir(self.view.dir()).map_err(Failed::Sync)?;
        }
        Ok(())
    }

    /// Ends a segment where its last commit ended.
    fn abandon(&mut self, current: Current) {
        let Current { file, number, committed, .. } = current;
        drop(file);
        self.uncut.push((number, committed));
        self.cut_leftovers();
    }

    /// Cuts off what failed commits left behind. What cannot be cut now is tried again before the next commit; readers
    /// of this process do not see it, and one that finds it after a kill takes its whole records for committed.
    fn cut_leftovers(&mut self) {
        let view = &self.view;
        self.uncut.retain(|&(number, len)| {
            let path = view.path(number);
            let done = if len == 0 { view.fs().remove(&path) } else { view.fs().cut(&path, len) };
            done.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
    }
}

/// At which step a commit failed.
enum Failed {
    Write(io::Error),
    Sync(io::Error),
}

fn refuse_unreadable(view: &View, number: u64) -> Result<(), LogError> {
    let path = view.path(number);
    let header = view.fs().open(&path).and_then(|mut file| scan::read_header(&mut *file, number));
    match header {
        Ok(SegmentHeader::Newer(version)) => Err(LogError::Newer { path, version }),
        Ok(SegmentHeader::Good(seed)) if seed.has_blocks && !compress::IS_AVAILABLE => {
            Err(LogError::Compressed { path })
        }
        Ok(SegmentHeader::Good(_) | SegmentHeader::Damaged) => Ok(()),
        Err(error) if scan::is_bad_medium(&error) => Ok(()),
        Err(source) => Err(LogError::Open { path, source }),
    }
}

/// Where the last whole record of a segment ends, and what is damaged before it. A segment that cannot be read to its
/// end, or whose header is damaged, is left as long as it is: where its records end cannot be told.
fn end_of(view: &View, segment: SegmentInfo) -> Result<(u64, Damage), LogError> {
    let (mut end, mut damage, mut seen) = (FIRST_OFFSET, Damage::default(), Damage::default());
    let mut scan = match Scan::open(view, segment.number, FIRST_OFFSET, segment.bytes) {
        Ok(scan) => scan,
        Err(error) if scan::is_bad_medium(&error) => return Ok((segment.bytes, damage)),
        Err(source) => return Err(LogError::Open { path: view.path(segment.number), source }),
    };
    loop {
        match scan.next(&mut seen) {
            // Damage behind the last record is the torn tail.
            Ok(Some(_)) => (end, damage) = (scan.offset, seen),
            Ok(None) if scan.is_whole() => return Ok((end, damage)),
            Ok(None) => return Ok((segment.bytes, seen)),
            // Bounded: the walk skips what stays unreadable.
            Err(error) if scan::is_bad_medium(&error) => {}
            Err(source) => return Err(LogError::Open { path: view.path(segment.number), source }),
        }
    }
}
