//! Which segments there are and how far each is committed: what the writer and the readers share.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::{self, FIRST_OFFSET};
use super::fs::Fs;
use super::{Position, Reader};

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Bytes of it that are committed, its header included.
    pub bytes: u64,
}

impl SegmentInfo {
    pub(super) fn end(&self) -> Position {
        Position { segment: self.number, offset: self.bytes }
    }
}

/// A log's segments, seen from any thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    catalog: Mutex<Catalog>,
}

#[derive(Debug)]
struct Catalog {
    /// Oldest first.
    segments: VecDeque<SegmentInfo>,
    end: Position,
}

/// What lies behind the end of what a reader knew.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// The segment has grown to so many bytes.
    Grown(u64),
    /// The next segment.
    Next(u64),
    /// Nothing yet.
    End,
}

impl View {
    pub(super) fn new(fs: Arc<dyn Fs>, dir: PathBuf, segments: VecDeque<SegmentInfo>) -> Self {
        let end = segments.back().map_or(Position { segment: 1, offset: FIRST_OFFSET }, SegmentInfo::end);
        Self(Arc::new(Inner { fs, dir, catalog: Mutex::new(Catalog { segments, end }) }))
    }

    /// A reader from `from` on. A place that is gone, or that this log never had, means the oldest record that is left.
    pub fn reader(&self, from: Position) -> Reader {
        let first = self.first();
        Reader::new(self.clone(), if from > self.end() { first } else { from.max(first) })
    }

    /// The place of the oldest record, or the end.
    pub fn first(&self) -> Position {
        let catalog = self.lock();
        match catalog.segments.front() {
            Some(first) => Position { segment: first.number, offset: FIRST_OFFSET },
            None => catalog.end,
        }
    }

    /// The place after the last committed record.
    pub fn end(&self) -> Position {
        self.lock().end
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.lock().segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes from `position` to the end.
    pub fn bytes_after(&self, position: Position) -> u64 {
        let after = |segment: &SegmentInfo| match segment.number.cmp(&position.segment) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => segment.bytes.saturating_sub(position.offset.max(FIRST_OFFSET)),
            std::cmp::Ordering::Greater => segment.bytes - FIRST_OFFSET.min(segment.bytes),
        };
        self.lock().segments.iter().map(after).sum()
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.lock().segments.iter().copied().collect()
    }

    pub(super) fn fs(&self) -> &dyn Fs {
        &*self.0.fs
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0.dir
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        self.0.dir.join(format::file_name(number))
    }

    /// The first segment whose number is `number` or higher.
    pub(super) fn segment_from(&self, number: u64) -> Option<SegmentInfo> {
        self.lock().segments.iter().find(|segment| segment.number >= number).copied()
    }

    /// What lies behind the first `known` bytes of segment `number`.
    pub(super) fn beyond(&self, number: u64, known: u64) -> Beyond {
        match self.lock().segments.iter().find(|s| s.number > number || s.number == number && s.bytes > known)
        {
            Some(segment) if segment.number == number => Beyond::Grown(segment.bytes),
            Some(segment) => Beyond::Next(segment.number),
            None => Beyond::End,
        }
    }

    /// The newest segment.
    pub(super) fn newest(&self) -> Option<SegmentInfo> {
        self.lock().segments.back().copied()
    }

    /// Lets readers see segment `number` up to `bytes`.
    pub(super) fn publish(&self, number: u64, bytes: u64) {
        let mut catalog = self.lock();
        match catalog.segments.back_mut() {
            Some(last) if last.number == number => last.bytes = bytes,
            _ => catalog.segments.push_back(SegmentInfo { number, bytes }),
        }
        catalog.end = Position { segment: number, offset: bytes };
    }

    /// Takes the oldest segment out if it ends at or before `position` and is not the newest.
    pub(super) fn take_before(&self, position: Position) -> Option<SegmentInfo> {
        let mut catalog = self.lock();
        let passed = catalog.segments.len() > 1 && catalog.segments[0].end() <= position;
        if passed { catalog.segments.pop_front() } else { None }
    }

    /// Puts back what `take_before` took.
    pub(super) fn put_back(&self, segment: SegmentInfo) {
        self.lock().segments.push_front(segment);
    }

    fn lock(&self) -> MutexGuard<'_, Catalog> {
        // No holder leaves it half changed.
        self.0.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
