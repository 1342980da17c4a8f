//! The log on a disk that fills, fails and loses what was not synced, under a process that dies between any two calls.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;

use super::format::FIRST_OFFSET;
use super::model::{Faults, ModelFs};
use super::*;

const DIR: &str = "/log";

/// A writer and a reader that notes how far it is, and what both must keep to.
struct Run {
    seed: u64,
    rng: Rng,
    fs: ModelFs,
    segment_bytes: u64,
    writer: Writer,
    reader: Reader,
    /// Where the reader goes on after a restart.
    cursor: Position,
    appended: u64,
    /// Since the last commit.
    waiting: Vec<u64>,
    /// In order: what the log has promised to keep.
    committed: Vec<u64>,
    /// In order of their first coming.
    read: Vec<u64>,
    known: BTreeSet<u64>,
    deaths: u32,
}

fn payload(number: u64, rng: &mut Rng) -> Vec<u8> {
    let len = match rng.u8(..20) {
        0 => rng.usize(..20_000),
        1 => 0,
        _ => rng.usize(..400),
    };
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((0..len).map(|n| if n % 3 == 0 { (n % 11) as u8 } else { 0 }));
    payload
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}

fn open(fs: &ModelFs, segment_bytes: u64, rng: &mut Rng) -> Result<Writer, LogError> {
    // One that was compressed may not be from now on, and the other way round.
    let options = LogOptions { dir: DIR.into(), segment_bytes, compress: rng.bool() };
    Writer::open_on(Arc::new(fs.clone()), options).map(|(writer, _)| writer)
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let fs = ModelFs::new(rng.u64(..));
        let segment_bytes = rng.u64(1..4_000);
        let writer = open(&fs, segment_bytes, &mut rng).unwrap();
        let reader = writer.view().reader(Position::default());
        Self {
            seed,
            rng,
            fs,
            segment_bytes,
            writer,
            reader,
            cursor: Position::default(),
            appended: 0,
            waiting: Vec::new(),
            committed: Vec::new(),
            read: Vec::new(),
            known: BTreeSet::new(),
            deaths: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..40) {
            0..14 => self.append(),
            14..24 => self.commit(),
            24..32 => {
                let most = self.rng.usize(..12);
                self.read_on(most);
            }
            32 => drop(self.writer.remove_before(self.cursor)),
            33 => self.remove_all_that_is_read(),
            34 => self.fs.stop_after(self.rng.u64(1..20)),
            35 => self.die(),
            36..38 => self.fs.fail(|faults| *faults = Faults::default()),
            _ => self.break_something(),
        }
        if self.fs.is_stopped() {
            self.die();
        }
    }

    fn append(&mut self) {
        self.appended += 1;
        let payload = payload(self.appended, &mut self.rng);
        match self.writer.append(&payload) {
            Ok(_) => self.waiting.push(self.appended),
            Err(error) => {
                assert!(matches!(error, LogError::Write { .. }) && error.can_try_again());
                assert_eq!(
                    self.waiting,
                    [],
                    "seed {}: an append that fails takes nothing with it",
                    self.seed
                );
            }
        }
    }

    fn commit(&mut self) {
        match self.writer.commit() {
            Ok(_) => self.committed.append(&mut self.waiting),
            Err(error) => assert!(error.can_try_again()),
        }
        self.waiting.clear();
    }

    fn read_on(&mut self, most: usize) {
        for _ in 0..most {
            // Whoever dies has not noted what it read.
            match self.reader.next_entry() {
                Ok(Some(entry)) => {
                    self.cursor = entry.after;
                    let number = number_of(entry.payload);
                    if self.known.insert(number) {
                        self.read.push(number);
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn remove_all_that_is_read(&mut self) {
        if self.cursor == self.writer.view().end() && self.waiting.is_empty() {
            let done = self.writer.remove_all();
            assert!(done.is_err() || self.writer.view().bytes() <= FIRST_OFFSET);
        }
    }

    fn break_something(&mut self) {
        let capacity = self.fs.files().iter().map(|(_, bytes)| bytes).sum::<u64>() + self.rng.u64(..600);
        let choice = self.rng.u8(..5);
        self.fs.fail(|faults| match choice {
            0 => faults.capacity = Some(capacity),
            1 => faults.sync_fails = true,
            2 => faults.sync_dir_fails = true,
            3 => faults.denied = true,
            _ => faults.read_only = true,
        });
    }

    /// The process or the machine dies and comes back.
    fn die(&mut self) {
        self.deaths += 1;
        if self.rng.bool() {
            self.fs.kill()
        } else {
            self.fs.crash(&mut self.rng)
        }
        if self.rng.bool() {
            // May die while it starts.
            self.fs.stop_after(self.rng.u64(1..30));
        }
        self.writer = match open(&self.fs, self.segment_bytes, &mut self.rng) {
            Ok(writer) => writer,
            Err(_) => {
                if self.rng.bool() {
                    self.fs.kill()
                } else {
                    self.fs.crash(&mut self.rng)
                }
                self.fs.fail(|faults| *faults = Faults::default());
                open(&self.fs, self.segment_bytes, &mut self.rng).unwrap()
            }
        };
        self.reader = self.writer.view().reader(self.cursor);
        self.waiting.clear();
    }

    fn finish(mut self) {
        let seed = self.seed;
        self.fs.fail(|faults| *faults = Faults::default());
        self.die();
        self.fs.kill();
        self.writer = open(&self.fs, self.segment_bytes, &mut self.rng).unwrap();
        self.append();
        self.commit();
        assert_eq!(self.committed.last(), Some(&self.appended), "seed {seed}: it carries on by itself");
        self.reader = self.writer.view().reader(self.cursor);
        self.read_on(usize::MAX);
        assert_eq!(self.reader.position(), self.writer.view().end());

        let promised: BTreeSet<u64> = self.committed.iter().copied().collect();
        let mut read = self.read.clone();
        // What was on disk before its commit returned may be kept.
        read.retain(|number| promised.contains(number));
        assert_eq!(read, self.committed, "seed {seed}: what was committed is read in order");

        let mut left = self.writer.view().reader(Position::default());
        let mut numbers = Vec::new();
        while let Some(entry) = left.next_entry().unwrap() {
            numbers.push(number_of(entry.payload));
        }
        assert!(numbers.is_sorted_by(|one, next| one < next), "seed {seed}: each is there once: {numbers:?}");

        let end = self.writer.view().end();
        self.writer.remove_all().unwrap();
        assert_eq!(self.writer.view().bytes(), FIRST_OFFSET);
        assert!(self.writer.view().end() > end, "seed {seed}: numbers are not used again");
        let files = self.fs.files();
        assert!(files.iter().all(|(path, _)| path.starts_with(Path::new(DIR))));
        assert_eq!(files.len(), self.writer.view().segments().len(), "seed {seed}: nothing is left behind");
    }
}

#[test]
fn what_was_committed_is_read_in_order_whenever_the_machine_dies() {
    let mut deaths = 0;
    for seed in 0..500 {
        let mut run = Run::new(seed);
        for _ in 0..200 {
            run.step();
        }
        deaths += run.deaths;
        run.finish();
    }
    assert!(deaths > 2_000, "{deaths}");
}

#[test]
fn whatever_the_disk_refuses_is_told_what_is_stored_stays_and_it_carries_on() {
    type Fault = fn(&mut Faults);
    let faults: [(&str, Fault); 5] = [
        ("No space left on device", |faults| faults.capacity = Some(600)),
        ("Read-only file system", |faults| faults.read_only = true),
        ("Permission denied", |faults| faults.denied = true),
        ("Input/output error", |faults| faults.sync_fails = true),
        ("Input/output error", |faults| faults.sync_dir_fails = true),
    ];
    for (reason, fault) in faults {
        for compress in [false, true] {
            let fs = ModelFs::new(1);
            // Small segments: the directory is needed for each commit.
            let options = LogOptions { dir: DIR.into(), segment_bytes: 1, compress };
            let mut writer = Writer::open_on(Arc::new(fs.clone()), options).unwrap().0;
            let mut rng = Rng::with_seed(1);
            let mut commit = |writer: &mut Writer, number: u64| {
                let mut payload = number.to_be_bytes().to_vec();
                payload.extend((0..400).map(|_| rng.u8(..)));
                writer.append(&payload)?;
                writer.commit().map(drop)
            };
            commit(&mut writer, 1).unwrap();
            fs.fail(fault);
            for _ in 0..3 {
                let error = commit(&mut writer, 2).unwrap_err();
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(source.contains(reason) && error.can_try_again(), "{error}");
                assert!(error.to_string().contains("/log/00000000000"), "it names the file: {error}");
                if reason != "Permission denied" {
                    assert_eq!(numbers(&writer), [1], "{reason}");
                }
            }
            fs.fail(|faults| *faults = Faults::default());
            assert_eq!(numbers(&writer), [1], "{reason}");
            commit(&mut writer, 3).unwrap();
            assert_eq!(numbers(&writer), [1, 3], "{reason}");
            fs.crash(&mut Rng::with_seed(2));
            let writer = open(&fs, 1, &mut Rng::with_seed(3)).unwrap();
            let mut left = numbers(&writer);
            left.retain(|number| *number != 2);
            assert_eq!(left, [1, 3], "{reason}");
        }
    }
}

fn numbers(writer: &Writer) -> Vec<u64> {
    let mut reader = writer.view().reader(Position::default());
    let mut numbers = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        numbers.push(number_of(entry.payload));
    }
    numbers
}
