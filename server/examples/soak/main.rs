//! A steady load without faults: neither memory nor open files, threads or what waits on disk may grow.
//!
//! `figures` looks at the processes and judges; `scripts/soak.sh` builds and starts it.

mod figures;
#[path = "../../tests/support/influxd.rs"]
mod influxd;
#[path = "../chaos/process.rs"]
#[allow(dead_code, reason = "chaos uses all of it")]
mod process;
#[path = "../chaos/stage.rs"]
mod stage;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use clap::Parser;
use tokio::time::{Instant, MissedTickBehavior, interval};

use figures::{Figures, Unit, Watched};
use influxd::{BUCKET, Influxd, ORG};
use process::{Process, Spec, free_port, join_token};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two lines of progress.
const PROGRESS: u64 = 30;
/// How long a start may take.
const START: Duration = Duration::from_secs(60);
/// How long an end may take.
const STOP: Duration = Duration::from_secs(40);
/// The store seals what it holds in memory after 5 minutes: below three times that the first third is not all of the
/// filling.
const TELLING: Duration = Duration::from_secs(15 * 60);
/// The store merges an hour within an hour: two merges of everything are in the first third from this length on.
const MERGED: Duration = Duration::from_secs(6 * 3600);

/// Plays hosts at a steady rate, and sees that server and clients do not grow.
#[derive(Debug, Parser)]
struct Flags {
    /// For how long.
    #[arg(long)]
    minutes: f64,
    /// Simulated hosts, each with a sample a second.
    #[arg(long, default_value_t = 200)]
    hosts: u32,
    /// Of their figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The server's program.
    #[arg(long)]
    server: PathBuf,
    /// The client's program.
    #[arg(long)]
    client: PathBuf,
    /// Without an InfluxDB.
    #[arg(long)]
    no_influx: bool,
    /// Keep everything also after a success.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    stage::run("vitals-soak-", flags.keep, |dir| async move { soak(flags, &dir).await })
}

fn program(dir: &Path, name: &str, program: &Path, arguments: Vec<String>) -> Process {
    Process::new(Spec {
        name: name.to_owned(),
        program: program.to_owned(),
        arguments: Box::new(move |_| arguments.clone()),
        environment: vec![("VITALS_TOKEN_FILE".to_owned(), token_file(dir).display().to_string())],
        log: dir.join(format!("{name}.log")),
        output: dir.join(format!("{name}.out")),
        ready: "",
    })
}

/// What all hosts join with.
fn token_file(dir: &Path) -> PathBuf {
    dir.join("join-token")
}

/// Server, simulation and a real client, in the order in which they are started.
fn programs(flags: &Flags, dir: &Path, influxd: Option<&Influxd>) -> [(Process, PathBuf); 3] {
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    let (listen, http) = (loopback(free_port()), loopback(free_port()));
    let data = |name: &str| dir.join(name).display().to_string();
    let strings = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
    let arguments =
        strings(&["run", "--listen", &listen, "--http-listen", &http, "--data-dir", &data("server")]);
    let mut server = program(dir, "server", &flags.server, arguments);
    server.spec.ready = "vitals-server runs";
    if let Some(influxd) = influxd {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        server.spec.environment = vec![
            set("VITALS_INFLUX_URL", &influxd.url()),
            set("VITALS_INFLUX_ORG", ORG),
            set("VITALS_INFLUX_BUCKET", BUCKET),
            set("VITALS_INFLUX_TOKEN", influxd.token().reveal()),
        ];
    }
    let (hosts, seed) = (flags.hosts.to_string(), flags.seed.to_string());
    let mut arguments = strings(&["simulate", "--hosts", &hosts, "--interval", "1s", "--seed", &seed]);
    arguments.extend(strings(&["--server", &listen, "--json"]));
    let help = std::process::Command::new(&flags.client).args(["simulate", "--help"]).output();
    if help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--data-dir")) {
        arguments.extend(strings(&["--data-dir", &data("simulate")]));
    }
    let simulate = program(dir, "simulate", &flags.client, arguments);
    let arguments = strings(&["run", "--server", &listen, "--data-dir", &data("client"), "--interval", "1s"]);
    let client = program(dir, "client", &flags.client, arguments);
    [(server, dir.join("server/journal")), (simulate, dir.join("simulate")), (client, dir.join("client"))]
}

async fn soak(flags: Flags, dir: &Path) -> anyhow::Result<()> {
    let length = Duration::from_secs_f64(flags.minutes * 60.0);
    let influxd = match flags.no_influx {
        true => None,
        false => Some(Influxd::start().await),
    };
    let mut programs = programs(&flags, dir, influxd.as_ref());
    let mut watched = Vec::new();
    for ((process, waiting), name) in programs.iter_mut().zip(["server", "simulate", "client"]) {
        process.start(START).await.map_err(|why| anyhow!("{name} does not start: {why}"))?;
        let pid = process.pid().ok_or_else(|| anyhow!("{name} has no id"))?;
        if name == "server" {
            // Its address is the first of the arguments after --listen; the token has to name one.
            let address =
                (process.spec.arguments)(1).into_iter().skip_while(|word| word != "--listen").nth(1);
            let token = join_token(&flags.server, &dir.join("server"), &address.unwrap_or_default())?;
            std::fs::write(token_file(dir), token)?;
        }
        watched.push(Watched { name, pid, waiting: waiting.clone() });
    }
    eprintln!("{} hosts for {:.0} s in {}", flags.hosts, length.as_secs_f64(), dir.display());
    let begun = Instant::now();
    let mut figures = Figures::default();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    while begun.elapsed() < length {
        looks.tick().await;
        figures.look(&watched);
        for (process, _) in &mut programs {
            if let Some(status) = process.has_ended() {
                bail!("{} ended by itself with {status}", process.spec.name);
            }
        }
        number += 1;
        if number % PROGRESS == 0 {
            print_progress(&figures, begun);
        }
    }
    std::fs::write(dir.join("figures.csv"), figures.csv())?;
    for (process, _) in programs.iter_mut().rev() {
        ensure!(process.stop(STOP).await.is_some(), "{} did not end", process.spec.name);
    }
    judge(&figures, length)?;
    for (process, _) in &programs {
        let log = std::fs::read_to_string(&process.spec.log)?;
        ensure!(
            !log.contains("panicked"),
            "{} panicked: see {}",
            process.spec.name,
            process.spec.log.display()
        );
    }
    println!("Nothing grows.");
    Ok(())
}

fn print_progress(figures: &Figures, begun: Instant) {
    let rss = figures.0.iter().filter(|figure| figure.name == "RSS");
    let words: Vec<String> = rss
        .map(|figure| {
            let newest = figure.values.last().copied().unwrap_or_default();
            format!("{} {:.1} MiB", figure.process, newest / f64::from(1 << 20))
        })
        .collect();
    eprintln!("{:>5} s  RSS: {}", begun.elapsed().as_secs(), words.join(", "));
}

fn judge(figures: &Figures, length: Duration) -> anyhow::Result<()> {
    println!("\n{:<9} {:<16} {:>10} {:>10} {:>10}", "process", "figure", "middle", "last", "at most");
    let mut grown = 0;
    for figure in &figures.0 {
        let Some(thirds) = figure.thirds() else { bail!("the run was too short for any figure") };
        let say = |value: f64| match figure.unit {
            Unit::Bytes => format!("{:.2} MiB", value / f64::from(1 << 20)),
            Unit::Count => format!("{value:.0}"),
        };
        let word = if thirds.is_good() { "ok" } else { "GROWS" };
        grown += u32::from(!thirds.is_good());
        println!(
            "{:<9} {:<16} {:>10} {:>10} {:>10}  {word}",
            figure.process,
            figure.name,
            say(thirds.middle),
            say(thirds.last),
            say(thirds.limit)
        );
    }
    println!(
        "\nmedians of the middle and the last third; the first, {:.0} s, is warm-up",
        length.as_secs_f64() / 3.0
    );
    if length < TELLING {
        println!(
            "this run is shorter than 15 minutes: the store's memory is still filling, which looks like growth"
        );
    } else if length < MERGED {
        println!(
            "the store merges once an hour: only from 6 hours on do two merges of all hosts lie in the warm-up"
        );
    }
    ensure!(grown == 0, "{grown} figures grow");
    Ok(())
}
