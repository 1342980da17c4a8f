//! The writer's place in the journal, on disk.
//!
//! A file of 40 bytes, little-endian, replaced as a whole by a rename:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic `VITLINFC` |
//! | 8..12 | format version, 2 |
//! | 12..20 | segment |
//! | 20..28 | offset |
//! | 28..36 | when the newest record before the place came, in ms since 1970 by the server's clock; 0: not known |
//! | 36..40 | CRC32C of bytes 0..36 |
//!
//! Everything before the place has been taken by InfluxDB, is owed to it, or was counted as dropped. Should the journal have
//! lost what comes after the place, the time tells from when on it is missing. A file that is missing or damaged
//! costs time and nothing else: what is written again is the same points.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use vitals_wire::log::Position;

const MAGIC: &[u8; 8] = b"VITLINFC";
const VERSION: u32 = 2;
const BYTES: usize = 40;

/// Why there is no cursor to go on from.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a cursor, or not whole.
    #[error("not a cursor file, or damaged")]
    Damaged,
    /// Another version wrote it.
    #[error("cursor file of version {0}, this program knows version {VERSION}")]
    Version(u32),
}

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The place.
    pub position: Position,
    /// When the newest record before it came, in ms since 1970; 0 where that is not known.
    pub received_ms: i64,
}

/// Reads the cursor; `None` where there is no file yet.
pub fn load(path: &Path) -> Result<Option<Cursor>, CursorError> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the cursor, on disk when this returns. After an error the one before is still there.
pub fn save(path: &Path, cursor: Cursor) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&encode(cursor))?;
    file.sync_data()?;
    drop(file);
    fs::rename(&new, path)
}

fn encode(Cursor { position, received_ms }: Cursor) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&position.segment.to_le_bytes());
    bytes[20..28].copy_from_slice(&position.offset.to_le_bytes());
    bytes[28..36].copy_from_slice(&received_ms.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..36]);
    bytes[36..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Cursor, CursorError> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CursorError> {
        let (first, rest) = bytes.split_first_chunk::<N>().ok_or(CursorError::Damaged)?;
        *bytes = rest;
        Ok(*first)
    }
    let mut rest = bytes;
    if &take::<8>(&mut rest)? != MAGIC {
        return Err(CursorError::Damaged);
    }
    // Told before the checksum, which another version may place elsewhere.
    let version = u32::from_le_bytes(take(&mut rest)?);
    if version != VERSION {
        return Err(CursorError::Version(version));
    }
    let segment = u64::from_le_bytes(take(&mut rest)?);
    let offset = u64::from_le_bytes(take(&mut rest)?);
    let received_ms = i64::from_le_bytes(take(&mut rest)?);
    let checksum = u32::from_le_bytes(take(&mut rest)?);
    if !rest.is_empty() || checksum != crc32c::crc32c(&bytes[..36]) {
        return Err(CursorError::Damaged);
    }
    Ok(Cursor { position: Position { segment, offset }, received_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Cursor =
        Cursor { position: Position { segment: 7, offset: 4096 }, received_ms: 1_795_255_200_000 };

    #[test]
    fn a_saved_cursor_is_read_back_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("influx.cursor");
        assert_eq!(load(&path).unwrap(), None);
        save(&path, Cursor::default()).unwrap();
        save(&path, PLACE).unwrap();
        assert_eq!(load(&path).unwrap(), Some(PLACE));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_noticed() {
        let good = encode(PLACE);
        for bit in 0..BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..BYTES {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
        assert!(decode(&[&good[..], &[0]].concat()).is_err());
    }

    #[test]
    fn the_format_is_the_one_of_version_2() {
        let cursor = Cursor { position: Position { segment: 1, offset: 2 }, received_ms: 3 };
        let bytes = encode(cursor);
        assert_eq!(bytes[..36], *b"VITLINFC\x02\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        assert_eq!(bytes[36..], crc32c::crc32c(&bytes[..36]).to_le_bytes());
    }

    #[test]
    fn a_cursor_in_a_directory_that_is_gone_is_an_error_and_no_panic() {
        assert!(save(Path::new("/nonexistent/influx.cursor"), PLACE).is_err());
    }
}
