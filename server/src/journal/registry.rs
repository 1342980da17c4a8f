//! Who reads the journal, how far each has come, and what each may hold.

use std::time::{Duration, Instant};

use vitals_wire::log::{Position, View};

/// That a reader begins to lose segments is logged at most so often.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The registered readers, by name.
#[derive(Debug, Default)]
pub(super) struct Registry(Vec<Registered>);

#[derive(Debug)]
struct Registered {
    name: &'static str,
    /// It needs nothing before.
    passed: Position,
    /// How far it has read.
    read: Position,
    /// Bytes that it may hold; none: what it has not passed stays.
    share: Option<u64>,
    /// Bytes that it lost and does not know of.
    lost: u64,
    logged_at: Option<Instant>,
}

impl Registered {
    /// From where on segments stay for it.
    fn holds_from(&self, view: &View) -> Position {
        let Some(share) = self.share else { return self.passed };
        let starts = view.segments().into_iter().map(|segment| start_of(segment.number));
        let mut from = self.passed;
        for start in starts.filter(|start| *start > self.passed) {
            if view.bytes_after(from) <= share {
                break;
            }
            from = start;
        }
        from
    }
}

impl Registry {
    /// Adds a reader or sets its place; whether it is a new one.
    pub(super) fn register(&mut self, name: &'static str, from: Position, share: Option<u64>) -> bool {
        let before = self.0.len();
        self.0.retain(|reader| reader.name != name);
        let is_new = self.0.len() == before;
        self.0.push(Registered { name, passed: from, read: from, share, lost: 0, logged_at: None });
        is_new
    }

    /// Takes down that a reader has passed a place; whether that is news.
    pub(super) fn pass(&mut self, name: &str, position: Position) -> bool {
        let Some(reader) = self.of(name).filter(|reader| position > reader.passed) else { return false };
        reader.passed = position;
        true
    }

    /// The place that a reader has passed.
    pub(super) fn passed(&self, name: &str) -> Position {
        self.0.iter().find(|reader| reader.name == name).map_or(Position::default(), |reader| reader.passed)
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
    pub(super) fn slowest(&self, view: &View) -> Option<(&'static str, Position)> {
        self.0.iter().find(|reader| reader.share.is_none())?;
        self.0.iter().map(|reader| (reader.name, reader.holds_from(view))).min_by_key(|(_, from)| *from)
    }

    /// Whether a reader lags more than its share.
    pub(super) fn is_over_share(&self, view: &View) -> bool {
        self.0.iter().any(|reader| reader.share.is_some_and(|share| view.bytes_after(reader.passed) > share))
    }

    /// What each lagging reader has not read: to be given to `note_lost` after a removal.
    pub(super) fn unread(&self, view: &View) -> Vec<(&'static str, Position, u64)> {
        let lagging = self.0.iter().filter(|reader| reader.share.is_some());
        lagging.map(|reader| (reader.name, reader.read, view.bytes_after(reader.read))).collect()
    }

    /// Takes down what a removal cost the lagging readers; the sum of it.
    pub(super) fn note_lost(&mut self, unread: Vec<(&'static str, Position, u64)>, view: &View) -> u64 {
        let mut sum = 0;
        for (name, read, before) in unread {
            let lost = before.saturating_sub(view.bytes_after(read));
            let Some(reader) = self.of(name).filter(|_| lost > 0) else { continue };
            sum += lost;
            let begins = reader.lost == 0;
            reader.lost += lost;
            if begins && reader.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                reader.logged_at = Some(Instant::now());
                tracing::warn!(
                    reader = name,
                    bytes = lost,
                    share = reader.share,
                    "a reader of the journal lags more than its share and begins to lose the oldest part"
                );
            }
        }
        sum
    }

    fn of(&mut self, name: &str) -> Option<&mut Registered> {
        self.0.iter_mut().find(|reader| reader.name == name)
    }
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
