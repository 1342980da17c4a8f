//! `vitals-server`: parses, builds, waits, drains.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vitals_server::app::{self, Listeners};
use vitals_server::backfill::{self, Wanted};
use vitals_server::cli::{Backfill, Cli, Command};
use vitals_server::config::{Config, ConfigError};
use vitals_server::{clock, commands, hosts_command, logging, targets_command};

fn main() -> ExitCode {
    // Whatever is made, by SQLite too, is its owner's alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    no_core_dumps();
    let done = match Cli::parse().command {
        Command::Run(overrides) => Config::load(&overrides).map_err(Into::into).and_then(run),
        Command::CheckConfig(overrides) => Config::load(&overrides).map_err(Into::into).map(|config| {
            print!("{}", config.to_toml());
        }),
        Command::Hosts(hosts) => Config::load(&hosts.files.into())
            .map_err(Into::into)
            .and_then(|config| hosts_command::run(&config, hosts.json)),
        Command::Host(args) => commands::host::run(args),
        Command::Token(args) => commands::token::run(args),
        Command::User(args) => commands::user::run(args),
        Command::ApiToken(args) => commands::api_token::run(args),
        Command::Cert(args) => commands::cert::run(args),
        Command::Targets(targets) => Config::load(&targets.files.into())
            .map_err(Into::into)
            .and_then(|config| targets_command::targets(&config, targets.json)),
        Command::Quarantine(asked) => Config::load(&asked.files.clone().into())
            .map_err(Into::into)
            .and_then(|config| targets_command::quarantine(&config, asked.target, asked.limit, asked.json)),
        Command::Backfill(asked) => {
            Config::load(&asked.files.clone().into()).map_err(Into::into).and_then(|config| {
                let to_ms = asked.to.unwrap_or_else(clock::now_ms);
                let Backfill { from: from_ms, target, host, .. } = asked;
                backfill::run(&config, Wanted { from_ms, to_ms, target, host })
            })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vitals-server: {error:#}");
            // What only a person can mend is wrong use: a service manager need not try again.
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    logging::start(&config.log);
    raise_open_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let outcome = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let listeners = Listeners::bind(&config).await?;
        tokio::spawn(stop_on_signals(shutdown.clone()));
        app::run(config, listeners, shutdown).await
    });
    // Readings of history that are still under way are nobody's business any more.
    runtime.shutdown_background();
    if let Err(error) = &outcome {
        error!(error = format!("{error:#}"), "vitals-server cannot go on");
    }
    outcome
}

/// The first signal drains, the second ends at once.
async fn stop_on_signals(shutdown: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        warn!("cannot listen for signals");
        return;
    };
    for second in [false, true] {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if second {
            warn!(signal = name, "told to stop again: ends at once; what is not done is in the journal");
            std::process::exit(1);
        }
        info!(signal = name, "told to stop");
        shutdown.cancel();
    }
}

/// Each client is an open file: takes as many as the system lets this process have.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        warn!(%error, "cannot raise the limit of open files");
    }
}

/// A crash leaves no memory on disk: secrets stand in it. On Linux one byte, and not none: a file is not begun for so
/// little, and where cores go to a program it is the limit at which the kernel sends nothing (`core(5)`, `do_coredump`).
/// What may be looked at of the running process stays so, since that is how its memory is measured.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let most = Some(if cfg!(target_os = "linux") { 1 } else { 0 });
    // Where even this is refused, there is nothing else to do: the log is not there yet.
    let _ = setrlimit(Resource::Core, Rlimit { current: most, maximum: most });
}
