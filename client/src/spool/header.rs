//! What is kept beside the spool's segments, in the file `header`. Integers are big-endian.
//!
//! | offset | bytes | header |
//! |---|---|---|
//! | 0 | 8 | magic, `VitSpool` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | zero |
//! | 12 | 8 | cursor: number of the segment |
//! | 20 | 8 | cursor: offset in it; every sample before the cursor is settled or dropped |
//! | 28 | 8 | samples dropped because the spool was full |
//! | 36 | 8 | samples dropped because the server takes none that old |
//! | 44 | 8 | samples dropped because the server takes none that large |
//! | 52 | 8 | stretches of damaged bytes that were skipped |
//! | 60 | 4 | CRC32C of the 60 bytes before |
//!
//! The first 12 bytes have this layout in every version. Counters are never reset.

use vitals_wire::log::Position;

use super::job::Drops;

const MAGIC: &[u8; 8] = b"VitSpool";
const VERSION: u16 = 1;
const CHECKED_BYTES: usize = 60;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Where the oldest sample is that is neither settled nor dropped.
    pub cursor: Position,
    /// What was dropped so far.
    pub drops: Drops,
}

/// What the bytes of the file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A header.
    Good(Header),
    /// A later version wrote it.
    Newer(u16),
    /// No header.
    Damaged,
}

impl Header {
    /// Its bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CHECKED_BYTES + 4);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        let Drops { spool_full, too_old, too_large, damaged } = self.drops;
        for number in [self.cursor.segment, self.cursor.offset, spool_full, too_old, too_large, damaged] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads them.
    pub fn of(bytes: &[u8]) -> Found {
        let Some((first, _)) = bytes.split_first_chunk::<12>().filter(|(first, _)| first.starts_with(MAGIC))
        else {
            return Found::Damaged;
        };
        let version = u16::from_be_bytes([first[8], first[9]]);
        if version > VERSION && has_checksum(bytes) {
            return Found::Newer(version);
        }
        if version != VERSION || bytes.len() != CHECKED_BYTES + 4 || !has_checksum(bytes) {
            return Found::Damaged;
        }
        let mut numbers = bytes[12..CHECKED_BYTES].chunks_exact(8).map(|chunk| {
            // Each chunk has eight bytes.
            chunk.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
        });
        let mut next = || numbers.next().unwrap_or_default();
        Found::Good(Self {
            cursor: Position { segment: next(), offset: next() },
            drops: Drops { spool_full: next(), too_old: next(), too_large: next(), damaged: next() },
        })
    }
}

/// In every version the last four bytes are the checksum of those before.
fn has_checksum(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<4>().is_some_and(|(checked, sum)| crc32c::crc32c(checked).to_be_bytes() == *sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let drops = Drops { spool_full: 1, too_old: 2, too_large: 3, damaged: 4 };
        Header { cursor: Position { segment: 5, offset: 0x0102_0304 }, drops }
    }

    #[test]
    fn the_bytes_are_these_and_are_read_again() {
        let bytes = header().to_bytes();
        assert_eq!(bytes.len(), 64);
        assert_eq!(&bytes[..28], b"VitSpool\0\x01\0\0\0\0\0\0\0\0\0\x05\0\0\0\0\x01\x02\x03\x04");
        assert_eq!(
            bytes[28..60].iter().filter(|&&byte| byte != 0).copied().collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        assert_eq!(Header::of(&bytes), Found::Good(header()));
    }

    #[test]
    fn damage_is_seen_and_a_newer_version_is_told_from_it() {
        let bytes = header().to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::of(&flipped), Found::Damaged, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Header::of(&bytes[..len]), Found::Damaged, "{len}");
        }
        let mut newer = bytes[..40].to_vec();
        newer[9] = 2;
        let checksum = crc32c::crc32c(&newer);
        newer.extend_from_slice(&checksum.to_be_bytes());
        assert_eq!(Header::of(&newer), Found::Newer(2));
    }
}
