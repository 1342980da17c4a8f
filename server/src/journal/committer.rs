//! Writes, waits for the disk, resolves, removes: all that the journal's thread does, one step at a time and without a
//! clock, so that a simulation can do it too.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vitals_wire::log::{LogError, Writer};

use super::cap::Cap;
use super::shared::{Queue, Shared, Waiting};
use super::{JournalError, disk_error};

/// Owns the journal's writer. However it ends, nobody waits for it in vain: dropping it resolves what waits as
/// [`JournalError::Closed`] and tells the readers that nothing more comes.
#[derive(Debug)]
pub struct Committer {
    writer: Writer,
    pub(super) shared: Arc<Shared>,
    cap: Cap,
    /// Whether the disk, and not the configuration, is what bounds the journal.
    is_disk_small: bool,
    group: Vec<Waiting>,
    /// Why the last commit failed, and how many have since the disk was well.
    failing: Option<(String, u64)>,
    /// Why the last removal failed.
    stuck: Option<String>,
}

impl Drop for Committer {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        // Their commits resolve as `Closed`.
        queue.waiting.clear();
        drop(queue);
        self.group.clear();
        self.shared.tell(true);
    }
}

impl Committer {
    pub(super) fn new(writer: Writer, shared: Arc<Shared>, cap: Cap) -> Self {
        Self { writer, shared, cap, is_disk_small: false, group: Vec::new(), failing: None, stuck: None }
    }

    /// Commits what waits now, resolves it, and removes what every reader has passed. False once the journal is closed
    /// and nothing waited: then there is nothing more to do, and the committer can be dropped.
    pub fn step(&mut self) -> bool {
        let (tidy, closed) = self.take();
        let nothing = self.group.is_empty();
        if !nothing {
            self.commit();
        }
        let shared = &self.shared;
        // What could not be removed is tried again: at its cap the journal gets no record that would bring a reader on.
        let again = self.stuck.is_some();
        if tidy || again || shared.registry().is_over_limit(&shared.view, shared.limits()) {
            self.remove_passed();
        }
        !(closed && nothing)
    }

    /// Says how many bytes are free on the journal's disk: from now on the cap is the configured one, or half of those
    /// and the journal's own if that is less, but at least a few segments. Lagging readers have until the next call to
    /// give up what is too much then. None: not known.
    pub fn disk_has(&mut self, free: Option<u64>) {
        let shared = &self.shared;
        let own = shared.view.bytes();
        let (cap, configured) = (self.cap.with(own, free), self.cap.configured());
        let before = shared.cap_bytes.swap(cap, Relaxed);
        shared.known_cap_bytes.store(cap.max(before), Relaxed);
        shared.metrics.journal_cap_bytes.set(cap);
        let is_disk_small = cap < configured;
        match (self.is_disk_small, is_disk_small) {
            (false, true) => {
                tracing::warn!(cap, configured, free, "the free disk space is what bounds the journal");
            }
            (true, false) => tracing::info!(cap, free, "the journal can grow to what is configured again"),
            _ => {}
        }
        self.is_disk_small = is_disk_small;
        self.account();
    }

    /// Takes what waits; whether a reader has moved, and whether the journal is closed.
    fn take(&mut self) -> (bool, bool) {
        let mut queue = self.shared.queue();
        let Queue { waiting, waiting_bytes, group_bytes, first_at, tidy, closed, .. } = &mut *queue;
        // `group` is empty and keeps its capacity for the next.
        std::mem::swap(waiting, &mut self.group);
        *group_bytes = std::mem::take(waiting_bytes);
        *first_at = None;
        (std::mem::take(tidy), *closed)
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
                    *super::lock(&self.shared.failing) = None;
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
                *super::lock(&self.shared.failing) = Some(error.to_string());
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
        let room_again = bytes < shared.cap() && std::mem::take(&mut queue.full);
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
