//! Does the jobs of trust with real files.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use vitals_wire::ids::HostId;

use super::job::{Job, Keep, Outcome};
use super::{Basis, Kept, Pin};
use crate::identity::{Secrets, random};
use crate::link::tls::Pins;

/// What is kept of the servers, by one host or by many.
#[derive(Debug)]
pub struct Shared {
    /// Where; `None` for memory alone.
    path: Option<PathBuf>,
    now: Kept,
    is_written: bool,
    /// What connections check by.
    pins: Arc<Pins>,
}

impl Shared {
    /// Goes on with `kept`; connections check by `pins`, which learn what is learnt.
    pub fn new(path: Option<PathBuf>, kept: Kept, pins: Arc<Pins>) -> Arc<Mutex<Self>> {
        pins.learn(&kept.pins);
        Arc::new(Mutex::new(Self { path, now: kept, is_written: true, pins }))
    }
}

/// Keeps trust and secrets of one host.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Mutex<Shared>>,
    /// The host to remember as taken; `None` where many share the file.
    host: Option<HostId>,
    basis: Basis,
    addresses: Vec<String>,
    secrets: Option<Secrets>,
}

impl Keeper {
    /// Keeps `addresses` as where the servers are and `basis` as how they are known. Without `secrets` no secret changes.
    pub fn new(
        shared: Arc<Mutex<Shared>>,
        host: Option<HostId>,
        basis: Basis,
        addresses: Vec<String>,
        secrets: Option<Secrets>,
    ) -> Self {
        Self { shared, host, basis, addresses, secrets }
    }

    /// What would be in the file once a server that names these keys took this host.
    fn wanted(&self, before: &Kept, pins: Vec<Pin>) -> Kept {
        // Over plain TCP nothing is learnt of whom to trust.
        let by = if self.basis == Basis::Nothing { before.by } else { self.basis };
        Kept { host: self.host, by, addresses: self.addresses.clone(), pins }
    }

    /// Whether the file says already what it would once a server took this host.
    pub fn is_current(&self) -> bool {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.is_written && self.wanted(&shared.now, shared.now.pins.clone()) == shared.now
    }

    fn keep(&self, pins: Vec<Pin>) -> io::Result<()> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // It came over a connection that was checked: it holds for this run, whatever the disk says.
        shared.pins.learn(&pins);
        let wanted = self.wanted(&shared.now, pins);
        if wanted == shared.now && shared.is_written {
            return Ok(());
        }
        shared.now = wanted;
        shared.is_written = false;
        if let Some(path) = &shared.path {
            shared.now.write(path)?;
        }
        shared.is_written = true;
        Ok(())
    }
}

impl Keep for Keeper {
    fn perform(&mut self, job: Job) -> Outcome {
        let no_secrets = || Outcome::Failed { why: "this host's secret does not change".to_owned() };
        match job {
            Job::Keep { pins } => match self.keep(pins) {
                Ok(()) => Outcome::Kept,
                Err(error) => {
                    Outcome::Failed { why: format!("cannot keep what was learnt of the server: {error}") }
                }
            },
            Job::MakeSecret { present } => {
                let Some(secrets) = &self.secrets else { return no_secrets() };
                let made = random().map_err(|error| error.to_string()).and_then(|bytes| {
                    let next = vitals_wire::ids::Secret(bytes);
                    secrets.write(&present, Some(&next)).map_err(|error| error.to_string())?;
                    Ok(next)
                });
                match made {
                    Ok(next) => Outcome::Made(next),
                    Err(why) => Outcome::Failed { why: format!("cannot keep a new secret: {why}") },
                }
            }
            Job::ChangeSecret { to } => {
                let Some(secrets) = &self.secrets else { return no_secrets() };
                match secrets.write(&to, None) {
                    Ok(()) => Outcome::Changed,
                    Err(error) => Outcome::Failed { why: format!("cannot forget the old secret: {error}") },
                }
            }
        }
    }
}
