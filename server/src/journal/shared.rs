//! What the journal's handles, its readers and its committer share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use vitals_wire::log::{Position, RECORD_HEADER_BYTES, View};

use super::registry::{Limits, Registry};
use super::{Encoded, JournalError, lock};
use crate::metrics::Metrics;

/// Records that may wait for a commit: two seconds' worth of 10,000 hosts at 5 s.
pub const QUEUE_RECORDS: usize = 4096;
/// Bytes that may wait for a commit. As many again can be in the group that is being written, and once more in the
/// writer's buffer.
pub const QUEUE_BYTES: usize = 8 << 20;
/// Backlog fills at most three quarters of either, so that a live batch finds room however much backlog presses in.
const BACKLOG_SHARE: (usize, usize) = (3, 4);

/// What handles, readers and the committer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) view: View,
    pub(super) metrics: Arc<Metrics>,
    /// Size at which appends are refused, now.
    pub(super) cap_bytes: AtomicU64,
    /// What it was before the last look at the disk, if that was more. Nothing is taken by force from a reader that
    /// keeps to it: when the cap falls each is asked first, and has until the next look.
    pub(super) known_cap_bytes: AtomicU64,
    /// The same where the disk has plenty.
    pub(super) configured_bytes: u64,
    pub(super) segment_bytes: u64,
    /// Bytes of all segments, as of the last commit or removal.
    pub(super) disk_bytes: AtomicU64,
    queue: Mutex<Queue>,
    /// The queue has work for the thread.
    pub(super) work: Condvar,
    /// Why the last commit failed.
    pub(super) failing: Mutex<Option<String>>,
    /// Who reads, and how far each has come.
    registry: Mutex<Registry>,
    /// What the thread said when it panicked.
    pub(super) panicked: Mutex<Option<String>>,
    /// Whether the committer is gone.
    pub(super) ended: Mutex<bool>,
    /// Something was committed, or the committer is gone: for threads and for tasks.
    pub(super) news: Condvar,
    pub(super) news_for_tasks: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: Vec<Waiting>,
    pub(super) waiting_bytes: usize,
    /// Bytes of the group that is being committed.
    pub(super) group_bytes: usize,
    /// When the first of those that wait came.
    pub(super) first_at: Option<Instant>,
    /// A reader has moved: segments may go.
    pub(super) tidy: bool,
    /// Nothing more is taken.
    pub(super) closed: bool,
    /// Appends are being refused because of the cap.
    pub(super) full: bool,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) bytes: Bytes,
    pub(super) done: oneshot::Sender<Result<(), JournalError>>,
}

impl Queue {
    /// Whether the thread should not wait for more.
    pub(super) fn is_urgent(&self) -> bool {
        self.closed || self.waiting.len() >= QUEUE_RECORDS / 2 || self.waiting_bytes >= QUEUE_BYTES / 2
    }

    /// Whether it has no room for so many bytes of this kind.
    fn is_full_for(&self, taken: usize, backlog: bool) -> bool {
        let (most, of) = if backlog { BACKLOG_SHARE } else { (1, 1) };
        self.waiting.len() >= QUEUE_RECORDS / of * most
            || self.waiting_bytes + taken > QUEUE_BYTES / of * most
    }
}

impl Shared {
    pub(super) fn new(view: View, metrics: Arc<Metrics>, cap_bytes: u64, segment_bytes: u64) -> Self {
        let disk_bytes = view.bytes();
        Self {
            view,
            metrics,
            // Until the first look at the disk, which follows: a cap that was configured smaller has fallen too.
            cap_bytes: AtomicU64::new(cap_bytes.max(disk_bytes.saturating_mul(2))),
            known_cap_bytes: AtomicU64::new(cap_bytes),
            configured_bytes: cap_bytes,
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
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    pub(super) fn cap(&self) -> u64 {
        self.cap_bytes.load(Relaxed)
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            cap: self.cap(),
            known_cap: self.known_cap_bytes.load(Relaxed),
            held: self.disk_bytes.load(Relaxed),
        }
    }

    /// The registered reader that holds the most, and from where on.
    pub(super) fn slowest(&self) -> Option<(Arc<str>, Position)> {
        self.registry().slowest(&self.view, self.limits())
    }

    /// Takes a record into the queue, or says why not.
    pub(super) fn append(
        &self,
        record: &Encoded,
    ) -> Result<oneshot::Receiver<Result<(), JournalError>>, JournalError> {
        let (done, commit) = oneshot::channel();
        let mut queue = self.queue();
        let pending = (queue.waiting_bytes + queue.group_bytes) as u64;
        if queue.closed {
            return Err(JournalError::Closed);
        }
        if self.disk_bytes.load(Relaxed) + pending >= self.cap() {
            return Err(self.refuse_full(&mut queue));
        }
        let taken = record.bytes() + RECORD_HEADER_BYTES;
        if queue.is_full_for(taken, record.backlog) {
            return Err(JournalError::Busy);
        }
        let was_urgent = queue.is_urgent();
        queue.waiting.push(Waiting { bytes: record.bytes.clone(), done });
        queue.waiting_bytes += taken;
        let first = queue.first_at.is_none();
        if first {
            queue.first_at = Some(Instant::now());
        }
        // The thread is woken once for the first, not for each that joins.
        let wake = first || queue.is_urgent() && !was_urgent;
        drop(queue);
        if wake {
            self.work.notify_one();
        }
        Ok(commit)
    }

    /// Asks for a look at what may go.
    pub(super) fn tidy(&self) {
        self.queue().tidy = true;
        self.work.notify_one();
    }

    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.work.notify_one();
    }

    fn refuse_full(&self, queue: &mut Queue) -> JournalError {
        if !std::mem::replace(&mut queue.full, true) {
            let reader = self.slowest().map(|(name, _)| name);
            tracing::warn!(
                bytes = self.disk_bytes.load(Relaxed),
                cap = self.cap(),
                reader = reader.as_deref(),
                "journal is full, appends are refused"
            );
        }
        JournalError::Full
    }

    /// Tells readers that something was committed or that the committer is gone.
    pub(super) fn tell(&self, ended: bool) {
        // Under the lock, or a thread that has just looked and is about to wait would miss it.
        *lock(&self.ended) = ended;
        self.news.notify_all();
        self.news_for_tasks.send_replace(ended);
    }
}
