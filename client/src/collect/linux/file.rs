//! Files of the kernel that stay open.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use tracing::{info, warn};

use super::scan;

/// The largest text that is taken: mountinfo of a host with thousands of containers has some MB.
const MAX_BYTES: usize = 8 << 20;

/// A file that is opened once and read again and again into a buffer of its own. When it vanishes it is closed, and
/// opened again when it is back; both are logged once.
pub(super) struct HeldFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    len: usize,
    has_read: bool,
    may_be_missing: bool,
    is_reported: bool,
}

impl HeldFile {
    /// A file that every host has: it is warned about when it cannot be read.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            buffer: Vec::new(),
            len: 0,
            has_read: false,
            may_be_missing: false,
            is_reported: false,
        }
    }

    /// A file that some hosts do not have.
    pub(super) fn optional(path: PathBuf) -> Self {
        Self { may_be_missing: true, ..Self::new(path) }
    }

    /// Makes the next [`Self::read_once`] read.
    pub(super) fn forget(&mut self) {
        self.has_read = false;
    }

    /// Closes it, so that the next read opens what is at its path then.
    pub(super) fn reopen(&mut self) {
        self.file = None;
    }

    /// Whether the kernel says that its text is another than when it was asked before: for mountinfo, the only file that
    /// can tell. True also where it cannot be asked.
    pub(super) fn has_changed(&self) -> bool {
        let Some(file) = &self.file else { return true };
        let mut polled = [PollFd::new(file, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut polled, Some(&now)) {
            Ok(_) => polled[0].revents().intersects(PollFlags::PRI | PollFlags::ERR | PollFlags::NVAL),
            Err(_) => true,
        }
    }

    /// Its text of this reading: read the first time after [`Self::forget`].
    pub(super) fn read_once(&mut self) -> Option<&[u8]> {
        if self.has_read {
            return (self.len > 0).then(|| &self.buffer[..self.len]);
        }
        self.has_read = true;
        self.read()
    }

    /// Its text now; `None` if it cannot be read or is empty.
    pub(super) fn read(&mut self) -> Option<&[u8]> {
        self.len = 0;
        match self.read_all() {
            Ok(()) => {
                if self.is_reported {
                    self.is_reported = false;
                    info!(path = %self.path.display(), "can be read again");
                }
                if self.len == 0 {
                    // What it was of may be gone.
                    self.file = None;
                }
            }
            Err(error) => {
                self.file = None;
                self.len = 0;
                if !self.is_reported && !self.may_be_missing {
                    self.is_reported = true;
                    warn!(path = %self.path.display(), %error, "cannot be read, its figures are left out");
                }
            }
        }
        (self.len > 0).then(|| &self.buffer[..self.len])
    }

    fn read_all(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        loop {
            if self.len == self.buffer.len() {
                if self.len >= MAX_BYTES {
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
                }
                // The kernel gives a page at a time of most lists, so pages are what it takes.
                self.buffer.resize((self.len * 2).max(4096), 0);
            }
            match file.read_at(&mut self.buffer[self.len..], self.len as u64) {
                Ok(0) => return Ok(()),
                Ok(n) => self.len += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One short attribute below `/sys`, held open.
pub(super) struct Attribute(File);

impl Attribute {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// Its number; an error also where it holds none.
    pub(super) fn number(&self) -> io::Result<i64> {
        let mut buffer = [0; 32];
        let len = self.0.read_at(&mut buffer, 0)?;
        scan::signed(buffer[..len].trim_ascii()).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Its number in hexadecimal, with `0x` before it.
    pub(super) fn hexadecimal(&self) -> io::Result<u64> {
        let mut buffer = [0; 32];
        let len = self.0.read_at(&mut buffer, 0)?;
        let digits = buffer[..len].trim_ascii().strip_prefix(b"0x");
        digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_vanishes_gives_nothing_and_one_that_is_back_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut held = HeldFile::optional(path.clone());
        assert_eq!(held.read(), None);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(held.read(), Some(&b"one"[..]));
        std::fs::remove_file(&path).unwrap();
        held.reopen();
        assert_eq!(held.read(), None);
        std::fs::write(&path, "x".repeat(10_000)).unwrap();
        assert_eq!(held.read().map(<[u8]>::len), Some(10_000));
    }

    #[test]
    fn a_shared_file_is_read_once_a_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut held = HeldFile::new(path.clone());
        assert_eq!(held.read_once(), Some(&b"one"[..]));
        std::fs::write(&path, "two!").unwrap();
        assert_eq!(held.read_once(), Some(&b"one"[..]));
        held.forget();
        assert_eq!(held.read_once(), Some(&b"two!"[..]));
    }

    #[test]
    fn attributes_are_read_as_numbers_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = dir.path().join("attribute");
            std::fs::write(&path, text).unwrap();
            Attribute::open(&path).unwrap()
        };
        assert_eq!(read("-1\n").number().unwrap(), -1);
        assert_eq!(read("0x1003\n").hexadecimal().unwrap(), 0x1003);
        assert!(
            read("").number().is_err()
                && read("unknown\n").number().is_err()
                && read("12").hexadecimal().is_err()
        );
    }
}
