//! The Unix socket in the data directory through which commands ask the running client. Its mode is 0600.
//!
//! One request and one answer a connection, each a line of JSON:
//!
//! ```text
//! {"command":"status"}                     {"ok":{"version":"0.1.0", …}}
//! {"command":"bye","reason":"upgrade"}     {"ok":null}
//! ```
//!
//! Nothing that is asked here changes what is sampled, kept or sent, but for the reason of the next good-bye.

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::goodbye::Announcement;

/// Longest request; every one of them is a short line.
const MAX_REQUEST_BYTES: u64 = 1 << 10;
/// Longest answer that a command takes.
const MAX_ANSWER_BYTES: u64 = 256 << 10;
/// Requests answered at once; more wait until they are accepted.
const MAX_AT_ONCE: usize = 4;
/// Time a command has to ask, and to take in the answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// After an error of accepting, which would come again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Longest path that the system takes for a socket.
const MAX_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// How the client is: a [`crate::status::Status`].
    Status,
    /// It will be stopped within a minute, for this reason.
    Bye {
        /// Why.
        reason: Announcement,
    },
}

/// What the client answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was asked for.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
}

/// The socket, which is removed with this.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// Where the socket is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("client.sock")
}

/// A path of the socket that is short enough to be bound or connected to, and the directory that has to stay open for
/// as long as it is used: a long one is reached through that.
fn short_path(data_dir: &Path) -> std::io::Result<(PathBuf, Option<File>)> {
    let path = path(data_dir);
    if path.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok((path, None));
    }
    let dir = File::open(data_dir)?;
    let path = self::path(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())));
    Ok((path, Some(dir)))
}

impl Control {
    /// Makes the socket. The caller holds the data directory's lock: a socket that lies there is a dead client's.
    pub fn bind(data_dir: &Path) -> std::io::Result<Self> {
        let path = path(data_dir);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let (short, _open_dir) = short_path(data_dir)?;
        let listener = UnixListener::bind(short)?;
        // The client makes its directory 0700; in a wider one, who slips in between could only ask.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers commands until it is dropped.
    pub async fn serve<Handler>(self, handler: Handler)
    where
        Handler: Fn(Request) -> Answer + Clone + Send + 'static,
    {
        let mut answering = JoinSet::new();
        loop {
            while answering.try_join_next().is_some() {}
            if answering.len() >= MAX_AT_ONCE {
                answering.join_next().await;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    answering.spawn(answer_in_time(stream, handler.clone()));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a command");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // One that stays is taken for what it is: a dead client's.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer_in_time(stream: UnixStream, handler: impl Fn(Request) -> Answer) {
    match timeout(TIMEOUT, answer(stream, handler)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a command could not be answered"),
        Err(_) => debug!("a command took too long to ask or to read"),
    }
}

async fn answer(stream: UnixStream, handler: impl Fn(Request) -> Answer) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::with_capacity(256, read.take(MAX_REQUEST_BYTES)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => handler(request),
        Err(error) => Answer::Error(format!("not a request: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// Asks the running client. `Ok(None)` where none runs on this data directory.
pub fn ask(data_dir: &Path, request: &Request) -> std::io::Result<Option<Answer>> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    // The directory stays open until the connection stands.
    let connected = short_path(data_dir).and_then(|(path, _open_dir)| StdUnixStream::connect(path));
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(b'\n');
    stream.write_all(&bytes)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut line)?;
    Ok(Some(serde_json::from_str(&line)?))
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
