//! Logs to standard error: logfmt, or JSON.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of a line of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// `level=info message="…" server=…`, for people, grep and awk.
    #[default]
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Level {
    /// Only what failed.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what happens rarely.
    #[default]
    Info,
    /// And every step.
    Debug,
}

/// Reads and writes an option as its word on the command line.
macro_rules! words {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                <Self as clap::ValueEnum>::from_str(text, true).map_err(|_| {
                    let words: Vec<String> =
                        <Self as clap::ValueEnum>::value_variants().iter().map(Self::to_string).collect();
                    format!("{text:?} is none of {}", words.join(", "))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(clap::ValueEnum::to_possible_value(self).as_ref().map_or("", |value| value.get_name()))
            }
        }
    )*};
}
words!(Format, Level);

/// Logs to standard error from now on. A second call in one process changes nothing.
pub fn start(level: Level, format: Format) {
    let filter = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Logfmt => {
            let lines = tracing_logfmt::builder().with_target(false).layer().with_writer(std::io::stderr);
            registry.with(lines).try_init()
        }
        Format::Json => {
            let lines = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_target(false)
                .with_writer(std::io::stderr);
            registry.with(lines).try_init()
        }
    };
    // Only a second start can fail, and then logs go where the first said.
    let _ = started;
}
