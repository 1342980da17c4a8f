use super::*;
use crate::journal::Encoded;
use crate::journal::JournalOptions;
use crate::store::test_support::{host, sample};
use vitals_wire::record::Record;

/// A store that reads a real journal, both in one directory.
struct Rig {
    /// Three hours ago: the thread goes by the real clock, and deletes what is too old.
    base_ms: i64,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
    metrics: Arc<Metrics>,
    journal: Option<Journal>,
    store: Option<Store>,
}

/// The bytes of the write-ahead log beside the file.
fn wal_bytes(rig: &Rig) -> u64 {
    std::fs::metadata(rig.dir.path().join("history.db-wal")).map_or(0, |file| file.len())
}

impl Rig {
    fn new() -> Self {
        let base_ms = now(Instant::now()).wall_ms / 5_000 * 5_000 - 3 * 3_600_000;
        let mut rig = Self {
            base_ms,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            dir: tempfile::tempdir().unwrap(),
            metrics: Arc::new(Metrics::new()),
            journal: None,
            store: None,
        };
        rig.open();
        rig
    }

    fn open(&mut self) {
        self.open_with(2 << 30, Duration::from_millis(50));
    }

    fn open_with(&mut self, cap_bytes: u64, commit_every: Duration) {
        let journal_dir = self.dir.path().join("journal");
        let options = JournalOptions {
            segment_bytes: 64 << 10,
            cap_bytes,
            group: Duration::from_millis(2),
            // These tests are about sizes.
            compress: false,
            ..JournalOptions::new(journal_dir)
        };
        let journal = Journal::open(options, self.metrics.clone()).unwrap();
        let options = StoreOptions { commit_every, ..StoreOptions::new(self.dir.path().join("history.db")) };
        self.store = Some(Store::open(options, &journal, self.metrics.clone()).unwrap());
        self.journal = Some(journal);
    }

    /// Ends both without giving them a chance to seal anything.
    fn kill(&mut self) {
        let store = self.store.take().unwrap();
        let thread = store.inner.thread.lock().unwrap().take().unwrap();
        drop(store);
        thread.join().unwrap();
        let journal = self.journal.take().unwrap();
        self.runtime.block_on(journal.close());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Commits samples of 5 s each, from place `from` on.
    fn send(&self, number: u8, from: i64, count: i64) {
        let samples = (from..from + count).map(|i| sample(host(number), self.base_ms + i * 5_000)).collect();
        let record = Record { host: host(number), received_ms: self.base_ms, backlog: false, samples };
        let commit = self.journal.as_ref().unwrap().append(&Encoded::new(&record).unwrap()).unwrap();
        self.runtime.block_on(commit.wait()).unwrap();
    }

    fn count(&self, number: u8) -> usize {
        self.store().samples(host(number), 0, i64::MAX).unwrap().len()
    }

    /// Waits until a host has so many samples, and tells how long that took.
    fn wait_for(&self, number: u8, count: usize) -> Duration {
        let start = Instant::now();
        while self.count(number) < count {
            assert!(start.elapsed() < Duration::from_secs(20), "{} of {count}", self.count(number));
            std::thread::sleep(Duration::from_millis(5));
        }
        start.elapsed()
    }
}

#[test]
fn a_committed_sample_is_readable_within_a_second_and_survives_a_kill() {
    let mut rig = Rig::new();
    rig.send(1, 0, 3);
    let took = rig.wait_for(1, 3);
    // A second with room for a busy machine.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let selector = "cpu.usage_user".parse().unwrap();
    let before = rig.store().series(host(1), &selector, 0, i64::MAX, 100).unwrap();
    rig.kill();
    rig.open();
    rig.wait_for(1, 3);
    assert_eq!(rig.store().series(host(1), &selector, 0, i64::MAX, 100).unwrap(), before);
    assert_eq!(rig.store().newest_ms(host(1)).unwrap(), Some(rig.base_ms + 10_000));
    assert_eq!(rig.store().lag_bytes(), 0);
}

#[test]
fn what_is_sealed_leaves_the_journal_and_is_read_from_the_file() {
    let mut rig = Rig::new();
    for i in 0..100 {
        rig.send(1, i * 20, 20);
    }
    let before = rig.metrics.journal_bytes.get();
    assert!(before > 3 * (64 << 10), "{before}");
    rig.store().flush().unwrap();
    assert_eq!(rig.count(1), 2_000);
    let start = Instant::now();
    while rig.metrics.journal_bytes.get() > 2 * (64 << 10) {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", rig.metrics.journal_bytes.get());
        std::thread::sleep(Duration::from_millis(5));
    }
    rig.kill();
    rig.open();
    assert_eq!(rig.count(1), 2_000);
    assert_eq!(rig.metrics.samples_duplicate.get(), 0);
}

#[test]
fn a_closed_store_has_sealed_all_and_can_still_be_read() {
    let mut rig = Rig::new();
    rig.send(1, 0, 50);
    rig.store().flush().unwrap();
    assert!(wal_bytes(&rig) > 0);
    // A connection that stays open, so that SQLite does not empty the log by itself when the writer's is closed.
    assert_eq!(rig.count(1), 50);
    rig.store().close().unwrap();
    assert_eq!(wal_bytes(&rig), 0, "the file holds all by itself");
    assert_eq!(rig.count(1), 50);
    assert!(matches!(rig.store().flush(), Err(StoreError::Closed)));
    assert!(matches!(rig.store().close(), Err(StoreError::Closed)));
    rig.store = None;
    std::fs::remove_dir_all(rig.dir.path().join("journal")).unwrap();
    rig.open();
    assert_eq!(rig.count(1), 50);
}

#[test]
fn a_journal_that_was_lost_does_not_stop_the_store_nor_lose_what_comes_next() {
    let mut rig = Rig::new();
    for i in 0..100 {
        rig.send(1, i * 20, 20);
    }
    rig.store().flush().unwrap();
    rig.kill();
    std::fs::remove_dir_all(rig.dir.path().join("journal")).unwrap();
    rig.open();
    assert!(rig.journal.as_ref().unwrap().end() < Position { segment: 2, offset: 0 });
    rig.send(1, 2_000, 1);
    rig.wait_for(1, 2_001);
    // Some commits of the store, none of which may let go of what is not sealed.
    std::thread::sleep(Duration::from_millis(200));
    rig.kill();
    rig.open();
    rig.wait_for(1, 2_001);
    rig.store().flush().unwrap();
    assert_eq!(rig.count(1), 2_001);
}

#[test]
fn readers_more_than_there_are_connections_wait_their_turn() {
    let rig = Rig::new();
    rig.send(1, 0, 100);
    rig.store().flush().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(rig.count(1), 100)));
        }
    });
}

#[test]
fn a_small_journal_is_emptied_by_sealing_early_and_not_all_the_time() {
    const CAP: u64 = 16 << 20;
    let mut rig = Rig::new();
    rig.kill();
    rig.open_with(CAP, Duration::from_secs(5));
    let started = Instant::now();
    let (mut sent, mut refused) = (0i64, 0);
    // Three times the cap, from a host whose turn to be sealed comes after minutes.
    while sent < 3 * (CAP >> 16) as i64 {
        let mut sample = sample(host(1), rig.base_ms + sent * 5_000);
        let bulk = vitals_wire::section::Opaque { kind: 9_999, bytes: vec![7; 1 << 16].into() };
        let mut sections: Vec<_> = sample.sections.iter().cloned().collect();
        sections.push(vitals_wire::section::Section::Opaque(bulk));
        sample.sections = vitals_wire::bounded::List::first(sections).0;
        let record =
            Record { host: host(1), received_ms: rig.base_ms, backlog: false, samples: vec![sample] };
        let record = Encoded::new(&record).unwrap();
        match rig.journal.as_ref().unwrap().append(&record) {
            Ok(commit) => {
                rig.runtime.block_on(commit.wait()).unwrap();
                sent += 1;
            }
            Err(error) => {
                refused += 1;
                assert!(started.elapsed() < Duration::from_secs(60), "{error} after {sent}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // As fast as the store reads: this is not about a store that is slow.
        while rig.store().lag_bytes() > 1 << 20 {
            assert!(started.elapsed() < Duration::from_secs(60), "the store does not read");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(refused, 0, "a healthy store leaves room");
    rig.wait_for(1, sent as usize);
    let file = rusqlite::Connection::open(rig.dir.path().join("history.db")).unwrap();
    let pieces: i64 = file.query_row("SELECT count(*) FROM pieces", [], |row| row.get(0)).unwrap();
    assert!((4..=12).contains(&pieces), "{pieces} pieces of hours and seals");
    rig.kill();
    rig.open();
    rig.wait_for(1, sent as usize);
}

#[test]
fn the_end_of_the_thread_is_told_to_those_who_wait_for_it() {
    let rig = Rig::new();
    let ended = rig.store().ended();
    assert_eq!(rig.store().trouble(), None);
    rig.store().close().unwrap();
    rig.runtime.block_on(ended);
    assert_eq!(rig.store().trouble().unwrap(), "ended");
}

#[test]
fn a_panic_of_the_thread_is_told() {
    let rig = Rig::new();
    let early = rig
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_millis(50), rig.store().ended()).await });
    assert!(early.is_err());
    rig.store().inner.requests.send(Request::Panic).unwrap();
    let ended = rig
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), rig.store().ended()).await });
    ended.unwrap();
    assert_eq!(rig.store().trouble().unwrap(), "ended: asked to");
    assert!(matches!(rig.store().flush(), Err(StoreError::Closed)));
    assert_eq!(rig.count(1), 0, "what is there can still be read");
}

#[test]
fn a_file_that_cannot_be_written_is_a_trouble_until_it_can() {
    let rig = Rig::new();
    let other = rusqlite::Connection::open(rig.dir.path().join("history.db")).unwrap();
    other.execute_batch("ALTER TABLE cursor RENAME TO gone").unwrap();
    let wait_for = |has_trouble: bool| {
        let start = Instant::now();
        while rig.store().trouble().is_some() != has_trouble {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", rig.store().trouble());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    rig.send(1, 0, 1);
    wait_for(true);
    assert!(rig.store().trouble().unwrap().contains("cursor"), "{:?}", rig.store().trouble());
    other.execute_batch("ALTER TABLE gone RENAME TO cursor").unwrap();
    wait_for(false);
}
