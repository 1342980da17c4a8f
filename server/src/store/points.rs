//! Whole samples back as the points that they came as.
//!
//! Within a point, fields stand in the mapping's order, which is that of their names. The order of points within a sample
//! is not stored. It is made again: measurements in the order of the mapping, CPUs by number, file systems by path,
//! sensors and commands by name (all as clients send them), and disks, interfaces and reasons in the order in which the
//! fleet first named them. So the order of the latter can differ from that in the sample, and so can that of any
//! points of a client which sends sections in another order than that of their kinds. What they say never differs, but
//! for a series that one sample names twice: the first counts.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use vitals_wire::line::{HostTags, write_points};
use vitals_wire::mapping::{self, EventPoint, Field, MEASUREMENTS, Point, Tag};

use super::Value;
use super::db::StoredEvent;
use super::dictionary::ColumnKey;
use super::table::Table;

/// A sample as it was stored.
#[derive(Debug, Clone, Copy)]
pub struct RowRef<'a> {
    /// When it was taken, in ms since 1970.
    pub time_ms: i64,
    /// What the mapping made of it. None for a sample that had nothing to store.
    pub points: &'a [Point<'a>],
}

impl RowRef<'_> {
    /// Appends a line for each point, as `vitals_wire::line::write_sample` writes the sample. Gives how many.
    pub fn write(&self, out: &mut Vec<u8>, tags: &HostTags) -> usize {
        write_points(out, tags, self.time_ms, self.points)
    }

    /// It, to be kept.
    pub fn to_row(&self) -> Row {
        let texts = |tags: &[Tag<'_>]| tags.iter().map(|t| (t.key.to_owned(), t.value.to_owned())).collect();
        let point = |point: &Point<'_>| RowPoint {
            measurement: point.measurement.to_owned(),
            about: point.about.map(str::to_owned),
            tags: texts(point.tags),
            fields: point.fields.iter().map(|f| (f.name.to_owned(), RowValue::of(f.value))).collect(),
        };
        Row { time_ms: self.time_ms, points: self.points.iter().map(point).collect() }
    }
}

/// A sample as it was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// When it was taken, in ms since 1970.
    pub time_ms: i64,
    /// What the mapping made of it. None for a sample that had nothing to store.
    pub points: Vec<RowPoint>,
}

/// A point of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct RowPoint {
    /// Such as `disk`.
    pub measurement: String,
    /// The host that it is about, where that is not the one that took the sample: an event.
    pub about: Option<String>,
    /// Ascending by key, without the host's own.
    pub tags: Vec<(String, String)>,
    /// Ascending by name.
    pub fields: Vec<(String, RowValue)>,
}

/// A value of a point.
#[derive(Debug, Clone, PartialEq)]
pub enum RowValue {
    /// A figure.
    Number(Value),
    /// An event's `detail`; no other field is a text.
    Text(String),
}

impl RowValue {
    fn of(value: mapping::Value<'_>) -> Self {
        match value {
            mapping::Value::Float(float) => Self::Number(Value::Float(float)),
            mapping::Value::Integer(integer) => Self::Number(Value::Integer(integer)),
            mapping::Value::Text(text) => Self::Text(text.to_owned()),
        }
    }

    fn as_mapped(&self) -> mapping::Value<'_> {
        match self {
            Self::Number(value) => mapped(*value),
            Self::Text(text) => mapping::Value::Text(text),
        }
    }
}

/// Appends a line for each point, as `vitals_wire::line::write_sample` writes the sample. Gives how many.
pub fn write_row(out: &mut Vec<u8>, tags: &HostTags, row: &Row) -> usize {
    let mut lines = 0;
    for point in &row.points {
        let own: Vec<Tag<'_>> = point.tags.iter().map(|(key, value)| Tag { key, value }).collect();
        let fields: Vec<Field<'_>> =
            point.fields.iter().map(|(name, value)| Field { name, value: value.as_mapped() }).collect();
        let about = point.about.as_deref();
        let point = Point { measurement: &point.measurement, about, tags: &own, fields: &fields };
        lines += write_points(out, tags, row.time_ms, &[point]);
    }
    lines
}

fn mapped<'a>(value: Value) -> mapping::Value<'a> {
    match value {
        Value::Float(float) => mapping::Value::Float(float),
        Value::Integer(integer) => mapping::Value::Integer(integer),
    }
}

/// Points of one series: which of a table's columns are their fields.
struct Series<'a> {
    key: &'a ColumnKey,
    tags: Vec<Tag<'a>>,
    /// Places in the table's columns, ascending by name of the field.
    columns: Vec<usize>,
}

impl Series<'_> {
    /// Its place in the order of points; `first` is the least number of its columns.
    fn rank(&self, first: u32) -> (usize, bool, usize, String, u32) {
        let measurement = MEASUREMENTS.iter().position(|name| **name == *self.key.measurement);
        let tag = |name| self.tags.iter().find(|tag| tag.key == name).map_or("", |tag| tag.value);
        let (name, is_number) = match &*self.key.measurement {
            "cpu" => (tag("cpu"), true),
            "disk" => (tag("path"), false),
            "temp" => (tag("sensor"), false),
            "vitals_process" => (tag("process_name"), false),
            _ => ("", false),
        };
        let length = if is_number { name.len() } else { 0 };
        // What has no tags comes before its own with tags.
        let is_later = if is_number { name != "cpu-total" } else { !self.tags.is_empty() };
        (measurement.unwrap_or(MEASUREMENTS.len()), is_later, length, name.to_owned(), first)
    }
}

/// The series of a table, in the order of points. `keys` are those of the table's columns, where they are known.
fn series_of<'a>(table: &Table, keys: &'a [Option<Arc<ColumnKey>>]) -> Vec<Series<'a>> {
    let mut columns: Vec<(&ColumnKey, usize)> =
        keys.iter().enumerate().filter_map(|(place, key)| Some((key.as_deref()?, place))).collect();
    columns.sort_by(|(a, _), (b, _)| {
        (&a.measurement, &a.tags, &a.field).cmp(&(&b.measurement, &b.tags, &b.field))
    });
    let is_same = |(a, _): &(&ColumnKey, usize), (b, _): &(&ColumnKey, usize)| {
        a.measurement == b.measurement && a.tags == b.tags
    };
    let mut series = Vec::new();
    for columns in columns.chunk_by(is_same) {
        let Some(&(key, _)) = columns.first() else { continue };
        let tags = key.tags.iter().map(|(key, value)| Tag { key, value }).collect();
        let columns: Vec<usize> = columns.iter().map(|(_, place)| *place).collect();
        let first = columns.iter().filter_map(|place| table.columns.get(*place)).map(|column| column.number);
        let first = first.min().unwrap_or_default();
        let one = Series { key, tags, columns };
        series.push((one.rank(first), one));
    }
    series.sort_by(|a, b| a.0.cmp(&b.0));
    series.into_iter().map(|(_, series)| series).collect()
}

/// Gives `take` the samples of a settled table within `times`, ascending, each with the events of its time behind its
/// points; samples of which only events are known come between.
pub(super) fn each_row(
    table: &Table,
    keys: &[Option<Arc<ColumnKey>>],
    times: &Range<i64>,
    events: &mut Events,
    take: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let series = series_of(table, keys);
    let begin = table.times.partition_point(|time| *time < times.start);
    let mut next: Vec<usize> = table
        .columns
        .iter()
        .map(|column| column.rows.partition_point(|row| (*row as usize) < begin))
        .collect();
    let mut fields: Vec<Field<'_>> = Vec::with_capacity(table.columns.len());
    let mut ends: Vec<(usize, usize)> = Vec::with_capacity(series.len());
    for (row, time_ms) in table.times.iter().enumerate().skip(begin) {
        if *time_ms >= times.end {
            break;
        }
        events.before(*time_ms, take)?;
        fields.clear();
        ends.clear();
        for (place, one) in series.iter().enumerate() {
            let start = fields.len();
            for &column in &one.columns {
                let (Some(next), Some(key)) =
                    (next.get_mut(column), keys.get(column).and_then(Option::as_deref))
                else {
                    continue;
                };
                let column = &table.columns[column];
                if column.rows.get(*next).is_some_and(|at| *at as usize == row) {
                    let value = mapped(column.kind.value(column.cells[*next]));
                    fields.push(Field { name: &key.field, value });
                    *next += 1;
                }
            }
            if fields.len() > start {
                ends.push((place, fields.len()));
            }
        }
        let told = events.of(*time_ms);
        let told: Vec<EventPoint<'_>> = told.iter().map(event_point).collect();
        let mut points: Vec<Point<'_>> = Vec::with_capacity(ends.len() + told.len());
        let mut start = 0;
        for (place, end) in &ends {
            let Series { key, tags, .. } = &series[*place];
            let fields = &fields[start..*end];
            points.push(Point { measurement: &key.measurement, about: None, tags, fields });
            start = *end;
        }
        points.extend(told.iter().map(EventPoint::point));
        take(RowRef { time_ms: *time_ms, points: &points })?;
    }
    ControlFlow::Continue(())
}

fn event_point(event: &StoredEvent) -> EventPoint<'_> {
    EventPoint::new(&event.name, &event.kind, &event.detail)
}

/// Events that are to be told among samples, ascending by time and place.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<StoredEvent>);

impl Events {
    pub(super) fn new(events: Vec<StoredEvent>) -> Self {
        Self(events.into())
    }

    /// Takes those of one time; those before it are gone.
    fn of(&mut self, time_ms: i64) -> Vec<StoredEvent> {
        let mut found = Vec::new();
        while let Some(event) = self.0.pop_front_if(|event| event.time_ms <= time_ms) {
            found.push(event);
        }
        found
    }

    /// Gives `take` those before a time as samples of their own.
    pub(super) fn before(
        &mut self,
        time_ms: i64,
        take: &mut dyn FnMut(RowRef<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some(first) = self.0.front().map(|event| event.time_ms).filter(|first| *first < time_ms) {
            let told = self.of(first);
            let told: Vec<EventPoint<'_>> = told.iter().map(event_point).collect();
            let points: Vec<Point<'_>> = told.iter().map(EventPoint::point).collect();
            take(RowRef { time_ms: first, points: &points })?;
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
#[path = "points_tests.rs"]
mod tests;
