//! InfluxDB: each target reads the journal from a cursor of its own and is written line protocol.
//!
//! In the order in which data flows:
//!
//! - [`source`]: records of the journal become batches of lines, cut at the end of a record.
//! - [`delivery`]: what to send next, backoff and splitting; plain logic. [`answer`] has the table of InfluxDB's answers.
//! - [`owed`]: spans of time that a target did not get from the journal; plain logic. [`book`] keeps them on disk,
//!   `filler` reads history for them, which is asked through [`History`].
//! - [`quarantine`]: lines that InfluxDB refused.
//! - [`http`]: one write request, and why not through the crate `influxdb2`.
//! - [`cursor`]: the place in the journal, on disk.
//! - [`target`]: what belongs to one target, shared by its writer and whoever asks how it is.
//! - [`writer`]: the task that drives them.
//! - [`setup`]: health, buckets and the set-up of a new InfluxDB, through `influxdb2`.
//!
//! What the journal holds reaches InfluxDB at least once, or is counted as dropped and logged. A target that lags more than
//! its share of the journal gives up the oldest part: first what it is owed is on disk, then the journal may forget it.
//! A line sent twice is the same point twice, which InfluxDB stores once.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vitals_wire::ids::HostId;
use vitals_wire::line::HostTags;
use vitals_wire::log::Position;

pub mod answer;
pub mod book;
pub mod cursor;
pub mod delivery;
mod drops;
mod filler;
pub mod http;
pub mod owed;
pub mod quarantine;
pub mod setup;
pub mod source;
pub mod target;
pub mod writer;

pub use setup::{check, set_up};
pub use target::{Health, Target};
pub use writer::run;

/// Gives a host's name and labels valid at a time (ms since 1970), as they stand on its lines; `None` for a host that
/// nobody knows. Called once a sample, off the async threads: it may read, and should be quick.
pub type TagsAt = Arc<dyn Fn(HostId, i64) -> Option<Arc<HostTags>> + Send + Sync>;

/// History, as far as a target that is owed something needs it. Its calls may block on a disk.
pub trait History: Send + Sync {
    /// All hosts that history knows, the server itself among them.
    fn hosts(&self) -> Vec<HostId>;

    /// Appends the lines of a host's samples from `from_ms` to before `to_ms`, byte for byte as they were written from the
    /// journal: whole samples, oldest first, until `max_lines` are reached.
    ///
    /// # Errors
    /// History cannot be read now, in words: it is asked again later.
    fn lines(
        &self,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
        max_lines: usize,
        out: &mut Vec<u8>,
    ) -> Result<Filled, String>;

    /// All before this place of the journal can be read here.
    fn position(&self) -> Position;

    /// The time before which samples may be gone because of their age, in ms since 1970.
    fn oldest_ms(&self) -> i64 {
        i64::MIN
    }
}

/// What a piece of history came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Lines appended.
    pub lines: usize,
    /// Where to go on; `None` when all of it was given.
    pub next_ms: Option<i64>,
}

/// Where to write, and how.
#[derive(Debug, Clone)]
pub struct InfluxOptions {
    /// What the target is called.
    pub name: String,
    /// InfluxDB's URL, such as `http://127.0.0.1:8086`; a path before `/api` may follow.
    pub url: String,
    /// The organisation's name.
    pub org: String,
    /// The bucket's name.
    pub bucket: String,
    /// A token that may write to the bucket.
    pub token: Token,
    /// The target's own directory: its place in the journal, what it is owed, its quarantine.
    pub dir: PathBuf,
    /// Lines that make a batch at once.
    pub batch_lines: usize,
    /// Lines at which a batch ends, with the record that reaches it, when there is much to write. A request holds at
    /// most twice as many.
    pub max_lines: usize,
    /// How long a smaller batch waits for more.
    pub batch_wait: Duration,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// Time for a connection to come about.
    pub connect_timeout: Duration,
    /// Time for a request as a whole.
    pub timeout: Duration,
    /// Requests under way at once. Two keep InfluxDB busy while the next ones are made; with four it was no faster.
    pub in_flight: usize,
    /// Requests with owed lines under way at once, beside those.
    pub owed_in_flight: usize,
    /// Upper bound of the first wait after a failure.
    pub backoff_min: Duration,
    /// Upper bound of later ones.
    pub backoff_max: Duration,
    /// Wait after a failure that only a person can mend.
    pub slow_retry: Duration,
}

impl InfluxOptions {
    /// These with the defaults for all else.
    pub fn new(
        name: impl Into<String>,
        url: impl Into<String>,
        org: impl Into<String>,
        bucket: impl Into<String>,
        token: impl Into<Token>,
        dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            org: org.into(),
            bucket: bucket.into(),
            token: token.into(),
            dir: dir.into(),
            batch_lines: 1_000,
            max_lines: 5_000,
            batch_wait: Duration::from_secs(1),
            gzip: true,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            in_flight: 2,
            owed_in_flight: 2,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            slow_retry: Duration::from_secs(30),
        }
    }

    /// Where the place in the journal is kept.
    pub fn cursor_file(&self) -> PathBuf {
        self.dir.join("cursor")
    }

    /// Where what is owed is kept.
    pub fn owed_file(&self) -> PathBuf {
        self.dir.join("owed")
    }

    /// Whether a writer could work with these: what is wrong with them can be said before anything starts.
    pub fn check(&self) -> Result<(), InfluxError> {
        for (name, value) in [("organisation", &self.org), ("bucket", &self.bucket)] {
            if value.is_empty() {
                return Err(InfluxError::Missing(name));
            }
        }
        if self.token.reveal().is_empty() {
            return Err(InfluxError::Missing("token"));
        }
        http::WriteClient::new(self).map(|_| ())
    }
}

/// A secret that does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Token {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl From<String> for Token {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(hidden)" })
    }
}

/// Why InfluxDB cannot be written to, checked or set up. Nothing has been changed anywhere.
#[derive(Debug, thiserror::Error)]
pub enum InfluxError {
    /// A URL that cannot be InfluxDB's.
    #[error("influxdb's url {url:?} cannot be used: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A token that cannot stand in a header.
    #[error("influxdb's token holds characters that no token has")]
    Token,
    /// Something that is not set.
    #[error("influxdb's {0} is not set")]
    Missing(&'static str),
    /// The HTTP client cannot be made.
    #[error("no http client: {0}")]
    Client(String),
    /// InfluxDB's API said no, or did not answer.
    #[error("{0}")]
    Api(String),
    /// A part of the writer panicked. The cursor stands before all that is not written.
    #[error("the writer to influxdb broke down: {0}")]
    Broken(tokio::task::JoinError),
    /// What a target keeps on disk cannot be used.
    #[error("what influxdb {name:?} is owed cannot be read: {error}")]
    Book {
        /// The target.
        name: String,
        /// Why.
        error: book::BookError,
    },
    /// Only a new InfluxDB can be set up.
    #[error("this influxdb has been set up before")]
    SetUpBefore,
}

/// Where the writer goes on in the journal: its cursor, or the journal's beginning where there is none or it is
/// damaged, which the log then says. To be given to `Journal::lagging_reader`.
pub fn starting_point(options: &InfluxOptions) -> Position {
    let target = options.name.as_str();
    let file = options.cursor_file();
    let loaded = cursor::load(&file);
    let file = file.display();
    match loaded {
        Ok(Some(cursor)) => cursor.position,
        Ok(None) => {
            tracing::info!(influx = target, %file, "no cursor for influxdb yet: it gets all that the journal holds");
            Position::default()
        }
        Err(error) => {
            tracing::warn!(
                influx = target,
                %file,
                %error,
                "influxdb's cursor cannot be used: all that the journal holds is written once more, which is harmless"
            );
            Position::default()
        }
    }
}
