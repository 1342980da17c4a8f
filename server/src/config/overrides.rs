//! What flags and the environment say.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::values::Masked;
use super::{ConfigError, LogFormat, LogLevel};

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
    /// Where clients on other machines reach this server, such as vitals.example.org; join tokens name it; again or with
    /// commas for more [env: VITALS_PUBLIC_ADDR]
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub public_address: Option<Vec<String>>,
    /// The first administrator's password. No flag: the arguments of a process are for all to see.
    #[arg(skip)]
    pub admin_password: Option<Masked>,
    /// File with the first administrator's password [env: VITALS_ADMIN_PASSWORD_FILE, or VITALS_ADMIN_PASSWORD with the
    /// password itself] [default: a random one is made]
    #[arg(long, value_name = "FILE")]
    pub admin_password_file: Option<PathBuf>,
    /// Address and port for clients [env: VITALS_LISTEN] [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Plain TCP for clients instead of TLS; they must be told so too [env: VITALS_INSECURE]
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

/// Where the server's files are: all that a command beside `run` and `check-config` needs to be told.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Files {
    /// The server's configuration file [env: VITALS_CONFIG] [default: /etc/vitals/server.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory that holds everything the server keeps [env: VITALS_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl From<Files> for Overrides {
    fn from(Files { config, data_dir }: Files) -> Self {
        Self { config, data_dir, ..Self::default() }
    }
}

impl Overrides {
    /// What the environment says. An empty variable counts as one that is not set.
    pub(super) fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
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
            public_address: text("VITALS_PUBLIC_ADDR")?
                .map(|text| text.split(',').map(|address| address.trim().to_owned()).collect()),
            admin_password: text("VITALS_ADMIN_PASSWORD")?.map(Masked),
            admin_password_file: path("VITALS_ADMIN_PASSWORD_FILE"),
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
