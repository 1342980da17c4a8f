//! What an administrator does to hosts, and what a host does to its own secret.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use vitals_wire::ids::{HostId, Secret};
use vitals_wire::limits::MAX_LABELS;
use vitals_wire::name::{check_host_name, check_label};

use super::audit::{self, Action, By};
use super::host::{Host, free_name};
use super::{Denied, State, StateError, Writer, db, join, read};
use crate::clock;
use crate::secret::Digest;

/// What becomes of a label that an administrator speaks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// It has this value, whatever others gave.
    Set(String),
    /// It is not there, whatever others gave.
    TakeAway,
    /// It is what token and client say.
    Leave,
}

/// What an administrator changes of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostChange {
    /// What it is called; `Some(None)`: as it calls itself.
    pub name: Option<Option<String>>,
    /// Its labels.
    pub labels: BTreeMap<String, LabelChange>,
}

/// When a change of a name or label begins to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// Now, or after the newest committed sample where that is later, in ms since 1970.
    Now(Option<i64>),
    /// When a server runs again: only it knows what was committed.
    AtStart,
}

impl State {
    /// Changes name and labels of a host.
    ///
    /// # Errors
    /// There is no such host, the name is taken or cannot be one, a label cannot be taken, or it is not on disk.
    pub async fn change_host(
        &self,
        by: &By,
        id: HostId,
        change: HostChange,
        begins: Begins,
    ) -> Result<Arc<Host>, StateError> {
        if let Some(Some(name)) = &change.name {
            check_host_name(name)?;
        }
        for (key, label) in &change.labels {
            let value = if let LabelChange::Set(value) = label { value } else { "x" };
            check_label(key, value)?;
        }
        let by = by.clone();
        self.act(move |writer| writer.change(&by, id, change, begins)).await
    }

    /// Asks a host for a new secret, at its next connection.
    ///
    /// # Errors
    /// There is no such host, or it is not on disk.
    pub async fn rotate_host(&self, by: &By, id: HostId) -> Result<Arc<Host>, StateError> {
        self.edit(by, id, Action::HostRotated, |host| host.rotate = true).await
    }

    /// Shuts a host out, and revokes the tokens that would replace it.
    ///
    /// # Errors
    /// There is no such host, or it is not on disk.
    pub async fn revoke_host(&self, by: &By, id: HostId) -> Result<Arc<Host>, StateError> {
        self.edit(by, id, Action::HostRevoked, |host| {
            host.revoked_ms = host.revoked_ms.or(Some(clock::now_ms()));
        })
        .await
    }

    /// The secret that a host uses from its next connection on; the present one holds until then. It is taken while the
    /// host is asked for one: a machine that was replaced meanwhile must not leave a secret behind that lets it in again.
    ///
    /// # Errors
    /// There is no such host, nobody asks it any more, or it is not on disk.
    pub async fn next_secret(&self, id: HostId, secret: &Secret) -> Result<(), StateError> {
        let digest = Digest::of(&secret.0);
        self.act(move |writer| {
            let mut host = (*writer.host(id)?).clone();
            // Said again, or the one that it uses already.
            if host.next_secret == Some(digest) || host.secret == Some(digest) {
                return Ok(());
            }
            if !host.rotate || host.revoked_ms.is_some() {
                return Err(Denied::Credential.into());
            }
            host.next_secret = Some(digest);
            writer.db.transaction(|tx| db::write_host(tx, &host))?;
            writer.put(host);
            Ok(())
        })
        .await
    }

    /// Forgets a host: its name is free again, and its client is not enrolled any more. What history and InfluxDB hold of
    /// it stays there.
    ///
    /// # Errors
    /// There is no such host, or it is not on disk.
    pub async fn remove_host(&self, by: &By, id: HostId) -> Result<Arc<Host>, StateError> {
        let by = by.clone();
        self.act(move |writer| {
            let host = writer.host(id)?;
            let revoked = join::without_replacing(&writer.tokens, id, clock::now_ms());
            let detail = id.to_string();
            writer.db.transaction(|tx| {
                db::delete_host(tx, id)?;
                revoked.iter().try_for_each(|token| db::write_token(tx, token))?;
                audit::write(tx, &by, Action::HostRemoved, host.name(), &detail)
            })?;
            audit::log(&by, Action::HostRemoved, host.name(), &detail);
            join::keep(&writer.tokens, revoked);
            let mut hosts = writer.hosts.write().unwrap_or_else(PoisonError::into_inner);
            hosts.hosts.remove(&id);
            hosts.aliases.retain(|_, host| *host != id);
            writer.names.retain(|_, holder| *holder != id);
            Ok(host)
        })
        .await
    }

    /// Lets what was asked for while no server ran begin to hold. `newest` gives a host's newest committed time.
    pub async fn settle(&self, newest: impl Fn(HostId) -> Option<i64>) {
        for host in self.hosts().into_iter().filter(|host| !host.is_settled()) {
            let begins = Begins::Now(newest(host.id));
            if let Err(error) = self.change_host(&By::server(), host.id, HostChange::default(), begins).await
            {
                tracing::warn!(host = host.name(), %error, "its new name or labels cannot be kept now");
            }
        }
    }

    async fn edit(
        &self,
        by: &By,
        id: HostId,
        action: Action,
        edit: impl FnOnce(&mut Host) + Send + 'static,
    ) -> Result<Arc<Host>, StateError> {
        let by = by.clone();
        self.act(move |writer| {
            let mut host = (*writer.host(id)?).clone();
            edit(&mut host);
            let revoked = match action {
                Action::HostRevoked => join::without_replacing(&writer.tokens, id, clock::now_ms()),
                _ => Vec::new(),
            };
            writer.db.transaction(|tx| {
                db::write_host(tx, &host)?;
                revoked.iter().try_for_each(|token| db::write_token(tx, token))?;
                audit::write(tx, &by, action, host.name(), "")
            })?;
            audit::log(&by, action, host.name(), "");
            join::keep(&writer.tokens, revoked);
            Ok(writer.put(host))
        })
        .await
    }
}

impl Writer {
    /// A host that is there.
    pub(super) fn host(&self, id: HostId) -> Result<Arc<Host>, StateError> {
        read(&self.hosts).hosts.get(&id).cloned().ok_or(StateError::Gone(id))
    }

    fn put(&mut self, host: Host) -> Arc<Host> {
        let host = Arc::new(host);
        let mut hosts = self.hosts.write().unwrap_or_else(PoisonError::into_inner);
        hosts.put(&mut self.names, [host.clone()]);
        host
    }

    fn change(
        &mut self,
        by: &By,
        id: HostId,
        change: HostChange,
        begins: Begins,
    ) -> Result<Arc<Host>, StateError> {
        let before = self.host(id)?;
        let mut host = (*before).clone();
        let names = &self.names;
        let is_free = |name: &str| {
            name.parse::<HostId>().is_err() && names.get(name).is_none_or(|holder| *holder == id)
        };
        let mut said = Vec::new();
        match &change.name {
            Some(Some(name)) if !is_free(name) => return Err(StateError::NameTaken(name.clone())),
            Some(Some(name)) => host.given_name = Some(name.as_str().into()),
            Some(None) => host.given_name = None,
            None => {}
        }
        for (key, label) in change.labels {
            let key: Box<str> = key.into();
            let is_others = host.token_labels.contains_key(&key) || host.client_labels.contains_key(&key);
            match label {
                LabelChange::Set(value) => host.given_labels.insert(key, Some(value.into())),
                LabelChange::TakeAway if is_others => host.given_labels.insert(key, None),
                LabelChange::TakeAway | LabelChange::Leave => host.given_labels.remove(&key),
            };
        }
        if host.given_labels.len() > MAX_LABELS {
            return Err(StateError::TooManyLabels);
        }
        let name = match &host.given_name {
            Some(given) => given.clone(),
            None if before.given_name.is_some() => free_name(&host.told_name, is_free),
            None => host.name().into(),
        };
        if let Begins::Now(newest_ms) = begins
            && !host.settle(name.clone(), clock::now_ms(), newest_ms)
        {
            return Err(StateError::TooManyVersions);
        }
        if host.given_name != before.given_name {
            said.push((Action::HostRenamed, format!("now {name:?}")));
        }
        if host.given_labels != before.given_labels {
            // Labels are no secrets.
            let labels = serde_json::to_string(&host.given_labels).unwrap_or_default();
            said.push((Action::HostLabelled, labels));
        }
        let target = before.name();
        self.db.transaction(|tx| {
            db::write_host(tx, &host)?;
            said.iter().try_for_each(|(action, detail)| audit::write(tx, by, *action, target, detail))
        })?;
        said.iter().for_each(|(action, detail)| audit::log(by, *action, target, detail));
        Ok(self.put(host))
    }
}
