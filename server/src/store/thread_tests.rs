use super::*;
use crate::journal::Encoded;
use crate::journal::JournalOptions;
use crate::store::test_support::{host, sample};
use vitals_wire::log::Position;
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
        let journal_dir = self.dir.path().join("journal");
        let options = JournalOptions {
            segment_bytes: 64 << 10,
            group: Duration::from_millis(2),
            ..JournalOptions::new(journal_dir)
        };
        let journal = Journal::open(options, self.metrics.clone()).unwrap();
        let options = StoreOptions {
            commit_every: Duration::from_millis(50),
            ..StoreOptions::new(self.dir.path().join("history.db"))
        };
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
    rig.store().close().unwrap();
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
