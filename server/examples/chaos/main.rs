//! The proof by real processes: server, clients, InfluxDB and the network between them are killed, frozen, cut and filled
//! up at random times from a seed, and when all is well again, every sample is where it belongs, once and as it was taken.
//!
//! In the order in which data flows: `schedule` says what goes wrong when, `town` what runs; `process`, `proxy`, `disk`
//! and `torn` can hurt it, `blows` does; `book` and `record` say what was done and taken, `rest` waits, `fields`, `oracle`
//! and `compare` judge, `table` prints. `scripts/chaos.sh` builds and starts it.

mod blows;
mod book;
mod compare;
mod disk;
mod fields;
#[path = "../../tests/support/influxd.rs"]
mod influxd;
mod oracle;
mod process;
mod proxy;
mod record;
mod rest;
mod schedule;
mod table;
mod torn;
mod town;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use fastrand::Rng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use blows::{Program, Run, Victim, strike};
use book::{Book, End};
use compare::{History, compare};
use influxd::Influxd;
use record::{Record, Tail};
use rest::rest;
use schedule::{Disk, Plan, Target};
use town::{Town, Wish};

/// Time in which all must run again.
const HEAL: Duration = Duration::from_secs(90);
/// Time in which what waits with the clients must have come home.
const HOME: Duration = Duration::from_secs(120);
/// Time in which nothing must lag any more.
const REST: Duration = Duration::from_secs(300);
/// Clients may wait this long before they connect again, and the server as long before it gives a connection up.
const RECONNECT: Duration = Duration::from_secs(12);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);
/// Runs of the simulation that bring home what its spools hold, at most.
const ROUNDS: u32 = 10;
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
    /// Let the simulation spool to disk: auto where its program can.
    #[arg(long, default_value = "auto", value_parser = ["auto", "yes", "no"])]
    spool: String,
    /// Keep everything also after a success.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match whole(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The whole run in a directory of its own, which stays if it fails.
fn whole(flags: Flags) -> anyhow::Result<()> {
    let keep = flags.keep;
    let dir = tempfile::Builder::new().prefix("vitals-chaos-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        anyhow::Ok(tokio::select! {
            result = chaos(flags, dir.path()) => Some(result),
            _ = term.recv() => None,
            _ = int.recv() => None,
        })
    })?;
    // Ends what still runs, before its directory goes.
    runtime.shutdown_timeout(Duration::from_secs(5));
    let Some(result) = ended else { bail!("ended by a signal") };
    if result.is_err() || keep {
        eprintln!("logs, record and data are kept in {}", dir.keep().display());
    }
    result
}

async fn chaos(flags: Flags, dir: &Path) -> anyhow::Result<()> {
    let length = Duration::from_secs_f64(flags.minutes * 60.0);
    let plan = Plan::new(flags.seed, length, flags.clients);
    let has_spool = match &*flags.spool {
        "yes" => true,
        "no" => false,
        _ => town::can_spool(&flags.client),
    };
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

/// Everything that runs when nothing goes wrong.
struct Running {
    server: Program,
    simulate: Program,
    clients: Vec<Program>,
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
    up("the simulation", running.simulate.start().await)?;
    for client in &mut running.clients {
        up("a client", client.start().await)?;
    }
    let (mut running, taken) = storm(town, plan, length, &book, running, influxd).await?;

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
    let files: Vec<PathBuf> = (1..=taken.starts).map(|start| town.record(start)).collect();
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
    for line in &verdict.shown {
        println!("{line}");
    }
    let least = LEAST_TAKEN * length.as_secs_f64() * f64::from(town.wish.hosts);
    ensure!(panics.is_empty(), "a program panicked");
    ensure!(verdict.is_good(), "samples were lost, doubled or altered: see above (seed {})", town.wish.seed);
    ensure!(
        verdict.taken as f64 >= least,
        "only {} samples were taken: this run shows nothing",
        verdict.taken
    );
    println!("No acknowledged sample was lost, none doubled, none altered.");
    Ok(())
}

/// How the simulation was during the storm.
struct Taking {
    starts: u32,
}

/// All that goes wrong; then all is well again.
async fn storm(
    town: &Town,
    plan: Plan,
    length: Duration,
    book: &Arc<Book>,
    running: Running,
    influxd: &mut Influxd,
) -> anyhow::Result<(Running, Taking)> {
    let run = Run { start: Instant::now(), length, book: book.clone(), disks: town.disks.clone() };
    let mut rng = Rng::with_seed(town.wish.seed ^ 0x626c_6f77);
    let mut blows: std::collections::BTreeMap<_, _> = plan.blows.into_iter().collect();
    let mut steps = |target| (blows.remove(&target).unwrap_or_default(), rng.fork());
    town.proxies.iter().for_each(|proxy| proxy.begin_bad_weather());

    let mut programs = JoinSet::new();
    let clients = running.clients.into_iter().enumerate();
    let all = [(Target::Server, running.server), (Target::Simulate, running.simulate)]
        .into_iter()
        .chain(clients.map(|(number, client)| (Target::Client(number), client)));
    for (target, program) in all {
        let ((steps, rng), run) = (steps(target), run.clone());
        programs.spawn(async move { (target, strike(run, target, program, steps, rng).await) });
    }
    let mut others = JoinSet::new();
    others.spawn(blows::blow(run.clone(), plan.weather, town.proxies.clone()));
    for disk in [Disk::Server, Disk::Clients] {
        others.spawn(blows::fill(run.clone(), plan.fills.clone(), disk));
    }
    let (for_influxd, rng_of_influxd) = steps(Target::Influxd);
    let influx_run = run.clone();
    let striking = async {
        strike(influx_run, Target::Influxd, influxd, for_influxd, rng_of_influxd).await;
        let mut ended = Vec::new();
        while let Some(program) = programs.join_next().await {
            ended.push(program.context("a part of this program panicked")?);
        }
        anyhow::Ok(ended)
    };
    let healing = async {
        tokio::time::sleep_until(run.start + length).await;
        town.proxies.iter().for_each(|proxy| proxy.heal());
        sleep(HEAL).await;
    };
    tokio::pin!(striking, healing);
    let mut progress = tokio::time::interval(PROGRESS);
    progress.tick().await;
    let ended = loop {
        tokio::select! {
            ended = &mut striking => break ended?,
            () = &mut healing => {
                let troubles = book.lock().troubles.join("\n");
                bail!("not everything runs again {HEAL:?} after the last blow:\n{troubles}");
            }
            _ = progress.tick() => print_progress(&run, town),
        }
    };
    while let Some(other) = others.join_next().await {
        other.context("a part of this program panicked")?;
    }
    town.proxies.iter().for_each(|proxy| proxy.heal());
    town.disks.iter().for_each(|disk| disk.free());
    let (mut server, mut simulate, mut clients) = (None, None, Vec::new());
    for (target, program) in ended {
        match target {
            Target::Server => server = Some(program),
            Target::Simulate => simulate = Some(program),
            _ => clients.push(program),
        }
    }
    let (Some(server), Some(simulate)) = (server, simulate) else { bail!("a program got lost") };
    let starts = simulate.process.starts;
    Ok((Running { server, simulate, clients }, Taking { starts }))
}

fn print_progress(run: &Run, town: &Town) {
    use std::sync::atomic::Ordering::Relaxed;
    let entries = run.book.lock();
    let kills = entries.marks.iter().filter(|mark| mark.end == End::Killed).count();
    let cuts: u64 = town.proxies.iter().map(|proxy| proxy.counts.cuts.load(Relaxed)).sum();
    eprintln!(
        "{:>5} s  {kills} kills, {} frozen, {cuts} connections cut, disks full {} times, {} troubles",
        run.start.elapsed().as_secs(),
        entries.stops,
        entries.full.len(),
        entries.troubles.len()
    );
}

/// Lets the clients bring home what waits, and ends them.
async fn bring_home(town: &Town, running: &mut Running, book: &Book) -> anyhow::Result<()> {
    eprintln!("== all is well again; waiting for what the clients still hold");
    sleep(RECONNECT).await;
    let begun = Instant::now();
    let mut tail = Tail::default();
    let file = town.record(running.simulate.process.starts);
    let mut least = u64::MAX;
    let mut since = Instant::now();
    // With a spool what was lost at kills stays in the difference, so the end is where it falls no more.
    while begun.elapsed() < HOME {
        tail.follow(&file);
        if tail.waiting() + u64::from(town.wish.hosts) < least {
            (least, since) = (tail.waiting(), Instant::now());
        }
        if tail.waiting() <= u64::from(town.wish.hosts) || since.elapsed() > Duration::from_secs(5) {
            break;
        }
        sleep(Duration::from_millis(250)).await;
    }
    end_all(running, book).await;
    if town.wish.has_spool {
        drain(town).await?;
    }
    Ok(())
}

async fn end_all(running: &mut Running, book: &Book) {
    for program in running.clients.iter_mut().chain([&mut running.simulate]) {
        if let Err(why) = program.term().await {
            book.trouble(format!("{} at the end: {why}", program.process.spec.name));
        }
    }
}

/// Plays the simulation for a moment, again and again, until its spools are empty.
async fn drain(town: &Town) -> anyhow::Result<()> {
    let mut simulate = town.simulate(&["--seconds", "2"]);
    for round in 1..=ROUNDS {
        if let Err(why) = simulate.start().await {
            bail!("the simulation does not start to bring home what it holds: {why}");
        }
        let ended = simulate.process.wait(HOME).await;
        let text = std::fs::read_to_string(&simulate.process.spec.output).unwrap_or_default();
        let summary: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let waiting = summary["waiting"].as_u64();
        eprintln!("   round {round}: {waiting:?} samples wait with the simulation ({ended:?})");
        if waiting == Some(0) {
            return Ok(());
        }
    }
    // What still waits is found by the oracle.
    Ok(())
}
