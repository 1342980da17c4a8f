//! Which columns the values of a sample belong to, found out cheaply.
//!
//! Samples of a host look alike: the same points with the same fields in the same order. A layout is that order, shared by
//! all hosts that have it. A sample is held against the layout of the one before it, which costs a comparison for each
//! point; only a point that differs is looked up, and only one that was never seen reaches the dictionary.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, RwLock};

use vitals_wire::mapping::{self, Point, Points};
use vitals_wire::sample::Sample;

use super::dictionary::{ColumnKey, Dictionary};
use super::{read, write};

/// The columns of the values of a sample, in the order in which the mapping gives them.
#[derive(Debug)]
pub(super) struct Layout {
    shapes: Box<[Arc<Shape>]>,
    /// Each number once.
    pub columns: Box<[u32]>,
    /// Whether they are floats.
    pub floats: Box<[bool]>,
    /// Which of the sample's values are kept, where not all are: a series that a sample names twice counts once.
    keep: Option<Box<[bool]>>,
}

/// A point without its values.
#[derive(Debug)]
struct Shape {
    number: u64,
    measurement: Box<str>,
    tags: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(Box<str>, Type)]>,
    /// Of the fields that are numbers; `None` where the dictionary is full.
    columns: Box<[Option<u32>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Type {
    Float,
    Integer,
    Text,
}

impl Type {
    fn of(value: &mapping::Value<'_>) -> Self {
        match value {
            mapping::Value::Float(_) => Self::Float,
            mapping::Value::Integer(_) => Self::Integer,
            mapping::Value::Text(_) => Self::Text,
        }
    }
}

impl Shape {
    fn is_of(&self, point: &Point<'_>) -> bool {
        *self.measurement == *point.measurement
            && self.tags.len() == point.tags.len()
            && self.fields.len() == point.fields.len()
            && self.tags.iter().zip(point.tags).all(|((k, v), tag)| **k == *tag.key && **v == *tag.value)
            && self
                .fields
                .iter()
                .zip(point.fields)
                .all(|((name, t), field)| **name == *field.name && *t == Type::of(&field.value))
    }

    fn floats(&self) -> impl Iterator<Item = bool> {
        self.fields.iter().filter(|(_, t)| *t != Type::Text).map(|(_, t)| *t == Type::Float)
    }
}

/// All shapes and layouts in use.
#[derive(Debug, Default)]
pub(super) struct Layouts {
    shapes: HashMap<u64, Vec<Arc<Shape>>>,
    layouts: HashMap<Box<[u64]>, Arc<Layout>>,
    next_shape: u64,
    hasher: RandomState,
    /// The points of the sample under way, once it differs from the layout before.
    found: Vec<Arc<Shape>>,
    /// Values without a column because the dictionary is full.
    pub without_column: u64,
}

/// Takes the points of one sample.
struct Resolver<'a> {
    layouts: &'a mut Layouts,
    dictionary: &'a RwLock<Dictionary>,
    before: Option<&'a Layout>,
    /// Points so far.
    points: usize,
    /// Whether all of them were as in `before`.
    is_same: bool,
    values: &'a mut Vec<i64>,
}

impl Points for Resolver<'_> {
    fn point(&mut self, point: Point<'_>) {
        // What is about another host is an event, which has a table of its own.
        if point.about.is_some() {
            return;
        }
        let expected = self.before.and_then(|layout| layout.shapes.get(self.points));
        let is_expected = expected.is_some_and(|shape| shape.is_of(&point));
        self.points += 1;
        self.values.extend(point.fields.iter().filter_map(|field| match field.value {
            mapping::Value::Float(float) => Some(float.to_bits() as i64),
            mapping::Value::Integer(integer) => Some(integer),
            mapping::Value::Text(_) => None,
        }));
        if is_expected && self.is_same {
            return;
        }
        if self.is_same {
            self.is_same = false;
            let same = self.before.map(|layout| &layout.shapes[..self.points - 1]).unwrap_or_default();
            self.layouts.found.extend_from_slice(same);
        }
        let shape = match expected.filter(|_| is_expected) {
            Some(shape) => shape.clone(),
            None => self.layouts.shape(&point, self.dictionary),
        };
        self.layouts.found.push(shape);
    }
}

impl Layouts {
    /// Puts the sample's numbers into `values` (floats by their bits) and gives their layout.
    pub(super) fn resolve(
        &mut self,
        sample: &Sample,
        before: Option<&Arc<Layout>>,
        dictionary: &RwLock<Dictionary>,
        values: &mut Vec<i64>,
    ) -> Arc<Layout> {
        values.clear();
        self.found.clear();
        let mut resolver = Resolver {
            layouts: self,
            dictionary,
            before: before.map(|layout| &**layout),
            points: 0,
            is_same: true,
            values,
        };
        mapping::map_sample(sample, &mut resolver);
        let (points, is_same) = (resolver.points, resolver.is_same);
        let layout = match before {
            Some(layout) if is_same && layout.shapes.len() == points => layout.clone(),
            Some(layout) if is_same => {
                self.found.extend_from_slice(&layout.shapes[..points]);
                self.layout()
            }
            _ => self.layout(),
        };
        if let Some(keep) = &layout.keep {
            let mut keep = keep.iter();
            values.retain(|_| keep.next().copied().unwrap_or(false));
        }
        layout
    }

    /// The layout of the points that were found.
    fn layout(&mut self) -> Arc<Layout> {
        let key: Box<[u64]> = self.found.iter().map(|shape| shape.number).collect();
        if let Some(layout) = self.layouts.get(&key) {
            return layout.clone();
        }
        let all: Vec<(Option<u32>, bool)> =
            self.found.iter().flat_map(|shape| shape.columns.iter().copied().zip(shape.floats())).collect();
        let mut seen = std::collections::HashSet::new();
        let keep: Box<[bool]> =
            all.iter().map(|(column, _)| column.is_some_and(|c| seen.insert(c))).collect();
        let kept = || all.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(column, _)| *column);
        let layout = Arc::new(Layout {
            shapes: self.found.as_slice().into(),
            columns: kept().filter_map(|(column, _)| column).collect(),
            floats: kept().map(|(_, is_float)| is_float).collect(),
            keep: (!keep.iter().all(|keep| *keep)).then_some(keep),
        });
        self.layouts.insert(key, layout.clone());
        layout
    }

    fn shape(&mut self, point: &Point<'_>, dictionary: &RwLock<Dictionary>) -> Arc<Shape> {
        let mut hasher = self.hasher.build_hasher();
        point.measurement.hash(&mut hasher);
        point.tags.iter().for_each(|tag| (tag.key, tag.value).hash(&mut hasher));
        point.fields.iter().for_each(|field| (field.name, Type::of(&field.value)).hash(&mut hasher));
        let hash = hasher.finish();
        if let Some(shape) =
            self.shapes.get(&hash).and_then(|like| like.iter().find(|shape| shape.is_of(point)))
        {
            return shape.clone();
        }
        let columns = self.columns_of(point, dictionary);
        let shape = Arc::new(Shape {
            number: self.next_shape,
            measurement: point.measurement.into(),
            tags: point.tags.iter().map(|tag| (tag.key.into(), tag.value.into())).collect(),
            fields: point.fields.iter().map(|field| (field.name.into(), Type::of(&field.value))).collect(),
            columns,
        });
        self.next_shape += 1;
        self.shapes.entry(hash).or_default().push(shape.clone());
        shape
    }

    fn columns_of(&mut self, point: &Point<'_>, dictionary: &RwLock<Dictionary>) -> Box<[Option<u32>]> {
        let tags: Box<[(Box<str>, Box<str>)]> = point
            .tags
            .iter()
            .filter(|tag| !tag.value.is_empty())
            .map(|tag| (tag.key.into(), tag.value.into()))
            .collect();
        let numbers = point.fields.iter().filter(|field| Type::of(&field.value) != Type::Text);
        let columns = numbers.map(|field| {
            let key = ColumnKey {
                measurement: point.measurement.into(),
                tags: tags.clone(),
                field: field.name.into(),
                is_float: Type::of(&field.value) == Type::Float,
            };
            if let Some(number) = read(dictionary).find(&key) {
                return Some(number);
            }
            let number = write(dictionary).number(key);
            self.without_column += u64::from(number.is_none());
            number
        });
        columns.collect()
    }

    /// Forgets what no sample in memory uses any more, so that hosts which come and go leave nothing behind.
    pub(super) fn forget_unused(&mut self) {
        self.found.clear();
        self.layouts.retain(|_, layout| Arc::strong_count(layout) > 1);
        self.shapes.retain(|_, like| {
            like.retain(|shape| Arc::strong_count(shape) > 1);
            !like.is_empty()
        });
    }

    /// How many layouts and shapes there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.layouts.len(), self.shapes.values().map(Vec::len).sum())
    }
}
