//! Accepts connections and brings them to their session: who gets in at all, before anything is known of them.
//!
//! Strangers, connections that have not introduced themselves yet, are few and have a deadline (`strangers`); hosts
//! count against the overall cap alone. Before a session begins a listed proxy says whom it speaks for (`proxy`) and TLS
//! is set up (`meet`). Until a stranger has said its first byte it costs a task and a socket, and no buffer.

mod denials;
mod gate;
pub mod meet;
mod place;
mod proxy;
pub mod strangers;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::Encoder;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};
use vitals_wire::message::ServerCodec;
use vitals_wire::message::{Refusal, Refused, ServerMessage};

use crate::config::Network;
use crate::seldom::Seldom;
use crate::session::protocol::refused;
use crate::session::{self, Shared};
use crate::shutdown;
use gate::{Gate, Guest, Stranger};
use meet::{Failure, Met};
use strangers::Limits;

/// Pause after the system could not accept, such as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Files that are open beside the connections.
const OTHER_FILES: u64 = 100;

/// How many connections are taken, and from whom.
#[derive(Debug, Clone)]
pub struct Caps {
    /// In all.
    pub connections: usize,
    /// Of one address that have not introduced themselves, where no host is known.
    pub strangers_per_address: usize,
    /// Proxies that say whom they speak for.
    pub proxies: Arc<[Network]>,
}

/// What all who come meet.
struct Entrance {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    proxies: Arc<[Network]>,
    /// One for each reason, so that a flood of one leaves the others to be seen.
    seldom: [Seldom; Failure::ALL.len()],
}

/// Accepts clients until the shutdown, then waits for their sessions to end, at most for `drain`.
pub async fn run(listener: TcpListener, caps: Caps, drain: Duration, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(caps.connections));
    let limits = Limits::of(caps.connections, caps.strangers_per_address);
    let entrance = Arc::new(Entrance {
        gate: Arc::new(Gate::new(limits, shared.metrics.clone())),
        shared: shared.clone(),
        proxies: caps.proxies,
        seldom: Default::default(),
    });
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
            Ok((stream, peer)) => {
                shared.metrics.connections_accepted.add(1);
                let Ok(slot) = slots.clone().try_acquire_owned() else {
                    entrance.turn_away(&stream, peer, "the server is full");
                    continue;
                };
                let is_proxy = entrance.proxies.iter().any(|proxy| proxy.contains(peer.ip()));
                let Some(stranger) = entrance.gate.enter(peer.ip(), is_proxy) else {
                    entrance.turn_away(&stream, peer, TOO_MANY);
                    continue;
                };
                let entrance = entrance.clone();
                sessions.spawn(async move {
                    let _slot = slot;
                    let _open = entrance.shared.metrics.connections.hold();
                    // Acks are small and waited for.
                    if let Err(error) = stream.set_nodelay(true) {
                        debug!(%peer, %error, "cannot set TCP_NODELAY");
                    }
                    // In boxes of their own: what waits for a sample should not hold the room that a handshake takes.
                    let met = Box::pin(entrance.attend(stream, peer, stranger, is_proxy)).await;
                    if let Some((session, _guest)) = met {
                        session.await;
                    }
                });
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

/// A session, to be run to its end.
type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a stranger finds no room.
const TOO_MANY: &str = "too many connections, of your address or in all, have not introduced themselves";

impl Entrance {
    /// One connection, from its first byte to its session.
    async fn attend(
        &self,
        mut stream: TcpStream,
        mut peer: SocketAddr,
        mut stranger: Stranger,
        is_proxy: bool,
    ) -> Option<(Session, Guest)> {
        let deadline = Instant::now() + self.shared.hello_timeout;
        if is_proxy {
            match timeout_at(deadline, Box::pin(meet::said(&mut stream, stranger.place()))).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(client))) => {
                    drop(stranger);
                    peer = SocketAddr::new(client.ip().to_canonical(), client.port());
                    match self.gate.enter(peer.ip(), false) {
                        Some(entered) => stranger = entered,
                        None => {
                            self.turn_away(&stream, peer, TOO_MANY);
                            return None;
                        }
                    }
                }
                Ok(Err(failure)) => return self.note(failure, peer),
                Err(_) => return self.note(Failure::Timeout, peer),
            }
        }
        let guest = stranger.guest();
        let config = self.shared.keys.server_config();
        let meeting = meet::meet(stream, stranger.place().clone(), config);
        let met = tokio::select! {
            () = self.shared.shutdown.cancelled() => return None,
            met = timeout_at(deadline, meeting) => met.unwrap_or(Err(Failure::Timeout)),
        };
        let shared = self.shared.clone();
        let session: Session = match met {
            Ok(Met::Tls(tls)) => Box::pin(session::run(shared, tls, peer, stranger)),
            Ok(Met::Plain(plain)) => Box::pin(session::run(shared, plain, peer, stranger)),
            Err(failure) => return self.note(failure, peer),
        };
        Some((session, guest))
    }

    /// Counts and logs a connection that ended before its session began: there is none.
    fn note<T>(&self, failure: Failure, peer: SocketAddr) -> Option<T> {
        let reason = failure.word();
        self.shared.metrics.handshakes_failed.add(reason, 1);
        if matches!(failure, Failure::Closed | Failure::MadeRoom) {
            debug!(%peer, reason, "stranger gone");
        } else if let Some(left_out) = self.seldom[failure as usize].due(std::time::Instant::now()) {
            warn!(%peer, reason, error = failure.text(), left_out, "connection ended");
        }
        None
    }

    /// Says no without waiting, in plain TCP: a handshake only to be told would cost more than the room it lacks.
    fn turn_away(&self, stream: &TcpStream, peer: SocketAddr, text: &str) {
        let refused = refused(Refusal::TooManyConnections, text, true);
        self.shared.metrics.refused.add(refused.code.word(), 1);
        if let Some(left_out) = self.shared.seldom.due(std::time::Instant::now()) {
            warn!(%peer, reason = refused.code.word(), error = &*refused.text, left_out, "connection turned away");
        }
        if self.shared.keys.server_config().is_none() {
            say(stream, refused);
        }
    }
}

fn say(stream: &TcpStream, refused: Refused) {
    let mut bytes = BytesMut::new();
    if ServerCodec::new().encode(ServerMessage::Refused(refused), &mut bytes).is_ok() {
        let _ = stream.try_write(&bytes);
    }
}
