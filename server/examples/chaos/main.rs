//! The proof by real processes: server, clients, InfluxDB and the network between them are killed, frozen, cut and filled
//! up at random times from a seed, and when all is well again, every sample is where it belongs, once and as it was taken.
//!
//! In the order in which data flows: `schedule` says what goes wrong when, `town` what runs; `process`, `proxy`, `disk`
//! and `torn` can hurt it, `blows` does, in the time of `storm`; `home` lets the clients bring home what they hold and
//! `rest` waits; `book` and `record` say what was done and taken; `fields`, `oracle` and `compare` judge, `table` prints.
//! All of it happens on a `stage`, which is cleared when it is over.
//! `scripts/chaos.sh` builds and starts it.

mod blows;
mod book;
mod compare;
mod disk;
mod fields;
mod home;
#[path = "../../tests/support/influxd.rs"]
mod influxd;
mod oracle;
mod process;
mod proxy;
mod record;
mod rest;
mod schedule;
mod stage;
mod storm;
mod table;
mod torn;
mod town;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Parser;
use tokio::time::Instant;

use blows::Victim;
use book::Book;
use compare::{History, compare};
use home::bring_home;
use influxd::Influxd;
use record::Record;
use rest::rest;
use schedule::Plan;
use storm::{Running, storm};
use town::{Town, Wish};

/// Time in which nothing must lag any more.
const REST: Duration = Duration::from_secs(300);
/// Of the samples that there could be, the share that must have been taken: the simulation is away at times.
const LEAST_TAKEN: f64 = 0.3;

/// Kills, freezes, cuts and fills up everything, and sees that no sample is lost, doubled or altered.
#[derive(Debug, Parser)]
struct Flags {
    /// For how long things go wrong.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// Of all that is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated hosts, each with a sample a second.
    #[arg(long, default_value_t = 200)]
    hosts: u32,
    /// Real clients of this machine.
    #[arg(long, default_value_t = 3)]
    clients: usize,
    /// The server's program.
    #[arg(long)]
    server: PathBuf,
    /// The client's program.
    #[arg(long)]
    client: PathBuf,
    /// Simulated hosts keep nothing on disk: what waits when they end is lost, and counted so.
    #[arg(long)]
    no_spool: bool,
    /// Keep everything also after a success.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    stage::run("vitals-chaos-", flags.keep, |dir| async move { chaos(flags, &dir).await })
}

async fn chaos(flags: Flags, dir: &Path) -> anyhow::Result<()> {
    let length = Duration::from_secs_f64(flags.minutes * 60.0);
    let plan = Plan::new(flags.seed, length, flags.clients);
    let has_spool = !flags.no_spool;
    let wish = Wish {
        seed: flags.seed,
        hosts: flags.hosts,
        clients: flags.clients,
        server: flags.server,
        client: flags.client,
        has_spool,
    };
    let mut influxd = Influxd::start().await;
    let town = Town::build(wish, dir.to_owned(), &influxd).await?;
    if !town.disks[0].is_mounted() {
        eprintln!("full disks are left out: no small file system can be mounted here; root can");
    }
    if !has_spool {
        eprintln!("the simulation keeps no spool: what waits when it ends is lost, and counted so");
    }
    eprintln!(
        "seed {}: {:.0} s with {} kills of {} hosts in {}",
        town.wish.seed,
        length.as_secs_f64(),
        plan.kills(),
        town.wish.hosts,
        town.dir.display()
    );
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let result = run(&town, plan, length, &mut influxd, &http).await;
    if result.is_err() {
        keep_disks(&town);
    }
    result
}

/// What lies in memory goes with the mount.
fn keep_disks(town: &Town) {
    for (disk, name) in town.disks.iter().zip(["kept-server", "kept-clients"]) {
        disk.free();
        let _ = std::process::Command::new("cp").arg("-a").arg(disk.path()).arg(town.dir.join(name)).status();
    }
}

async fn run(
    town: &Town,
    plan: Plan,
    length: Duration,
    influxd: &mut Influxd,
    http: &reqwest::Client,
) -> anyhow::Result<()> {
    let book = Arc::new(Book::default());
    let mut running = Running {
        server: town.server(influxd),
        simulate: town.simulate(&[]),
        clients: (0..town.wish.clients).map(|number| town.client(number)).collect(),
    };
    let up = |program: &str, started: Result<(), String>| {
        started.map_err(|why| anyhow::anyhow!("{program} does not start: {why}"))
    };
    up("the server", running.server.start().await)?;
    town.make_token()?;
    up("the simulation", running.simulate.start().await)?;
    for client in &mut running.clients {
        up("a client", client.start().await)?;
    }
    let mut running = storm(town, plan, length, &book, running, influxd).await?;

    let healed = Instant::now();
    bring_home(town, &mut running, &book).await?;
    let scrape = match rest(http, town.http, REST).await {
        Ok(scrape) => scrape,
        Err(why) => {
            for line in &book.lock().troubles {
                eprintln!("trouble: {line}");
            }
            bail!("not at rest after {REST:?}: {why}");
        }
    };
    let resting = healed.elapsed();
    if let Err(why) = running.server.term().await {
        book.trouble(format!("server at the end: {why}"));
    }
    let entries = book.lock().clone();
    eprintln!("== at rest after {:.1} s; comparing", resting.as_secs_f64());
    let comparing = Instant::now();
    let (data, copy) = (town.server_data(), town.dir.join("opened"));
    let history = tokio::task::spawn_blocking(move || History::open(&data, &copy)).await??;
    let files: Vec<PathBuf> = (1..=running.simulate.process.starts).map(|start| town.record(start)).collect();
    let files = if town.wish.has_spool { vec![town.record(1)] } else { files };
    let record = Record::read(&files)?;
    let mut verdict = compare(town, &record, &entries, history, influxd, http).await?;
    eprintln!("   compared in {:.1} s", comparing.elapsed().as_secs_f64());
    verdict.altered += record.faults.len() as u64;
    verdict.shown.extend(record.faults.iter().take(10).cloned());
    table::print(town, &record, &entries, &verdict, &scrape, (length, resting));
    for line in &entries.troubles {
        println!("trouble: {line}");
    }
    let panics = table::panics(&town.dir.join("logs"));
    for line in panics.iter().take(10) {
        println!("panic: {line}");
    }
    let made_anew = table::made_anew(&town.dir.join("logs"));
    for line in made_anew.iter().chain(&verdict.shown) {
        println!("{line}");
    }
    let least = LEAST_TAKEN * length.as_secs_f64() * f64::from(town.wish.hosts);
    ensure!(panics.is_empty(), "a program panicked");
    ensure!(made_anew.is_empty(), "a key or an identity was lost: see above");
    ensure!(verdict.is_good(), "samples were lost, doubled or altered: see above (seed {})", town.wish.seed);
    ensure!(
        verdict.taken as f64 >= least,
        "only {} samples were taken: this run shows nothing",
        verdict.taken
    );
    println!("No acknowledged sample was lost, none doubled, none altered.");
    Ok(())
}
