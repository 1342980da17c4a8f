//! One column of a blob to bytes and back.
//!
//! A column is first made small without loss: its least value is taken off, the zero bits that all share are shifted out
//! (byte counts come in pages), and what is left is taken as differences where these are smaller. What is then constant
//! takes no bytes of data; short columns are packed here, long ones by `pco`, which is told what to do instead of
//! searching for it.

use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};

use super::cell::Kind;
use super::{pack, varint};

/// From this length on `pco`'s frugality is worth its time.
const LONG: usize = 256;
/// A long column that packs into this many bytes would not shrink by much.
const SMALL_BYTES: usize = 40;
const PCO_LEVEL: usize = 8;

/// How the data of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Method {
    Constant = 0,
    Packed = 1,
    Pco16 = 2,
    Pco32 = 3,
    Pco64 = 4,
    PcoFloat = 5,
}

/// How to read a column's data; stands in the blob's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coding {
    pub kind: Kind,
    method: Method,
    /// Differences, not values.
    is_delta: bool,
    shift: u8,
    least: i64,
}

/// The bytes of a column that were not as this version writes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a column that cannot be read: {0}")]
pub(super) struct Unreadable(pub &'static str);

impl Coding {
    /// Bits of a kind, a method, and whether differences, in a byte; the shift; the least value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind as u8 | (self.method as u8) << 2 | u8::from(self.is_delta) << 5);
        if !self.is_constant() {
            out.push(self.shift);
        }
        varint::put(out, varint::zigzag(self.least));
    }

    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (&head, rest) = bytes.split_first()?;
        *bytes = rest;
        let method = match head >> 2 & 7 {
            0 => Method::Constant,
            1 => Method::Packed,
            2 => Method::Pco16,
            3 => Method::Pco32,
            4 => Method::Pco64,
            5 => Method::PcoFloat,
            _ => return None,
        };
        let mut shift = 0;
        if method != Method::Constant {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            shift = byte;
        }
        let least = varint::unzigzag(varint::take(bytes)?);
        let is_delta = head & 0x20 != 0;
        (head < 0x40 && shift < 64).then_some(Self {
            kind: Kind::from_number(head & 3)?,
            method,
            is_delta,
            shift,
            least,
        })
    }

    /// A column whose values are all the same has no data.
    pub(super) fn is_constant(&self) -> bool {
        self.method == Method::Constant
    }
}

/// Encodes columns, with buffers that serve one after another.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    offsets: Vec<u64>,
    deltas: Vec<u64>,
    narrow16: Vec<u16>,
    narrow32: Vec<u32>,
}

impl Encoder {
    /// Appends the data of a column that is not empty, and tells how to read them.
    pub(super) fn encode(
        &mut self,
        kind: Kind,
        cells: &[i64],
        out: &mut Vec<u8>,
    ) -> Result<Coding, Unreadable> {
        let least = cells.iter().copied().min().unwrap_or_default();
        let different = cells.iter().fold(0, |bits, cell| bits | cell.wrapping_sub(least) as u64);
        if different == 0 {
            return Ok(Coding { kind, method: Method::Constant, is_delta: false, shift: 0, least });
        }
        if kind == Kind::Bits && cells.len() >= LONG {
            let floats: Vec<f64> = cells.iter().map(|cell| f64::from_bits(*cell as u64)).collect();
            pco_write(&floats, ModeSpec::Auto, DeltaSpec::Auto, out)?;
            return Ok(Coding { kind, method: Method::PcoFloat, is_delta: false, shift: 0, least: 0 });
        }
        let shift = different.trailing_zeros();
        self.offsets.clear();
        self.offsets.extend(cells.iter().map(|cell| cell.wrapping_sub(least) as u64 >> shift));
        self.deltas.clear();
        let mut before = 0u64;
        let (mut plain_bits, mut delta_bits) = (0u64, 0u64);
        let middle = self.offsets[self.offsets.len() / 2];
        for offset in &self.offsets {
            let delta = varint::zigzag(offset.wrapping_sub(before) as i64);
            self.deltas.push(delta);
            before = *offset;
            delta_bits += u64::from(64 - delta.leading_zeros());
            plain_bits += u64::from(65 - offset.abs_diff(middle).leading_zeros());
        }
        let is_delta = delta_bits < plain_bits;
        let numbers = if is_delta { &self.deltas } else { &self.offsets };
        let coding = |method| Coding { kind, method, is_delta, shift: shift as u8, least };
        if cells.len() < LONG || pack::packed_len(numbers) <= SMALL_BYTES {
            pack::pack(numbers, out);
            return Ok(coding(Method::Packed));
        }
        let delta = if is_delta { DeltaSpec::TryConsecutive(1) } else { DeltaSpec::NoOp };
        let widest = different >> shift;
        if widest <= u16::MAX.into() {
            self.narrow16.clear();
            self.narrow16.extend(self.offsets.iter().map(|offset| *offset as u16));
            pco_write(&self.narrow16, ModeSpec::Classic, delta, out)?;
            return Ok(coding(Method::Pco16));
        }
        if widest <= u32::MAX.into() {
            self.narrow32.clear();
            self.narrow32.extend(self.offsets.iter().map(|offset| *offset as u32));
            pco_write(&self.narrow32, ModeSpec::Classic, delta, out)?;
            return Ok(coding(Method::Pco32));
        }
        pco_write(&self.offsets, ModeSpec::Classic, delta, out)?;
        Ok(coding(Method::Pco64))
    }
}

/// `pco`'s own header: the version of its format. Written once for each blob.
pub(super) fn pco_header() -> Vec<u8> {
    // Writing to memory does not fail; an empty header would only be refused by the reader.
    FileCompressor::default().write_header(Vec::new()).unwrap_or_default()
}

fn pco_write<T: pco::data_types::Number>(
    numbers: &[T],
    mode: ModeSpec,
    delta: DeltaSpec,
    out: &mut Vec<u8>,
) -> Result<(), Unreadable> {
    let config = ChunkConfig::default()
        .with_compression_level(PCO_LEVEL)
        .with_mode_spec(mode)
        .with_delta_spec(delta)
        .with_paging_spec(PagingSpec::Exact(vec![numbers.len()]));
    let write = || {
        let mut chunk = FileCompressor::default().chunk_compressor(numbers, &config)?;
        chunk.write_meta(&mut *out)?;
        chunk.write_page(0, &mut *out)?;
        Ok::<_, pco::errors::PcoError>(())
    };
    let mut write = write;
    write().map_err(|_| Unreadable("it could not be compressed"))
}

fn pco_read<T: pco::data_types::Number + Default>(
    header: &[u8],
    bytes: &[u8],
    count: usize,
) -> Result<Vec<T>, Unreadable> {
    let read = || {
        let (file, _) = FileDecompressor::new(header)?;
        let (mut chunk, rest) = file.chunk_decompressor::<T, _>(bytes)?;
        let mut page = chunk.page_decompressor(rest, count)?;
        let mut numbers = vec![T::default(); count];
        page.read(&mut numbers)?;
        Ok::<_, pco::errors::PcoError>(numbers)
    };
    read().map_err(|_| Unreadable("it does not decompress"))
}

/// Reads `count` cells.
pub(super) fn decode(
    coding: &Coding,
    pco_header: &[u8],
    bytes: &[u8],
    count: usize,
) -> Result<Vec<i64>, Unreadable> {
    let offsets: Vec<u64> = match coding.method {
        Method::Constant => return Ok(vec![coding.least; count]),
        Method::PcoFloat => {
            let floats = pco_read::<f64>(pco_header, bytes, count)?;
            return Ok(floats.into_iter().map(|float| float.to_bits() as i64).collect());
        }
        Method::Packed => {
            let mut numbers = pack::unpack(bytes, count).ok_or(Unreadable("its length is wrong"))?;
            if coding.is_delta {
                let mut before = 0u64;
                for number in &mut numbers {
                    before = before.wrapping_add(varint::unzigzag(*number) as u64);
                    *number = before;
                }
            }
            numbers
        }
        Method::Pco16 => pco_read::<u16>(pco_header, bytes, count)?.into_iter().map(u64::from).collect(),
        Method::Pco32 => pco_read::<u32>(pco_header, bytes, count)?.into_iter().map(u64::from).collect(),
        Method::Pco64 => pco_read::<u64>(pco_header, bytes, count)?,
    };
    let cell = |offset: u64| (offset << coding.shift).wrapping_add(coding.least as u64) as i64;
    Ok(offsets.into_iter().map(cell).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(kind: Kind, cells: &[i64]) -> usize {
        let (mut data, mut head) = (Vec::new(), Vec::new());
        let coding = Encoder::default().encode(kind, cells, &mut data).unwrap();
        coding.write(&mut head);
        assert_eq!(Coding::read(&mut &head[..]), Some(coding));
        assert_eq!(decode(&coding, &pco_header(), &data, cells.len()).unwrap(), cells, "{coding:?}");
        data.len()
    }

    #[test]
    fn a_constant_column_has_no_data() {
        assert_eq!(round_trip(Kind::Integer, &[i64::MIN; 700]), 0);
    }

    #[test]
    fn zero_bits_that_all_share_cost_nothing() {
        let pages: Vec<i64> = (0..60).map(|i| (i * 37 % 11) << 12).collect();
        let plain: Vec<i64> = pages.iter().map(|cell| cell >> 12).collect();
        assert_eq!(round_trip(Kind::Integer, &pages), round_trip(Kind::Integer, &plain));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn columns_of_any_length_and_width_survive(
            seed in any::<u64>(), count in prop_oneof![1usize..80, 250usize..800], width in 0u32..64, walk in any::<bool>()
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut cell = random.i64(..);
            let cells: Vec<i64> = (0..count).map(|_| {
                let step = random.i64(..) >> width;
                cell = if walk { cell.wrapping_add(step) } else { step };
                cell
            }).collect();
            round_trip(Kind::Integer, &cells);
            round_trip(Kind::Bits, &cells);
        }
    }
}
