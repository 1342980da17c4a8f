//! The keys of the clients' port: today's and the next.
//!
//! Clients know the server by its public key, so a key changes in steps: the next one is made and announced, clients learn
//! it while they are connected or as they come, and when they have, it becomes today's. A server shows one key, today's;
//! who is connected stays so.
//!
//! | file in `<data>/tls/` | what |
//! |---|---|
//! | `clients.pem` | today's certificate and key |
//! | `clients-next.pem` | the next; where a certificate is configured, the next certificate without its key |
//!
//! Announcing writes the second file, switching renames it to the first, giving up removes it: each step is one change of a
//! directory, so a crash leaves the state before or after it. Today's file is never written over by the server itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::UNIX_EPOCH;

use chrono::Utc;
use rustls::ServerConfig;
use tracing::info;
use vitals_wire::bounded::List;
use vitals_wire::limits::MAX_PINS;

pub use super::error::KeysError;
use super::pair::{self, Pair, PairError, Pin};
use super::{accept, files};
use crate::config::Config;
use crate::data_dir::DataDir;

/// The directory of keys within the data directory.
const DIR: &str = "tls";
const TODAY: &str = "clients.pem";
const NEXT: &str = "clients-next.pem";

/// A key by which clients know the server, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The key.
    pub pin: Pin,
    /// Since when its file is there, in ms since 1970.
    pub since_ms: Option<i64>,
}

/// What a reload found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The certificate with the key of before, newly made or not.
    SameKey,
    /// The announced key, which is today's from now on.
    NextKey(Pin),
}

/// The keys of the clients' port. The default has none: plain TCP.
#[derive(Debug, Default)]
pub struct Keys {
    port: Option<Port>,
}

/// Where the port speaks TLS.
#[derive(Debug)]
struct Port {
    dir: PathBuf,
    /// Certificate and key that are configured.
    configured: Option<(PathBuf, PathBuf)>,
    now: RwLock<Now>,
    /// Held while files change.
    changing: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Now {
    today: Shown,
    config: Arc<ServerConfig>,
    next: Option<Next>,
}

#[derive(Debug, Clone)]
struct Next {
    shown: Shown,
    /// The whole of it, where it is here.
    pair: Option<Pair>,
}

impl Keys {
    /// Opens those in the data directory, made where there are none; or takes what the configuration names.
    ///
    /// # Errors
    /// They cannot be read or written.
    pub fn open(config: &Config, data_dir: &DataDir) -> anyhow::Result<Self> {
        let clients = &config.clients;
        if clients.insecure {
            return Ok(Self::default());
        }
        let configured = clients.certificate.clone().zip(clients.key.clone());
        Ok(Self::open_in(data_dir.subdir(DIR)?, configured)?)
    }

    fn open_in(dir: PathBuf, configured: Option<(PathBuf, PathBuf)>) -> Result<Self, KeysError> {
        let mut next = read_next(&dir.join(NEXT))?;
        let (pair, shown) = match &configured {
            Some((certificate, key)) => read_configured(certificate, key)?,
            None => read_today(&dir, next.is_some())?,
        };
        // A crash between taking the next key and forgetting that it was the next.
        if next.as_ref().is_some_and(|next| next.shown.pin == shown.pin) {
            next = None;
        }
        let now = Now { today: shown, config: accept::config(&pair)?, next };
        let port = Port { dir, configured, now: RwLock::new(now), changing: Mutex::default() };
        Ok(Self { port: Some(port) })
    }

    /// SHA-256 of the public keys (SPKI) that clients may see, today's first. Empty where the port speaks plain TCP.
    pub fn pins(&self) -> List<[u8; 32], MAX_PINS> {
        let pins = self.today().into_iter().chain(self.next()).map(|shown| shown.pin.0).collect();
        // Two at most.
        List::new(pins).unwrap_or_else(|_| List::empty())
    }

    /// Today's key; `None` where the port speaks plain TCP.
    pub fn pin(&self) -> Option<[u8; 32]> {
        self.today().map(|shown| shown.pin.0)
    }

    /// Today's key, with its age.
    pub fn today(&self) -> Option<Shown> {
        self.port.as_ref().map(|port| port.now().today)
    }

    /// The announced key, with its age.
    pub fn next(&self) -> Option<Shown> {
        self.port.as_ref().and_then(|port| port.now().next).map(|next| next.shown)
    }

    /// How new connections speak TLS; `None` where they speak plain TCP.
    pub fn server_config(&self) -> Option<Arc<ServerConfig>> {
        self.port.as_ref().map(|port| port.now().config)
    }

    /// The configured certificate and key, where the server does not make its own.
    pub fn configured(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = self.port.as_ref()?.configured.as_ref()?;
        Some((certificate, key))
    }

    /// Makes and announces the next key; where a certificate is configured, announces that of `certificate` (PEM).
    ///
    /// # Errors
    /// One is announced already, `certificate` is missing or too much, or the disk says no.
    pub fn announce(&self, certificate: Option<&str>) -> Result<Pin, KeysError> {
        let port = self.port()?;
        let _changing = port.change();
        let now = port.now();
        if let Some(next) = &now.next {
            return Err(KeysError::Announced(next.shown.pin));
        }
        let path = port.dir.join(NEXT);
        let (pin, pair, text) = match (&port.configured, certificate) {
            (None, None) => {
                let (pair, text) = Pair::make(Utc::now()).map_err(KeysError::Make)?;
                (pair.pin(), Some(pair), text)
            }
            (None, Some(_)) => return Err(KeysError::NotConfigured),
            (Some(_), None) => return Err(KeysError::NotNamed),
            (Some(_), Some(text)) => {
                let pin = pair::pin_of(text.as_bytes()).map_err(KeysError::NoCertificate)?;
                (pin, None, pair::certificates_of(text))
            }
        };
        if pin == now.today.pin {
            return Err(KeysError::Same);
        }
        files::write(&path, &text).map_err(disk(&path))?;
        let shown = Shown { pin, since_ms: age_of(&path) };
        port.set(Now { next: Some(Next { shown, pair }), ..now });
        Ok(pin)
    }

    /// Makes the announced key today's, for connections that come from now on.
    ///
    /// # Errors
    /// None is announced, it is not ours to put in place, or the disk says no.
    pub fn switch(&self) -> Result<Pin, KeysError> {
        let port = self.port()?;
        let _changing = port.change();
        let now = port.now();
        let next = now.next.ok_or(KeysError::NoneAnnounced)?;
        if let Some((certificate, _)) = &port.configured {
            return Err(KeysError::PutInPlace { path: certificate.clone() });
        }
        let (from, to) = (port.dir.join(NEXT), port.dir.join(TODAY));
        let pair = next.pair.ok_or_else(|| KeysError::NoNextKey { path: from.clone() })?;
        let config = accept::config(&pair)?;
        files::rename(&from, &to).map_err(disk(&from))?;
        port.set(Now { today: next.shown.clone(), config, next: None });
        Ok(next.shown.pin)
    }

    /// Gives up the announced key.
    ///
    /// # Errors
    /// None is announced, or the disk says no.
    pub fn abort(&self) -> Result<Pin, KeysError> {
        let port = self.port()?;
        let _changing = port.change();
        let now = port.now();
        let next = now.next.clone().ok_or(KeysError::NoneAnnounced)?;
        let path = port.dir.join(NEXT);
        files::remove(&path).map_err(disk(&path))?;
        port.set(Now { next: None, ..now });
        Ok(next.shown.pin)
    }

    /// Reads the configured certificate and key again, for connections that come from now on.
    ///
    /// # Errors
    /// They cannot be used, or their key was not announced: what was in use stays so.
    pub fn reload(&self) -> Result<Reloaded, KeysError> {
        let port = self.port()?;
        let _changing = port.change();
        let Some((certificate, key)) = &port.configured else { return Ok(Reloaded::SameKey) };
        let (pair, shown) = read_configured(certificate, key)?;
        let now = port.now();
        let config = accept::config(&pair)?;
        if shown.pin == now.today.pin {
            port.set(Now { config, ..now });
            return Ok(Reloaded::SameKey);
        }
        if now.next.as_ref().is_none_or(|next| next.shown.pin != shown.pin) {
            return Err(KeysError::Unannounced { path: certificate.clone(), pin: shown.pin });
        }
        let pin = shown.pin;
        port.set(Now { today: shown, config, next: None });
        // Should this fail: it is today's key all the same, and seen to be at the next start.
        let path = port.dir.join(NEXT);
        files::remove(&path).map_err(disk(&path))?;
        Ok(Reloaded::NextKey(pin))
    }

    fn port(&self) -> Result<&Port, KeysError> {
        self.port.as_ref().ok_or(KeysError::Insecure)
    }
}

impl Port {
    fn now(&self) -> Now {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, now: Now) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn change(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> KeysError {
    let path = path.to_owned();
    move |error| KeysError::Disk { path, error }
}

/// When a file was written, in ms since 1970; a rename leaves that as it is.
fn age_of(path: &Path) -> Option<i64> {
    let written = std::fs::metadata(path).and_then(|file| file.modified()).ok()?;
    i64::try_from(written.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn read_today(dir: &Path, is_next_there: bool) -> Result<(Pair, Shown), KeysError> {
    let path = dir.join(TODAY);
    let pair = match files::read(&path).map_err(disk(&path))? {
        Some(text) => {
            Pair::of(&text, &text).map_err(|error| KeysError::Damaged { path: path.clone(), error })?
        }
        None if is_next_there => return Err(KeysError::Lost { path, next: dir.join(NEXT) }),
        None => {
            let (pair, text) = Pair::make(Utc::now()).map_err(KeysError::Make)?;
            files::write(&path, &text).map_err(disk(&path))?;
            info!(file = %path.display(), pin = %pair.pin(), "made a key for the clients' port");
            pair
        }
    };
    let shown = Shown { pin: pair.pin(), since_ms: age_of(&path) };
    Ok((pair, shown))
}

fn read_next(path: &Path) -> Result<Option<Next>, KeysError> {
    let Some(text) = files::read(path).map_err(disk(path))? else { return Ok(None) };
    let damaged = |error| KeysError::NextDamaged { path: path.to_owned(), error };
    let pair = pair::has_key(&text).then(|| Pair::of(&text, &text)).transpose().map_err(damaged)?;
    let pin = pair.as_ref().map_or_else(|| pair::pin_of(&text), |pair| Ok(pair.pin())).map_err(damaged)?;
    Ok(Some(Next { shown: Shown { pin, since_ms: age_of(path) }, pair }))
}

fn read_configured(certificate: &Path, key: &Path) -> Result<(Pair, Shown), KeysError> {
    let read = |what, path: &Path| {
        files::read(path)
            .map_err(disk(path))?
            .ok_or_else(|| KeysError::Missing { what, path: path.to_owned() })
    };
    let pair = Pair::of(&read("certificate", certificate)?, &read("key", key)?).map_err(|error| {
        let (what, path) = match error {
            PairError::NoCertificate | PairError::NoRandom => ("certificate", certificate),
            PairError::NoKey | PairError::Mismatch => ("key", key),
        };
        KeysError::Configured { what, path: path.to_owned(), error }
    })?;
    let shown = Shown { pin: pair.pin(), since_ms: age_of(certificate) };
    Ok((pair, shown))
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
