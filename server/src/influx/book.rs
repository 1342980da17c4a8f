//! What a target is owed, on disk: a small text file that is replaced as a whole.
//!
//! One JSON object a line: a head with the format's version and the place in the journal that history must have come to;
//! the spans of all hosts; how far the oldest slice of them has come; the spans of single hosts; and a last line with
//! the CRC32C of all bytes before it.
//!
//! ```text
//! {"what":"owed","version":1,"segment":7,"offset":0}
//! {"what":"all_hosts","from_ms":1795255200000,"to_ms":1795258800000,"from":"2026-11-21T10:00:00.000Z","to":"2026-11-21T11:00:00.000Z"}
//! {"what":"host","host":"0f8f…","from_ms":…,"to_ms":…,"from":"…","to":"…"}
//! {"what":"end","crc32c":"1a2b3c4d"}
//! ```
//!
//! A damaged file could have meant anything, so all that history holds is owed then, and the file is kept beside the new
//! one as `owed.damaged`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vitals_wire::ids::HostId;
use vitals_wire::log::{Fs, Position};

use super::owed::{Owed, Slice, Span, Stretch};
use crate::time;

const VERSION: u32 = 1;
/// The end of whatever journal is opened next: see [`Book::limit_needs`].
pub const JOURNAL_END: Position = Position { segment: u64::MAX, offset: u64::MAX };

/// Why there is no list to go on from.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The file cannot be read or made. Nothing was changed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A later version wrote it. Nothing was changed; that version, or a later one, can go on with it.
    #[error("written by a newer version of Vitals (version {0}, this one knows {VERSION})")]
    Newer(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Owed { version: u32, segment: u64, offset: u64 },
    AllHosts { from_ms: i64, to_ms: i64, from: String, to: String },
    Slice { to_ms: i64, host: String, host_from_ms: i64 },
    Host { host: String, from_ms: i64, to_ms: i64, from: String, to: String },
    End { crc32c: String },
}

/// The list of one target, in memory and on disk. Shared by its writer and the commands.
#[derive(Debug)]
pub struct Book {
    fs: Arc<dyn Fs>,
    file: PathBuf,
    /// Held while the file is written; the list itself is free meanwhile.
    saving: Mutex<()>,
    now: Mutex<Page>,
}

#[derive(Debug)]
struct Page {
    owed: Owed,
    is_saved: bool,
}

impl Book {
    /// Reads the list, and whether there was one. A damaged one is replaced by one that owes `everything`.
    ///
    /// # Errors
    /// See [`BookError`].
    pub fn open(fs: Arc<dyn Fs>, file: PathBuf, everything: Span) -> Result<(Self, bool), BookError> {
        let (owed, existed, is_saved) = match fs.read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Owed::new(), false, true),
            Err(error) => return Err(error.into()),
            Ok(bytes) => match decode(&bytes) {
                Ok(owed) => (owed, true, true),
                Err(Some(version)) => return Err(BookError::Newer(version)),
                Err(None) => {
                    tracing::error!(
                        file = %file.display(),
                        from = time::format(everything.from_ms),
                        "the list of what influxdb is owed is damaged: it is owed all that history holds"
                    );
                    // For whoever wants to look; the next line does not depend on it.
                    let _ = fs.replace(&file.with_extension("damaged"), &bytes);
                    let mut stretch = Stretch::new();
                    stretch.add_all(everything);
                    let mut owed = Owed::new();
                    // The newest of it may be in the journal alone.
                    owed.owe(&stretch, JOURNAL_END);
                    (owed, true, false)
                }
            },
        };
        let book = Self { fs, file, saving: Mutex::new(()), now: Mutex::new(Page { owed, is_saved }) };
        Ok((book, existed))
    }

    /// What is owed now.
    pub fn owed(&self) -> Owed {
        self.page().owed.clone()
    }

    /// Looks at what is owed.
    pub fn look<T>(&self, look: impl FnOnce(&Owed) -> T) -> T {
        look(&self.page().owed)
    }

    /// Owes more; on disk when this returns. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The file cannot be written: nothing more is owed than before.
    pub fn owe(&self, stretch: &Stretch, needs: Position) -> io::Result<()> {
        let _saving = lock(&self.saving);
        let mut owed = self.owed();
        owed.owe(stretch, needs);
        self.fs.replace(&self.file, encode(&owed).as_bytes())?;
        // Progress made meanwhile stays: the file is a little behind it.
        self.page().owed.owe(stretch, needs);
        Ok(())
    }

    /// Owes more in memory, where the disk has to wait for [`Book::save`].
    pub fn owe_unsaved(&self, stretch: &Stretch, needs: Position) {
        let mut page = self.page();
        page.owed.owe(stretch, needs);
        page.is_saved = false;
    }

    /// Takes over a state that `filler` has come to, if nothing was added since it began.
    pub fn filled(&self, then: Owed) {
        let mut page = self.page();
        if page.owed.generation() == then.generation() {
            page.owed = then;
            page.is_saved = false;
        }
    }

    /// A journal that begins anew never comes to where the one before was, and none to [`JOURNAL_END`]: to be called
    /// with the end of the one that was opened.
    pub fn limit_needs(&self, end: Position) {
        self.page().owed.limit_needs(end);
    }

    /// Whether the file is behind.
    pub fn is_saved(&self) -> bool {
        self.page().is_saved
    }

    /// Writes the file, also where nothing is owed. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// The file cannot be written: the one before is still there.
    pub fn save(&self) -> io::Result<()> {
        let _saving = lock(&self.saving);
        let owed = self.owed();
        self.fs.replace(&self.file, encode(&owed).as_bytes())?;
        let mut page = self.page();
        page.is_saved = page.owed == owed;
        Ok(())
    }

    /// Where it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        lock(&self.now)
    }
}

// Nobody panics while holding one, and each change is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode(owed: &Owed) -> String {
    let Position { segment, offset } = owed.needs;
    let mut lines = vec![Line::Owed { version: VERSION, segment, offset }];
    let all = owed.stretch.all().iter();
    lines.extend(all.map(|Span { from_ms, to_ms }| Line::AllHosts {
        from_ms: *from_ms,
        to_ms: *to_ms,
        from: time::format(*from_ms),
        to: time::format(*to_ms),
    }));
    lines.extend(owed.slice.map(|slice| Line::Slice {
        to_ms: slice.to_ms,
        host: slice.host.to_string(),
        host_from_ms: slice.host_from_ms,
    }));
    for (host, spans) in owed.stretch.hosts() {
        lines.extend(spans.iter().map(|Span { from_ms, to_ms }| Line::Host {
            host: host.to_string(),
            from_ms: *from_ms,
            to_ms: *to_ms,
            from: time::format(*from_ms),
            to: time::format(*to_ms),
        }));
    }
    let mut text = String::new();
    let write = |text: &mut String, line: &Line| {
        // Plain texts and numbers always serialize; an empty line would be found when it is read.
        text.push_str(&serde_json::to_string(line).unwrap_or_default());
        text.push('\n');
    };
    lines.iter().for_each(|line| write(&mut text, line));
    let crc32c = format!("{:08x}", crc32c::crc32c(text.as_bytes()));
    write(&mut text, &Line::End { crc32c });
    text
}

/// `Err(Some(version))` for a later version's file, `Err(None)` for a damaged one.
fn decode(bytes: &[u8]) -> Result<Owed, Option<u32>> {
    let text = std::str::from_utf8(bytes).map_err(|_| None)?;
    // Told before the rest, which a later version may write otherwise.
    let head: serde_json::Value =
        text.lines().next().and_then(|head| serde_json::from_str(head).ok()).ok_or(None)?;
    match (head["what"].as_str(), head["version"].as_u64()) {
        (Some("owed"), Some(version)) if version == u64::from(VERSION) => {}
        (Some("owed"), Some(version)) if version > u64::from(VERSION) => {
            return Err(Some(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        _ => return Err(None),
    }
    let end = text.strip_suffix('\n').and_then(|text| text.rfind('\n')).ok_or(None)? + 1;
    let (lines, end) = text.split_at(end);
    let Ok(Line::End { crc32c }) = serde_json::from_str(end) else { return Err(None) };
    if crc32c != format!("{:08x}", crc32c::crc32c(lines.as_bytes())) {
        return Err(None);
    }
    let mut owed = Owed::new();
    let id = |text: String| text.parse::<HostId>().map_err(|_| None);
    for line in lines.lines() {
        match serde_json::from_str(line).map_err(|_| None)? {
            Line::Owed { segment, offset, .. } => owed.needs = Position { segment, offset },
            Line::AllHosts { from_ms, to_ms, .. } => owed.stretch.add_all(Span { from_ms, to_ms }),
            Line::Slice { to_ms, host, host_from_ms } => {
                owed.slice = Some(Slice { to_ms, host: id(host)?, host_from_ms });
            }
            Line::Host { host, from_ms, to_ms, .. } => {
                owed.stretch.add_host(id(host)?, Span { from_ms, to_ms });
            }
            Line::End { .. } => return Err(None),
        }
    }
    Ok(owed)
}

#[cfg(test)]
mod tests {
    use vitals_wire::log::RealFs;

    use super::*;

    const EVERYTHING: Span = Span { from_ms: 5, to_ms: 500 };
    const NEEDS: Position = Position { segment: 3, offset: 9 };

    fn stretch() -> Stretch {
        let mut stretch = Stretch::new();
        stretch.add_all(Span { from_ms: 0, to_ms: 1_000 });
        stretch.add_all(Span { from_ms: 500_000, to_ms: 501_000 });
        stretch.add_host(HostId([7; 16]), Span { from_ms: -5, to_ms: 5 });
        stretch
    }

    fn open(file: &Path) -> (Book, bool) {
        Book::open(Arc::new(RealFs), file.to_owned(), EVERYTHING).unwrap()
    }

    #[test]
    fn what_is_owed_and_how_far_it_is_filled_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("owed");
        let (book, existed) = open(&file);
        assert!(!existed && book.owed().is_empty());
        book.owe(&stretch(), NEEDS).unwrap();
        let (book, existed) = open(&file);
        assert!(existed);
        assert_eq!((book.owed().stretch(), book.owed().needs()), (&stretch(), NEEDS));
        let mut then = book.owed();
        let hosts = [HostId([1; 16]), HostId([2; 16])];
        for _ in 0..2 {
            let chunk = then.next(&hosts).unwrap();
            then.written(&chunk, None);
        }
        book.filled(then.clone());
        assert!(!book.is_saved());
        book.save().unwrap();
        assert!(book.is_saved());
        let (again, _) = open(&file);
        assert_eq!(again.owed().next(&hosts).unwrap().host, hosts[1]);
        assert_eq!((again.owed().stretch(), again.owed().slice), (then.stretch(), then.slice));
        assert!(std::fs::read_to_string(&file).unwrap().contains("1970-01-01T00:08:20.000Z"));
    }

    #[test]
    fn a_state_that_was_filled_before_something_was_added_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (book, _) = open(&dir.path().join("owed"));
        book.owe(&stretch(), NEEDS).unwrap();
        let then = Owed { stretch: Stretch::new(), ..book.owed() };
        book.owe_unsaved(&stretch(), NEEDS);
        book.filled(then);
        assert_eq!(book.owed().stretch(), &stretch());
    }

    #[test]
    fn any_damage_owes_everything_and_a_newer_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("owed");
        let mut owed = Owed::new();
        owed.owe(&stretch(), NEEDS);
        let good = encode(&owed);
        assert_eq!(decode(good.as_bytes()).unwrap().stretch, owed.stretch);
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] ^= 1;
            // The version itself may become that of a newer one.
            assert!(decode(&bad).is_err(), "byte {at}");
            assert!(decode(&good.as_bytes()[..at]).is_err(), "{at} bytes");
        }
        std::fs::write(&file, &good[..good.len() - 9]).unwrap();
        let (book, _) = open(&file);
        assert_eq!(book.owed().stretch().all(), [EVERYTHING]);
        assert!(!book.is_saved() && dir.path().join("owed.damaged").exists());
        assert_eq!(book.owed().needs(), JOURNAL_END);
        book.save().unwrap();
        let (book, _) = open(&file);
        book.limit_needs(NEEDS);
        assert_eq!(book.owed().needs(), NEEDS, "what the journal holds is waited for, and no more");
        std::fs::write(&file, good.replace("\"version\":1", "\"version\":2")).unwrap();
        let newer = Book::open(Arc::new(RealFs), file.clone(), EVERYTHING);
        assert!(matches!(newer, Err(BookError::Newer(2))));
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_the_list_as_it_was() {
        let (book, _) = open(Path::new("/nonexistent/owed"));
        assert!(book.owe(&stretch(), NEEDS).is_err());
        assert!(book.owed().is_empty());
        book.owe_unsaved(&stretch(), NEEDS);
        assert!(book.save().is_err() && !book.is_saved());
        assert_eq!(book.owed().stretch(), &stretch());
    }
}
