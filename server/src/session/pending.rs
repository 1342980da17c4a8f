//! The batches of one client that wait for their commit or for their `Ack`.

use vitals_wire::bounded::List;
use vitals_wire::limits::{MAX_ACK_BATCHES, MAX_ACK_REFUSED, MAX_BATCH_SAMPLES};
use vitals_wire::message::{Ack, DropReason, RefusedSample};

use super::protocol::Batch;

/// Batches of one client that wait for their commit: its live samples and its backlog together.
pub const MAX_PENDING: usize = 8;

/// What was stored of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// How many samples.
    pub samples: usize,
    /// The newest time among them, in ms since 1970.
    pub newest_ms: i64,
}

/// A batch is noted, settled by its commit or by the refusal of all that is in it, and then leaves with an `Ack`. There is
/// no other way into an `Ack`.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Wait for their commit, by number; no two have the same.
    waiting: Vec<Waiting>,
    /// Wait for their `Ack`, in the order in which they were settled.
    settled: Vec<Settled>,
    acknowledged: usize,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    /// Of the samples that are being committed.
    times: Vec<i64>,
    refused: Vec<RefusedSample>,
}

#[derive(Debug)]
struct Settled {
    number: u64,
    /// How many samples are durable.
    stored: usize,
    refused: Vec<RefusedSample>,
}

impl Pending {
    /// Notes a batch; false where it has to come again.
    pub(super) fn note(&mut self, batch: &Batch) -> bool {
        let number = batch.number;
        // An Ack of the one would be taken for one of the other.
        let is_known = self.waiting.iter().any(|waiting| waiting.number == number)
            || self.settled.iter().any(|settled| settled.number == number);
        if is_known || self.waiting.len() + self.settled.len() >= MAX_PENDING {
            return false;
        }
        let refused = batch.refused.clone();
        if batch.samples.is_empty() {
            self.settled.push(Settled { number, stored: 0, refused });
        } else {
            let times = batch.samples.iter().map(|sample| sample.time_ms).collect();
            self.waiting.push(Waiting { number, times, refused });
        }
        true
    }

    pub(super) fn committed(&mut self, number: u64) -> Option<Stored> {
        let Waiting { times, refused, .. } = self.take(number)?;
        let stored = times.len();
        self.settled.push(Settled { number, stored, refused });
        let newest_ms = times.into_iter().max()?;
        Some(Stored { samples: stored, newest_ms })
    }

    pub(super) fn unfit(&mut self, number: u64, reason: DropReason) {
        let Some(Waiting { times, mut refused, .. }) = self.take(number) else { return };
        refused.extend(times.into_iter().map(|time_ms| RefusedSample { time_ms, reason }));
        self.settled.push(Settled { number, stored: 0, refused });
    }

    pub(super) fn deferred(&mut self, number: u64) {
        self.take(number);
    }

    pub(super) fn ack(&mut self, now_ms: i64) -> Option<Ack> {
        // One batch's refusals always fit, so this comes to an end.
        const { assert!(MAX_ACK_REFUSED >= MAX_BATCH_SAMPLES && MAX_ACK_BATCHES > 0) };
        let mut count = 0;
        let mut refusals = 0;
        for settled in self.settled.iter().take(MAX_ACK_BATCHES) {
            refusals += settled.refused.len();
            if count > 0 && refusals > MAX_ACK_REFUSED {
                break;
            }
            count += 1;
        }
        let (mut batches, mut refused) = (Vec::with_capacity(count), Vec::new());
        for settled in self.settled.drain(..count) {
            batches.push(settled.number);
            refused.extend(settled.refused);
            self.acknowledged += settled.stored;
        }
        let ack =
            Ack { server_time_ms: now_ms, batches: List::first(batches).0, refused: List::first(refused).0 };
        (count > 0).then_some(ack)
    }

    pub(super) fn take_acknowledged(&mut self) -> usize {
        std::mem::take(&mut self.acknowledged)
    }

    fn take(&mut self, number: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.number == number)?;
        Some(self.waiting.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use vitals_wire::sample::Sample;

    use super::*;

    const REASON: DropReason = DropReason::TooOld;

    fn batch(number: u64, kept: usize, refused: usize) -> Batch {
        let samples = (0..kept as i64).map(|time_ms| Sample { time_ms, sections: List::empty() }).collect();
        let refused = vec![RefusedSample { time_ms: -1, reason: REASON }; refused];
        Batch { number, samples, refused, ..Batch::default() }
    }

    fn numbers(ack: Option<Ack>) -> Vec<u64> {
        ack.map_or(Vec::new(), |ack| ack.batches.to_vec())
    }

    #[test]
    fn nothing_is_acknowledged_before_its_commit_and_everything_once() {
        let mut pending = Pending::default();
        assert!(pending.note(&batch(1, 3, 1)) && pending.note(&batch(2, 1, 0)));
        assert_eq!(pending.ack(0), None);
        assert_eq!(pending.committed(2), Some(Stored { samples: 1, newest_ms: 0 }));
        assert_eq!(pending.committed(2), None, "a second time means nothing");
        assert_eq!(pending.committed(9), None, "nor does one that nobody sent");
        let ack = pending.ack(77).unwrap();
        assert_eq!((ack.server_time_ms, &*ack.batches, ack.refused.len()), (77, &[2][..], 0));
        assert_eq!((pending.ack(0), pending.take_acknowledged()), (None, 1));
        assert_eq!(pending.committed(1), Some(Stored { samples: 3, newest_ms: 2 }));
        let ack = pending.ack(0).unwrap();
        assert_eq!((&*ack.batches, ack.refused.len()), (&[1][..], 1));
        assert_eq!((pending.take_acknowledged(), pending.take_acknowledged()), (3, 0));
    }

    #[test]
    fn what_is_wholly_refused_is_settled_at_once_and_what_is_unfit_names_each_sample() {
        let mut pending = Pending::default();
        assert!(pending.note(&batch(1, 0, 2)));
        assert_eq!(pending.ack(0).unwrap().refused.len(), 2);
        assert!(pending.note(&batch(2, 3, 1)));
        pending.unfit(2, DropReason::Unreadable);
        assert_eq!(pending.committed(2), None);
        let ack = pending.ack(0).unwrap();
        let reasons: Vec<_> = ack.refused.iter().map(|sample| (sample.time_ms, sample.reason)).collect();
        let unreadable = DropReason::Unreadable;
        assert_eq!(reasons, [(-1, REASON), (0, unreadable), (1, unreadable), (2, unreadable)]);
        assert_eq!(pending.take_acknowledged(), 0);
    }

    #[test]
    fn a_batch_that_was_deferred_or_comes_twice_is_never_acknowledged_for_it() {
        let mut pending = Pending::default();
        assert!(pending.note(&batch(1, 1, 0)));
        assert!(!pending.note(&batch(1, 5, 0)), "the commit of the one would settle the other");
        pending.deferred(1);
        assert_eq!((pending.committed(1), pending.ack(0)), (None, None));
        assert!(pending.note(&batch(1, 5, 0)), "it can come again");
        pending.committed(1);
        assert!(!pending.note(&batch(1, 1, 0)), "also before the Ack has gone");
        assert_eq!(numbers(pending.ack(0)), [1]);
        assert!(pending.note(&batch(1, 1, 0)));
    }

    #[test]
    fn no_more_than_a_few_are_pending() {
        let mut pending = Pending::default();
        for number in 0..MAX_PENDING as u64 {
            assert!(pending.note(&batch(number, 1, 0)));
        }
        assert!(!pending.note(&batch(99, 1, 0)) && !pending.note(&batch(99, 0, 1)));
        pending.committed(3);
        assert!(!pending.note(&batch(99, 1, 0)), "what is settled leaves with its Ack");
        assert_eq!(numbers(pending.ack(0)), [3]);
        assert!(pending.note(&batch(99, 1, 0)));
    }

    #[test]
    fn an_ack_carries_no_more_refusals_than_it_can_and_the_next_one_the_rest() {
        let mut pending = Pending::default();
        for number in 0..6 {
            assert!(pending.note(&batch(number, 1, MAX_BATCH_SAMPLES - 1)));
            pending.committed(number);
        }
        let (first, second) = (pending.ack(0).unwrap(), pending.ack(0).unwrap());
        assert_eq!((&*first.batches, &*second.batches), (&[0, 1, 2, 3][..], &[4, 5][..]));
        assert_eq!((first.refused.len(), second.refused.len()), (4 * 255, 2 * 255));
        assert_eq!((pending.ack(0), pending.take_acknowledged()), (None, 6));
    }
}
