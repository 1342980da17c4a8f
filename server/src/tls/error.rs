//! Why the keys of the clients' port cannot be used or changed.

use std::path::PathBuf;

use super::pair::{PairError, Pin};

/// Why keys cannot be used or changed. Each text names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read or written. Nothing has changed.
    #[error("{path}: {error}", path = path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file of our own that is not what it should be. It is left as it is.
    #[error(
        "{path} is damaged: {error}; bring it back from a backup. Without one, move it away: a new key is made at the next \
         start, and clients have to be given new join tokens, because they do not know that key",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        error: PairError,
    },
    /// The announced key is damaged. Today's is not concerned.
    #[error("{path} is damaged: {error}; bring it back from a backup, or remove it and announce another key", path = path.display())]
    NextDamaged {
        /// The file.
        path: PathBuf,
        /// How.
        error: PairError,
    },
    /// Today's key is gone, and not the announced one.
    #[error(
        "{path} is missing, but {next} is there: bring back the former from a backup, or, if all clients have learnt the \
         latter, rename it to the former",
        path = path.display(), next = next.display()
    )]
    Lost {
        /// Today's file.
        path: PathBuf,
        /// The next one's.
        next: PathBuf,
    },
    /// A configured certificate or key that cannot be used.
    #[error("{path} (clients.{what}) cannot be used: {error}", path = path.display())]
    Configured {
        /// Which: `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: PairError,
    },
    /// A configured file that is not there.
    #[error("{path} (clients.{what}) does not exist", path = path.display())]
    Missing {
        /// Which: `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A reload brought a key that clients do not know.
    #[error(
        "{path} has a key that was not announced ({pin}), so clients would not know this server any more; the certificate \
         read before stays in use. Announce it first: vitals-server cert rotate --announce --certificate FILE",
        path = path.display()
    )]
    Unannounced {
        /// The certificate.
        path: PathBuf,
        /// Its pin.
        pin: Pin,
    },
    /// The port speaks plain TCP.
    #[error("clients.insecure is set: the clients' port speaks plain TCP and has no key")]
    Insecure,
    /// There is a next key already.
    #[error("a key is announced already ({0}): switch to it with --switch, or give it up with --abort")]
    Announced(Pin),
    /// There is no next key.
    #[error("no key is announced: vitals-server cert rotate --announce makes one")]
    NoneAnnounced,
    /// The next certificate has to be named.
    #[error(
        "clients.certificate is configured, so the next key is yours to make: announce it with --certificate FILE, its \
         certificate (the key stays where it is)"
    )]
    NotNamed,
    /// A certificate was named where the server makes its own.
    #[error(
        "clients.certificate is not configured: the server makes its next key itself; leave out --certificate"
    )]
    NotConfigured,
    /// What was announced is what is in use.
    #[error("that certificate has the key that is in use already")]
    Same,
    /// What was named is no certificate.
    #[error("what was named cannot be announced: {0}")]
    NoCertificate(PairError),
    /// The next key is not ours to put in place.
    #[error(
        "clients.certificate is configured: put the announced certificate and its key in place of {path} and its key; they \
         are read again within seconds, or at SIGHUP",
        path = path.display()
    )]
    PutInPlace {
        /// The certificate.
        path: PathBuf,
    },
    /// Only the certificate of the next key is there.
    #[error("{path} holds a certificate without its key: --abort, then --announce", path = path.display())]
    NoNextKey {
        /// The file.
        path: PathBuf,
    },
    /// None can be made.
    #[error(transparent)]
    Make(PairError),
    /// rustls does not take it.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}
