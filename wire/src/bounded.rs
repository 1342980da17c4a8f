//! Texts and lists that cannot be longer than their cap, neither in memory nor on the wire.
//!
//! Decoding looks at the claimed length first, so that a frame of ten bytes which claims 2^40 entries costs ten bytes.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// What was too long, and by how much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{len} {unit}, at most {max} are taken")]
pub struct TooLong {
    /// How many there were.
    pub len: usize,
    /// How many may be.
    pub max: usize,
    /// Of what: `"bytes"` or `"entries"`.
    pub unit: &'static str,
}

/// UTF-8 text of at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(Box<str>);

impl<const MAX: usize> Text<MAX> {
    /// Takes `text` as it is, or says that it is too long.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, TooLong> {
        let text = text.into();
        if text.len() > MAX {
            return Err(TooLong { len: text.len(), max: MAX, unit: "bytes" });
        }
        Ok(Self(text))
    }

    /// Takes as much of `text` as fits, cut between two characters.
    pub fn cut(text: &str) -> Self {
        let mut end = text.len().min(MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for TextVisitor<MAX> {
            type Value = Text<MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes of text")
            }
            // Borrowed from the frame: nothing is allocated for a text that is then refused.
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text.len() > MAX {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(Text(text.into()))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A list of at most `MAX` entries.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// An empty list.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// Takes `entries` as they are, or says that they are too many.
    pub fn new(entries: Vec<T>) -> Result<Self, TooLong> {
        if entries.len() > MAX {
            return Err(TooLong { len: entries.len(), max: MAX, unit: "entries" });
        }
        Ok(Self(entries))
    }

    /// Takes the first `MAX` entries and tells how many were left out.
    pub fn first(mut entries: Vec<T>) -> (Self, usize) {
        let left_out = entries.len().saturating_sub(MAX);
        entries.truncate(MAX);
        (Self(entries), left_out)
    }

    /// Adds `entry`, or gives it back where the list is full.
    pub fn push(&mut self, entry: T) -> Result<(), T> {
        if self.0.len() >= MAX {
            return Err(entry);
        }
        self.0.push(entry);
        Ok(())
    }

    /// Keeps only the entries for which `keep` is true.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }

    /// The entries.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for List<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

/// Deserializes a list without a cap of its own. It too grows only as entries really come.
pub(crate) fn grown<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(List::<T, { usize::MAX }>::deserialize(deserializer)?.into_vec())
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = List<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} entries")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                /// Entries allocated for on a peer's word alone; beyond it the list grows as entries really come.
                const TRUSTED: usize = 16;
                let claimed = seq.size_hint().unwrap_or(0);
                if claimed > MAX {
                    return Err(A::Error::invalid_length(claimed, &self));
                }
                let mut entries = Vec::with_capacity(claimed.min(TRUSTED));
                while let Some(entry) = seq.next_element()? {
                    if entries.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    entries.push(entry);
                }
                Ok(List(entries))
            }
        }
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_over_its_cap_is_refused_and_can_be_cut_between_characters() {
        assert_eq!(Text::<4>::new("12345"), Err(TooLong { len: 5, max: 4, unit: "bytes" }));
        assert_eq!(&*Text::<4>::cut("aé€"), "aé", "the euro sign does not fit whole and is left out");
        assert_eq!(&*Text::<4>::cut("ab"), "ab");
    }

    #[test]
    fn a_list_keeps_its_first_entries_and_counts_the_rest() {
        let (list, left_out) = List::<u8, 2>::first(vec![1, 2, 3]);
        assert_eq!((&*list, left_out), (&[1, 2][..], 1));
        assert!(List::<u8, 2>::new(vec![1, 2, 3]).is_err());
        let mut list = List::<u8, 1>::empty();
        assert_eq!(list.push(1), Ok(()));
        assert_eq!(list.push(2), Err(2), "a full list gives the entry back");
    }
}
