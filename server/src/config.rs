//! Configuration: a TOML file, `VITALS_…` environment variables over it, flags over both.
//!
//! Nothing has to be configured. An unknown key is an error that names the file, the key and its line.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::influx::{InfluxError, InfluxOptions};

/// Where the configuration is looked for when no file is named; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/vitals/server.toml";
/// More connections than any machine holds, and far from where counters overflow.
const MAX_CONNECTIONS: usize = 1_000_000;

/// Why the configuration cannot be used. Each text names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {error}", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{file}: {error}", file = file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Line, key and reason.
        error: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
}

/// All that can be configured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything is kept. Default: `/var/lib/vitals` for root, else `vitals` under the user's data directory.
    pub data_dir: DataDir,
    /// Time that the whole way down may take at a SIGTERM. Default: 10 s.
    pub shutdown_timeout: ShutdownTimeout,
    /// The port for clients.
    pub clients: Clients,
    /// The port for the page and the API.
    pub http: Http,
    /// The durable log.
    pub journal: Journal,
    /// History.
    pub store: Store,
    /// InfluxDB; nothing is written there without a `url`.
    pub influx: Influx,
    /// What is logged, and how.
    pub log: Log,
}

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
    /// Address and port. Plain TCP for now, so anything but loopback needs `insecure`.
    pub listen: SocketAddr,
    /// Take unencrypted connections from other machines: whoever can listen in reads every figure and every secret.
    pub insecure: bool,
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
            max_connections: 20_000,
            max_strangers_per_address: 512,
            hello_timeout: Duration::from_secs(10),
        }
    }
}

/// The port for the page and the API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port; loopback only until there are accounts.
    pub listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 7480)) }
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

/// InfluxDB 2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Influx {
    /// Such as `http://127.0.0.1:8086`. Empty: no InfluxDB.
    pub url: String,
    /// The organisation.
    pub org: String,
    /// The bucket.
    pub bucket: String,
    /// The token; better in `token_file`.
    pub token: Masked,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// Compress what is sent.
    pub gzip: bool,
    /// Time a request may take.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for Influx {
    fn default() -> Self {
        Self {
            url: String::new(),
            org: "vitals".to_owned(),
            bucket: "vitals".to_owned(),
            token: Masked::default(),
            token_file: None,
            gzip: true,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A secret that shows itself to nobody who prints it.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Masked(pub String);

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"********\"" })
    }
}

impl Serialize for Masked {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "********" })
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

/// What flags or the environment say; each that is there wins over what lies below it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Configuration file [env: VITALS_CONFIG] [default: /etc/vitals/server.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory that holds everything the server keeps [env: VITALS_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Time that the whole way down may take at a SIGTERM [env: VITALS_SHUTDOWN_TIMEOUT] [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub shutdown_timeout: Option<Duration>,
    /// Address and port for clients [env: VITALS_LISTEN] [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Take unencrypted connections from other machines [env: VITALS_INSECURE]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub insecure: Option<bool>,
    /// Address and port for the page and the API [env: VITALS_HTTP_LISTEN] [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDR")]
    pub http_listen: Option<SocketAddr>,
    /// InfluxDB to write to, such as http://127.0.0.1:8086 [env: VITALS_INFLUX_URL] [default: none]
    #[arg(long, value_name = "URL")]
    pub influx_url: Option<String>,
    /// InfluxDB's organisation [env: VITALS_INFLUX_ORG] [default: vitals]
    #[arg(long, value_name = "NAME")]
    pub influx_org: Option<String>,
    /// InfluxDB's bucket [env: VITALS_INFLUX_BUCKET] [default: vitals]
    #[arg(long, value_name = "NAME")]
    pub influx_bucket: Option<String>,
    /// InfluxDB's token. No flag: the arguments of a process are for all to see.
    #[arg(skip)]
    pub influx_token: Option<Masked>,
    /// File that holds InfluxDB's token [env: VITALS_INFLUX_TOKEN_FILE, or VITALS_INFLUX_TOKEN with the token itself]
    #[arg(long, value_name = "FILE")]
    pub influx_token_file: Option<PathBuf>,
    /// Least important messages that are logged [env: VITALS_LOG_LEVEL] [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Form of the log [env: VITALS_LOG_FORMAT] [default: logfmt]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Overrides {
    /// What the environment says. An empty variable counts as one that is not set.
    fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| set(name).map(PathBuf::from);
        let text = |name: &str| match set(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(ConfigError::Value(format!("{name} is not UTF-8"))),
        };
        let parse = |name: &str, wanted: &str| (text(name), format!("{name} takes {wanted}"));
        fn parsed<T>(
            (text, wanted): (Result<Option<String>, ConfigError>, String),
            parse: impl Fn(&str) -> Option<T>,
        ) -> Result<Option<T>, ConfigError> {
            let Some(text) = text? else { return Ok(None) };
            parse(&text).map(Some).ok_or_else(|| ConfigError::Value(format!("{wanted}, not {text:?}")))
        }
        let address = "an address and a port such as 127.0.0.1:7400";
        Ok(Self {
            config: path("VITALS_CONFIG"),
            data_dir: path("VITALS_DATA_DIR"),
            shutdown_timeout: parsed(parse("VITALS_SHUTDOWN_TIMEOUT", "a time such as 10s"), |text| {
                humantime::parse_duration(text).ok()
            })?,
            listen: parsed(parse("VITALS_LISTEN", address), |text| text.parse().ok())?,
            insecure: parsed(parse("VITALS_INSECURE", "true or false"), yes_or_no)?,
            http_listen: parsed(parse("VITALS_HTTP_LISTEN", address), |text| text.parse().ok())?,
            influx_url: text("VITALS_INFLUX_URL")?,
            influx_org: text("VITALS_INFLUX_ORG")?,
            influx_bucket: text("VITALS_INFLUX_BUCKET")?,
            influx_token: text("VITALS_INFLUX_TOKEN")?.map(Masked),
            influx_token_file: path("VITALS_INFLUX_TOKEN_FILE"),
            log_level: parsed(parse("VITALS_LOG_LEVEL", "error, warn, info or debug"), |text| {
                clap::ValueEnum::from_str(text, true).ok()
            })?,
            log_format: parsed(parse("VITALS_LOG_FORMAT", "logfmt or json"), |text| {
                clap::ValueEnum::from_str(text, true).ok()
            })?,
        })
    }
}

/// As the client reads it.
fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

impl Config {
    /// Reads the file, lays environment and flags over it, and checks the whole.
    pub fn load(flags: &Overrides) -> Result<Self, ConfigError> {
        let config = Self::layered(flags.clone(), |name| std::env::var_os(name))?;
        config.check()?;
        Ok(config)
    }

    fn layered(flags: Overrides, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let environment = Overrides::from_environment(variable)?;
        let mut config = match flags.config.as_ref().or(environment.config.as_ref()) {
            Some(file) => Self::from_file(file)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::from_file(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        config.lay_over(environment);
        config.lay_over(flags);
        config.read_token()?;
        Ok(config)
    }

    fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::Unreadable { file: file.to_owned(), error })?;
        toml::from_str(&text)
            .map_err(|error| ConfigError::Invalid { file: file.to_owned(), error: Box::new(error) })
    }

    fn lay_over(&mut self, over: Overrides) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut self.data_dir.0, over.data_dir);
        set(&mut self.shutdown_timeout.0, over.shutdown_timeout);
        set(&mut self.clients.listen, over.listen);
        set(&mut self.clients.insecure, over.insecure);
        set(&mut self.http.listen, over.http_listen);
        set(&mut self.influx.url, over.influx_url);
        set(&mut self.influx.org, over.influx_org);
        set(&mut self.influx.bucket, over.influx_bucket);
        // Token and file are two ways to say one thing: whichever is said here displaces both from below.
        if let Some(token) = over.influx_token {
            self.influx.token = token;
            self.influx.token_file = None;
        } else if let Some(file) = over.influx_token_file {
            self.influx.token_file = Some(file);
        }
        set(&mut self.log.level, over.log_level);
        set(&mut self.log.format, over.log_format);
    }

    /// A file of the token wins over one that stands beside it in the configuration.
    fn read_token(&mut self) -> Result<(), ConfigError> {
        if let Some(file) = &self.influx.token_file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| ConfigError::Unreadable { file: file.clone(), error })?;
            self.influx.token = Masked(text.trim().to_owned());
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        if !self.clients.listen.ip().is_loopback() && !self.clients.insecure {
            return wrong(format!(
                "clients.listen = {} is open to other machines, and the connection is not encrypted: listen on \
                 127.0.0.1, or accept that with clients.insecure = true (--insecure, VITALS_INSECURE=true)",
                self.clients.listen
            ));
        }
        if !self.http.listen.ip().is_loopback() {
            return wrong(format!(
                "http.listen = {} is open to other machines, and the API asks nobody who they are: listen on 127.0.0.1 \
                 and put a proxy or an ssh tunnel before it",
                self.http.listen
            ));
        }
        let clients = &self.clients;
        within("clients.max_connections", clients.max_connections, 1..=MAX_CONNECTIONS)?;
        within("clients.max_strangers_per_address", clients.max_strangers_per_address, 1..=MAX_CONNECTIONS)?;
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        duration_within("shutdown_timeout", self.shutdown_timeout.0, second..=10 * minute)?;
        duration_within("clients.hello_timeout", clients.hello_timeout, second..=5 * minute)?;
        duration_within("journal.group", self.journal.group, Duration::ZERO..=second)?;
        duration_within("influx.timeout", self.influx.timeout, second..=10 * minute)?;
        if self.journal.max_size < ByteSize::mib(16) {
            return wrong(format!(
                "journal.max_size = {} is too small: at least 16 MiB",
                self.journal.max_size
            ));
        }
        if self.store.keep_raw < Duration::from_secs(3600) {
            return wrong("store.keep_raw is too short: at least 1h".to_owned());
        }
        if !self.influx.url.is_empty() { self.influx.check() } else { Ok(()) }
    }

    /// What is in force, as TOML, secrets masked.
    pub fn to_toml(&self) -> String {
        // Plain tables of plain values always serialize; should they not, the reason is shown instead.
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

impl Influx {
    /// What the writer itself would refuse. Secrets are not shown, not even those that are where they should not be.
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        if self.org.is_empty() || self.bucket.is_empty() {
            return wrong("influx.org and influx.bucket cannot be empty".to_owned());
        }
        // Where there is no token, the URL may be the place that holds one: it is looked at first.
        let token = if self.token.0.is_empty() { "none" } else { &self.token.0 };
        match InfluxOptions::new(&*self.url, &*self.org, &*self.bucket, token, "").check() {
            Ok(()) => {}
            Err(InfluxError::Url { why, .. }) => {
                let shown = match self.url.split(['?', '#']).next() {
                    Some(shown) if !shown.contains('@') => format!("{shown:?}"),
                    _ => "(not shown: it may hold a secret)".to_owned(),
                };
                return wrong(format!(
                    "influx.url = {shown} cannot be used: {why}; it looks like http://127.0.0.1:8086, and the token \
                     goes into influx.token_file (--influx-token-file) or VITALS_INFLUX_TOKEN"
                ));
            }
            Err(error) => return wrong(error.to_string()),
        }
        if self.token.0.is_empty() {
            return wrong(
                "influx.url is set and no token: put it into VITALS_INFLUX_TOKEN, or name its file with \
                 influx.token_file (--influx-token-file)"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn within<T: PartialOrd + fmt::Display>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(ConfigError::Value(format!("{key} = {value} is not within {least} to {most}")))
}

fn duration_within(key: &str, value: Duration, range: RangeInclusive<Duration>) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let [value, least, most] = [value, *range.start(), *range.end()].map(humantime::format_duration);
    Err(ConfigError::Value(format!("{key} = {value} is not within {least} to {most}")))
}

/// Durations as people write them: `10s`, `7d`, `25ms`.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| {
            D::Error::custom(format!("{text:?} is not a duration such as \"10s\" or \"7d\": {error}"))
        })
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
