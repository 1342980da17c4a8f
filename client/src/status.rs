//! `vitals-client status`: how the running client is, for people and for programs; and `vitals-client bye`.

mod show;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::control::{self, Answer, Request};
use crate::goodbye::Announcement;
use crate::health::{self, Health};

pub use show::table;

/// How a running client is: what the socket answers and `status --json` prints. A client of another version may leave out
/// what it does not know; that has its default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Whether it runs: always true in an answer.
    pub running: bool,
    /// Whether there is a connection that the server took.
    pub connected: bool,
    /// It was told to end, and brings home what waits.
    pub stopping: bool,
    /// Version of the client.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its host's id.
    pub host: String,
    /// What this host calls itself.
    pub name: String,
    /// When it started, in ms since 1970.
    pub started_ms: i64,
    /// For how long it has run, in seconds.
    pub uptime: u64,
    /// The servers that it is configured for, in the order in which they are tried.
    pub servers: Vec<String>,
    /// By what it knows them: `pins`, `ca`, `roots` (the system's), or `none` over plain TCP.
    pub trusts: String,
    /// Whether a server took this host, now or before.
    pub joined: bool,
    /// Whether its secret is being changed.
    pub next_secret: bool,
    /// The connection; `None` while there is none.
    pub connection: Option<Connection>,
    /// Connections that came about since the start.
    pub connections: u64,
    /// Samples taken since the start.
    pub taken: u64,
    /// Samples that the server acknowledged as durable.
    pub acknowledged: u64,
    /// Samples that wait in memory.
    pub waiting_memory: u64,
    /// Samples that wait in the spool.
    pub waiting_disk: u64,
    /// Age of the oldest that waits, in ms.
    pub oldest_waiting_ms: Option<u64>,
    /// Samples dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// What the server's clock is ahead of this host's, in ms.
    pub skew_ms: Option<i64>,
    /// Steps of this host's clock since the start.
    pub clock_steps: u64,
    /// The last of them in ms, forward positive.
    pub last_step_ms: Option<i64>,
    /// The last connection that ended or did not come about.
    pub last_error: Option<LastError>,
    /// Resident memory in bytes; `None` where the system does not tell.
    pub memory: Option<u64>,
    /// CPU time used, in ms.
    pub cpu_ms: u64,
}

/// A connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// The server, as it is configured.
    pub server: String,
    /// Its version.
    pub server_version: String,
    /// What it calls this host.
    pub name: String,
    /// Since when, in ms since 1970 by the host's clock as it is now.
    pub since_ms: i64,
    /// For how long, in seconds.
    pub seconds: u64,
}

/// Why there was no connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LastError {
    /// When, in ms since 1970.
    pub time_ms: i64,
    /// The server, as it is configured.
    pub server: String,
    /// What went wrong, for people.
    pub text: String,
}

/// What does not change about a running client.
#[derive(Debug, Clone)]
pub struct About {
    /// Its host's id.
    pub host: String,
    /// What this host calls itself.
    pub name: String,
    /// The servers that it is configured for.
    pub servers: Vec<String>,
    /// By what it knows them.
    pub trusts: &'static str,
}

impl Status {
    /// Of this process.
    pub fn of(about: &About, health: &Health, stopping: bool) -> Self {
        let is = health.snapshot();
        let usage = health.usage();
        let (now, now_ms) = (Instant::now(), health::wall_ms());
        let connection = is.connection.map(|connection| {
            let lasts = now.saturating_duration_since(connection.since);
            Connection {
                server: connection.server,
                server_version: connection.server_version,
                name: connection.name,
                since_ms: now_ms.saturating_sub(i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX)),
                seconds: lasts.as_secs(),
            }
        });
        Self {
            running: true,
            connected: connection.is_some(),
            stopping,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: about.host.clone(),
            name: about.name.clone(),
            started_ms: health.started_ms(),
            uptime: now.saturating_duration_since(health.started()).as_secs(),
            servers: about.servers.clone(),
            trusts: about.trusts.to_owned(),
            joined: is.is_joined,
            next_secret: is.has_next_secret,
            connection,
            connections: is.connections,
            taken: is.taken,
            acknowledged: is.acked,
            waiting_memory: is.waiting.memory,
            waiting_disk: is.waiting.disk,
            oldest_waiting_ms: is.waiting.oldest_ms.map(health::age_ms),
            dropped: is.dropped.into_iter().collect(),
            spool_bytes: is.waiting.spool_bytes,
            skew_ms: is.skew_ms,
            clock_steps: is.steps.count,
            last_step_ms: (is.steps.count > 0).then_some(is.steps.last_ms),
            last_error: is.last_error.map(|error| LastError {
                time_ms: error.time_ms,
                server: error.server,
                text: error.text,
            }),
            memory: usage.memory,
            cpu_ms: usage.cpu_ms,
        }
    }
}

/// Why a command got no answer. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers there.
    #[error(
        "no client runs on the data directory {dir} (from: {from}); name another one with --data-dir DIR or VITALS_DATA_DIR: a \
         client that was started as root or as a service mostly has /var/lib/vitals-client"
    )]
    NotRunning {
        /// Where it was looked for.
        dir: String,
        /// Where that is said.
        from: String,
    },
    /// The socket cannot be used.
    #[error("cannot ask the client on the data directory {dir} (from: {from}): {error}{}", remedy(error))]
    Io {
        /// Where it was looked for.
        dir: String,
        /// Where that is said.
        from: String,
        /// Why not. It is worth another try when it is a timeout.
        error: io::Error,
    },
    /// The client does not take the request: mostly it is of another version.
    #[error("the client says: {0}")]
    Refused(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; ask as the user that it runs as, or as root: sudo vitals-client status"
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "; it does not answer in time",
        _ => "",
    }
}

/// Asks the client that runs on `dir`, which was named by `from`.
pub fn ask(dir: &Path, from: &str) -> Result<Status, AskError> {
    let answer = request(dir, from, &Request::Status)?;
    serde_json::from_value(answer).map_err(|error| AskError::Refused(format!("what is no status ({error})")))
}

/// Tells the client that runs on `dir` why it will be stopped.
pub fn announce(dir: &Path, from: &str, reason: Announcement) -> Result<(), AskError> {
    request(dir, from, &Request::Bye { reason }).map(drop)
}

fn request(dir: &Path, from: &str, request: &Request) -> Result<serde_json::Value, AskError> {
    let (shown, from) = (dir.display().to_string(), from.to_owned());
    match control::ask(dir, request) {
        Ok(Some(Answer::Ok(answer))) => Ok(answer),
        Ok(Some(Answer::Error(error))) => Err(AskError::Refused(error)),
        Ok(None) => Err(AskError::NotRunning { dir: shown, from }),
        Err(error) => Err(AskError::Io { dir: shown, from, error }),
    }
}
