//! A file system that fails when it is told to, under the real one: what cannot be had from a disk at will.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::fs::{AppendFile, Fs, ReadFile, RealFs};
use super::log_tests::read_from;
use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What fails from now on.
#[derive(Debug, Default)]
struct Faults {
    create: AtomicBool,
    /// Half of what is appended is written, then ENOSPC.
    append: AtomicBool,
    sync: AtomicBool,
    sync_dir: AtomicBool,
    cut: AtomicBool,
    remove: AtomicBool,
    /// Reads of these bytes of any file fail.
    unreadable: Mutex<std::ops::Range<u64>>,
    /// Calls that made data durable.
    syncs: AtomicU32,
}

#[derive(Debug)]
struct FaultFs(Arc<Faults>);

#[derive(Debug)]
struct FaultFile<F: ?Sized>(Arc<Faults>, Box<F>);

fn check(fault: &AtomicBool, code: i32) -> io::Result<()> {
    if fault.load(Relaxed) { Err(io::Error::from_raw_os_error(code)) } else { Ok(()) }
}

impl Fs for FaultFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealFs.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        RealFs.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        check(&self.0.create, ENOSPC)?;
        Ok(Box::new(FaultFile(self.0.clone(), RealFs.create(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(FaultFile(self.0.clone(), RealFs.open(path)?)))
    }
    fn cut(&self, path: &Path, len: u64) -> io::Result<()> {
        check(&self.0.cut, EIO)?;
        RealFs.cut(path, len)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        check(&self.0.remove, EIO)?;
        RealFs.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        check(&self.0.sync_dir, EIO)?;
        self.0.syncs.fetch_add(1, Relaxed);
        RealFs.sync_dir(dir)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealFs.read(path)
    }
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        check(&self.0.create, ENOSPC)?;
        RealFs.replace(path, bytes)
    }
}

impl AppendFile for FaultFile<dyn AppendFile> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.0.append.load(Relaxed) {
            self.1.append(&bytes[..bytes.len() / 2])?;
        }
        check(&self.0.append, ENOSPC)?;
        self.1.append(bytes)
    }
    fn cut(&mut self, len: u64) -> io::Result<()> {
        check(&self.0.cut, EIO)?;
        self.1.cut(len)
    }
    fn sync(&mut self) -> io::Result<()> {
        check(&self.0.sync, EIO)?;
        self.0.syncs.fetch_add(1, Relaxed);
        self.1.sync()
    }
}

impl ReadFile for FaultFile<dyn ReadFile> {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let bad = self.0.unreadable.lock().unwrap().clone();
        if bad.contains(&offset) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        // As a kernel does: what comes before the bad page is read.
        let until =
            if offset < bad.start { (bad.start - offset).min(into.len() as u64) } else { into.len() as u64 };
        self.1.read_at(offset, &mut into[..until as usize])
    }
}

fn open(dir: &Path, segment_bytes: u64) -> (Writer, Opened, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let options = LogOptions { dir: dir.to_owned(), segment_bytes, compress: false };
    let (writer, opened) = Writer::open_on(Arc::new(FaultFs(faults.clone())), options).unwrap();
    (writer, opened, faults)
}

fn append_and_commit(writer: &mut Writer, payload: &[u8]) -> Result<Position, LogError> {
    writer.append(payload)?;
    writer.commit()
}

fn all(writer: &Writer) -> Vec<Vec<u8>> {
    let (payloads, damage) = read_from(writer.view(), Position::default());
    assert_eq!(damage, Damage::default());
    payloads
}

#[test]
fn a_write_that_fails_leaves_no_half_record_and_the_segment_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, faults) = open(dir.path(), 1 << 20);
    append_and_commit(&mut writer, b"one").unwrap();
    faults.append.store(true, Relaxed);
    for _ in 0..3 {
        let error = append_and_commit(&mut writer, b"lost").unwrap_err();
        assert!(matches!(error, LogError::Write { .. }) && error.can_try_again(), "{error}");
        assert_eq!(all(&writer), [b"one"]);
    }
    faults.append.store(false, Relaxed);
    append_and_commit(&mut writer, b"two").unwrap();
    assert_eq!(all(&writer), [b"one", b"two"]);
    assert_eq!(writer.view().segments().len(), 1);
    drop(writer);
    let (writer, opened, _) = open(dir.path(), 1 << 20);
    assert_eq!((all(&writer), opened), (vec![b"one".to_vec(), b"two".to_vec()], Opened::default()));
}

#[test]
fn a_half_record_that_cannot_be_cut_is_cut_before_the_next_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, faults) = open(dir.path(), 1 << 20);
    append_and_commit(&mut writer, b"one").unwrap();
    let committed = writer.view().end();
    faults.append.store(true, Relaxed);
    faults.cut.store(true, Relaxed);
    append_and_commit(&mut writer, b"lost").unwrap_err();
    assert_eq!(all(&writer), [b"one"]);
    faults.append.store(false, Relaxed);
    append_and_commit(&mut writer, b"two").unwrap();
    assert_eq!(all(&writer), [b"one", b"two"], "in a new segment, the old one being as it is");
    faults.cut.store(false, Relaxed);
    append_and_commit(&mut writer, b"three").unwrap();
    assert_eq!(std::fs::metadata(dir.path().join("000000000001.log")).unwrap().len(), committed.offset);
    assert_eq!(all(&writer), [&b"one"[..], b"two", b"three"]);
}

#[test]
fn after_a_failed_sync_the_segment_is_never_written_again() {
    for dir_alone in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _, faults) = open(dir.path(), if dir_alone { 1 } else { 1 << 20 });
        append_and_commit(&mut writer, b"one").unwrap();
        let fault = if dir_alone { &faults.sync_dir } else { &faults.sync };
        fault.store(true, Relaxed);
        for _ in 0..3 {
            let error = append_and_commit(&mut writer, b"lost").unwrap_err();
            assert!(matches!(error, LogError::Sync { .. }), "{error}");
        }
        fault.store(false, Relaxed);
        let end = append_and_commit(&mut writer, b"two").unwrap();
        assert!(end.segment > 1);
        assert_eq!(all(&writer), [b"one", b"two"]);
        drop(writer);
        let (writer, ..) = open(dir.path(), 1 << 20);
        assert_eq!(all(&writer), [b"one", b"two"], "nothing of the failed commits stays");
    }
}

#[test]
fn a_segment_that_cannot_be_made_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, faults) = open(dir.path(), 1);
    faults.create.store(true, Relaxed);
    assert!(matches!(writer.append(b"lost"), Err(LogError::Write { .. })));
    assert_eq!(writer.commit().unwrap(), writer.view().end());
    faults.create.store(false, Relaxed);
    append_and_commit(&mut writer, b"one").unwrap();
    faults.create.store(true, Relaxed);
    writer.append(b"lost").unwrap_err();
    assert_eq!(all(&writer), [b"one"]);
    faults.create.store(false, Relaxed);
    append_and_commit(&mut writer, b"two").unwrap();
    assert_eq!(all(&writer), [b"one", b"two"]);
}

#[test]
fn a_segment_that_cannot_be_removed_stays_part_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, faults) = open(dir.path(), 1);
    for payload in [b"one", b"two", b"six"] {
        append_and_commit(&mut writer, payload).unwrap();
    }
    faults.remove.store(true, Relaxed);
    let end = writer.view().end();
    assert!(matches!(writer.remove_before(end), Err(LogError::Remove { .. })));
    assert_eq!(all(&writer).len(), 3);
    faults.remove.store(false, Relaxed);
    assert_eq!(writer.remove_before(end).unwrap().segments, 3);
    assert_eq!(writer.view().segments().len(), 1);
}

#[test]
fn each_commit_is_synced_once_and_a_new_segment_with_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, faults) = open(dir.path(), 1 << 20);
    let at_open = faults.syncs.load(Relaxed);
    assert_eq!(at_open, 1, "the directory");
    for n in 1..=3 {
        writer.append(b"one").unwrap();
        append_and_commit(&mut writer, b"two").unwrap();
        assert_eq!(faults.syncs.load(Relaxed) - at_open, 1 + n);
    }
    writer.commit().unwrap();
    assert_eq!(faults.syncs.load(Relaxed) - at_open, 4, "nothing to commit");
}

#[test]
fn a_page_that_stays_unreadable_is_skipped_and_one_that_comes_back_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _, faults) = open(dir.path(), 1 << 20);
    for n in 0..20u8 {
        append_and_commit(&mut writer, &[n; 1_000]).unwrap();
    }
    let mut reader = writer.view().reader(Position::default());
    *faults.unreadable.lock().unwrap() = 8192..16384;
    let mut payloads = Vec::new();
    let mut errors = 0;
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => payloads.push(entry.payload[0]),
            Ok(None) => break,
            Err(error) => {
                assert!(matches!(error, LogError::Read { .. }));
                errors += 1;
                assert!(errors < 100);
            }
        }
    }
    assert_eq!(errors, 8, "patience for the first page, none for its neighbour");
    let expected: Vec<u8> = (0..8).chain(17..20).collect();
    assert_eq!(payloads, expected);
    assert_eq!(reader.damage(), Damage { stretches: 1, bytes: 9 * 1_009 });

    let mut reader = writer.view().reader(Position::default());
    let mut payloads = Vec::new();
    for _ in 0..5 {
        while let Ok(Some(entry)) = reader.next_entry() {
            payloads.push(entry.payload[0]);
        }
    }
    *faults.unreadable.lock().unwrap() = 0..0;
    while let Some(entry) = reader.next_entry().unwrap() {
        payloads.push(entry.payload[0]);
    }
    assert_eq!((payloads, reader.damage()), ((0..20).collect(), Damage::default()));

    *faults.unreadable.lock().unwrap() = 16384..u64::MAX;
    drop(writer);
    let options = LogOptions { dir: dir.path().to_owned(), segment_bytes: 1, compress: false };
    let (mut writer, opened) = Writer::open_on(Arc::new(FaultFs(faults.clone())), options).unwrap();
    assert_eq!(opened.cut_bytes, 0, "what cannot be read is not cut");
    *faults.unreadable.lock().unwrap() = 0..0;
    append_and_commit(&mut writer, b"on").unwrap();
    assert_eq!(all(&writer).len(), 21);
}
