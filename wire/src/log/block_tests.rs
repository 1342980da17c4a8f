use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::format::{FIRST_OFFSET, put_segment_header};
use super::super::log_tests::read_from;
use super::super::model::ModelFs;
use super::super::*;
use super::*;

/// The records `abc` and the empty one as a block, its frame written by hand from RFC 8878: magic, one segment of 11
/// bytes, one last raw block of 11 bytes.
const BY_HAND: &[u8] = b"\0\0\0\x0b\x28\xb5\x2f\xfd\x20\x0b\x59\0\0\0\0\0\x03abc\0\0\0\0";

fn open(fs: &ModelFs, compress: bool) -> Writer {
    let options = LogOptions { dir: "/log".into(), segment_bytes: 1 << 30, compress };
    Writer::open_on(Arc::new(fs.clone()), options).unwrap().0
}

fn segment() -> &'static Path {
    Path::new("/log/000000000001.log")
}

/// A payload as compressible as samples are.
fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((0..len).map(|n| if n % 3 == 0 { (n % 11) as u8 } else { 0 }));
    payload
}

fn random(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

fn unpacked(block: &mut Unpacker) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let Some(record) = block.next() {
        records.push(block.bytes(record).to_vec());
    }
    records
}

fn all(writer: &Writer) -> Vec<Vec<u8>> {
    let mut reader = writer.view().reader(Position::default());
    let mut payloads = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        payloads.push(entry.payload.to_vec());
    }
    assert_eq!((reader.position(), reader.damage()), (writer.view().end(), Damage::default()));
    payloads
}

#[test]
fn the_bytes_of_a_block_are_these() {
    let mut block = Unpacker::default();
    assert!(block.load(BY_HAND));
    assert_eq!(unpacked(&mut block), [&b"abc"[..], b""]);

    let mut bytes = Vec::new();
    let seed = put_segment_header(&mut bytes, 7, 0x0102_0304, true);
    format::put_block(&mut bytes, seed, 11, &BY_HAND[4..]);
    // The checksums were computed elsewhere.
    let expected = [
        &b"VitalLog\x00\x02\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00\x00\x00\x00\x07"[..],
        b"\xfc\x69\xca\xd4",
        b"\x00\x00\x00\x18\x01",
        b"\x82\xc1\x8e\x36",
        BY_HAND,
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn what_is_no_block_holds_no_record() {
    let mut block = Unpacker::default();
    for len in 0..BY_HAND.len() {
        assert!(!block.load(&BY_HAND[..len]) && !block.has_next(), "{len} bytes of it");
    }
    let framed = |plain: &[u8]| {
        let frame = zstd::bulk::compress(plain, 1).unwrap();
        [&(plain.len() as u32).to_be_bytes()[..], &frame].concat()
    };
    assert!(block.load(&framed(b"\0\0\0\x01a\0\0\0\0")));
    for plain in [&b""[..], b"\0\0\0", b"\0\0\0\x02a", b"\0\0\0\x01a\0", b"\xff\xff\xff\xffabc"] {
        assert!(!block.load(&framed(plain)) && !block.has_next(), "{plain:?}");
    }
    for claimed in [0, 8, 10, MAX_PLAIN_BYTES as u32 + 1, u32::MAX] {
        let mut lies = framed(b"\0\0\0\x01a\0\0\0\0");
        lies[..4].copy_from_slice(&claimed.to_be_bytes());
        assert!(!block.load(&lies), "{claimed}");
    }
    assert!(block.plain.capacity() <= MAX_BLOCK_BYTES, "nothing is allocated for a claim");
    let bomb = framed(&vec![0; 64 << 20]);
    assert!(!block.load(&bomb) && block.plain.capacity() <= MAX_BLOCK_BYTES);
}

#[test]
fn a_commit_becomes_blocks_that_are_read_record_by_record() {
    let fs = ModelFs::new(1);
    let mut writer = open(&fs, true);
    let payloads: Vec<Vec<u8>> = (0..1_000).map(|n| payload(n, 700)).collect();
    payloads.iter().for_each(|payload| writer.append(payload).unwrap());
    let end = writer.commit().unwrap();
    assert!(end.offset < 708_000 / 4, "{end}");
    assert_eq!(all(&writer), payloads);

    let mut reader = writer.view().reader(Position::default());
    let mut blocks = Vec::new();
    let mut in_block = 0;
    while let Some(Entry { at, after, .. }) = reader.next_entry().unwrap() {
        in_block += 1;
        if after == at {
            assert_eq!(reader.position(), at, "others of the block follow");
        } else {
            blocks.push((at, after, in_block));
            in_block = 0;
        }
    }
    assert_eq!(blocks.len(), 3, "each of at most 256 KiB plain: {blocks:?}");
    assert_eq!((in_block, blocks[2].1), (0, end));
    assert!(blocks.windows(2).all(|pair| pair[0].1 == pair[1].0));
    // From each place that was given nothing is missed.
    let mut before = 0;
    for (at, _, records) in blocks {
        assert_eq!(read_payloads_from(&writer, at), payloads[before..]);
        before += records;
    }
}

fn read_payloads_from(writer: &Writer, from: Position) -> Vec<Vec<u8>> {
    let mut reader = writer.view().reader(from);
    let mut payloads = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        payloads.push(entry.payload.to_vec());
    }
    payloads
}

#[test]
fn what_does_not_shrink_is_written_plain() {
    let fs = ModelFs::new(1);
    let mut writer = open(&fs, true);
    let payloads: Vec<Vec<u8>> = (0..100).map(|n| random(500 + n)).collect();
    payloads.iter().for_each(|payload| writer.append(payload).unwrap());
    writer.commit().unwrap();
    assert_eq!(read_from(writer.view(), Position::default()), (payloads.clone(), Damage::default()));
    let bytes: usize = payloads.iter().map(|payload| payload.len() + RECORD_HEADER_BYTES).sum();
    assert_eq!(writer.view().bytes(), FIRST_OFFSET + bytes as u64);
}

#[test]
fn large_records_and_empty_ones_are_packed_too() {
    let fs = ModelFs::new(1);
    let mut writer = open(&fs, true);
    let mut payloads = vec![payload(1, 10), payload(2, MAX_RECORD_BYTES - 8), random(MAX_RECORD_BYTES)];
    payloads.extend(vec![Vec::new(); 100_000]);
    payloads.push(payload(3, MAX_BLOCK_BYTES));
    payloads.iter().for_each(|payload| writer.append(payload).unwrap());
    writer.commit().unwrap();
    assert_eq!(all(&writer), payloads);
}

#[test]
fn the_memory_of_a_large_record_is_given_back() {
    let mut bytes = Vec::new();
    let seed = put_segment_header(&mut bytes, 1, 1, true);
    let (mut packer, mut block) = (Packer::new().unwrap(), Unpacker::default());
    let mut loaded = |payload: &[u8]| {
        let mut out = Vec::new();
        packer.push(payload, seed, &mut out);
        packer.flush(seed, &mut out);
        assert!(block.load(&out[RECORD_HEADER_BYTES..]));
        (packer.plain.capacity() + packer.packed.capacity(), block.plain.capacity())
    };
    let (_, large) = loaded(&payload(1, MAX_RECORD_BYTES - 8));
    assert_eq!(large, MAX_PLAIN_BYTES);
    let (writing, reading) = loaded(&payload(1, 100));
    assert!(writing < 3 * MAX_BLOCK_BYTES && reading <= MAX_BLOCK_BYTES, "{writing}, {reading}");
}

#[test]
fn a_commit_holds_no_more_than_its_cap_and_nothing_stays_of_one_that_fails() {
    let fs = ModelFs::new(1);
    let mut writer = open(&fs, true);
    writer.append(b"one").unwrap();
    writer.commit().unwrap();
    let large = random(MAX_RECORD_BYTES);
    while writer.append(&large).is_ok() {}
    assert!(matches!(writer.append(&large), Err(LogError::Uncommitted)));
    assert!(writer.waiting_bytes() <= MAX_UNCOMMITTED_BYTES);
    fs.fail(|faults| faults.read_only = true);
    writer.commit().unwrap_err();
    assert_eq!(writer.waiting_bytes(), 0);
    fs.fail(|faults| faults.read_only = false);
    writer.append(b"two").unwrap();
    writer.commit().unwrap();
    assert_eq!(all(&writer), [b"one", b"two"]);
}

#[test]
fn segments_of_both_kinds_lie_in_one_log() {
    let fs = ModelFs::new(1);
    for (n, compress) in [false, true, true, false].into_iter().enumerate() {
        let mut writer = open(&fs, compress);
        (0..10).for_each(|_| writer.append(&payload(n as u64, 100)).unwrap());
        writer.commit().unwrap();
    }
    let expected: Vec<_> = (0..40).map(|n| payload(n / 10, 100)).collect();
    assert_eq!(all(&open(&fs, false)), expected);
    let version = |number: u64| fs.content(&Path::new("/log").join(format::file_name(number))).unwrap()[9];
    assert_eq!([1, 2, 3, 4].map(version), [1, 2, 2, 1]);
}

#[test]
fn a_block_in_a_plain_segment_is_damage() {
    let fs = ModelFs::new(1);
    let mut bytes = Vec::new();
    let seed = put_segment_header(&mut bytes, 1, 1, false);
    format::put_record(&mut bytes, seed, b"one");
    format::put_block(&mut bytes, seed, 11, &BY_HAND[4..]);
    let len = bytes.len();
    format::put_record(&mut bytes, seed, b"two");
    fs.create_dir(Path::new("/log")).unwrap();
    fs.replace(segment(), &bytes).unwrap();
    let writer = open(&fs, true);
    let expected = Damage { stretches: 1, bytes: (len - FIRST_OFFSET as usize - 12) as u64 };
    assert_eq!(
        read_from(writer.view(), Position::default()),
        (vec![b"one".to_vec(), b"two".to_vec()], expected)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_bytes_are_a_block_or_none(bytes in vec(any::<u8>(), 0..200), at in any::<Index>(), to in any::<u8>()) {
        let mut block = Unpacker::default();
        block.load(&bytes);
        unpacked(&mut block);
        let mut changed = BY_HAND.to_vec();
        changed[at.index(BY_HAND.len())] = to;
        block.load(&changed);
        unpacked(&mut block);
        prop_assert!(!block.has_next());
    }

    #[test]
    fn flipped_bits_cost_the_blocks_they_hit_and_are_counted(
        commits in vec(vec(0..3_000usize, 1..20), 1..15), flips in vec(any::<Index>(), 1..6)
    ) {
        let fs = ModelFs::new(1);
        let mut writer = open(&fs, true);
        let mut number = 0;
        // Where each commit lies, and its records.
        let mut blocks = Vec::new();
        for lens in commits {
            let payloads: Vec<_> = lens.into_iter().map(|len| { number += 1; payload(number, len) }).collect();
            payloads.iter().for_each(|payload| writer.append(payload).unwrap());
            let from = writer.view().end().offset;
            blocks.push((from..writer.commit().unwrap().offset, payloads));
        }
        let bits = writer.view().bytes() * 8;
        let hit: std::collections::BTreeSet<u64> = flips
            .iter()
            .map(|flip| FIRST_OFFSET * 8 + flip.index((bits - FIRST_OFFSET * 8) as usize) as u64)
            .collect();
        prop_assert!(hit.iter().all(|bit| fs.flip_bit(segment(), *bit)));
        let (spoilt, whole): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|(at, _)| hit.iter().any(|bit| at.contains(&(bit / 8))));
        let mut reader = writer.view().reader(Position::default());
        let mut payloads = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            payloads.push(entry.payload.to_vec());
        }
        prop_assert_eq!(payloads, whole.into_iter().flat_map(|(_, payloads)| payloads).collect::<Vec<_>>());
        prop_assert_eq!(reader.damage().bytes, spoilt.iter().map(|(at, _)| at.end - at.start).sum::<u64>());
    }
}
