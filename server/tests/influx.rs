//! The journal's way into InfluxDB, with a real one, and with servers that only look like one.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "influx/fake.rs"]
mod fake;
#[path = "influx/owed.rs"]
mod owed;
#[path = "influx/rig.rs"]
mod rig;
mod support;
#[path = "influx/throughput.rs"]
mod throughput;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use fake::{Behave, Fake};
use rig::{Rig, now_ms, soon};
use support::influxd::{BUCKET, Influxd, ORG};
use support::readings::{StoredField, expected, from_flux, from_influxql, sample, small_sample};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vitals_server::influx::delivery::{Delivery, Dropped, Limits, Next};
use vitals_server::influx::http::WriteClient;
use vitals_server::influx::owed::Span;
use vitals_server::influx::setup::{Found, SetUp};
use vitals_server::influx::{
    self, Filled, History, InfluxError, InfluxOptions, TagsAt, Target, Token, check, set_up, starting_point,
};
use vitals_server::journal::{Encoded, Journal, JournalOptions};
use vitals_server::metrics::{Metrics, TargetMetrics};
use vitals_wire::ids::HostId;
use vitals_wire::line::HostTags;
use vitals_wire::line::write_sample;
use vitals_wire::log::{Position, RealFs};
use vitals_wire::record::Record;
use vitals_wire::sample::Sample;

/// How long anything may take that happens by itself.
const SOON: Duration = Duration::from_secs(60);

fn assert_same(found: &BTreeSet<StoredField>, expected: &BTreeSet<StoredField>) {
    let missing: Vec<_> = expected.difference(found).take(3).collect();
    let surplus: Vec<_> = found.difference(expected).take(3).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}, not expected {surplus:#?}");
    assert!(!expected.is_empty());
}

async fn assert_stored(influxd: &Influxd, expected: &BTreeSet<StoredField>) {
    assert_same(&from_flux(influxd.everything(BUCKET).await), expected);
    let results = influxd.influxql(BUCKET, "select * from /.*/ group by *").await;
    assert_same(&from_influxql(&results, expected), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_are_read_back_field_by_field_with_flux_and_influxql() {
    let influxd = Influxd::start().await;
    let rig = Rig::new();
    rig.host(2, "db-1", &[("env", "test"), ("rack", "r 7")]);
    let begin = now_ms() - 3_600_000;
    let mut all = BTreeSet::new();
    for batch in 0..20 {
        for (number, tags) in [
            (1, &[("env", "prod"), ("host", "web-1")][..]),
            (2, &[("env", "test"), ("host", "db-1"), ("rack", "r 7")]),
        ] {
            let samples: Vec<Sample> = (0..3)
                .map(|n| {
                    sample(begin + batch * 15_000 + n * 5_000 + i64::from(number), (batch * 10 + n) as u64)
                })
                .collect();
            samples.iter().for_each(|sample| all.extend(expected(tags, sample)));
            rig.commit(number, samples).await;
        }
    }
    let running = rig.start(&rig.options(influxd.url(), influxd.token()));
    rig.drained().await;
    assert_stored(&influxd, &all).await;
    assert_eq!(rig.metrics().dropped.iter().map(|(_, count)| count).sum::<u64>(), 0);
    assert!(rig.metrics().lines.get() > 120 * 20);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_need_escaping_are_read_back_as_they_are() {
    let influxd = Influxd::start().await;
    let rig = Rig::new();
    // What `vitals_wire::line` says of backslashes: doubled before an escaped character, never alone at an end.
    let names = [
        ("plain", "plain"),
        ("a b", "a b"),
        ("a,b", "a,b"),
        ("a=b", "a=b"),
        ("a\"b\"", "a\"b\""),
        ("it's", "it's"),
        ("数据库 1", "数据库 1"),
        ("a\\b", "a\\b"),
        ("a\\\\b", "a\\\\b"),
        ("a\\ b", "a\\\\ b"),
        ("a\\,b", "a\\\\,b"),
        ("a\\\\=b", "a\\\\\\\\=b"),
        ("\\a", "\\a"),
        ("end\\", "end\\_"),
        ("end\\\\", "end\\\\_"),
        ("\\", "\\_"),
        ("{a: [1]}", "{a: [1]}"),
        ("$HOME;--", "$HOME;--"),
        ("#c", "#c"),
        ("é\u{301}😀", "é\u{301}😀"),
    ];
    let mut all = BTreeSet::new();
    for (number, (name, read_back)) in (1..).zip(names) {
        rig.host(number, name, &[("site", name)]);
        let sample = sample(now_ms() - 5_000, number.into());
        all.extend(expected(&[("host", read_back), ("site", read_back)], &sample));
        rig.commit(number, vec![sample]).await;
    }
    let running = rig.start(&rig.options(influxd.url(), influxd.token()));
    rig.drained().await;
    assert_eq!(rig.dropped("malformed"), 0);
    assert_stored(&influxd, &all).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_after_influxdb_was_killed_while_samples_came() {
    let mut influxd = Influxd::start().await;
    let rig = Rig::new();
    let running = rig.start(&rig.options(influxd.url(), influxd.token()));
    let tags = [("env", "prod"), ("host", "web-1")];
    let begin = now_ms() - 600_000;
    let mut all = BTreeSet::new();
    for n in 0..300 {
        let sample = small_sample(begin + n * 1_000, n as i32);
        all.extend(expected(&tags, &sample));
        rig.commit(1, vec![sample]).await;
        if n == 100 || n == 200 {
            influxd.kill();
        }
        if n == 150 || n == 250 {
            soon("it is noticed", || rig.errors("unreachable") > 0).await;
            soon("the lag is seen", || rig.metrics().lag_bytes.get() > 0).await;
            influxd.start_again().await;
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    rig.drained().await;
    assert_stored(&influxd, &all).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_and_a_missing_bucket_keep_everything_until_they_are_mended() {
    let influxd = Influxd::start().await;
    let rig = Rig::new();
    let tags = [("env", "prod"), ("host", "web-1")];
    let sample = sample(now_ms() - 1_000, 1);
    rig.commit(1, vec![sample.clone()]).await;

    let mut options = rig.options(influxd.url(), "wrong".into());
    let running = rig.start(&options);
    soon("it is refused", || rig.errors("unauthorized") >= 2).await;
    running.stop().await;
    assert_eq!(rig.cursor(), Position::default());

    let may_only_write = influxd.create_write_token(BUCKET).await;
    options.token = may_only_write.clone();
    options.bucket = "later".into();
    let running = rig.start(&options);
    soon("it is refused", || rig.errors("not_found") + rig.errors("unauthorized") >= 4).await;
    running.stop().await;

    options.token = influxd.token();
    let running = rig.start(&options);
    soon("it is refused", || rig.errors("not_found") >= 2).await;
    influxd.create_bucket("later", None).await;
    rig.drained().await;
    running.stop().await;
    assert_same(&from_flux(influxd.everything("later").await), &expected(&tags, &sample));

    // One that may only write is enough.
    std::fs::remove_file(options.cursor_file()).unwrap();
    options = rig.options(influxd.url(), may_only_write);
    let running = rig.start(&options);
    rig.drained().await;
    running.stop().await;
    assert_same(&from_flux(influxd.everything(BUCKET).await), &expected(&tags, &sample));
    assert_eq!(rig.metrics().dropped.iter().map(|(_, count)| count).sum::<u64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_conflict_and_an_old_point_lose_their_own_line_only_and_are_counted() {
    let influxd = Influxd::start().await;
    influxd.create_bucket("short", Some(Duration::from_secs(7_200))).await;
    let rig = Rig::new();
    let mut options = rig.options(influxd.url(), influxd.token());
    options.bucket = "short".into();
    let now = now_ms();
    // `kernel.boot_time` is an integer; here somebody has made a text of it in the same shard.
    let (status, answer) = influxd.write("short", format!("kernel boot_time=\"x\" {now}000000\n")).await;
    assert_eq!(status, 204, "{answer}");
    let good = sample(now, 3);
    let old = small_sample(now - 10 * 3_600_000, 5);
    rig.commit(1, vec![good.clone(), old]).await;
    let running = rig.start(&options);
    rig.drained().await;
    running.stop().await;
    let mut wanted = expected(&[("env", "prod"), ("host", "web-1")], &good);
    wanted.retain(|field| field.measurement != "kernel");
    let mut found = from_flux(influxd.everything("short").await);
    found.retain(|field| field.measurement != "kernel");
    assert_same(&found, &wanted);
    assert_eq!((rig.dropped("type_conflict"), rig.dropped("too_old")), (1, 1));
    // The conflict is a person's business, what is too old is not.
    let (entries, total) = rig.target(&options, None).quarantine.newest(0, 10).unwrap();
    assert_eq!(total, 1);
    assert!(entries[0].line.starts_with("kernel,") && entries[0].reason == "type_conflict", "{entries:?}");
    assert!(entries[0].words.contains("already exists as type string"), "{entries:?}");
    assert_eq!(rig.metrics().quarantined.get(), 1);
}

/// Drives `delivery` with real requests until all is settled; gives what was dropped.
async fn deliver(client: &WriteClient, delivery: &mut Delivery) -> Vec<Dropped> {
    let mut dropped = Vec::new();
    while !delivery.is_empty() {
        match delivery.next(Instant::now()) {
            Next::Send(job) => {
                let answer = client.write(job.body.clone()).await;
                let outcome = delivery.answered(job, &answer, Instant::now(), 0.5);
                assert_eq!(outcome.change, None, "{answer:?}");
                dropped.extend(outcome.dropped);
            }
            Next::At(at) => tokio::time::sleep_until(at.into()).await,
            Next::Nothing => panic!("nothing to do"),
        }
        delivery.settle();
    }
    dropped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_line_is_found_among_a_thousand_and_the_others_are_stored() {
    let influxd = Influxd::start().await;
    let options = InfluxOptions::new("influx", influxd.url(), ORG, BUCKET, influxd.token(), "unused");
    let client = WriteClient::new(&options).unwrap();
    let mut delivery = Delivery::new(Limits {
        in_flight: 1,
        owed_in_flight: 1,
        max_lines: 5_000,
        backoff_min: Duration::from_millis(500),
        backoff_max: Duration::from_secs(30),
        slow_retry: Duration::from_secs(30),
    });
    // The writer of lines never makes such ones, so they are made by hand.
    let lines: String = (0..1_000)
        .map(|n| match n {
            17 => "m,host= v=1 17\n".to_owned(),
            400 => "m v=NaN 400\n".to_owned(),
            999 => "m,host=a\\ v=1 999\n".to_owned(),
            n => format!("m v={n} {n}\n"),
        })
        .collect();
    delivery.offer(Bytes::from(lines), 1_000, Position { segment: 1, offset: 1 }, 0);
    let dropped = deliver(&client, &mut delivery).await;
    let mut lines: Vec<&[u8]> = dropped.iter().filter_map(|dropped| dropped.line.as_deref()).collect();
    lines.sort();
    assert_eq!(lines, [&b"m v=NaN 400\n"[..], b"m,host= v=1 17\n", b"m,host=a\\ v=1 999\n"]);
    assert!(dropped.iter().all(|dropped| dropped.reason == "malformed" && dropped.lines == 1));
    assert!(dropped.iter().any(|dropped| dropped.words.contains("invalid number")), "{dropped:?}");
    let stored = influxd.influxql(BUCKET, "select count(v) from m").await;
    assert_eq!(stored[0]["series"][0]["values"][0][1], 997);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_of_a_host_that_nobody_knows_are_counted_and_pass() {
    let fake = Fake::start([]).await;
    let rig = Rig::new();
    rig.commit(9, vec![small_sample(1_000, 1), small_sample(2_000, 2)]).await;
    rig.commit(1, vec![small_sample(3_000, 3)]).await;
    let running = rig.start(&rig.options(fake.url(), "t".into()));
    rig.drained().await;
    running.stop().await;
    assert_eq!(rig.dropped("no_host"), 2);
    assert_eq!(fake.lines().len(), 1);
}

/// Lets the writer meet `script`, and a good server after it: every line must arrive, and `reason` be counted.
async fn survives(script: Vec<Behave>, reason: &str) {
    let count = script.len() as u64;
    let fake = Fake::start(script).await;
    let rig = Rig::new();
    for n in 0..10 {
        rig.commit(1, vec![small_sample(n * 1_000, n as i32)]).await;
    }
    let mut options = rig.options(fake.url(), "t".into());
    options.timeout = Duration::from_millis(300);
    let running = rig.start(&options);
    rig.drained().await;
    running.stop().await;
    assert_eq!(fake.lines().len(), 10, "{reason}");
    assert_eq!(rig.metrics().lines.get(), 10, "{reason}");
    assert_eq!(rig.errors(reason), count, "{reason}");
    assert_eq!(rig.metrics().dropped.iter().map(|(_, count)| count).sum::<u64>(), 0, "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_do_not_answer_as_influxdb_does_cost_time_and_nothing_else() {
    use Behave::*;
    let html = "<html><body>Please log in</body></html>";
    let as_html = "content-type: text/html\r\n";
    survives(vec![Hang, Hang], "timeout").await;
    survives(vec![Close, CloseInside, TakeAndClose], "unreachable").await;
    survives(
        vec![Say("200 OK", as_html, html), Say("200 OK", "", ""), Say("202 Accepted", "", "{}")],
        "unexpected",
    )
    .await;
    survives(vec![Say("400 Bad Request", as_html, html), Say("404 Not Found", as_html, html)], "unexpected")
        .await;
    survives(vec![Say("403 Forbidden", as_html, html)], "unauthorized").await;
    survives(vec![Say("503 Service Unavailable", "retry-after: 1\r\n", ""), Say("429 Slow", "", "")], "busy")
        .await;
    survives(
        vec![Say("500 Broken", "", r#"{"code":"internal error","message":"disk full"}"#)],
        "server_error",
    )
    .await;
    survives(vec![Say("413 Too Large", "", "")], "too_large").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed() {
    let elsewhere = Fake::start([]).await;
    let location: &'static str = format!("location: {}/api/v2/write?x\r\n", elsewhere.url()).leak();
    survives(
        vec![
            Behave::Say("301 Moved", location, ""),
            Behave::Say("307 Temporary", location, ""),
            Behave::Say("308 Permanent", location, ""),
        ],
        "unexpected",
    )
    .await;
    assert_eq!(elsewhere.requests(), 0, "the lines and the token went nowhere else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_yet_gets_everything_once_it_is() {
    let rig = Rig::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = closed.local_addr().unwrap();
    drop(closed);
    rig.commit(1, vec![small_sample(1_000, 1)]).await;
    let running = rig.start(&rig.options(format!("http://{addr}"), "t".into()));
    soon("it is tried again and again", || rig.errors("unreachable") >= 4).await;
    soon("the lag is seen", || rig.metrics().lag_bytes.get() > 0 && rig.metrics().lag_ms.get() > 0).await;
    running.stop().await;
    let fake = Fake::start([]).await;
    let running = rig.start(&rig.options(fake.url(), "t".into()));
    rig.drained().await;
    running.stop().await;
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_committed_arrives_however_often_the_writer_is_killed() {
    let fake = Fake::slow(Duration::from_millis(8)).await;
    let rig = Rig::new();
    let mut options = rig.options(fake.url(), "t".into());
    options.batch_lines = 20;
    options.max_lines = 40;
    options.batch_wait = Duration::from_millis(5);
    let mut committed = 0;
    let mut random = fastrand::Rng::with_seed(4711);
    let mut cursors = BTreeSet::new();
    for _ in 0..60 {
        let running = rig.start(&options);
        let lives = Duration::from_millis(random.u64(0..60));
        let begun = Instant::now();
        while begun.elapsed() < lives {
            let count = random.i32(1..15);
            let samples =
                (committed..committed + count).map(|n| small_sample(i64::from(n) * 1_000, n)).collect();
            rig.commit(1, samples).await;
            committed += count;
        }
        if random.u8(0..4) == 0 {
            running.stop().await;
        } else {
            running.kill().await;
        }
        cursors.insert(rig.cursor());
        assert!(rig.cursor() <= rig.journal.end());
    }
    let running = rig.start(&options);
    rig.drained().await;
    running.stop().await;
    let lines = fake.lines();
    for n in 0..committed {
        let line = format!(
            "temp,env=prod,host=web-1,sensor=t temp={} {}",
            f64::from(n) / 1_000.0,
            i64::from(n) * 1_000_000_000
        );
        assert!(lines.contains_key(&line), "{line} of {committed}");
    }
    assert_eq!(lines.len(), committed as usize);
    assert!(cursors.len() > 5, "the cursor moved in between: {}", cursors.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_cursor_writes_everything_again_and_loses_nothing() {
    let fake = Fake::start([]).await;
    let rig = Rig::new();
    let options = rig.options(fake.url(), "t".into());
    for n in 0..2 {
        rig.commit(1, vec![small_sample(n * 1_000, n as i32)]).await;
    }
    let running = rig.start(&options);
    rig.drained().await;
    running.stop().await;
    std::fs::write(options.cursor_file(), b"not a cursor at all, by far").unwrap();
    rig.commit(1, vec![small_sample(5_000, 5)]).await;
    let running = rig.start(&options);
    soon("it is written", || fake.lines().len() == 3).await;
    running.stop().await;
    assert_eq!(fake.lines().len(), 3);
    assert_eq!(rig.cursor(), rig.journal.end(), "the cursor is good again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_just_before_the_shutdown_is_still_written() {
    let fake = Fake::start([]).await;
    let rig = Rig::new();
    let mut options = rig.options(fake.url(), "t".into());
    options.batch_wait = Duration::from_secs(60);
    let running = rig.start(&options);
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.commit(1, vec![small_sample(1_000, 1)]).await;
    let begun = Instant::now();
    running.stop().await;
    assert_eq!(fake.lines().len(), 1);
    assert_eq!(rig.cursor(), rig.journal.end());
    assert!(begun.elapsed() < Duration::from_secs(4), "it does not wait for its limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_an_influxdb_that_hangs() {
    let fake = Fake::start([Behave::Hang]).await;
    let rig = Rig::new();
    rig.commit(1, vec![small_sample(1_000, 1)]).await;
    let running = rig.start(&rig.options(fake.url(), "t".into()));
    soon("a request hangs", || fake.requests() == 1).await;
    let begun = Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(rig.cursor(), Position::default(), "nothing counts as written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_cannot_work_are_refused_before_anything_starts() {
    let rig = Rig::new();
    for (url, org, token) in [("localhost:8086", "o", "t"), ("http://h", "", "t"), ("http://h", "o", "")] {
        let options = InfluxOptions::new("influx", url, org, "b", token, rig.dir.path().join("c"));
        assert!(options.check().is_err(), "{url} {org} {token}");
    }
    let options = InfluxOptions::new("influx", "localhost:8086", "o", "b", "t", rig.dir.path().join("c"));
    assert!(matches!(check(&options).await, Err(InfluxError::Url { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_tells_what_the_token_sees_and_a_second_set_up_is_refused() {
    let influxd = Influxd::start().await;
    let mut options = InfluxOptions::new("influx", influxd.url(), ORG, BUCKET, influxd.token(), "unused");
    assert!(matches!(check(&options).await, Ok(Found::Bucket { version }) if version.contains("2.")));
    options.token = influxd.create_write_token(BUCKET).await;
    assert!(matches!(check(&options).await, Ok(Found::NoBucketSeen { .. })));
    options.token = "wrong".into();
    let error = check(&options).await.unwrap_err().to_string();
    assert!(error.contains("401"), "{error}");
    options.url = "http://127.0.0.1:1".into();
    assert!(check(&options).await.is_err());
    let again = SetUp {
        user: "u".into(),
        password: "password".into(),
        org: "o".into(),
        bucket: "b".into(),
        keep: Some(Duration::from_secs(7_200)),
    };
    assert!(matches!(set_up(&influxd.url(), &again).await, Err(InfluxError::SetUpBefore)));
}
