//! The way down and up again: an upgrade in place under a fleet, what a shutdown says and how long it may take, a second
//! signal, and a start behind a large journal.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::Client;
use support::peer::{Peer, hello, now_ms, sample};
use support::server::{Server, wait_for};
use vitals_server::journal::JournalOptions;
use vitals_wire::bounded::List;
use vitals_wire::ids::HostId;
use vitals_wire::log::{LogOptions, Writer};
use vitals_wire::message::{Refusal, Samples, ServerMessage};
use vitals_wire::record::{Record, encode_record};
use vitals_wire::sample::Sample;
use vitals_wire::section::{Opaque, Section};

const HOSTS: usize = 50;

/// Times of each host by event.
fn times(record: &Path, event: &str) -> BTreeMap<String, BTreeSet<i64>> {
    let mut hosts: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    for line in std::fs::read_to_string(record).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["event"] == event {
            let name = line["name"].as_str().unwrap().to_owned();
            hosts.entry(name).or_default().insert(line["time_ms"].as_i64().unwrap());
        }
    }
    hosts
}

#[test]
fn an_upgrade_in_place_loses_nothing_and_shows_no_host_as_down() {
    let dir = tempfile::tempdir().unwrap();
    let (data, record) = (dir.path().join("server"), dir.path().join("record.jsonl"));
    let mut server = Server::start(&data, &[]);
    let (clients, http) = (server.clients, server.http);
    let (hosts, address) = (HOSTS.to_string(), clients.to_string());
    let record_path = record.to_str().unwrap();
    let mut simulation = Client::start(&[
        "simulate",
        "--hosts",
        &hosts,
        "--interval",
        "1s",
        "--seconds",
        "16",
        "--seed",
        "3",
        "--server",
        &address,
        "--record",
        record_path,
    ]);
    for _ in 0..2 {
        wait_for("the fleet", Duration::from_secs(20), || {
            (server.metric("vitals_samples_acknowledged_total") > 100.0).then_some(())
        });
        let began = Instant::now();
        assert!(server.stop().success());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(server.log_line("host down").is_none(), "nobody went down with it");
        server = Server::start_at(&data, clients, http, &[], &[]);
    }
    let all_up = || {
        let list = server.json("/api/v1/hosts");
        let states =
            list["hosts"].as_array().unwrap().iter().map(|host| host["state"].as_str().unwrap().to_owned());
        let states: Vec<String> = states.collect();
        assert!(!states.iter().any(|state| state == "down"), "{states:?}");
        states.iter().filter(|state| *state == "up").count()
    };
    wait_for("all to be up again", Duration::from_secs(15), || (all_up() == HOSTS).then_some(()));
    assert!(simulation.wait(Duration::from_secs(60)).success());
    assert!(
        server.log_line("host down").is_none() && server.log_line("host up").is_none(),
        "{}",
        server.log_text()
    );

    let (taken, settled) = (times(&record, "taken"), times(&record, "settled"));
    assert_eq!(taken.len(), HOSTS);
    assert!(times(&record, "dropped").is_empty());
    for (name, taken) in &taken {
        assert_eq!(settled.get(name), Some(taken), "{name}: all that was taken is settled");
        let path = format!("/api/v1/hosts/{name}/series?field=system.uptime&from=0");
        let stored = wait_for("history", Duration::from_secs(10), || {
            let series = server.json(&path);
            let points = series["series"][0]["points"].as_array()?.clone();
            let stored: Vec<i64> = points.iter().map(|point| point[0].as_i64().unwrap()).collect();
            (stored.len() >= taken.len()).then_some(stored)
        });
        assert_eq!(stored, taken.iter().copied().collect::<Vec<_>>(), "{name}: each once");
    }
    assert!(server.stop().success());
}

/// A server whose InfluxDB takes connections and never answers, with something to write to it.
fn beside_a_hanging_influxdb(data: &Path, limit: &str) -> (Server, Peer, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let env =
        [("VITALS_INFLUX_URL", &*url), ("VITALS_INFLUX_TOKEN", "x"), ("VITALS_SHUTDOWN_TIMEOUT", limit)];
    let loopback = "127.0.0.1:0".parse().unwrap();
    let server = Server::start_at(data, loopback, loopback, &[], &env);
    let (mut peer, _) = Peer::welcome(server.clients, hello(1, "web"));
    peer.send(1, sample(now_ms(), 1));
    (server, peer, listener)
}

#[test]
fn a_shutdown_says_whom_it_waits_for_and_is_over_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, mut peer, _influx) = beside_a_hanging_influxdb(&dir.path().join("data"), "4s");
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    let pid = rustix::process::Pid::from_raw(server.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(peer.refusal().code, Refusal::ShuttingDown);
    let status = wait_for("its end", Duration::from_secs(20), || server.ended());
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}\n{}", began.elapsed(), server.log_text());
    let waits = server.log_line("waiting_for=influx").unwrap_or_else(|| panic!("{}", server.log_text()));
    assert!(waits.contains("goes down"), "{waits}");
    server.log_line("vitals-server has ended").unwrap();
}

#[test]
fn a_second_signal_ends_at_once_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, _peer, _influx) = beside_a_hanging_influxdb(&dir.path().join("data"), "10m");
    std::thread::sleep(Duration::from_secs(2));
    let pid = rustix::process::Pid::from_raw(server.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_for("the first", Duration::from_secs(5), || server.log_line("told to stop"));
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = wait_for("its end", Duration::from_secs(2), || server.ended());
    assert_eq!(status.code(), Some(1));
    wait_for("a word of it", Duration::from_secs(2), || server.log_line("told to stop again"));
}

#[test]
fn behind_a_large_journal_live_samples_are_shown_and_acknowledged_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(Server::start(&data, &[]));
    // Enough that history has seconds of work; more by hand.
    let bytes: u64 = std::env::var("VITALS_TEST_JOURNAL_MB").map_or(200, |mb| mb.parse().unwrap()) << 20;
    let options = JournalOptions::new(data.join("journal"));
    let log = LogOptions { dir: options.dir, segment_bytes: options.segment_bytes, compress: false };
    let (mut writer, _) = Writer::open(log).unwrap();
    let samples: Vec<Sample> = (0..200)
        .map(|number| {
            let mut sample = sample(now_ms() - 3_600_000 + number, number as u64);
            let section = Section::Opaque(Opaque { kind: 9_999, bytes: vec![number as u8; 3_000].into() });
            sample.sections.push(section).unwrap();
            sample
        })
        .collect();
    let mut written = 0;
    while written < bytes {
        let host = HostId([(written >> 20) as u8 | 1; 16]);
        let record = Record { host, received_ms: now_ms(), backlog: true, samples: samples.clone() };
        let record = encode_record(&record).unwrap();
        writer.append(&record).unwrap();
        written += record.len() as u64;
        if written % (8 << 20) < record.len() as u64 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    drop(writer);

    let began = Instant::now();
    let server = Server::start(&data, &[]);
    let (mut peer, _) = Peer::welcome(server.clients, hello(1, "web"));
    peer.say(Samples { batch: 1, backlog: false, samples: List::new(vec![sample(now_ms(), 77)]).unwrap() });
    wait_for("the live picture", Duration::from_secs(5), || {
        let (status, latest) = server.get("/api/v1/hosts/web/latest");
        (status == 200 && latest.contains("77")).then_some(())
    });
    let shown = began.elapsed();
    let waits = server.metric("vitals_journal_bytes") as u64;
    assert!(matches!(peer.hear(), Some(ServerMessage::Ack(_))));
    println!(
        "shown {shown:?} and acknowledged {:?} after the start, {waits} bytes of journal before it",
        began.elapsed()
    );
    assert!(shown < Duration::from_secs(2), "{shown:?}");
    assert!(waits >= bytes, "history was done with it before: {waits}");
}
