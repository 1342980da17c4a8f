//! What the server knows of hosts beside their readings: names, labels, facts. Kept in `state.db`, each change on disk
//! before it is acted upon, and held in memory for reading.
//!
//! A host's name and labels are a record with versions. A version holds for a span of time: a new one begins at the
//! later of now and the host's newest committed timestamp + 1 ms, and spans never change. A sample is always written
//! with the version whose span holds its timestamp, so a reader sees it once, also after a resend.

pub mod accounts;
mod admit;
pub mod api_tokens;
pub mod audit;
mod db;
mod host;
mod join;
mod labels;
mod learnt;
pub mod logins;
mod manage;
pub mod password;
pub mod people;
mod rights;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use rusqlite::Transaction;
use tokio::sync::{mpsc, oneshot};
use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_LABELS;
use vitals_wire::line::HostTags;
use vitals_wire::name::NameError;

use accounts::Accounts;
use admit::Change;
pub use admit::{Admitted, Denied};
pub use audit::{Action, Entry};
use db::Db;
pub use host::{FactsRecord, Host, Identity, Version};
use join::Tokens;
pub use join::{JoinRecord, MAX_JOIN_TOKENS, NewJoinToken};
pub use labels::{GivenLabels, Label, Labels, Origin};
pub use manage::{Begins, HostChange, LabelChange};
pub use rights::{Access, Scope};

use crate::secret::NoRandom;

/// Changes that wait for the next transaction.
const QUEUE: usize = 1024;
/// Hosts that can be known: whoever holds a token for many can bring as many new ones.
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
    /// It is not let in.
    #[error("a host is not let in: {0:?}")]
    Denied(Denied),
    /// A host that is not there any more.
    #[error("there is no host {0} any more")]
    Gone(HostId),
    /// Another host has this name.
    #[error("another host is called {0:?}: rename that one first, or choose another name")]
    NameTaken(String),
    /// A name or label that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// More labels than a host can have.
    #[error("a host has at most {MAX_LABELS} labels")]
    TooManyLabels,
    /// A host that had too many names and labels.
    #[error("this host has had so many names and labels that it keeps those that it has")]
    TooManyVersions,
    /// There is no such join token.
    #[error("no join token has the id {0:?}: `vitals-server token list` shows all")]
    NoToken(String),
    /// As many join tokens are kept as may be.
    #[error(
        "{MAX_JOIN_TOKENS} join tokens are kept already: one that expired or was revoked is kept for 30 days"
    )]
    TooManyTokens,
    /// No random bits for a secret.
    #[error(transparent)]
    Random(#[from] NoRandom),
    /// The server is going down.
    #[error("the state is closed")]
    Closed,
}

impl From<Denied> for StateError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<rusqlite::Error> for StateError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// Who holds which name: what each is called, and what it is to be called.
type Names = HashMap<Box<str>, HostId>;

/// All hosts; each is replaced as a whole when it changes.
#[derive(Default)]
struct Known {
    hosts: HashMap<HostId, Arc<Host>>,
    /// The host that stands behind another id that a client says.
    aliases: HashMap<HostId, HostId>,
}

type Hosts = RwLock<Known>;

impl Known {
    fn known_as(&self, client: HostId) -> Option<Arc<Host>> {
        self.hosts.get(self.aliases.get(&client).unwrap_or(&client)).cloned()
    }

    /// Takes in hosts as they are now, and their names.
    fn put(&mut self, names: &mut Names, changed: impl IntoIterator<Item = Arc<Host>>) {
        let changed: Vec<_> = changed.into_iter().collect();
        // All that they held before is free before any is given: two may have swapped.
        for before in changed.iter().filter_map(|host| self.hosts.get(&host.id)) {
            for name in names_of(before) {
                if names.get(name) == Some(&before.id) {
                    names.remove(name);
                }
            }
        }
        for host in changed {
            names.extend(names_of(&host).map(|name| (name.into(), host.id)));
            self.hosts.insert(host.id, host);
        }
    }
}

fn names_of(host: &Host) -> impl Iterator<Item = &str> {
    [host.name()].into_iter().chain(host.given_name.as_deref())
}

/// Work for the thread that writes.
enum Job {
    /// What a host says of itself; many share a transaction.
    Told(Change),
    /// Something that changes hosts or join tokens.
    Act(Box<dyn FnOnce(&mut Writer) + Send>),
    /// Something else, in a transaction of its own.
    Work(Box<dyn FnOnce(&mut Db) + Send>),
}

/// A handle to the state, cheap to clone.
#[derive(Clone)]
pub struct State {
    hosts: Arc<Hosts>,
    accounts: Arc<Accounts>,
    tokens: Arc<Tokens>,
    jobs: mpsc::Sender<Job>,
}

impl State {
    /// Opens `state.db`, making it where it is missing, and starts the thread that writes it. The thread ends when the
    /// last handle is gone.
    pub fn open(path: &Path) -> Result<(Self, JoinHandle<()>), StateError> {
        let mut db = Db::open(path)?;
        let accounts = Arc::new(Accounts::open(path, &mut db)?);
        let mut known = Known { aliases: db.aliases()?.into_iter().collect(), ..Known::default() };
        let mut names = Names::new();
        known.put(&mut names, db.hosts()?.into_iter().map(Arc::new));
        let hosts = Arc::new(RwLock::new(known));
        let tokens = Arc::new(Tokens::default());
        join::keep(&tokens, db.join_tokens()?);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer { db, hosts: hosts.clone(), tokens: tokens.clone(), names };
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| StateError::Disk(error.to_string()))?;
        Ok((Self { hosts, accounts, tokens, jobs }, thread))
    }

    /// Waits until the thread that writes has ended, which it does by itself where something is wrong with it alone.
    pub async fn ended(&self) {
        self.jobs.closed().await;
    }

    /// Does something to hosts or join tokens on the thread that writes, after all that was asked for before.
    async fn act<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Writer) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (done, outcome) = oneshot::channel();
        let act = Box::new(move |writer: &mut Writer| {
            // Whoever asked may be gone; what was done stands all the same.
            let _ = done.send(act(writer));
        });
        self.jobs.send(Job::Act(act)).await.map_err(|_| StateError::Closed)?;
        outcome.await.map_err(|_| StateError::Closed)?
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
        read(&self.hosts).hosts.get(&id).cloned()
    }

    /// A host by its id's text or its present name.
    pub fn find(&self, id_or_name: &str) -> Option<Arc<Host>> {
        if let Some(host) = id_or_name.parse().ok().and_then(|id| self.host(id)) {
            return Some(host);
        }
        read(&self.hosts).hosts.values().find(|host| host.name() == id_or_name).cloned()
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        let mut hosts: Vec<_> = read(&self.hosts).hosts.values().cloned().collect();
        hosts.sort_by(|a, b| a.name().cmp(b.name()));
        hosts
    }

    /// How many hosts are known.
    pub fn count(&self) -> usize {
        read(&self.hosts).hosts.len()
    }

    /// The tags with which a sample of this host and time is written.
    pub fn tags_at(&self, id: HostId, time_ms: i64) -> Option<Arc<HostTags>> {
        read(&self.hosts).hosts.get(&id).map(|host| host.version_at(time_ms).tags.clone())
    }
}

fn read(hosts: &Hosts) -> std::sync::RwLockReadGuard<'_, Known> {
    // Nobody panics while holding it, and maps that were being inserted into are still maps.
    hosts.read().unwrap_or_else(PoisonError::into_inner)
}

/// Owns the database; all changes pass through it, many in one transaction when many hosts come at once.
struct Writer {
    db: Db,
    hosts: Arc<Hosts>,
    tokens: Arc<Tokens>,
    names: Names,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.blocking_recv_many(&mut jobs, QUEUE) > 0 {
            let mut group = Vec::new();
            for job in jobs.drain(..) {
                match job {
                    Job::Told(change) => group.push(change),
                    Job::Act(act) => {
                        self.admit_all(std::mem::take(&mut group));
                        act(&mut self);
                    }
                    Job::Work(work) => {
                        self.admit_all(std::mem::take(&mut group));
                        work(&mut self.db);
                    }
                }
            }
            self.admit_all(group);
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
