//! The bytes of a log. Integers are big-endian.
//!
//! A log is a directory of segments, files named by their number in twelve decimal digits and `.log`, beginning with
//! `000000000001.log`. Numbers grow; some may be missing. Other files in the directory are left alone.
//!
//! A segment is a header and records, one after the other:
//!
//! | offset | bytes | header of a segment |
//! |---|---|---|
//! | 0 | 8 | magic, `VitalLog` |
//! | 8 | 2 | version of the format: 1, or 2 where blocks may follow |
//! | 10 | 2 | zero |
//! | 12 | 4 | salt, random for each segment |
//! | 16 | 8 | number of the segment, as in its name |
//! | 24 | 4 | CRC32C of the 24 bytes before |
//!
//! | offset | bytes | record |
//! |---|---|---|
//! | 0 | 4 | length of the payload, at most [`MAX_RECORD_BYTES`] |
//! | 4 | 1 | codec of the payload: 0 plain, 1 a block (version 2 alone); others are for later versions |
//! | 5 | 4 | CRC32C of the segment's header (its first 24 bytes), then of the length, the codec and the payload |
//! | 9 | length | payload |
//!
//! A block's payload holds records that were committed together, compressed together. It is shorter than those records
//! would be plain:
//!
//! | offset | bytes | payload of a block |
//! |---|---|---|
//! | 0 | 4 | bytes of the records below, at most [`MAX_BLOCK_BYTES`]; or that of one larger record |
//! | 4 | all | the records, one or more, as one frame of Zstandard (RFC 8878) |
//!
//! | offset | bytes | record in a block |
//! |---|---|---|
//! | 0 | 4 | length |
//! | 4 | length | what was appended |
//!
//! The first 28 bytes have this layout in every version, so that a newer segment is told from a damaged one. The salt
//! makes a checksum good for one segment only: neither what an older file left on the disk nor a payload that imitates
//! a record is taken for one when a reader looks for the next record behind damaged bytes. For the same reason bytes of
//! zeros, as a file system leaves them after a crash, are not a record of length 0.

use std::hash::{BuildHasher, Hasher, RandomState};

#[cfg(doc)]
use super::MAX_BLOCK_BYTES;
use super::MAX_RECORD_BYTES;

const MAGIC: &[u8; 8] = b"VitalLog";
/// The version of segments in which all records are plain.
const PLAIN_VERSION: u16 = 1;
/// The version of segments that may hold blocks: one that does not know them would take them for damage.
const BLOCK_VERSION: u16 = 2;
const CHECKED_BYTES: usize = 24;
/// Bytes of a segment before its first record.
pub(super) const SEGMENT_HEADER_BYTES: usize = CHECKED_BYTES + 4;
/// The same, as an offset.
pub(super) const FIRST_OFFSET: u64 = SEGMENT_HEADER_BYTES as u64;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 9;

/// The payload as it is.
const PLAIN: u8 = 0;
/// Several records, compressed.
const BLOCK: u8 = 1;

/// What the header of a segment says about its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed {
    /// What every checksum begins with.
    checksum: u32,
    /// Whether there may be blocks.
    pub(super) has_blocks: bool,
}

/// What the header of a record says of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) len: usize,
    pub(super) is_block: bool,
}

/// What the first bytes of a segment say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    /// Records follow.
    Good(Seed),
    /// A later version wrote it.
    Newer(u16),
    /// No header, or that of another segment.
    Damaged,
}

/// Thirty-two random bits; the standard library's only source.
pub(super) fn salt() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

/// Appends the header of segment `number`.
pub(super) fn put_segment_header(out: &mut Vec<u8>, number: u64, salt: u32, has_blocks: bool) -> Seed {
    let start = out.len();
    let version = if has_blocks { BLOCK_VERSION } else { PLAIN_VERSION };
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&salt.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    let checksum = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&checksum.to_be_bytes());
    Seed { checksum, has_blocks }
}

/// Reads the header of segment `number`.
pub(super) fn segment_header(bytes: &[u8], number: u64) -> SegmentHeader {
    let Some((checked, rest)) = bytes.split_first_chunk::<CHECKED_BYTES>() else {
        return SegmentHeader::Damaged;
    };
    let checksum = crc32c::crc32c(checked);
    let same = rest.get(..4) == Some(&checksum.to_be_bytes())
        && checked.starts_with(MAGIC)
        && checked[16..] == number.to_be_bytes();
    match u16::from_be_bytes([checked[8], checked[9]]) {
        _ if !same => SegmentHeader::Damaged,
        PLAIN_VERSION => SegmentHeader::Good(Seed { checksum, has_blocks: false }),
        BLOCK_VERSION => SegmentHeader::Good(Seed { checksum, has_blocks: true }),
        version if version > BLOCK_VERSION => SegmentHeader::Newer(version),
        _ => SegmentHeader::Damaged,
    }
}

/// Appends a record. The caller has checked its length.
pub(super) fn put_record(out: &mut Vec<u8>, seed: Seed, payload: &[u8]) {
    put(out, seed, PLAIN, &[payload]);
}

/// Appends a block of `plain_len` bytes of records, `packed` being those. It is shorter than they are.
pub(super) fn put_block(out: &mut Vec<u8>, seed: Seed, plain_len: u32, packed: &[u8]) {
    put(out, seed, BLOCK, &[&plain_len.to_be_bytes(), packed]);
}

fn put(out: &mut Vec<u8>, seed: Seed, codec: u8, payload: &[&[u8]]) {
    let len: usize = payload.iter().map(|part| part.len()).sum();
    let mut header = [0; RECORD_HEADER_BYTES];
    // Fits: the callers' are at most `MAX_RECORD_BYTES`.
    header[..4].copy_from_slice(&(len as u32).to_be_bytes());
    header[4] = codec;
    let checksum =
        payload.iter().fold(header_checksum(seed, &header), |sum, part| crc32c::crc32c_append(sum, part));
    header[5..].copy_from_slice(&checksum.to_be_bytes());
    out.reserve(RECORD_HEADER_BYTES + len);
    out.extend_from_slice(&header);
    payload.iter().for_each(|part| out.extend_from_slice(part));
}

/// What a record's header claims, unless no record of such a segment has such a header.
pub(super) fn claim(seed: Seed, header: &[u8; RECORD_HEADER_BYTES]) -> Option<Claim> {
    let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let is_block = header[4] == BLOCK;
    let is_known = header[4] == PLAIN || is_block && seed.has_blocks;
    (len <= MAX_RECORD_BYTES && is_known).then_some(Claim { len, is_block })
}

/// Whether header and payload belong together.
pub(super) fn is_record(seed: Seed, header: &[u8; RECORD_HEADER_BYTES], payload: &[u8]) -> bool {
    crc32c::crc32c_append(header_checksum(seed, header), payload).to_be_bytes() == header[5..]
}

fn header_checksum(seed: Seed, header: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(seed.checksum, &header[..5])
}

/// The file of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:012}.log")
}

/// The number of a segment's file.
pub(super) fn number_of(file_name_found: &str) -> Option<u64> {
    let number = file_name_found.strip_suffix(".log")?.parse().ok()?;
    (number > 0 && file_name(number) == file_name_found).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_segment_are_these() {
        let mut bytes = Vec::new();
        let seed = put_segment_header(&mut bytes, 7, 0x0102_0304, false);
        put_record(&mut bytes, seed, b"abc");
        // The checksums were computed elsewhere.
        let expected = [
            &b"VitalLog\x00\x01\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00\x00\x00\x00\x07"[..],
            b"\x54\xfa\xcd\xd7",
            b"\x00\x00\x00\x03\x00",
            b"\x7a\x45\x15\x0e",
            b"abc",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_header_is_good_newer_or_damaged() {
        let mut good = Vec::new();
        let seed = put_segment_header(&mut good, 7, 1, false);
        assert_eq!(segment_header(&good, 7), SegmentHeader::Good(seed));
        assert_eq!(segment_header(&good, 8), SegmentHeader::Damaged, "another segment's");
        assert_eq!(segment_header(&good[..27], 7), SegmentHeader::Damaged, "short");
        for bit in 0..good.len() * 8 {
            let mut flipped = good.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(segment_header(&flipped, 7), SegmentHeader::Damaged, "bit {bit}");
        }
        let mut newer = good[..24].to_vec();
        newer[9] = 3;
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_be_bytes());
        assert_eq!(segment_header(&newer, 7), SegmentHeader::Newer(3));
    }

    #[test]
    fn a_segment_of_zeros_holds_no_record() {
        let mut header = Vec::new();
        let seed = put_segment_header(&mut header, 1, 1, false);
        assert!(!is_record(seed, &[0; RECORD_HEADER_BYTES], &[]));
    }

    #[test]
    fn only_names_that_are_written_are_segments() {
        assert_eq!(number_of("000000000012.log"), Some(12));
        assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
        for other in ["12.log", "000000000000.log", "000000000012.log~", "-00000000012.log", "lock", ".log"] {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
