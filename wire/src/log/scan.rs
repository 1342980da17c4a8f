//! Reads the records of one segment, and finds the way over damaged bytes.

use std::io;

use super::format::{self, Claim, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, Seed, SegmentHeader};
use super::fs::{Fs, ReadFile};
use super::{Damage, View};

/// Bytes that are read at once, if there are so many.
const CHUNK_BYTES: usize = 128 << 10;
/// Work spent on finding the next record behind damaged bytes, as places tried plus bytes checksummed. A segment
/// that was made to look like records at every byte is given up after a second or so.
const SEARCH_LIMIT: u64 = 1 << 29;

/// Times in a row that a device may fail to read a place before the place counts as damaged.
pub(super) const PATIENCE: u32 = 8;
/// What is skipped when a device cannot read a place.
const PAGE_BYTES: u64 = 4096;

/// Whether a device could not read what it holds, as against an error that has nothing to do with the place.
pub(super) fn is_bad_medium(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    cfg!(unix) && error.raw_os_error() == Some(EIO)
}

/// A walk over one segment.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) number: u64,
    /// Where the next record begins.
    pub(super) offset: u64,
    /// Where the last record that may be read ends. Nothing behind it is looked at.
    limit: u64,
    /// Where the file was found to end, if before the limit.
    file_end: u64,
    /// None when the segment is gone or its header is damaged: then none of it can be read.
    source: Option<(Box<dyn ReadFile>, Seed)>,
    /// `buffer[start..]` are the file's bytes from `offset` on.
    buffer: Vec<u8>,
    start: usize,
    /// Where the damaged stretch began in which the walk is, and the work spent in it.
    damaged: Option<(u64, u64)>,
    /// Times in a row that the device failed to read.
    failures: u32,
    /// Whether some of the segment was passed over without having been looked at.
    gave_up: bool,
}

/// What the file of a segment holds at its beginning.
pub(super) fn read_header(file: &mut dyn ReadFile, number: u64) -> io::Result<SegmentHeader> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let mut have = 0;
    while have < header.len() {
        match file.read_at(have as u64, &mut header[have..])? {
            0 => break,
            read => have += read,
        }
    }
    Ok(format::segment_header(&header[..have], number))
}

impl Scan {
    /// Opens segment `number`. A header that is damaged is no error, its records are skipped; a file that is not there
    /// is one.
    pub(super) fn open(view: &View, number: u64, offset: u64, limit: u64) -> io::Result<Self> {
        let fs: &dyn Fs = view.fs();
        let mut file = fs.open(&view.path(number))?;
        let source = match read_header(&mut *file, number)? {
            SegmentHeader::Good(seed) => Some((file, seed)),
            SegmentHeader::Newer(_) | SegmentHeader::Damaged => None,
        };
        Ok(Self::new(number, offset, limit, source))
    }

    /// A segment whose file somebody took away.
    pub(super) fn lost(number: u64, offset: u64, limit: u64) -> Self {
        Self::new(number, offset, limit, None)
    }

    fn new(number: u64, offset: u64, limit: u64, source: Option<(Box<dyn ReadFile>, Seed)>) -> Self {
        Self {
            number,
            offset,
            limit,
            file_end: u64::MAX,
            source,
            buffer: Vec::new(),
            start: 0,
            damaged: None,
            failures: 0,
            gave_up: false,
        }
    }

    /// Whether all of it was looked at so far.
    pub(super) fn is_whole(&self) -> bool {
        self.source.is_some() && !self.gave_up
    }

    /// Moves over the next record and tells what its payload is, or None at the limit. Damaged bytes are skipped and
    /// added to `damage`. After an error the walk stands where it stood.
    pub(super) fn next(&mut self, damage: &mut Damage) -> io::Result<Option<Claim>> {
        while self.offset < self.limit {
            let found = match self.record_here() {
                Err(error) if is_bad_medium(&error) && self.failures >= PATIENCE => {
                    // Whatever was read of the record is of no use without the page that cannot be read.
                    let unreadable = self.offset + (self.buffer.len() - self.start) as u64;
                    let behind = (unreadable / PAGE_BYTES + 1) * PAGE_BYTES;
                    self.damaged.get_or_insert((self.offset, 0));
                    self.gave_up = true;
                    self.step(behind - self.offset);
                    continue;
                }
                Err(error) => {
                    self.failures += 1;
                    return Err(error);
                }
                Ok(found) => found,
            };
            if let Some(claim) = found {
                self.failures = 0;
                self.leave_damage(damage);
                self.step((RECORD_HEADER_BYTES + claim.len) as u64);
                return Ok(Some(claim));
            }
            let (_, work) = self.damaged.get_or_insert((self.offset, 0));
            *work += 1;
            if self.offset >= self.file_end {
                self.step(u64::MAX);
            } else if self.source.is_none() || *work > SEARCH_LIMIT {
                self.gave_up = true;
                self.step(u64::MAX);
            } else {
                self.step(1);
            }
        }
        self.leave_damage(damage);
        Ok(None)
    }

    /// Where the walk ends for now.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// More was committed.
    pub(super) fn grow(&mut self, limit: u64) {
        self.limit = limit;
        self.file_end = u64::MAX;
    }

    /// The payload over which `next` moved just now.
    pub(super) fn payload(&self, len: usize) -> &[u8] {
        &self.buffer[self.start - len..self.start]
    }

    fn step(&mut self, bytes: u64) {
        let bytes = bytes.min(self.limit - self.offset);
        self.offset += bytes;
        // What is not in the buffer is passed over by emptying it.
        let left = (self.buffer.len() - self.start) as u64;
        self.start += bytes.min(left) as usize;
    }

    fn leave_damage(&mut self, damage: &mut Damage) {
        if let Some((began, _)) = self.damaged.take() {
            damage.add(self.offset - began);
        }
    }

    /// What the header of the record that begins here says, if one does.
    fn record_here(&mut self) -> io::Result<Option<Claim>> {
        let Some(seed) = self.source.as_ref().map(|(_, seed)| *seed) else { return Ok(None) };
        if !self.fill(RECORD_HEADER_BYTES)? {
            return Ok(None);
        }
        let Some(header) = self.buffer[self.start..].first_chunk().copied() else { return Ok(None) };
        let Some(claim) = format::claim(seed, &header) else { return Ok(None) };
        let len = claim.len;
        if !self.fill(RECORD_HEADER_BYTES + len)? {
            return Ok(None);
        }
        if let Some((_, work)) = &mut self.damaged {
            *work += len as u64;
        }
        let payload = &self.buffer[self.start + RECORD_HEADER_BYTES..][..len];
        Ok(format::is_record(seed, &header, payload).then_some(claim))
    }

    /// Reads until the buffer holds `need` bytes from `offset` on; false when the segment has not so many.
    fn fill(&mut self, need: usize) -> io::Result<bool> {
        if self.buffer.len() - self.start >= need {
            return Ok(true);
        }
        let left = self.limit.min(self.file_end).saturating_sub(self.offset);
        let Some((file, _)) = &mut self.source else { return Ok(false) };
        if left < need as u64 {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.capacity() > 2 * CHUNK_BYTES && need <= CHUNK_BYTES {
            // A large record grew it.
            self.buffer.shrink_to(CHUNK_BYTES);
        }
        let mut have = self.buffer.len();
        // `need` is at most a record's cap, and so many bytes are committed.
        let want = left.min(need.max(CHUNK_BYTES) as u64) as usize;
        self.buffer.resize(want.max(have), 0);
        let mut done = Ok(());
        while have < need {
            match file.read_at(self.offset + have as u64, &mut self.buffer[have..]) {
                Ok(0) => {
                    self.file_end = self.offset + have as u64;
                    break;
                }
                Ok(read) => have += read,
                Err(error) => {
                    done = Err(error);
                    break;
                }
            }
        }
        self.buffer.truncate(have);
        done.map(|()| have >= need)
    }
}
