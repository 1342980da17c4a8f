//! One seat a host, and limits of each: who takes over, who is refused, who is reported as a clone, and that a host over its
//! limits harms nobody.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::peer::{Peer, hello, now_ms, sample};
use support::server::{Server, wait_for};
use vitals_wire::bounded::List;
use vitals_wire::ids::RunId;
use vitals_wire::message::{Ack, DropReason, Hello, Refusal, Refused, Samples, ServerMessage};

/// The down limit at an interval of 1 s.
const DOWN: Duration = Duration::from_secs(15);

fn run(number: u8) -> Hello {
    Hello { run: RunId([number; 16]), interval_ms: 1_000, ..hello(1, "web") }
}

fn start(config: &str) -> (tempfile::TempDir, Server) {
    let dir = tempfile::Builder::new().prefix("vitals").tempdir().unwrap();
    let file = dir.path().join("server.toml");
    std::fs::write(&file, config).unwrap();
    let server = Server::start(&dir.path().join("data"), &["--config", file.to_str().unwrap()]);
    (dir, server)
}

fn refused(server: &Server, hello: Hello) -> Refused {
    let mut peer = Peer::connect(server.clients);
    peer.say(hello);
    peer.refusal()
}

#[test]
fn the_same_run_takes_over_at_once_and_the_host_is_up_all_the_time() {
    let (_dir, server) = start("");
    let (mut old, _) = Peer::welcome(server.clients, run(1));
    old.send(1, sample(now_ms(), 1));
    let began = Instant::now();
    for _ in 0..5 {
        let (mut new, _) = Peer::welcome(server.clients, run(1));
        assert_eq!(old.hear(), None, "the old connection ends");
        new.send(1, sample(now_ms(), 1));
        old = new;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let host = server.json("/api/v1/hosts/web");
    assert_eq!(host["state"], "up");
    assert_eq!(host["address"], old.stream.local_addr().to_string());
    assert!(host.get("clone_suspected").is_none(), "{host}");
    assert!(server.log_line("host down").is_none() && server.log_line("one identity").is_none());
}

#[test]
fn another_run_is_refused_while_the_first_speaks_and_let_in_when_it_is_silent() {
    let (_dir, server) = start("");
    let (mut first, _) = Peer::welcome(server.clients, run(1));
    first.send(1, sample(now_ms(), 1));
    let silent = Instant::now();
    let no = refused(&server, run(2));
    let address = first.stream.local_addr().to_string();
    assert_eq!((no.code, no.retry), (Refusal::IdentityInUse, true));
    assert!(no.text.contains(&address) && no.text.contains("web"), "{}", &*no.text);
    assert_eq!(server.metric("vitals_refused_total{reason=\"identity_in_use\"}"), 1.0);
    let _second = wait_for("the second run's welcome", 2 * DOWN, || {
        let mut peer = Peer::connect(server.clients);
        peer.say(run(2));
        match peer.hear() {
            Some(ServerMessage::Welcome(_)) => Some(peer),
            Some(ServerMessage::Refused(no)) if no.code == Refusal::IdentityInUse => None,
            other => panic!("{other:?}"),
        }
    });
    assert!(silent.elapsed() >= DOWN - Duration::from_secs(1), "{:?}", silent.elapsed());
    let last = first.refusal().code;
    assert!([Refusal::IdentityInUse, Refusal::Timeout].contains(&last), "{last:?}");
    assert!(server.json("/api/v1/hosts/web").get("clone_suspected").is_none());
}

#[test]
fn a_client_that_restarts_again_and_again_is_no_clone() {
    let (_dir, server) = start("");
    for number in 1..=20 {
        let mut peer = wait_for("its welcome", Duration::from_secs(5), || {
            let mut peer = Peer::connect(server.clients);
            peer.say(run(number));
            // The server may not have seen the end of the one before.
            matches!(peer.hear(), Some(ServerMessage::Welcome(_))).then_some(peer)
        });
        peer.send(1, sample(now_ms(), 1));
    }
    assert!(server.json("/api/v1/hosts/web").get("clone_suspected").is_none());
    assert!(server.log_line("one identity").is_none());
}

#[test]
fn a_clone_is_reported_with_both_addresses_once() {
    let (_dir, server) = start("");
    let (mut first, _) = Peer::welcome(server.clients, run(1));
    let mut seconds = Vec::new();
    for batch in 1..=6 {
        assert_eq!(first.send(batch, sample(now_ms(), batch)).refused.len(), 0, "the first stays");
        let mut second = Peer::connect(server.clients);
        seconds.push(second.stream.local_addr().to_string());
        second.say(run(2));
        assert_eq!(second.refusal().code, Refusal::IdentityInUse);
        std::thread::sleep(Duration::from_millis(20));
    }
    let one = first.stream.local_addr().to_string();
    let line = server.log_line("two clients use one identity").unwrap();
    assert!(line.contains("web") && line.contains(&one) && line.contains(&seconds[1]), "{line}");
    let reports = server.log_text().matches("two clients use one identity").count();
    assert_eq!(reports, 1, "not at each attempt");
    let suspected = &server.json("/api/v1/hosts/web")["clone_suspected"];
    assert!(suspected.as_array().unwrap().contains(&one.into()), "{suspected}");
    assert!(suspected.as_array().unwrap().contains(&seconds[5].clone().into()), "{suspected}");
    wait_for("the audit log", Duration::from_secs(5), || server.log_line("host_cloned"));
    assert_eq!(server.json("/api/v1/hosts/web")["state"], "up");
}

#[test]
fn a_host_over_its_limits_keeps_its_connection_and_another_is_untouched() {
    let (_dir, server) = start("[limits]\nsamples_per_second = 1\nseries = 10\n");
    let (mut flood, _) = Peer::welcome(server.clients, run(1));
    let (mut bystander, _) = Peer::welcome(server.clients, hello(2, "db"));
    let mut dropped = 0;
    for batch in 1..=20 {
        let start = now_ms() - 1_000 + batch * 40;
        let samples = (0..20).map(|i| sample(start + i, 1)).collect();
        flood.say(Samples { batch: batch as u64, backlog: false, samples: List::new(samples).unwrap() });
        let ack = acked(&mut flood, batch as u64);
        assert!(ack.refused.iter().all(|one| one.reason == DropReason::OverLimit), "{ack:?}");
        dropped += ack.refused.len();
        if batch <= 10 {
            assert_eq!(bystander.send(batch as u64, sample(now_ms() + batch, 1)).refused.len(), 0);
        }
    }
    assert!((320..=340).contains(&dropped), "{dropped} of 400");
    flood.say(Samples {
        batch: 99,
        backlog: true,
        samples: List::new(vec![sample(now_ms() - 9_000, 1)]).unwrap(),
    });
    match flood.hear() {
        Some(ServerMessage::Ack(ack)) => assert!(ack.batches.is_empty(), "put off: {ack:?}"),
        other => panic!("no ack: {other:?}"),
    }
    assert_eq!(server.metric("vitals_samples_dropped_total{reason=\"over_limit\"}"), dropped as f64);
    assert_eq!(server.metric("vitals_batches_over_limit_total"), 1.0);
    assert_eq!(server.json("/api/v1/hosts/web")["refused"]["over_limit"], dropped);
    assert_eq!(server.json("/api/v1/hosts/db")["refused"], serde_json::json!({}));
    assert_eq!(server.json("/api/v1/hosts/web")["state"], "up");
    // A sample passes again as time goes on, on the same connection.
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(flood.send(100, sample(now_ms(), 1)).refused.len(), 0);
}

/// The ack of this batch.
fn acked(peer: &mut Peer, batch: u64) -> Ack {
    match peer.hear() {
        Some(ServerMessage::Ack(ack)) => {
            assert_eq!(&*ack.batches, [batch]);
            ack
        }
        other => panic!("no ack: {other:?}"),
    }
}
