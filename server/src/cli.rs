//! The command line.

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::config::{Files, Overrides};

/// Vitals' server: takes readings from a fleet of machines, shows them, keeps them, and feeds InfluxDB.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  vitals-server run                            clients on 127.0.0.1:7400, API on 127.0.0.1:7480
  vitals-server run --config /etc/vitals/server.toml
  VITALS_INFLUX_TOKEN=… vitals-server run --influx-url http://127.0.0.1:8086
  vitals-server check-config                   what is in force, secrets masked
  vitals-server token create                   a token with which a host joins
  vitals-server hosts                          all hosts and whether they are there
  vitals-server host rename web-1 shop         call a host by another name
  vitals-server user passwd admin --generate   a new password for who is locked out
  vitals-server api-token create --name grafana
                                               a token with which a program reads the API
  vitals-server targets                        how each InfluxDB is, and what to do about it
  vitals-server backfill --from 2026-01-31T12:00:00Z
                                               write history from then on to InfluxDB again

Nothing has to be configured. A file, VITALS_… variables and flags are laid over each other in
that order; an empty variable counts as not set. Commands beside `run` ask the server that runs on
the data directory, or use its files where none runs.
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
    pub files: Files,
    /// Print JSON, as the API gives it
    #[arg(long)]
    pub json: bool,
}

/// What `quarantine` can be told.
#[derive(Debug, Args)]
pub struct Quarantine {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
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
    pub files: Files,
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
    pub files: Files,
    /// Print JSON, as the API gives it
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn each_leaf(command: &clap::Command, each: &mut impl FnMut(&clap::Command)) {
        if !command.has_subcommands() {
            each(command);
        }
        command.get_subcommands().for_each(|below| each_leaf(below, each));
    }

    #[test]
    fn only_those_who_run_or_check_a_server_are_told_what_it_is_to_do() {
        let mut seen = 0;
        for command in Cli::command().get_subcommands() {
            let is_server = ["run", "check-config"].contains(&command.get_name());
            each_leaf(command, &mut |leaf| {
                let has = |id: &str| leaf.get_arguments().any(|argument| argument.get_id() == id);
                assert_eq!(has("listen"), is_server, "{}", leaf.get_name());
                assert!(has("config") && has("data_dir"), "{}", leaf.get_name());
                seen += 1;
            });
        }
        assert!(seen > 15, "{seen}");
    }

    #[test]
    fn examples_fit_a_terminal() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines() {
                assert!(line.chars().count() <= 98, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
