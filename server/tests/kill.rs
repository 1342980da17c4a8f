//! SIGKILL of the server while 200 hosts send: every sample that was settled is in the store and reaches InfluxDB, as it
//! was taken, to the bit.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use support::client::Client;
use support::influxd::{BUCKET, Influxd, ORG};
use support::readings::{Stored, StoredField, expected, from_flux};
use support::server::{Server, wait_for};
use vitals_client::simulate::host::Host;
use vitals_client::simulate::script::Given;
use vitals_server::journal::{Journal, JournalOptions};
use vitals_server::metrics::Metrics;
use vitals_server::store::{self, Store, StoreOptions};

const HOSTS: u32 = 200;
const SEED: u64 = 7;
const INTERVAL_MS: u32 = 2_000;
const SECONDS: u64 = 24;

/// What a record says of one host: times taken, and times settled with the hash of the sample's bytes.
#[derive(Default)]
struct Recorded {
    taken: BTreeSet<i64>,
    settled: BTreeMap<i64, String>,
}

fn read_record(path: &Path) -> BTreeMap<String, Recorded> {
    let mut hosts: BTreeMap<String, Recorded> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let host = hosts.entry(line["name"].as_str().unwrap().to_owned()).or_default();
        let time_ms = line["time_ms"].as_i64().unwrap();
        match line["event"].as_str().unwrap() {
            "taken" => assert!(host.taken.insert(time_ms), "{line}: a time that was used before"),
            "settled" => {
                let again = host.settled.insert(time_ms, line["hash"].as_str().unwrap().to_owned());
                assert!(again.is_none(), "{line}: settled twice");
            }
            "dropped" => panic!("{line}: nothing had to be dropped"),
            other => panic!("{other}"),
        }
    }
    hosts
}

/// Everything that the store holds of a host, as it would stand in InfluxDB.
fn in_store(store: &Store, host: &Host, tags: &BTreeMap<String, String>) -> BTreeSet<StoredField> {
    let mut stored = BTreeSet::new();
    for info in store.fields(host.id).unwrap() {
        let own: Vec<String> = info.tags.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let selector = match own.len() {
            0 => format!("{}.{}", info.measurement, info.field),
            _ => format!("{}.{}{{{}}}", info.measurement, info.field, own.join(",")),
        };
        for series in store.series(host.id, &selector.parse().unwrap(), 0, i64::MAX, usize::MAX).unwrap() {
            let tags: BTreeMap<String, String> = tags.clone().into_iter().chain(series.tags).collect();
            for (time_ms, value) in series.points {
                let field = StoredField {
                    measurement: series.measurement.clone(),
                    tags: tags.clone(),
                    field: series.field.clone(),
                    ns: time_ms * 1_000_000,
                    value: match value {
                        store::Value::Float(float) => Stored::Float(float.to_bits()),
                        store::Value::Integer(integer) => Stored::Integer(integer),
                    },
                };
                assert!(stored.insert(field), "{selector}: a point twice");
            }
        }
    }
    stored
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_was_settled_before_and_after_two_kills_is_in_the_store_and_in_influxdb() {
    let influxd = Influxd::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("server");
    let record = dir.path().join("record.jsonl");
    let url = influxd.url();
    let token = influxd.token();
    let env = [
        ("VITALS_INFLUX_URL", &*url),
        ("VITALS_INFLUX_ORG", ORG),
        ("VITALS_INFLUX_BUCKET", BUCKET),
        ("VITALS_INFLUX_TOKEN", token.reveal()),
    ];
    let loopback = "127.0.0.1:0".parse().unwrap();
    let mut server = Server::start_at(&data, loopback, loopback, &[], &env);
    let (clients, http) = (server.clients, server.http);
    let (hosts, seconds, seed) = (HOSTS.to_string(), SECONDS.to_string(), SEED.to_string());
    let (interval, address) = (format!("{INTERVAL_MS}ms"), clients.to_string());
    let mut simulation = Client::start(&[
        "simulate",
        "--hosts",
        &hosts,
        "--interval",
        &interval,
        "--seconds",
        &seconds,
        "--seed",
        &seed,
        "--server",
        &address,
        "--record",
        record.to_str().unwrap(),
    ]);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(server.metric("vitals_samples_acknowledged_total") > 100.0, "it was in full swing");
        server.kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        server = Server::start_at(&data, clients, http, &[], &env);
    }
    assert!(simulation.wait(Duration::from_secs(90)).success());
    wait_for("InfluxDB to have all of it", Duration::from_secs(90), || {
        (server.metric("vitals_influx_lag_bytes{target=\"influx\"}") == 0.0).then_some(())
    });
    // Nobody was down, and nobody was told so.
    assert!(server.log_line("host down").is_none());
    assert!(server.stop().success(), "{}", server.log_text());

    let metrics = Arc::new(Metrics::new());
    let journal = Journal::open(
        JournalOptions {
            cap_bytes: 1 << 30,
            group: Duration::from_millis(1),
            ..JournalOptions::new(data.join("journal"))
        },
        metrics.clone(),
    )
    .unwrap();
    let store = Store::open(StoreOptions::new(data.join("history.db")), &journal, metrics).unwrap();
    store.flush().unwrap();
    let recorded = read_record(&record);
    assert_eq!(recorded.len(), HOSTS as usize);
    let (mut taken, mut settled, mut fields) = (0, 0, 0);
    for index in 0..HOSTS {
        let host = Host::numbered(SEED, index, "sim-", INTERVAL_MS);
        let of_host = &recorded[&host.name];
        taken += of_host.taken.len();
        settled += of_host.settled.len();
        let tags = [("host", &*host.name)];
        let wanted: BTreeSet<StoredField> = of_host
            .settled
            .iter()
            .flat_map(|(time_ms, hash)| {
                let sample = host.sample(*time_ms, &Given::default());
                let bytes = vitals_wire::sample::encode_sample(&sample).unwrap();
                assert_eq!(format!("{:016x}", vitals_client::queue::content_hash(&bytes)), *hash, "altered");
                expected(&tags, &sample)
            })
            .collect();
        fields += wanted.len();
        let stored = in_store(&store, &host, &[("host".to_owned(), host.name.clone())].into());
        let possible: BTreeSet<StoredField> = of_host
            .taken
            .iter()
            .flat_map(|time_ms| expected(&tags, &host.sample(*time_ms, &Given::default())))
            .collect();
        same(&format!("{} in the store", host.name), &wanted, &possible, &stored);
        let query = format!(
            r#"from(bucket: "{BUCKET}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) |> filter(fn: (r) => r.host == "{}" and r._measurement != "vitals_event") |> map(fn: (r) => ({{r with ns: int(v: r._time)}})) |> drop(columns: ["_start", "_stop", "_time"])"#,
            host.name
        );
        same(
            &format!("{} in InfluxDB", host.name),
            &wanted,
            &possible,
            &from_flux(influxd.flux(&query).await),
        );
    }
    println!(
        "{taken} samples taken, {settled} settled and found with {fields} fields in the store and in InfluxDB"
    );
    assert!(
        settled as u64 >= u64::from(HOSTS) * (SECONDS - 6) * 1_000 / u64::from(INTERVAL_MS),
        "only {settled}"
    );
}

/// All that was settled must be there. What was taken and not settled may be there too, since its `Ack` may have died on
/// the way, and nothing else.
fn same(
    what: &str,
    wanted: &BTreeSet<StoredField>,
    possible: &BTreeSet<StoredField>,
    found: &BTreeSet<StoredField>,
) {
    let missing: Vec<_> = wanted.difference(found).take(3).collect();
    assert!(missing.is_empty(), "{what}: missing {missing:#?}");
    let strange: Vec<_> = found.difference(possible).take(3).collect();
    assert!(strange.is_empty(), "{what}: never taken {strange:#?}");
}
