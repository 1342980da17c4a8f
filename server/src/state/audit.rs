//! The audit log: who changed what, from where. A table, and a line in the log for each entry.

use rusqlite::{Transaction, params};
use tracing::{info, warn};

use super::{Job, State, StateError};
use crate::clock;

/// Entries that are kept; the oldest go first.
const MAX_ENTRIES: u32 = 100_000;

/// Who does something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// A person's name, `token:` and an API token's name, `local` for a command on the server's machine, `host:` and a
    /// host's id, or `server`.
    pub who: Box<str>,
    /// An address without its port, or `-`.
    pub from: Box<str>,
}

impl By {
    /// Whoever may use the commands' socket, or the server's files.
    pub fn local() -> Self {
        Self { who: "local".into(), from: "-".into() }
    }

    /// The server itself.
    pub fn server() -> Self {
        Self { who: "server".into(), from: "-".into() }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident $word:literal,)*) => {
        /// What was done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $variant,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &'static [Action] = &[$(Self::$variant,)*];

            /// The word in the table, the log and the API.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

actions! {
    /// A person logged in.
    Login "login",
    /// A wrong name or password.
    LoginFailed "login_failed",
    /// A person logged out, here or everywhere.
    Logout "logout",
    /// A person's password was changed.
    PasswordChanged "password_changed",
    /// A person was added.
    UserAdded "user_added",
    /// A person's role or scope was changed.
    UserChanged "user_changed",
    /// A person was removed.
    UserRemoved "user_removed",
    /// An API token was made.
    TokenCreated "token_created",
    /// An API token was revoked.
    TokenRevoked "token_revoked",
    /// A join token was made.
    JoinTokenCreated "join_token_created",
    /// A join token was revoked.
    JoinTokenRevoked "join_token_revoked",
    /// A host joined.
    HostJoined "host_joined",
    /// A host was refused for its secret or token.
    HostRefused "host_refused",
    /// A host was renamed.
    HostRenamed "host_renamed",
    /// A host was labelled.
    HostLabelled "host_labelled",
    /// A host was asked for a new secret.
    HostRotated "host_rotated",
    /// A host uses its new secret.
    HostSecretChanged "host_secret_changed",
    /// A host was revoked.
    HostRevoked "host_revoked",
    /// A host was removed.
    HostRemoved "host_removed",
    /// One identity is used by two clients.
    HostCloned "host_cloned",
    /// The clients' port gets a new key: announced, in use, or given up.
    KeyRotated "key_rotated",
    /// A certificate was read anew.
    CertificateReloaded "certificate_reloaded",
}

/// An entry, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Rising number.
    pub id: i64,
    /// When, in ms since 1970.
    pub time_ms: i64,
    /// Who.
    pub who: String,
    /// From where.
    pub address: String,
    /// What: [`Action::word`].
    pub action: String,
    /// To whom or what.
    pub target: String,
    /// More, for people.
    pub detail: String,
}

impl State {
    /// Takes down that something was done. Never a secret in it.
    ///
    /// # Errors
    /// It is not on disk; the line is in the log all the same.
    pub async fn audit(
        &self,
        by: &By,
        action: Action,
        target: impl Into<String>,
        detail: impl Into<String>,
    ) -> Result<(), StateError> {
        let (by, target, detail) = (by.clone(), target.into(), detail.into());
        log(&by, action, &target, &detail);
        self.transaction(move |tx| write(tx, &by, action, &target, &detail)).await
    }

    /// The same without waiting for the disk: how long it takes tells nobody what was taken down. Where it cannot be, the
    /// line in the log is all there is.
    pub fn audit_soon(&self, by: &By, action: Action, target: impl Into<String>, detail: impl Into<String>) {
        let (by, target, detail) = (by.clone(), target.into(), detail.into());
        log(&by, action, &target, &detail);
        let work = move |tx: &Transaction<'_>| write(tx, &by, action, &target, &detail);
        let _ = self.jobs.try_send(Job::Work(Box::new(move |db| {
            if let Err(error) = db.transaction(work) {
                warn!(%error, audit = action.word(), "an entry is not in the audit log");
            }
        })));
    }

    /// Entries with an id below `before`, newest first.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub async fn audit_log(&self, before: i64, limit: u32) -> Result<Vec<Entry>, StateError> {
        self.transaction(move |tx| {
            let mut query = tx.prepare_cached(
                "SELECT id, time_ms, who, address, action, target, detail FROM audit WHERE id < ?1
                 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = query.query_map(params![before, limit], |row| {
                Ok(Entry {
                    id: row.get(0)?,
                    time_ms: row.get(1)?,
                    who: row.get(2)?,
                    address: row.get(3)?,
                    action: row.get(4)?,
                    target: row.get(5)?,
                    detail: row.get(6)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// The line in the log, for who writes the entry within a transaction of its own.
pub(super) fn log(by: &By, action: Action, target: &str, detail: &str) {
    info!(audit = action.word(), by = &*by.who, from = &*by.from, target_name = target, detail, "audit");
}

/// Takes it down within a transaction of who changes something.
pub(super) fn write(
    tx: &Transaction<'_>,
    by: &By,
    action: Action,
    target: &str,
    detail: &str,
) -> Result<(), StateError> {
    tx.prepare_cached(
        "INSERT INTO audit (time_ms, who, address, action, target, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![clock::now_ms(), by.who, by.from, action.word(), target, detail])?;
    tx.prepare_cached("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1")?
        .execute([MAX_ENTRIES])?;
    Ok(())
}
