//! How a client says how it is, and why it goes: real processes on both sides.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::{Client, ask_client};
use support::server::{Server, field, wait_for};

const SOON: Duration = Duration::from_secs(20);

/// Exit code and answer of `vitals-client status --json`.
fn status(dir: &Path) -> (Option<i32>, Value) {
    let (code, out, error) = ask_client(&["status", "--json", "--data-dir", dir.to_str().unwrap()]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code:?}: {out}{error}")))
}

/// What people see.
fn table(dir: &Path) -> String {
    let (_, out, error) = ask_client(&["status", "--data-dir", dir.to_str().unwrap()]);
    assert!(error.is_empty(), "{error}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    out
}

fn number(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

/// The values of a field of the host's own health, oldest first.
fn health(server: &Server, name: &str, field: &str) -> Vec<i64> {
    let series = server.json(&format!("/api/v1/hosts/{name}/series?field=vitals_client.{field}"));
    let points = series["series"][0]["points"].as_array().cloned().unwrap_or_default();
    points.iter().map(|point| point[1].as_i64().unwrap()).collect()
}

#[test]
fn where_no_client_runs_that_is_said_with_where_it_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let (code, out, error) = ask_client(&["status", "--data-dir", path]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(
        error.contains("no client runs") && error.contains(path) && error.contains("--data-dir"),
        "{error}"
    );
    let (code, answer) = status(dir.path());
    assert_eq!((code, &answer["running"]), (Some(1), &false.into()));
    assert_eq!(ask_client(&["bye", "--reason", "upgrade", "--data-dir", path]).0, Some(1));
    for wrong in [&["status", "--jason"][..], &["bye", "--data-dir", path], &["bye", "--reason", "fun"]] {
        assert_eq!(ask_client(wrong).0, Some(2), "{wrong:?}");
    }
}

#[test]
fn a_client_says_how_it_is_while_connected_while_its_server_is_away_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("server");
    // Longer than a socket's path may be.
    let client_dir = dir.path().join("a long name ".repeat(12));
    let mut server = Server::start(&data, &[]);
    let (clients, http) = (server.clients, server.http);
    let mut client = Client::run(clients, &client_dir, "web", &["--interval", "1s"]);
    let connected = wait_for("acknowledged samples", SOON, || {
        let (code, status) =
            Some(()).filter(|()| client_dir.join("client.sock").exists()).map(|()| status(&client_dir))?;
        (status["acknowledged"].as_u64() >= Some(2)).then_some((code, status))
    });
    let (code, is) = connected;
    println!("{is}\n{}", table(&client_dir));
    assert_eq!((code, &is["connected"], &is["stopping"]), (Some(0), &true.into(), &false.into()));
    assert_eq!(is["connection"]["server"], clients.to_string());
    assert_eq!((&is["connection"]["name"], &is["name"]), (&"web".into(), &"web".into()));
    assert_eq!((number(&is, "pid"), number(&is, "connections")), (client.pid().into(), 1));
    assert_eq!(is["last_error"], Value::Null);
    let taken = number(&is, "taken");
    assert_eq!(taken, number(&is, "acknowledged") + number(&is, "waiting_memory"), "{is}");
    // One machine has one clock.
    let skew = is["skew_ms"].as_i64().unwrap();
    assert!(skew.abs() < 2000, "{skew}");
    let text = table(&client_dir);
    assert!(text.starts_with(&format!("state           connected to {clients}\n")), "{text}");
    let mode = fs::metadata(client_dir.join("client.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The same travels.
    wait_for("the client's own health", SOON, || {
        health(&server, "web", "connections").contains(&1).then_some(())
    });
    assert!(health(&server, "web", "skew_ms").last().unwrap().abs() < 2000);
    let rss = *health(&server, "web", "memory_rss").last().unwrap() as f64;
    let now = number(&is, "memory") as f64;
    assert!((0.5..2.0).contains(&(rss / now)), "{rss} then, {now} now");
    assert!(
        health(&server, "web", "samples_taken").len() < number(&is, "taken") as usize + 2,
        "not with each sample"
    );

    server.kill();
    let is = wait_for("samples to wait", SOON, || {
        let (code, is) = status(&client_dir);
        (code == Some(1) && number(&is, "waiting_memory") >= 2).then_some(is)
    });
    println!("{}", table(&client_dir));
    assert_eq!((&is["connected"], &is["connection"]), (&false.into(), &Value::Null));
    assert_eq!(is["last_error"]["server"], clients.to_string());
    assert!(
        table(&client_dir)
            .starts_with(&format!("state           not connected\n  tried         {clients}\n"))
    );

    let mut server = Server::start_at(&data, clients, http, &[], &[]);
    let is = wait_for("what waited to arrive", SOON, || {
        let (code, is) = status(&client_dir);
        (code == Some(0) && number(&is, "waiting_memory") <= 1).then_some(is)
    });
    assert_eq!((number(&is, "connections"), &is["dropped"]), (2, &serde_json::json!({})));
    assert!(is["last_error"]["text"].is_string(), "it is kept: {is}");
    wait_for("word of the new connection", SOON, || {
        health(&server, "web", "connections").contains(&2).then_some(())
    });

    assert!(client.stop().success());
    assert!(!client_dir.join("client.sock").exists(), "nothing is left of the socket");
    assert_eq!(status(&client_dir).1["running"], false);
    assert!(server.stop().success());
}

/// What would change of a directory and all in it if anything there was written, made, removed or replaced: inode, length,
/// times of the content and of the inode.
fn traces(dir: &Path) -> BTreeMap<PathBuf, [i64; 6]> {
    let is = fs::symlink_metadata(dir).unwrap();
    let trace = [is.ino() as i64, is.size() as i64, is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec()];
    let mut all = BTreeMap::from([(dir.to_owned(), trace)]);
    if is.is_dir() {
        for entry in fs::read_dir(dir).unwrap() {
            all.extend(traces(&entry.unwrap().path()));
        }
    }
    all
}

#[test]
fn while_a_client_is_connected_nothing_is_written_to_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let client_dir = dir.path().join("client");
    let mut server = Server::start(&dir.path().join("server"), &[]);
    // What is not settled within two intervals may be written, and this machine may be busy.
    let mut client = Client::run(server.clients, &client_dir, "web", &["--interval", "3s"]);
    let acknowledged = |least: u64| {
        wait_for("acknowledged samples", Duration::from_secs(40), || {
            let is = client_dir.join("client.sock").exists().then(|| status(&client_dir).1)?;
            is["acknowledged"].as_u64().filter(|acknowledged| *acknowledged >= least)
        })
    };
    let before = acknowledged(1);
    let traces_before = traces(&client_dir);
    assert!(traces_before.len() >= 5, "{traces_before:?}");
    acknowledged(before + 4);
    assert_eq!(traces(&client_dir), traces_before);
    let is = status(&client_dir).1;
    assert_eq!((number(&is, "connections"), number(&is, "waiting_disk")), (1, 0), "{is}");

    // What is written leaves a trace.
    server.kill();
    wait_for("a sample on disk", SOON, || (number(&status(&client_dir).1, "waiting_disk") > 0).then_some(()));
    assert_ne!(traces(&client_dir), traces_before);
    assert!(client.stop().success());
}

#[test]
fn the_server_learns_the_reason_that_was_announced_and_else_that_it_is_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("server"), &[]);
    for reason in ["upgrade", "uninstall", "restart"] {
        let (name, client_dir) = (format!("web-{reason}"), dir.path().join(reason));
        let mut client = Client::run(server.clients, &client_dir, &name, &["--interval", "1s"]);
        wait_for("the connection", SOON, || {
            (client_dir.join("client.sock").exists() && status(&client_dir).0 == Some(0)).then_some(())
        });
        if reason != "restart" {
            let path = client_dir.to_str().unwrap();
            let (code, out, error) = ask_client(&["bye", "--reason", reason, "--data-dir", path]);
            assert_eq!((code, &*out, &*error), (Some(0), "", ""));
        }
        assert!(client.stop().success());
        let line = wait_for("the event", SOON, || {
            let log = server.log_text();
            log.lines().find(|line| line.contains("host off") && line.contains(&name)).map(str::to_owned)
        });
        assert_eq!(field(&line, "reason"), reason, "{line}");
    }
}

/// A client whose server takes connections and never says a word.
fn unheard(dir: &Path, more: &[&str]) -> (Client, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let more = [&["--interval", "1s"][..], more].concat();
    let client = Client::run_logged(address, &dir.join("client"), "web", &more, &dir.join("log"));
    wait_for("samples to wait", SOON, || {
        dir.join("client/client.sock").exists().then(|| status(&dir.join("client")).1)?["waiting_memory"]
            .as_u64()
            .filter(|waiting| *waiting >= 2)
    });
    (client, listener)
}

#[test]
fn an_end_says_what_it_waits_for_and_a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut client, _listener) = unheard(dir.path(), &["--shutdown-timeout", "60s"]);
    client.terminate();
    let log = || fs::read_to_string(dir.path().join("log")).unwrap();
    let line = wait_for("word of what is waited for", SOON, || {
        log().lines().find(|line| line.contains("waiting_for")).map(str::to_owned)
    });
    assert!(line.contains("a connection to a server"), "{line}");
    let count = |name| field(&line, name).parse::<u64>().unwrap();
    assert!(count("samples") + count("on_disk") >= 2, "{line}");
    assert_eq!(status(&dir.path().join("client")).1["stopping"], true);
    assert!(client.runs(), "{}", log());
    let start = Instant::now();
    client.terminate();
    assert_eq!(client.wait(SOON).code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(log().contains("stopping at once"), "{}", log());
    assert_eq!(status(&dir.path().join("client")).1["running"], false, "a socket that was left is no client");
}

#[test]
fn an_end_comes_within_its_limit_whatever_the_server_does() {
    let dir = tempfile::tempdir().unwrap();
    let (mut client, _listener) = unheard(dir.path(), &["--shutdown-timeout", "4s"]);
    let start = Instant::now();
    client.terminate();
    assert_eq!(client.wait(SOON).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}
