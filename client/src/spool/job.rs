//! What is asked of whatever keeps samples outside of memory, and what it answers.
//!
//! The link decides and asks for one [`Job`] at a time; whoever drives it has the job performed, on a thread that may
//! wait for a disk or at once in a simulation, and hands the [`Outcome`] back.

use vitals_wire::log::Position;

/// Keeps samples outside of memory, oldest first.
pub trait Keep: std::fmt::Debug + Send + 'static {
    /// Does one job. May wait for a disk.
    fn perform(&mut self, job: Job) -> Outcome;
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// Find out what is kept. Comes first, and again after a failure.
    Open,
    /// Keep these, oldest first; answered by `Put` or `Full`.
    Put {
        /// The samples.
        samples: Vec<Record>,
    },
    /// Give the oldest samples from a place on; answered by `Read`.
    Read {
        /// The place, as some answer gave it.
        from: Position,
        /// At most so many.
        samples: usize,
        /// At most so many bytes of them; but one is given however large it is.
        bytes: usize,
    },
    /// All before this place is settled or dropped: forget it, durably; answered by `Passed`.
    Pass {
        /// The place, as some answer gave it.
        to: Position,
        /// What of it was dropped and is not counted yet.
        drops: Drops,
    },
    /// The oldest are to go, so that there is room for others; answered by `Room` or `Held`.
    MakeRoom {
        /// Times of samples that are settled: they are no loss.
        settled: Vec<i64>,
        /// Times of samples that are under way, and must not go now.
        under_way: Vec<i64>,
    },
}

/// A sample to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// As [`vitals_wire::sample::encode_sample`] writes it.
    pub encoded: Box<[u8]>,
    /// Whether it was sent before.
    pub was_sent: bool,
}

/// A sample that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its time, which with the host identifies it.
    pub time_ms: i64,
    /// What it is.
    pub record: Record,
    /// The place behind it.
    pub after: Position,
    /// Damaged stretches that were skipped just before it.
    pub damaged: u64,
}

/// Samples that were dropped from what is kept, by reason. Never reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops {
    /// There was no room any more, and they were the oldest.
    pub spool_full: u64,
    /// Older than the server takes any.
    pub too_old: u64,
    /// Larger than the server takes any.
    pub too_large: u64,
    /// Stretches of bytes that could not be read; how many samples they were is not known.
    pub damaged: u64,
}

impl Drops {
    /// Counts those of `more`, too.
    pub fn add(&mut self, more: Self) {
        self.spool_full = self.spool_full.saturating_add(more.spool_full);
        self.too_old = self.too_old.saturating_add(more.too_old);
        self.too_large = self.too_large.saturating_add(more.too_large);
        self.damaged = self.damaged.saturating_add(more.damaged);
    }
}

/// Where things stand after a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The place of the oldest sample that is still kept.
    pub cursor: Position,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What was found at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opened {
    /// Where things stand.
    pub standing: Standing,
    /// Samples that are kept.
    pub samples: u64,
    /// Time of the oldest of them.
    pub first_ms: Option<i64>,
    /// What was ever dropped.
    pub drops: Drops,
    /// Damaged stretches that were skipped, the header being one: then what it counted is not known.
    pub damaged: u64,
    /// Bytes that may be kept; `None` where nothing can be put.
    pub max_bytes: Option<u64>,
}

/// A sample that had to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Its time.
    pub time_ms: i64,
    /// [`crate::queue::content_hash`] of it.
    pub hash: u64,
    /// It was settled: no loss.
    pub was_settled: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is open.
    Opened(Opened),
    /// The first `samples` are kept, durably; the others did not fit beside them.
    Put {
        /// How many.
        samples: usize,
        /// Where things stand.
        standing: Standing,
    },
    /// Not one more has room.
    Full,
    /// The samples from the place on.
    Read {
        /// Oldest first.
        samples: Vec<Kept>,
        /// The place behind the last.
        after: Position,
        /// There is nothing behind it.
        is_end: bool,
        /// Damaged stretches behind the last sample.
        damaged: u64,
    },
    /// Forgotten.
    Passed(Standing),
    /// These had to go. They are counted, durably.
    Room {
        /// The samples.
        gone: Vec<Gone>,
        /// Time of the oldest that is left.
        first_ms: Option<i64>,
        /// Where things stand.
        standing: Standing,
    },
    /// Nothing could go, for some of the oldest are under way.
    Held,
    /// It did not work, and all is as it was.
    Failed {
        /// Why, for people.
        why: String,
        /// Trying again is no use.
        is_final: bool,
    },
}
