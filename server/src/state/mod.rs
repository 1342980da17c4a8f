//! What the server knows of hosts beside their readings: names, labels, facts. Kept in `state.db`, each change on disk
//! before it is acted upon, and held in memory for reading.
//!
//! A host's name and labels are a record with versions. A version holds for a span of time: a new one begins at the
//! later of now and the host's newest committed timestamp + 1 ms, and spans never change. A sample is always written
//! with the version whose span holds its timestamp, so a reader sees it once, also after a resend.

pub mod accounts;
pub mod api_tokens;
pub mod audit;
mod db;
mod host;
mod learnt;
pub mod logins;
pub mod password;
pub mod people;
mod rights;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use rusqlite::Transaction;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;
use vitals_wire::ids::HostId;
use vitals_wire::line::HostTags;
use vitals_wire::message::Hello;

use accounts::Accounts;
pub use audit::{Action, Entry};
use db::Db;
pub use host::{FactsRecord, Host, Version};
pub use rights::{Access, Scope};

/// Changes that wait for the next transaction.
const QUEUE: usize = 1024;
/// Hosts that can be known: anybody who reaches the clients' port can bring a new one.
pub const MAX_HOSTS: usize = 50_000;

/// Why the state cannot be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// SQLite or the disk said no. Nothing was changed; trying again later makes sense.
    #[error("state.db: {0}")]
    Disk(String),
    /// A file of a newer version.
    #[error(
        "state.db was written by a newer version of Vitals (schema {found}, this one knows {known}): run that version, or a newer one"
    )]
    Newer {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// As many hosts are known as may be.
    #[error("{MAX_HOSTS} hosts are known already, and no more can be taken in")]
    TooManyHosts,
    /// The server is going down.
    #[error("the state is closed")]
    Closed,
}

impl From<rusqlite::Error> for StateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// All hosts by id; each is replaced as a whole when it changes.
type Hosts = RwLock<HashMap<HostId, Arc<Host>>>;

/// A change that waits for its transaction.
struct Change {
    hello: Box<Hello>,
    now_ms: i64,
    newest_ms: Option<i64>,
    done: oneshot::Sender<Result<Arc<Host>, StateError>>,
}

/// Work for the thread that writes.
enum Job {
    /// What a host says of itself; many share a transaction.
    Told(Change),
    /// Something else, in a transaction of its own.
    Work(Box<dyn FnOnce(&mut Db) + Send>),
}

/// A handle to the state, cheap to clone.
#[derive(Clone)]
pub struct State {
    hosts: Arc<Hosts>,
    accounts: Arc<Accounts>,
    jobs: mpsc::Sender<Job>,
}

impl State {
    /// Opens `state.db`, making it where it is missing, and starts the thread that writes it. The thread ends when the
    /// last handle is gone.
    pub fn open(path: &Path) -> Result<(Self, JoinHandle<()>), StateError> {
        let mut db = Db::open(path)?;
        let accounts = Arc::new(Accounts::open(path, &mut db)?);
        let hosts: Hosts =
            RwLock::new(db.hosts()?.into_iter().map(|host| (host.id, Arc::new(host))).collect());
        let names = read(&hosts).values().map(|host| (host.name().into(), host.id)).collect();
        let hosts = Arc::new(hosts);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer { db, hosts: hosts.clone(), names };
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| StateError::Disk(error.to_string()))?;
        Ok((Self { hosts, accounts, jobs }, thread))
    }

    /// The record of a host whose `Hello` says nothing new.
    pub fn as_told(&self, hello: &Hello) -> Option<Arc<Host>> {
        self.host(hello.host).filter(|host| host.is_as_told(hello))
    }

    /// Takes in what a host says of itself, and gives its record once that is on disk. `newest_ms` is the time of its
    /// newest committed sample.
    pub async fn admit(
        &self,
        hello: Hello,
        now_ms: i64,
        newest_ms: Option<i64>,
    ) -> Result<Arc<Host>, StateError> {
        if let Some(host) = self.as_told(&hello) {
            return Ok(host);
        }
        // A disk that takes no more must not keep out a host that is only told to have other facts.
        let known = self.host(hello.host).filter(|host| host.is_called_the_same(&hello));
        let (done, outcome) = oneshot::channel();
        let change = Change { hello: Box::new(hello), now_ms, newest_ms, done };
        self.jobs.send(Job::Told(change)).await.map_err(|_| StateError::Closed)?;
        match (outcome.await.map_err(|_| StateError::Closed)?, known) {
            (Err(StateError::Disk(error)), Some(known)) => {
                warn!(host = known.name(), error, "what a host says of itself cannot be kept now");
                Ok(known)
            }
            (outcome, _) => outcome,
        }
    }

    /// Runs `work` on the thread that writes, after all that was asked for before, in a transaction of its own; it is on disk
    /// when this gives `Ok`.
    async fn transaction<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        self.transaction_then(work, |_| ()).await
    }

    /// The same, and runs `then` on that thread once it is on disk, before any later work: what is held in memory follows in
    /// the order of the transactions, also when whoever asked is gone.
    async fn transaction_then<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StateError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, StateError> {
        let (done, outcome) = oneshot::channel();
        let work = Box::new(move |db: &mut Db| {
            let outcome = db.transaction(work);
            if let Ok(done) = &outcome {
                then(done);
            }
            // Whoever asked may be gone; what was done stands all the same.
            let _ = done.send(outcome);
        });
        self.jobs.send(Job::Work(work)).await.map_err(|_| StateError::Closed)?;
        outcome.await.map_err(|_| StateError::Closed)?
    }

    /// A host by its id.
    pub fn host(&self, id: HostId) -> Option<Arc<Host>> {
        read(&self.hosts).get(&id).cloned()
    }

    /// A host by its id's text or its present name.
    pub fn find(&self, id_or_name: &str) -> Option<Arc<Host>> {
        if let Some(host) = id_or_name.parse().ok().and_then(|id| self.host(id)) {
            return Some(host);
        }
        read(&self.hosts).values().find(|host| host.name() == id_or_name).cloned()
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let mut hosts: Vec<_> = read(&self.hosts).values().cloned().collect();
        hosts.sort_by(|a, b| a.name().cmp(b.name()));
        hosts
    }

    /// The tags with which a sample of this host and time is written.
    pub fn tags_at(&self, id: HostId, time_ms: i64) -> Option<Arc<HostTags>> {
        read(&self.hosts).get(&id).map(|host| host.version_at(time_ms).tags.clone())
    }
}

fn read(hosts: &Hosts) -> std::sync::RwLockReadGuard<'_, HashMap<HostId, Arc<Host>>> {
    // Nobody panics while holding it, and a map that was being inserted into is still a map.
    hosts.read().unwrap_or_else(PoisonError::into_inner)
}

/// Owns the database; all changes pass through it, many in one transaction when many hosts come at once.
struct Writer {
    db: Db,
    hosts: Arc<Hosts>,
    /// Who holds which name now.
    names: HashMap<Box<str>, HostId>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.blocking_recv_many(&mut jobs, QUEUE) > 0 {
            let mut group = Vec::new();
            for job in jobs.drain(..) {
                match job {
                    Job::Told(change) => group.push(change),
                    Job::Work(work) => {
                        self.commit(std::mem::take(&mut group));
                        work(&mut self.db);
                    }
                }
            }
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Vec<Change>) {
        if group.is_empty() {
            return;
        }
        let mut changed: HashMap<HostId, Arc<Host>> = HashMap::new();
        // Names given within this group count too, as soon as they are given.
        let mut given: HashMap<Box<str>, HostId> = HashMap::new();
        let mut answers = Vec::with_capacity(group.len());
        for change in group {
            let id = change.hello.host;
            let known = changed.get(&id).cloned().or_else(|| read(&self.hosts).get(&id).cloned());
            if known.is_none() && read(&self.hosts).len() + changed.len() >= MAX_HOSTS {
                let _ = change.done.send(Err(StateError::TooManyHosts));
                continue;
            }
            let is_free =
                |name: &str| given.get(name).or(self.names.get(name)).is_none_or(|holder| *holder == id);
            let host = Host::told(known.as_deref(), &change.hello, change.now_ms, change.newest_ms, is_free);
            let host = Arc::new(host);
            given.insert(host.name().into(), id);
            changed.insert(id, host.clone());
            answers.push((change.done, host));
        }
        let outcome = self.db.write(changed.values().map(|host| &**host));
        if outcome.is_ok() {
            let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
            for (id, host) in changed {
                if let Some(before) = hosts.get(&id) {
                    self.names.remove(before.name());
                }
                hosts.insert(id, host);
            }
            self.names.extend(
                given
                    .into_iter()
                    .filter(|(name, id)| hosts.get(id).is_some_and(|host| *host.name() == **name)),
            );
        }
        for (done, host) in answers {
            // Whoever asked may be gone; the change stands all the same.
            let _ = done.send(outcome.clone().map(|()| host));
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
