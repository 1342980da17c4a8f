//! Several InfluxDBs and one that is away: the real server, real hosts and a real InfluxDB. What history holds is what each
//! of them has in the end, field by field and to the bit.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use support::client::Client;
use support::influxd::{BUCKET, Influxd, ORG};
use support::readings::{Stored, StoredField, from_flux};
use support::server::{Server, wait_for};
use vitals_client::simulate::host::Host;
use vitals_server::journal::{Journal, JournalOptions};
use vitals_server::metrics::Metrics;
use vitals_server::store::{self, Store, StoreOptions};

const SEED: u64 = 11;

fn simulate(server: &Server, hosts: u32, interval_ms: u32, seconds: u64) -> Client {
    Client::start(&[
        "simulate",
        "--hosts",
        &hosts.to_string(),
        "--interval",
        &format!("{interval_ms}ms"),
        "--seconds",
        &seconds.to_string(),
        "--seed",
        &SEED.to_string(),
        "--server",
        &server.clients.to_string(),
    ])
}

/// Everything that history holds of the simulated hosts, as it would stand in InfluxDB.
fn in_store(data: &Path, hosts: u32, interval_ms: u32) -> BTreeMap<String, BTreeSet<StoredField>> {
    let metrics = Arc::new(Metrics::new());
    let options =
        JournalOptions { group: Duration::from_millis(1), ..JournalOptions::new(data.join("journal")) };
    let journal = Journal::open(options, metrics.clone()).unwrap();
    let store = Store::open(StoreOptions::new(data.join("history.db")), &journal, metrics).unwrap();
    store.flush().unwrap();
    let fields_of = |index| {
        let host = Host::numbered(SEED, index, "sim-", interval_ms);
        let mut fields = BTreeSet::new();
        for row in store.rows(host.id, 0, i64::MAX, usize::MAX).unwrap() {
            for point in row.points {
                let mut tags = BTreeMap::from([("host".to_owned(), host.name.clone())]);
                tags.extend(point.tags.iter().map(|(key, value)| (key.to_string(), value.to_string())));
                for (field, value) in &point.fields {
                    fields.insert(StoredField {
                        measurement: point.measurement.to_string(),
                        tags: tags.clone(),
                        field: field.to_string(),
                        ns: row.time_ms * 1_000_000,
                        value: match value {
                            store::RowValue::Number(store::Value::Float(float)) => {
                                Stored::Float(float.to_bits())
                            }
                            store::RowValue::Number(store::Value::Integer(integer)) => {
                                Stored::Integer(*integer)
                            }
                            store::RowValue::Text(text) => Stored::Text(text.to_string()),
                        },
                    });
                }
            }
        }
        (host.name, fields)
    };
    (0..hosts).map(fields_of).collect()
}

async fn in_influxdb(influxd: &Influxd, bucket: &str, host: &str) -> BTreeSet<StoredField> {
    let query = format!(
        r#"from(bucket: "{bucket}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) |> filter(fn: (r) => r.host == "{host}" and r._measurement != "vitals_event") |> map(fn: (r) => ({{r with ns: int(v: r._time)}})) |> drop(columns: ["_start", "_stop", "_time"])"#
    );
    from_flux(influxd.flux(&query).await)
}

async fn assert_same(influxd: &Influxd, bucket: &str, stored: &BTreeMap<String, BTreeSet<StoredField>>) {
    let mut fields = 0;
    for (host, wanted) in stored {
        let found = in_influxdb(influxd, bucket, host).await;
        let missing: Vec<_> = wanted.difference(&found).take(2).collect();
        let surplus: Vec<_> = found.difference(wanted).take(2).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "{bucket} {host}: missing {missing:#?}, not in history {surplus:#?}"
        );
        assert!(!wanted.is_empty(), "{host}");
        fields += wanted.len();
    }
    println!("{bucket}: {fields} fields of {} hosts are the same in history and in InfluxDB", stored.len());
}

fn figure(server: &Server, name: &str, target: &str) -> f64 {
    server.metric(&format!("vitals_influx_{name}{{target=\"{target}\"}}"))
}

/// Waits until the target has everything.
fn has_all(server: &Server, target: &str) {
    wait_for("InfluxDB to have all of it", Duration::from_secs(120), || {
        (figure(server, "lag_bytes", target) == 0.0 && figure(server, "owed_spans", target) == 0.0)
            .then_some(())
    });
}

/// Runs a command of the server's binary; gives what it printed.
fn command(config: &Path, data: &Path, args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
        .args(args)
        .arg("--config")
        .arg(config)
        .arg("--data-dir")
        .arg(data)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_influxdb_that_was_away_longer_than_the_journal_lasts_is_missing_nothing() {
    const HOSTS: u32 = 100;
    const INTERVAL_MS: u32 = 1_000;
    let mut influxd = Influxd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("server"), dir.path().join("server.toml"));
    std::fs::write(&config, "[journal]\nmax_size = \"1 MiB\"\n").unwrap();
    let (url, token) = (influxd.url(), influxd.token());
    let env = [
        ("VITALS_INFLUX_URL", &*url),
        ("VITALS_INFLUX_ORG", ORG),
        ("VITALS_INFLUX_BUCKET", BUCKET),
        ("VITALS_INFLUX_TOKEN", token.reveal()),
    ];
    let loopback = "127.0.0.1:0".parse().unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let mut server = Server::start_at(&data, loopback, loopback, &args, &env);
    let mut simulation = simulate(&server, HOSTS, INTERVAL_MS, 30);
    wait_for("lines to flow", Duration::from_secs(20), || {
        (figure(&server, "lines_total", "influx") > 1_000.0).then_some(())
    });
    influxd.kill();
    let mut highest: f64 = 0.0;
    wait_for("a part of the journal to be given up", Duration::from_secs(60), || {
        highest = highest.max(figure(&server, "lag_bytes", "influx"));
        (figure(&server, "owed_bytes_total", "influx") > 0.0).then_some(())
    });
    let owed = figure(&server, "owed_seconds", "influx");
    let state = server.json("/api/v1/targets")["targets"][0].clone();
    assert_eq!(
        (state["state"].as_str(), state["reason"].as_str()),
        (Some("away"), Some("unreachable")),
        "{state}"
    );
    println!("lag rose to {highest} bytes, then {owed} s were owed: {state}");
    assert!(highest > 2e5 && owed >= 1.0);
    assert_eq!(server.metric("vitals_hosts_up"), f64::from(HOSTS));
    influxd.start_again().await;
    assert!(simulation.wait(Duration::from_secs(90)).success());
    has_all(&server, "influx");
    println!(
        "{} lines, {} of them filled, {} bytes given up by force",
        figure(&server, "lines_total", "influx"),
        figure(&server, "filled_lines_total", "influx"),
        figure(&server, "given_up_bytes_total", "influx"),
    );
    assert!(figure(&server, "filled_lines_total", "influx") > 0.0);
    assert_eq!(figure(&server, "given_up_bytes_total", "influx"), 0.0);
    assert!(server.log_line("host down").is_none(), "no host was taken for down");
    assert!(server.stop().success(), "{}", server.log_text());
    assert_same(&influxd, BUCKET, &in_store(&data, HOSTS, INTERVAL_MS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_a_new_influxdb_is_adding_it_with_a_start_and_removing_the_old_one() {
    const HOSTS: u32 = 10;
    const INTERVAL_MS: u32 = 1_000;
    let influxd = Influxd::start().await;
    for bucket in ["new", "again"] {
        influxd.create_bucket(bucket, None).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("server"), dir.path().join("server.toml"));
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, influxd.token().reveal()).unwrap();
    let (url, token_file) = (influxd.url(), token_file.to_str().unwrap().to_owned());
    let keys = |bucket: &str| {
        format!("url = {url:?}\norg = {ORG:?}\nbucket = {bucket:?}\ntoken_file = {token_file:?}\n")
    };
    let first = format!("[influx]\n{}", keys(BUCKET));
    let of = |name: &str, more: &str| format!("[[influx.targets]]\nname = {name:?}\n{}{more}\n", keys(name));
    let start = |text: &str| {
        std::fs::write(&config, text).unwrap();
        Server::start(&data, &["--config", config.to_str().unwrap()])
    };

    let mut server = start(&first);
    assert!(simulate(&server, HOSTS, INTERVAL_MS, 8).wait(Duration::from_secs(60)).success());
    has_all(&server, "influx");
    // A journal that holds nothing any more: all that comes to the new one comes from history.
    assert!(server.stop().success(), "{}", server.log_text());

    let both = format!("{first}{}", of("new", "start = 2026-01-01T00:00:00Z"));
    let mut server = start(&both);
    assert!(simulate(&server, HOSTS, INTERVAL_MS, 4).wait(Duration::from_secs(60)).success());
    has_all(&server, "new");
    has_all(&server, "influx");
    assert!(figure(&server, "filled_lines_total", "new") > 0.0);
    let (done, listed) = command(&config, &data, &["targets"]);
    assert!(done && listed.contains("\nnew ") && listed.contains("\ninflux "), "{listed}");
    assert!(server.stop().success(), "{}", server.log_text());

    let mut server = start(&of("new", "start = 2026-01-01T00:00:00Z"));
    let said = server.log_line("no longer configured").unwrap();
    assert!(said.contains("influx=influx") && said.contains("lag_bytes="), "{said}");
    assert!(!data.join("influx/influx").exists() && data.join("influx/new").exists());
    has_all(&server, "new");
    assert_eq!(figure(&server, "filled_lines_total", "new"), 0.0, "the start counts once");
    assert!(server.stop().success());

    let host = Host::numbered(SEED, 3, "sim-", INTERVAL_MS).name;
    // A third one, and history for it by hand: noted while no server runs, and while one does.
    std::fs::write(&config, format!("{}{}", of("new", ""), of("again", ""))).unwrap();
    let ago = (vitals_server::clock::now_ms() - 600_000).to_string();
    let (done, said) =
        command(&config, &data, &["backfill", "--from", &ago, "--target", "again", "--host", &host]);
    println!("{said}");
    assert!(
        done && said.contains("Noted for again: host sim-") && said.contains("when a server runs"),
        "{said}"
    );
    let mut server = Server::start(&data, &["--config", config.to_str().unwrap()]);
    has_all(&server, "again");
    let (done, said) = command(&config, &data, &["backfill", "--from", &ago, "--target", "again"]);
    assert!(
        done && said.contains("Noted for again: all hosts") && said.contains("is being written"),
        "{said}"
    );
    for (args, words) in [
        (&["backfill", "--from", &ago, "--target", "nobody"][..], "configured are: new, again"),
        (&["backfill", "--from", &ago, "--host", "nobody"], "no host has the id or name"),
        (&["backfill", "--from", "0", "--to", "1"], "history goes from"),
    ] {
        let (done, said) = command(&config, &data, args);
        assert!(!done && said.contains(words), "{args:?}: {said}");
    }
    has_all(&server, "again");
    assert!(server.stop().success(), "{}", server.log_text());
    let stored = in_store(&data, HOSTS, INTERVAL_MS);
    for bucket in [BUCKET, "new", "again"] {
        assert_same(&influxd, bucket, &stored).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_influxdb_refuses_are_listed_with_its_words() {
    let influxd = Influxd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("server"), dir.path().join("server.toml"));
    let (url, token) = (influxd.url(), influxd.token());
    let token = token.reveal();
    let text = format!("[influx]\nurl = {url:?}\norg = {ORG:?}\nbucket = {BUCKET:?}\ntoken = {token:?}\n");
    std::fs::write(&config, text).unwrap();
    let now = vitals_server::clock::now_ms();
    let (status, answer) = influxd.write(BUCKET, format!("system uptime=\"x\" {now}000000\n")).await;
    assert_eq!(status, 204, "{answer}");
    let mut server = Server::start(&data, &["--config", config.to_str().unwrap()]);
    assert!(simulate(&server, 2, 1_000, 3).wait(Duration::from_secs(60)).success());
    has_all(&server, "influx");
    let listed = server.json("/api/v1/quarantine?target=influx&limit=2");
    let total = listed["total"].as_u64().unwrap();
    let lines = listed["lines"].as_array().unwrap();
    assert!(total >= 4 && lines.len() == 2, "{listed}");
    assert_eq!(lines[0]["reason"], "type_conflict");
    assert!(lines[0]["error"].as_str().unwrap().contains("already exists as type string"), "{listed}");
    assert!(lines[0]["line"].as_str().unwrap().starts_with("system,host=sim-"), "{listed}");
    let next = server.json(&format!("/api/v1/quarantine?skip={}", total - 1));
    assert_eq!(next["lines"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/api/v1/quarantine?target=nobody").0, 404);
    assert_eq!(server.get("/api/v1/quarantine?limit=1001").0, 400);
    let api = server.json("/api/openapi.json");
    for path in ["/api/v1/quarantine", "/api/v1/targets"] {
        assert!(api["paths"][path]["get"].is_object(), "{path}");
    }
    let of_running = command(&config, &data, &["quarantine", "--json"]);
    assert!(server.stop().success());
    let at_rest = command(&config, &data, &["quarantine", "--json"]);
    let parse = |(done, text): (bool, String)| -> Value {
        assert!(done, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(parse(of_running), parse(at_rest));
    let (done, shown) = command(&config, &data, &["quarantine", "--limit", "1"]);
    assert!(done && shown.starts_with("# 20") && shown.contains("\nsystem,host=sim-"), "{shown}");
    let (done, shown) = command(&config, &data, &["targets"]);
    assert!(done && shown.contains("server not running"), "{shown}");
}
