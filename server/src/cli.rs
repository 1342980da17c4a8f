//! The command line.

use clap::{Args, Parser, Subcommand};

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
  vitals-server hosts                                   all hosts and whether they are there

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
