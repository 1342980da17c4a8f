//! Nothing is lost that a client has on disk: servers and clients killed, stopped and away, disks full, with real processes.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::client::{Client, client_binary};
use support::peer::now_ms;
use support::server::{Server, wait_for};

/// What a record says of one host.
#[derive(Debug, Default)]
struct Recorded {
    taken: BTreeSet<i64>,
    settled: BTreeSet<i64>,
    dropped: BTreeSet<i64>,
}

/// The record by the hosts' names; a line that a kill tore is left out.
fn read_record(path: &Path) -> BTreeMap<String, Recorded> {
    let mut hosts: BTreeMap<String, Recorded> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let host = hosts.entry(line["name"].as_str().unwrap().to_owned()).or_default();
        let time_ms = line["time_ms"].as_i64().unwrap();
        match line["event"].as_str().unwrap() {
            "taken" => assert!(host.taken.insert(time_ms), "{line}: a time that was used before"),
            "settled" => drop(host.settled.insert(time_ms)),
            "dropped" => drop(host.dropped.insert(time_ms)),
            other => panic!("{other}"),
        }
    }
    hosts
}

/// Times at which the server has a sample of this host.
fn readable(server: &Server, host: &str) -> BTreeSet<i64> {
    let from = now_ms() - 600_000;
    let series = server.json(&format!("/api/v1/hosts/{host}/series?field=system.uptime&from={from}"));
    let points = series["series"][0]["points"].as_array().cloned().unwrap_or_default();
    let times: BTreeSet<i64> = points.iter().map(|point| point[0].as_i64().unwrap()).collect();
    assert_eq!(times.len(), points.len(), "{host}: a point twice");
    times
}

fn simulate(server: &Server, dir: &Path, record: &Path, hosts: &str) -> Client {
    let address = server.clients.to_string();
    let dir = dir.to_str().unwrap();
    let record = record.to_str().unwrap();
    let args = [
        "simulate",
        "--hosts",
        hosts,
        "--interval",
        "1s",
        "--server",
        &address,
        "--data-dir",
        dir,
        "--record",
        record,
    ];
    Client::start(&args)
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// Everything that was taken is readable, but for so many of the newest of each host at each kill.
fn compare(server: &Server, record: &Path, hosts: usize, lost_at_most: usize) {
    let recorded = read_record(record);
    assert_eq!(recorded.len(), hosts);
    let mut lost = Vec::new();
    for (name, host) in &recorded {
        assert!(host.dropped.is_empty(), "{name}: {:?}", host.dropped);
        let found = wait_for("what was settled to be readable", Duration::from_secs(10), || {
            Some(readable(server, name)).filter(|found| found.is_superset(&host.settled))
        });
        let strange: Vec<_> = found.difference(&host.taken).collect();
        assert!(strange.is_empty(), "{name}: never taken {strange:?}");
        let missing: Vec<_> = host.taken.difference(&found).copied().collect();
        assert!(missing.len() <= lost_at_most, "{name}: {missing:?} are missing");
        lost.extend(missing);
    }
    let taken: usize = recorded.values().map(|host| host.taken.len()).sum();
    println!("{taken} samples taken, {} lost at kills", lost.len());
}

#[test]
fn clients_killed_while_the_server_is_away_lose_at_most_the_two_newest_samples_each() {
    let dir = tempfile::tempdir().unwrap();
    let (data, fleet, record) =
        (dir.path().join("server"), dir.path().join("fleet"), dir.path().join("record"));
    let mut server = Server::start(&data, &[]);
    let (clients, http) = (server.clients, server.http);
    let mut simulation = simulate(&server, &fleet, &record, "8");
    sleep(3);
    server.kill();
    sleep(5);
    simulation.kill();
    // The next one lives only without a server, and dies too.
    simulation = simulate(&server, &fleet, &record, "8");
    sleep(4);
    simulation.kill();
    simulation = simulate(&server, &fleet, &record, "8");
    sleep(2);
    server = Server::start_at(&data, clients, http, &[], &[]);
    sleep(2);
    server.kill();
    sleep(1);
    server = Server::start_at(&data, clients, http, &[], &[]);
    sleep(4);
    assert!(simulation.stop().success());
    compare(&server, &record, 8, 2 * 2);
    assert!(server.stop().success());
}

#[test]
fn a_client_that_is_stopped_while_the_server_is_away_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, fleet, record) =
        (dir.path().join("server"), dir.path().join("fleet"), dir.path().join("record"));
    let mut server = Server::start(&data, &[]);
    let (clients, http) = (server.clients, server.http);
    let mut simulation = simulate(&server, &fleet, &record, "4");
    sleep(2);
    server.kill();
    for _ in 0..2 {
        sleep(3);
        let start = std::time::Instant::now();
        assert!(simulation.stop().success());
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        simulation = simulate(&server, &fleet, &record, "4");
    }
    sleep(2);
    server = Server::start_at(&data, clients, http, &[], &[]);
    sleep(5);
    assert!(simulation.stop().success());
    compare(&server, &record, 4, 0);
    assert!(server.stop().success());
}

#[test]
fn a_real_client_goes_on_where_its_killed_predecessor_was() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("server");
    let mut server = Server::start(&data, &[]);
    let (clients, http) = (server.clients, server.http);
    let client = |more: &[&str]| {
        let args = [&["--interval", "1s"], more].concat();
        Client::run(clients, &dir.path().join("client"), "real", &args)
    };
    let mut first = client(&[]);
    sleep(3);
    server.kill();
    sleep(6);
    first.kill();
    let killed_ms = now_ms();
    let mut second = client(&[]);
    sleep(4);
    server = Server::start_at(&data, clients, http, &[], &[]);
    let found = wait_for("its samples", Duration::from_secs(20), || {
        let found = readable(&server, "real");
        let of_second = found.iter().filter(|time| **time > killed_ms).count();
        (of_second >= 5).then_some(found)
    });
    let before: Vec<i64> = found.iter().filter(|time| **time < killed_ms).copied().collect();
    // Phase and start take up to two seconds.
    assert!(before.len() >= 5, "{before:?}");
    assert!(
        before.windows(2).all(|pair| pair[1] - pair[0] < 1500),
        "a gap while the server was away: {before:?}"
    );
    let newest = killed_ms - before.last().unwrap();
    assert!(newest < 3000, "{newest} ms were lost at the kill");
    assert!(second.stop().success());
    wait_for("an empty spool", Duration::from_secs(5), || {
        let bytes: u64 = std::fs::read_dir(dir.path().join("client/spool"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        (bytes < 300).then_some(())
    });
    assert!(server.stop().success());
}

#[test]
fn one_simulation_runs_on_a_directory_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("server");
    let server = Server::start(&data, &[]);
    let fleet = dir.path().join("fleet");
    let mut first = simulate(&server, &fleet, &dir.path().join("record"), "1");
    wait_for("the first to be there", Duration::from_secs(10), || {
        fleet.join("starts").exists().then_some(())
    });
    let second = Command::new(client_binary())
        .args(["simulate", "--hosts", "1", "--data-dir"])
        .arg(&fleet)
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && said.contains("client.lock") && said.contains("locked"), "{said}");
    assert!(first.stop().success());
}

/// A file system of 8 MiB, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, said in one line, without the rights to mount one; a failure with `CI=true`.
    #[allow(clippy::explicit_write, reason = "what eprintln! says is kept from whoever runs the tests")]
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "vitals-test"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "no small file system can be mounted here, and CI=true"
            );
            writeln!(std::io::stderr(), "SKIPPED: no small file system can be mounted here; root can")
                .unwrap();
        }
        mounted.then_some(Self(dir))
    }

    /// Fills what is left.
    fn fill(&self) -> std::path::PathBuf {
        let path = self.0.path().join("filler");
        let mut file = File::create(&path).unwrap();
        let (mut block, zeros) = (1 << 16, vec![0; 1 << 16]);
        while block > 0 {
            if file.write_all(&zeros[..block]).is_err() {
                block /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_keeps_samples_in_memory_and_costs_none_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (data, record) = (dir.path().join("server"), dir.path().join("record"));
    let fleet = disk.0.path().join("fleet");
    let mut server = Server::start(&data, &[]);
    let (clients, http) = (server.clients, server.http);
    let mut simulation = simulate(&server, &fleet, &record, "3");
    sleep(2);
    server.kill();
    sleep(3);
    let filler = disk.fill();
    sleep(5);
    std::fs::remove_file(filler).unwrap();
    // It is tried again after some seconds; then a kill costs next to nothing again.
    sleep(8);
    simulation.kill();
    simulation = simulate(&server, &fleet, &record, "3");
    sleep(1);
    server = Server::start_at(&data, clients, http, &[], &[]);
    sleep(5);
    assert!(simulation.stop().success());
    compare(&server, &record, 3, 2);
    assert!(server.stop().success());
}
