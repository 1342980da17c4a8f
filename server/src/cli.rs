//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::config::Overrides;

/// Vitals' server: takes readings from a fleet of machines, shows them, keeps them, and feeds InfluxDB.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  vitals-server run                                     clients on 127.0.0.1:7400, API on 127.0.0.1:7480
  vitals-server run --config /etc/vitals/server.toml
  VITALS_INFLUX_TOKEN=… vitals-server run --influx-url http://127.0.0.1:8086
  vitals-server check-config                            what is in force, secrets masked
  vitals-server token create                            a token with which a host joins
  vitals-server hosts                                   all hosts and whether they are there
  vitals-server host rename web-1 shop                  call a host by another name
  vitals-server user passwd admin --generate            a new password for the one who is locked out
  vitals-server api-token create --name grafana         a token with which a program reads the API
  vitals-server targets                                 how each InfluxDB is, and what to do about it
  vitals-server backfill --from 2026-01-31T12:00:00Z    write history to InfluxDB again, from then until now

Nothing has to be configured. A file, VITALS_… variables and flags are laid over each other in that order; an empty
variable counts as not set.
Exit status: 0 done, 1 failed, 2 wrong use."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the server's binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server until SIGTERM or Ctrl-C
    Run(Overrides),
    /// Check the configuration and print what is in force, secrets masked
    CheckConfig(Overrides),
    /// List all hosts; asks the running server, or reads its files where none runs
    Hosts(Hosts),
    /// Show, rename, label, rotate, revoke and remove hosts
    Host(commands::host::Args),
    /// Make, list and revoke the tokens with which hosts join
    Token(commands::token::Args),
    /// Add, list and remove people, and change their passwords
    User(commands::user::Args),
    /// Make, list and revoke the tokens with which programs use the API
    ApiToken(commands::api_token::Args),
    /// Show and replace the key by which clients know this server
    Cert(commands::cert::Args),
    /// List the InfluxDBs that are written to, and how each is
    Targets(Targets),
    /// List lines that InfluxDB refused, newest first, as line protocol with its words as comments
    Quarantine(Quarantine),
    /// Write a stretch of history to InfluxDB again; what is there already stays as it is
    Backfill(Backfill),
}

/// What `targets` can be told.
#[derive(Debug, Args)]
pub struct Targets {
    /// Where the server's files are.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Print JSON, as the API gives it
    #[arg(long)]
    pub json: bool,
}

/// What `quarantine` can be told.
#[derive(Debug, Args)]
pub struct Quarantine {
    /// Where the server's files are.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Of this InfluxDB only, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// How many lines
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// Print JSON, as the API gives it
    #[arg(long)]
    pub json: bool,
}

/// What `backfill` can be told.
#[derive(Debug, Args)]
pub struct Backfill {
    /// Where the server's files are.
    #[command(flatten)]
    pub overrides: Overrides,
    /// First time, RFC 3339 or ms since 1970
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse)]
    pub from: i64,
    /// First time that is not wanted any more [default: now]
    #[arg(long, value_name = "TIME", value_parser = crate::time::parse)]
    pub to: Option<i64>,
    /// To this InfluxDB only, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Of this host only, by its id or present name
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

/// What `hosts` can be told.
#[derive(Debug, Args)]
pub struct Hosts {
    /// Where the server's files are.
    #[command(flatten)]
    pub overrides: Overrides,
    /// Print JSON, as the API gives it
    #[arg(long)]
    pub json: bool,
}
