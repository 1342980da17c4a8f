//! Strangers at speed: wrong passwords and bad handshakes by the thousand, from other addresses and from that of the hosts
//! themselves, while these go on sending, come back, and people log in. No sample is lost, and what the server takes of
//! memory and disk stays bounded.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "flood/attack.rs"]
mod attack;
mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use attack::{Felt, Plan, at_home, attack};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use support::client::client_binary;
use support::peer::hello;
use support::server::{Server, token_for, wait_for};
use support::tls::Tls;
use tokio::time::sleep;
use vitals_wire::message::{Hello, ServerMessage};
use vitals_wire::token::JoinToken;

/// Hosts that go on sending, a sample a second each.
const HOSTS: u64 = 50;
/// Within one round.
const LOGINS: u64 = 5_000;
const HANDSHAKES: u64 = 20_000;
/// Shorter than the minute in which so many are to be borne, so that all takes less than 100 s.
const ROUND: Duration = Duration::from_secs(36);
/// Where this machine cannot make them all in that time.
const MOST_ROUND: Duration = Duration::from_secs(60);
/// Time between two cuts of the one simulated host whose line is bad.
const FLAP: Duration = Duration::from_secs(20);
/// By how much the server may grow under all of it: its pools of strangers are full then.
const MOST_GROWTH: u64 = 100 << 20;
/// Lines that all of it may leave in the log, the hosts' own included, and entries in the audit log.
const MOST_LINES: usize = 3_000;
const MOST_ENTRIES: usize = 300;
/// Time between two tries of a host that comes back and of a person who logs in, and the time for each to get in.
const PAUSE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_secs(30);

/// Hosts played by `vitals-client simulate`.
struct Hosts(Option<Child>);

impl Hosts {
    fn join(server: &Server) -> Self {
        let simulate = Command::new(client_binary())
            .args(["simulate", "--hosts", &HOSTS.to_string(), "--interval", "1s", "--json"])
            .env("VITALS_TOKEN", token_for(server.clients).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(Some(simulate))
    }

    /// Ends them; what became of their samples.
    fn end(mut self) -> serde_json::Value {
        let child = self.0.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_flood_of_strangers_costs_no_host_a_sample() {
    // Thousands of connections are as many files, here and in the server, which inherits it.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&data, &[]);
    let hosts = Hosts::join(&server);
    let all = || server.json("/api/v1/hosts")["hosts"].as_array().unwrap().clone();
    wait_for("the hosts", Duration::from_secs(30), || (all().len() as u64 >= HOSTS).then_some(()));
    let host = all()[0]["id"].as_str().unwrap().parse().unwrap();
    let token: JoinToken = token_for(server.clients).unwrap().parse().unwrap();
    let password = std::fs::read_to_string(data.join("admin-password")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Both are known from here on.
    runtime.block_on(async {
        come_back(&server, Hello { token: Some(token.said()), ..guest() }).await;
        log_in(&server, password.trim()).await;
    });
    let before = rss(server.pid());
    let others: Vec<IpAddr> = (2..=9).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect();
    let mut most = before;
    for (whence, sources) in
        [("other addresses", others), ("the hosts' own address", vec![Ipv4Addr::LOCALHOST.into()])]
    {
        let is_elsewhere = sources.len() > 1;
        let (http, clients) = (server.http, server.clients);
        let tls = Tls::usual().config();
        let plan = Plan {
            clients,
            http,
            host,
            tls,
            sources,
            handshakes: HANDSHAKES,
            logins: LOGINS,
            round: ROUND,
            most: MOST_ROUND,
        };
        let (begun, felt) = (Instant::now(), Arc::new(Felt::default()));
        let password = is_elsewhere.then_some(password.trim());
        let (took, back, logged_in) = runtime.block_on(async {
            let mut attacking = pin!(attack(&plan, &felt, || most = most.max(rss(server.pid()))));
            let (mut back, mut logged_in) = (Duration::ZERO, Duration::ZERO);
            loop {
                tokio::select! {
                    () = &mut attacking => return (begun.elapsed(), back, logged_in),
                    (host, person) = come_and_go(&server, password) => {
                        (back, logged_in) = (back.max(host), logged_in.max(person));
                    }
                }
            }
        });
        let people =
            if is_elsewhere { format!(", a person logs in within {logged_in:.1?}") } else { String::new() };
        let count = |figure: &std::sync::atomic::AtomicU64| figure.load(Relaxed);
        println!(
            "from {whence}, in {took:.0?}: {} bad handshakes ({} refused with a word), {} wrong logins ({} looked at, {} told to \
             wait), {} of both without an answer, {} not connected; a host comes back within {back:.1?}{people}; the \
             server takes {} MiB at most, {} before",
            count(&felt.handshakes),
            count(&felt.refused),
            count(&felt.logins),
            count(&felt.wrong),
            count(&felt.told_to_wait),
            count(&felt.unanswered),
            count(&felt.not_made),
            most >> 20,
            before >> 20,
        );
        assert_eq!((count(&felt.welcomed), count(&felt.logged_in)), (0, 0));
        assert!(count(&felt.handshakes) >= HANDSHAKES * 9 / 10, "this machine is too slow to show anything");
        assert!(count(&felt.logins) >= LOGINS * 9 / 10, "this machine is too slow to show anything");
        assert!(
            count(&felt.refused) > 0 && count(&felt.wrong) > 0,
            "strangers are answered while there is room"
        );
    }
    let entries = audit_entries(&server);
    let lines = server.log_text().lines().count();
    println!("{lines} lines in the log, {entries} entries in the audit log");

    let summary = hosts.end();
    println!(
        "the hosts: {} samples taken, {} settled, to acknowledgement p50 {} ms, p99 {} ms, most {} ms",
        summary["taken"],
        summary["settled"],
        summary["ack_p50_ms"],
        summary["ack_p99_ms"],
        summary["ack_max_ms"]
    );
    assert_eq!(summary["taken"], summary["settled"], "{summary}");
    assert_eq!(summary["waiting"], 0, "{summary}");
    // One of those that are played loses its connection by itself, now and then.
    let flaps = summary["seconds"].as_f64().unwrap() / FLAP.as_secs_f64() + 1.0;
    assert!(summary["reconnects"].as_f64().unwrap() <= flaps, "{summary}");
    assert!(summary["dropped"].as_object().unwrap().values().all(|dropped| *dropped == 0), "{summary}");
    assert!(summary["taken"].as_u64().unwrap() >= HOSTS * 2 * ROUND.as_secs() * 9 / 10, "{summary}");
    assert!(most < before + MOST_GROWTH, "the server grew from {before} to {most} bytes");
    let down = server
        .log_text()
        .lines()
        .find(|line| line.contains("host down") && line.contains("sim-"))
        .map(str::to_owned);
    assert_eq!(down, None, "no host that sends was shown as down");
    assert!(lines < MOST_LINES, "strangers fill the log: {lines} lines");
    assert!(entries < MOST_ENTRIES, "strangers fill the audit log: {entries} entries");
}

/// The host that comes and goes.
fn guest() -> Hello {
    hello(7, "guest")
}

/// A host of the address that all hosts have comes back, and a person there logs in, and some seconds pass. Gives how long
/// each took.
async fn come_and_go(server: &Server, password: Option<&str>) -> (Duration, Duration) {
    let back = come_back(server, guest()).await;
    let logged_in = match password {
        Some(password) => log_in(server, password).await,
        None => Duration::ZERO,
    };
    sleep(3 * PAUSE).await;
    (back, logged_in)
}

/// Tries until it is welcome; gives how long it took.
async fn come_back(server: &Server, hello: Hello) -> Duration {
    let (begun, tls) = (Instant::now(), Tls::usual().config());
    loop {
        match at_home(tls.clone(), server.clients, hello.clone()).await {
            Some(ServerMessage::Welcome(_)) => return begun.elapsed(),
            Some(other) => panic!("a host that is known hears {other:?}"),
            None if begun.elapsed() < MOST_PATIENCE => sleep(PAUSE).await,
            None => panic!("a host that is known does not get in within {MOST_PATIENCE:?}"),
        }
    }
}

/// Logs in, again and again where there is no room; gives how long it took.
async fn log_in(server: &Server, password: &str) -> Duration {
    let begun = Instant::now();
    loop {
        match attack::log_in(server.http, "admin", password).await {
            Some(200) => return begun.elapsed(),
            None | Some(429 | 503) if begun.elapsed() < MOST_PATIENCE => sleep(PAUSE).await,
            other => panic!("a person cannot log in: {other:?}"),
        }
    }
}

/// How many there are.
fn audit_entries(server: &Server) -> usize {
    let (mut count, mut path) = (0, "/api/v1/audit?limit=100".to_owned());
    loop {
        let page = server.json(&path);
        count += page["entries"].as_array().unwrap().len();
        let Some(next) = page["next"].as_i64() else { return count };
        path = format!("/api/v1/audit?limit=100&before={next}");
    }
}

/// Bytes of memory that a process holds.
fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
