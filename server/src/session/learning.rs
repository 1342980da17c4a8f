//! What a host says of the keys that it knows, on its way to the disk: nobody waits for it, and the last word counts. A
//! host has little to say of it, so what it says often is written seldom.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};
use vitals_wire::bounded::List;
use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_PINS;

use crate::state::{State, StateError};

/// Keys that a host knows.
type Pins = List<[u8; 32], MAX_PINS>;

/// Time from one write to the next of the same connection.
const PAUSE: Duration = Duration::from_secs(5);

/// One host's word, one write at a time.
#[derive(Default)]
pub(super) struct Learning {
    under_way: Option<BoxFuture<'static, Result<(), StateError>>>,
    next: Option<(State, HostId, Pins)>,
    not_before: Option<Instant>,
}

impl Learning {
    /// Takes down what a host knows from now on.
    pub(super) fn take(&mut self, state: &State, host: HostId, pins: Pins) {
        self.next = Some((state.clone(), host, pins));
    }

    /// Waits for a write to be done; for ever where there is none. What was begun goes on where it left off.
    pub(super) async fn done(&mut self) -> Result<(), StateError> {
        loop {
            if let Some(under_way) = &mut self.under_way {
                let done = under_way.await;
                self.under_way = None;
                self.not_before = Some(Instant::now() + PAUSE);
                return done;
            }
            if self.next.is_none() {
                return std::future::pending().await;
            }
            if let Some(not_before) = self.not_before {
                sleep_until(not_before).await;
            }
            self.under_way = self.next.take().map(write);
        }
    }

    /// The host is gone: its last word is written all the same.
    pub(super) fn end(&mut self) {
        if let Some(last) = self.next.take() {
            tokio::spawn(write(last));
        }
    }
}

fn write((state, host, pins): (State, HostId, Pins)) -> BoxFuture<'static, Result<(), StateError>> {
    async move { state.learnt(host, &pins).await }.boxed()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;
    use vitals_wire::bounded::Text;
    use vitals_wire::ids::{RunId, Secret};
    use vitals_wire::message::{Facts, Hello};

    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: 1,
            client_version: Text::cut("0.1.0"),
            host: HostId([1; 16]),
            run: RunId([1; 16]),
            secret: Secret([1; 32]),
            token: None,
            name: Text::cut("web"),
            labels: List::empty(),
            facts: Facts::default(),
            interval_ms: 5_000,
            shortest_interval_ms: 1_000,
            clock_ms: 0,
        }
    }

    fn pins(pin: u8) -> Pins {
        List::new(vec![[pin; 32]]).unwrap()
    }

    #[tokio::test]
    async fn a_host_that_says_it_over_and_over_is_written_seldom_and_its_last_word_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
        let host = HostId([1; 16]);
        crate::state::tests::admit(&state, hello(), 5, None).await.unwrap();
        let mut learning = Learning::default();
        learning.take(&state, host, pins(1));
        learning.done().await.unwrap();
        for pin in 2..100 {
            learning.take(&state, host, pins(pin));
            assert!(timeout(Duration::from_millis(5), learning.done()).await.is_err(), "{pin}");
        }
        assert!(state.not_learnt([1; 32]).await.unwrap().is_empty(), "only the first was written");
        learning.end();
        let began = Instant::now();
        while !state.not_learnt([99; 32]).await.unwrap().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10), "the last word is lost");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
