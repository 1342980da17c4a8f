//! Client and server in a world that follows from a seed: a virtual clock and network, disks in memory, an InfluxDB in
//! memory, and everything that can go wrong with them, at random times.
//!
//! What runs is the real code: the client's clock, protocol, queue and spool; the codec; the server's session, journal,
//! history's engine, and of InfluxDB's part source, delivery and the list of what is owed. Sockets, disks, clocks, threads
//! and history's file are stood in for, and so are the thin tasks that drive all this.
//!
//! - `plan`: what goes wrong and when, made of `fault`s. `world` plays it until all is at rest, `verdict` judges.
//! - `net`, `influxdb`: the network and the database. `samples`: what is sent.
//! - `host` is a machine with a `client` on it; `server` is one with a `process`, which drives `session`s, `history` and
//!   `target`.
//! - `oracle`: what became of each sample. `ctx`: what all share.
//!
//! What it does not do: bytes that were synced and are lost or altered all the same, reads that fail, TLS, a second
//! server for a client, a second InfluxDB for a server.
//!
//! `VITALS_SIM_SCHEDULES` says how many schedules are played, 1,000 where it does not; `VITALS_SIM_SEED` is the seed of the
//! first, and each further one has the next. A schedule that fails names its seed, which plays it again exactly:
//! `VITALS_SIM_SCHEDULES=1 VITALS_SIM_SEED=… VITALS_SIM_TRACE=1`. With a trace each event is shown when it happens.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod ctx;
mod fault;
mod history;
mod host;
mod influxdb;
mod net;
mod oracle;
mod plan;
mod process;
mod samples;
mod server;
mod session;
mod target;
mod verdict;
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use world::{Summary, play};

/// Schedules that are played where nobody says how many.
const SCHEDULES: u64 = 1_000;
/// Lines of a failing schedule's trace that are shown.
const SHOWN: usize = 60;
/// Failures after which no more schedules are begun.
const MAX_FAILURES: usize = 3;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Err(_) => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
    }
}

/// Plays a schedule, and takes a panic for a failure.
fn attempt(seed: u64, traced: bool) -> (Result<Summary, String>, Vec<String>) {
    catch_unwind(AssertUnwindSafe(|| play(seed, traced))).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        (Err(format!("panic: {}", said.unwrap_or_default())), Vec::new())
    })
}

#[test]
fn whatever_dies_on_the_way_every_sample_arrives_once_or_is_accounted_for() {
    let first = number("VITALS_SIM_SEED", 1);
    let count = number("VITALS_SIM_SCHEDULES", SCHEDULES);
    let traced = std::env::var_os("VITALS_SIM_TRACE").is_some();
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let played = AtomicU64::new(0);
    let total = Mutex::new(Summary::default());
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || failures.lock().unwrap().len() >= MAX_FAILURES {
                        return;
                    }
                    let seed = first.wrapping_add(index);
                    let (outcome, _) = attempt(seed, traced);
                    played.fetch_add(1, Ordering::Relaxed);
                    match outcome {
                        Ok(summary) => total.lock().unwrap().add(&summary),
                        Err(what) => failures.lock().unwrap().push((seed, what)),
                    }
                }
            });
        }
    });
    let (played, total) = (played.into_inner(), total.into_inner().unwrap());
    let mut failures = failures.into_inner().unwrap();
    // Not `println`, which the test's harness keeps to itself.
    let _ = writeln!(
        std::io::stdout(),
        "simulation: {played} schedules from seed {first} in {:.1} s, {} failed; {total}",
        begun.elapsed().as_secs_f64(),
        failures.len()
    );
    failures.sort();
    for (seed, what) in &failures {
        println!("simulation: seed {seed} failed {what}");
    }
    if let Some((seed, what)) = failures.first() {
        let (_, trace) = attempt(*seed, true);
        let shown = &trace[trace.len().saturating_sub(SHOWN)..];
        panic!(
            "seed {seed} failed {what}\nthe end of its trace:\n{}\nreplay: VITALS_SIM_SEED={seed} VITALS_SIM_SCHEDULES=1 \
             VITALS_SIM_TRACE=1 cargo test -p vitals-server --test simulation -- --nocapture whatever",
            shown.join("\n")
        );
    }
}

#[test]
fn the_same_seed_plays_the_same_schedule_to_the_last_byte() {
    for seed in 100_000..100_012 {
        let (_, first) = attempt(seed, true);
        let (_, second) = attempt(seed, true);
        assert!(first == second, "seed {seed} differs from itself");
    }
}

impl Summary {
    fn add(&mut self, other: &Summary) {
        let (sum, more) = (&mut self.figures, &other.figures);
        sum.taken += more.taken;
        sum.stored += more.stored;
        sum.dropped += more.dropped;
        sum.lost += more.lost;
        self.kills += other.kills;
        self.gave_up += other.gave_up;
        self.lost_without_disk += other.lost_without_disk;
        self.influx_requests += other.influx_requests;
        self.took_ms += other.took_ms;
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { figures, kills, gave_up, lost_without_disk, influx_requests, took_ms } = self;
        write!(
            f,
            "{} samples taken, {} stored, {} dropped and counted, {} lost at {kills} ends of clients ({lost_without_disk} \
             of them without a disk to write to); {influx_requests} requests to InfluxDB, {gave_up} stretches owed to it; \
             {} virtual hours",
            figures.taken,
            figures.stored,
            figures.dropped,
            figures.lost,
            took_ms / 3_600_000
        )
    }
}
