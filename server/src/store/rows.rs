//! The newest samples of a host in memory, in few bytes.
//!
//! Each sample is appended to a string of bytes:
//!
//! | what | how |
//! |---|---|
//! | time since the sample before, in ms | zigzag varint |
//! | number of the layout among those used here × 2, + 1 if kinds of columns change | varint |
//! | if so: how many, and for each the column's place and its new kind | varints, a byte |
//! | which columns have another value than the last that they had | a bit for each column of the layout |
//! | the differences of those to that | zigzag varints |
//!
//! A column's place is its place among all columns seen here, in order of first appearance; its last value is 0 before it
//! has one. So a sample in which little changed takes little, also where a field comes and goes.

use std::sync::Arc;

use vitals_wire::log::Position;

use super::cell::Kind;
use super::layout::Layout;
use super::table::{Column, Table};
use super::varint;

/// Bytes by which the string grows: doubling would leave half of ten thousand of them unused.
const GROWTH_BYTES: usize = 1 << 10;
/// A string that is larger than this is not kept for the next samples.
const KEPT_BYTES: usize = 24 << 10;

/// Samples of one host and one hour that are not in the file yet.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    pub hour: i64,
    /// Before the journal's record that holds the first of them.
    pub first: Position,
    pub count: u32,
    bytes: Vec<u8>,
    last_time: i64,
    /// With the place of each of its columns; none where they are 0, 1, 2, ….
    layouts: Vec<(Arc<Layout>, Box<[u32]>)>,
    /// The layout used last.
    current: usize,
    places: Vec<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    number: u32,
    kind: Kind,
    last: i64,
}

/// Reused between calls of `Rows::push`.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    cells: Vec<i64>,
    changed: Vec<(u32, Kind)>,
}

impl Rows {
    pub(super) fn new(hour: i64, first: Position, spare: Vec<u8>) -> Self {
        Self {
            hour,
            first,
            count: 0,
            bytes: spare,
            last_time: 0,
            layouts: Vec::new(),
            current: 0,
            places: Vec::new(),
        }
    }

    /// The string for the next samples, if it is not too large to be kept.
    pub(super) fn into_spare(mut self) -> Vec<u8> {
        if self.bytes.capacity() > KEPT_BYTES {
            return Vec::new();
        }
        self.bytes.clear();
        self.bytes
    }

    /// Bytes of the string.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// About the memory that this takes.
    pub(super) fn memory(&self) -> usize {
        let layouts: usize = self.layouts.iter().map(|(_, places)| 32 + places.len() * 4).sum();
        size_of::<Self>() + self.bytes.capacity() + self.places.capacity() * size_of::<Place>() + layouts
    }

    /// Appends a sample. `values` are those of the layout's columns, floats by their bits.
    pub(super) fn push(&mut self, time_ms: i64, layout: &Arc<Layout>, values: &[i64], scratch: &mut Scratch) {
        self.use_layout(layout);
        if self.bytes.capacity() - self.bytes.len() < GROWTH_BYTES / 2 {
            self.bytes.reserve_exact(GROWTH_BYTES);
        }
        let places = &self.layouts[self.current].1;
        let place_of = |i: usize| places.get(i).map_or(i, |place| *place as usize);
        scratch.cells.clear();
        scratch.changed.clear();
        for (i, value) in values.iter().enumerate() {
            let place = &mut self.places[place_of(i)];
            let cell = if place.kind == Kind::Integer {
                *value
            } else {
                let (kind, cell) = place.kind.fit(f64::from_bits(*value as u64));
                if kind != place.kind {
                    place.last = place.kind.raise(place.last, kind);
                    place.kind = kind;
                    scratch.changed.push((place_of(i) as u32, kind));
                }
                cell
            };
            scratch.cells.push(cell);
        }
        varint::put(&mut self.bytes, varint::zigzag(time_ms.wrapping_sub(self.last_time)));
        self.last_time = time_ms;
        let changes = !scratch.changed.is_empty();
        varint::put(&mut self.bytes, self.current as u64 * 2 + u64::from(changes));
        if changes {
            varint::put(&mut self.bytes, scratch.changed.len() as u64);
            for (place, kind) in &scratch.changed {
                varint::put(&mut self.bytes, (*place).into());
                self.bytes.push(*kind as u8);
            }
        }
        let bits = self.bytes.len();
        self.bytes.resize(bits + values.len().div_ceil(8), 0);
        for (i, cell) in scratch.cells.iter().enumerate() {
            let place = &mut self.places[place_of(i)];
            if *cell != place.last {
                self.bytes[bits + i / 8] |= 1 << (i % 8);
                varint::put(&mut self.bytes, varint::zigzag(cell.wrapping_sub(place.last)));
                place.last = *cell;
            }
        }
        self.count += 1;
    }

    fn use_layout(&mut self, layout: &Arc<Layout>) {
        if self.layouts.get(self.current).is_some_and(|(current, _)| Arc::ptr_eq(current, layout)) {
            return;
        }
        if let Some(known) = self.layouts.iter().position(|(known, _)| Arc::ptr_eq(known, layout)) {
            self.current = known;
            return;
        }
        let new = |number: u32, is_float| Place { number, kind: Kind::first(is_float), last: 0 };
        let columns = layout.columns.iter().copied().zip(layout.floats.iter().copied());
        self.current = self.layouts.len();
        if self.layouts.is_empty() {
            self.places.reserve_exact(layout.columns.len());
            self.places.extend(columns.map(|(number, is_float)| new(number, is_float)));
            self.layouts.push((layout.clone(), Box::default()));
            return;
        }
        let known: std::collections::HashMap<u32, u32> =
            self.places.iter().enumerate().map(|(place, column)| (column.number, place as u32)).collect();
        let mut places = Vec::with_capacity(layout.columns.len());
        for (number, is_float) in columns {
            places.push(known.get(&number).copied().unwrap_or(self.places.len() as u32));
            if !known.contains_key(&number) {
                self.places.push(new(number, is_float));
            }
        }
        self.layouts.push((layout.clone(), places.into()));
    }

    /// The samples in the order in which they came, with those columns only that `is_wanted`.
    pub(super) fn table(&self, is_wanted: impl Fn(u32) -> bool) -> Table {
        let mut table = Table { times: Vec::with_capacity(self.count as usize), columns: Vec::new() };
        let mut columns: Vec<Option<Column>> = Vec::with_capacity(self.places.len());
        for place in &self.places {
            columns.push(is_wanted(place.number).then(|| {
                let (rows, cells) =
                    (Vec::with_capacity(self.count as usize), Vec::with_capacity(self.count as usize));
                Column { number: place.number, kind: place.kind, rows, cells }
            }));
        }
        let mut last: Vec<(Kind, i64)> =
            self.places.iter().map(|place| (Kind::first(place.kind != Kind::Integer), 0)).collect();
        let mut bytes = &self.bytes[..];
        let mut time = 0i64;
        while table.times.len() < self.count as usize {
            // The bytes are our own and never ended early; a row that did would end the table, not the process.
            let Some(()) =
                self.read_row(&mut bytes, &mut time, &mut last, &mut columns, table.times.len() as u32)
            else {
                break;
            };
            table.times.push(time);
        }
        table.columns = columns.into_iter().flatten().filter(|column| !column.rows.is_empty()).collect();
        table.columns.sort_by_key(|column| column.number);
        table
    }

    fn read_row(
        &self,
        bytes: &mut &[u8],
        time: &mut i64,
        last: &mut [(Kind, i64)],
        columns: &mut [Option<Column>],
        row: u32,
    ) -> Option<()> {
        *time = time.wrapping_add(varint::unzigzag(varint::take(bytes)?));
        let head = varint::take(bytes)?;
        let (layout, places) = self.layouts.get((head / 2) as usize)?;
        if head % 2 == 1 {
            for _ in 0..varint::take(bytes)? {
                let place = varint::take(bytes)? as usize;
                let (&kind, rest) = bytes.split_first()?;
                *bytes = rest;
                let kind = Kind::from_number(kind)?;
                let (before, cell) = last.get_mut(place)?;
                *cell = before.raise(*cell, kind);
                *before = kind;
            }
        }
        let count = layout.columns.len();
        let (bits, rest) = bytes.split_at_checked(count.div_ceil(8))?;
        *bytes = rest;
        for i in 0..count {
            let place = places.get(i).map_or(i, |place| *place as usize);
            let (kind, cell) = last.get_mut(place)?;
            if bits[i / 8] & 1 << (i % 8) != 0 {
                *cell = cell.wrapping_add(varint::unzigzag(varint::take(bytes)?));
            }
            if let Some(column) = columns.get_mut(place)? {
                column.push(row, kind.raise(*cell, column.kind));
            }
        }
        Some(())
    }
}
