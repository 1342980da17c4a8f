//! `run --tee FILE`: what is sent, as line protocol.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vitals_wire::line::{HostTags, write_sample};
use vitals_wire::sample::Sample;

use crate::config::Labels;

/// Appends each reading to a file when it is first sent: once, with times in ns, the host named as the server names it.
#[derive(Debug)]
pub struct Tee {
    path: PathBuf,
    file: File,
    labels: Labels,
    tags: HostTags,
    lines: Vec<u8>,
    has_failed: bool,
}

impl Tee {
    /// Opens the file, or makes it.
    pub fn open(path: &Path, name: &str, labels: Labels) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let tags = HostTags::new(name, labels.iter());
        Ok(Self { path: path.to_owned(), file, labels, tags, lines: Vec::new(), has_failed: false })
    }

    /// The server calls this host so.
    pub fn set_name(&mut self, name: &str) {
        self.tags = HostTags::new(name, self.labels.iter());
    }

    /// Appends one reading. A file that cannot be written is named once; sending does not depend on it.
    pub fn write(&mut self, sample: &Sample) {
        self.lines.clear();
        write_sample(&mut self.lines, &self.tags, sample);
        match self.file.write_all(&self.lines) {
            Ok(()) => self.has_failed = false,
            Err(error) if !self.has_failed => {
                self.has_failed = true;
                tracing::error!(path = %self.path.display(), error = %error, "cannot write what is sent");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::host::Host;
    use crate::simulate::script::Given;

    #[test]
    fn readings_are_appended_under_the_name_that_the_server_gives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tee");
        let sample = Host::named(1, "x", 5000).sample(1_790_000_000_000, &Given::default());
        let labels: Labels = "env=prod".parse().unwrap();
        let mut tee = Tee::open(&path, "mine", labels.clone()).unwrap();
        tee.set_name("a host");
        tee.write(&sample);
        drop(tee);
        Tee::open(&path, "mine", labels).unwrap().write(&sample);
        let text = std::fs::read_to_string(&path).unwrap();
        let of = |name: &str| {
            text.lines().filter(|line| line.starts_with(&format!("mem,env=prod,host={name} "))).count()
        };
        assert_eq!((of("a\\ host"), of("mine")), (1, 1));
        assert!(text.lines().all(|line| line.ends_with(" 1790000000000000000")));
    }
}
