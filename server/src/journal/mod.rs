//! The journal: the one durable log. Committing to it is what acknowledges.
//!
//! ```text
//! sessions --append--> queue (bounded) --> one thread: group, write, fdatasync --> commits resolve
//!                                                |
//!                                                v
//!                      readers (store, influx): committed records, each from a place of its own
//! ```
//!
//! One thread owns the log's writer ([`vitals_wire::log`]). After the first record of a group it waits for others (25 ms
//! by default), writes them all at once, waits for the disk once, and resolves their commits. A record that is not on
//! disk is never seen by a reader, and a commit that failed leaves nothing: its sender keeps the batch and sends it
//! again. The thread survives every error of the disk and tries again with the next group.
//!
//! Segments are removed when every registered reader has said that it has [`passed`](JournalReader::passed) them. When
//! that leaves the journal at its cap, appends are refused until a reader moves. A reader that is only given a share
//! ([`Journal::lagging_reader`]) cannot bring that about: when it lags more than its share it loses the oldest segments,
//! which is counted and logged.

mod reader;
mod registry;
mod thread;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use vitals_wire::log::{LogOptions, MAX_RECORD_BYTES, Position, RECORD_HEADER_BYTES, View, Writer};
use vitals_wire::record::Record;
use vitals_wire::record::encode_record;

use crate::metrics::Metrics;
use registry::Registry;

pub use reader::{Entry, JournalReader};

/// Records that may wait for a commit: two seconds' worth of 10,000 hosts at 5 s.
pub const QUEUE_RECORDS: usize = 4096;
/// Bytes that may wait for a commit. As many again can be in the group that is being written, and once more in the
/// writer's buffer.
pub const QUEUE_BYTES: usize = 8 << 20;

/// How the journal is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Its directory.
    pub dir: PathBuf,
    /// Size at which a new segment begins; at most a quarter of the cap is used.
    pub segment_bytes: u64,
    /// Size at which appends are refused until readers have passed the oldest segments. It can be exceeded by one
    /// record and the headers of the segments.
    pub cap_bytes: u64,
    /// Time that a commit waits for others to join it.
    pub group: Duration,
}

impl JournalOptions {
    /// The defaults: segments of 16 MiB, a cap of 2 GiB, groups of 25 ms.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, segment_bytes: 16 << 20, cap_bytes: 2 << 30, group: Duration::from_millis(25) }
    }
}

/// Why a record was not committed. Nothing of it stays; the sender keeps its batch and sends it again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The queue of records that wait for a commit is full.
    #[error("the journal's queue is full")]
    Busy,
    /// The journal is at its cap and a reader has not passed its oldest segment.
    #[error("the journal is full")]
    Full,
    /// The disk said no. It can be tried again, after a while.
    #[error("{0}")]
    Disk(String),
    /// The record itself cannot be kept; trying again is no use.
    #[error("the record cannot be kept: {0}")]
    Unfit(String),
    /// The journal is closed.
    #[error("the journal is closed")]
    Closed,
}

/// A handle to the journal, cheap to clone. When the last one is dropped the journal closes by itself.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Owner>);

#[derive(Debug)]
struct Owner(Arc<Shared>);

/// Resolves when the record is on disk, or will never be.
#[derive(Debug)]
pub struct Commit(oneshot::Receiver<Result<(), JournalError>>);

/// What handles, readers and the thread share.
#[derive(Debug)]
struct Shared {
    view: View,
    metrics: Arc<Metrics>,
    cap_bytes: u64,
    segment_bytes: u64,
    /// Bytes of all segments, as of the last commit or removal.
    disk_bytes: AtomicU64,
    queue: Mutex<Queue>,
    /// The queue has work for the thread.
    work: Condvar,
    /// Why the last commit failed.
    failing: Mutex<Option<String>>,
    /// Who reads, and how far each has come.
    registry: Mutex<Registry>,
    /// What the thread said when it panicked.
    panicked: Mutex<Option<String>>,
    /// Whether the thread has ended.
    ended: Mutex<bool>,
    /// Something was committed, or the thread has ended: for threads and for tasks.
    news: Condvar,
    news_for_tasks: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    /// Bytes of the group that is being committed.
    group_bytes: usize,
    /// When the first of those that wait came.
    first_at: Option<Instant>,
    /// A reader has moved: segments may go.
    tidy: bool,
    /// Nothing more is taken.
    closed: bool,
    /// Appends are being refused because of the cap.
    full: bool,
}

#[derive(Debug)]
struct Waiting {
    bytes: Bytes,
    done: oneshot::Sender<Result<(), JournalError>>,
}

/// A record as it lies in the journal; cheap to clone, so that one which was not taken can be tried again.
#[derive(Debug, Clone)]
pub struct Encoded(Bytes);

impl Encoded {
    /// Encodes a record.
    ///
    /// # Errors
    /// `Unfit`: it cannot be kept.
    pub fn new(record: &Record) -> Result<Self, JournalError> {
        let bytes = encode_record(record).map_err(|error| JournalError::Unfit(error.to_string()))?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(JournalError::Unfit(format!("{} bytes", bytes.len())));
        }
        Ok(Self(bytes.into()))
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

impl Journal {
    /// Opens the journal, cuts what a kill left unfinished, and starts its thread. The caller holds the lock of the
    /// data directory: two journals on one directory destroy each other.
    ///
    /// # Errors
    /// `Disk`, naming the file: the directory cannot be read or written, or a newer version wrote it.
    pub fn open(options: JournalOptions, metrics: Arc<Metrics>) -> Result<Journal, JournalError> {
        let JournalOptions { dir, segment_bytes, cap_bytes, group } = options;
        // With fewer segments than a few, passing the oldest would free too little.
        let segment_bytes = segment_bytes.min(cap_bytes / 4);
        let (writer, opened) = Writer::open(LogOptions { dir, segment_bytes, compress: false })
            .map_err(|error| disk_error(&error))?;
        let view = writer.view().clone();
        tracing::info!(
            bytes = view.bytes(),
            segments = view.segments().len(),
            end = %view.end(),
            "journal opened"
        );
        if opened.cut_bytes > 0 {
            tracing::info!(bytes = opened.cut_bytes, "cut an unfinished commit off the journal");
        }
        let disk_bytes = view.bytes();
        metrics.journal_bytes.set(disk_bytes);
        let shared = Arc::new(Shared {
            view,
            metrics,
            cap_bytes,
            segment_bytes,
            disk_bytes: AtomicU64::new(disk_bytes),
            queue: Mutex::default(),
            work: Condvar::new(),
            failing: Mutex::default(),
            registry: Mutex::default(),
            panicked: Mutex::default(),
            ended: Mutex::new(false),
            news: Condvar::new(),
            news_for_tasks: watch::Sender::new(false),
        });
        thread::start(writer, shared.clone(), group)
            .map_err(|error| JournalError::Disk(format!("cannot start the journal's thread: {error}")))?;
        Ok(Journal(Arc::new(Owner(shared))))
    }

    /// Hands over a record without waiting. The returned `Commit` is awaited for the outcome.
    ///
    /// # Errors
    /// `Busy`, `Full` and `Closed`: nothing was taken.
    pub fn append(&self, record: &Encoded) -> Result<Commit, JournalError> {
        let shared = &self.0.0;
        let bytes = record.0.clone();
        let (done, commit) = oneshot::channel();
        let mut queue = shared.queue();
        let pending = (queue.waiting_bytes + queue.group_bytes) as u64;
        if queue.closed {
            return Err(JournalError::Closed);
        }
        if shared.disk_bytes.load(Relaxed) + pending >= shared.cap_bytes {
            return Err(shared.refuse_full(&mut queue));
        }
        let taken = bytes.len() + RECORD_HEADER_BYTES;
        let too_many = queue.waiting.len() >= QUEUE_RECORDS || queue.waiting_bytes + taken > QUEUE_BYTES;
        if too_many {
            return Err(JournalError::Busy);
        }
        let was_urgent = queue.is_urgent();
        queue.waiting.push(Waiting { bytes, done });
        queue.waiting_bytes += taken;
        let first = queue.first_at.is_none();
        if first {
            queue.first_at = Some(Instant::now());
        }
        // The thread is woken once for the first, not for each that joins.
        let wake = first || queue.is_urgent() && !was_urgent;
        drop(queue);
        if wake {
            shared.work.notify_one();
        }
        Ok(Commit(commit))
    }

    /// Registers a reader by name from `from` on (a place that is gone, or that this journal never had, means the
    /// oldest that is left). Segments go when every registered reader has passed them, and not before a reader of this
    /// kind is registered: so register those of the other kind first. A name stays registered when its reader is
    /// dropped; registering it again sets its place.
    ///
    /// # Errors
    /// None today.
    pub fn reader(&self, name: &'static str, from: Position) -> Result<JournalReader, JournalError> {
        let reader = JournalReader::new(self.0.0.clone(), name, from, None);
        self.0.0.registry().register(name, reader.position(), None);
        Ok(reader)
    }

    /// The same for a reader that may lag behind by `share_bytes` (at most half of the cap is used) and loses the
    /// oldest segments beyond: counted in `influx_given_up_bytes` and logged. So is what lies between `from` and the
    /// oldest that is left when the name is registered for the first time; the size of a segment that went before is
    /// not known and is taken for that of a full one.
    ///
    /// # Errors
    /// None today.
    pub fn lagging_reader(
        &self,
        name: &'static str,
        from: Position,
        share_bytes: u64,
    ) -> Result<JournalReader, JournalError> {
        let shared = &self.0.0;
        let share = share_bytes.min(shared.cap_bytes / 2);
        let reader = JournalReader::new(shared.clone(), name, from, Some(share));
        let is_first = shared.registry().register(name, reader.position(), Some(share));
        let missing = registry::missing_bytes(from, reader.position(), shared.segment_bytes);
        if is_first && missing > 0 {
            shared.metrics.influx_given_up_bytes.add(missing);
            tracing::warn!(
                reader = name,
                bytes = missing,
                %from,
                first = %reader.position(),
                "the journal does not reach back to where this reader was; what is missing is given up (bytes at most)"
            );
        }
        Ok(reader)
    }

    /// Why nothing can be committed now, if so: for people.
    pub fn trouble(&self) -> Option<String> {
        let shared = &self.0.0;
        if *lock(&shared.ended) {
            return Some(match &*lock(&shared.panicked) {
                Some(said) => format!("ended: {said}"),
                None => "ended".to_owned(),
            });
        }
        if shared.disk_bytes.load(Relaxed) >= shared.cap_bytes {
            let reader = shared.slowest().map_or("nobody", |(name, _)| name);
            return Some(format!("full: {reader} has not passed its oldest part"));
        }
        lock(&shared.failing).clone()
    }

    /// Resolves when the journal's thread has ended, for whatever reason: from then on nothing is committed. It keeps
    /// no handle.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut news = self.0.0.news_for_tasks.subscribe();
        async move {
            // An error: everything that belongs to the journal is gone, the thread first.
            let _ = news.wait_for(|ended| *ended).await;
        }
    }

    /// The place after the last committed record.
    pub fn end(&self) -> Position {
        self.0.0.view.end()
    }

    /// Commits what waits, refuses what comes after, and ends the thread.
    pub async fn close(&self) {
        self.0.0.close();
        self.ended().await;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Commit {
    /// Waits for the outcome. Dropping a `Commit` instead does not take its record back.
    ///
    /// # Errors
    /// `Disk`: the group's commit failed. `Closed`: the journal ended before it.
    pub async fn wait(self) -> Result<(), JournalError> {
        self.0.await.unwrap_or(Err(JournalError::Closed))
    }
}

impl Queue {
    /// Whether the thread should not wait for more.
    fn is_urgent(&self) -> bool {
        self.closed || self.waiting.len() >= QUEUE_RECORDS / 2 || self.waiting_bytes >= QUEUE_BYTES / 2
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    fn set_failing(&self, why: Option<String>) {
        *lock(&self.failing) = why;
    }

    /// The registered reader that holds the most, and from where on.
    fn slowest(&self) -> Option<(&'static str, Position)> {
        self.registry().slowest(&self.view)
    }

    fn close(&self) {
        self.queue().closed = true;
        self.work.notify_one();
    }

    fn refuse_full(&self, queue: &mut Queue) -> JournalError {
        if queue.closed {
            return JournalError::Closed;
        }
        if !std::mem::replace(&mut queue.full, true) {
            let reader = self.slowest().map(|(name, _)| name);
            tracing::warn!(
                bytes = self.disk_bytes.load(Relaxed),
                reader,
                "journal is full, appends are refused"
            );
        }
        JournalError::Full
    }

    /// Tells readers that something was committed or that the thread has ended.
    fn tell(&self, ended: bool) {
        // Under the lock, or a thread that has just looked and is about to wait would miss it.
        *lock(&self.ended) = ended;
        self.news.notify_all();
        self.news_for_tasks.send_replace(ended);
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic").to_owned()
}

fn disk_error(error: &vitals_wire::log::LogError) -> JournalError {
    JournalError::Disk(error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder leaves its data half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod lag_tests;
