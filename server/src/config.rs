//! Configuration: a TOML file, `VITALS_…` environment variables over it, flags over both.
//!
//! Nothing has to be configured. An unknown key is an error that names the file, the key and its line.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Where the configuration is looked for when no file is named; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/vitals/server.toml";

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

/// What flags and environment say; each that is there wins over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Configuration file [default: /etc/vitals/server.toml, if it exists]
    #[arg(long, env = "VITALS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory that holds everything the server keeps
    #[arg(long, env = "VITALS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port for clients [default: 127.0.0.1:7400]
    #[arg(long, env = "VITALS_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Take unencrypted connections from other machines
    #[arg(long)]
    pub insecure: bool,
    /// Address and port for the page and the API [default: 127.0.0.1:7480]
    #[arg(long, env = "VITALS_HTTP_LISTEN", value_name = "ADDR")]
    pub http_listen: Option<SocketAddr>,
    /// InfluxDB to write to, such as http://127.0.0.1:8086 [default: none]
    #[arg(long, env = "VITALS_INFLUX_URL", value_name = "URL")]
    pub influx_url: Option<String>,
    /// InfluxDB's organisation [default: vitals]
    #[arg(long, env = "VITALS_INFLUX_ORG", value_name = "NAME")]
    pub influx_org: Option<String>,
    /// InfluxDB's bucket [default: vitals]
    #[arg(long, env = "VITALS_INFLUX_BUCKET", value_name = "NAME")]
    pub influx_bucket: Option<String>,
    /// File that holds InfluxDB's token; or the token itself in VITALS_INFLUX_TOKEN
    #[arg(long, env = "VITALS_INFLUX_TOKEN_FILE", value_name = "FILE")]
    pub influx_token_file: Option<PathBuf>,
    /// Least important messages that are logged [default: info]
    #[arg(long, env = "VITALS_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Form of the log [default: logfmt]
    #[arg(long, env = "VITALS_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Reads the file, lays environment and flags over it, and checks the whole.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut config = match &overrides.config {
            Some(file) => Self::from_file(file)?,
            None if Path::new(DEFAULT_FILE).exists() => Self::from_file(Path::new(DEFAULT_FILE))?,
            None => Self::default(),
        };
        config.lay_over(overrides.clone());
        config.read_secrets(std::env::var("VITALS_INFLUX_TOKEN").ok())?;
        config.check()?;
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
        set(&mut self.clients.listen, over.listen);
        self.clients.insecure |= over.insecure;
        set(&mut self.http.listen, over.http_listen);
        set(&mut self.influx.url, over.influx_url);
        set(&mut self.influx.org, over.influx_org);
        set(&mut self.influx.bucket, over.influx_bucket);
        if over.influx_token_file.is_some() {
            self.influx.token_file = over.influx_token_file;
        }
        set(&mut self.log.level, over.log_level);
        set(&mut self.log.format, over.log_format);
    }

    /// The environment's token wins; a file wins over one in the configuration.
    fn read_secrets(&mut self, token: Option<String>) -> Result<(), ConfigError> {
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            self.influx.token = Masked(token);
        } else if let Some(file) = &self.influx.token_file {
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
                 127.0.0.1, or accept that with clients.insecure = true (--insecure)",
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
        if self.clients.max_connections == 0 || self.clients.max_strangers_per_address == 0 {
            return wrong(
                "clients.max_connections and clients.max_strangers_per_address must be above 0".to_owned(),
            );
        }
        if self.journal.max_size < ByteSize::mib(16) {
            return wrong(format!(
                "journal.max_size = {} is too small: at least 16 MiB",
                self.journal.max_size
            ));
        }
        if self.store.keep_raw < Duration::from_secs(3600) {
            return wrong("store.keep_raw is too short: at least 1h".to_owned());
        }
        if !self.influx.url.is_empty() {
            let plain = self.influx.url.starts_with("http://") || self.influx.url.starts_with("https://");
            if !plain {
                return wrong(format!(
                    "influx.url = {:?} is not a URL: it looks like http://127.0.0.1:8086",
                    self.influx.url
                ));
            }
            if self.influx.token.0.is_empty() {
                return wrong(
                    "influx.url is set and no token: put it into VITALS_INFLUX_TOKEN, or name its file with \
                     influx.token_file (--influx-token-file)"
                        .to_owned(),
                );
            }
            if self.influx.org.is_empty() || self.influx.bucket.is_empty() {
                return wrong("influx.org and influx.bucket cannot be empty".to_owned());
            }
        }
        Ok(())
    }

    /// What is in force, as TOML, secrets masked.
    pub fn to_toml(&self) -> String {
        // Plain tables of plain values always serialize; should they not, the reason is shown instead.
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# {error}\n"))
    }
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
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str::<Config>(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_has_to_be_configured() {
        let config = parse("").unwrap();
        config.check().unwrap();
        assert_eq!(config.clients.listen.to_string(), "127.0.0.1:7400");
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:7480");
    }

    #[test]
    fn what_is_in_force_reads_back_as_the_same_configuration() {
        let mut config = Config::default();
        config.influx.token = Masked("hush".to_owned());
        let shown = config.to_toml();
        assert!(!shown.contains("hush") && shown.contains("********"), "{shown}");
        let again = parse(&shown).unwrap();
        assert_eq!(again.to_toml(), shown);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("[clients]\nlisten = \"127.0.0.1:1\"\nlissten = 3\n").unwrap_err();
        assert!(error.contains("lissten") && error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_wrong_value_says_what_would_be_right() {
        let error = parse("[store]\nkeep_raw = \"a week\"\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("7d"), "{error}");
    }

    #[test]
    fn plain_tcp_leaves_loopback_only_when_told_so() {
        let mut config = Config::default();
        config.clients.listen = "0.0.0.0:7400".parse().unwrap();
        assert!(config.check().unwrap_err().to_string().contains("insecure"));
        config.clients.insecure = true;
        config.check().unwrap();
        config.http.listen = "[::]:7480".parse().unwrap();
        assert!(config.check().unwrap_err().to_string().contains("http.listen"));
    }

    #[test]
    fn influxdb_without_a_token_is_refused_with_the_remedy() {
        let mut config = Config::default();
        config.influx.url = "http://127.0.0.1:8086".to_owned();
        assert!(config.check().unwrap_err().to_string().contains("VITALS_INFLUX_TOKEN"));
        config.read_secrets(Some("token".to_owned())).unwrap();
        config.check().unwrap();
        config.influx.url = "127.0.0.1:8086".to_owned();
        assert!(config.check().unwrap_err().to_string().contains("http://"));
    }

    #[test]
    fn a_secret_file_that_is_missing_is_named() {
        let mut config = Config::default();
        config.influx.token_file = Some("/nowhere/token".into());
        assert!(config.read_secrets(None).unwrap_err().to_string().contains("/nowhere/token"));
    }
}
