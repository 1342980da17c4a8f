//! Reads committed records, from a place on and over the ends of segments.

use std::io;

use super::catalog::Beyond;
use super::format::{FIRST_OFFSET, RECORD_HEADER_BYTES};
use super::scan::{PATIENCE, Scan, is_bad_medium};
use super::{Damage, LogError, Position, View};

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place.
    pub at: Position,
    /// The place after it, from where a reader goes on.
    pub after: Position,
    /// What was appended.
    pub payload: &'a [u8],
}

impl Entry<'_> {
    /// Bytes that it takes on disk.
    pub fn bytes(&self) -> u64 {
        (RECORD_HEADER_BYTES + self.payload.len()) as u64
    }
}

/// A place in a log that moves over its committed records. Made by [`View::reader`].
///
/// It holds one open file, and a buffer that has grown to at most one chunk (128 KiB) or one record.
#[derive(Debug)]
pub struct Reader {
    view: View,
    at: Position,
    scan: Option<Scan>,
    damage: Damage,
    /// Times in a row that the segment could not be opened.
    failures: u32,
}

impl Reader {
    pub(super) fn new(view: View, from: Position) -> Self {
        let at = Position { offset: from.offset.max(FIRST_OFFSET), ..from };
        Self { view, at, scan: None, damage: Damage::default(), failures: 0 }
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
        let (Some(len), Some(scan)) = (found, &self.scan) else { return Ok(None) };
        let before = (RECORD_HEADER_BYTES + len) as u64;
        let at = Position { segment: scan.number, offset: scan.offset - before };
        Ok(Some(Entry { at, after: self.at, payload: scan.payload(len) }))
    }

    /// Where the next record begins, or will.
    pub fn position(&self) -> Position {
        self.at
    }

    /// What was skipped since this reader was made.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    fn advance(&mut self) -> Result<Option<usize>, (u64, io::Error)> {
        loop {
            if self.scan.is_none() && !self.enter()? {
                return Ok(None);
            }
            let Some(scan) = &mut self.scan else { return Ok(None) };
            let found = scan.next(&mut self.damage).map_err(|error| (scan.number, error))?;
            self.at = Position { segment: scan.number, offset: scan.offset };
            if found.is_some() {
                return Ok(found);
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
