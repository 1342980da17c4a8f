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
//! ([`Journal::lagging_reader`]) cannot bring that about: when it lags more than its share it is asked to give up the
//! oldest, and when it does not it loses the oldest segments, which is counted and logged.
//!
//! All that the thread does is [`Committer::step`], which needs neither a thread nor a clock.

mod cap;
mod committer;
mod reader;
mod registry;
mod shared;
mod thread;

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use vitals_wire::log::{Fs, LogOptions, MAX_RECORD_BYTES, Position, RealFs, Writer};
use vitals_wire::record::Record;
use vitals_wire::record::encode_record;

use crate::metrics::Metrics;
use cap::Cap;
use shared::Shared;

pub use committer::Committer;
pub use reader::{Entry, JournalReader};
pub use shared::{QUEUE_BYTES, QUEUE_RECORDS};

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
    /// Whether what is committed together is compressed together.
    pub compress: bool,
}

impl JournalOptions {
    /// The defaults: segments of 16 MiB, a cap of 2 GiB, groups of 25 ms, compressed.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            segment_bytes: 16 << 20,
            cap_bytes: 2 << 30,
            group: Duration::from_millis(25),
            compress: true,
        }
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

/// A record as it lies in the journal; cheap to clone, so that one which was not taken can be tried again.
#[derive(Debug, Clone)]
pub struct Encoded {
    bytes: Bytes,
    backlog: bool,
}

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
        Ok(Self { bytes: bytes.into(), backlog: record.backlog })
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl Journal {
    /// Opens the journal, cuts what a kill left unfinished, and starts its thread. The caller holds the lock of the
    /// data directory: two journals on one directory destroy each other.
    ///
    /// # Errors
    /// `Disk`, naming the file: the directory cannot be read or written, or a newer version wrote it.
    pub fn open(options: JournalOptions, metrics: Arc<Metrics>) -> Result<Journal, JournalError> {
        let (dir, group) = (options.dir.clone(), options.group);
        let free = cap::free_bytes(&dir);
        let (journal, committer) = Self::open_with(Arc::new(RealFs), options, free, metrics)?;
        thread::start(committer, dir, group)
            .map_err(|error| JournalError::Disk(format!("cannot start the journal's thread: {error}")))?;
        Ok(journal)
    }

    /// The same on any file system, without a thread and without a clock: nothing is committed but by
    /// [`Committer::step`], and the cap is the configured one until [`Committer::disk_has`] says otherwise. Dropping the
    /// committer is what a kill is.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_manual(
        fs: Arc<dyn Fs>,
        options: JournalOptions,
        metrics: Arc<Metrics>,
    ) -> Result<(Journal, Committer), JournalError> {
        Self::open_with(fs, options, None, metrics)
    }

    fn open_with(
        fs: Arc<dyn Fs>,
        options: JournalOptions,
        free: Option<u64>,
        metrics: Arc<Metrics>,
    ) -> Result<(Journal, Committer), JournalError> {
        let JournalOptions { dir, segment_bytes, cap_bytes, group: _, compress } = options;
        // A directory that is not there yet holds nothing.
        let own = fs.list(&dir).map_or(0, |files| files.iter().map(|(_, bytes)| bytes).sum());
        let (cap, segment_bytes) = Cap::at_open(cap_bytes, segment_bytes, own, free);
        let (writer, opened) = Writer::open_on(fs, LogOptions { dir, segment_bytes, compress })
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
        let shared = Arc::new(Shared::new(view, metrics, cap_bytes, segment_bytes));
        let mut committer = Committer::new(writer, shared.clone(), cap);
        committer.disk_has(free);
        Ok((Journal(Arc::new(Owner(shared))), committer))
    }

    /// Hands over a record without waiting. The returned `Commit` is awaited for the outcome. Backlog is `Busy` when
    /// three quarters of the queue are taken, so that live batches need not wait behind it.
    ///
    /// # Errors
    /// `Busy`, `Full` and `Closed`: nothing was taken.
    pub fn append(&self, record: &Encoded) -> Result<Commit, JournalError> {
        self.0.0.append(record).map(Commit)
    }

    /// Registers a reader by name from `from` on (a place that is gone, or that this journal never had, means the
    /// oldest that is left). Segments go when every registered reader has passed them, and not before a reader of this
    /// kind is registered: so register those of the other kind first. A name stays registered when its reader is
    /// dropped; registering it again sets its place.
    ///
    /// # Errors
    /// None today.
    pub fn reader(&self, name: impl Into<Arc<str>>, from: Position) -> Result<JournalReader, JournalError> {
        let name = name.into();
        let reader = JournalReader::new(self.0.0.clone(), name.clone(), from, None);
        self.0.0.registry().register(name, reader.position(), false);
        Ok(reader)
    }

    /// The same for a reader that may lag behind by `share_bytes` (at most half of the cap is used) and is to give up
    /// the oldest beyond: see [`JournalReader::over_share`]. When it does not, and holds more than three quarters of the
    /// cap, it loses the oldest segments: counted in `influx_given_up_bytes` and logged. So is what lies between `from`
    /// and the oldest that is left when the name is registered for the first time; the size of a segment that went
    /// before is not known and is taken for that of a full one.
    ///
    /// # Errors
    /// None today.
    pub fn lagging_reader(
        &self,
        name: impl Into<Arc<str>>,
        from: Position,
        share_bytes: u64,
    ) -> Result<JournalReader, JournalError> {
        let (shared, name) = (&self.0.0, name.into());
        let reader = JournalReader::new(shared.clone(), name.clone(), from, Some(share_bytes));
        let is_first = shared.registry().register(name.clone(), reader.position(), true);
        let missing = registry::missing_bytes(from, reader.position(), shared.segment_bytes);
        if is_first && missing > 0 {
            shared.metrics.influx_given_up_bytes.add(missing);
            tracing::warn!(
                reader = &*name,
                bytes = missing,
                %from,
                first = %reader.position(),
                "the journal does not reach back to where this reader was; what is missing is given up (bytes at most)"
            );
        }
        Ok(reader)
    }

    /// Unregisters a reader: from now on nothing stays for it. It can still read what is there.
    pub fn forget(&self, name: &str) {
        if self.0.0.registry().forget(name) {
            self.0.0.tidy();
        }
    }

    /// The size at which appends are refused, now.
    pub fn cap_bytes(&self) -> u64 {
        self.0.0.cap()
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
        if shared.disk_bytes.load(Relaxed) >= shared.cap() {
            let slowest = shared.slowest();
            let reader = slowest.as_ref().map_or("nobody", |(name, _)| name);
            let cap = shared.cap();
            let bound = if cap < shared.configured_bytes {
                format!("; the free disk space bounds it to {cap} bytes")
            } else {
                String::new()
            };
            return Some(format!("full: {reader} has not passed its oldest part{bound}"));
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
