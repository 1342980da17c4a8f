use std::collections::BTreeMap;
use std::io::Write as _;

use vitals_wire::message::ClientMessage;
use vitals_wire::sample::encode_sample;

use super::script::{At, Given, Step};
use super::*;
use crate::queue::content_hash;
use crate::test_server::{Key, Server as TestServer, Session, welcome_to};

/// What a server saw: for each host its name and the hashes of its samples by time.
type Seen = BTreeMap<HostIdText, (String, BTreeMap<i64, u64>)>;
type HostIdText = String;

/// Serves all who come, until the test ends it.
fn serve(server: TestServer) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::new()));
    let kept = seen.clone();
    tokio::spawn(async move {
        loop {
            let session = server.accept().await;
            tokio::spawn(serve_one(session, kept.clone()));
        }
    });
    seen
}

async fn serve_one(mut session: Session, seen: Arc<Mutex<Seen>>) {
    let Some(ClientMessage::Hello(hello)) = session.next().await else { return };
    let host = hello.host.to_string();
    seen.lock().unwrap().entry(host.clone()).or_default().0 = hello.name.to_string();
    session.send(welcome_to(&hello.name)).await;
    while let Some(message) = session.next().await {
        let ClientMessage::Samples(samples) = message else { continue };
        {
            let mut seen = seen.lock().unwrap();
            let times = &mut seen.entry(host.clone()).or_default().1;
            for sample in &samples.samples {
                times.insert(sample.time_ms, content_hash(&encode_sample(sample).unwrap()));
            }
        }
        session.ack(samples.batch, &[]).await;
    }
}

async fn options(hosts: u32) -> (Options, Arc<Mutex<Seen>>) {
    let server = TestServer::start().await;
    let servers = vec![server.address().parse().unwrap()];
    let interval = "1s".parse().unwrap();
    let duration = Some(Duration::from_millis(1500));
    (Options { hosts, interval, duration, servers, insecure: true, ..Options::default() }, serve(server))
}

#[tokio::test]
async fn all_that_is_taken_is_settled_and_recorded_and_balances() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.jsonl");
    let (options, seen) = options(20).await;
    let options = Options { record: Some(record.clone()), ..options };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!((summary.hosts, summary.welcomed, summary.waiting, summary.unrecorded), (20, 20, 0, 0));
    assert!((20..=40).contains(&summary.taken), "{summary}");
    assert_eq!(summary.taken, summary.settled, "{summary}");
    assert!(summary.dropped.is_empty() && summary.ack_p99_ms.unwrap() < 1000.0);

    let mut recorded: BTreeMap<String, Seen> = BTreeMap::new();
    for line in std::fs::read_to_string(&record).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let host = recorded.entry(text("event")).or_default().entry(text("host")).or_default();
        host.0 = text("name");
        host.1.insert(line["time_ms"].as_i64().unwrap(), u64::from_str_radix(&text("hash"), 16).unwrap());
    }
    let seen = seen.lock().unwrap();
    assert_eq!(recorded["taken"], *seen);
    assert_eq!(recorded["settled"], *seen);
}

#[tokio::test]
async fn the_same_seed_plays_the_same_hosts_and_samples() {
    let (options, seen) = options(5).await;
    let first = run(options.clone(), CancellationToken::new()).await.unwrap();
    let hosts = |seen: &Arc<Mutex<Seen>>| seen.lock().unwrap().keys().cloned().collect::<Vec<_>>();
    let before = hosts(&seen);
    run(options.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!((before.len(), hosts(&seen)), (5, before), "no new hosts in {first}");
    for index in 0..5 {
        let host = Host::numbered(options.seed, index, "sim-", 1000);
        let seen = seen.lock().unwrap();
        let (name, samples) = &seen[&host.id.to_string()];
        assert_eq!(*name, host.name);
        for (time_ms, hash) in samples {
            let again = encode_sample(&host.sample(*time_ms, &Given::default())).unwrap();
            assert_eq!(content_hash(&again), *hash, "a test can compute each sample again");
        }
    }
}

#[tokio::test]
async fn a_script_is_played_to_its_end() {
    let (options, seen) = options(0).await;
    let step = |at, cpu| Step { at, given: Given { cpu: Some(cpu), ..Given::default() } };
    let past: Vec<Step> = (0..200).map(|n| step(At::TimeMs(1_700_000_000_000 + n * 5000), 50.0)).collect();
    let mixed = vec![step(At::AfterStart(0.1), 1.0), step(At::Both(0.2, 4_102_444_800_000), 2.0)];
    let script = Script::from([("past".to_owned(), past), ("mixed".to_owned(), mixed)]);
    let options = Options { duration: None, script: Some(script), ..options };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!((summary.taken, summary.settled), (202, 202), "{summary}");
    let seen = seen.lock().unwrap();
    let host = |name: &str| Host::named(1, name, 1000);
    let (_, past) = &seen[&host("past").id.to_string()];
    assert_eq!(past.keys().next(), Some(&1_700_000_000_000));
    assert_eq!(past.len(), 200);
    let (_, mixed) = &seen[&host("mixed").id.to_string()];
    assert_eq!(mixed.keys().next_back(), Some(&4_102_444_800_000));
}

#[tokio::test]
async fn without_a_server_samples_are_lost_oldest_first_and_counted() {
    let server = TestServer::start().await;
    let servers = vec![server.address().parse().unwrap()];
    drop(server);
    let steps = (0..10).map(|n| Step { at: At::TimeMs(n), given: Given::default() }).collect();
    let script = Script::from([("a".to_owned(), steps)]);
    let options = Options {
        hosts: 3,
        interval: "1s".parse().unwrap(),
        duration: Some(Duration::from_millis(2500)),
        servers,
        insecure: true,
        queue: 1,
        script: Some(script),
        ..Options::default()
    };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!((summary.settled, summary.welcomed), (0, 0));
    assert_eq!(summary.waiting, 3 + 10, "the newest of each ticking host, and the whole script");
    let dropped: u64 = summary.dropped.values().sum();
    assert_eq!(summary.taken, summary.waiting + dropped);
    assert!(dropped >= 3 && summary.dropped.keys().eq(["queue_full"]), "{summary}");
}

#[tokio::test]
async fn the_end_of_a_simulation_brings_home_what_waits() {
    let (options, seen) = options(10).await;
    let shutdown = CancellationToken::new();
    let playing = tokio::spawn(run(Options { duration: None, ..options }, shutdown.clone()));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    shutdown.cancel();
    let summary = playing.await.unwrap().unwrap();
    assert_eq!((summary.taken, summary.waiting), (summary.settled, 0));
    let stored: usize = seen.lock().unwrap().values().map(|(_, samples)| samples.len()).sum();
    assert_eq!(stored as u64, summary.settled);
}

#[tokio::test]
async fn an_impossible_ca_file_and_an_impossible_record_are_refused() {
    let no_ca = Options { ca_file: Some("/nowhere/ca".into()), ..Options::default() };
    let error = run(no_ca, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/ca"), "{error}");
    let nowhere = Options { insecure: true, record: Some("/nowhere/record".into()), ..Options::default() };
    let error = run(nowhere, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/record"), "{error}");
}

#[tokio::test]
async fn a_backlog_is_brought_home_as_older_samples_that_can_be_computed_and_counts_as_taken() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.jsonl");
    let (options, seen) = options(3).await;
    let options = Options {
        backlog: Some(Duration::from_secs(8)),
        record: Some(record.clone()),
        duration: Some(Duration::from_millis(1500)),
        ..options
    };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!((summary.taken, summary.waiting), (summary.settled, 0), "{summary}");
    let seen = seen.lock().unwrap();
    for index in 0..3 {
        let host = Host::numbered(1, index, "sim-", 1000);
        let (_, samples) = &seen[&host.id.to_string()];
        let times: Vec<i64> = samples.keys().copied().collect();
        assert!((9..=11).contains(&times.len()), "{times:?}");
        assert!(times[..8].windows(2).all(|pair| pair[1] - pair[0] == 1000), "{times:?}");
        for (time_ms, hash) in samples {
            let again = encode_sample(&host.sample(*time_ms, &Given::default())).unwrap();
            assert_eq!(content_hash(&again), *hash);
        }
    }
    let text = std::fs::read_to_string(&record).unwrap();
    assert_eq!(text.matches("\"taken\"").count() as u64, summary.taken);
}

#[tokio::test]
async fn a_data_directory_keeps_hosts_times_and_the_record_apart_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.jsonl");
    let (options, _) = options(2).await;
    let nowhere = TestServer::start().await;
    let servers = vec![nowhere.address().parse().unwrap()];
    drop(nowhere);
    let options = Options {
        data_dir: Some(dir.path().join("fleet")),
        record: Some(record.clone()),
        duration: Some(Duration::from_millis(1200)),
        ..options
    };
    let away = run(Options { servers, ..options.clone() }, CancellationToken::new()).await.unwrap();
    assert_eq!((away.settled, away.waiting), (0, away.taken), "{away}");
    // As a kill may leave it.
    std::fs::OpenOptions::new().append(true).open(&record).unwrap().write_all(b"{\"event\":\"ta").unwrap();
    let back = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!((back.settled, back.waiting), (away.taken + back.taken, 0), "{back}");
    let mut digits = std::collections::BTreeSet::new();
    let mut settled = 0;
    for line in std::fs::read_to_string(&record).unwrap().lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        digits.insert(line["time_ms"].as_i64().unwrap() % 10);
        settled += u64::from(line["event"] == "settled");
    }
    assert_eq!((digits.len(), settled), (2, back.settled), "{digits:?}");
}

#[tokio::test]
async fn a_fleet_joins_over_tls_with_one_token_and_keeps_one_file_of_what_it_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let key = Key::new(&["x"]);
    let server = TestServer::with_key(&key).await;
    let address = server.address();
    let named = key.pin();
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let notes = seen.clone();
    tokio::spawn(async move {
        loop {
            let mut session = server.accept().await;
            let notes = notes.clone();
            tokio::spawn(async move {
                let Some(ClientMessage::Hello(hello)) = session.next().await else { return };
                let host = hello.host;
                notes.lock().unwrap().insert(host, (hello.token.is_some(), false));
                let mut welcome = welcome_to(&hello.name);
                welcome.pins = List::new(vec![named.0]).unwrap();
                welcome.rotate_secret = true;
                session.send(welcome).await;
                while let Some(message) = session.next().await {
                    match message {
                        ClientMessage::Samples(samples) => session.ack(samples.batch, &[]).await,
                        ClientMessage::Learnt(_) => notes.lock().unwrap().get_mut(&host).unwrap().1 = true,
                        ClientMessage::NewSecret(_) => panic!("a function of the seed does not change"),
                        _ => {}
                    }
                }
            });
        }
    });
    let secret = vitals_wire::ids::Secret([5; 32]);
    let addresses = vec![address.clone()];
    let join = vitals_wire::token::JoinToken { secret, expires_ms: 0, pins: vec![key.pin().0], addresses };
    let token: Token = join.to_string().parse().unwrap();
    let options = Options {
        hosts: 5,
        interval: "1s".parse().unwrap(),
        duration: Some(Duration::from_millis(1200)),
        servers: token.servers().to_vec(),
        pins: token.pins(),
        token: Some(token),
        state: Some(state.clone()),
        ..Options::default()
    };
    let summary = run(options.clone(), CancellationToken::new()).await.unwrap();
    assert_eq!((summary.welcomed, summary.taken), (5, summary.settled), "{summary}");
    let first = std::mem::take(&mut *seen.lock().unwrap());
    assert!(first.len() == 5 && first.values().all(|said| *said == (true, true)), "{first:?}");
    let kept = Kept::read(&state).unwrap();
    assert_eq!((kept.addresses, kept.pins, kept.host), (vec![address], vec![key.pin()], None));
    let again = Options { servers: vec![], pins: vec![], token: None, ..options };
    let summary = run(again, CancellationToken::new()).await.unwrap();
    assert_eq!(summary.welcomed, 5, "the file alone is enough: {summary}");
    assert!(seen.lock().unwrap().keys().eq(first.keys()));
}
