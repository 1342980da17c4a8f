//! What the client is told to do: a TOML file, the environment over it, flags over both.
//!
//! Nothing has to be configured. A key that is not known, or a value that cannot be taken, is an error that names where
//! it stands.

mod value;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use value::{Hidden, HostName, Interval, Labels, MaybeProxy, PinList, Server, Servers, Size, Token};

use crate::collect::CollectConfig;
use crate::link::connector::WayOut;
use crate::link::proxy::NoProxy;
use crate::logging;
use crate::trust::{Basis, Kept, Pin};

/// The file that is read where none is named and this one is there.
pub const DEFAULT_FILE: &str = "/etc/vitals/client.toml";
/// The port of a server without one.
pub const DEFAULT_PORT: u16 = 7400;

/// Where a token comes from that others can see.
const TOKEN_FLAG: &str = "command line, --token";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file that is not understood.
    #[error("{}:{line}:{column}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The character in it, from 1.
        column: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A variable or flag that is not understood.
    #[error("{from}: {message}")]
    Value {
        /// The variable or flag.
        from: String,
        /// What is wrong.
        message: String,
    },
}

/// Flags that change the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Configuration file [env: VITALS_CLIENT_CONFIG] [default: /etc/vitals/client.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Server to send to, host or host:port; again or with commas for more, tried in order [env: VITALS_SERVER]
    /// [default: those of the token, else those of the last join, else 127.0.0.1:7400].
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub server: Vec<Server>,
    /// The join token itself; others on this machine can see it: a file or VITALS_TOKEN is better.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<Hidden>,
    /// File with the join token [env: VITALS_TOKEN_FILE, or VITALS_TOKEN with the token itself].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Key that a server may have, 64 hexadecimal digits; again or with commas for more [env: VITALS_PIN] [default: those of
    /// the token].
    #[arg(long, value_name = "PIN", value_delimiter = ',')]
    pub pin: Vec<Pin>,
    /// File with the CAs, PEM, that a server's certificate may be from, where no pin is given [env: VITALS_CA_FILE].
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Time between two samples, 1s to 1h [env: VITALS_INTERVAL] [default: 5s].
    #[arg(long, value_name = "TIME")]
    pub interval: Option<Interval>,
    /// Name of this host [env: VITALS_HOSTNAME] [default: what the system calls itself].
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<HostName>,
    /// Label of this host, such as env=prod; again or with commas for more [env: VITALS_LABELS].
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Labels>,
    /// Directory of this client's identity and spool [env: VITALS_DATA_DIR] [default: /var/lib/vitals-client for root, else
    /// ~/.local/state/vitals-client].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Bytes that samples may take on disk while no server takes them; 0 for none, else 4MiB or more
    /// [env: VITALS_SPOOL_MAX_SIZE] [default: 64MiB].
    #[arg(long, value_name = "SIZE")]
    pub spool_max_size: Option<Size>,
    /// Plain TCP: no encryption, and no check of who the server is; both sides must be told [env: VITALS_INSECURE].
    #[arg(long)]
    pub insecure: bool,
    /// Time for an end: what waits is brought home, then the client ends in any case [env: VITALS_SHUTDOWN_TIMEOUT]
    /// [default: 10s].
    #[arg(long, value_name = "TIME")]
    pub shutdown_timeout: Option<Interval>,
    /// How much is logged [env: VITALS_LOG_LEVEL] [default: info].
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub log_level: Option<logging::Level>,
    /// Form of the log's lines [env: VITALS_LOG_FORMAT] [default: logfmt].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<logging::Format>,
}

/// The keys of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<Servers>,
    token: Option<Token>,
    token_file: Option<PathBuf>,
    pin: Option<PinList>,
    ca_file: Option<PathBuf>,
    proxy: Option<MaybeProxy>,
    interval: Option<Interval>,
    hostname: Option<HostName>,
    labels: Option<Labels>,
    data_dir: Option<PathBuf>,
    spool: Option<SpoolTable>,
    insecure: Option<bool>,
    shutdown_timeout: Option<Interval>,
    log_level: Option<value::Word<logging::Level>>,
    log_format: Option<value::Word<logging::Format>>,
    collect: Option<value::Collect>,
}

/// The file's table `spool`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpoolTable {
    max_size: Option<Size>,
}

/// What is in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Servers, tried in order: those that are configured, else those of the token; see [`Config::servers_or`].
    pub servers: Vec<Server>,
    /// To join with.
    pub token: Option<Token>,
    /// The file that was to hold the token, and is not there; see [`Config::need_token`].
    missing_token: Option<PathBuf>,
    /// Keys that servers may have: those that are configured, else those of the token.
    pub pins: Vec<Pin>,
    /// CAs that servers' certificates may be from, where there are no pins.
    pub ca_file: Option<PathBuf>,
    /// The proxy, if any.
    pub way_out: Option<WayOut>,
    /// Time between two samples.
    pub interval: Interval,
    /// What this host calls itself.
    pub hostname: HostName,
    /// Its labels.
    pub labels: Labels,
    /// Bytes that the spool may take; 0 for none.
    pub spool_max_size: Size,
    /// Where its identity and its spool are.
    pub data_dir: PathBuf,
    /// Whether connections are plain TCP.
    pub insecure: bool,
    /// Within which time an end is over.
    pub shutdown_timeout: Interval,
    /// How much is logged.
    pub log_level: logging::Level,
    /// How.
    pub log_format: logging::Format,
    /// What is read.
    pub collect: CollectConfig,
    /// Where each value comes from, by its key.
    origins: BTreeMap<&'static str, String>,
}

/// What surrounds the process, so that tests can play it.
pub trait Surroundings {
    /// A variable of the environment; one that is empty counts as not set.
    fn variable(&self, name: &str) -> Option<String>;
    /// What the system calls itself.
    fn hostname(&self) -> String;
    /// Whether the process runs as root.
    fn is_root(&self) -> bool;
    /// The file to read where none is named.
    fn default_file(&self) -> &Path;
}

/// The real ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl Surroundings for Process {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn hostname(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn default_file(&self) -> &Path {
        Path::new(DEFAULT_FILE)
    }
}

/// Values for one key from all sources, the strongest last.
struct Layers<'a, S> {
    around: &'a S,
    path: Option<&'a Path>,
    origins: BTreeMap<&'static str, String>,
}

impl<S: Surroundings> Layers<'_, S> {
    /// The flag, else the variable, else the file's, else none; and notes which.
    fn pick<T>(
        &mut self,
        key: &'static str,
        flag: Option<T>,
        variable: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        in_file: Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let (value, origin) = if let Some(value) = flag {
            (value, "command line".to_owned())
        } else if let Some(text) = self.around.variable(variable) {
            let value =
                parse(&text).map_err(|message| ConfigError::Value { from: variable.to_owned(), message })?;
            (value, format!("environment, {variable}"))
        } else if let (Some(value), Some(path)) = (in_file, self.path) {
            (value, path.display().to_string())
        } else {
            return Ok(None);
        };
        self.origins.insert(key, origin);
        Ok(Some(value))
    }
}

/// Parses with `FromStr`.
fn parsed<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

impl Config {
    /// Reads all sources.
    pub fn load(flags: Flags, around: &impl Surroundings) -> Result<Self, ConfigError> {
        // Not VITALS_CONFIG: that names the server's file, which has other keys.
        let named = flags.config.or_else(|| around.variable("VITALS_CLIENT_CONFIG").map(PathBuf::from));
        let path = match named {
            Some(path) => Some(path),
            None => Some(around.default_file()).filter(|path| path.exists()).map(Path::to_owned),
        };
        let file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let mut from = Layers { around, path: path.as_deref(), origins: BTreeMap::new() };

        let servers = Some(flags.server).filter(|servers| !servers.is_empty()).map(Servers);
        let servers = from.pick("server", servers, "VITALS_SERVER", parsed, file.server)?;
        let mut missing_token = None;
        let token = match flags.token {
            Some(token) => {
                let token = token
                    .token()
                    .map_err(|message| ConfigError::Value { from: "--token".to_owned(), message })?;
                from.origins.insert("token", TOKEN_FLAG.to_owned());
                Some(token)
            }
            None => {
                let read = token(&mut from, around, flags.token_file, file.token_file, file.token);
                match read {
                    Err(ConfigError::Read { path, error }) if error.kind() == ErrorKind::NotFound => {
                        missing_token = Some(path);
                        None
                    }
                    read => read?,
                }
            }
        };
        let pins = Some(flags.pin).filter(|pins| !pins.is_empty()).map(PinList);
        let pins = from.pick("pin", pins, "VITALS_PIN", parsed, file.pin)?;
        let ca_file = from.pick("ca_file", flags.ca_file, "VITALS_CA_FILE", parsed, file.ca_file)?;
        let proxy = from.pick("proxy", None, "VITALS_PROXY", parsed, file.proxy)?;
        let proxy = match proxy {
            Some(proxy) => Some(proxy),
            None => match from.pick("proxy", None, "HTTPS_PROXY", parsed, None)? {
                Some(proxy) => Some(proxy),
                None => from.pick("proxy", None, "https_proxy", parsed, None)?,
            },
        };
        let except = around.variable("NO_PROXY").or_else(|| around.variable("no_proxy")).unwrap_or_default();
        let way_out = proxy.and_then(|MaybeProxy(proxy)| proxy);
        let way_out = way_out.map(|proxy| WayOut { proxy, except: NoProxy::new(&except) });
        let interval = from.pick("interval", flags.interval, "VITALS_INTERVAL", parsed, file.interval)?;
        let hostname = from.pick("hostname", flags.hostname, "VITALS_HOSTNAME", parsed, file.hostname)?;
        let labels = Labels::merge(flags.labels)
            .map_err(|message| ConfigError::Value { from: "--label".to_owned(), message })?;
        let labels = from.pick("labels", labels, "VITALS_LABELS", parsed, file.labels)?;
        let data_dir = from.pick("data_dir", flags.data_dir, "VITALS_DATA_DIR", parsed, file.data_dir)?;
        let in_file = file.spool.and_then(|spool| spool.max_size);
        let spool_max_size =
            from.pick("spool.max_size", flags.spool_max_size, "VITALS_SPOOL_MAX_SIZE", parsed, in_file)?;
        let insecure = Some(true).filter(|_| flags.insecure);
        let insecure = from.pick("insecure", insecure, "VITALS_INSECURE", value::yes_or_no, file.insecure)?;
        let shutdown_timeout = from.pick(
            "shutdown_timeout",
            flags.shutdown_timeout,
            "VITALS_SHUTDOWN_TIMEOUT",
            parsed,
            file.shutdown_timeout,
        )?;
        let in_file = file.log_level.map(|word| word.0);
        let log_level = from.pick("log_level", flags.log_level, "VITALS_LOG_LEVEL", parsed, in_file)?;
        let in_file = file.log_format.map(|word| word.0);
        let log_format = from.pick("log_format", flags.log_format, "VITALS_LOG_FORMAT", parsed, in_file)?;
        let mut origins = from.origins;
        let of_token = || Some((token.as_ref()?, format!("token; {}", origins.get("token")?)));
        let (servers, pins, of_token) = match (servers, pins.filter(|pins| !pins.0.is_empty()), of_token()) {
            (servers, pins, Some((token, origin))) => (
                servers.map_or_else(|| token.servers().to_vec(), |servers| servers.0),
                pins.map_or_else(|| token.pins(), |pins| pins.0),
                Some(origin),
            ),
            (servers, pins, None) => (
                servers.map(|servers| servers.0).unwrap_or_default(),
                pins.map(|pins| pins.0).unwrap_or_default(),
                None,
            ),
        };
        for (key, is_set) in [("server", !servers.is_empty()), ("pin", !pins.is_empty())] {
            if let Some(origin) = of_token.as_ref().filter(|_| is_set) {
                origins.entry(key).or_insert_with(|| origin.clone());
            }
        }

        Ok(Self {
            servers,
            token,
            missing_token,
            pins,
            ca_file,
            way_out,
            interval: interval.unwrap_or_default(),
            hostname: hostname.unwrap_or_else(|| HostName::nearest(&around.hostname())),
            labels: labels.unwrap_or_default(),
            data_dir: match data_dir {
                Some(dir) => dir,
                None => default_data_dir(around),
            },
            spool_max_size: spool_max_size.unwrap_or_default(),
            insecure: insecure.unwrap_or_default(),
            shutdown_timeout: shutdown_timeout.unwrap_or(Interval::SHUTDOWN),
            log_level: log_level.unwrap_or_default(),
            log_format: log_format.unwrap_or_default(),
            collect: file.collect.map(|collect| collect.0).unwrap_or_default(),
            file: path,
            origins,
        })
    }

    /// Servers, tried in order: those that are configured or the token's, else those of the last join, else the one on this
    /// machine.
    pub fn servers_or(&self, kept: &Kept) -> Vec<Server> {
        servers_or(&self.servers, kept)
    }

    /// How servers are known.
    pub fn basis(&self, kept: &Kept) -> Basis {
        Basis::of(self.insecure, !self.pins.is_empty(), self.ca_file.is_some(), kept)
    }

    /// Whoever has joined needs no token any more, and its file may be gone.
    ///
    /// # Errors
    /// The file that is named is not there, and the host has not joined.
    pub fn need_token(&self, is_joined: bool) -> Result<(), ConfigError> {
        match &self.missing_token {
            Some(path) if !is_joined => {
                Err(ConfigError::Read { path: path.clone(), error: rustix::io::Errno::NOENT.into() })
            }
            _ => Ok(()),
        }
    }

    /// The file that is named for the token and is not there.
    pub fn missing_token(&self) -> Option<&Path> {
        self.missing_token.as_deref()
    }

    /// Whether the join token stands in the process's arguments, where others on this machine can see it.
    pub fn shows_token(&self) -> bool {
        self.origin("token") == TOKEN_FLAG
    }

    /// Where the value of `key` comes from.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }

    /// All that is in force, in the file's own form, with where it comes from, beside what was kept from the last join.
    /// Secrets are masked.
    pub fn describe(&self, kept: &Kept) -> String {
        let mut out = match &self.file {
            Some(path) => format!("# read from {}\n", path.display()),
            None => "# no configuration file\n".to_owned(),
        };
        let servers: Vec<String> =
            self.servers_or(kept).iter().map(|server| quoted(server.as_str())).collect();
        let is_kept = self.servers.is_empty() && !kept.addresses.is_empty();
        let pins: Vec<String> = self.pins.iter().map(|pin| quoted(&pin.to_string())).collect();
        let labels: Vec<String> =
            self.labels.iter().map(|(key, value)| format!("{key} = {}", quoted(value))).collect();
        let mut line = |key: &str, value: String| {
            let origin =
                if key == "server" && is_kept { "kept from the last join" } else { self.origin(key) };
            // Writing to a text cannot fail.
            let _ = writeln!(out, "{:<50} # {origin}", format!("{key} = {value}"));
        };
        line("server", format!("[{}]", servers.join(", ")));
        line("insecure", self.insecure.to_string());
        match (&self.token, &self.missing_token) {
            (Some(_), _) => line("token", quoted("********")),
            (None, Some(path)) => line("# token", format!("none: {} is not there", path.display())),
            (None, None) => line("# token", "none".to_owned()),
        }
        line("pin", format!("[{}]", pins.join(", ")));
        match &self.ca_file {
            Some(path) => line("ca_file", quoted(&path.display().to_string())),
            None => line("# ca_file", "none".to_owned()),
        }
        line("# trusts", quoted(self.basis(kept).word()));
        let proxy = self.way_out.as_ref().map(|way_out| way_out.proxy.to_string());
        line("proxy", quoted(&proxy.unwrap_or_default()));
        line("interval", quoted(&self.interval.to_string()));
        line("hostname", quoted(self.hostname.as_str()));
        line(
            "labels",
            if labels.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", labels.join(", ")) },
        );
        line("data_dir", quoted(&self.data_dir.display().to_string()));
        line("spool.max_size", quoted(&self.spool_max_size.to_string()));
        line("shutdown_timeout", quoted(&self.shutdown_timeout.to_string()));
        line("log_level", quoted(&self.log_level.to_string()));
        line("log_format", quoted(&self.log_format.to_string()));
        self.describe_collect(&mut out);
        out
    }
}

impl Config {
    /// The table of the collectors.
    fn describe_collect(&self, out: &mut String) {
        let (now, default) = (&self.collect, CollectConfig::default());
        let list = |names: &[String]| {
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            format!("[{}]", names.join(", "))
        };
        let lines = [
            (
                "back_end",
                quoted(&format!("{:?}", now.back_end).to_lowercase()),
                now.back_end == default.back_end,
            ),
            ("temperatures", now.temperatures.to_string(), now.temperatures == default.temperatures),
            (
                "process_walk_interval",
                now.process_walk_interval.to_string(),
                now.process_walk_interval == default.process_walk_interval,
            ),
            (
                "read_deadline_ms",
                now.read_deadline_ms.to_string(),
                now.read_deadline_ms == default.read_deadline_ms,
            ),
            (
                "exclude_file_system_types",
                list(&now.exclude_file_system_types),
                now.exclude_file_system_types == default.exclude_file_system_types,
            ),
            (
                "exclude_mount_points",
                list(&now.exclude_mount_points),
                now.exclude_mount_points == default.exclude_mount_points,
            ),
            ("exclude_disks", list(&now.exclude_disks), now.exclude_disks == default.exclude_disks),
            (
                "exclude_interfaces",
                list(&now.exclude_interfaces),
                now.exclude_interfaces == default.exclude_interfaces,
            ),
        ];
        out.push_str("\n[collect]\n");
        for (key, value, is_default) in lines {
            let origin = match &self.file {
                Some(path) if !is_default => path.display().to_string(),
                _ => "default".to_owned(),
            };
            // Writing to a text cannot fail.
            let _ = writeln!(out, "{:<50} # {origin}", format!("{key} = {value}"));
        }
    }
}

impl<S> Layers<'_, S> {
    fn is_from_file(&self, key: &str) -> bool {
        self.path.is_some_and(|path| {
            self.origins.get(key).is_some_and(|origin| *origin == path.display().to_string())
        })
    }
}

/// `given`, else the servers of the last join, else the one on this machine.
pub fn servers_or(given: &[Server], kept: &Kept) -> Vec<Server> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let kept: Vec<Server> = kept.addresses.iter().filter_map(|address| address.parse().ok()).collect();
    if kept.is_empty() { vec![Server::default()] } else { kept }
}

/// The token of whatever names one, but for the flag with the token itself.
fn token<S: Surroundings>(
    from: &mut Layers<'_, S>,
    around: &S,
    flag: Option<PathBuf>,
    path_in_file: Option<PathBuf>,
    in_file: Option<Token>,
) -> Result<Option<Token>, ConfigError> {
    match from.pick("token", flag, "VITALS_TOKEN_FILE", parsed, path_in_file)? {
        // As strong as where it is named: a variable with the token itself is over a file's key.
        Some(_) if around.variable("VITALS_TOKEN").is_some() && from.is_from_file("token") => {
            from.pick("token", None, "VITALS_TOKEN", parsed, None)
        }
        Some(path) => Ok(Some(Token::read(&path)?)),
        None => from.pick("token", None, "VITALS_TOKEN", parsed, in_file),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn default_data_dir(around: &impl Surroundings) -> PathBuf {
    let state = || around.variable("XDG_STATE_HOME").map(PathBuf::from);
    let home = || around.variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let own = if around.is_root() { None } else { state().or_else(home) };
    own.unwrap_or_else(|| "/var/lib".into()).join("vitals-client")
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(&text);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ConfigError::File {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            message: with_remedy(error.message()),
        }
    })
}

/// Adds what was probably meant to serde's words about an unknown key.
fn with_remedy(message: &str) -> String {
    let message = message.replace("unknown field", "unknown key");
    let mut names = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown key"), names.next()) {
        (true, Some(unknown)) => match names.min_by_key(|known| distance(unknown, known)) {
            Some(near) if distance(unknown, near) <= 3 => format!("{message}; did you mean `{near}`?"),
            _ => format!("{message}; remove it, or write it as one of these"),
        },
        _ => message,
    }
}

/// Letters to change, add or remove to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
