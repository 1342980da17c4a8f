//! The dictionary of columns: a small number for each measurement, tags, field and type that was ever stored.

use std::collections::HashMap;

use crate::field::FieldSelector;

/// Columns that a store takes at most. Far above any fleet; a client that makes up names for ever meets it.
pub(super) const MAX_COLUMNS: usize = 4 << 20;

/// A column as the dictionary knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnKey {
    pub measurement: Box<str>,
    /// Ascending by key, none empty.
    pub tags: Box<[(Box<str>, Box<str>)]>,
    pub field: Box<str>,
    pub is_float: bool,
}

/// All columns, by number from 0 and by what they are.
#[derive(Debug, Default)]
pub struct Dictionary {
    columns: Vec<std::sync::Arc<ColumnKey>>,
    numbers: HashMap<std::sync::Arc<ColumnKey>, u32>,
    /// Numbers by measurement and field, ascending.
    by_field: HashMap<(Box<str>, Box<str>), Vec<u32>>,
}

impl Dictionary {
    /// The number of a column, which is the next one if it is new. `None` when the dictionary is full.
    pub(super) fn number(&mut self, key: ColumnKey) -> Option<u32> {
        if let Some(number) = self.numbers.get(&key) {
            return Some(*number);
        }
        if self.columns.len() >= MAX_COLUMNS {
            return None;
        }
        let number = self.columns.len() as u32;
        let key = std::sync::Arc::new(key);
        self.by_field.entry((key.measurement.clone(), key.field.clone())).or_default().push(number);
        self.numbers.insert(key.clone(), number);
        self.columns.push(key);
        Some(number)
    }

    /// The number that a column has, if it has one.
    pub(super) fn find(&self, key: &ColumnKey) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    pub(super) fn column(&self, number: u32) -> Option<&std::sync::Arc<ColumnKey>> {
        self.columns.get(number as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// The numbers of all columns that a selector means, ascending.
    pub(super) fn select(&self, selector: &FieldSelector) -> Vec<u32> {
        let key = (selector.measurement().into(), selector.field().into());
        let numbers = self.by_field.get(&key).map(Vec::as_slice).unwrap_or_default();
        let is_meant = |number: &&u32| {
            self.column(**number).is_some_and(|column| {
                selector.wants(|key| column.tags.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v))
            })
        };
        numbers.iter().filter(is_meant).copied().collect()
    }
}
