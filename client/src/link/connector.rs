//! Opens connections to servers as the configuration wants them: direct or through a proxy, over TLS or not.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::proxy::{NoProxy, Proxy};
use super::stream::Stream;
use super::tcp::{Connect, Tcp};
use super::tls::Tls;
use crate::config::Server;

/// How often it is said that connections are not encrypted.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// The proxy, and who is reached without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayOut {
    /// The proxy.
    pub proxy: Proxy,
    /// Who is reached without it, beside servers on this machine.
    pub except: NoProxy,
}

/// Connects to one of several servers. Cheap to clone: all that is large is shared.
#[derive(Debug, Clone)]
pub struct Connector {
    tcp: Tcp,
    servers: Arc<[String]>,
    way_out: Option<Arc<WayOut>>,
    tls: Option<Tls>,
}

impl Connector {
    /// To these servers, `host:port` each. Without `tls` anybody on the way can read and change what is said.
    pub fn new(servers: impl Into<Arc<[String]>>, tls: Option<Tls>, way_out: Option<WayOut>) -> Self {
        let servers = servers.into();
        Self { tcp: Tcp::new(servers.clone()), servers, way_out: way_out.map(Arc::new), tls }
    }

    /// The proxy on the way to this server.
    fn proxy(&self, server: &str) -> Option<&Proxy> {
        let way_out = self.way_out.as_deref()?;
        let is_here = server.parse::<Server>().is_ok_and(|server| server.is_loopback());
        (!is_here && !way_out.except.has(server)).then_some(&way_out.proxy)
    }

    async fn open(&self, server: &str) -> Result<Stream, String> {
        let stream = match self.proxy(server) {
            Some(proxy) => {
                let address = proxy.address();
                let mut stream = self
                    .tcp
                    .to(address)
                    .await
                    .map_err(|error| format!("the proxy {address} cannot be reached: {error}"))?;
                proxy.connect(&mut stream, server).await?;
                stream
            }
            None => self.tcp.to(server).await.map_err(|error| error.to_string())?,
        };
        Ok(match &self.tls {
            Some(tls) => Stream::Secret(tls.secure(server, stream).await?),
            None => Stream::Plain { stream, has_heard: false },
        })
    }
}

impl Connect for Connector {
    type Stream = Stream;

    async fn connect(&mut self, server: usize) -> Result<Stream, String> {
        let Some(server) = self.servers.get(server) else {
            return Err(format!("there is no server number {server}"));
        };
        self.open(server).await.map_err(|error| format!("{server}: {error}"))
    }
}

/// Says at once and each hour that connections are not encrypted, until `shutdown`.
pub async fn warn_of_plain_tcp(shutdown: CancellationToken) {
    let mut hours = tokio::time::interval(WARN_EVERY);
    loop {
        tokio::select! {
            _ = hours.tick() => tracing::warn!(
                "insecure = true: connections are plain TCP; anybody on the way can read and change what is sent, this host's \
                 secret included"
            ),
            () = shutdown.cancelled() => return,
        }
    }
}
