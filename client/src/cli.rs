//! The command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use vitals_wire::line::HostTags;

use crate::config::{Config, ConfigError, Flags, Interval, Process, Server, Size};
use crate::goodbye::Announcement;
use crate::link::tls::TlsError;
use crate::sampler::Sampler;
use crate::simulate::{self, script};
use crate::trust::{self, Pin};
use crate::{logging, run, show, status, stop};

/// Something failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const WRONG_USE: u8 = 2;

/// Samples this host's vital signs and sends them to a Vitals server.
#[derive(Debug, Parser)]
#[command(
    name = "vitals-client",
    version,
    arg_required_else_help = true,
    after_help = "Examples:
  vitals-client sample               show what would be sent, and send nothing
  vitals-client run --token-file /etc/vitals/token --label env=prod
                                     join with a token of
                                     `vitals-server token create`, then sample
                                     each 5 s and send
  vitals-client run                  the same once joined
  vitals-client status               how the running client is: does it arrive?
  vitals-client check-config         show what is configured, and where
  vitals-client simulate --hosts 50 --token-file token
                                     play 50 hosts

Values come from the configuration file, then the environment (VITALS_…),
then the command line.
Exit codes: 0 done, 1 failed, 2 wrong use or wrong configuration."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sample this host and send the samples until stopped.
    #[command(after_help = "Examples:
  VITALS_TOKEN=vj1_... vitals-client run
  vitals-client run --server vitals-1.internal,vitals-2.internal:7400
  VITALS_INTERVAL=1s vitals-client run --tee sent.lp

A join token holds the servers' addresses, their key and a secret; once a server
took this host it can be taken out of the configuration. A server is known by
its key (token or --pin), else by a certificate from a CA in --ca-file, else
from one that the system trusts. HTTPS_PROXY and NO_PROXY are kept to.

SIGTERM and SIGINT bring home what waits, within --shutdown-timeout, and end
with 0; the log says what is waited for. A second one ends at once with 1:
what waits in memory is lost.")]
    Run {
        #[command(flatten)]
        flags: Box<Flags>,
        /// Append each reading to this file when it is sent, as line protocol.
        #[arg(long, value_name = "FILE")]
        tee: Option<PathBuf>,
    },
    /// Take one reading of this host, print it and exit.
    #[command(after_help = "Examples:
  vitals-client sample
  vitals-client sample --format json | jq .
  vitals-client sample --format influx")]
    Sample {
        #[command(flatten)]
        flags: Box<Flags>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        format: SampleFormat,
    },
    /// Ask the running client how it is.
    ///
    /// Its connection, its samples and what waits of them, its clock, its last error, and what it uses itself.
    #[command(after_help = "Examples:
  vitals-client status
  sudo vitals-client status
  vitals-client status --data-dir /var/lib/vitals-client
  vitals-client status --json | jq .waiting_disk
  vitals-client status >/dev/null || echo 'not connected'

The client is found by its data directory, which the same configuration file,
environment and defaults name as for the client itself. A client that runs as
another user is asked as that user, or as root.

acknowledged  durable at the server
waiting       not acknowledged yet: kept, and sent again
dropped       lost, by reason

Exit codes: 0 it runs and is connected, 1 it is not connected or does not run,
2 wrong use.")]
    Status {
        #[command(flatten)]
        place: Place,
        /// Print all as JSON, times in ms; where no client runs, that.
        #[arg(long)]
        json: bool,
    },
    /// Tell the running client why it is about to be stopped.
    ///
    /// For scripts, just before they stop it.
    #[command(after_help = "Example:
  vitals-client bye --reason upgrade && systemctl restart vitals-client

It holds for 60 s. When the client is stopped within that time it tells its
server this reason, so that nobody is alarmed; otherwise it says restart, or
shutdown or reboot where the system goes down.")]
    Bye {
        #[command(flatten)]
        place: Place,
        /// Why.
        #[arg(long, value_enum)]
        reason: Announcement,
    },
    /// Check the configuration and print what is in force; secrets are masked.
    #[command(after_help = "Example:
  vitals-client check-config --config client.toml")]
    CheckConfig {
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Play hosts that are not there over the real protocol.
    #[command(after_help = format!("Examples:
  VITALS_TOKEN=vj1_... vitals-client simulate --hosts 200 --state trust
  vitals-client simulate --hosts 200 --state trust --interval 1s --seconds 60
  vitals-client simulate --hosts 10000 --seed 7 --record taken.jsonl
  vitals-client simulate --hosts 100 --data-dir /tmp/fleet --record taken.jsonl
  vitals-client simulate --hosts 10000 --backlog 1h --seconds 120
  vitals-client simulate --script fire.jsonl

All hosts join with one token, which must have as many uses; what they learn of the servers lies in one file, --state.
The same seed plays the same hosts, ids and secrets included. The second host is busy, the third has a filling disk, the fourth a
bad connection. A record has a line of JSON for each sample taken, settled and dropped, with a hash of its content.

{}", script::HELP))]
    Simulate(Box<SimulateFlags>),
}

/// Where the running client is.
#[derive(Debug, clap::Args)]
struct Place {
    /// Its configuration file, which may name its data directory [env: VITALS_CLIENT_CONFIG] [default:
    /// /etc/vitals/client.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its data directory [env: VITALS_DATA_DIR] [default: /var/lib/vitals-client for root, else
    /// ~/.local/state/vitals-client].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    /// The data directory, and where it is named.
    fn find(self) -> anyhow::Result<(PathBuf, String)> {
        // Whoever may use the socket need not be able to read the configuration, with its secrets.
        if let Some(dir) = self.data_dir {
            return Ok((dir, "command line".to_owned()));
        }
        let flags = Flags { config: self.config, ..Flags::default() };
        let config = load(flags)?;
        let from = config.origin("data_dir").to_owned();
        Ok((config.data_dir, from))
    }
}

/// How `sample` prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SampleFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// Line protocol.
    Influx,
}

#[derive(Debug, clap::Args)]
struct SimulateFlags {
    /// How many hosts [default: 10, or none beside a script].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(simulate::MAX_HOSTS)))]
    hosts: Option<u32>,
    /// Time between two samples of a host, 1s to 1h.
    #[arg(long, value_name = "TIME", default_value_t)]
    interval: Interval,
    /// For how many seconds [default: until stopped, or until the script ends].
    #[arg(long, value_name = "T")]
    seconds: Option<u32>,
    /// Seed of ids, secrets and figures.
    #[arg(long, value_name = "X", default_value_t = 1)]
    seed: u64,
    /// Server to send to, host or host:port; again or with commas for more, tried in order [env: VITALS_SERVER]
    /// [default: those of the token, else those of the state file, else 127.0.0.1:7400].
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    server: Vec<Server>,
    /// Plain TCP: no encryption, and no check of who the server is [env: VITALS_INSECURE].
    #[arg(long)]
    insecure: bool,
    /// File with the token with which all hosts join [env: VITALS_TOKEN_FILE, or VITALS_TOKEN with the token itself].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Key that a server may have, 64 hexadecimal digits; again or with commas for more [env: VITALS_PIN] [default: those of
    /// the token].
    #[arg(long, value_name = "PIN", value_delimiter = ',')]
    pin: Vec<Pin>,
    /// File with the CAs, PEM, that a server's certificate may be from, where no pin is given [env: VITALS_CA_FILE].
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Keep what is learnt of the servers in this file, for all hosts [default: in the data directory, else none].
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// What stands before the numbers in the hosts' names.
    #[arg(long, value_name = "TEXT", default_value = "sim-")]
    name_prefix: String,
    /// Samples that wait for one host at most.
    #[arg(long, value_name = "N", default_value_t = simulate::DEFAULT_QUEUE)]
    queue: usize,
    /// Connections opened in a second at most, all hosts together.
    #[arg(long, value_name = "N", default_value_t = simulate::DEFAULT_CONNECTS_PER_SECOND)]
    connects_per_second: u32,
    /// Write what was taken, settled and dropped to this file, as JSON lines.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Keep what waits on disk: a spool for each host under this directory. A record that is there is gone on with, and
    /// with the same seed the same hosts go on at the next start.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Bytes that each host's spool may take.
    #[arg(long, value_name = "SIZE", default_value_t)]
    spool_max_size: Size,
    /// Let each numbered host have samples waiting from this long ago until now, 1s to 1h: a server back after an hour
    /// away.
    #[arg(long, value_name = "TIME", conflicts_with = "data_dir")]
    backlog: Option<Interval>,
    /// Play this script; see below.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// How much is logged.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "warn")]
    log_level: logging::Level,
    /// Form of the log's lines.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: logging::Format,
}

/// Runs the program; its exit code is 0, 1 or 2.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Status { place, json } => {
            match place.find().and_then(|(dir, from)| status(&dir, &from, json)) {
                Ok(true) => Ok(()),
                Ok(false) => return ExitCode::from(FAILED),
                Err(error) => Err(error),
            }
        }
        Command::Bye { place, reason } => {
            place.find().and_then(|(dir, from)| Ok(status::announce(&dir, &from, reason)?))
        }
        Command::Run { flags, tee } => load(*flags).and_then(|config| {
            logging::start(config.log_level, config.log_format);
            block_on(run::run(config, tee.as_deref()))
        }),
        Command::Sample { flags, format } => load(*flags).map(|config| {
            logging::start(config.log_level, config.log_format);
            sample(&config, format);
        }),
        Command::CheckConfig { flags } => load(*flags).and_then(|config| {
            // Whoever may not read it sees what is configured all the same.
            let kept = trust::Kept::read(&trust::path(&config.data_dir)).unwrap_or_default();
            config.need_token(kept.host.is_some())?;
            print(&config.describe(&kept));
            Ok(())
        }),
        Command::Simulate(flags) => {
            logging::start(flags.log_level, flags.log_format);
            options(&flags).and_then(|options| block_on(play(options, flags.json)))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vitals-client: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() || error.is::<TlsError>() || error.is::<WrongUse>() {
                WRONG_USE
            } else {
                FAILED
            })
        }
    }
}

/// Wrong use that clap cannot see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

fn load(flags: Flags) -> anyhow::Result<Config> {
    Ok(Config::load(flags, &Process)?)
}

/// One thread serves all: there is little to do, and each thread costs memory.
fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Names are looked up there.
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()?;
    let result = runtime.block_on(future);
    // Whatever still blocks there, such as looking up a name, is not waited for.
    runtime.shutdown_background();
    result
}

fn print(text: &str) {
    // Who closed the pipe has read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints how the client on `dir` is; gives whether it is connected.
fn status(dir: &Path, from: &str, json: bool) -> anyhow::Result<bool> {
    let status = match status::ask(dir, from) {
        Ok(status) => status,
        Err(error) => {
            if json && matches!(error, status::AskError::NotRunning { .. }) {
                print(&format!("{}\n", serde_json::json!({ "running": false, "data_dir": dir })));
            }
            return Err(error.into());
        }
    };
    if json {
        print(&format!("{}\n", serde_json::to_string(&status)?));
    } else {
        print(&status::table(&status));
    }
    Ok(status.connected)
}

fn sample(config: &Config, format: SampleFormat) {
    let name = config.hostname.as_str();
    let sample = Sampler::new(&config.collect).first();
    print(&match format {
        SampleFormat::Table => show::table(&sample),
        SampleFormat::Json => show::json(&sample, name, config.labels.iter()),
        SampleFormat::Influx => show::influx(&sample, &HostTags::new(name, config.labels.iter())),
    });
}

fn options(flags: &SimulateFlags) -> anyhow::Result<simulate::Options> {
    // The rules for these are those of the real client.
    let around = Process;
    let of_client = Flags {
        config: Some("/dev/null".into()),
        server: flags.server.clone(),
        insecure: flags.insecure,
        token_file: flags.token_file.clone(),
        pin: flags.pin.clone(),
        ca_file: flags.ca_file.clone(),
        data_dir: Some(PathBuf::new()),
        ..Flags::default()
    };
    let config = Config::load(of_client, &around)?;
    // Of many hosts some are always new.
    config.need_token(false)?;
    let script = match &flags.script {
        Some(path) => Some(script::read(path).map_err(WrongUse)?),
        None => None,
    };
    Ok(simulate::Options {
        hosts: flags.hosts.unwrap_or(if script.is_some() { 0 } else { 10 }),
        interval: flags.interval,
        duration: flags.seconds.map(|seconds| Duration::from_secs(seconds.into())),
        seed: flags.seed,
        servers: config.servers,
        insecure: config.insecure,
        token: config.token,
        pins: config.pins,
        ca_file: config.ca_file,
        way_out: config.way_out,
        state: flags.state.clone(),
        name_prefix: flags.name_prefix.clone(),
        queue: flags.queue,
        connects_per_second: flags.connects_per_second,
        record: flags.record.clone(),
        data_dir: flags.data_dir.clone(),
        spool_max_bytes: flags.spool_max_size.bytes(),
        backlog: flags.backlog.map(Interval::duration),
        script,
        progress: true,
    })
}

async fn play(options: simulate::Options, json: bool) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop::cancel_on_signals(shutdown.clone())?;
    let summary = simulate::run(options, shutdown).await?;
    if json {
        print(&format!("{}\n", serde_json::to_string(&summary)?));
    } else {
        print(&summary.to_string());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_written_below_the_help_fits_a_terminal() {
        let mut command = Cli::command();
        let texts = command.get_subcommands_mut().map(|sub| sub.render_long_help().to_string());
        let of_status = texts.filter(|text| text.contains("Exit codes")).collect::<Vec<_>>();
        assert!(!of_status.is_empty());
        for text in of_status.into_iter().chain([Cli::command().render_long_help().to_string()]) {
            let (_, below) = text.split_once("\nExamples:").unwrap();
            assert!(below.lines().all(|line| line.chars().count() <= 80), "{below}");
        }
    }

    #[test]
    fn the_help_of_each_command_teaches_by_example() {
        let mut command = Cli::command();
        for sub in command.get_subcommands_mut() {
            let help = sub.render_long_help().to_string();
            assert!(
                help.contains("Example") && help.contains(&format!("vitals-client {}", sub.get_name())),
                "{help}"
            );
        }
    }
}
