//! What an InfluxDB that was away too long is owed, and what becomes of lines that one refuses.

use super::*;
use vitals_server::journal::JournalReader;

/// An address where nobody listens.
fn nobody() -> String {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", closed.local_addr().unwrap())
}

/// A rig with a tiny journal, and a store that has passed all of it: what InfluxDB does not hold back goes.
fn tiny() -> (Rig, JournalReader) {
    let rig = Rig::with(32 << 10, 512 << 10);
    rig.host(2, "web-2", &[]);
    let store = rig.journal.reader("store", Position::default()).unwrap();
    (rig, store)
}

/// Commits `count` readings of two hosts as of now, and one in ten as backlog of some hours ago.
async fn load(rig: &Rig, store: &JournalReader, first: i64, count: i64) {
    for n in first..first + count {
        let host = (n % 2 + 1) as u8;
        let is_backlog = n % 10 == 0;
        let time_ms = if is_backlog { now_ms() - 7_200_000 + n * 10 } else { now_ms() };
        let record = Record {
            host: HostId([host; 16]),
            received_ms: now_ms(),
            backlog: is_backlog,
            samples: vec![sample(time_ms, n as u64)],
        };
        rig.commit_record(record).await;
        store.passed(rig.journal.end());
    }
}

/// All lines that were committed.
fn wanted(rig: &Rig) -> BTreeSet<String> {
    let mut text = Vec::new();
    for (tags, sample) in rig.history.samples.lock().unwrap().values() {
        write_sample(&mut text, tags, sample);
    }
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

fn assert_all_there(rig: &Rig, fake: &Fake) {
    let found: BTreeSet<String> = fake.lines().into_keys().collect();
    let wanted = wanted(rig);
    let missing: Vec<_> = wanted.difference(&found).take(3).collect();
    let surplus: Vec<_> = found.difference(&wanted).take(3).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}, never committed {surplus:#?}");
}

async fn filled(rig: &Rig) {
    soon("all that is owed is filled", || {
        rig.metrics().owed_spans.get() == 0 && rig.metrics().lag_bytes.get() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_influxdb_missed_beyond_its_share_is_owed_across_a_restart_and_filled_from_history() {
    let (rig, store) = tiny();
    let running = rig.start(&rig.options(nobody(), "t".into()));
    let mut count = 0;
    while rig.metrics().owed_bytes.get() < 300_000 {
        assert!(count < 20_000, "it never gave up");
        load(&rig, &store, count, 100).await;
        count += 100;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.kill().await;
    load(&rig, &store, count, 50).await;
    let fake = Fake::start([]).await;
    let options = rig.options(fake.url(), "t".into());
    let target = rig.target(&options, None);
    let owed = target.book.owed();
    assert!(
        !owed.stretch().all().is_empty() && owed.stretch().hosts().count() > 0,
        "live and backlog: {owed:?}"
    );
    rig.history.is_broken.store(true, Ordering::SeqCst);
    let running = rig.start_target(target);
    rig.drained().await;
    assert!(rig.metrics().owed_spans.get() > 0, "history cannot be read yet");
    rig.history.is_broken.store(false, Ordering::SeqCst);
    filled(&rig).await;
    running.stop().await;
    assert_all_there(&rig, &fake);
    assert!(rig.metrics().filled_lines.get() > 1_000);
    assert_eq!(rig.metrics.influx_given_up_bytes.get(), 0, "nothing was taken away by force");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_noted_is_not_skipped_until_the_journal_takes_it_away_and_is_owed_by_its_time() {
    let (rig, store) = tiny();
    let options = rig.options(nobody(), "t".into());
    let target = rig.target(&options, None);
    // A file cannot be put where a directory is.
    let blocked = options.dir.join("owed.new");
    std::fs::create_dir(&blocked).unwrap();
    let running = rig.start_target(target.clone());
    let mut count = 1;
    // As long as it takes: when the journal looks is a matter of time, and on a busy machine much is loaded meanwhile.
    let began = std::time::Instant::now();
    while rig.metrics.influx_given_up_bytes.get() == 0 {
        assert!(began.elapsed() < Duration::from_secs(120), "nothing was taken away");
        for _ in 0..9 {
            load(&rig, &store, count, 1).await;
            count += if count % 10 == 9 { 2 } else { 1 };
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.metrics().owed_bytes.get(), 0, "nothing was skipped");
    std::fs::remove_dir(&blocked).unwrap();
    soon("it is noted", || rig.metrics().owed_bytes.get() > 0).await;
    load(&rig, &store, count, 9).await;
    running.stop().await;
    let fake = Fake::start([]).await;
    let running = rig.start(&rig.options(fake.url(), "t".into()));
    filled(&rig).await;
    running.stop().await;
    assert_all_there(&rig, &fake);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_the_journal_is_on_disk_as_owed_before_the_cursor_goes_behind_it() {
    let (rig, mut store) = tiny();
    let fake = Fake::start([]).await;
    let options = rig.options(fake.url(), "t".into());
    let running = rig.start(&options);
    load(&rig, &store, 1, 9).await;
    rig.drained().await;
    running.stop().await;
    // Nobody holds for it what comes now.
    rig.journal.forget("influx");
    let before = rig.cursor();
    for count in 0..100 {
        load(&rig, &store, 11 + count * 10, 9).await;
    }
    // Until it is gone.
    store = rig.journal.reader("store", store.position()).unwrap();
    store.passed(rig.journal.end());
    soon("it goes", || {
        let oldest = rig.journal.reader("look", Position::default()).unwrap().position();
        rig.journal.forget("look");
        oldest > before
    })
    .await;
    let target = rig.target(&options, None);
    // A file cannot be put where a directory is.
    let blocked = options.dir.join("owed.new");
    std::fs::create_dir(&blocked).unwrap();
    rig.history.is_broken.store(true, Ordering::SeqCst);
    let running = rig.start_target(target.clone());
    load(&rig, &store, 5_001, 9).await;
    soon("the gap is seen", || !target.book.owed().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    running.kill().await;
    std::fs::remove_dir(&blocked).unwrap();
    rig.history.is_broken.store(false, Ordering::SeqCst);
    let running = rig.start(&options);
    // The cursor goes on when the gap is noted.
    rig.drained().await;
    filled(&rig).await;
    running.stop().await;
    assert_all_there(&rig, &fake);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_a_journal_that_is_lost_is_owed_as_far_as_history_has_it() {
    let (mut rig, store) = tiny();
    let fake = Fake::start([]).await;
    let options = rig.options(fake.url(), "t".into());
    let running = rig.start(&options);
    load(&rig, &store, 1, 9).await;
    rig.drained().await;
    running.stop().await;
    load(&rig, &store, 11, 9).await;
    drop(store);
    rig.journal.close().await;
    let dir = rig.dir.path().join("journal");
    std::fs::remove_dir_all(&dir).unwrap();
    rig.journal = Journal::open(JournalOptions::new(dir), rig.metrics.clone()).unwrap();
    assert!(rig.cursor() > rig.journal.end());
    let store = rig.journal.reader("store", Position::default()).unwrap();
    let running = rig.start(&options);
    load(&rig, &store, 21, 9).await;
    rig.drained().await;
    filled(&rig).await;
    running.stop().await;
    assert_all_there(&rig, &fake);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_end_within_one_block_of_the_journal_are_owed_each() {
    let rig = Rig::grouped(32 << 10, 512 << 10, Duration::from_millis(200));
    let store = rig.journal.reader("store", Position::default()).unwrap();
    // Three batches and more that lie in one block, taken 50 s ago.
    let begin = now_ms() - 50_000;
    let mut commits = Vec::new();
    for n in 0..350 {
        let samples = vec![small_sample(begin + i64::from(n), n)];
        let record = Record { host: HostId([1; 16]), received_ms: now_ms(), backlog: false, samples };
        rig.remember(&record);
        commits.push(rig.journal.append(&Encoded::new(&record).unwrap()).unwrap());
    }
    for commit in commits {
        commit.wait().await.unwrap();
    }
    // The first is taken when the second is under way, and nothing after it.
    let late = Behave::TakeAfter(Duration::from_millis(500));
    let script = std::iter::once(late).chain(vec![Behave::Hang; 1_000]);
    let first = Fake::start(script).await;
    let options = InfluxOptions {
        max_lines: 100,
        timeout: Duration::from_secs(1),
        ..rig.options(first.url(), "t".into())
    };
    let running = rig.start(&options);
    soon("the first is taken", || rig.metrics().lines.get() == 100).await;
    let mut count = 1;
    while rig.metrics().owed_bytes.get() == 0 {
        assert!(count < 2_000, "it never gave up");
        let samples = (0..20).map(|n| sample(now_ms() + n, n as u64)).collect();
        rig.commit(1, samples).await;
        store.passed(rig.journal.end());
        count += 1;
    }
    running.kill().await;
    let second = Fake::start([]).await;
    let running = rig.start(&InfluxOptions { url: second.url(), ..options });
    filled(&rig).await;
    running.stop().await;
    let found: BTreeSet<String> = first.lines().into_keys().chain(second.lines().into_keys()).collect();
    let missing = wanted(&rig).difference(&found).count();
    assert_eq!(missing, 0, "lines are in neither");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_influxdb_that_hangs_does_not_slow_another() {
    let (hanging, good) = (Fake::start(vec![Behave::Hang; 100]).await, Fake::start([]).await);
    let rig = Rig::new();
    let stuck = rig.start(&rig.named_options("stuck", hanging.url(), "t".into()));
    let running = rig.start(&rig.options(good.url(), "t".into()));
    for n in 0..100 {
        rig.commit(1, vec![small_sample(n * 1_000, n as i32)]).await;
    }
    rig.drained().await;
    assert_eq!(good.lines().len(), 100);
    let stuck_metrics = rig.metrics.influx.of("stuck");
    soon("the lag of the other is seen", || stuck_metrics.lag_bytes.get() > 0).await;
    assert_eq!(stuck_metrics.lines.get(), 0);
    running.stop().await;
    stuck.kill().await;
}

/// Hosts 1 and 2 with a reading each 10 s in the last three hours, in history alone.
fn remember(rig: &Rig) -> (i64, usize) {
    let begin = now_ms() - 3 * 3_600_000;
    let mut samples = rig.history.samples.lock().unwrap();
    for (host, name) in [(1, "web-1"), (2, "web-2")] {
        let tags = Arc::new(HostTags::new(name, []));
        for n in 0..1_000 {
            let time_ms = begin + n * 10_000;
            samples.insert((HostId([host; 16]), time_ms), (tags.clone(), sample(time_ms, n as u64)));
        }
    }
    drop(samples);
    (begin, wanted(rig).len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_target_gets_history_from_its_start_on_and_an_interrupted_fill_goes_on_near_where_it_was() {
    let fake = Fake::slow(Duration::from_millis(40)).await;
    let rig = Rig::new();
    let (begin, lines) = remember(&rig);
    let mut options = rig.options(fake.url(), "t".into());
    options.max_lines = 100;
    let mut kills = 0;
    // The start is taken from the first run alone: a later one would else owe it again and again.
    let target = rig.target(&options, Some(begin));
    assert_eq!(target.book.owed().stretch().all()[0].from_ms, begin);
    let mut running = rig.start_target(target);
    while rig.metrics().owed_spans.get() > 0 {
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        if kills < 2 && rig.metrics().owed_spans.get() > 0 {
            kills += 1;
            running.kill().await;
            running = rig.start_target(rig.target(&options, Some(begin)));
        }
    }
    running.stop().await;
    assert_eq!(kills, 2, "it was interrupted");
    assert_all_there(&rig, &fake);
    let sent: usize = fake.lines().values().sum();
    println!("{lines} lines filled with {sent} sent");
    assert!(sent < lines * 2, "{sent} lines were sent for {lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stretch_is_owed_again_while_the_writer_runs() {
    let fake = Fake::start([]).await;
    let rig = Rig::new();
    let (begin, lines) = remember(&rig);
    let options = rig.options(fake.url(), "t".into());
    let target = rig.target(&options, None);
    let running = rig.start_target(target.clone());
    // What history has not taken in yet is waited for.
    let end = Position { segment: 1, offset: 1_000 };
    target.backfill(Some(HostId([2; 16])), Span { from_ms: begin, to_ms: now_ms() }, end).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.metrics().filled_lines.get(), 0);
    *rig.history.position.lock().unwrap() = end;
    soon("one host is filled", || rig.metrics().filled_lines.get() as usize == lines / 2).await;
    assert!(fake.lines().keys().all(|line| line.contains("host=web-2")));
    target.backfill(None, Span { from_ms: begin, to_ms: now_ms() }, end).unwrap();
    filled(&rig).await;
    running.stop().await;
    assert_all_there(&rig, &fake);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_history_does_not_go_back_to_any_more_is_counted() {
    let fake = Fake::start([]).await;
    let rig = Rig::new();
    let (begin, _) = remember(&rig);
    let (gone, half) = (begin + 3_600_000, begin + 1_800_000);
    rig.history.samples.lock().unwrap().retain(|(_, time_ms), _| *time_ms >= gone);
    rig.history.oldest_ms.store(gone, Ordering::SeqCst);
    let options = InfluxOptions { max_lines: 100, ..rig.options(fake.url(), "t".into()) };
    let running = rig.start_target(rig.target(&options, Some(begin)));
    filled(&rig).await;
    assert_eq!(rig.metrics().owed_expired_ms.get(), 3_600_000, "of all hosts: it counts once");
    running.stop().await;
    let target = rig.target(&options, None);
    target
        .backfill(Some(HostId([2; 16])), Span { from_ms: half, to_ms: now_ms() }, Position::default())
        .unwrap();
    let running = rig.start_target(target);
    filled(&rig).await;
    assert_eq!(rig.metrics().owed_expired_ms.get(), 3_600_000 + 1_800_000);
    running.stop().await;
    assert_all_there(&rig, &fake);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn influxdbs_that_store_the_good_lines_of_a_refused_batch_get_all_but_the_bad_one() {
    for (body, reason) in [
        (r#"{"error":"partial write: unable to parse 'm': bad timestamp dropped=0"}"#, "malformed"),
        (r#"{"error":"partial write: field type conflict: input field \"v\" dropped=1"}"#, "type_conflict"),
        (
            r#"{"error":"partial write of line protocol occurred","data":[{"original_line":"m","line_number":1,"error_message":"invalid column type for column 'temp'"}]}"#,
            "type_conflict",
        ),
    ] {
        let fake = Fake::refusing(" temp=0.617 ", "400 Bad Request", body).await;
        let rig = Rig::new();
        rig.commit(1, (0..1_000).map(|n| small_sample(i64::from(n) * 1_000, n)).collect()).await;
        let options = rig.options(fake.url(), "t".into());
        let running = rig.start(&options);
        rig.drained().await;
        running.stop().await;
        assert_eq!((fake.lines().len(), rig.dropped(reason)), (999, 1), "{body}");
        let (entries, _) = rig.target(&options, None).quarantine.newest(0, 10).unwrap();
        assert_eq!(entries.len(), 1, "{body}");
        assert!(entries[0].line.contains(" temp=0.617 ") && entries[0].reason == reason, "{entries:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantine_that_cannot_be_written_is_counted_and_holds_nothing_up() {
    let body = r#"{"error":"partial write: field type conflict dropped=1"}"#;
    let fake = Fake::refusing(" temp=0.003 ", "422 Unprocessable Entity", body).await;
    let rig = Rig::new();
    let options = rig.options(fake.url(), "t".into());
    std::fs::create_dir(options.dir.join("quarantine.lp")).unwrap();
    rig.commit(1, (0..10).map(|n| small_sample(i64::from(n) * 1_000, n)).collect()).await;
    let running = rig.start(&options);
    rig.drained().await;
    running.stop().await;
    let lost: Vec<_> = rig.metrics().quarantine_lost.iter().filter(|(_, count)| *count > 0).collect();
    assert!(!lost.is_empty() && rig.metrics().quarantined.get() == 0, "{lost:?}");
    assert_eq!(rig.cursor(), rig.journal.end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_line_of_a_conflicting_type_among_a_thousand_is_in_quarantine_with_influxdbs_reason() {
    let influxd = Influxd::start().await;
    let rig = Rig::new();
    let now = now_ms();
    // Somebody has made a text of this field in one series' shard before.
    let (status, answer) = influxd.write(BUCKET, format!("kernel boot_time=\"x\" {now}000000\n")).await;
    assert_eq!(status, 204, "{answer}");
    let conflicting = sample(now, 1);
    let mut samples: Vec<Sample> =
        (0..999).map(|n| small_sample(now - 2_000_000 + n * 1_000, n as i32)).collect();
    let mut text = Vec::new();
    let tags = HostTags::new("web-1", [("env", "prod")]);
    let more = write_sample(&mut text, &tags, &conflicting);
    samples.push(conflicting);
    rig.commit(1, samples).await;
    let options = rig.options(influxd.url(), influxd.token());
    let running = rig.start(&options);
    rig.drained().await;
    running.stop().await;
    assert_eq!(rig.metrics().lines.get() as usize, 999 + more - 1);
    let stored = influxd
        .influxql(BUCKET, "select count(temp) from temp where \"host\" = 'web-1' and sensor = 't'")
        .await;
    assert_eq!(stored[0]["series"][0]["values"][0][1], 999);
    let file = std::fs::read_to_string(options.dir.join("quarantine.lp")).unwrap();
    println!("{file}");
    let lines: Vec<&str> = file.lines().collect();
    assert_eq!(lines.len(), 2, "{file}");
    assert!(
        lines[0].contains(" type_conflict: 422 ") && lines[0].contains("already exists as type string"),
        "{file}"
    );
    assert!(lines[1].starts_with("kernel,env=prod,host=web-1 "), "{file}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owed_lines_older_than_the_bucket_keeps_are_counted_and_pass() {
    let influxd = Influxd::start().await;
    influxd.create_bucket("short", Some(Duration::from_secs(3_600))).await;
    let rig = Rig::new();
    let (begin, lines) = remember(&rig);
    let mut options = rig.options(influxd.url(), influxd.token());
    options.bucket = "short".into();
    let running = rig.start_target(rig.target(&options, Some(begin)));
    filled(&rig).await;
    running.stop().await;
    let dropped = rig.dropped("too_old") as usize;
    assert!(dropped > lines / 3 && dropped < lines, "{dropped} of {lines}");
    assert_eq!(rig.metrics().lines.get() as usize + dropped, lines);
    assert_eq!(rig.metrics().quarantined.get(), 0);
}
