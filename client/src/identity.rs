//! Who this client is: kept in its state directory, made at its first start.
//!
//! ```text
//! STATE_DIR/           0700
//!   client.lock        locked while a client runs
//!   identity           0600: "vitals-client identity 1", then "host = HEX", "secret = HEX" and, while the server
//!                      changes the secret, "next-secret = HEX"
//!   starts             0600: how often a client was started here, or the clock was set while one ran
//! ```
//!
//! Only a new identity has to be written. With one that is there, a full or read-only disk stops nothing.
//!
//! Files are written beside their place, flushed to the disk and renamed, so that a crash leaves the old one or the
//! new one and never half of one.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vitals_wire::ids::{HostId, RunId, Secret};

const FIRST_LINE: &str = "vitals-client identity 1";
/// An identity takes about 150 bytes; what is longer is none.
const MAX_FILE_BYTES: u64 = 4096;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory or a file in it cannot be used.
    #[error(
        "cannot {what} {}: {error}; name another directory with data_dir, --data-dir or VITALS_DATA_DIR, or make this one usable",
        path.display()
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Another client runs on the directory.
    #[error(
        "{} is locked: another client runs on this directory, here or in a container that shares it, or one is just ending; stop it, \
         or name another directory with data_dir, --data-dir or VITALS_DATA_DIR",
        path.display()
    )]
    InUse {
        /// The file that is locked.
        path: PathBuf,
    },
    /// The identity's file holds something else. Nothing was changed.
    #[error(
        "{} is no identity of this client ({why}): put it back from a backup; without it this host joins as a new one, which a \
         fresh state directory does",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system gives no random bits.
    #[error("no random bits from the system: {0}")]
    Random(io::Error),
}

/// Who this client is. While it exists no other client runs on the directory.
#[derive(Debug)]
pub struct Identity {
    /// The host.
    pub host: HostId,
    /// Its secret.
    pub secret: Secret,
    /// The one that is to take its place, and may have done so at the server.
    pub next_secret: Option<Secret>,
    /// This run.
    pub run: RunId,
    /// How often a client was started on this directory or the clock was set while one ran, this time included. More by
    /// a random number where that cannot be written.
    pub starts: u64,
    /// Whether the identity was made just now.
    pub is_new: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl Identity {
    /// Locks the directory and reads the identity in it; makes what is not there.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |error| IdentityError::Io { what, path, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))?;
        let path = dir.join("identity");
        let lock_path = dir.join("client.lock");
        let lock = open_lock(&lock_path, &path).map_err(failed("open", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => IdentityError::InUse { path: lock_path.clone() },
            TryLockError::Error(error) => failed("lock", &lock_path)(error),
        })?;

        let (host, secret, next_secret, is_new) = match File::open(&path) {
            Ok(file) => {
                keep_private(&file, &path);
                let (host, secret, next_secret) = read_identity(file, &path)?;
                (host, secret, next_secret, false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (host, secret) = (HostId(random()?), Secret(random()?));
                Secrets::of(dir, host).write(&secret, None).map_err(failed("write", &path))?;
                (host, secret, None, true)
            }
            Err(error) => return Err(failed("open", &path)(error)),
        };

        // Only a hint that keeps timestamps of different runs apart: one that cannot be read begins anew.
        let path = dir.join("starts");
        let before = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let mut starts = before.unwrap_or_default().wrapping_add(1);
        if let Err(error) = Starts::of(dir).write(starts) {
            tracing::warn!(path = %dir.display(), %error, "cannot count this start, using a random number");
            let [random] = random()?;
            starts = starts.wrapping_add(u64::from(random));
        }
        Ok(Self { host, secret, next_secret, run: RunId(random()?), starts, is_new, _lock: lock })
    }
}

/// Where a host's secrets are kept.
#[derive(Debug, Clone)]
pub struct Secrets {
    dir: PathBuf,
    host: HostId,
}

impl Secrets {
    /// Of this host, in this state directory.
    pub fn of(dir: &Path, host: HostId) -> Self {
        Self { dir: dir.to_owned(), host }
    }

    /// Keeps the host's secret and the one that is to follow it, durably. Waits for the disk. Only for who holds the
    /// directory's [`Identity`].
    ///
    /// # Errors
    /// Whatever the disk says; then all is as it was.
    pub fn write(&self, secret: &Secret, next: Option<&Secret>) -> io::Result<()> {
        let mut text = format!("{FIRST_LINE}\nhost = {}\nsecret = {}\n", self.host, hex(&secret.0));
        if let Some(next) = next {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "next-secret = {}", hex(&next.0));
        }
        write_file(&self.dir, &self.dir.join("identity"), &text)
    }
}

/// Where [`Identity::starts`] is kept.
#[derive(Debug, Clone)]
pub struct Starts {
    dir: PathBuf,
}

impl Starts {
    /// The one in this state directory.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Keeps the number for the next start. Waits for the disk. Only for who holds the directory's [`Identity`].
    pub fn write(&self, starts: u64) -> io::Result<()> {
        write_file(&self.dir, &self.dir.join("starts"), &format!("{starts}\n"))
    }
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(IdentityError::Random)?;
    Ok(bytes)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// The file to lock. On a disk that takes nothing any more it need not be writable, and the identity serves in its place.
fn open_lock(path: &Path, identity: &Path) -> io::Result<File> {
    private()
        .truncate(false)
        .open(path)
        .or_else(|error| File::open(path).or_else(|_| File::open(identity)).map_err(|_| error))
}

/// Takes away what others may do with the secret.
fn keep_private(file: &File, path: &Path) {
    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others could read this host's secret");
        if let Err(error) = file.set_permissions(std::fs::Permissions::from_mode(0o600)) {
            tracing::warn!(path = %path.display(), %error, "others can still read this host's secret");
        }
    }
}

/// Writes a file so that after a crash there is the old one or the new one.
pub(crate) fn write_file(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let written = write_beside(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        // What is half written is of no use, and takes room on a full disk.
        let _ = std::fs::remove_file(&beside);
    }
    written?;
    File::open(dir)?.sync_all()
}

fn write_beside(beside: &Path, text: &str) -> io::Result<()> {
    let mut file = private().truncate(true).open(beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read_identity(file: File, path: &Path) -> Result<(HostId, Secret, Option<Secret>), IdentityError> {
    let damaged = |why| IdentityError::Damaged { path: path.to_owned(), why };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => damaged("it is not text"),
        _ => IdentityError::Io { what: "read", path: path.to_owned(), error },
    })?;
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(damaged("its first line is not that of an identity"));
    }
    let mut value = |key: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.strip_prefix(" = "))
    };
    let host = value("host").and_then(|hex| hex.parse().ok()).filter(|host| *host != HostId::SERVER);
    let secret = value("secret").and_then(unhex).map(Secret);
    // The server may know only the second one by now: without it this host could not come in.
    let next = match lines.next().map(|line| line.strip_prefix("next-secret = ").and_then(unhex)) {
        Some(None) => return Err(damaged("its next secret cannot be read")),
        next => next.flatten().map(Secret),
    };
    Ok((
        host.ok_or_else(|| damaged("it has no host id"))?,
        secret.ok_or_else(|| damaged("it has no secret"))?,
        next,
    ))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn an_identity_survives_restarts_and_only_its_owner_can_read_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let first = Identity::open(&dir).unwrap();
        assert!(first.is_new);
        let (host, secret, run) = (first.host, first.secret.clone(), first.run);
        drop(first);
        let second = Identity::open(&dir).unwrap();
        assert!(!second.is_new);
        assert_eq!((second.host, &second.secret), (host, &secret));
        assert_ne!(second.run, run, "each run has its own id");
        assert_eq!(second.starts, 2);
        assert_eq!((mode(&dir), mode(&dir.join("identity"))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3, "nothing is left lying about");
    }

    #[test]
    fn two_hosts_share_neither_id_nor_secret() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (Identity::open(a.path()).unwrap(), Identity::open(b.path()).unwrap());
        assert_ne!(a.host, b.host);
        assert_ne!(a.secret, b.secret);
    }

    #[test]
    fn only_one_client_runs_on_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let running = Identity::open(dir.path()).unwrap();
        let error = Identity::open(dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::InUse { .. }));
        assert!(error.to_string().contains("client.lock"), "the server has a `lock` of its own: {error}");
        drop(running);
        assert!(Identity::open(dir.path()).is_ok());
    }

    #[test]
    fn a_secret_that_others_can_read_is_taken_from_them() {
        let dir = tempfile::tempdir().unwrap();
        drop(Identity::open(dir.path()).unwrap());
        let path = dir.path().join("identity");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        drop(Identity::open(dir.path()).unwrap());
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_damaged_identity_is_named_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let host = "0".repeat(32);
        for text in [
            "",
            "x",
            &format!("{FIRST_LINE}\n"),
            &format!("{FIRST_LINE}\nhost = {host}\nsecret = {host}{host}\n"),
            &format!("{FIRST_LINE}\nhost = 1{}\nsecret = {host}\n", &host[1..]),
            &format!("{FIRST_LINE}\nhost = 1{}\nsecret = {host}{host}\nnext-secret = {host}\n", &host[1..]),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Identity::open(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{text:?}: {error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), *text);
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_a_client_only_without_an_identity() {
        let dir = tempfile::tempdir().unwrap();
        // Root may write anywhere; what is a directory takes no text from root either.
        let block = |name: &str| {
            let _ = std::fs::remove_file(dir.path().join(name));
            std::fs::create_dir_all(dir.path().join(name).join("x")).unwrap();
        };
        block("identity.new");
        assert!(matches!(Identity::open(dir.path()), Err(IdentityError::Io { what: "write", .. })));
        std::fs::remove_dir_all(dir.path().join("identity.new")).unwrap();
        let host = Identity::open(dir.path()).unwrap().host;
        block("starts.new");
        block("client.lock");
        let digits: std::collections::HashSet<u64> = (0..50)
            .map(|_| {
                let identity = Identity::open(dir.path()).unwrap();
                assert_eq!((identity.host, identity.is_new), (host, false));
                assert!(matches!(Identity::open(dir.path()), Err(IdentityError::InUse { .. })));
                identity.starts % 10
            })
            .collect();
        assert!(digits.len() > 2, "random, as nothing can be counted: {digits:?}");
    }

    #[test]
    fn a_lost_counter_of_starts_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("starts"), "many").unwrap();
        assert_eq!(Identity::open(dir.path()).unwrap().starts, 1);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Identity::open(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state") && error.contains("VITALS_DATA_DIR"), "{error}");
    }
}
