//! What a host says of the keys that it knows, on its way to the disk: nobody waits for it, and the last word counts.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use vitals_wire::bounded::List;
use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_PINS;

use crate::state::{State, StateError};

/// Keys that a host knows.
type Pins = List<[u8; 32], MAX_PINS>;

/// One host's word, one write at a time.
#[derive(Default)]
pub(super) struct Learning {
    under_way: Option<BoxFuture<'static, Result<(), StateError>>>,
    next: Option<(State, HostId, Pins)>,
}

impl Learning {
    /// Takes down what a host knows from now on.
    pub(super) fn take(&mut self, state: &State, host: HostId, pins: Pins) {
        let latest = (state.clone(), host, pins);
        match &self.under_way {
            None => self.under_way = Some(write(latest)),
            Some(_) => self.next = Some(latest),
        }
    }

    /// Waits for a write to be done; for ever where there is none. What was begun goes on where it left off.
    pub(super) async fn done(&mut self) -> Result<(), StateError> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let done = under_way.await;
        self.under_way = self.next.take().map(write);
        done
    }
}

fn write((state, host, pins): (State, HostId, Pins)) -> BoxFuture<'static, Result<(), StateError>> {
    async move { state.learnt(host, &pins).await }.boxed()
}
