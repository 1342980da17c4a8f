//! The journal on real disks.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use vitals_wire::bounded::List;
use vitals_wire::ids::HostId;
use vitals_wire::sample::Sample;
use vitals_wire::section::{Opaque, Section};

use super::*;

/// A record that can be told by its number, about `bytes` long.
pub(super) fn encoded(number: i64, bytes: usize) -> Encoded {
    Encoded::new(&record(number, bytes)).unwrap()
}

pub(super) fn record(number: i64, bytes: usize) -> Record {
    let section = Section::Opaque(Opaque { kind: 9_999, bytes: vec![number as u8; bytes].into() });
    let sample = Sample { time_ms: number, sections: List::new(vec![section]).unwrap() };
    Record { host: HostId([7; 16]), received_ms: number, backlog: false, samples: vec![sample] }
}

pub(super) fn options(dir: &Path) -> JournalOptions {
    // So that a record is as long on disk as it says.
    let compress = false;
    JournalOptions { group: Duration::from_millis(5), compress, ..JournalOptions::new(dir.to_owned()) }
}

pub(super) fn open(options: JournalOptions) -> (Journal, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    (Journal::open(options, metrics.clone()).unwrap(), metrics)
}

pub(super) async fn commit(journal: &Journal, record: &Record) -> Result<(), JournalError> {
    journal.append(&Encoded::new(record)?)?.wait().await
}

/// Numbers of all records that the reader can get now.
pub(super) fn numbers(reader: &mut JournalReader) -> Vec<i64> {
    std::iter::from_fn(|| reader.try_next().unwrap()).map(|entry| entry.record.received_ms).collect()
}

pub(super) fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_is_committed_is_read_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(options(dir.path()));
    let mut reader = journal.reader("store", Position::default()).unwrap();
    assert!(reader.try_next().unwrap().is_none());
    let start = reader.position();
    for number in 0..3 {
        commit(&journal, &record(number, 1_000)).await.unwrap();
    }
    let first = reader.try_next().unwrap().unwrap();
    assert_eq!(first.record, record(0, 1_000));
    assert_eq!(reader.lag_bytes(start) - reader.lag_bytes(first.after), first.bytes);
    assert_eq!(numbers(&mut reader), [1, 2]);
    assert_eq!((reader.position(), reader.lag_bytes(reader.position())), (journal.end(), 0));
    assert_eq!(metrics.journal_bytes.get(), reader.lag_bytes(start) + start.offset);
}

#[tokio::test]
async fn records_that_come_together_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let group = Duration::from_secs(1);
    let (journal, _) = open(JournalOptions { group, ..options(dir.path()) });
    let mut reader = journal.reader("store", Position::default()).unwrap();
    let began = Instant::now();
    let mut commits = Vec::new();
    for number in 0..50 {
        commits.push(journal.append(&encoded(number, 1_000)).unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(began.elapsed() < group, "this machine is too busy to tell");
    assert!(reader.try_next().unwrap().is_none(), "nothing is seen before its commit");
    assert!(reader.wait(Duration::from_secs(10)).await);
    assert_eq!(numbers(&mut reader).len(), 50, "the first news of the disk is about all of them");
    assert!(began.elapsed() >= group);
    for commit in commits {
        commit.wait().await.unwrap();
    }
}

#[tokio::test]
async fn a_journal_that_was_torn_keeps_every_whole_record() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(options(dir.path()));
    for number in 0..10 {
        commit(&journal, &record(number, 500)).await.unwrap();
    }
    journal.close().await;
    drop(journal);
    let path = segment_files(dir.path()).pop().unwrap();
    let len = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len - 17).unwrap();

    let (journal, metrics) = open(options(dir.path()));
    commit(&journal, &record(10, 500)).await.unwrap();
    let mut reader = journal.reader("store", Position::default()).unwrap();
    assert_eq!(numbers(&mut reader), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]);
    assert_eq!(metrics.journal_damaged.get(), 0, "a torn tail is no damage");
}

/// Not a test by itself: what the next one starts and kills.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os("VITALS_TEST_JOURNAL_DIR") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (journal, _) = open(JournalOptions { segment_bytes: 20_000, ..options(Path::new(&dir)) });
    for number in 0.. {
        runtime.block_on(commit(&journal, &record(number, 900))).unwrap();
        println!("committed {number}");
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn a_killed_process_has_kept_all_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::journal_tests::child_that_appends_until_it_is_killed", "--nocapture"])
        .env("VITALS_TEST_JOURNAL_DIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = -1;
    let mut note = |line: String| {
        // The test runner may have begun the line.
        if let Some((_, number)) = line.split_once("committed ") {
            acknowledged = number.parse().unwrap();
        }
        acknowledged
    };
    while note(lines.next().unwrap().unwrap()) < 60 {}
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        note(line.unwrap());
    }
    let (journal, metrics) = open(options(dir.path()));
    let mut reader = journal.reader("store", Position::default()).unwrap();
    let found = numbers(&mut reader);
    assert_eq!(found, (0..found.len() as i64).collect::<Vec<_>>());
    assert!(found.len() as i64 > acknowledged, "{} of {acknowledged}", found.len());
    assert_eq!(metrics.journal_damaged.get(), 0);
}

#[tokio::test]
async fn a_damaged_record_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(options(dir.path()));
    for number in 0..3 {
        commit(&journal, &record(number, 500)).await.unwrap();
    }
    let path = segment_files(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut reader = journal.reader("store", Position::default()).unwrap();
    assert_eq!(numbers(&mut reader), [0, 2]);
    assert_eq!(metrics.journal_damaged.get(), 1);
}

#[tokio::test]
async fn bytes_that_are_no_record_of_ours_are_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log = LogOptions { dir: dir.path().to_owned(), segment_bytes: 1 << 20, compress: true };
    let (mut writer, _) = Writer::open(log).unwrap();
    writer.append(b"whole on disk, but not a record").unwrap();
    writer.append(&encode_record(&record(1, 10)).unwrap()).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let (journal, metrics) = open(options(dir.path()));
    let mut reader = journal.reader("store", Position::default()).unwrap();
    assert_eq!(numbers(&mut reader), [1]);
    assert_eq!(metrics.journal_damaged.get(), 1);
}

#[tokio::test]
async fn segments_go_when_the_slowest_reader_has_passed_them() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(JournalOptions { segment_bytes: 2_000, ..options(dir.path()) });
    let mut store = journal.reader("store", Position::default()).unwrap();
    let mut influx = journal.reader("influx", Position::default()).unwrap();
    for number in 0..20 {
        commit(&journal, &record(number, 1_000)).await.unwrap();
    }
    let all = metrics.journal_bytes.get();
    assert_eq!((numbers(&mut store).len(), segment_files(dir.path()).len()), (20, 10));
    store.passed(store.position());
    let half = (0..10).map(|_| influx.try_next().unwrap().unwrap().after).last().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(segment_files(dir.path()).len(), 10, "the other reader has passed none");
    influx.passed(half);
    wait_until(|| segment_files(dir.path()).len() == 5).await;
    wait_until(|| metrics.journal_bytes.get() == all / 2).await;
    assert_eq!(numbers(&mut influx), (10..20).collect::<Vec<_>>());
    let mut late = journal.reader("late", Position::default()).unwrap();
    assert_eq!(
        numbers(&mut late),
        (10..20).collect::<Vec<_>>(),
        "a place that is gone is the oldest that is left"
    );
}

pub(super) async fn wait_until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(10), "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_journal_refuses_until_its_reader_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, metrics) = open(JournalOptions { cap_bytes: 20_000, ..options(dir.path()) });
    let mut store = journal.reader("store", Position::default()).unwrap();
    for round in 0..3 {
        let mut taken = 0;
        let refused = loop {
            match commit(&journal, &record(taken, 1_000)).await {
                Ok(()) => taken += 1,
                Err(error) => break error,
            }
            assert!(taken < 100);
        };
        assert!(matches!(refused, JournalError::Full), "{refused}");
        assert!((15..=20).contains(&taken), "{taken} in round {round}");
        assert!(metrics.journal_bytes.get() < 22_000);
        assert_eq!(numbers(&mut store).len() as i64, taken, "what was taken can be read");
        store.passed(store.position());
        wait_until(|| metrics.journal_bytes.get() < 6_000).await;
    }
    assert_eq!(metrics.journal_errors.get(), 0, "full is not an error of the disk");
}

#[tokio::test]
async fn many_uncommitted_records_cannot_exceed_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let group = Duration::from_secs(60);
    let (journal, _) = open(JournalOptions { cap_bytes: 20_000, group, ..options(dir.path()) });
    let commits: Vec<Commit> = (0..50).map_while(|n| journal.append(&encoded(n, 1_000)).ok()).collect();
    assert!((15..=20).contains(&commits.len()), "{}", commits.len());
    assert!(matches!(journal.append(&encoded(0, 1_000)), Err(JournalError::Full)));
    journal.close().await;
}

#[tokio::test]
async fn a_queue_that_is_full_is_busy_and_closing_commits_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(JournalOptions { group: Duration::from_secs(60), ..options(dir.path()) });
    let mut reader = journal.reader("store", Position::default()).unwrap();
    // The thread cannot take them while we hold what it needs: a disk that hangs is no different.
    let mut commits = Vec::new();
    let held = lock(&journal.0.0.ended);
    let refused = loop {
        match journal.append(&encoded(0, 1_000)) {
            Ok(commit) => commits.push(commit),
            Err(error) => break error,
        }
        assert!(commits.len() <= 2 * QUEUE_RECORDS);
    };
    assert!(matches!(refused, JournalError::Busy), "{refused}");
    assert!(commits.len() >= QUEUE_RECORDS);
    drop(held);
    journal.close().await;
    let count = commits.len();
    for commit in commits {
        commit.wait().await.unwrap();
    }
    assert_eq!(numbers(&mut reader).len(), count);
    assert!(matches!(journal.append(&encoded(1, 10)), Err(JournalError::Closed)));
    assert!(!reader.wait(Duration::from_secs(10)).await);
    assert!(!reader.wait_blocking(Duration::from_secs(10)));
}

#[tokio::test]
async fn dropping_the_last_handle_commits_and_ends_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(JournalOptions { group: Duration::from_secs(60), ..options(dir.path()) });
    let mut reader = journal.reader("store", Position::default()).unwrap();
    let commit = journal.append(&encoded(1, 10)).unwrap();
    drop(journal);
    commit.wait().await.unwrap();
    assert_eq!(numbers(&mut reader), [1]);
    wait_until(|| !reader.wait_blocking(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_thread_that_waits_is_woken_by_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(options(dir.path()));
    let mut reader = journal.reader("store", Position::default()).unwrap();
    assert!(reader.wait_blocking(Duration::from_millis(1)), "nothing came, but something may");
    let thread = std::thread::spawn(move || {
        let began = Instant::now();
        let mut found = Vec::new();
        while found.len() < 20 {
            assert!(reader.wait_blocking(Duration::from_secs(10)));
            found.extend(numbers(&mut reader));
        }
        assert!(began.elapsed() < Duration::from_secs(8));
        found
    });
    for number in 0..20 {
        commit(&journal, &record(number, 100)).await.unwrap();
    }
    assert_eq!(thread.join().unwrap(), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_directory_that_cannot_be_had_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let metrics = Arc::new(Metrics::new());
    let error = Journal::open(JournalOptions::new(file.join("journal")), metrics).unwrap_err();
    assert!(matches!(&error, JournalError::Disk(text) if text.contains("file/journal")), "{error}");
}

/// A file system of 1 MiB, unmounted when dropped. None without the rights to mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "vitals-test"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            // Past the test runner, which keeps what a passing test prints.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: no small file system can be mounted here; root can");
        }
        mounted.then_some(Self(dir))
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 700 << 10]).unwrap();
    let dir = disk.0.path().join("journal");
    // A few segments are more than the disk has, so that it is the disk that says no.
    let (journal, metrics) = open(JournalOptions { segment_bytes: 90_000, ..options(&dir) });
    let mut store = journal.reader("store", Position::default()).unwrap();
    let mut acknowledged = Vec::new();
    let mut fill = async |from: i64| {
        let mut number = from;
        loop {
            match commit(&journal, &record(number, 5_000)).await {
                Ok(()) => acknowledged.push(number),
                Err(error) => return (error, number, acknowledged.clone()),
            }
            number += 1;
            assert!(number < 1_000);
        }
    };
    let (error, next, first) = fill(0).await;
    assert!(matches!(&error, JournalError::Disk(text) if text.contains("No space left")), "{error}");
    assert!(first.len() > 10);
    assert_eq!(numbers(&mut store), first, "what was acknowledged can be read");
    let (error, next, again) = fill(next).await;
    assert!(matches!(error, JournalError::Disk(_)));
    assert!(metrics.journal_errors.get() >= 2);

    let small_cap = metrics.journal_cap_bytes.get();
    fs::remove_file(&ballast).unwrap();
    wait_until(|| metrics.journal_cap_bytes.get() > small_cap).await;
    let (error, next, after_room) = fill(next).await;
    assert!(after_room.len() > again.len() + 20, "it goes on without a restart");
    assert!(matches!(error, JournalError::Full), "half of the disk is its cap now: {error}");

    // The readers' progress makes room as well.
    let mut all = first.clone();
    all.extend(numbers(&mut store));
    assert_eq!(all, after_room);
    store.passed(store.position());
    wait_until(|| metrics.journal_bytes.get() < 150_000).await;
    let (_, _, in_the_end) = fill(next).await;
    assert!(in_the_end.len() > after_room.len() + 50);
    journal.close().await;
    drop(journal);
    let (journal, metrics) = open(options(&dir));
    let left = numbers(&mut journal.reader("store", Position::default()).unwrap());
    assert!(in_the_end.ends_with(&left) && left.len() > 50);
    assert_eq!(metrics.journal_damaged.get(), 0);
}

#[tokio::test]
async fn a_read_only_disk_is_refused_at_the_start_and_harmless_while_running() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = disk.0.path().join("journal");
    // Every commit ends a segment, so that no file is open and the disk can be made read-only under the journal.
    let (journal, _) = open(JournalOptions { segment_bytes: 1, ..options(&dir) });
    commit(&journal, &record(0, 100)).await.unwrap();
    journal.close().await;
    drop(journal);
    disk.remount("ro");
    let metrics = Arc::new(Metrics::new());
    let error = Journal::open(options(&dir), metrics).unwrap_err();
    assert!(matches!(&error, JournalError::Disk(text) if text.contains("Read-only")), "{error}");
    disk.remount("rw");
    let (journal, metrics) = open(options(&dir));
    let mut store = journal.reader("store", Position::default()).unwrap();
    disk.remount("ro");
    for _ in 0..2 {
        let error = commit(&journal, &record(1, 100)).await.unwrap_err();
        assert!(matches!(&error, JournalError::Disk(text) if text.contains("Read-only")), "{error}");
    }
    assert_eq!((numbers(&mut store), metrics.journal_errors.get()), (vec![0], 2));
    disk.remount("rw");
    commit(&journal, &record(2, 100)).await.unwrap();
    assert_eq!(numbers(&mut store), [2]);
}
