//! Opens connections to servers over plain TCP.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Looking up a name.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// Connecting to one address.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Addresses tried of one name.
const MAX_ADDRESSES: usize = 4;

/// Opens a connection to one of several servers. Each attempt must end by a deadline of its own.
pub trait Connect: Send {
    /// What it opens.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin;

    /// Connects to the server of this index. The error is for people.
    fn connect(&mut self, server: usize) -> impl Future<Output = Result<Self::Stream, String>> + Send;
}

/// Plain TCP, by IPv4 or IPv6. Names are looked up at each attempt.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// `host:port` each.
    servers: std::sync::Arc<[String]>,
    /// Addresses beyond this machine are not connected to.
    loopback_only: bool,
}

impl Tcp {
    /// Connects to these servers, and without `insecure` only where they are on this machine.
    pub fn new(servers: impl Into<std::sync::Arc<[String]>>, insecure: bool) -> Self {
        Self { servers: servers.into(), loopback_only: !insecure }
    }

    async fn try_addresses(&self, server: &str) -> io::Result<TcpStream> {
        let addresses = timeout(LOOKUP_DEADLINE, tokio::net::lookup_host(server))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "looking up the name took too long"))??;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses.take(MAX_ADDRESSES) {
            if self.loopback_only && !is_loopback(address) {
                last = io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "{address} is not on this machine, and plain TCP beyond it needs insecure = true"
                    ),
                );
                continue;
            }
            match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A sample is one small write that should not wait for company.
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => {
                    last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer"))
                }
            }
        }
        Err(last)
    }
}

impl Connect for Tcp {
    type Stream = TcpStream;

    async fn connect(&mut self, server: usize) -> Result<TcpStream, String> {
        let Some(server) = self.servers.get(server) else {
            return Err(format!("there is no server number {server}"));
        };
        self.try_addresses(server).await.map_err(|error| format!("{server}: {error}"))
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
