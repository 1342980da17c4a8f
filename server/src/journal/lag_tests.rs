//! Readers that lag, a journal that is nearly full, and a thread that ends.

use std::path::Path;

use vitals_wire::log::RECORD_HEADER_BYTES;
use vitals_wire::log::model::ModelFs;

use super::journal_tests::{commit, encoded, numbers, open, options, record, segment_files, wait_until};
use super::*;

const CAP: u64 = 40_000;

fn small(dir: &std::path::Path) -> JournalOptions {
    JournalOptions { segment_bytes: 4_000, cap_bytes: CAP, ..options(dir) }
}

/// Commits records of about 1,000 bytes, which `store` reads and passes at once.
async fn pass_by(journal: &Journal, store: &mut JournalReader, numbers_sent: std::ops::Range<i64>) {
    for number in numbers_sent {
        commit(journal, &record(number, 1_000)).await.unwrap();
        numbers(store);
        store.passed(store.position());
    }
}

#[tokio::test]
async fn a_reader_that_lags_and_gives_nothing_up_loses_what_is_beyond_three_quarters_of_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(small(dir.path()));
    let mut influx = journal.lagging_reader("influx", Position::default(), CAP / 2).unwrap();
    let mut store = journal.reader("store", Position::default()).unwrap();
    pass_by(&journal, &mut store, 0..10).await;
    // Its file is open from here on.
    assert_eq!(influx.try_next().unwrap().unwrap().record.received_ms, 0);
    assert_eq!((metrics.influx_given_up_bytes.get(), influx.over_share()), (0, None), "within its share");
    pass_by(&journal, &mut store, 10..200).await;
    assert!(metrics.journal_bytes.get() <= CAP / 4 * 3 + 6_000, "{}", metrics.journal_bytes.get());
    assert_eq!(journal.trouble(), None);

    let found = numbers(&mut influx);
    assert_eq!(found, (found[0]..200).collect::<Vec<_>>(), "no gap but the one");
    assert!((23..=30).contains(&found.len()), "{}", found.len());
    let bytes = encode_record(&record(0, 1_000)).unwrap().len() + RECORD_HEADER_BYTES;
    let lost = (found[0] - 1) as u64;
    let counted = metrics.influx_given_up_bytes.get();
    assert!(counted.abs_diff(lost * bytes as u64) < 3 * bytes as u64, "{counted} for {lost} records");
    influx.passed(influx.position());
    pass_by(&journal, &mut store, 200..210).await;
    assert_eq!(numbers(&mut influx), (200..210).collect::<Vec<_>>());
    assert_eq!(metrics.influx_given_up_bytes.get(), counted, "one that keeps up loses nothing more");
    assert_eq!(metrics.journal_damaged.get(), 0);
}

#[tokio::test]
async fn one_that_gives_up_what_is_beyond_its_share_loses_nothing_uncounted() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(small(dir.path()));
    let mut influx = journal.lagging_reader("influx", Position::default(), CAP).unwrap();
    let mut store = journal.reader("store", Position::default()).unwrap();
    let mut skips = 0;
    for number in 0..200 {
        pass_by(&journal, &mut store, number..number + 1).await;
        if let Some(to) = influx.over_share() {
            skips += 1;
            influx.skip_to(to);
            let left = influx.lag_bytes(influx.position());
            assert!(left <= CAP / 2 / 4 * 3 && left > CAP / 8, "{left}");
            assert_eq!(influx.over_share(), None);
        }
    }
    assert!((5..40).contains(&skips), "{skips}");
    let found = numbers(&mut influx);
    assert_eq!(found, (found[0]..200).collect::<Vec<_>>());
    assert_eq!(metrics.influx_given_up_bytes.get(), 0, "the journal itself took nothing away");
    // One that has read ahead of what it gives up stays where it is.
    pass_by(&journal, &mut store, 200..202).await;
    let (next, before) = (influx.try_next().unwrap().unwrap(), store.position());
    influx.skip_to(Position::default());
    assert_eq!((next.record.received_ms, influx.position()), (200, next.after));
    assert!(next.after < before);
}

#[tokio::test]
async fn several_that_lag_hold_no_more_than_one() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(small(dir.path()));
    let names = ["influx:a".to_owned(), "influx:b".to_owned(), "influx:c".to_owned()];
    let mut lagging: Vec<_> = names
        .iter()
        .map(|name| journal.lagging_reader(name.as_str(), Position::default(), CAP / 2).unwrap())
        .collect();
    let mut store = journal.reader("store", Position::default()).unwrap();
    for number in 0..200 {
        pass_by(&journal, &mut store, number..number + 1).await;
        // One keeps up, two do not.
        numbers(&mut lagging[0]);
        lagging[0].passed(lagging[0].position());
        assert!(metrics.journal_bytes.get() <= CAP / 4 * 3 + 6_000, "{}", metrics.journal_bytes.get());
    }
    assert_eq!(journal.trouble(), None);
    let ends = lagging.iter_mut().map(|reader| numbers(reader).len()).collect::<Vec<_>>();
    assert!(ends[0] == 0 && ends[1] == ends[2] && ends[1] > 20, "{ends:?}");
}

#[tokio::test]
async fn a_reader_that_is_forgotten_holds_nothing_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(small(dir.path()));
    let _influx = journal.lagging_reader("influx", Position::default(), CAP / 2).unwrap();
    let mut store = journal.reader("store", Position::default()).unwrap();
    pass_by(&journal, &mut store, 0..18).await;
    assert!(segment_files(dir.path()).len() > 3);
    journal.forget("nobody");
    journal.forget("influx");
    wait_until(|| segment_files(dir.path()).len() == 1).await;
    assert_eq!(metrics.influx_given_up_bytes.get(), 0);
}

#[tokio::test]
async fn backlog_leaves_room_in_the_queue_for_live_batches() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let (journal, mut committer) =
        Journal::open_manual(Arc::new(RealFs), options(dir.path()), metrics).unwrap();
    let backlog = Encoded::new(&Record { backlog: true, ..record(0, 10) }).unwrap();
    let mut commits: Vec<Commit> = std::iter::from_fn(|| journal.append(&backlog).ok()).collect();
    assert_eq!(commits.len(), QUEUE_RECORDS / 4 * 3);
    assert!(matches!(journal.append(&backlog), Err(JournalError::Busy)));
    let live = std::iter::from_fn(|| journal.append(&encoded(1, 10)).ok());
    commits.extend(live);
    assert_eq!(commits.len(), QUEUE_RECORDS);
    assert!(committer.step());
    for commit in commits {
        commit.wait().await.unwrap();
    }
    let large = Encoded::new(&Record { backlog: true, ..record(0, 1 << 20) }).unwrap();
    let count = std::iter::from_fn(|| journal.append(&large).ok()).count();
    assert_eq!(count, 5, "the same by bytes");
    journal.append(&encoded(1, 1 << 20)).unwrap();
}

#[tokio::test]
async fn a_journal_that_is_stepped_does_nothing_by_itself_and_all_of_it_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let (journal, mut committer) =
        Journal::open_manual(Arc::new(RealFs), small(dir.path()), metrics.clone()).unwrap();
    let mut store = journal.reader("store", Position::default()).unwrap();
    for number in 0..10 {
        let commit = journal.append(&encoded(number, 1_000)).unwrap();
        assert_eq!(numbers(&mut store), [0; 0]);
        assert!(committer.step());
        commit.wait().await.unwrap();
        assert_eq!(numbers(&mut store), [number]);
    }
    store.passed(store.position());
    let before = segment_files(dir.path()).len();
    assert!(before > 2 && committer.step());
    assert!(segment_files(dir.path()).len() < before);
    // What a kill is: what waits is not committed.
    let lost = journal.append(&encoded(10, 1_000)).unwrap();
    drop(committer);
    assert!(matches!(lost.wait().await, Err(JournalError::Closed)));
    assert!(matches!(journal.append(&encoded(11, 10)), Err(JournalError::Closed)));
    assert!(!store.wait(Duration::from_secs(10)).await);
    drop(journal);

    let (journal, mut committer) =
        Journal::open_manual(Arc::new(RealFs), small(dir.path()), metrics.clone()).unwrap();
    assert_eq!(journal.cap_bytes(), CAP);
    let waits = journal.append(&encoded(12, 10)).unwrap();
    let closing = journal.clone();
    let closed = tokio::spawn(async move { closing.close().await });
    tokio::task::yield_now().await;
    assert!(committer.step(), "what waited is committed first");
    waits.wait().await.unwrap();
    assert!(!committer.step());
    drop(committer);
    closed.await.unwrap();
}

#[tokio::test]
async fn the_disk_bounds_the_journal_and_it_goes_on_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let options = JournalOptions { segment_bytes: 4_000, cap_bytes: 400_000, ..options(dir.path()) };
    let (journal, mut committer) = Journal::open_manual(Arc::new(RealFs), options, metrics.clone()).unwrap();
    let _store = journal.reader("store", Position::default()).unwrap();
    let fill = |committer: &mut Committer| {
        let mut taken = 0;
        while let Ok(_commit) = journal.append(&encoded(0, 1_000)) {
            committer.step();
            taken += 1;
            assert!(taken < 1_000);
        }
        taken
    };
    committer.disk_has(Some(60_000));
    assert_eq!((journal.cap_bytes(), metrics.journal_cap_bytes.get()), (30_000, 30_000));
    let first = fill(&mut committer);
    assert!((25..=30).contains(&first), "{first}");
    let trouble = journal.trouble().unwrap();
    assert!(trouble.contains("store has not passed") && trouble.contains("disk space"), "{trouble}");
    committer.disk_has(Some(60_000 - metrics.journal_bytes.get()));
    assert_eq!(journal.cap_bytes(), 30_000, "what the journal took itself does not count");
    assert_eq!(fill(&mut committer), 0);
    committer.disk_has(Some(0));
    assert_eq!(journal.cap_bytes(), 16_000, "never less than a few segments");
    committer.disk_has(Some(1 << 30));
    assert_eq!((journal.cap_bytes(), journal.trouble()), (400_000, None));
    assert!(fill(&mut committer) > 300);
}

#[tokio::test]
async fn a_cap_that_falls_is_asked_for_before_it_is_taken_by_force() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let options = JournalOptions { segment_bytes: 4_000, cap_bytes: 400_000, ..options(dir.path()) };
    let (journal, mut committer) = Journal::open_manual(Arc::new(RealFs), options, metrics.clone()).unwrap();
    let mut influx = journal.lagging_reader("influx", Position::default(), u64::MAX).unwrap();
    let mut store = journal.reader("store", Position::default()).unwrap();
    for number in 0..100 {
        let _commit = journal.append(&encoded(number, 1_000)).unwrap();
        committer.step();
        numbers(&mut store);
        store.passed(store.position());
    }
    assert_eq!((influx.over_share(), metrics.influx_given_up_bytes.get()), (None, 0));
    // Somebody else fills the disk.
    committer.disk_has(Some(0));
    let cap = journal.cap_bytes();
    assert!(cap < 60_000, "{cap}");
    committer.step();
    assert!(journal.trouble().is_some(), "nothing more is taken meanwhile");
    let to = influx.over_share().unwrap();
    assert_eq!(influx.try_next().unwrap().unwrap().record.received_ms, 0, "all of it can still be read");
    let before = metrics.journal_bytes.get();
    influx.skip_to(to);
    committer.step();
    committer.disk_has(Some(before - metrics.journal_bytes.get()));
    committer.step();
    assert_eq!(journal.cap_bytes(), cap);
    assert_eq!((journal.trouble(), metrics.influx_given_up_bytes.get()), (None, 0));

    // Also where a smaller one was configured meanwhile.
    drop((journal, committer, influx, store));
    let options =
        JournalOptions { segment_bytes: 4_000, cap_bytes: 30_000, ..JournalOptions::new(dir.path().into()) };
    let (journal, mut committer) = Journal::open_manual(Arc::new(RealFs), options, metrics.clone()).unwrap();
    let mut influx = journal.lagging_reader("influx", to, u64::MAX).unwrap();
    let mut store = journal.reader("store", journal.end()).unwrap();
    committer.step();
    assert_eq!((journal.cap_bytes(), metrics.influx_given_up_bytes.get()), (30_000, 0));
    assert!(influx.over_share().is_some());
    assert!(influx.try_next().unwrap().is_some());

    // One that does not listen loses it at the next look.
    committer.disk_has(Some(1 << 30));
    for number in 100..200 {
        let _commit = journal.append(&encoded(number, 1_000)).unwrap();
        committer.step();
        numbers(&mut store);
        store.passed(store.position());
    }
    for is_lost in [false, true] {
        committer.disk_has(Some(0));
        committer.step();
        assert_eq!(metrics.influx_given_up_bytes.get() > 0, is_lost);
    }
}

#[tokio::test]
async fn what_a_needed_reader_has_not_passed_stays_for_the_lagging_ones_too() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(small(dir.path()));
    let mut influx = journal.lagging_reader("influx", Position::default(), CAP / 4).unwrap();
    for number in 0..10 {
        commit(&journal, &record(number, 1_000)).await.unwrap();
    }
    let _store = journal.reader("store", Position::default()).unwrap();
    let mut number = 10;
    while commit(&journal, &record(number, 1_000)).await.is_ok() {
        number += 1;
    }
    assert_eq!(journal.trouble().unwrap(), "full: store has not passed its oldest part");
    assert_eq!(numbers(&mut influx), (0..number).collect::<Vec<_>>());
    assert_eq!(metrics.influx_given_up_bytes.get(), 0);
}

#[tokio::test]
async fn a_full_journal_names_whoever_holds_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(small(dir.path()));
    let mut store = journal.reader("store", Position::default()).unwrap();
    let _other = journal.reader("other", Position::default()).unwrap();
    let mut number = 0;
    while commit(&journal, &record(number, 1_000)).await.is_ok() {
        number += 1;
    }
    numbers(&mut store);
    store.passed(store.position());
    assert_eq!(journal.trouble().unwrap(), "full: other has not passed its oldest part");
}

#[tokio::test]
async fn a_gap_before_the_start_is_counted_once_and_a_new_reader_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(small(dir.path()));
    let mut store = journal.reader("store", Position::default()).unwrap();
    pass_by(&journal, &mut store, 0..8).await;
    let cursor = store.position();
    pass_by(&journal, &mut store, 8..60).await;
    wait_until(|| segment_files(dir.path()).len() <= 2).await;
    let _new = journal.lagging_reader("new", Position::default(), CAP / 2).unwrap();
    let _current = journal.lagging_reader("current", store.position(), CAP / 2).unwrap();
    assert_eq!(metrics.influx_given_up_bytes.get(), 0);
    let influx = journal.lagging_reader("influx", cursor, CAP / 2).unwrap();
    let gone = influx.position().segment - cursor.segment;
    let counted = metrics.influx_given_up_bytes.get();
    assert!(gone > 5 && counted <= gone * 4_000 && counted > (gone - 2) * 4_000, "{counted} for {gone}");
    let _again = journal.lagging_reader("influx", cursor, CAP / 2).unwrap();
    assert_eq!(metrics.influx_given_up_bytes.get(), counted);
}

#[test]
fn a_cursor_at_the_end_of_a_full_segment_that_is_gone_misses_nothing() {
    let first = Position { segment: 6, offset: 28 };
    let missing = |segment, offset| registry::missing_bytes(Position { segment, offset }, first, 1_000);
    assert_eq!((missing(5, 1_020), missing(5, 400), missing(3, 1_020), missing(6, 500)), (0, 600, 2_000, 0));
}

#[tokio::test]
async fn the_end_of_the_thread_is_told_to_those_who_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(options(dir.path()));
    let ended = journal.ended();
    assert!(tokio::time::timeout(Duration::from_millis(50), journal.ended()).await.is_err());
    assert_eq!(journal.trouble(), None);
    journal.close().await;
    ended.await;
    journal.ended().await;
    assert_eq!(journal.trouble().unwrap(), "ended");
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(options(dir.path()));
    let ended = journal.ended();
    drop(journal);
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
}

#[tokio::test]
async fn a_panic_of_the_thread_resolves_what_waits_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    // No clock reaches that far: the thread panics when it looks how long to wait.
    let (journal, _) = open(JournalOptions { group: Duration::MAX, ..options(dir.path()) });
    let ended = journal.ended();
    let error = commit(&journal, &record(0, 10)).await.unwrap_err();
    assert!(matches!(error, JournalError::Closed), "{error}");
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    let trouble = journal.trouble().unwrap();
    assert!(trouble.starts_with("ended: ") && trouble.contains("overflow"), "{trouble}");
    assert!(matches!(commit(&journal, &record(0, 10)).await, Err(JournalError::Closed)));
}

#[tokio::test]
async fn a_full_journal_whose_passed_part_could_not_be_removed_takes_records_when_the_disk_is_well() {
    let fs = ModelFs::new(1);
    let options = JournalOptions { segment_bytes: 2_000, cap_bytes: 8_000, ..options(Path::new("/journal")) };
    let (journal, mut committer) =
        Journal::open_manual(Arc::new(fs.clone()), options, Arc::new(Metrics::new())).unwrap();
    let mut store = journal.reader("store", Position::default()).unwrap();
    let mut number = 0;
    while journal.trouble().is_none() {
        let waiting = journal.append(&encoded(number, 1_000)).unwrap();
        committer.step();
        waiting.wait().await.unwrap();
        number += 1;
    }
    fs.fail(|faults| faults.read_only = true);
    numbers(&mut store);
    store.passed(store.position());
    committer.step();
    assert!(journal.trouble().is_some() && journal.append(&encoded(number, 1_000)).is_err());
    // No reader moves any more: there is nothing new for one.
    fs.fail(|faults| faults.read_only = false);
    committer.step();
    assert_eq!(journal.trouble(), None);
    assert!(journal.append(&encoded(number, 1_000)).is_ok());
}
