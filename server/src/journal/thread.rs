//! The thread that owns the journal's writer.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use vitals_wire::log::{LogError, Writer};

use super::{JournalError, Queue, Shared, Waiting, disk_error, lock, panic_text};

/// Starts it. It ends when the journal is closed.
pub(super) fn start(writer: Writer, shared: Arc<Shared>, group: Duration) -> io::Result<()> {
    let committer =
        Committer { writer, shared, window: group, group: Vec::new(), failing: None, stuck: None };
    std::thread::Builder::new().name("journal".to_owned()).spawn(move || watched(committer)).map(drop)
}

/// Runs it and says so when it panics.
fn watched(committer: Committer) {
    let ending = Ending(committer.shared.clone());
    // What it leaves behind is only told to be over.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| committer.run())) {
        let error = panic_text(&*panic);
        tracing::error!(error, "the journal's thread panicked; nothing is acknowledged any more");
        *lock(&ending.0.panicked) = Some(error);
    }
}

struct Committer {
    writer: Writer,
    shared: Arc<Shared>,
    /// Time that a group is open to others after its first record.
    window: Duration,
    group: Vec<Waiting>,
    /// Why the last commit failed, and how many have since the disk was well.
    failing: Option<(String, u64)>,
    /// Why the last removal failed.
    stuck: Option<String>,
}

/// What the queue had.
struct Work {
    tidy: bool,
    closed: bool,
}

/// However the thread ends, nobody waits for it in vain.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        // Their commits resolve as `Closed`.
        queue.waiting.clear();
        drop(queue);
        self.0.tell(true);
    }
}

impl Committer {
    fn run(mut self) {
        loop {
            let work = self.next_work();
            let nothing = self.group.is_empty();
            if !nothing {
                self.commit();
            }
            if work.tidy || self.shared.registry().is_over_share(&self.shared.view) {
                self.remove_passed();
            }
            if work.closed && nothing {
                return;
            }
        }
    }

    /// Waits until a group is due, or a reader has moved, or the journal is being closed.
    fn next_work(&mut self) -> Work {
        let shared = &self.shared;
        let mut queue = shared.queue();
        loop {
            let wait = match queue.first_at {
                _ if queue.is_urgent() => break,
                Some(first_at) => match (first_at + self.window).checked_duration_since(Instant::now()) {
                    None | Some(Duration::ZERO) => break,
                    wait => wait,
                },
                None if queue.tidy => break,
                None => None,
            };
            queue = match wait {
                Some(wait) => shared.work.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let Queue { waiting, waiting_bytes, group_bytes, first_at, tidy, closed, .. } = &mut *queue;
        // `group` is empty and keeps its capacity for the next.
        std::mem::swap(waiting, &mut self.group);
        *group_bytes = std::mem::take(waiting_bytes);
        *first_at = None;
        Work { tidy: std::mem::take(tidy), closed: *closed }
    }

    fn commit(&mut self) {
        let writer = &mut self.writer;
        let outcome = self
            .group
            .iter()
            .try_for_each(|waiting| writer.append(&waiting.bytes).map(drop))
            .and_then(|()| writer.commit().map(drop));
        self.account();
        let outcome = match outcome {
            Ok(()) => {
                self.shared.tell(false);
                if let Some((_, commits)) = self.failing.take() {
                    self.shared.set_failing(None);
                    tracing::info!(commits, "journal can be written again");
                }
                Ok(())
            }
            Err(error) => Err(self.failed(&error)),
        };
        for waiting in self.group.drain(..) {
            // A session that is gone does not want to know.
            let _ = waiting.done.send(outcome.clone());
        }
    }

    /// Counts a failed commit; says so when the reason is a new one.
    fn failed(&mut self, error: &LogError) -> JournalError {
        self.shared.metrics.journal_errors.add(1);
        let reason = reason(error);
        match &mut self.failing {
            Some((known, commits)) if *known == reason => *commits += 1,
            failing => {
                let commits = failing.take().map_or(0, |(_, commits)| commits) + 1;
                tracing::error!(%error, "journal cannot be written, nothing is acknowledged until it can");
                self.shared.set_failing(Some(error.to_string()));
                *failing = Some((reason, commits));
            }
        }
        disk_error(error)
    }

    /// Removes the segments that every reader has passed.
    fn remove_passed(&mut self) {
        let Some((_, position)) = self.shared.slowest() else { return };
        let unread = self.shared.registry().unread(&self.shared.view);
        match self.writer.remove_before(position) {
            Ok(_) => self.stuck = None,
            Err(error) => {
                let reason = reason(&error);
                if self.stuck.as_ref() != Some(&reason) {
                    tracing::warn!(%error, "a part of the journal that is done with stays");
                    self.stuck = Some(reason);
                }
            }
        }
        let lost = self.shared.registry().note_lost(unread, &self.shared.view);
        self.shared.metrics.influx_given_up_bytes.add(lost);
        self.account();
    }

    /// Says how large the journal is now.
    fn account(&self) {
        let shared = &self.shared;
        let bytes = shared.view.bytes();
        let mut queue = shared.queue();
        queue.group_bytes = 0;
        shared.disk_bytes.store(bytes, Relaxed);
        shared.metrics.journal_bytes.set(bytes);
        let room_again = bytes < shared.cap_bytes && std::mem::take(&mut queue.full);
        drop(queue);
        if room_again {
            tracing::info!(bytes, "journal takes records again");
        }
    }
}

/// The same for the same trouble: without the name of the file, which changes.
fn reason(error: &LogError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}
