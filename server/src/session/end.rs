//! Why a session ends, and the words for it.

use std::net::SocketAddr;
use std::time::Instant;

use tracing::{debug, info, warn};
use vitals_wire::codec::FrameError;
use vitals_wire::message::{ClientMessage, Refusal, Refused};

use super::Shared;
use super::protocol::{refused, refused_for};

/// Why a session ended.
pub(super) enum End {
    /// The client closed the connection, after a good-bye or without.
    Closed,
    /// The connection failed.
    Failed(std::io::Error),
    /// The server ended it with these words.
    Refused(Refused),
    /// The session was told from outside to end, with these words where there are any.
    Ordered(Option<Refused>),
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match (refused_for(&error), error) {
            (Some(refused), _) => Self::Refused(refused),
            (None, FrameError::Io(error)) => Self::Failed(error),
            // Cannot be: every codec error has its words.
            (None, FrameError::Codec(error)) => {
                Self::Refused(refused(Refusal::Malformed, error.to_string(), false))
            }
        }
    }
}

impl End {
    /// The server goes down.
    pub(super) fn shutdown() -> Self {
        refused(Refusal::ShuttingDown, "the server is going down", true).into()
    }

    /// Counts and logs it. `host` is empty for a stranger.
    pub(super) fn note(&self, shared: &Shared, host: &str, peer: SocketAddr) {
        match self {
            End::Closed | End::Failed(_) if host.is_empty() => debug!(%peer, "stranger gone"),
            End::Closed => info!(host, %peer, reason = "closed", "client disconnected"),
            End::Failed(error) => info!(host, %peer, reason = "failed", %error, "client disconnected"),
            End::Ordered(None) => info!(host, %peer, reason = "replaced", "client disconnected"),
            End::Ordered(Some(refused)) | End::Refused(refused) => {
                let (reason, error) = (refused.code.word(), &*refused.text);
                shared.metrics.refused.add(reason, 1);
                if refused.code == Refusal::ShuttingDown {
                    info!(host, %peer, reason, "client disconnected");
                } else if !host.is_empty() {
                    warn!(host, %peer, reason, error, "client refused");
                } else if let Some(left_out) = shared.seldom.due(Instant::now()) {
                    warn!(%peer, reason, error, left_out, "stranger refused");
                }
            }
        }
    }
}

/// What reading a frame within a deadline gives.
pub(super) type Read = Result<Option<Result<ClientMessage, FrameError>>, tokio::time::error::Elapsed>;

/// The message, or why there is none; `late` is said to a client that was silent.
pub(super) fn message_of(read: Read, late: &str) -> Result<ClientMessage, End> {
    match read {
        Ok(Some(Ok(message))) => Ok(message),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Err(End::Closed),
        Err(_) => Err(refused(Refusal::Timeout, late, true).into()),
    }
}
