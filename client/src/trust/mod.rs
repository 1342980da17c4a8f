//! Whom this client trusts: what it was given, and what it has learnt from a server that took it.
//!
//! What was learnt is a file of its own in the state directory, so that losing it costs no identity:
//!
//! ```text
//! vitals-client trust 1
//! host = HEX            who was let in; left out where many hosts share the file
//! by = pins             how the server was known then: pins, ca, roots or none
//! address = HOST:PORT   where servers were, tried in order
//! pin = HEX             SHA-256 of the public keys (SPKI) that the server named last
//! sum = HEX             CRC-32C of all before
//! ```
//!
//! Written as the identity is: a crash leaves the old one or the new one. One that cannot be read is named and moved aside:
//! what was given says the same, or a join token brings it back.

pub mod job;
mod keeper;

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_PINS;
use vitals_wire::token::MAX_ADDRESSES;

use crate::identity::{hex, unhex, write_file};
pub use keeper::{Keeper, Shared};

const FIRST_LINE: &str = "vitals-client trust 1";
/// What is longer is none of ours: sixteen addresses of 255 bytes and four pins are less.
const MAX_FILE_BYTES: usize = 16 << 10;
/// Addresses that are kept: as many as a configuration can name.
const MAX_KEPT_ADDRESSES: usize = if MAX_ADDRESSES > 16 { MAX_ADDRESSES } else { 16 };

/// SHA-256 of a public key: of the certificate's SubjectPublicKeyInfo, in DER. Text form: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin(pub [u8; 32]);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        unhex(text).map(Self).ok_or_else(|| {
            format!("{text:?} is no pin: 64 hexadecimal digits, as `vitals-server cert show` prints them")
        })
    }
}

/// By what a server is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Basis {
    /// Its key.
    Pins,
    /// A certificate from a CA that was named.
    Ca,
    /// A certificate from a CA that the system trusts.
    Roots,
    /// Nothing: the connection is plain TCP.
    #[default]
    Nothing,
}

impl Basis {
    /// The word in files and answers.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pins => "pins",
            Self::Ca => "ca",
            Self::Roots => "roots",
            Self::Nothing => "none",
        }
    }

    /// What holds, in the order of what was given: pins, a CA's file, what was learnt where pins were given then, the
    /// system's roots.
    pub fn of(insecure: bool, has_pins: bool, has_ca: bool, kept: &Kept) -> Self {
        match () {
            () if insecure => Self::Nothing,
            () if has_pins => Self::Pins,
            () if has_ca => Self::Ca,
            () if kept.by == Self::Pins && !kept.pins.is_empty() => Self::Pins,
            () => Self::Roots,
        }
    }
}

/// What was learnt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// The host that a server took; `None` where none was, or many share this.
    pub host: Option<HostId>,
    /// How the server was known when this was learnt.
    pub by: Basis,
    /// Where servers were: `host:port`, tried in order.
    pub addresses: Vec<String>,
    /// The keys that the server named last, ascending.
    pub pins: Vec<Pin>,
}

/// The file in this state directory.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("trust")
}

impl Kept {
    /// Reads what was kept; nothing where there is no file. Changes nothing.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else ([`io::ErrorKind::InvalidData`]).
    pub fn read(path: &Path) -> io::Result<Self> {
        use std::io::Read as _;
        let mut text = String::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(MAX_FILE_BYTES as u64 + 1).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        parse(&text).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
    }

    /// The same for who is to go on in any case: a damaged file is logged and moved aside.
    pub fn open(path: &Path) -> Self {
        match Self::read(path) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let aside = path.with_extension("damaged");
                tracing::warn!(
                    path = %path.display(), reason = %error, moved_to = %aside.display(),
                    "what was learnt of the servers is damaged: going on with what was given"
                );
                if let Err(error) = std::fs::rename(path, &aside) {
                    tracing::warn!(path = %path.display(), %error, "cannot move it aside");
                }
                Self::default()
            }
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "what was learnt of the servers cannot be read: going on with what was given"
                );
                Self::default()
            }
        }
    }

    /// Keeps this, durably; after a crash there is this or what was before. Waits for the disk.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        write_file(dir, path, &self.text())
    }

    fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        // Writing to a text cannot fail.
        if let Some(host) = self.host {
            let _ = writeln!(text, "host = {host}");
        }
        let _ = writeln!(text, "by = {}", self.by.word());
        for address in self.addresses.iter().take(MAX_KEPT_ADDRESSES) {
            let _ = writeln!(text, "address = {address}");
        }
        for pin in self.pins.iter().take(MAX_PINS) {
            let _ = writeln!(text, "pin = {pin}");
        }
        let sum = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "sum = {sum:08x}");
        text
    }
}

fn parse(text: &str) -> Result<Kept, &'static str> {
    if !text.starts_with(FIRST_LINE) {
        return Err("its first line is not that of such a file");
    }
    let at = text.rfind("sum = ").ok_or("it has no sum at its end")?;
    let (body, sum) = text.split_at(at);
    if sum != format!("sum = {:08x}\n", crc32c::crc32c(body.as_bytes())) {
        return Err("its sum is not that of its content");
    }
    let mut kept = Kept::default();
    for line in body.lines().skip(1) {
        let (key, value) = line.split_once(" = ").ok_or("a line of it has no value")?;
        match key {
            "host" => kept.host = Some(value.parse().map_err(|_| "its host id cannot be read")?),
            "by" => {
                let known = [Basis::Pins, Basis::Ca, Basis::Roots, Basis::Nothing];
                let found = known.into_iter().find(|basis| basis.word() == value);
                kept.by = found.ok_or("it does not say by what the server was known")?;
            }
            "address" => kept.addresses.push(value.to_owned()),
            "pin" => kept.pins.push(value.parse().map_err(|_| "a pin of it cannot be read")?),
            // From a later version.
            _ => {}
        }
    }
    kept.pins.sort_unstable();
    kept.pins.dedup();
    Ok(kept)
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
