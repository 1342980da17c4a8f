//! What a log needs of a file system, and the real one. Nothing else in the log touches a file, so that a test can put
//! a file system in its place that fails or stops between any two calls.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Files of a log and what is kept beside them.
pub trait Fs: fmt::Debug + Send + Sync {
    /// Makes the directory and those above it, where they are missing, and waits until their names are on disk.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names and lengths of the files in it.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// Makes a file that is not there, to append to it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;
    /// Opens a file to read it.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;
    /// Cuts a file to `len` bytes, if it is longer, and waits until it is on disk.
    fn cut(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Waits until the names of a directory's files are on disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The whole of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Puts a small file in the place of the one of that name, if there is one: whatever dies on the way, one of the two
    /// is there, whole. It is on disk when this returns.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
}

/// A file that grows at its end.
pub trait AppendFile: fmt::Debug + Send {
    /// Appends all of `bytes`. When it fails any part of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts it to `len` bytes; the next append begins there.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// Waits until content and length are on disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is read.
pub trait ReadFile: fmt::Debug + Send + Sync {
    /// Reads some bytes at `offset`; none at the end of the file.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// The operating system's.
#[derive(Debug)]
pub struct RealFs;

impl Fs for RealFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(dir)?;
        // Without it a crash can take away a directory whose files were synced.
        let parents = missing.iter().filter_map(|made| made.parent());
        parents
            .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
            .try_for_each(|parent| self.sync_dir(parent))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        // What a fleet's machines do is nobody else's business.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Box::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn cut(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() > len {
            file.set_len(len)?;
        }
        file.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let new = new_name(path);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        drop(file);
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    #[cfg(unix)]
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        // Directories cannot be synced there; the file system's own journal keeps names and files together.
        Ok(())
    }
}

/// What a small file is called until it takes another's place.
pub(super) fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

impl AppendFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

impl ReadFile for File {
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.seek(SeekFrom::Start(offset))?;
        loop {
            match self.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}
