//! Who is let in: one decision, made in memory for hosts that say nothing new, and again by the thread that writes for
//! those that join or change, where it counts.
//!
//! Joining is idempotent: from the commit on the host is known by its secret, so one whose connection was cut before the
//! answer comes again as a known host and uses its token no second time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use rusqlite::Transaction;
use tokio::sync::oneshot;
use tracing::{info, warn};
use vitals_wire::ids::HostId;
use vitals_wire::message::Hello;
use vitals_wire::token::JoinToken;

use super::audit::{self, Action, By};
use super::host::{Host, Identity, free_name};
use super::join::{self, JoinRecord};
use super::{Job, MAX_HOSTS, State, StateError, Writer, db, read};
use crate::secret::Digest;

/// Why a host is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denied {
    /// It is not known, and shows no token.
    NotEnrolled,
    /// Its secret is another than the one that it joined with.
    Credential,
    /// Another machine has taken its place.
    Replaced,
    /// It was revoked.
    Revoked,
    /// No such token, or one that was forgotten.
    TokenUnknown,
    /// The token's time is over.
    TokenExpired,
    /// The token has let in as many hosts as it may.
    TokenUsedUp,
    /// The token has let in this very host, which was removed since.
    TokenSpent,
    /// The token was revoked.
    TokenRevoked,
}

/// A host that is let in.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Its record.
    pub host: Arc<Host>,
    /// It took the place of another machine, whose connection is to end.
    pub replaced: bool,
}

/// How a host comes in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way {
    /// By its secret, or by the one that it said it will use next.
    Known { is_next: bool },
    /// By a token.
    Joins(Arc<JoinRecord>),
}

/// Decides who is let in. `host` is the record that stands for the id in `hello`, `token` the one whose secret it shows.
pub(super) fn judge(
    hello: &Hello,
    host: Option<&Host>,
    token: Option<Arc<JoinRecord>>,
    now_ms: i64,
) -> Result<Way, Denied> {
    let identity = host.map(|host| (host, host.identity_of(&hello.secret)));
    if let Some((host, identity)) = identity {
        let is_right = matches!(identity, Identity::Present | Identity::Next);
        // An administrator has said that whoever shows this token is that host from now on.
        if let Some(token) = token.as_ref().filter(|token| token.replaces == Some(host.id))
            && (!is_right || host.revoked_ms.is_some())
            && token.check(now_ms).is_ok()
        {
            return Ok(Way::Joins(token.clone()));
        }
        match identity {
            // Before anything of the host is told: who does not know the secret learns nothing.
            Identity::Wrong if host.client != hello.host => return Err(Denied::Replaced),
            Identity::Wrong => return Err(Denied::Credential),
            _ if host.revoked_ms.is_some() => return Err(Denied::Revoked),
            Identity::Present | Identity::Next => {
                return Ok(Way::Known { is_next: identity == Identity::Next });
            }
            // It was known before there were secrets.
            Identity::None => {}
        }
    }
    match (token, &hello.token) {
        (Some(token), _) => token.check(now_ms).map(|()| Way::Joins(token)),
        (None, Some(_)) => Err(Denied::TokenUnknown),
        (None, None) => Err(Denied::NotEnrolled),
    }
}

/// A change that waits for its transaction.
pub(super) struct Change {
    hello: Box<Hello>,
    from: Box<str>,
    now_ms: i64,
    newest_ms: Option<i64>,
    done: oneshot::Sender<Result<Admitted, StateError>>,
}

impl State {
    /// The host for which this client speaks: its own id, the host whose place it has taken, or the one that its token
    /// gives it.
    pub fn speaks_for(&self, hello: &Hello) -> HostId {
        if let Some(host) = self.known_as(hello.host) {
            return host.id;
        }
        self.token_of(hello).and_then(|token| token.replaces).unwrap_or(hello.host)
    }

    fn known_as(&self, client: HostId) -> Option<Arc<Host>> {
        read(&self.hosts).known_as(client)
    }

    fn token_of(&self, hello: &Hello) -> Option<Arc<JoinRecord>> {
        self.join_token(&JoinToken::heard(hello.token.as_deref()?)?)
    }

    /// Lets in a host that is known and says nothing new, without the disk. `Ok(None)`: that takes [`State::admit`].
    ///
    /// # Errors
    /// It is not let in.
    pub fn admit_known(&self, hello: &Hello, now_ms: i64) -> Result<Option<Arc<Host>>, Denied> {
        let host = self.known_as(hello.host);
        let way = judge(hello, host.as_deref(), self.token_of(hello), now_ms)?;
        let is_old = way == Way::Known { is_next: false };
        Ok(host.filter(|host| is_old && host.is_as_told(hello)))
    }

    /// Lets in a host, and gives its record once that is on disk. `newest_ms` is the time of the newest committed sample
    /// of the host that it [speaks for](State::speaks_for), `from` its address.
    ///
    /// # Errors
    /// It is not let in, or its record cannot be written.
    pub async fn admit(
        &self,
        hello: Hello,
        from: &str,
        now_ms: i64,
        newest_ms: Option<i64>,
    ) -> Result<Admitted, StateError> {
        if let Some(host) = self.admit_known(&hello, now_ms)? {
            return Ok(Admitted { host, replaced: false });
        }
        // A disk that takes no more must not keep out a host that is only told to have other facts, or to use its next
        // secret: that one holds too.
        let known = self.known_as(hello.host).filter(|host| {
            let is_known = matches!(judge(&hello, Some(host), None, now_ms), Ok(Way::Known { .. }));
            is_known && host.is_called_the_same(&hello)
        });
        let (done, outcome) = oneshot::channel();
        let change = Change { hello: Box::new(hello), from: from.into(), now_ms, newest_ms, done };
        self.jobs.send(Job::Told(change)).await.map_err(|_| StateError::Closed)?;
        match (outcome.await.map_err(|_| StateError::Closed)?, known) {
            (Err(StateError::Disk(error)), Some(host)) => {
                warn!(host = host.name(), error, "what a host says of itself cannot be kept now");
                Ok(Admitted { host, replaced: false })
            }
            (outcome, _) => outcome,
        }
    }
}

/// What a group of changes leads to, before it is on disk.
#[derive(Default)]
struct Draft {
    hosts: HashMap<HostId, Arc<Host>>,
    aliases: HashMap<HostId, HostId>,
    tokens: HashMap<Digest, Arc<JoinRecord>>,
    /// Names given within this group count too, as soon as they are given.
    names: HashMap<Box<str>, HostId>,
    said: Vec<(By, Action, String, String)>,
}

impl Writer {
    /// Takes in what hosts say, all in one transaction.
    pub(super) fn admit_all(&mut self, group: Vec<Change>) {
        if group.is_empty() {
            return;
        }
        let mut draft = Draft::default();
        let mut answers = Vec::with_capacity(group.len());
        let Self { db, hosts, tokens, names } = self;
        let outcome = db.transaction(|tx| {
            for change in group {
                let known = |id| read(hosts).hosts.get(&id).cloned();
                let alias = |id| read(hosts).aliases.get(&id).copied();
                let token = |digest: &Digest| join::read(tokens).get(digest).cloned();
                let is_free = |name: &str, id, draft: &Draft| {
                    draft.names.get(name).or(names.get(name)).is_none_or(|holder| *holder == id)
                };
                let has_room = |draft: &Draft| {
                    let new = draft.hosts.keys().filter(|id| !read(hosts).hosts.contains_key(*id)).count();
                    read(hosts).hosts.len() + new < MAX_HOSTS
                };
                match draft.take(tx, &change, known, alias, token, is_free, has_room) {
                    Ok(admitted) => answers.push((change.done, Ok(admitted))),
                    Err(StateError::Disk(error)) => {
                        answers.push((change.done, Err(StateError::Disk(error.clone()))));
                        return Err(StateError::Disk(error));
                    }
                    Err(no) => answers.push((change.done, Err(no))),
                }
            }
            draft.write(tx)
        });
        if outcome.is_ok() {
            for (by, action, target, detail) in &draft.said {
                audit::log(by, *action, target, detail);
            }
            join::keep(tokens, draft.tokens.into_values().map(|token| (*token).clone()));
            let mut hosts = hosts.write().unwrap_or_else(PoisonError::into_inner);
            hosts.aliases.extend(draft.aliases);
            hosts.put(names, draft.hosts.into_values());
        }
        for (done, answer) in answers {
            // Whoever asked may be gone; the change stands all the same.
            let _ = done.send(match (&outcome, answer) {
                (Err(error), Ok(_)) => Err(error.clone()),
                (_, answer) => answer,
            });
        }
    }
}

impl Draft {
    #[allow(clippy::too_many_arguments, reason = "each looks up one thing of what is known so far")]
    fn take(
        &mut self,
        tx: &Transaction<'_>,
        change: &Change,
        known: impl Fn(HostId) -> Option<Arc<Host>>,
        alias: impl Fn(HostId) -> Option<HostId>,
        token: impl Fn(&Digest) -> Option<Arc<JoinRecord>>,
        is_free: impl Fn(&str, HostId, &Draft) -> bool,
        has_room: impl Fn(&Draft) -> bool,
    ) -> Result<Admitted, StateError> {
        let hello = &change.hello;
        let host_of = |draft: &Self, id| draft.hosts.get(&id).cloned().or_else(|| known(id));
        let id = self.aliases.get(&hello.host).copied().or_else(|| alias(hello.host)).unwrap_or(hello.host);
        let host = host_of(self, id);
        let shown = hello.token.as_deref().and_then(JoinToken::heard);
        let token = shown
            .map(|secret| Digest::of(&secret.0))
            .and_then(|digest| self.tokens.get(&digest).cloned().or_else(|| token(&digest)));
        let way = judge(hello, host.as_deref(), token, change.now_ms)?;
        let by = By { who: format!("host:{}", hello.host).into(), from: change.from.clone() };
        let Way::Joins(token) = way else {
            // Only a known host comes in without a token.
            let mut host = host.map_or_else(|| Err(Denied::NotEnrolled), |host| Ok((*host).clone()))?;
            if way == (Way::Known { is_next: true }) {
                host.secret = host.next_secret.take();
                host.rotate = false;
                self.say(by, Action::HostSecretChanged, host.name(), String::new());
            }
            let host = self.settle(host, change, &is_free);
            return Ok(Admitted { host, replaced: false });
        };
        let replaced = token.replaces.map(|id| host_of(self, id).ok_or(Denied::TokenRevoked)).transpose()?;
        if replaced.is_none() && host.is_none() && !has_room(self) {
            return Err(StateError::TooManyHosts);
        }
        if !db::use_token(tx, &token.id, hello.host, change.now_ms)? {
            return Err(Denied::TokenSpent.into());
        }
        let is_replaced = replaced.is_some();
        let (host, is_new) = match replaced.or(host) {
            Some(host) => ((*host).clone(), false),
            None => {
                let name = free_name(&hello.name, |name| is_free(name, hello.host, self));
                (Host::newcomer(hello, change.now_ms, name), true)
            }
        };
        let mut host = host;
        host.secret = Some(Digest::of(&hello.secret.0));
        host.next_secret = None;
        host.rotate = false;
        host.revoked_ms = None;
        host.client = hello.host;
        if !is_replaced || !token.labels.is_empty() {
            host.token_labels = token.labels.clone();
        }
        if is_replaced {
            // It is called as before, whatever the new machine calls itself.
            host.told_name = (&*hello.name).into();
            if hello.host != host.id {
                self.aliases.insert(hello.host, host.id);
            }
        }
        let host = if is_new {
            host.told(hello);
            host.settle_first();
            self.put(host)
        } else {
            self.settle(host, change, &is_free)
        };
        let mut detail = format!("token {}, calls itself {:?}", token.id, &*hello.name);
        if is_replaced {
            detail += ", takes the place and the history of that host";
        } else if host.name() != &*hello.name && is_new {
            detail += ", which is taken";
            info!(host = host.name(), told = &*hello.name, "a name is taken: the newcomer gets another");
        }
        self.say(by, Action::HostJoined, host.name(), detail);
        let used = JoinRecord { uses: token.uses.saturating_add(1), ..(*token).clone() };
        self.tokens.insert(token.secret, Arc::new(used));
        Ok(Admitted { host, replaced: is_replaced })
    }

    /// Takes in what a known host says of itself.
    fn settle(
        &mut self,
        mut host: Host,
        change: &Change,
        is_free: impl Fn(&str, HostId, &Draft) -> bool,
    ) -> Arc<Host> {
        let is_renamed = *host.told_name != *change.hello.name;
        host.told(&change.hello);
        let name = match &host.given_name {
            Some(given) => given.clone(),
            None if is_renamed => free_name(&host.told_name, |name| is_free(name, host.id, self)),
            None => host.name().into(),
        };
        if !host.settle(name, change.now_ms, change.newest_ms) {
            warn!(host = host.name(), "too many names and labels: it keeps those that it has");
        }
        self.put(host)
    }

    fn put(&mut self, host: Host) -> Arc<Host> {
        let host = Arc::new(host);
        self.names.insert(host.name().into(), host.id);
        self.hosts.insert(host.id, host.clone());
        host
    }

    fn say(&mut self, by: By, action: Action, target: &str, detail: String) {
        self.said.push((by, action, target.to_owned(), detail));
    }

    fn write(&self, tx: &Transaction<'_>) -> Result<(), StateError> {
        self.hosts.values().try_for_each(|host| db::write_host(tx, host))?;
        self.aliases.iter().try_for_each(|(client, host)| db::write_alias(tx, *client, *host))?;
        self.tokens.values().try_for_each(|token| db::write_token(tx, token))?;
        self.said
            .iter()
            .try_for_each(|(by, action, target, detail)| audit::write(tx, by, *action, target, detail))
    }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
