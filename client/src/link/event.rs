//! What a link tells those around it: logs, counters, records.

use std::fmt;
use std::time::Duration;

use vitals_wire::message::{DropReason, Refusal};

use crate::spool::job::Drops;
use crate::trust::Pin;

/// Something happened on a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A sample was taken and waits.
    Taken {
        /// Its time.
        time_ms: i64,
        /// [`crate::queue::content_hash`] of it.
        hash: u64,
    },
    /// The server settled a sample: it is durable.
    Settled {
        /// Its time.
        time_ms: i64,
        /// [`crate::queue::content_hash`] of it.
        hash: u64,
        /// From being taken until now; `None` where it comes from the disk, which does not know.
        age: Option<Duration>,
    },
    /// A sample is lost.
    Dropped {
        /// Its time.
        time_ms: i64,
        /// [`crate::queue::content_hash`] of it.
        hash: u64,
        /// Why.
        loss: Loss,
    },
    /// A server took the connection.
    Opened {
        /// Which of the configured servers.
        server: usize,
        /// What it calls this host.
        name: String,
        /// Its version.
        version: String,
        /// Its clock in ms since 1970.
        server_time_ms: i64,
    },
    /// A connection, or the attempt at one, ended.
    Closed {
        /// Which of the configured servers.
        server: usize,
        /// Why.
        why: Closed,
        /// When the next attempt comes; `None` if there is none.
        retry_in: Option<Duration>,
    },
    /// The server asked for something that this client does not do.
    Ignored {
        /// What.
        what: &'static str,
    },
    /// Something about the spool.
    Spool(News),
    /// What waits has changed.
    Waiting(Waiting),
    /// Something about joining, secrets or keys.
    Trust(TrustNews),
    /// How this host stands with its server has changed.
    Standing(Standing),
    /// The server said its time.
    ServerClock {
        /// Its clock now, in ms since 1970: what it said, and half of the shortest time on this connection from asking to
        /// hearing the answer. Wrong by at most that half. The server's own work, mostly its disk, is in that time, so on
        /// a short way it is some 10 ms too much.
        server_time_ms: i64,
    },
}

/// What there is to tell of a spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It is open.
    Opened {
        /// Samples in it.
        samples: u64,
        /// Its bytes on disk.
        bytes: u64,
        /// What was ever dropped from it.
        drops: Drops,
    },
    /// How long the space lasts for samples as they come, while no server takes any.
    Lasts {
        /// Bytes that it may take.
        max_bytes: u64,
        /// So long.
        time: Duration,
    },
    /// It cannot be used: samples wait in memory. Said once; it is tried again and again.
    Trouble {
        /// Why, for people.
        why: String,
    },
    /// It can be used again.
    Recovered,
    /// Bytes in it could not be read and are skipped.
    Damaged {
        /// Stretches of them.
        stretches: u64,
    },
    /// It is left alone for good: samples wait in memory.
    Off {
        /// Why, for people.
        why: String,
    },
}

/// What there is to tell of joining, secrets and keys. Nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustNews {
    /// A server took this host for the first time, as far as is known here.
    Joined,
    /// A server does not take this host by its secret: it shows its token, too.
    TokenAgain,
    /// The new secret is not known to the server: the old one is shown again.
    OldSecret,
    /// A new secret is kept, and told next.
    SecretMade,
    /// The server took the new secret.
    SecretChanged,
    /// These keys of the server are kept.
    Learnt {
        /// The keys.
        pins: Vec<Pin>,
    },
    /// Something of this cannot be kept. Said once; it is tried again.
    Trouble {
        /// Why, for people.
        why: String,
    },
    /// It can be kept again.
    Recovered,
}

/// How this host stands with its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// A server took it.
    pub is_joined: bool,
    /// Its secret is being changed.
    pub has_next_secret: bool,
}

/// What is not settled yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Samples in memory.
    pub memory: usize,
    /// Samples in the spool.
    pub disk: u64,
    /// Time of the oldest of them in ms since 1970; `None` while none waits.
    pub oldest_ms: Option<i64>,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
}

/// Why a sample is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The queue in memory was full, and it was the oldest.
    QueueFull,
    /// The spool was full, and it was the oldest.
    SpoolFull,
    /// It does not fit a frame.
    TooLarge,
    /// The server will never store it.
    Refused(DropReason),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::QueueFull => f.write_str(DropReason::QueueFull.word()),
            Self::SpoolFull => f.write_str("spool_full"),
            Self::TooLarge => f.write_str("too_large"),
            Self::Refused(reason) => reason.fmt(f),
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// There never was one.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// No `Welcome` in time.
    #[error("the server did not answer the greeting in time")]
    HandshakeTimeout,
    /// A batch was not acknowledged in time.
    #[error("the server did not acknowledge in time")]
    AckTimeout,
    /// The server did not read in time.
    #[error("the server did not take what was sent in time")]
    WriteTimeout,
    /// The server said what the protocol does not allow at that time.
    #[error("the server broke the protocol: {0}")]
    Violation(String),
    /// The server said no.
    #[error("the server refused: {text} ({code}){}", remedy(*code, *retry))]
    Refused {
        /// Why, for programs.
        code: Refusal,
        /// Why, for people.
        text: String,
        /// Whether to try again as usual.
        retry: bool,
    },
    /// The server closed it.
    #[error("the server closed the connection")]
    ByServer,
    /// It broke.
    #[error("the connection broke: {0}")]
    Io(String),
}

/// Where to do here what the server's own words ask for. Nothing where the client itself has more to
/// show.
fn remedy(code: Refusal, retry: bool) -> &'static str {
    match code {
        Refusal::Credential | Refusal::NotEnrolled if retry => "",
        Refusal::Credential | Refusal::Revoked => {
            "; the identity is a file in data_dir; a token is given with VITALS_TOKEN, token_file or --token-file"
        }
        Refusal::IdentityInUse => {
            "; the identity is a file in data_dir; without it this client joins as a new host, with a token"
        }
        Refusal::NotEnrolled => "; a token is given with VITALS_TOKEN, token_file or --token-file",
        Refusal::TokenUnknown | Refusal::TokenExpired | Refusal::TokenUsedUp | Refusal::TokenRevoked => {
            "; the new one is given with VITALS_TOKEN, token_file or --token-file"
        }
        _ => "",
    }
}
