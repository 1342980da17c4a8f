//! The Unix socket in the data directory through which commands speak to the running server. Its mode is 0600: whoever
//! owns it is administrator.
//!
//! One request and one answer a connection, each a line of JSON.

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backfill::Wanted;
use crate::commands;

/// Longest request.
const MAX_REQUEST_BYTES: u64 = 64 << 10;
/// Time a command has to ask, and to take in the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// All hosts, as the API lists them.
    Hosts,
    /// The InfluxDBs that are written to, as the API lists them.
    Targets,
    /// Lines that InfluxDB refused, as the API lists them.
    Quarantine {
        /// Which InfluxDB; all of them where none is named.
        target: Option<String>,
        /// How many of the newest are left out.
        skip: usize,
        /// How many lines.
        limit: usize,
    },
    /// Owes a stretch of history to InfluxDB again.
    Backfill(Wanted),
    /// Who may do what.
    Access(commands::Request),
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What was asked for.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
}

/// Where the socket is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Longest path that the system takes for a socket.
const MAX_SOCKET_PATH: usize = 107;

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

/// Makes the socket. The caller holds the data directory's lock: a socket that lies there is a dead server's.
pub fn bind(data_dir: &Path) -> std::io::Result<UnixListener> {
    let path = path(data_dir);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let (short, _open_dir) = short_path(data_dir)?;
    let listener = UnixListener::bind(short)?;
    // The directory is 0700, so nobody came in between.
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers commands until the shutdown.
pub async fn serve<Handler>(listener: UnixListener, handler: Handler, shutdown: CancellationToken)
where
    Handler: Fn(Request) -> Answer + Clone + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let handler = handler.clone();
                tokio::spawn(async move {
                    if let Ok(Err(error)) = timeout(TIMEOUT, answer(stream, handler)).await {
                        warn!(%error, "a command could not be answered");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a command");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn answer(
    stream: UnixStream,
    handler: impl Fn(Request) -> Answer + Send + 'static,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    tokio::io::BufReader::new(read.take(MAX_REQUEST_BYTES)).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        // It may wait for a disk.
        Ok(request) => {
            tokio::task::spawn_blocking(move || handler(request)).await.map_err(std::io::Error::other)?
        }
        Err(error) => Answer::Error(format!("not a request: {error}")),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// Asks the running server. `Ok(None)` where none runs on this data directory.
pub fn ask(data_dir: &Path, request: &Request) -> std::io::Result<Option<Answer>> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
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
    BufReader::new(stream).read_line(&mut line)?;
    Ok(Some(serde_json::from_str(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_answered_over_a_socket_that_only_its_owner_may_use() {
        let dir = tempfile::tempdir().unwrap();
        let ask_here = {
            let dir = dir.path().to_owned();
            move || ask(&dir, &Request::Hosts)
        };
        assert_eq!(ask_here().unwrap(), None, "no server yet");

        let shutdown = CancellationToken::new();
        let listener = bind(dir.path()).unwrap();
        let mode = std::fs::metadata(path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let served = tokio::spawn(serve(listener, |_| Answer::Ok(7.into()), shutdown.clone()));
        let answer = tokio::task::spawn_blocking(ask_here.clone()).await.unwrap().unwrap();
        assert_eq!(answer, Some(Answer::Ok(7.into())));
        shutdown.cancel();
        served.await.unwrap();

        assert_eq!(ask_here().unwrap(), None, "a dead server's socket is no server");
        drop(bind(dir.path()).unwrap());
    }

    #[tokio::test]
    async fn a_directory_with_a_long_name_has_a_socket_like_any_other() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("d".repeat(200));
        assert_eq!(ask(&dir, &Request::Hosts).unwrap(), None, "no such directory");
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(ask(&dir, &Request::Hosts).unwrap(), None, "no server");
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(bind(&dir).unwrap(), |_| Answer::Ok(8.into()), shutdown.clone()));
        let answer = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || ask(&dir, &Request::Hosts)
        });
        assert_eq!(answer.await.unwrap().unwrap(), Some(Answer::Ok(8.into())));
        let mode = std::fs::metadata(path(&dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        shutdown.cancel();
        served.await.unwrap();
    }
}
