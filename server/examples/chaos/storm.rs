//! The time in which things go wrong, and how all is well again afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, bail};
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::blows::{Program, Run, blow, fill, strike};
use super::book::{Book, End};
use super::influxd::Influxd;
use super::schedule::{Disk, Plan, Target};
use super::town::Town;

/// Time in which all must run again.
const HEAL: Duration = Duration::from_secs(90);
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Everything that runs when nothing goes wrong.
pub struct Running {
    /// The server.
    pub server: Program,
    /// The simulation.
    pub simulate: Program,
    /// The real clients.
    pub clients: Vec<Program>,
}

/// All that goes wrong; then all is well again.
pub async fn storm(
    town: &Town,
    plan: Plan,
    length: Duration,
    book: &Arc<Book>,
    running: Running,
    influxd: &mut Influxd,
) -> anyhow::Result<Running> {
    let run = Run { start: Instant::now(), length, book: book.clone(), disks: town.disks.clone() };
    let mut rng = Rng::with_seed(town.wish.seed ^ 0x626c_6f77);
    let mut blows: BTreeMap<_, _> = plan.blows.into_iter().collect();
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
    others.spawn(blow(run.clone(), plan.weather, town.proxies.clone()));
    for disk in [Disk::Server, Disk::Clients] {
        others.spawn(fill(run.clone(), plan.fills.clone(), disk));
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
        sleep_until(run.start + length).await;
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
    Ok(Running { server, simulate, clients })
}

fn print_progress(run: &Run, town: &Town) {
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
