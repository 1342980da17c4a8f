//! Accepts connections and frames: who gets in at all, before anything is known of them.
//!
//! Strangers, connections that have not said a valid `Hello`, are few per address and have a deadline; those who have
//! introduced themselves count against the overall cap alone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::codec::Encoder;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};
use vitals_wire::message::ServerCodec;
use vitals_wire::message::{Refusal, Refused, ServerMessage};

use crate::session::protocol::refused;
use crate::session::{self, Shared};
use crate::shutdown;

/// Pause after the system could not accept, such as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How many connections are taken.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// In all.
    pub connections: usize,
    /// Of one address that have not introduced themselves.
    pub strangers_per_address: usize,
}

/// Of all connections, one in so many may be a stranger's: the rest is kept for known hosts.
const STRANGERS_SHARE: usize = 4;
/// Files that are open beside the connections.
const OTHER_FILES: u64 = 100;

/// Accepts clients until the shutdown, then waits for their sessions to end, at most for `drain`.
pub async fn run(listener: TcpListener, caps: Caps, drain: Duration, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(caps.connections));
    let strangers =
        Arc::new(Strangers::new(caps.strangers_per_address, caps.connections.div_ceil(STRANGERS_SHARE)));
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if files.is_some_and(|files| files < caps.connections as u64 + OTHER_FILES) {
        warn!(
            files,
            connections = caps.connections,
            "the limit of open files is below the cap of connections"
        );
    }
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                shared.metrics.connections_accepted.add(1);
                match let_in(address, &slots, &strangers) {
                    Ok((slot, stranger)) => {
                        let shared = shared.clone();
                        sessions.spawn(async move {
                            let _slot = slot;
                            let _open = shared.metrics.connections.hold();
                            // Acks are small and waited for.
                            if let Err(error) = stream.set_nodelay(true) {
                                debug!(peer = %address, %error, "cannot set TCP_NODELAY");
                            }
                            session::run(shared.clone(), stream, address, stranger).await;
                        });
                    }
                    Err(refused) => turn_away(stream, address, refused, &shared),
                }
            }
            Err(error) => {
                error!(%error, "cannot accept a connection; is the limit of open files too low?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who comes now is not kept waiting for an answer that never comes.
    drop(listener);
    sessions.close();
    if shutdown::wait("sessions", Instant::now() + drain, sessions.wait()).await.is_none() {
        warn!(sessions = sessions.len(), "what they were not acknowledged the clients send again");
    }
}

fn let_in(
    address: SocketAddr,
    slots: &Arc<Semaphore>,
    strangers: &Arc<Strangers>,
) -> Result<(OwnedSemaphorePermit, Stranger), Refused> {
    let too_many = |text: &str| refused(Refusal::TooManyConnections, text, true);
    let slot = slots.clone().try_acquire_owned().map_err(|_| too_many("the server is full"))?;
    let stranger = strangers.enter(address.ip()).ok_or_else(|| {
        too_many("too many connections, of your address or in all, have not introduced themselves")
    })?;
    Ok((slot, stranger))
}

/// Says no without waiting: who takes nothing in is just closed.
fn turn_away(stream: TcpStream, peer: SocketAddr, refused: Refused, shared: &Shared) {
    shared.metrics.refused.add(refused.code.word(), 1);
    if let Some(left_out) = shared.seldom.due(std::time::Instant::now()) {
        warn!(%peer, reason = refused.code.word(), error = &*refused.text, left_out, "connection turned away");
    }
    let mut bytes = BytesMut::new();
    if ServerCodec::new().encode(ServerMessage::Refused(refused), &mut bytes).is_ok() {
        let _ = stream.try_write(&bytes);
    }
}

/// Counts strangers by address.
#[derive(Debug)]
struct Strangers {
    most_of_address: usize,
    slots: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One stranger, until dropped.
#[derive(Debug)]
struct Stranger {
    strangers: Arc<Strangers>,
    address: IpAddr,
    _slot: OwnedSemaphorePermit,
}

impl Strangers {
    fn new(most_of_address: usize, most: usize) -> Self {
        Self { most_of_address, slots: Arc::new(Semaphore::new(most)), by_address: Mutex::default() }
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        let address = network_of(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let here = by_address.entry(address).or_default();
        if *here >= self.most_of_address {
            return None;
        }
        *here += 1;
        Some(Stranger { strangers: self.clone(), address, _slot: slot })
    }
}

impl session::Door for Stranger {
    fn admitted(self) {}

    fn denied(&mut self) -> Duration {
        Duration::ZERO
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut by_address = self.strangers.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: one of IPv4, a /64 of IPv6, since whoever has one of those has all of it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_one_address_are_few_and_leave_room_when_they_go() {
        let strangers = Arc::new(Strangers::new(2, 3));
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = strangers.enter(address);
        let second = strangers.enter("::ffff:192.0.2.1".parse().unwrap());
        assert!(first.is_some() && second.is_some());
        assert!(strangers.enter(address).is_none());
        let other = strangers.enter("192.0.2.2".parse().unwrap());
        assert!(other.is_some(), "others are not held back");
        assert!(strangers.enter("192.0.2.3".parse().unwrap()).is_none(), "until there are too many in all");
        drop(first);
        assert!(strangers.enter(address).is_some());
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }

    #[test]
    fn nothing_is_left_of_an_address_when_its_last_stranger_is_gone() {
        let strangers = Arc::new(Strangers::new(2, 2));
        drop(strangers.enter("192.0.2.1".parse().unwrap()));
        assert!(strangers.by_address.lock().unwrap().is_empty());
    }
}
