//! Configuration: a TOML file, `VITALS_…` environment variables over it, flags over both.
//!
//! Nothing has to be configured. An unknown key is an error that names the file, the key and its line.

mod access;
mod influx;
mod overrides;
mod parts;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

pub use access::{Accounts, HostLimits, Network};
pub use influx::{FIRST_TARGET, Influx, InfluxTarget, is_target_name};
pub use overrides::{Files, Overrides};
pub use parts::{Clients, DataDir, Http, HttpTls, Journal, Log, LogFormat, LogLevel, ShutdownTimeout, Store};
pub use values::{Masked, Time};
use values::{duration_within, within};

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
    /// The file is not what it should be. The line itself is not shown: a secret may stand in it.
    #[error("{file}: line {line}: {reason}", file = file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Where in it.
        line: usize,
        /// The key, and why.
        reason: String,
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
    /// Where clients on other machines reach this server, `host` or `host:port` each: what join tokens name.
    pub public_address: Vec<String>,
    /// The port for clients.
    pub clients: Clients,
    /// The port for the page and the API.
    pub http: Http,
    /// People.
    pub accounts: Accounts,
    /// What one host may send.
    pub limits: HostLimits,
    /// The durable log.
    pub journal: Journal,
    /// History.
    pub store: Store,
    /// InfluxDB; nothing is written there without a `url`.
    pub influx: Influx,
    /// What is logged, and how.
    pub log: Log,
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
        config.influx.read_tokens()?;
        config.accounts.read_password()?;
        Ok(config)
    }

    fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ConfigError::Unreadable { file: file.to_owned(), error })?;
        Self::from_text(file, &text)
    }

    fn from_text(file: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError::Invalid { file: file.to_owned(), line, reason: error.message().to_owned() }
        })
    }

    fn lay_over(&mut self, over: Overrides) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut self.data_dir.0, over.data_dir);
        set(&mut self.shutdown_timeout.0, over.shutdown_timeout);
        set(&mut self.public_address, over.public_address);
        if let Some(password) = over.admin_password {
            self.accounts.admin_password = password;
            self.accounts.admin_password_file = None;
        } else if let Some(file) = over.admin_password_file {
            self.accounts.admin_password_file = Some(file);
        }
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

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |text: String| Err(ConfigError::Value(text));
        if !self.http.is_tls()
            && !self.http.listen.ip().to_canonical().is_loopback()
            && self.http.trusted_proxies.is_empty()
        {
            return wrong(format!(
                "http.listen = {} is open to other machines, and http.tls = \"off\": whoever can listen in reads passwords; \
                 leave it on, or name the proxy before it in http.trusted_proxies",
                self.http.listen
            ));
        }
        for (part, certificate, key) in [
            ("clients", &self.clients.certificate, &self.clients.key),
            ("http", &self.http.certificate, &self.http.key),
        ] {
            if certificate.is_some() != key.is_some() {
                return wrong(format!(
                    "{part}.certificate and {part}.key go together: one of them is missing"
                ));
            }
        }
        within("http.max_requests", self.http.max_requests, 1..=100_000)?;
        within("limits.samples_per_second", self.limits.samples_per_second, 1..=100_000)?;
        if self.limits.bytes_per_second < ByteSize::kib(1) {
            return wrong(format!(
                "limits.bytes_per_second = {} is too small: at least 1 KiB",
                self.limits.bytes_per_second
            ));
        }
        within("limits.series", self.limits.series, 10..=1_000_000)?;
        let clients = &self.clients;
        within("clients.max_connections", clients.max_connections, 1..=MAX_CONNECTIONS)?;
        within("clients.max_strangers_per_address", clients.max_strangers_per_address, 1..=MAX_CONNECTIONS)?;
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        duration_within("shutdown_timeout", self.shutdown_timeout.0, second..=10 * minute)?;
        duration_within("clients.hello_timeout", clients.hello_timeout, second..=5 * minute)?;
        let year = 365 * 24 * 60 * minute;
        duration_within("accounts.session_idle", self.accounts.session_idle, second..=year)?;
        duration_within("accounts.session_lifetime", self.accounts.session_lifetime, second..=year)?;
        duration_within("journal.group", self.journal.group, Duration::ZERO..=second)?;
        if self.journal.max_size < ByteSize::mib(1) {
            return wrong(format!(
                "journal.max_size = {} is too small: at least 1 MiB",
                self.journal.max_size
            ));
        }
        if self.store.keep_raw < Duration::from_secs(3600) {
            return wrong("store.keep_raw is too short: at least 1h".to_owned());
        }
        self.influx.check()
    }

    /// What is in force, as TOML, secrets masked.
    pub fn to_toml(&self) -> String {
        // Plain tables of plain values always serialize; should they not, the reason is shown instead.
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

#[cfg(test)]
mod tests;
