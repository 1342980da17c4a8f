//! The log against a plain list in memory, under random work and random damage.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::format::{self, FIRST_OFFSET, RECORD_HEADER_BYTES};
use super::log_tests::{commit_and_locate, open, read_from};
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Commit,
    /// Killed between two commits.
    Reopen,
    /// Killed in the middle of a commit: so much of a write that was not committed is on disk.
    Torn(Index),
    Remove(Index),
    ReadOn,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![4 => 0..300usize, 1 => 0..5_000usize].prop_map(Step::Append),
        4 => Just(Step::Commit),
        1 => Just(Step::Reopen),
        1 => any::<Index>().prop_map(Step::Torn),
        1 => any::<Index>().prop_map(Step::Remove),
        2 => Just(Step::ReadOn),
    ]
}

/// What must be readable: each committed record with its place.
#[derive(Debug, Default)]
struct Model {
    committed: Vec<(Position, Vec<u8>)>,
    uncommitted: Vec<Vec<u8>>,
    appended: u64,
}

impl Model {
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.appended += 1;
        let mut payload = self.appended.to_be_bytes().to_vec();
        // Many zeros and small numbers, as in real samples and in the headers of records.
        payload.extend((0..len).map(|n| if n % 3 == 0 { (n % 11) as u8 } else { 0 }));
        payload
    }

    fn payloads_from(&self, from: Position) -> Vec<Vec<u8>> {
        let left = self.committed.iter().filter(|(at, _)| *at >= from);
        left.map(|(_, payload)| payload.clone()).collect()
    }
}

/// A directory in memory where there is one: hundreds of runs need not wait for a disk.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn newest_file(dir: &Path) -> std::path::PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.max().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_log_reads_as_a_list_does(steps in vec(step(), 1..60), segment_bytes in 1..3_000u64) {
        let dir = memory_dir();
        let mut model = Model::default();
        let mut writer = open(dir.path(), segment_bytes).0;
        let mut follower = writer.view().reader(Position::default());
        let mut followed = Vec::new();
        let mut removed_before = Position::default();
        for step in steps {
            match step {
                Step::Append(len) => {
                    let payload = model.payload(len);
                    writer.append(&payload).unwrap();
                    model.uncommitted.push(payload);
                }
                Step::Commit => {
                    let located = commit_and_locate(&mut writer);
                    let payloads: Vec<_> = located.iter().map(|(_, payload)| payload.clone()).collect();
                    prop_assert_eq!(payloads, std::mem::take(&mut model.uncommitted));
                    model.committed.extend(located);
                }
                Step::Reopen | Step::Torn(_) => {
                    model.uncommitted.clear();
                    let before = follower.position();
                    let end = writer.view().end();
                    let newest = writer.view().segments().last().copied();
                    drop(writer);
                    if let (Step::Torn(kept), Some(newest)) = (step, newest) {
                        // Of a record behind the last one some bytes came to disk, but not all.
                        let path = dir.path().join(format::file_name(newest.number));
                        let mut bytes = fs::read(&path).unwrap();
                        let record = bytes.get(FIRST_OFFSET as usize..).unwrap_or_default().to_vec();
                        bytes.extend_from_slice(&record[..kept.index(record.len().min(1_000) + 1).min(8)]);
                        fs::write(&path, bytes).unwrap();
                    }
                    writer = open(dir.path(), segment_bytes).0;
                    prop_assert_eq!(writer.view().end(), end);
                    follower = writer.view().reader(before);
                }
                Step::Remove(index) if !model.committed.is_empty() => {
                    let before = model.committed[index.index(model.committed.len())].0;
                    let bytes = writer.view().bytes();
                    let removed = writer.remove_before(before).unwrap();
                    prop_assert_eq!(writer.view().bytes(), bytes - removed.bytes);
                    removed_before = removed_before.max(before);
                    let first = writer.view().first();
                    model.committed.retain(|(at, _)| *at >= first);
                    prop_assert!(model.committed.iter().any(|(at, _)| *at == before));
                }
                Step::Remove(_) => {}
                Step::ReadOn => {
                    while let Some(entry) = follower.next_entry().unwrap() {
                        followed.push((entry.at, entry.payload.to_vec()));
                    }
                    prop_assert_eq!(follower.position(), writer.view().end());
                }
            }
        }
        for (at, _) in &model.committed {
            let (payloads, damage) = read_from(writer.view(), *at);
            prop_assert_eq!(payloads, model.payloads_from(*at));
            prop_assert_eq!(damage, Damage::default());
        }
        let records = model.committed.iter().map(|(_, payload)| (RECORD_HEADER_BYTES + payload.len()) as u64);
        let headers = writer.view().segments().len() as u64 * FIRST_OFFSET;
        prop_assert_eq!(writer.view().bytes(), headers + records.sum::<u64>());
        // The follower saw each record once and in order, but for those that were removed before it came.
        prop_assert!(followed.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (at, payload) in &model.committed {
            let seen = followed.iter().find(|(seen, _)| seen == at);
            prop_assert!(seen.map_or(*at >= follower.position(), |(_, seen)| seen == payload));
        }
    }

    #[test]
    fn a_tail_cut_at_any_byte_keeps_all_records_before_it(
        lens in vec(0..400usize, 1..30), cut in any::<Index>(), garbage in vec(any::<u8>(), 0..50)
    ) {
        let dir = memory_dir();
        let mut model = Model::default();
        let mut writer = open(dir.path(), u64::MAX).0;
        for len in lens {
            let payload = model.payload(len);
            writer.append(&payload).unwrap();
        }
        model.committed = commit_and_locate(&mut writer);
        drop(writer);
        let path = newest_file(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(cut.index(bytes.len() + 1));
        let whole = |(at, payload): &&(Position, Vec<u8>)| {
            at.offset as usize + RECORD_HEADER_BYTES + payload.len() <= bytes.len()
        };
        let expected: Vec<Vec<u8>> = model.committed.iter().filter(whole).map(|(_, p)| p.clone()).collect();
        let garbage = if bytes.len() < FIRST_OFFSET as usize { Vec::new() } else { garbage };
        let end = expected.len().checked_sub(1).map_or(FIRST_OFFSET, |n| {
            model.committed[n].0.offset + (RECORD_HEADER_BYTES + expected[n].len()) as u64
        });
        bytes.extend_from_slice(&garbage);
        fs::write(&path, &bytes).unwrap();
        let (writer, opened) = open(dir.path(), u64::MAX);
        let end = if bytes.len() < FIRST_OFFSET as usize { 0 } else { end };
        prop_assert_eq!(opened, Opened { cut_bytes: bytes.len() as u64 - end, damage: Damage::default() });
        prop_assert_eq!(read_from(writer.view(), Position::default()), (expected, Damage::default()));
    }

    #[test]
    fn flipped_bits_cost_the_records_they_hit(
        lens in vec(0..400usize, 1..30), flips in vec(any::<Index>(), 1..6), segment_bytes in 1..3_000u64
    ) {
        let dir = memory_dir();
        let mut model = Model::default();
        let mut writer = open(dir.path(), segment_bytes).0;
        for len in lens {
            let payload = model.payload(len);
            writer.append(&payload).unwrap();
            model.committed.extend(commit_and_locate(&mut writer));
        }
        let mut bits: Vec<(u64, u64)> = Vec::new();
        for segment in writer.view().segments() {
            // Of the headers only that of the second segment may be hit, or little would be left.
            let from = if segment.number == 2 { 0 } else { FIRST_OFFSET * 8 };
            bits.extend((from..segment.bytes * 8).map(|bit| (segment.number, bit)));
        }
        let mut hit: Vec<(u64, u64)> = flips.iter().map(|flip| bits[flip.index(bits.len())]).collect();
        hit.sort_unstable();
        hit.dedup();
        for (number, bit) in &hit {
            let path = dir.path().join(format::file_name(*number));
            let mut bytes = fs::read(&path).unwrap();
            bytes[*bit as usize / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
        }
        let spoilt = |(at, payload): &(Position, Vec<u8>)| hit.iter().any(|(number, bit)| {
            let end = at.offset + (RECORD_HEADER_BYTES + payload.len()) as u64;
            *number == at.segment && (*bit < FIRST_OFFSET * 8 || (at.offset * 8..end * 8).contains(bit))
        });
        let expected: Vec<Vec<u8>> =
            model.committed.iter().filter(|record| !spoilt(record)).map(|(_, p)| p.clone()).collect();
        let lost: u64 = model.committed.iter().filter(|record| spoilt(record))
            .map(|(_, payload)| (RECORD_HEADER_BYTES + payload.len()) as u64).sum();
        let (payloads, damage) = read_from(writer.view(), Position::default());
        prop_assert_eq!(payloads, expected.clone());
        prop_assert_eq!(damage.bytes, lost, "what is lost is what is counted");
        prop_assert!(damage.stretches <= hit.len() as u64);
        drop(writer);
        let (mut writer, opened) = open(dir.path(), segment_bytes);
        prop_assert!(opened.damage.bytes + opened.cut_bytes <= lost);
        writer.append(b"goes on").unwrap();
        writer.commit().unwrap();
        let (mut payloads, damage) = read_from(writer.view(), Position::default());
        prop_assert_eq!(payloads.pop(), Some(b"goes on".to_vec()));
        prop_assert_eq!(payloads, expected);
        prop_assert_eq!(damage.bytes + opened.cut_bytes, lost);
    }
}
