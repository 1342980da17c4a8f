//! The log on a real file system.

use std::fs;
use std::path::Path;

use super::format::{self, FIRST_OFFSET};
use super::*;

/// Opens a log whose segments are `segment_bytes` long.
pub(super) fn open(dir: &Path, segment_bytes: u64) -> (Writer, Opened) {
    Writer::open(LogOptions { dir: dir.to_owned(), segment_bytes, compress: false }).unwrap()
}

/// All payloads from `from` to the end.
pub(super) fn read_from(view: &View, from: Position) -> (Vec<Vec<u8>>, Damage) {
    let mut reader = view.reader(from);
    let mut payloads = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        assert_eq!(entry.after.offset - entry.at.offset, entry.bytes());
        payloads.push(entry.payload.to_vec());
    }
    assert_eq!(reader.position(), view.end(), "a reader that found no more stands at the end");
    (payloads, reader.damage())
}

fn read_all(view: &View) -> Vec<Vec<u8>> {
    let (payloads, damage) = read_from(view, Position::default());
    assert_eq!(damage, Damage::default());
    payloads
}

fn commit(writer: &mut Writer, payloads: &[&[u8]]) -> Vec<Position> {
    payloads.iter().for_each(|payload| writer.append(payload).unwrap());
    commit_and_locate(writer).into_iter().map(|(at, _)| at).collect()
}

/// Commits, and tells where the records of this commit are.
pub(super) fn commit_and_locate(writer: &mut Writer) -> Vec<(Position, Vec<u8>)> {
    let from = writer.view().end();
    writer.commit().unwrap();
    let mut reader = writer.view().reader(from);
    let mut located = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        located.push((entry.at, entry.payload.to_vec()));
    }
    located
}

fn segment_path(dir: &Path, number: u64) -> std::path::PathBuf {
    dir.join(format::file_name(number))
}

#[test]
fn a_reader_sees_what_is_committed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, opened) = open(dir.path(), 1 << 20);
    assert_eq!(opened, Opened::default());
    let mut reader = writer.view().reader(Position::default());
    assert_eq!(reader.next_entry().unwrap(), None, "an empty log");
    let first = Position { segment: 1, offset: FIRST_OFFSET };
    writer.append(b"one").unwrap();
    writer.append(b"").unwrap();
    assert_eq!(reader.next_entry().unwrap(), None, "not committed");
    let end = writer.commit().unwrap();
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!((entry.at, entry.payload), (first, &b"one"[..]));
    let entry = reader.next_entry().unwrap().unwrap();
    assert_eq!((entry.after, entry.payload), (end, &b""[..]));
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!((reader.position(), writer.view().end()), (end, end));
}

#[test]
fn a_reader_moves_over_the_ends_of_segments_and_starts_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 100);
    let payloads: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; 40]).collect();
    let positions: Vec<Position> =
        payloads.iter().map(|payload| commit(&mut writer, &[payload])[0]).collect();
    let view = writer.view();
    assert_eq!(view.segments().len(), 25);
    assert_eq!(view.first(), positions[0]);
    for (n, position) in positions.iter().enumerate() {
        assert_eq!(read_from(view, *position), (payloads[n..].to_vec(), Damage::default()));
        assert_eq!(view.bytes_after(*position), ((50 - n) * 49) as u64);
    }
    assert_eq!(view.bytes_after(view.end()), 0);
    assert_eq!(view.bytes(), 25 * (28 + 2 * 49));
}

#[test]
fn a_reopened_log_goes_on_in_a_new_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 1 << 20);
    commit(&mut writer, &[b"one", b"two"]);
    let end = writer.view().end();
    writer.append(b"never committed").unwrap();
    drop(writer);
    let (mut writer, opened) = open(dir.path(), 1 << 20);
    assert_eq!(opened, Opened::default());
    assert_eq!(writer.view().end(), end);
    assert_eq!(commit(&mut writer, &[b"three"]), [Position { segment: 2, offset: FIRST_OFFSET }]);
    assert_eq!(read_from(writer.view(), end).0, [b"three"]);
    assert_eq!(read_all(writer.view()), [&b"one"[..], b"two", b"three"]);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let origin = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(origin.path(), 1 << 20);
    let ends: Vec<u64> = [&b"first"[..], b"second", b"third"]
        .iter()
        .map(|payload| {
            commit(&mut writer, &[payload]);
            writer.view().end().offset
        })
        .collect();
    let whole = fs::read(segment_path(origin.path(), 1)).unwrap();
    for len in 0..=whole.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(segment_path(dir.path(), 1), &whole[..len]).unwrap();
        let (mut writer, opened) = open(dir.path(), 1 << 20);
        let left = ends.iter().filter(|end| **end <= len as u64).count();
        let kept = [0, FIRST_OFFSET].into_iter().chain(ends.clone()).rfind(|end| *end <= len as u64).unwrap();
        assert_eq!(opened, Opened { cut_bytes: len as u64 - kept, damage: Damage::default() });
        assert_eq!(fs::read(segment_path(dir.path(), 1)).map_or(0, |file| file.len() as u64), kept);
        commit(&mut writer, &[b"next"]);
        let expected: Vec<&[u8]> =
            [&b"first"[..], b"second", b"third"].into_iter().take(left).chain([&b"next"[..]]).collect();
        assert_eq!(read_all(writer.view()), expected, "cut to {len} bytes");
    }
}

#[test]
fn zeros_and_garbage_behind_the_last_record_are_cut() {
    for tail in [vec![0; 300_000], b"\0\0\0\x05\0garbage that claims to be a record".to_vec(), vec![0xff; 77]]
    {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(dir.path(), 1 << 20);
        commit(&mut writer, &[b"one"]);
        let path = segment_path(dir.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&tail);
        fs::write(&path, bytes).unwrap();
        let (writer, opened) = open(dir.path(), 1 << 20);
        assert_eq!(opened.cut_bytes, tail.len() as u64);
        assert_eq!(read_all(writer.view()), [b"one"]);
    }
}

#[test]
fn a_damaged_byte_costs_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 1 << 20);
    let positions = commit(&mut writer, &[b"first", b"second", b"third"]);
    let path = segment_path(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    for at in positions[1].offset..positions[2].offset {
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let expected = Damage { stretches: 1, bytes: positions[2].offset - positions[1].offset };
        let (payloads, damage) = read_from(writer.view(), Position::default());
        assert_eq!((payloads, damage), (vec![b"first".to_vec(), b"third".to_vec()], expected), "byte {at}");
        let (reopened, opened) = open(dir.path(), 1 << 20);
        assert_eq!(opened, Opened { cut_bytes: 0, damage: expected });
        assert_eq!(read_from(reopened.view(), positions[1]).0, [b"third"]);
    }
}

#[test]
fn a_payload_that_imitates_a_record_is_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 1 << 20);
    // A whole segment of another log, as a hostile host could send it in a text.
    let other = tempfile::tempdir().unwrap();
    commit(&mut open(other.path(), 1 << 20).0, &[b"forged"]);
    let forged = fs::read(segment_path(other.path(), 1)).unwrap();
    let positions = commit(&mut writer, &[&forged, b"honest"]);
    let path = segment_path(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[positions[0].offset as usize] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(read_from(writer.view(), Position::default()).0, [b"honest"]);
}

#[test]
fn a_segment_without_a_header_or_a_file_is_skipped_and_counted() {
    for damage_it in [
        |path: &Path| fs::remove_file(path).unwrap(),
        |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[3] ^= 1;
            fs::write(path, bytes).unwrap();
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = open(dir.path(), 1);
        commit(&mut writer, &[b"one"]);
        commit(&mut writer, &[b"two"]);
        commit(&mut writer, &[b"three"]);
        damage_it(&segment_path(dir.path(), 2));
        let (payloads, damage) = read_from(writer.view(), Position::default());
        assert_eq!(payloads, [&b"one"[..], b"three"]);
        assert_eq!(damage, Damage { stretches: 1, bytes: 9 + 3 });
    }
}

#[test]
fn a_segment_that_was_cut_by_somebody_costs_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 1);
    let one = vec![1; 300_000];
    let positions = commit(&mut writer, &[&one, b"two", b"three", &vec![2; 500_000]]);
    commit(&mut writer, &[b"five"]);
    let file = fs::OpenOptions::new().write(true).open(segment_path(dir.path(), 1)).unwrap();
    file.set_len(positions[2].offset + 5).unwrap();
    let (payloads, damage) = read_from(writer.view(), Position::default());
    assert_eq!(payloads, [one, b"two".to_vec(), b"five".to_vec()]);
    assert_eq!(damage, Damage { stretches: 1, bytes: 9 + 5 + 9 + 500_000 });
}

#[test]
fn a_newer_format_is_refused_by_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    format::put_segment_header(&mut bytes, 1, 1, true);
    bytes[9] = 3;
    bytes.truncate(24);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    bytes.extend_from_slice(b"whatever it is");
    fs::write(segment_path(dir.path(), 1), &bytes).unwrap();
    let error = Writer::open(LogOptions { dir: dir.path().to_owned(), segment_bytes: 1, compress: false })
        .unwrap_err();
    assert!(matches!(error, LogError::Newer { version: 3, .. }), "{error}");
    assert!(!error.can_try_again());
    assert_eq!(fs::read(segment_path(dir.path(), 1)).unwrap(), bytes);
}

#[test]
fn segments_go_when_they_are_passed_and_the_newest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 100);
    let positions: Vec<Position> = (0..10u8).map(|n| commit(&mut writer, &[&[n; 91]])[0]).collect();
    commit(&mut writer, &[b"small"]);
    let mut held = writer.view().reader(positions[2]);
    assert_eq!(held.next_entry().unwrap().unwrap().payload, [2; 91]);
    assert_eq!(writer.remove_before(positions[0]).unwrap(), Removed::default());
    assert_eq!(writer.remove_before(positions[5]).unwrap(), Removed { segments: 5, bytes: 5 * 128 });
    assert_eq!(writer.view().first(), positions[5]);
    assert_eq!(read_from(writer.view(), positions[1]).0[0], [5; 91], "gone: the oldest that is left");
    assert_eq!(held.next_entry().unwrap().unwrap().payload, [5; 91], "a reader that stood in one goes on");
    let end = writer.view().end();
    assert_eq!(writer.remove_before(end).unwrap().segments, 5);
    assert_eq!(writer.view().segments().len(), 1, "the newest is not full");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(writer.view().end(), end);

    commit(&mut writer, &[&[7; 91]]);
    let end = writer.view().end();
    assert_eq!(
        writer.remove_before(end).unwrap().segments,
        1,
        "the newest is full: an empty one takes its place"
    );
    assert_eq!(writer.view().bytes(), FIRST_OFFSET);
    assert!(writer.view().end() > end);
    let mut reader = writer.view().reader(end);
    assert_eq!(reader.next_entry().unwrap(), None);
    assert_eq!(reader.position(), writer.view().end());
    drop(writer);
    let (mut writer, _) = open(dir.path(), 100);
    commit(&mut writer, &[b"later"]);
    assert_eq!(reader_after(&writer, end), [b"later"]);
}

fn reader_after(writer: &Writer, from: Position) -> Vec<Vec<u8>> {
    read_from(writer.view(), from).0
}

#[test]
fn a_place_that_the_log_never_had_means_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 100);
    commit(&mut writer, &[b"one"]);
    for (segment, offset) in [(9, 28), (1, 41), (0, 0), (1, 0)] {
        assert_eq!(reader_after(&writer, Position { segment, offset }), [b"one"], "{segment}:{offset}");
    }
}

#[test]
fn a_record_or_a_commit_over_its_cap_is_refused_and_the_rest_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 1 << 20);
    writer.append(b"one").unwrap();
    let large = vec![1; MAX_RECORD_BYTES];
    assert!(matches!(writer.append(&vec![1; MAX_RECORD_BYTES + 1]), Err(LogError::TooLarge { .. })));
    while writer.append(&large).is_ok() {}
    assert!(matches!(writer.append(&large), Err(LogError::Uncommitted)));
    writer.commit().unwrap();
    writer.append(&large).unwrap();
    writer.commit().unwrap();
    let (payloads, damage) = read_from(writer.view(), Position::default());
    assert_eq!((payloads.len(), damage), (17, Damage::default()));
}

#[test]
fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.log"), "mine").unwrap();
    fs::create_dir(segment_path(dir.path(), 4)).unwrap();
    let (mut writer, _) = open(dir.path(), 1);
    commit(&mut writer, &[b"one"]);
    commit(&mut writer, &[b"two"]);
    writer.remove_before(writer.view().end()).unwrap();
    drop(writer);
    open(dir.path(), 1);
    assert_eq!(fs::read(dir.path().join("notes.log")).unwrap(), b"mine");
    assert!(segment_path(dir.path(), 4).is_dir());
}

#[test]
fn a_log_that_is_emptied_takes_some_bytes_and_never_uses_a_number_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 100);
    assert_eq!(writer.remove_all().unwrap(), Removed::default(), "nothing was in it");
    (0..10u8).for_each(|n| drop(commit(&mut writer, &[&[n; 60]])));
    let (end, bytes) = (writer.view().end(), writer.view().bytes());
    let mut reader = writer.view().reader(end);
    writer.append(b"waits").unwrap();
    assert_eq!(writer.remove_all().unwrap().segments, 4, "the newest stays while a record waits");
    writer.commit().unwrap();
    assert_eq!(reader.next_entry().unwrap().unwrap().payload, b"waits");
    assert_eq!(writer.remove_all().unwrap(), Removed { segments: 2, bytes: bytes / 5 + 28 + 9 + 5 });
    assert_eq!(writer.remove_all().unwrap(), Removed::default());
    assert_eq!((writer.view().bytes(), fs::read_dir(dir.path()).unwrap().count()), (FIRST_OFFSET, 1));
    assert!(writer.view().end().segment > end.segment);
    let emptied = writer.view().end();
    drop(writer);
    let (mut writer, _) = open(dir.path(), 100);
    assert_eq!((writer.remove_all().unwrap(), writer.view().end()), (Removed::default(), emptied));
    commit(&mut writer, &[b"later"]);
    assert!(writer.view().end().segment > emptied.segment);
    assert_eq!(reader_after(&writer, end), [b"later"]);
}

#[test]
fn the_oldest_segment_goes_and_what_was_in_it_can_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(dir.path(), 100);
    assert_eq!(writer.remove_oldest().unwrap(), None);
    (0..6u8).for_each(|n| drop(commit(&mut writer, &[&[n; 60]])));
    for lost in [[0, 1], [2, 3], [4, 5]] {
        let first = writer.view().first();
        let mut reader = writer.view().reader(first);
        let mut in_it = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap().filter(|entry| entry.at.segment == first.segment)
        {
            in_it.push(entry.payload[0]);
        }
        assert_eq!(in_it, lost);
        let expected = SegmentInfo { number: first.segment, bytes: 28 + 2 * 69 };
        assert_eq!(writer.remove_oldest().unwrap(), Some(expected));
    }
    assert_eq!(writer.view().bytes(), FIRST_OFFSET, "also the newest, by an empty one");
    assert_eq!(writer.remove_oldest().unwrap(), None);
    writer.append(b"waits").unwrap();
    assert_eq!(writer.remove_oldest().unwrap(), None);
    writer.commit().unwrap();
    assert_eq!(read_all(writer.view()), [b"waits"]);
}
