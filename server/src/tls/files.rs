//! Files with secrets in them: mode 0600, written beside and renamed, so that after a crash there is the old file or the
//! new one, and never a half.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Largest file that is read: far more than any chain of certificates.
pub const MAX_FILE_BYTES: u64 = 256 << 10;

/// Writes a file as a whole, on disk when this gives `Ok`. One that is there is replaced.
///
/// # Errors
/// The disk says no; what was there is there still.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    // What a crash left behind: nobody has read it.
    remove_if_there(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    rename(&beside, path)
}

/// Renames a file within its directory, on disk when this gives `Ok`.
///
/// # Errors
/// The disk says no.
pub fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)?;
    sync_dir_of(to)
}

/// Removes a file, on disk when this gives `Ok`. Whether it was there.
///
/// # Errors
/// The disk says no.
pub fn remove(path: &Path) -> std::io::Result<bool> {
    let was_there = remove_if_there(path)?;
    sync_dir_of(path)?;
    Ok(was_there)
}

/// Reads a file as a whole; `None` where there is none.
///
/// # Errors
/// It cannot be read, or is far too large.
pub fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::new(ErrorKind::InvalidData, "too large for a certificate or a key"));
    }
    Ok(Some(bytes))
}

fn remove_if_there(path: &Path) -> std::io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn sync_dir_of(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_its_owners_alone_and_what_a_crash_left_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pem");
        assert_eq!(read(&path).unwrap(), None);
        std::fs::write(dir.path().join("a.new"), "half").unwrap();
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
    }

    #[test]
    fn a_file_that_never_ends_is_refused() {
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
