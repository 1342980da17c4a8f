//! Readers that lag, a journal that is nearly full, and a thread that ends.

use super::journal_tests::{commit, numbers, open, options, record, segment_files, wait_until};
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
async fn a_reader_that_lags_loses_what_is_beyond_its_share_and_never_stops_the_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(small(dir.path()));
    let mut influx = journal.lagging_reader("influx", Position::default(), CAP / 2).unwrap();
    let mut store = journal.reader("store", Position::default()).unwrap();
    pass_by(&journal, &mut store, 0..10).await;
    // Its file is open from here on.
    assert_eq!(influx.try_next().unwrap().unwrap().record.received_ms, 0);
    assert_eq!(metrics.influx_given_up_bytes.get(), 0, "within its share");
    pass_by(&journal, &mut store, 10..200).await;
    assert!(metrics.journal_bytes.get() <= CAP / 2 + 6_000, "{}", metrics.journal_bytes.get());
    assert_eq!(journal.trouble(), None);

    let found = numbers(&mut influx);
    assert_eq!(found, (found[0]..200).collect::<Vec<_>>(), "no gap but the one");
    assert!((14..=20).contains(&found.len()), "{}", found.len());
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
