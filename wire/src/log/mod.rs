//! The log: records that wait on disk, in append-only segments. The client's spool and the server's journal are logs.
//!
//! One [`Writer`] appends and removes; any number of [`Reader`]s, each at a place of its own, read what was committed;
//! a [`View`] makes readers and tells where the log begins and ends. The code is synchronous: it belongs on a thread
//! that may wait for a disk. The bytes on disk are described in `format.rs`.
//!
//! # Invariants
//!
//! - **Committed is on disk.** [`Writer::append`] only buffers. [`Writer::commit`] writes what was appended since the
//!   last commit with one write, waits for the disk (`fdatasync`, and `fsync` of the directory when the segment is new)
//!   and only then lets readers see it. The records of one commit lie in one segment.
//! - **All or nothing in this process.** When an append or a commit fails, what was committed stays readable and
//!   nothing stays of what was appended since: the caller appends it again when the disk is back. After a kill, records
//!   whose commit did not return may be found whole and are then kept: a record can come twice, never in part.
//! - **A failed `fsync` is never tried again on the same file.** Linux marks pages that it could not write as clean, so
//!   that a second `fsync` would succeed without having written them. The segment is ended where its last commit
//!   ended, and the next append begins a new one. A write that failed is cut off and the segment goes on.
//! - **Only files of this process are appended to.** Opening a log makes what it finds durable, cuts the torn tail of
//!   the newest segment, and the next append begins a new segment. So a place that was read from the page cache and
//!   lost with the power is never filled with another record.
//! - **Compressed or not, records are read one by one.** With [`LogOptions::compress`] those of one commit are packed
//!   into blocks; a place is then that of a block, and a damaged block costs all of its records. Both kinds of segments
//!   can lie in one log.
//! - **Places grow.** Numbers of segments are never used twice: the newest file stays until a newer one is on disk.
//! - **Damage costs what is damaged.** A reader that meets bytes which are no record looks for the next record behind
//!   them, and counts what it skipped ([`Damage`]). A segment without a readable header is skipped as a whole.
//!
//! Two writers on one directory destroy each other's work; whoever owns the directory locks it.

mod block;
mod catalog;
mod compress;
mod format;
mod fs;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod reader;
mod scan;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::limits::MAX_FRAME_BYTES;

pub use catalog::{SegmentInfo, View};
pub use format::RECORD_HEADER_BYTES;
pub use fs::{AppendFile, Fs, ReadFile, RealFs};
pub use reader::{Entry, Reader};
pub use writer::{LogOptions, Opened, Removed, Writer};

/// Bytes of one record's payload: what came in one frame, and who sent it. Checked before anything is allocated.
pub const MAX_RECORD_BYTES: usize = 2 * MAX_FRAME_BYTES;
/// Plain bytes of the records that are compressed together, unless one alone is larger.
pub const MAX_BLOCK_BYTES: usize = 256 << 10;
/// Bytes that may be appended without a commit, as they lie on disk: what a writer holds in memory at most, but for one
/// block and the compressor where it compresses (some 2 MiB).
pub const MAX_UNCOMMITTED_BYTES: usize = 32 << 20;

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

/// What a reader had to skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Damage {
    /// Stretches of bytes that are no record, each of one record or of several neighbours.
    pub stretches: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Damage {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.stretches += 1;
        self.bytes += bytes;
    }
}

/// What went wrong. Whatever it was, all that is committed stands and stays readable.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The record is longer than any may be. It was not appended, what was appended before stays; trying again is no
    /// use.
    #[error("a record of {len} bytes, at most {MAX_RECORD_BYTES} are taken")]
    TooLarge {
        /// Its length.
        len: usize,
    },
    /// [`MAX_UNCOMMITTED_BYTES`] wait for a commit. The record was not appended, what was appended before stays:
    /// commit, then append it again.
    #[error("too many bytes wait for a commit")]
    Uncommitted,
    /// The log was not opened, and nothing was removed but what cannot hold a record. Worth trying again.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A later version of Vitals wrote this segment. The log was not opened and nothing was changed; only that version,
    /// or a later one, can go on with it.
    #[error("{} was written by a newer version of Vitals (log format {version}): start that version", path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// The version of its format.
        version: u16,
    },
    /// The segment is compressed, and this build of Vitals cannot read that (its feature `compress` is off). The log was
    /// not opened and nothing was changed.
    #[error("{} is compressed, which this build of Vitals cannot read", path.display())]
    Compressed {
        /// The segment.
        path: PathBuf,
    },
    /// A segment could not be made or written: a full or read-only disk, a lost permission, a failing device. Nothing
    /// stays of what was appended since the last commit: append it again when the disk is back.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk did not take what was written. As with `Write`; the next append begins a new segment.
    #[error("cannot make {} durable: {source}", path.display())]
    Sync {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A segment could not be read. The reader stands where it stood: try again, after a while.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A segment that nobody needs could not be removed. It is still part of the log: try again, after a while.
    #[error("cannot remove {}: {source}", path.display())]
    Remove {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LogError {
    /// Whether the same call can succeed later, without anything but the disk having changed.
    pub fn can_try_again(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Newer { .. } | Self::Compressed { .. })
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod model_tests;
