//! Opens TCP connections to servers.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Looking up a name.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// Connecting to one address.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Names looked up at once. The system may take half a minute for one that nobody answers for, long after it was given up
/// here, and as long it holds one of the few threads that the spool needs, too.
const MAX_LOOKUPS: usize = 2;
/// Addresses tried of one name.
const MAX_ADDRESSES: usize = 4;

/// Opens a connection to one of several servers. Each attempt must end by a deadline of its own.
pub trait Connect: Send {
    /// What it opens.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin;

    /// Connects to the server of this index. The error is for people.
    fn connect(&mut self, server: usize) -> impl Future<Output = Result<Self::Stream, String>> + Send;
}

/// TCP, by IPv4 or IPv6, and nothing over it. Names are looked up at each attempt.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// `host:port` each.
    servers: Arc<[String]>,
    lookups: Arc<Semaphore>,
}

impl Tcp {
    /// Connects to these servers.
    pub fn new(servers: impl Into<Arc<[String]>>) -> Self {
        Self { servers: servers.into(), lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    /// The addresses of a server, within [`LOOKUP_DEADLINE`]. `ask` asks the system, which may take longer.
    async fn look_up<Ask>(&self, ask: Ask) -> io::Result<Vec<SocketAddr>>
    where
        Ask: FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    {
        let lookups = self.lookups.clone();
        let asked = async move {
            let turn = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let asking = spawn_blocking(move || {
                let _turn = turn;
                ask()
            });
            asking.await.map_err(io::Error::other)?
        };
        timeout(LOOKUP_DEADLINE, asked)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "looking up the name took too long"))?
    }

    /// Connects to a server (`host:port`): to the first of its addresses that answers.
    ///
    /// # Errors
    /// Its name has no address, or none of them answers in time.
    pub async fn to(&self, server: &str) -> io::Result<TcpStream> {
        let addresses = match server.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let server = server.to_owned();
                self.look_up(move || Ok(server.to_socket_addrs()?.take(MAX_ADDRESSES).collect())).await?
            }
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
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
        self.to(server).await.map_err(|error| format!("{server}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_answers_for_leave_threads_for_the_disk() {
        // As the client's runtime.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .max_blocking_threads(4)
            .build()
            .unwrap();
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let hang = Arc::new(std::sync::Mutex::new(hang));
        runtime.block_on(async {
            let tcp = Tcp::new(["a:1".to_owned()]);
            for _ in 0..6 {
                let (tcp, hang) = (tcp.clone(), hang.clone());
                let attempt = tokio::spawn(async move {
                    let ask = move || {
                        let _ = hang.lock().unwrap().recv();
                        Ok(Vec::new())
                    };
                    tcp.look_up(ask).await
                });
                tokio::task::yield_now().await;
                tokio::time::advance(LOOKUP_DEADLINE).await;
                assert_eq!(attempt.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            let (done, is_done) = std::sync::mpsc::channel();
            let disk = spawn_blocking(move || done.send(()));
            assert!(is_done.recv_timeout(Duration::from_secs(20)).is_ok(), "the disk has a thread");
            disk.await.unwrap().unwrap();
            drop(release);
            let found = tcp.look_up(|| Ok(vec![([127, 0, 0, 1], 1).into()])).await.unwrap();
            assert_eq!(found.len(), 1, "and later names are looked up again");
        });
    }
}
