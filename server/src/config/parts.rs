//! The simple parts of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::access::Network;
use super::values::duration;

/// The data directory's path.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataDir(pub PathBuf);

impl Default for DataDir {
    fn default() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self(PathBuf::from("/var/lib/vitals"));
        }
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home);
        Self(base.unwrap_or_else(|| PathBuf::from(".")).join("vitals"))
    }
}

/// Time that the way down may take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShutdownTimeout(#[serde(with = "duration")] pub Duration);

impl Default for ShutdownTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

/// The port for clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    /// Address and port.
    pub listen: SocketAddr,
    /// Plain TCP instead of TLS: whoever can listen in reads every figure and every secret. Clients must be told so too.
    pub insecure: bool,
    /// A certificate (PEM, with those between it and its root) instead of the one that the server makes itself. Clients know
    /// the server by its key, so another key is only taken after `vitals-server cert rotate` has announced it.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// Proxies that say, with the PROXY protocol, whom they speak for.
    pub proxies: Vec<Network>,
    /// Connections open at once.
    pub max_connections: usize,
    /// Connections of one address (IPv6: one /64) that have not introduced themselves yet.
    pub max_strangers_per_address: usize,
    /// Time a connection has to introduce itself.
    #[serde(with = "duration")]
    pub hello_timeout: Duration,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            insecure: false,
            certificate: None,
            key: None,
            proxies: Vec::new(),
            max_connections: 20_000,
            max_strangers_per_address: 512,
            hello_timeout: Duration::from_secs(10),
        }
    }
}

/// When the page and the API are served with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpTls {
    /// Unless it listens on loopback.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never: on loopback, or behind `trusted_proxies`.
    Off,
}

/// The port for the page and the API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// `auto`: HTTP on loopback, HTTPS elsewhere. `on`, `off`.
    pub tls: HttpTls,
    /// A certificate (PEM, with those between it and its root) instead of the one that the server makes itself. Read again
    /// when the file changes.
    pub certificate: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
    /// Proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Tell browsers to use HTTPS alone for this name from now on; it holds for other programs of that name too.
    pub hsts: bool,
    /// Show `/metrics` to those who are not logged in.
    pub open_metrics: bool,
    /// Requests under way at once.
    pub max_requests: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            tls: HttpTls::Auto,
            certificate: None,
            key: None,
            trusted_proxies: Vec::new(),
            hsts: false,
            open_metrics: false,
            max_requests: 512,
        }
    }
}

impl Http {
    /// Whether this port speaks TLS.
    pub fn is_tls(&self) -> bool {
        match self.tls {
            HttpTls::Auto => !self.listen.ip().to_canonical().is_loopback(),
            HttpTls::On => true,
            HttpTls::Off => false,
        }
    }
}

/// The durable log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Size at which acknowledging stops until the store has caught up.
    pub max_size: ByteSize,
    /// Time a commit waits for others to share its write to disk.
    #[serde(with = "duration")]
    pub group: Duration,
}

impl Default for Journal {
    fn default() -> Self {
        Self { max_size: ByteSize::gib(2), group: Duration::from_millis(25) }
    }
}

/// History.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// How long raw samples are kept.
    #[serde(with = "duration")]
    pub keep_raw: Duration,
}

impl Default for Store {
    fn default() -> Self {
        Self { keep_raw: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Logs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info` or `debug`.
    pub level: LogLevel,
    /// `logfmt` or `json`.
    pub format: LogFormat,
}

/// The least important messages that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `key=value`, for grep and awk.
    #[default]
    Logfmt,
    /// One object a line.
    Json,
}
