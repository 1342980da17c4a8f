//! What of accounts is held in memory: people, logins and API tokens. Requests read here and wait for no disk; what changes
//! is put here by the thread that writes, once it is on disk, in the order of the transactions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rusqlite::Transaction;
use tracing::warn;

use super::StateError;
use super::api_tokens::{self, ApiToken};
use super::db::Db;
use super::logins::{self, Login};
use super::password::{HashError, Hasher, PasswordError};
use super::people::{self, FIRST_ADMIN, Person};
use super::rights::Scope;
use crate::secret::{Digest, NoRandom};

/// The file with the first administrator's password, beside `state.db`, until that is changed.
pub const ADMIN_PASSWORD_FILE: &str = "admin-password";

/// Why an account cannot be read or changed. Each text says what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccountError {
    /// Somebody is called so.
    #[error("there is a user called {0:?} already")]
    PersonExists(String),
    /// Nobody is called so.
    #[error("no user is called {0:?}")]
    NoSuchPerson(String),
    /// Nobody can be called so.
    #[error(
        "{0:?} cannot be a user's name: 1 to 64 letters, digits and . _ - @ of ASCII, beginning with a letter or digit, and not local or server"
    )]
    Name(String),
    /// Nobody would be left who may do everything.
    #[error(
        "{0:?} is the last administrator, who cannot be removed or made a viewer: make another one first"
    )]
    LastAdmin(String),
    /// An administrator sees all.
    #[error("an administrator sees all hosts: a scope is for viewers, and for tokens that read or write")]
    ScopedAdmin,
    /// No labels.
    #[error("scope: {0}")]
    Scope(String),
    /// A token is called so.
    #[error("there is an API token called {0:?} already: revoke that one, or take another name")]
    TokenExists(String),
    /// No token is called so.
    #[error("no API token has the id or name {0:?}")]
    NoSuchToken(String),
    /// No token can be called so.
    #[error(
        "{0:?} cannot be a token's name: 1 to 64 letters, digits and . _ - @ of ASCII, beginning with a letter or digit"
    )]
    TokenName(String),
    /// It would have expired before it is made.
    #[error("the expiry is not in the future")]
    Expired,
    /// As many as there may be.
    #[error("there are {0} already, which is the most: remove some")]
    TooMany(usize),
    /// A password that cannot be.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// No hash was made.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// No random bits.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    /// Not on disk.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What is held in memory.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) people: Table<Box<str>, Person>,
    /// By the digest of the id that the browser has.
    pub(super) logins: Table<Digest, Login>,
    /// By the secret's digest.
    pub(super) tokens: Table<Digest, ApiToken>,
    pub(super) hasher: Hasher,
    password_file: PathBuf,
}

impl Accounts {
    /// Reads all. `path` is that of `state.db`.
    pub(super) fn open(path: &Path, db: &mut Db) -> Result<Self, StateError> {
        db.transaction(|tx| {
            let accounts = Self {
                people: Table::new(people::kept(tx)?.into_iter().map(|one| (one.name.clone(), one))),
                logins: Table::new(logins::kept(tx)?.into_iter().map(|one| (one.id, one))),
                tokens: Table::new(api_tokens::kept(tx)?.into_iter().map(|one| (one.digest, one))),
                hasher: Hasher::default(),
                password_file: path.with_file_name(ADMIN_PASSWORD_FILE),
            };
            // A kill between the change and the file's end.
            let admin = accounts.people.get(FIRST_ADMIN);
            if !accounts.people.is_empty() && admin.is_none_or(|admin| !admin.must_change) {
                accounts.forget_password_file();
            }
            Ok(accounts)
        })
    }

    /// Removes the file with the first administrator's password, which is none any more.
    pub(super) fn forget_password_file(&self) {
        match std::fs::remove_file(&self.password_file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(file = %self.password_file.display(), %error, "a password that is out of use stays in its file");
            }
            _ => {}
        }
    }
}

/// Records by key, each replaced as a whole when it changes.
#[derive(Debug)]
pub(super) struct Table<K, V>(RwLock<HashMap<K, Arc<V>>>);

impl<K: std::hash::Hash + Eq + Clone, V> Table<K, V> {
    fn new(all: impl Iterator<Item = (K, V)>) -> Self {
        Self(RwLock::new(all.map(|(key, one)| (key, Arc::new(one))).collect()))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, HashMap<K, Arc<V>>> {
        // Nobody panics while holding it, and a map that was being inserted into is still a map.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, HashMap<K, Arc<V>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get<Q: ?Sized + std::hash::Hash + Eq>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.read().get(key).cloned()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    pub(super) fn put(&self, key: K, value: Arc<V>) {
        self.write().insert(key, value);
    }

    /// Takes out those that `which` picks.
    pub(super) fn take(&self, which: impl Fn(&V) -> bool) -> Vec<Arc<V>> {
        let mut all = self.write();
        let keys: Vec<K> = all.iter().filter(|(_, one)| which(one)).map(|(key, _)| key.clone()).collect();
        keys.iter().filter_map(|key| all.remove(key)).collect()
    }
}

/// What people and tokens may be called: plain enough for logs and paths.
pub(super) fn is_plain_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
}

pub(super) fn scope_text(scope: &Scope) -> Result<String, StateError> {
    serde_json::to_string(scope).map_err(|error| StateError::Disk(error.to_string()))
}

pub(super) fn scope_of(text: &str) -> Result<Scope, StateError> {
    serde_json::from_str(text).map_err(|error| StateError::Disk(format!("a scope: {error}")))
}

pub(super) fn count(tx: &Transaction<'_>, sql: &str) -> Result<usize, StateError> {
    let count: u32 = tx.query_row(sql, [], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
