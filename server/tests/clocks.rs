//! Hosts whose clocks are wrong for a while: every sample can be read once, or was given up for a reason that was told,
//! and the host is well again as soon as its clock is. A real server, and the client's own link, clock and spool; only the
//! wall clock is played.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::peer::{hello, joining, now_ms, sample};
use support::server::{Server, token_for, wait_for};
use tokio_util::sync::CancellationToken;
use vitals_client::clock::{SampleClock, Stamp};
use vitals_client::link::connector::Connector;
use vitals_client::link::driver::{Link, Observer, Source};
use vitals_client::link::event::{Event, Waiting};
use vitals_client::link::protocol::{Protocol, Settings};
use vitals_client::link::tls::{Pins, Tls};
use vitals_client::queue::Caps;
use vitals_client::spool::Spool;
use vitals_client::trust::{Basis, Pin};
use vitals_wire::sample::Sample;
use vitals_wire::token::JoinToken;

const INTERVAL: Duration = Duration::from_millis(200);
const HOUR_MS: i64 = 3_600_000;
/// 2038-01-19T03:14:08Z.
const IN_2038_MS: i64 = 2_147_483_648_000;

/// A wall clock that a test sets, as far from the real one as it likes.
#[derive(Debug, Clone, Default)]
struct Wall(Arc<Mutex<i64>>);

impl Wall {
    fn set(&self, ahead_ms: i64) {
        *self.0.lock().unwrap() = ahead_ms;
    }

    fn ms(&self) -> i64 {
        now_ms() + *self.0.lock().unwrap()
    }
}

/// Samples with the client's own timestamps.
struct Clocked {
    wall: Wall,
    clock: SampleClock,
    started: Instant,
    next: Instant,
    number: u64,
    shutdown: CancellationToken,
}

impl Source for Clocked {
    async fn next(&mut self) -> Option<Sample> {
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.next.into()) => {}
            }
            match self.clock.stamp(self.wall.ms(), self.started.elapsed().as_millis() as i64) {
                Stamp::Wait(wait) => self.next = Instant::now() + wait,
                Stamp::Take(time_ms) => {
                    self.next = Instant::now() + INTERVAL;
                    self.number += 1;
                    return Some(sample(time_ms, self.number));
                }
            }
        }
    }

    fn wall_ms(&self) -> i64 {
        self.wall.ms()
    }
}

#[derive(Debug, Default)]
struct Account {
    taken: BTreeSet<i64>,
    settled: BTreeSet<i64>,
    dropped: BTreeMap<i64, String>,
    waiting: Waiting,
}

#[derive(Debug, Clone, Default)]
struct Accountant(Arc<Mutex<Account>>);

impl Observer for Accountant {
    fn event(&mut self, event: Event) {
        let mut account = self.0.lock().unwrap();
        match event {
            Event::Taken { time_ms, .. } => {
                assert!(account.taken.insert(time_ms), "{time_ms} was used before")
            }
            Event::Settled { time_ms, .. } => assert!(account.settled.insert(time_ms), "{time_ms} twice"),
            Event::Dropped { time_ms, loss, .. } => {
                assert_eq!(account.dropped.insert(time_ms, loss.to_string()), None, "{time_ms} twice");
            }
            Event::Waiting(waiting) => account.waiting = waiting,
            _ => {}
        }
    }
}

/// TLS that lets through the server at this address alone, by the pins of its token.
fn trusting(server: SocketAddr) -> Tls {
    let token: JoinToken = token_for(server).unwrap().parse().unwrap();
    let pins = Pins::new(token.pins.into_iter().map(Pin).collect());
    Tls::new(Basis::Pins, Arc::new(pins), None).unwrap()
}

/// A client in this process.
struct Host {
    name: &'static str,
    wall: Wall,
    account: Accountant,
    shutdown: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl Host {
    fn start(number: u8, name: &'static str, server: SocketAddr, dir: &Path, wall: Wall) -> Self {
        let (account, shutdown) = (Accountant::default(), CancellationToken::new());
        let settings = Settings { servers: 1, interval: INTERVAL, caps: Caps::CLIENT, seed: number.into() };
        let now = Instant::now();
        let link = Link {
            protocol: Protocol::new(settings, joining(server, hello(number, name)), now).with_spool(now),
            connect: Connector::new(vec![server.to_string()], Some(trusting(server)), None),
            source: Clocked {
                wall: wall.clone(),
                clock: SampleClock::new(3, INTERVAL),
                started: now,
                next: now,
                number: 0,
                shutdown: shutdown.clone(),
            },
            observer: account.clone(),
            keep: Some(Box::new(Spool::new(&dir.join("spool"), 4 << 20))),
            trust: None,
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(link.run());
        Self { name, wall, account, shutdown, runtime }
    }

    /// Until so many more samples are taken.
    fn takes(&self, more: usize) {
        let before = self.account.0.lock().unwrap().taken.len();
        wait_for("samples", Duration::from_secs(20), || {
            (self.account.0.lock().unwrap().taken.len() >= before + more).then_some(())
        });
    }

    /// Waits until the host is well; ends it, and compares what it has with what can be read.
    fn must_be_well_and_complete(self, server: &Server, reasons: &[&str]) {
        wait_for("the spool to be empty", Duration::from_secs(20), || {
            let waiting = self.account.0.lock().unwrap().waiting;
            (waiting.disk == 0 && waiting.memory <= 1).then_some(())
        });
        wait_for("a fresh live view", Duration::from_secs(5), || {
            let latest = server.json(&format!("/api/v1/hosts/{}/latest", self.name));
            let time_ms = latest["time_ms"].as_i64()?;
            ((time_ms - now_ms()).abs() < 2000).then_some(())
        });
        self.shutdown.cancel();
        wait_for("the end", Duration::from_secs(20), || {
            let account = self.account.0.lock().unwrap();
            (account.settled.len() + account.dropped.len() == account.taken.len()).then_some(())
        });
        let account = self.account.0.lock().unwrap();
        let known: BTreeSet<&str> = account.dropped.values().map(String::as_str).collect();
        assert!(known.iter().all(|reason| reasons.contains(reason)), "{known:?}");
        assert_eq!(known.is_empty(), reasons.is_empty());
        let readable = wait_for("all of it to be readable", Duration::from_secs(20), || {
            let path = format!(
                "/api/v1/hosts/{}/series?field=system.uptime&from={}&to={}",
                self.name,
                now_ms() - 3 * HOUR_MS,
                now_ms() + 3 * HOUR_MS
            );
            let series = server.json(&path);
            let points = series["series"][0]["points"].as_array()?;
            let times: Vec<i64> = points.iter().map(|point| point[0].as_i64().unwrap()).collect();
            (times.len() >= account.settled.len()).then_some(times)
        });
        let once: BTreeSet<i64> = readable.iter().copied().collect();
        assert_eq!(once.len(), readable.len(), "a point twice");
        assert_eq!(once, account.settled);
        drop(account);
        self.runtime.shutdown_background();
    }
}

#[test]
fn a_host_that_boots_in_1970_without_a_server_is_well_once_its_clock_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let (clients, http) = (server.clients, server.http);
    server.kill();
    let wall = Wall::default();
    wall.set(-now_ms() + 20_000);
    let host = Host::start(1, "pi", clients, dir.path(), wall);
    host.takes(6);
    host.wall.set(0);
    host.takes(8);
    assert!(host.account.0.lock().unwrap().waiting.disk >= 10);
    let server = Server::start_at(&dir.path().join("server"), clients, http, &[], &[]);
    host.takes(5);
    host.must_be_well_and_complete(&server, &["too_old"]);
}

#[test]
fn a_host_that_is_in_2038_for_a_while_is_well_once_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    let host = Host::start(2, "leap", server.clients, dir.path(), Wall::default());
    host.takes(5);
    host.wall.set(IN_2038_MS - now_ms());
    host.takes(5);
    host.wall.set(0);
    host.takes(5);
    host.must_be_well_and_complete(&server, &["clock_ahead"]);
}

#[test]
fn a_step_of_exactly_an_hour_back_makes_no_two_samples_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("server"), &[]);
    let (clients, http) = (server.clients, server.http);
    let wall = Wall::default();
    wall.set(HOUR_MS);
    let host = Host::start(3, "summer", server.clients, dir.path(), wall);
    host.takes(8);
    host.wall.set(0);
    host.takes(3);
    // Also on the way through the spool.
    server.kill();
    host.takes(6);
    let server = Server::start_at(&dir.path().join("server"), clients, http, &[], &[]);
    host.takes(3);
    host.must_be_well_and_complete(&server, &[]);
}
