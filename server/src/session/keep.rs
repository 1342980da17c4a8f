//! Shows and keeps what came: the live picture at once, the journal in its own time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, error, warn};
use vitals_wire::message::DropReason;
use vitals_wire::record::Record;
use vitals_wire::sample::Sample;

use super::protocol::{Batch, Protocol};
use super::series::MEASUREMENTS;
use super::{Guest, Shared};
use crate::journal::{Encoded, Journal, JournalError};

/// Bytes of all batches that wait for their commit: what a slow or full disk makes the server hold at most.
pub const MAX_PENDING_BYTES: usize = 64 << 20;
/// Backlog takes at most three quarters of that, so that live batches find room.
const BACKLOG_SHARE: (usize, usize) = (3, 4);
/// Pause before a batch that the journal could not take is tried again.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// The same where only its queue was full: that passes with the next commit.
const BUSY_RETRY: Duration = Duration::from_millis(100);

/// Resolves with a batch's number when it is on disk.
pub(super) type Committing = BoxFuture<'static, u64>;

/// Room for batches that wait for their commit, shared by all sessions.
#[derive(Debug)]
pub struct Room {
    all: Arc<Semaphore>,
    backlog: Arc<Semaphore>,
}

/// What a batch takes of it, until dropped.
type Held = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        let (most, of) = BACKLOG_SHARE;
        Self { all: Arc::new(Semaphore::new(bytes)), backlog: Arc::new(Semaphore::new(bytes / of * most)) }
    }

    fn take(&self, bytes: usize, backlog: bool) -> Option<Held> {
        // At most two MiB, far below 2^32.
        let take = |of: &Arc<Semaphore>| of.clone().try_acquire_many_owned(bytes as u32).ok();
        let share = if backlog { Some(take(&self.backlog)?) } else { None };
        Some((take(&self.all)?, share))
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MAX_PENDING_BYTES)
    }
}

/// Shows what is live of a batch, and starts to keep it if it `is_noted` as pending. None where nothing is to be
/// committed of it: then the protocol knows why.
pub(super) fn take(
    shared: &Arc<Shared>,
    guest: &mut Guest,
    protocol: &mut Protocol,
    (batch, is_noted): (Batch, bool),
    now_ms: i64,
) -> Option<Committing> {
    let arrived = Instant::now();
    count(shared, guest, &batch);
    let (number, backlog) = (batch.number, batch.backlog);
    let record = Record { host: guest.id, received_ms: now_ms, backlog, samples: batch.samples };
    // Before `live` takes the samples over.
    let encoded = (is_noted && !record.samples.is_empty()).then(|| Encoded::new(&record));
    if backlog {
        shared.live.heard(guest.id, guest.interval, now_ms);
    } else {
        for sample in record.samples.into_iter().chain(batch.ahead) {
            guest.mind_clock(sample.time_ms, now_ms);
            shared.live.sample(guest.id, guest.interval, now_ms, Arc::new(sample));
        }
    }
    let encoded = match encoded {
        Some(Ok(encoded)) => encoded,
        Some(Err(error)) => {
            error!(host = &*guest.name, %error, "samples can never be kept");
            protocol.unfit(number, DropReason::Unreadable);
            return None;
        }
        None => {
            shared.metrics.batches_deferred.add(u64::from(!is_noted));
            return None;
        }
    };
    let Some(room) = shared.room.take(encoded.bytes(), backlog) else {
        protocol.deferred(number);
        shared.metrics.batches_deferred.add(1);
        return None;
    };
    let shared = shared.clone();
    Some(Box::pin(async move {
        commit(&shared.journal, &encoded).await;
        drop(room);
        shared.metrics.batch_commit.observe(arrived.elapsed());
        number
    }))
}

/// A batch of backlog beyond the host's limits is not taken now. It shows that the host lives.
pub(super) fn put_off(shared: &Shared, guest: &Guest, batch: &Batch, now_ms: i64) {
    shared.metrics.batches_over_limit.add(1);
    shared.live.heard(guest.id, guest.interval, now_ms);
    debug!(
        host = &*guest.name,
        samples = batch.samples.len(),
        "backlog is beyond the host's limits and comes again"
    );
}

/// Takes out of samples the points of series beyond the host's cap, and what no host may say.
pub(super) fn trim<'s>(
    shared: &Shared,
    guest: &Guest,
    samples: impl Iterator<Item = &'s mut Sample>,
    now: Instant,
) {
    let (surplus, told) = shared.books.trim(&guest.book, samples, now);
    if surplus.count() == 0 {
        return;
    }
    for (measurement, points) in MEASUREMENTS.iter().zip(surplus.points) {
        shared.metrics.series_dropped.add(measurement, points);
    }
    shared.live.series_dropped(guest.id, surplus.count());
    if let Some(points) = told {
        let (host, cap, such_as) = (&*guest.name, shared.books.most_series(), surplus.named);
        warn!(
            host,
            cap,
            points,
            ?such_as,
            "a host has more series than limits.series: the surplus is dropped"
        );
    }
}

fn count(shared: &Shared, guest: &Guest, batch: &Batch) {
    let metrics = &shared.metrics;
    metrics.samples_received.add((batch.samples.len() + batch.refused.len()) as u64);
    metrics.sections_unknown.add(batch.oddities.unknown);
    metrics.sections_damaged.add(batch.oddities.damaged);
    metrics.figures_not_finite.add(batch.oddities.not_finite);
    for sample in &batch.refused {
        let (host, reason) = (&*guest.name, sample.reason.word());
        debug!(host, reason, time_ms = sample.time_ms, "sample refused");
    }
}

/// Returns when the record is on disk, however often that takes: while the disk is full or broken, the client waits for
/// its `Ack` and keeps what it has.
async fn commit(journal: &Journal, record: &Encoded) {
    loop {
        let outcome = match journal.append(record) {
            Ok(commit) => commit.wait().await,
            Err(error) => Err(error),
        };
        let pause = match outcome {
            Ok(()) => return,
            // Nothing will be committed any more: never settled, and the client sends it again.
            Err(JournalError::Closed) => std::future::pending().await,
            Err(JournalError::Busy) => BUSY_RETRY,
            Err(JournalError::Full | JournalError::Disk(_) | JournalError::Unfit(_)) => JOURNAL_RETRY,
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlog_leaves_room_for_live_batches_and_gives_back_what_it_took() {
        let room = Room::new(400);
        let backlog: Vec<_> = std::iter::from_fn(|| room.take(100, true)).collect();
        assert_eq!(backlog.len(), 3);
        let live = room.take(100, false);
        assert!(live.is_some() && room.take(1, false).is_none());
        drop(backlog);
        assert!(room.take(300, true).is_some());
        assert!(room.take(301, true).is_none());
        drop(live);
        assert!(room.take(400, false).is_some());
    }
}
