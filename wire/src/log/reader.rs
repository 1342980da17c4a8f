//! Reads committed records, from a place on and over the ends of segments.

use std::io;
use std::ops::Range;

use super::block::Unpacker;
use super::catalog::Beyond;
use super::format::{Claim, FIRST_OFFSET, RECORD_HEADER_BYTES};
use super::scan::{PATIENCE, Scan, is_bad_medium};
use super::{Damage, LogError, Position, View};

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place; that of its block if it lies in one.
    pub at: Position,
    /// From where a reader goes on that has dealt with it: the place after it. While others follow in the same block it
    /// is the block's own, so that nothing unread lies before it; a reader that goes on there reads some again.
    pub after: Position,
    /// What was appended.
    pub payload: &'a [u8],
}

impl Entry<'_> {
    /// Bytes that it takes on disk where it is not compressed.
    pub fn bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES + self.payload.len()) as u64
    }
}

/// A place in a log that moves over its committed records. Made by [`View::reader`].
///
/// It holds one open file, and a buffer that has grown to at most one chunk (128 KiB) or one record; in a compressed log
/// also one block with what reads it, some 400 KiB or one record.
#[derive(Debug)]
pub struct Reader {
    view: View,
    at: Position,
    scan: Option<Scan>,
    /// What is left of the block over which `scan` moved, if it was one. It lies at `at`.
    block: Unpacker,
    damage: Damage,
    /// Times in a row that the segment could not be opened.
    failures: u32,
}

/// A record that was found.
struct Found {
    at: Position,
    place: Place,
}

/// Where its payload is.
enum Place {
    /// So many bytes behind which the walk stands.
    Plain(usize),
    Block(Range<usize>),
}

impl Reader {
    pub(super) fn new(view: View, from: Position) -> Self {
        let at = Position { offset: from.offset.max(FIRST_OFFSET), ..from };
        Self { view, at, scan: None, block: Unpacker::default(), damage: Damage::default(), failures: 0 }
    }

    /// Moves over the next committed record, or gives None when there is none yet. Damaged bytes on the way are skipped
    /// and counted.
    ///
    /// # Errors
    /// `LogError::Read`: the same place is tried again by the next call. Only what a device reports as unreadable
    /// (EIO) eight times in a row is skipped as damaged, so wait between the calls.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        let found = self
            .advance()
            .map_err(|(number, source)| LogError::Read { path: self.view.path(number), source })?;
        let (Some(Found { at, place }), Some(scan)) = (found, &self.scan) else { return Ok(None) };
        let payload = match place {
            Place::Plain(len) => scan.payload(len),
            Place::Block(record) => self.block.bytes(record),
        };
        Ok(Some(Entry { at, after: self.at, payload }))
    }

    /// Where the next record begins, or will; inside a block that is the block's beginning.
    pub fn position(&self) -> Position {
        self.at
    }

    /// What was skipped since this reader was made.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    fn advance(&mut self) -> Result<Option<Found>, (u64, io::Error)> {
        loop {
            if let (Some(record), Some(scan)) = (self.block.next(), &self.scan) {
                let at = self.at;
                if !self.block.has_next() {
                    self.at = Position { segment: scan.number, offset: scan.offset };
                }
                return Ok(Some(Found { at, place: Place::Block(record) }));
            }
            if self.scan.is_none() && !self.enter()? {
                return Ok(None);
            }
            let Some(scan) = &mut self.scan else { return Ok(None) };
            let found = scan.next(&mut self.damage).map_err(|error| (scan.number, error))?;
            self.at = Position { segment: scan.number, offset: scan.offset };
            if let Some(Claim { len, is_block }) = found {
                let bytes = (RECORD_HEADER_BYTES + len) as u64;
                let at = Position { offset: scan.offset - bytes, ..self.at };
                if !is_block {
                    return Ok(Some(Found { at, place: Place::Plain(len) }));
                }
                if self.block.load(scan.payload(len)) {
                    self.at = at;
                } else {
                    self.damage.add(bytes);
                }
                continue;
            }
            match self.view.beyond(scan.number, scan.limit()) {
                Beyond::Grown(bytes) => scan.grow(bytes),
                Beyond::Next(number) => {
                    self.at = Position { segment: number, offset: FIRST_OFFSET };
                    self.scan = None;
                }
                Beyond::End => return Ok(None),
            }
        }
    }

    /// Opens the segment of the place, or the next one that is left; false when there is none yet.
    fn enter(&mut self) -> Result<bool, (u64, io::Error)> {
        loop {
            let Some(segment) = self.view.segment_from(self.at.segment) else { return Ok(false) };
            if segment.number > self.at.segment {
                self.at = Position { segment: segment.number, offset: FIRST_OFFSET };
            }
            let (number, offset, limit) = (segment.number, self.at.offset, segment.bytes);
            match Scan::open(&self.view, number, offset, limit) {
                Ok(scan) => (self.scan, self.failures) = (Some(scan), 0),
                Err(error) if is_bad_medium(&error) && self.failures >= PATIENCE => {
                    self.scan = Some(Scan::lost(number, offset, limit));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.failures += 1;
                    return Err((number, error));
                }
                // Removed just now, or taken away by somebody.
                Err(_) if self.view.segment_from(number) != Some(segment) => continue,
                Err(_) => self.scan = Some(Scan::lost(number, offset, limit)),
            }
            return Ok(true);
        }
    }
}
