//! The page's port: connections, TLS and HTTP/1.1, each with bounds in number and time.
//!
//! A connection is a task of its own: whatever goes wrong in it, a panic too, ends it alone. What is not HTTP at all hyper
//! answers itself (400, 431), without a body or our headers, and closes the connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::crowd::{Crowd, Full, Place};
use super::origin::Peer;
use crate::config::Network;
use crate::metrics::Metrics;
use crate::seldom::Seldom;

/// Pause after the system could not accept, such as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Bytes that one connection buffers each way; the head of a request has to fit.
const BUFFER_BYTES: usize = 32 << 10;
/// Header lines of a request.
const MAX_HEADERS: usize = 64;

/// How many connections there may be, and how long they may take for what.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections.
    pub connections: usize,
    /// Connections of one address (IPv6: one /64); trusted proxies are not bound by it.
    pub connections_of_address: usize,
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// TLS handshakes of one address under way; trusted proxies are not bound by it.
    pub handshakes_of_address: usize,
    /// A TLS handshake.
    pub handshake_time: Duration,
    /// The head of a request, waiting for it to begin included.
    pub head_time: Duration,
    /// Nothing of an answer is taken for so long.
    pub write_time: Duration,
    /// From the shutdown to the end of what is under way.
    pub drain_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 2_048,
            connections_of_address: 128,
            handshakes: 512,
            handshakes_of_address: 64,
            handshake_time: Duration::from_secs(10),
            head_time: Duration::from_secs(20),
            write_time: Duration::from_secs(30),
            drain_time: Duration::from_secs(5),
        }
    }
}

/// What is served how.
pub struct Port {
    /// How TLS is spoken; `None`: plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may speak for others.
    pub proxies: Arc<[Network]>,
    /// Numbers and times.
    pub bounds: Bounds,
    /// What is served.
    pub router: Router,
    /// Where it is counted who is there and who was turned away.
    pub metrics: Arc<Metrics>,
}

impl Port {
    /// Serves until the shutdown, then waits for requests under way, for `drain_time` at most.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let Bounds { connections, connections_of_address, .. } = self.bounds;
        let guests = Arc::new(Crowd::new(connections, connections_of_address));
        let strangers = Arc::new(Crowd::new(self.bounds.handshakes, self.bounds.handshakes_of_address));
        let (port, seldom, tasks) = (Arc::new(self), Seldom::default(), TaskTracker::new());
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    error!(%error, "cannot accept a connection to the page; is the limit of open files too low?");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match port.let_in(peer, &guests, &strangers) {
                Ok((guest, stranger)) => {
                    let (port, shutdown) = (port.clone(), shutdown.clone());
                    tasks.spawn(async move {
                        let _guest = guest;
                        let _open = port.metrics.http.connections.hold();
                        port.clone().connection(stream, peer, stranger, shutdown).await;
                    });
                }
                // Closed at once: to answer it in TLS would be the very work that is to be saved.
                Err(reason) => {
                    port.metrics.http.turned_away.add(reason, 1);
                    if let Some(left_out) = seldom.due(std::time::Instant::now()) {
                        warn!(%peer, reason, left_out, "connection to the page turned away");
                    }
                }
            }
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    fn let_in(
        &self,
        peer: SocketAddr,
        guests: &Arc<Crowd>,
        strangers: &Arc<Crowd>,
    ) -> Result<(Place, Option<Place>), &'static str> {
        let address = peer.ip();
        let many = self.proxies.iter().any(|proxy| proxy.contains(address));
        let guest = guests.enter(address, many).map_err(|full| match full {
            Full::All => "connections",
            Full::Address => "connections_of_address",
        })?;
        let stranger = self.tls.is_some().then(|| strangers.enter(address, many)).transpose();
        Ok((guest, stranger.map_err(|_| "handshakes")?))
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        stranger: Option<Place>,
        shutdown: CancellationToken,
    ) {
        // Answers are small and waited for.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.bounds.write_time));
        let stream = Box::pin(stream);
        let Some(config) = self.tls.clone() else {
            return self.http(stream, peer, false, shutdown).await;
        };
        let handshake = timeout(self.bounds.handshake_time, TlsAcceptor::from(config).accept(stream));
        let done = tokio::select! {
            () = shutdown.cancelled() => return,
            done = handshake => done,
        };
        drop(stranger);
        let error = match done {
            Ok(Ok(stream)) => return self.http(stream, peer, true, shutdown).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not done within {:?}", self.bounds.handshake_time),
        };
        self.metrics.http.turned_away.add("handshake", 1);
        debug!(%peer, error, "TLS handshake of the page failed");
    }

    async fn http<S: AsyncRead + AsyncWrite + Unpin>(
        self: Arc<Self>,
        stream: S,
        peer: SocketAddr,
        is_tls: bool,
        shutdown: CancellationToken,
    ) {
        let router = TowerToHyperService::new(self.router.clone());
        let from = Peer { address: peer.ip(), is_tls };
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(from);
            let answer = router.call(request);
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.head_time)
            .max_buf_size(BUFFER_BYTES)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match timeout(self.bounds.drain_time, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return debug!(%peer, "connection to the page cut off at the shutdown"),
                }
            }
        };
        if let Err(error) = ended {
            debug!(%peer, %error, "connection to the page ended badly");
        }
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
