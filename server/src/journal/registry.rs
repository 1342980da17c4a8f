//! Who reads the journal, how far each has come, and what each may hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vitals_wire::log::{Position, View};

/// That a reader begins to lose segments is logged at most so often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What bounds a lagging reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The journal's cap, now.
    pub(super) cap: u64,
    /// The cap that those who were asked have had the time to meet.
    pub(super) known_cap: u64,
    /// Bytes of the journal, now.
    pub(super) held: u64,
}

impl Limits {
    /// What a lagging reader is asked to hold at most, when it was given `share`. It is to give up the oldest beyond by
    /// itself, after it has noted what it is owed.
    pub(super) fn share(self, share: u64) -> u64 {
        share.min(self.cap / 2)
    }

    /// What one may hold at most, asked or not. What several hold overlaps, so this bounds them all together.
    fn most(self) -> u64 {
        // A lagging reader is never what stops the appends for long, however large the segments are.
        if self.held >= self.known_cap { self.known_cap / 2 } else { self.known_cap / 4 * 3 }
    }
}

/// The registered readers, by name.
#[derive(Debug, Default)]
pub(super) struct Registry(Vec<Registered>);

#[derive(Debug)]
struct Registered {
    name: Arc<str>,
    /// It needs nothing before.
    passed: Position,
    /// How far it has read.
    read: Position,
    /// Whether it may lose what it has not passed, where that is too much.
    lagging: bool,
    /// Bytes that it lost and does not know of.
    lost: u64,
    logged_at: Option<Instant>,
}

impl Registered {
    /// From where on segments stay for it.
    fn holds_from(&self, view: &View, limits: Limits) -> Position {
        let most = limits.most();
        if !self.lagging || view.bytes_after(self.passed) <= most {
            return self.passed;
        }
        cut_to(view, self.passed, most)
    }
}

impl Registry {
    /// Adds a reader or sets its place; whether it is a new one.
    pub(super) fn register(&mut self, name: Arc<str>, from: Position, lagging: bool) -> bool {
        let is_new = !self.forget(&name);
        self.0.push(Registered { name, passed: from, read: from, lagging, lost: 0, logged_at: None });
        is_new
    }

    /// Takes a reader out; whether there was one of that name.
    pub(super) fn forget(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|reader| &*reader.name != name);
        self.0.len() < before
    }

    /// Takes down that a reader has passed a place; whether that is news.
    pub(super) fn pass(&mut self, name: &str, position: Position) -> bool {
        let Some(reader) = self.of(name).filter(|reader| position > reader.passed) else { return false };
        reader.passed = position;
        true
    }

    /// The place that a reader has passed.
    pub(super) fn passed(&self, name: &str) -> Position {
        self.0.iter().find(|reader| &*reader.name == name).map_or(Position::default(), |reader| reader.passed)
    }

    /// Takes down how far a reader has read.
    pub(super) fn read(&mut self, name: &str, position: Position) {
        if let Some(reader) = self.of(name) {
            reader.read = reader.read.max(position);
        }
    }

    /// What a reader has lost since it was asked last.
    pub(super) fn take_lost(&mut self, name: &str) -> u64 {
        self.of(name).map_or(0, |reader| std::mem::take(&mut reader.lost))
    }

    /// The reader that holds the most, and from where on: what lies before may go. None while all are lagging ones.
    pub(super) fn slowest(&self, view: &View, limits: Limits) -> Option<(Arc<str>, Position)> {
        self.0.iter().find(|reader| !reader.lagging)?;
        let held = self.0.iter().map(|reader| (reader, reader.holds_from(view, limits)));
        held.min_by_key(|(_, from)| *from).map(|(reader, from)| (reader.name.clone(), from))
    }

    /// Whether a lagging reader holds more than any may.
    pub(super) fn is_over_limit(&self, view: &View, limits: Limits) -> bool {
        let mut lagging = self.0.iter().filter(|reader| reader.lagging);
        lagging.any(|reader| view.bytes_after(reader.passed) > limits.most())
    }

    /// What each lagging reader has not read: to be given to `note_lost` after a removal.
    pub(super) fn unread(&self, view: &View) -> Vec<(Arc<str>, Position, u64)> {
        let lagging = self.0.iter().filter(|reader| reader.lagging);
        lagging.map(|reader| (reader.name.clone(), reader.read, view.bytes_after(reader.read))).collect()
    }

    /// Takes down what a removal cost the lagging readers; the sum of it.
    pub(super) fn note_lost(&mut self, unread: Vec<(Arc<str>, Position, u64)>, view: &View) -> u64 {
        let mut sum = 0;
        for (name, read, before) in unread {
            let lost = before.saturating_sub(view.bytes_after(read));
            let Some(reader) = self.of(&name).filter(|_| lost > 0) else { continue };
            sum += lost;
            let begins = reader.lost == 0;
            reader.lost += lost;
            if begins && reader.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                reader.logged_at = Some(Instant::now());
                tracing::warn!(
                    reader = &*name,
                    bytes = lost,
                    "a reader of the journal lags more than any may and begins to lose the oldest part"
                );
            }
        }
        sum
    }

    fn of(&mut self, name: &str) -> Option<&mut Registered> {
        self.0.iter_mut().find(|reader| &*reader.name == name)
    }
}

/// The start of the first segment behind `from` from which on at most `most` bytes are left; that of the newest, if there
/// is none.
pub(super) fn cut_to(view: &View, from: Position, most: u64) -> Position {
    let mut to = from;
    for start in view.segments().into_iter().map(|segment| start_of(segment.number)) {
        if start > from {
            to = start;
            if view.bytes_after(start) <= most {
                break;
            }
        }
    }
    to
}

/// At most what lay between `from` and `first`, the beginning of the oldest segment, when each segment was a full one.
/// A reader that begins anew misses nothing.
pub(super) fn missing_bytes(from: Position, first: Position, segment_bytes: u64) -> u64 {
    if from == Position::default() || from.segment >= first.segment {
        return 0;
    }
    // One that has passed a full segment stands at its end.
    let between = first.segment - from.segment - 1;
    segment_bytes.saturating_sub(from.offset).saturating_add(between.saturating_mul(segment_bytes))
}

fn start_of(segment: u64) -> Position {
    Position { segment, offset: 0 }
}
