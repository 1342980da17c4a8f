//! The log: frames that wait on disk.

use std::fmt;

/// A place in a log: just before a record, or at its end. Later places are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The segment's number, from 1.
    pub segment: u64,
    /// Bytes from the segment's beginning.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}
