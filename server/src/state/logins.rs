//! Logins: who may go on without a password, for a while. The browser holds a random id of 256 bits, `state.db` its SHA-256.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use rusqlite::{Transaction, params};
use tokio_util::sync::CancellationToken;

use super::accounts::{AccountError, Accounts};
use super::audit::{self, Action, By};
use super::people::Person;
use super::{Job, State, StateError};
use crate::secret::{self, Digest};

/// Logins of one person; the one unused for longest ends for another.
const MAX_PER_PERSON: usize = 50;
/// Time between two writes of when a login was used last.
pub(super) const WRITE_EVERY_MS: i64 = 60_000;
/// Characters of a browser's own description that are kept.
const MAX_AGENT: usize = 120;

/// How long logins hold.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Time without a request after which a login ends.
    pub idle: Duration,
    /// Time after which a login ends in any case.
    pub lifetime: Duration,
}

/// A login.
#[derive(Debug)]
pub struct Login {
    /// SHA-256 of the id that the browser has.
    pub id: Digest,
    /// Who logged in.
    pub person: Box<str>,
    /// When, in ms since 1970.
    pub created_ms: i64,
    /// From where.
    pub address: Box<str>,
    /// What the browser calls itself, cut.
    pub agent: Box<str>,
    used: Used,
    ended: CancellationToken,
}

/// When something was used last, and what of that is on disk or on its way there.
#[derive(Debug)]
pub(super) struct Used {
    seen_ms: AtomicI64,
    written_ms: AtomicI64,
}

impl Used {
    pub(super) fn new(seen_ms: i64) -> Self {
        Self { seen_ms: AtomicI64::new(seen_ms), written_ms: AtomicI64::new(seen_ms) }
    }

    pub(super) fn seen_ms(&self) -> i64 {
        self.seen_ms.load(Relaxed)
    }

    /// Takes down a use; true for the one user that is to have it written now.
    pub(super) fn now(&self, now_ms: i64) -> bool {
        self.seen_ms.fetch_max(now_ms, Relaxed);
        let written = self.written_ms.load(Relaxed);
        now_ms.saturating_sub(written) >= WRITE_EVERY_MS
            && self.written_ms.compare_exchange(written, now_ms, Relaxed, Relaxed).is_ok()
    }
}

impl Login {
    /// When it was used last, in ms since 1970.
    pub fn seen_ms(&self) -> i64 {
        self.used.seen_ms()
    }

    /// When it ends without another request, in ms since 1970.
    pub fn until_ms(&self, lifetimes: Lifetimes) -> i64 {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let idle = self.seen_ms().saturating_add(ms(lifetimes.idle));
        idle.min(self.created_ms.saturating_add(ms(lifetimes.lifetime)))
    }

    /// Whether it holds now.
    pub fn holds(&self, lifetimes: Lifetimes, now_ms: i64) -> bool {
        !self.ended.is_cancelled() && now_ms < self.until_ms(lifetimes)
    }

    /// Cancelled when it is ended, other than by time.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

impl Accounts {
    /// Ends these in memory: whoever looks sees it at once.
    pub(super) fn end_logins(&self, which: impl Fn(&Login) -> bool) {
        for login in self.logins.take(which) {
            login.ended.cancel();
        }
    }

    pub(super) fn end_logins_of(&self, person: &str) {
        self.end_logins(|login| *login.person == *person);
    }
}

impl State {
    /// Logs a person in, whose password was right; gives the id for the browser. `None` if that one was changed or removed in
    /// between.
    ///
    /// # Errors
    /// It is not on disk.
    pub async fn log_in(
        &self,
        person: &Person,
        address: IpAddr,
        agent: &str,
        lifetimes: Lifetimes,
        now_ms: i64,
    ) -> Result<Option<(String, Arc<Login>)>, AccountError> {
        let text = secret::random_text("")?;
        let login = Arc::new(Login {
            id: Digest::of(text.as_bytes()),
            person: person.name.clone(),
            created_ms: now_ms,
            address: address.to_string().into(),
            agent: agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect::<String>().into(),
            used: Used::new(now_ms),
            ended: CancellationToken::new(),
        });
        let by = By { who: person.name.clone(), from: login.address.clone() };
        let (accounts, state, hash, by_then) =
            (self.accounts.clone(), self.accounts.clone(), person.hash.clone(), by.clone());
        let work = move |tx: &Transaction<'_>| {
            // Removed or changed in between: this runs after all changes that were asked for before, on their thread.
            if state.people.get(&*login.person).is_none_or(|now| now.hash != hash) {
                return Ok(None);
            }
            let mut own: Vec<_> =
                state.logins.read().values().filter(|one| one.person == login.person).cloned().collect();
            own.sort_by_key(|one| std::cmp::Reverse(one.seen_ms()));
            let mut gone: Vec<Digest> = own.iter().skip(MAX_PER_PERSON - 1).map(|one| one.id).collect();
            // Those that have expired, of anybody.
            let expired = |one: &&Arc<Login>| !one.holds(lifetimes, now_ms);
            gone.extend(state.logins.read().values().filter(expired).map(|one| one.id));
            for id in &gone {
                tx.execute("DELETE FROM login WHERE id_hash = ?1", [id.0])?;
            }
            tx.execute(
                "INSERT INTO login (id_hash, person, created_ms, seen_ms, address, agent) VALUES (?1, ?2, ?3, ?3, ?4, ?5)",
                params![login.id.0, login.person, now_ms, login.address, login.agent],
            )?;
            audit::write(tx, &by, Action::Login, &login.person, "")?;
            Ok(Some((login, gone)))
        };
        let then = move |done: &Option<(Arc<Login>, Vec<Digest>)>| {
            if let Some((login, gone)) = done {
                accounts.end_logins(|one| gone.contains(&one.id));
                accounts.logins.put(login.id, login.clone());
                audit::log(&by_then, Action::Login, &login.person, "");
            }
        };
        Ok(self.transaction_then(work, then).await?.map(|(login, _)| (text, login)))
    }

    /// The login of a browser's id and its person, if it holds; takes down that it was used.
    pub fn logged_in(
        &self,
        id: &str,
        lifetimes: Lifetimes,
        now_ms: i64,
    ) -> Option<(Arc<Login>, Arc<Person>)> {
        let login = self.accounts.logins.get(&Digest::of(id.as_bytes()))?;
        if !login.holds(lifetimes, now_ms) {
            return None;
        }
        let person = self.person(&login.person)?;
        if login.used.now(now_ms) {
            let id = login.id;
            self.write_use(move |tx| {
                tx.execute("UPDATE login SET seen_ms = ?2 WHERE id_hash = ?1", params![id.0, now_ms])?;
                Ok(())
            });
        }
        Some((login, person))
    }

    /// The logins of a person that hold, latest used first.
    pub fn logins(&self, person: &str, lifetimes: Lifetimes, now_ms: i64) -> Vec<Arc<Login>> {
        let all = self.accounts.logins.read();
        let own = all.values().filter(|login| *login.person == *person && login.holds(lifetimes, now_ms));
        let mut own: Vec<_> = own.cloned().collect();
        own.sort_by_key(|login| std::cmp::Reverse(login.seen_ms()));
        own
    }

    /// From where somebody logged in whose login is still kept.
    pub fn login_addresses(&self) -> Vec<IpAddr> {
        self.accounts.logins.read().values().filter_map(|login| login.address.parse().ok()).collect()
    }

    /// Logs out: this login, or all of its person's.
    ///
    /// # Errors
    /// It is not on disk.
    pub async fn log_out(&self, by: &By, login: &Login, everywhere: bool) -> Result<(), StateError> {
        let (by, accounts) = (by.clone(), self.accounts.clone());
        let (id, person) = (login.id, login.person.clone());
        let (by_then, person_then) = (by.clone(), person.clone());
        let detail = if everywhere { "everywhere" } else { "" };
        let work = move |tx: &Transaction<'_>| {
            tx.execute(
                "DELETE FROM login WHERE id_hash = ?1 OR (?2 AND person = ?3)",
                params![id.0, everywhere, person],
            )?;
            audit::write(tx, &by, Action::Logout, &person, detail)
        };
        let then = move |(): &()| {
            accounts.end_logins(|one| one.id == id || (everywhere && one.person == person_then));
            audit::log(&by_then, Action::Logout, &person_then, detail);
        };
        self.transaction_then(work, then).await
    }

    /// Has a time of use written, some time: whoever asks does not wait, and where the queue is full it is left.
    pub(super) fn write_use(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<(), StateError> + Send + 'static,
    ) {
        let _ = self.jobs.try_send(Job::Work(Box::new(move |db| {
            // What is lost is a minute of a login's life, or of what a list says.
            let _ = db.transaction(work);
        })));
    }
}

/// All logins, as they are kept.
pub(super) fn kept(tx: &Transaction<'_>) -> Result<Vec<Login>, StateError> {
    let mut query =
        tx.prepare_cached("SELECT id_hash, person, created_ms, seen_ms, address, agent FROM login")?;
    let rows = query.query_map([], |row| {
        Ok(Login {
            id: Digest(row.get(0)?),
            person: row.get(1)?,
            created_ms: row.get(2)?,
            used: Used::new(row.get(3)?),
            address: row.get(4)?,
            agent: row.get(5)?,
            ended: CancellationToken::new(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
