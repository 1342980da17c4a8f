//! Blocks: records that were committed together, compressed together. `format.rs` describes their bytes.

use std::io;
use std::ops::Range;

use super::compress::{Compressor, Decompressor};
use super::format::{self, RECORD_HEADER_BYTES, Seed};
use super::{MAX_BLOCK_BYTES, MAX_RECORD_BYTES};

/// Bytes of a length in a block.
const LEN_BYTES: usize = 4;
/// What a block saves at least, as a part of the plain records: damage costs a block as a whole.
const WORTH_PART: usize = 16;
/// Plain bytes of the block of the largest record: what a reader takes memory for at most.
const MAX_PLAIN_BYTES: usize = LEN_BYTES + MAX_RECORD_BYTES;

/// Records that wait to become a block.
#[derive(Debug)]
pub(super) struct Packer {
    compressor: Compressor,
    plain: Vec<u8>,
    packed: Vec<u8>,
    records: usize,
}

impl Packer {
    pub(super) fn new() -> io::Result<Self> {
        let compressor = Compressor::new()?;
        Ok(Self { compressor, plain: Vec::new(), packed: Vec::new(), records: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that the records take on disk if they are not compressed: more than they take here.
    pub(super) fn bytes(&self) -> usize {
        self.plain.len() + self.records * (RECORD_HEADER_BYTES - LEN_BYTES)
    }

    /// Takes a record. When there is no room for it the block so far is written to `out` first.
    pub(super) fn push(&mut self, payload: &[u8], seed: Seed, out: &mut Vec<u8>) {
        if self.plain.len() + LEN_BYTES + payload.len() > MAX_BLOCK_BYTES {
            self.flush(seed, out);
        }
        // Fits: the caller checked against `MAX_RECORD_BYTES`.
        self.plain.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        self.plain.extend_from_slice(payload);
        self.records += 1;
    }

    /// Writes what waits to `out`: as a block, or as plain records if that saves too little.
    pub(super) fn flush(&mut self, seed: Seed, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        let is_smaller = self.compressor.compress(&self.plain, &mut self.packed).is_ok()
            && RECORD_HEADER_BYTES + LEN_BYTES + self.packed.len() + self.bytes() / WORTH_PART < self.bytes();
        if is_smaller {
            format::put_block(out, seed, self.plain.len() as u32, &self.packed);
        } else {
            let mut at = 0;
            while let Some(record) = record_at(&self.plain, at) {
                at = record.end;
                format::put_record(out, seed, &self.plain[record]);
            }
        }
        self.clear();
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.records = 0;
        for buffer in [&mut self.plain, &mut self.packed] {
            buffer.clear();
            // A large record grew them.
            buffer.shrink_to(MAX_BLOCK_BYTES + MAX_BLOCK_BYTES / 16);
        }
    }
}

/// The records of one block, one after the other.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    decompressor: Decompressor,
    plain: Vec<u8>,
    at: usize,
}

impl Unpacker {
    /// Takes the payload of a block; false when it is none: then there are no records.
    pub(super) fn load(&mut self, payload: &[u8]) -> bool {
        self.plain.clear();
        self.plain.shrink_to(MAX_BLOCK_BYTES);
        self.at = 0;
        let Some((len, packed)) = payload.split_first_chunk::<LEN_BYTES>() else { return false };
        let len = u32::from_be_bytes(*len) as usize;
        let is_block = len <= MAX_PLAIN_BYTES
            && self.decompressor.decompress(packed, len, &mut self.plain).is_ok()
            && holds_records(&self.plain);
        if !is_block {
            self.plain.clear();
        }
        is_block
    }

    /// Moves over the next record and tells where [`bytes`](Self::bytes) finds it.
    pub(super) fn next(&mut self) -> Option<Range<usize>> {
        let record = record_at(&self.plain, self.at)?;
        self.at = record.end;
        Some(record)
    }

    /// Whether there are more.
    pub(super) fn has_next(&self) -> bool {
        self.at < self.plain.len()
    }

    pub(super) fn bytes(&self, record: Range<usize>) -> &[u8] {
        &self.plain[record]
    }
}

/// The record whose length stands at `at`.
fn record_at(plain: &[u8], at: usize) -> Option<Range<usize>> {
    let len = plain.get(at..)?.first_chunk::<LEN_BYTES>()?;
    let start = at + LEN_BYTES;
    let end = start.checked_add(u32::from_be_bytes(*len) as usize)?;
    (end <= plain.len()).then_some(start..end)
}

/// Whether these are the bytes of one or more whole records and nothing else.
fn holds_records(plain: &[u8]) -> bool {
    let mut at = 0;
    while let Some(record) = record_at(plain, at) {
        at = record.end;
    }
    at > 0 && at == plain.len()
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
