//! Lines that InfluxDB refused, kept for a person to look at.
//!
//! `quarantine.lp` in the target's directory is line protocol: before each line stands a comment with the time, the
//! reason, and InfluxDB's own words. A person mends or removes lines and writes the rest with `influx write`, which skips
//! comments.
//!
//! ```text
//! # 2026-11-21T10:00:00.000Z type_conflict: 422 … input field "v" on measurement "m" is type float, already exists as …
//! m,host=web-1 v=1.5 1795255200000000000
//! ```
//!
//! A file that would grow beyond [`MAX_BYTES`] becomes `quarantine.1.lp` in the place of the one before, whose lines are
//! counted as lost. What the disk does not take is counted and logged too, and holds nothing up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::time;

/// Size at which a new file is begun.
pub const MAX_BYTES: u64 = 4 << 20;
/// Entries that wait for the disk.
pub const MAX_WAITING: usize = 4_096;
/// Bytes of a file that are read at most: one line can be long, and it came before the size was looked at.
const MAX_READ_BYTES: u64 = 2 * MAX_BYTES;

/// A line with what InfluxDB said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was refused, in ms since 1970.
    pub time_ms: i64,
    /// One of `metrics::INFLUX_DROPS`.
    pub reason: String,
    /// InfluxDB's own words.
    pub words: String,
    /// The line, without its newline.
    pub line: String,
}

/// The quarantine of one target.
#[derive(Debug, Clone)]
pub struct Quarantine {
    file: PathBuf,
    older: PathBuf,
    max_bytes: u64,
}

impl Quarantine {
    /// That in the target's directory.
    pub fn new(dir: &Path) -> Self {
        Self { file: dir.join("quarantine.lp"), older: dir.join("quarantine.1.lp"), max_bytes: MAX_BYTES }
    }

    /// Appends entries, on disk when this returns, and gives how many of the oldest went for them.
    ///
    /// # Errors
    /// The disk said no: none of them is there.
    pub fn append(&self, entries: &[Entry]) -> io::Result<u64> {
        let mut text = String::new();
        for Entry { time_ms, reason, words, line } in entries {
            let words = words.replace(|c: char| c.is_control(), " ");
            text +=
                &format!("# {} {reason}: {words}\n{}\n", time::format(*time_ms), line.trim_end_matches('\n'));
        }
        let length = fs::metadata(&self.file).map_or(0, |file| file.len());
        let mut lost = 0;
        if length > 0 && length + text.len() as u64 > self.max_bytes {
            lost = self.read_file(&self.older)?.len() as u64;
            fs::rename(&self.file, &self.older)?;
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&self.file)?;
        let end = file.seek(SeekFrom::End(0))?;
        let written = append_whole(&mut file, end, text.as_bytes());
        if written.is_err() {
            // Half a line would spoil the next one. Where even this fails, the next one begins on a line of its own.
            let _ = file.set_len(end);
        }
        written.map(|()| lost)
    }

    /// The newest entries, newest first, after `skip` of them; and how many there are.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn newest(&self, skip: usize, limit: usize) -> io::Result<(Vec<Entry>, usize)> {
        let mut entries = self.read_file(&self.older)?;
        entries.extend(self.read_file(&self.file)?);
        let total = entries.len();
        Ok((entries.into_iter().rev().skip(skip).take(limit).collect(), total))
    }

    fn read_file(&self, file: &Path) -> io::Result<Vec<Entry>> {
        let mut bytes = Vec::new();
        match File::open(file) {
            Ok(file) => file.take(MAX_READ_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(parse(&String::from_utf8_lossy(&bytes)))
    }
}

fn append_whole(file: &mut File, end: u64, text: &[u8]) -> io::Result<()> {
    if end > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    file.write_all(text)?;
    file.sync_data()
}

/// Lines with the comment before them. People edit the file, so what has no comment of ours has no reason either.
fn parse(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut about = None;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(comment) = line.strip_prefix('#') {
            about = parse_comment(comment);
            continue;
        }
        let (time_ms, reason, words) = about.take().unwrap_or_default();
        entries.push(Entry { time_ms, reason, words, line: line.to_owned() });
    }
    entries
}

fn parse_comment(comment: &str) -> Option<(i64, String, String)> {
    let (time, rest) = comment.trim_start().split_once(' ')?;
    let (reason, words) = rest.split_once(": ")?;
    Some((time::parse(time).ok()?, reason.to_owned(), words.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: i64) -> Entry {
        Entry {
            time_ms: 1_767_225_600_000 + n,
            reason: "type_conflict".to_owned(),
            words: format!("422 no: {n}"),
            line: format!("m,host=a\\ b v={n} {n}"),
        }
    }

    #[test]
    fn entries_are_line_protocol_with_comments_and_read_back_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(dir.path());
        assert_eq!(quarantine.newest(0, 10).unwrap(), (vec![], 0));
        quarantine.append(&[entry(1), entry(2)]).unwrap();
        quarantine.append(&[entry(3)]).unwrap();
        assert_eq!(quarantine.newest(1, 1).unwrap(), (vec![entry(2)], 3));
        let text = std::fs::read_to_string(dir.path().join("quarantine.lp")).unwrap();
        assert!(
            text.starts_with("# 2026-01-01T00:00:00.001Z type_conflict: 422 no: 1\nm,host=a\\ b v=1 1\n# "),
            "{text}"
        );
    }

    #[test]
    fn words_of_several_lines_stay_one_comment_and_a_persons_own_lines_are_listed_too() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(dir.path());
        std::fs::write(dir.path().join("quarantine.lp"), "# my note\n\nm v=1 1\ntorn v=").unwrap();
        quarantine.append(&[Entry { words: "a\nm v=2".to_owned(), ..entry(5) }]).unwrap();
        let (entries, total) = quarantine.newest(0, 10).unwrap();
        assert_eq!(total, 3);
        assert_eq!((entries[0].words.as_str(), &entries[0].line), ("a m v=2", &entry(5).line));
        assert_eq!((entries[1].line.as_str(), entries[2].line.as_str()), ("torn v=", "m v=1 1"));
        assert_eq!(entries[2].reason, "");
    }

    #[test]
    fn what_falls_out_of_a_full_quarantine_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine { max_bytes: 1_000, ..Quarantine::new(dir.path()) };
        let mut lost = 0;
        for n in 0..100 {
            lost += quarantine.append(&[entry(n)]).unwrap();
        }
        let (entries, total) = quarantine.newest(0, 1_000).unwrap();
        assert!(lost > 0 && total > 10);
        assert_eq!(total as u64 + lost, 100);
        assert_eq!(entries[0], entry(99));
        assert!(std::fs::metadata(dir.path().join("quarantine.1.lp")).unwrap().len() <= 1_000);
    }

    #[test]
    fn a_disk_that_takes_nothing_is_an_error_and_leaves_nothing_in_part() {
        let quarantine =
            Quarantine { file: "/dev/full".into(), ..Quarantine::new(Path::new("/nonexistent")) };
        assert!(quarantine.append(&[entry(1)]).is_err());
        assert!(Quarantine::new(Path::new("/nonexistent")).append(&[entry(1)]).is_err());
    }
}
