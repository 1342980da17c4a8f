//! A connection that a server took, and the batches under way on it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ACK_DEADLINE;

#[derive(Debug)]
pub(super) struct Open {
    pub(super) server: usize,
    pub(super) window: usize,
    pub(super) frame_bytes: usize,
    pub(super) batch_samples: usize,
    /// Batches under way, in the order in which they were sent.
    pub(super) flights: VecDeque<Flight>,
    pub(super) next_batch: u64,
    /// The newest sample has not gone out on this connection.
    pub(super) live_due: bool,
    /// No backlog before then.
    pub(super) backlog_at: Instant,
    pub(super) said_bye: bool,
    /// When something was last acknowledged, or put off by the server.
    pub(super) acked_at: Option<Instant>,
    /// The shortest time from asking to hearing the answer.
    pub(super) trip: Duration,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) batch: u64,
    pub(super) backlog: bool,
    pub(super) deadline: Instant,
}

impl Open {
    /// Whether the window lets another batch of backlog go.
    pub(super) fn has_room(&self) -> bool {
        self.flights.iter().filter(|flight| flight.backlog).count() < self.window
    }

    /// Takes out the oldest batch under way, whose time is over, if it is one that a busy server may have put off: others
    /// that went later were acknowledged, or the server said since that it puts off. Connecting anew would bring neither of them anything.
    pub(super) fn put_off(&mut self) -> Option<u64> {
        let acked_at = self.acked_at?;
        self.flights.pop_front_if(|first| first.deadline < acked_at + ACK_DEADLINE).map(|first| first.batch)
    }

    /// The next batch goes out now.
    pub(super) fn take_off(&mut self, now: Instant, backlog: bool) -> u64 {
        let batch = self.next_batch;
        self.next_batch += 1;
        self.flights.push_back(Flight { batch, backlog, deadline: now + ACK_DEADLINE });
        batch
    }
}
