//! The thread that drives the committer: waits until a group is due, lets it be committed, and looks at the disk's free
//! space now and then.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::committer::Committer;
use super::shared::Shared;
use super::{cap, lock, panic_text};

/// Time between two looks at the disk's free space. Tests have less patience.
const DISK_LOOK: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

/// Starts it. It ends when the journal is closed. `window` is the time that a group is open to others after its first
/// record.
pub(super) fn start(committer: Committer, dir: PathBuf, window: Duration) -> io::Result<()> {
    std::thread::Builder::new()
        .name("journal".to_owned())
        .spawn(move || watched(committer, dir, window))
        .map(drop)
}

/// Runs it and says so when it panics.
fn watched(mut committer: Committer, dir: PathBuf, window: Duration) {
    // What it leaves behind is only told to be over, when it is dropped here.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&mut committer, dir, window))) {
        let error = panic_text(&*panic);
        tracing::error!(error, "the journal's thread panicked; nothing is acknowledged any more");
        *lock(&committer.shared.panicked) = Some(error);
    }
}

fn run(committer: &mut Committer, dir: PathBuf, window: Duration) {
    let mut look_at = Instant::now() + DISK_LOOK;
    loop {
        wait(&committer.shared, window, look_at);
        let now = Instant::now();
        if now >= look_at {
            // Before the step: a full journal gets no work that would bring the next one soon.
            committer.disk_has(cap::free_bytes(&dir));
            look_at = now + DISK_LOOK;
        }
        if !committer.step() {
            return;
        }
    }
}

/// Waits until a group is due, or a reader has moved, or the journal is being closed, or it is `until`.
fn wait(shared: &Shared, window: Duration, until: Instant) {
    let mut queue = shared.queue();
    loop {
        let due = match queue.first_at {
            _ if queue.is_urgent() => return,
            Some(first_at) => first_at + window,
            None if queue.tidy => return,
            None => until,
        };
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        queue = shared.work.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
