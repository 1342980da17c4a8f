//! What the real client says it sends is what a real InfluxDB gives back, read with Flux and with InfluxQL, field by field
//! and floats to the bit.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::client::Client;
use support::influxd::{BUCKET, Influxd, ORG};
use support::readings::{Stored, StoredField, from_flux, from_influxql};
use support::server::{Server, wait_for};

/// A name and labels that need every escape there is but a backslash, which line protocol cannot say at every place.
const NAME: &str = "tee host, a=b \"c\" 数";

fn of_hosts(fields: BTreeSet<StoredField>) -> BTreeSet<StoredField> {
    fields
        .into_iter()
        .filter(|field| !matches!(&*field.measurement, "vitals_server" | "vitals_event"))
        .collect()
}

fn assert_same(how: &str, found: &BTreeSet<StoredField>, wanted: &BTreeSet<StoredField>) {
    let missing: Vec<_> = wanted.difference(found).take(3).collect();
    let more: Vec<_> = found.difference(wanted).take(3).collect();
    assert!(missing.is_empty() && more.is_empty(), "{how}: missing {missing:#?}, too much {more:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_sends_is_what_influxdb_gives_back() {
    let influxd = Influxd::start().await;
    influxd.create_bucket("tee", None).await;
    let dir = tempfile::tempdir().unwrap();
    let url = influxd.url();
    let token = influxd.token();
    let env = [
        ("VITALS_INFLUX_URL", &*url),
        ("VITALS_INFLUX_ORG", ORG),
        ("VITALS_INFLUX_BUCKET", BUCKET),
        ("VITALS_INFLUX_TOKEN", token.reveal()),
    ];
    let loopback = "127.0.0.1:0".parse().unwrap();
    let mut server = Server::start_at(&dir.path().join("server"), loopback, loopback, &[], &env);
    let tee = dir.path().join("tee.lp");
    let more =
        ["--interval", "1s", "--label", "env=prod", "--label", "rack=row 7", "--tee", tee.to_str().unwrap()];
    let mut client = Client::run(server.clients, &dir.path().join("client"), NAME, &more);
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(client.stop().success());
    wait_for("InfluxDB to have all of it", Duration::from_secs(60), || {
        (server.metric("vitals_influx_lag_bytes{target=\"influx\"}") == 0.0).then_some(())
    });
    assert!(server.stop().success());

    // The same InfluxDB reads what was said to be sent.
    let (status, answer) = influxd.write("tee", std::fs::read_to_string(&tee).unwrap()).await;
    assert_eq!(status, 204, "{answer}");
    let wanted = from_flux(influxd.everything("tee").await);
    let times: BTreeSet<i64> = wanted.iter().map(|field| field.ns).collect();
    assert!(times.len() >= 7 && wanted.len() > 7 * 50, "{} samples, {} fields", times.len(), wanted.len());
    assert!(wanted.iter().all(|field| field.tags["host"] == NAME && field.tags["rack"] == "row 7"));
    assert!(wanted.iter().any(|field| matches!(field.value, Stored::Float(_))));

    assert_same("Flux", &of_hosts(from_flux(influxd.everything(BUCKET).await)), &wanted);
    let results = influxd.influxql(BUCKET, "select * from /.*/ group by *").await;
    assert_same("InfluxQL", &of_hosts(from_influxql(&results, &wanted)), &wanted);
    the_servers_own_points_are_there(&influxd).await;
    println!("{} samples with {} fields read back from {url}", times.len(), wanted.len());
}

/// What the server says of itself and of its hosts, as Flux gives it.
async fn the_servers_own_points_are_there(influxd: &Influxd) {
    let rows = async |measurement: &str| {
        let range = "range(start: 0, stop: 2200-01-01T00:00:00Z)";
        let filter = format!("filter(fn: (r) => r._measurement == \"{measurement}\")");
        influxd.flux(&format!("from(bucket: \"{BUCKET}\") |> {range} |> {filter}")).await
    };
    let health = rows("vitals_server").await;
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert!(health.iter().all(|row| row["host"] == machine), "{health:#?}");
    for field in [
        "connections",
        "cpu_ms",
        "hosts",
        "hosts_up",
        "journal_bytes",
        "memory_rss",
        "samples_acked",
        "uptime",
    ] {
        let row = health.iter().find(|row| row["_field"] == field);
        let row = row.unwrap_or_else(|| panic!("no vitals_server.{field} in {health:#?}"));
        assert!(row["_value"].parse::<u64>().is_ok() && row["#_value"] == "long", "{row:#?}");
    }
    let memory = health.iter().find(|row| row["_field"] == "memory_rss").unwrap();
    assert!(memory["_value"].parse::<u64>().unwrap() > 1 << 20, "{memory:#?}");

    let events = rows("vitals_event").await;
    assert!(events.iter().all(|row| row["host"] == NAME), "{events:#?}");
    let of = |event: &str, field: &str| {
        let row = events.iter().find(|row| row["event"] == event && row["_field"] == field);
        row.unwrap_or_else(|| panic!("no {field} of {event} in {events:#?}"))["_value"].clone()
    };
    assert_eq!(of("up", "count"), "1");
    of("up", "detail");
}
