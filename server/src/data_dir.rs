//! The data directory: made, closed to others, and locked, so that one server runs on it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Why the data directory cannot be used. Each text names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or written.
    #[error("cannot use the data directory {dir}: {error}; make it writable, or name another with --data-dir", dir = dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// Others may look in.
    #[error("the data directory {dir} is open to others (mode {mode:03o}): chmod 700 {dir}", dir = dir.display())]
    Open {
        /// The directory.
        dir: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another server runs on it.
    #[error("another vitals-server uses the data directory {dir}: stop it, or name another with --data-dir", dir = dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where it is missing, and takes its lock.
    pub fn lock(dir: &Path) -> Result<Self, DataDirError> {
        let unusable = |error| DataDirError::Unusable { dir: dir.to_owned(), error };
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        }
        let mode = std::fs::metadata(dir).map_err(unusable)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(DataDirError::Open { dir: dir.to_owned(), mode });
        }
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"));
        let lock = lock.map_err(unusable)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse { dir: dir.to_owned() }),
            Err(error) => Err(unusable(error.into())),
        }
    }

    /// Makes a directory within it, closed like itself.
    pub fn subdir(&self, name: &str) -> Result<PathBuf, DataDirError> {
        let dir = self.dir.join(name);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(DataDirError::Unusable { dir, error })
            }
            _ => Ok(dir),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn one_server_uses_a_directory_at_a_time_and_others_see_nothing_of_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let held = DataDir::lock(&dir).unwrap();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(DataDir::lock(&dir), Err(DataDirError::InUse { .. })));
        drop(held);
        DataDir::lock(&dir).unwrap();
        std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(DataDir::lock(&dir), Err(DataDirError::Open { mode: 0o755, .. })));
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = DataDir::lock(Path::new("/proc/vitals")).unwrap_err();
        assert!(error.to_string().contains("/proc/vitals") && error.to_string().contains("--data-dir"));
    }
}
