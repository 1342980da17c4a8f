//! Lets the clients bring home what they hold when all is well again.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::blows::Victim;
use super::book::Book;
use super::record::Tail;
use super::storm::Running;
use super::town::Town;

/// Time in which what waits with the clients must have come home.
const HOME: Duration = Duration::from_secs(120);
/// Clients may wait this long before they connect again, and the server as long before it gives a connection up.
const RECONNECT: Duration = Duration::from_secs(12);
/// Runs of the simulation that bring home what its spools hold, at most.
const ROUNDS: u32 = 10;

/// Lets the clients bring home what waits, and ends them.
pub async fn bring_home(town: &Town, running: &mut Running, book: &Book) -> anyhow::Result<()> {
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
