//! A stretch of one host's samples at rest, of which one column can be read without the others.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `VtSB` |
//! | 1 | version of this layout |
//! | 3 | zero |
//! | 4 | number of samples |
//! | 4 | bytes of the directory |
//! | 8, 8 | time of the first and of the last sample in ms |
//! | 4 | CRC32C of all before and of the directory |
//! | … | the directory |
//! | … | the data: times, then columns, in the directory's order |
//!
//! Numbers of fixed size are little-endian, the others varints. The directory: length and bytes of `pco`'s header; how many
//! patterns, and each as a bit for each sample (which samples have a value); for the times, then how many columns and for
//! each of them its number less that of the one before, its pattern (0: every sample has a value), the coding, and, unless it
//! is constant, length and CRC32C of its data.

use std::collections::HashMap;

use super::cell::Kind;
use super::column_codec::{Coding, Encoder, Unreadable, decode, pco_header};
use super::table::{Column, Table};
use super::varint;

const MAGIC: &[u8; 4] = b"VtSB";
const VERSION: u8 = 1;
/// Bytes before the directory.
pub(super) const HEADER_BYTES: usize = 36;
/// Samples in one blob.
pub(super) const MAX_ROWS: usize = 1 << 20;
/// Largest directory that is read.
const MAX_DIRECTORY_BYTES: usize = 256 << 20;

/// Why a blob cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BlobError {
    #[error("it does not begin as a blob does")]
    Magic,
    #[error("it is of version {0}, this version of Vitals reads {VERSION}")]
    Version(u8),
    #[error("it ends too early")]
    Short,
    #[error("its checksum is wrong")]
    Checksum,
    #[error(transparent)]
    Column(#[from] Unreadable),
}

/// Encodes settled tables.
#[derive(Debug, Default)]
pub(super) struct BlobEncoder {
    encoder: Encoder,
    data: Vec<u8>,
    directory: Vec<u8>,
}

/// Buffers that grew beyond this are let go.
const KEPT_BYTES: usize = 1 << 20;

impl BlobEncoder {
    /// Encodes a table whose times ascend, with at least one sample and at most `MAX_ROWS`.
    pub(super) fn encode(&mut self, table: &Table) -> Result<Vec<u8>, Unreadable> {
        let (Some(&first), Some(&last)) = (table.times.first(), table.times.last()) else {
            return Err(Unreadable("no samples"));
        };
        if table.times.len() > MAX_ROWS || !table.is_settled() {
            return Err(Unreadable("too many samples, or not in order"));
        }
        let rows = table.times.len();
        let pco_header = pco_header();
        let Self { encoder, data, directory } = self;
        data.clear();
        directory.clear();
        varint::put(directory, pco_header.len() as u64);
        directory.extend_from_slice(&pco_header);
        let mut patterns: Vec<&[u32]> = Vec::new();
        let mut known: HashMap<&[u32], u64> = HashMap::new();
        let mut pattern_of = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            if column.rows.len() == rows {
                pattern_of.push(0);
                continue;
            }
            pattern_of.push(*known.entry(&column.rows).or_insert_with(|| {
                patterns.push(&column.rows);
                patterns.len() as u64
            }));
        }
        varint::put(directory, patterns.len() as u64);
        for pattern in patterns {
            let start = directory.len();
            directory.resize(start + rows.div_ceil(8), 0);
            for row in pattern {
                directory[start + *row as usize / 8] |= 1 << (row % 8);
            }
        }
        let mut put = |kind, cells: &[i64], directory: &mut Vec<u8>| {
            let start = data.len();
            let coding = encoder.encode(kind, cells, data)?;
            coding.write(directory);
            if !coding.is_constant() {
                varint::put(directory, (data.len() - start) as u64);
                directory.extend_from_slice(&crc32c::crc32c(&data[start..]).to_le_bytes());
            }
            Ok::<_, Unreadable>(())
        };
        put(Kind::Integer, &table.times, directory)?;
        varint::put(directory, table.columns.len() as u64);
        let mut before = 0;
        for (column, pattern) in table.columns.iter().zip(pattern_of) {
            varint::put(directory, u64::from(column.number - before));
            before = column.number;
            varint::put(directory, pattern);
            put(column.kind, &column.cells, directory)?;
        }
        let mut blob = Vec::with_capacity(HEADER_BYTES + directory.len() + data.len());
        blob.extend_from_slice(MAGIC);
        blob.extend_from_slice(&[VERSION, 0, 0, 0]);
        // Both are far below 2^32.
        blob.extend_from_slice(&(rows as u32).to_le_bytes());
        blob.extend_from_slice(&(directory.len() as u32).to_le_bytes());
        blob.extend_from_slice(&first.to_le_bytes());
        blob.extend_from_slice(&last.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&blob), directory);
        blob.extend_from_slice(&checksum.to_le_bytes());
        blob.extend_from_slice(directory);
        blob.extend_from_slice(data);
        if data.capacity() > KEPT_BYTES {
            *data = Vec::new();
        }
        if directory.capacity() > KEPT_BYTES {
            *directory = Vec::new();
        }
        Ok(blob)
    }
}

/// A blob's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub rows: usize,
    /// Bytes of header and directory.
    pub head_bytes: usize,
    pub first_ms: i64,
    pub last_ms: i64,
}

impl Header {
    /// Reads the first `HEADER_BYTES`, which prove nothing yet.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BlobError> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BlobError::Short)?;
        if !bytes.starts_with(MAGIC) {
            return Err(BlobError::Magic);
        }
        if bytes[4] != VERSION {
            return Err(BlobError::Version(bytes[4]));
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let (rows, directory) = (u32_at(8) as usize, u32_at(12) as usize);
        if rows > MAX_ROWS || directory > MAX_DIRECTORY_BYTES {
            return Err(BlobError::Checksum);
        }
        let (first_ms, last_ms) = (u64_at(16) as i64, u64_at(24) as i64);
        Ok(Self { rows, head_bytes: HEADER_BYTES + directory, first_ms, last_ms })
    }
}

/// How many samples a damaged blob holds, if no more than one byte of its head is damaged.
pub(super) fn samples_of(blob: &[u8]) -> usize {
    const ROWS: std::ops::Range<usize> = 8..12;
    let rows = |head: &[u8]| head.get(ROWS)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let directory = blob.get(12..16).and_then(|bytes| bytes.first_chunk());
    let head_bytes = directory.map_or(0, |bytes| HEADER_BYTES + u32::from_le_bytes(*bytes) as usize);
    let mut head = blob.get(..head_bytes).unwrap_or_default().to_vec();
    // Where the number itself is damaged, the checksum tells what it was.
    for place in ROWS {
        let Some(&found) = head.get(place) else { break };
        for byte in 0..=u8::MAX {
            head[place] = byte;
            if Directory::split(&head).is_some() {
                return rows(&head).unwrap_or_default();
            }
        }
        head[place] = found;
    }
    rows(blob).filter(|rows| *rows <= MAX_ROWS).unwrap_or_default()
}

/// Where a column lies and how to read it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub number: u32,
    /// Place among the patterns, from 1; 0 for all samples.
    pattern: usize,
    coding: Coding,
    /// From the blob's beginning.
    pub offset: usize,
    pub bytes: usize,
    checksum: u32,
}

/// A blob's directory.
#[derive(Debug)]
pub(super) struct Directory {
    pub header: Header,
    pco_header: Vec<u8>,
    /// A bit for each sample.
    patterns: Vec<Vec<u8>>,
    pub times: Entry,
    /// Ascending by number.
    pub columns: Vec<Entry>,
}

impl Directory {
    /// Reads header and directory from a blob's first bytes, at least `Header::head_bytes` of them.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BlobError> {
        let header = Header::read(bytes)?;
        let head = bytes.get(..header.head_bytes).ok_or(BlobError::Short)?;
        let directory = Self::split(head).ok_or(BlobError::Checksum)?;
        Self::entries(header, directory).ok_or(BlobError::Short)
    }

    /// The directory of a head whose checksum is right.
    fn split(head: &[u8]) -> Option<&[u8]> {
        let (fixed, directory) = head.split_at_checked(HEADER_BYTES)?;
        let (fixed, checksum) = fixed.split_at(HEADER_BYTES - 4);
        let right = crc32c::crc32c_append(crc32c::crc32c(fixed), directory).to_le_bytes();
        (right == checksum).then_some(directory)
    }

    fn entries(header: Header, mut rest: &[u8]) -> Option<Self> {
        let rest = &mut rest;
        let length = varint::take(rest)? as usize;
        let pco_header = take(rest, length)?.to_vec();
        let mut patterns = Vec::new();
        for _ in 0..varint::take(rest)? {
            patterns.push(take(rest, header.rows.div_ceil(8))?.to_vec());
        }
        let mut offset = header.head_bytes;
        let times = Entry::read(rest, 0, 0, &mut offset)?;
        let mut columns = Vec::new();
        let mut number = 0u32;
        for _ in 0..varint::take(rest)? {
            number = number.checked_add(varint::take(rest)?.try_into().ok()?)?;
            let pattern = varint::take(rest)? as usize;
            if pattern > patterns.len() {
                return None;
            }
            columns.push(Entry::read(rest, number, pattern, &mut offset)?);
        }
        Some(Self { header, pco_header, patterns, times, columns })
    }

    /// Decodes the times from their data.
    pub(super) fn times(&self, data: &[u8]) -> Result<Vec<i64>, BlobError> {
        self.decode(&self.times, data, self.header.rows)
    }

    /// Decodes a column from its data.
    pub(super) fn column(&self, entry: &Entry, data: &[u8]) -> Result<Column, BlobError> {
        let all = 0..self.header.rows as u32;
        let rows: Vec<u32> = match entry.pattern.checked_sub(1).and_then(|pattern| self.patterns.get(pattern))
        {
            None => all.collect(),
            Some(bits) => all.filter(|row| bits[*row as usize / 8] & 1 << (row % 8) != 0).collect(),
        };
        let cells = self.decode(entry, data, rows.len())?;
        Ok(Column { number: entry.number, kind: entry.coding.kind, rows, cells })
    }

    /// Whether the data of an entry are those that were written.
    fn check(&self, entry: &Entry, data: &[u8]) -> Result<(), BlobError> {
        if data.len() != entry.bytes {
            return Err(BlobError::Short);
        }
        if !entry.coding.is_constant() && crc32c::crc32c(data) != entry.checksum {
            return Err(BlobError::Checksum);
        }
        Ok(())
    }

    fn decode(&self, entry: &Entry, data: &[u8], count: usize) -> Result<Vec<i64>, BlobError> {
        self.check(entry, data)?;
        Ok(decode(&entry.coding, &self.pco_header, data, count)?)
    }
}

impl Entry {
    pub(super) fn kind(&self) -> Kind {
        self.coding.kind
    }

    fn read(rest: &mut &[u8], number: u32, pattern: usize, offset: &mut usize) -> Option<Self> {
        let coding = Coding::read(rest)?;
        let (mut bytes, mut checksum) = (0, 0);
        if !coding.is_constant() {
            bytes = varint::take(rest)? as usize;
            checksum = u32::from_le_bytes(*take(rest, 4)?.first_chunk()?);
        }
        let entry = Self { number, pattern, coding, offset: *offset, bytes, checksum };
        *offset = offset.checked_add(bytes)?;
        Some(entry)
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// Reads the times of a blob in which all is whole.
pub(super) fn read_times(blob: &[u8]) -> Result<Vec<i64>, BlobError> {
    let directory = Directory::read(blob)?;
    for entry in &directory.columns {
        directory.check(entry, data_of(blob, entry)?)?;
    }
    directory.times(data_of(blob, &directory.times)?)
}

fn data_of<'a>(blob: &'a [u8], entry: &Entry) -> Result<&'a [u8], BlobError> {
    let end = entry.offset.checked_add(entry.bytes);
    end.and_then(|end| blob.get(entry.offset..end)).ok_or(BlobError::Short)
}

/// Reads all of a blob.
pub(super) fn read_all(blob: &[u8]) -> Result<Table, BlobError> {
    let directory = Directory::read(blob)?;
    let times = directory.times(data_of(blob, &directory.times)?)?;
    let columns = directory.columns.iter().map(|entry| directory.column(entry, data_of(blob, entry)?));
    Ok(Table { times, columns: columns.collect::<Result<_, _>>()? })
}

#[cfg(test)]
#[path = "blob_tests.rs"]
mod tests;
