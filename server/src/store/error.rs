//! What can go wrong with the store.

use std::path::PathBuf;

use super::storage::StorageError;

/// Why the store cannot be opened, read or written. Whatever is in the file stays there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The file is something else. It is not touched.
    #[error(
        "{path} is not a history database of Vitals; set another data directory, or put the right file there"
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version. It is not touched.
    #[error(
        "{path} has layout {found}, and this version of Vitals reads up to {known}; start a newer version"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that this version reads.
        known: i64,
    },
    /// SQLite finds the file damaged where it is needed for a start. It is not touched.
    #[error(
        "{path} is damaged ({detail}); move it aside and restore a backup, or start without it: what the clients and \
         the journal still hold comes back"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// The file cannot be opened or written: rights, a read-only or full disk. Worth trying again.
    #[error("{path}: {detail}")]
    Unavailable {
        /// The file.
        path: PathBuf,
        /// The system's or SQLite's words.
        detail: String,
    },
    /// A read or write failed. Nothing changed; worth trying again.
    #[error("history: {0}")]
    Failed(String),
    /// The journal cannot be read.
    #[error("history: {0}")]
    Journal(#[from] crate::journal::JournalError),
    /// An answer would be longer than its limit. Ask for a shorter range.
    #[error("more than {limit} points; ask for a shorter range or fewer series")]
    TooManyPoints {
        /// The limit.
        limit: usize,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        Self::Failed(error.to_string())
    }
}
