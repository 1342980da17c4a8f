//! People: name, password's hash, role and scope. Each change stands in the audit log, in the same transaction, and ends
//! that person's logins where it takes something from them.

use std::str::FromStr;
use std::sync::Arc;

use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};

use super::accounts::{AccountError, count, is_plain_name, scope_of, scope_text};
use super::audit::{self, Action, By};
use super::password::Password;
use super::password::{Asks, Hash, HashError, Hasher};
use super::rights::{Access, Scope};
use super::{State, StateError};
use crate::clock;

/// Who the first administrator is.
pub const FIRST_ADMIN: &str = "admin";
/// People that there can be.
const MAX_PEOPLE: usize = 1_000;
/// Who stands in the audit log under these names is no person.
const RESERVED: [&str; 2] = ["local", "server"];

/// What a person is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May do everything.
    Admin,
    /// May look.
    Viewer,
}

impl Role {
    /// The word in the table, the commands and the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Viewer => "viewer",
        }
    }

    /// What it lets one do.
    pub fn access(self) -> Access {
        match self {
            Self::Admin => Access::Admin,
            Self::Viewer => Access::Read,
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Admin, Self::Viewer]
            .into_iter()
            .find(|role| role.word() == text)
            .ok_or_else(|| format!("{text:?} is not admin or viewer"))
    }
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// What that one is called, for good.
    pub name: Box<str>,
    /// The password's hash.
    pub hash: Hash,
    /// What that one may do.
    pub role: Role,
    /// Which hosts a viewer sees.
    pub scope: Scope,
    /// Nothing else can be done before the password is changed.
    pub must_change: bool,
    /// When that one was added, in ms since 1970.
    pub created_ms: i64,
    /// When the password was changed last, in ms since 1970.
    pub changed_ms: i64,
}

/// Somebody to add.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// What that one will be called.
    pub name: String,
    /// What that one logs in with.
    pub password: Password,
    /// What that one may do.
    pub role: Role,
    /// Which hosts a viewer sees.
    pub scope: Scope,
    /// The password is to be changed at the first login.
    pub must_change: bool,
}

/// What changes about a person; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct PersonChange {
    /// Another role.
    pub role: Option<Role>,
    /// Another scope.
    pub scope: Option<Scope>,
    /// Another password, and whether it is to be changed at the next login.
    pub password: Option<(Password, bool)>,
}

/// A person as changed, and what was done, for the log.
type Changed = (Arc<Person>, Vec<(Action, String)>);

fn check(person: &Person) -> Result<(), AccountError> {
    if !is_plain_name(&person.name) || RESERVED.contains(&&*person.name) {
        return Err(AccountError::Name(person.name.to_string()));
    }
    person.scope.check().map_err(AccountError::Scope)?;
    if person.role == Role::Admin && !person.scope.is_all() {
        return Err(AccountError::ScopedAdmin);
    }
    Ok(())
}

impl State {
    /// A person by name.
    pub fn person(&self, name: &str) -> Option<Arc<Person>> {
        self.accounts.people.get(name)
    }

    /// All people, by name.
    pub fn people(&self) -> Vec<Arc<Person>> {
        let mut people: Vec<_> = self.accounts.people.read().values().cloned().collect();
        people.sort_by(|a, b| a.name.cmp(&b.name));
        people
    }

    /// What makes and compares hashes of passwords.
    pub fn hasher(&self) -> &Hasher {
        &self.accounts.hasher
    }

    /// Whether that is the person's password; takes as long for a name that nobody has. `asks`: who wants to know.
    ///
    /// # Errors
    /// Too many are asked for at once.
    pub async fn knows(
        &self,
        name: &str,
        password: Password,
        asks: Asks,
    ) -> Result<Option<Arc<Person>>, HashError> {
        let person = self.person(name);
        let hash = person.as_ref().map(|person| person.hash.clone());
        let fits = self.hasher().fits(password, hash, asks).await?;
        // Changed in between: what was compared is no password any more.
        let now = self.person(name);
        let same = person.filter(|then| fits && now.as_ref().is_some_and(|now| now.hash == then.hash));
        Ok(same.and(now))
    }

    /// Adds somebody.
    ///
    /// # Errors
    /// The name or the password cannot be, or it is not on disk.
    pub async fn add_person(&self, by: &By, new: NewPerson) -> Result<Arc<Person>, AccountError> {
        new.password.check(&new.name)?;
        let now_ms = clock::now_ms();
        let mut person = Person {
            name: new.name.into(),
            hash: Hash::kept(String::new()),
            role: new.role,
            scope: new.scope,
            must_change: new.must_change,
            created_ms: now_ms,
            changed_ms: now_ms,
        };
        check(&person)?;
        if self.person(&person.name).is_some() {
            return Err(AccountError::PersonExists(person.name.to_string()));
        }
        person.hash = self.hasher().hash(new.password).await?;
        let (by, accounts, person) = (by.clone(), self.accounts.clone(), Arc::new(person));
        let detail = format!("role {}, sees {}", person.role.word(), person.scope);
        let (by_then, detail_then) = (by.clone(), detail.clone());
        let work = move |tx: &Transaction<'_>| {
            if find(tx, &person.name)?.is_some() {
                return Ok(Err(AccountError::PersonExists(person.name.to_string())));
            }
            if count(tx, "SELECT count(*) FROM person")? >= MAX_PEOPLE {
                return Ok(Err(AccountError::TooMany(MAX_PEOPLE)));
            }
            write(tx, &person)?;
            audit::write(tx, &by, Action::UserAdded, &person.name, &detail)?;
            Ok(Ok(person))
        };
        let then = move |done: &Result<Arc<Person>, AccountError>| {
            if let Ok(person) = done {
                accounts.people.put(person.name.clone(), person.clone());
                audit::log(&by_then, Action::UserAdded, &person.name, &detail_then);
            }
        };
        self.transaction_then(work, then).await?
    }

    /// Changes somebody; ends that one's logins.
    ///
    /// # Errors
    /// There is no such person, the change cannot be, or it is not on disk.
    pub async fn change_person(
        &self,
        by: &By,
        name: &str,
        change: PersonChange,
    ) -> Result<Arc<Person>, AccountError> {
        self.person(name).ok_or_else(|| AccountError::NoSuchPerson(name.to_owned()))?;
        let password = match change.password {
            Some((password, must_change)) => {
                password.check(name)?;
                Some((self.hasher().hash(password).await?, must_change))
            }
            None => None,
        };
        let (by, name, accounts) = (by.clone(), name.to_owned(), self.accounts.clone());
        let by_then = by.clone();
        let work = move |tx: &Transaction<'_>| {
            let Some(before) = find(tx, &name)? else {
                return Ok(Err(AccountError::NoSuchPerson(name)));
            };
            let mut person = before.clone();
            person.role = change.role.unwrap_or(person.role);
            person.scope = change.scope.unwrap_or(person.scope);
            if let Err(error) = check(&person) {
                return Ok(Err(error));
            }
            if before.role == Role::Admin && person.role != Role::Admin && is_last_admin(tx, &name)? {
                return Ok(Err(AccountError::LastAdmin(name)));
            }
            let mut done = Vec::new();
            if (person.role, &person.scope) != (before.role, &before.scope) {
                done.push((
                    Action::UserChanged,
                    format!("role {}, sees {}", person.role.word(), person.scope),
                ));
            }
            if let Some((hash, must_change)) = password {
                (person.hash, person.must_change) = (hash, must_change);
                person.changed_ms = clock::now_ms();
                done.push((Action::PasswordChanged, String::new()));
            }
            write(tx, &person)?;
            tx.execute("DELETE FROM login WHERE person = ?1", [&name])?;
            for (action, detail) in &done {
                audit::write(tx, &by, *action, &name, detail)?;
            }
            Ok(Ok((Arc::new(person), done)))
        };
        let then = move |outcome: &Result<Changed, AccountError>| {
            let Ok((person, done)) = outcome else { return };
            accounts.people.put(person.name.clone(), person.clone());
            accounts.end_logins_of(&person.name);
            for (action, detail) in done {
                audit::log(&by_then, *action, &person.name, detail);
                if *action == Action::PasswordChanged && *person.name == *FIRST_ADMIN {
                    accounts.forget_password_file();
                }
            }
        };
        self.transaction_then(work, then).await?.map(|(person, _)| person)
    }

    /// Removes somebody; ends that one's logins. What that one did stays in the audit log.
    ///
    /// # Errors
    /// There is no such person, nobody would be left to administer, or it is not on disk.
    pub async fn remove_person(&self, by: &By, name: &str) -> Result<(), AccountError> {
        let (by, name, accounts) = (by.clone(), name.to_owned(), self.accounts.clone());
        let by_then = by.clone();
        let work = move |tx: &Transaction<'_>| {
            let Some(person) = find(tx, &name)? else {
                return Ok(Err(AccountError::NoSuchPerson(name)));
            };
            if person.role == Role::Admin && is_last_admin(tx, &name)? {
                return Ok(Err(AccountError::LastAdmin(name)));
            }
            tx.execute("DELETE FROM person WHERE name = ?1", [&name])?;
            audit::write(tx, &by, Action::UserRemoved, &name, "")?;
            Ok(Ok(name))
        };
        let then = move |outcome: &Result<String, AccountError>| {
            let Ok(name) = outcome else { return };
            accounts.people.write().remove(name.as_str());
            accounts.end_logins_of(name);
            if name == FIRST_ADMIN {
                accounts.forget_password_file();
            }
            audit::log(&by_then, Action::UserRemoved, name, "");
        };
        self.transaction_then(work, then).await?.map(|_| ())
    }
}

fn is_last_admin(tx: &Transaction<'_>, name: &str) -> Result<bool, StateError> {
    let others: u32 =
        tx.query_row("SELECT count(*) FROM person WHERE role = 'admin' AND name <> ?1", [name], |row| {
            row.get(0)
        })?;
    Ok(others == 0)
}

fn find(tx: &Transaction<'_>, name: &str) -> Result<Option<Person>, StateError> {
    Ok(kept(tx)?.into_iter().find(|person| *person.name == *name))
}

/// All people, as they are kept.
pub(super) fn kept(tx: &Transaction<'_>) -> Result<Vec<Person>, StateError> {
    let mut query = tx.prepare_cached(
        "SELECT name, password_hash, role, scope, must_change, created_ms, changed_ms FROM person",
    )?;
    let mut rows = query.query([])?;
    let mut people = Vec::new();
    while let Some(row) = rows.next()? {
        people.push(Person {
            name: row.get(0)?,
            hash: Hash::kept(row.get(1)?),
            role: row.get::<_, String>(2)?.parse().map_err(StateError::Disk)?,
            scope: scope_of(&row.get::<_, String>(3)?)?,
            must_change: row.get(4)?,
            created_ms: row.get(5)?,
            changed_ms: row.get(6)?,
        });
    }
    Ok(people)
}

fn write(tx: &Transaction<'_>, person: &Person) -> Result<(), StateError> {
    tx.prepare_cached(
        "INSERT INTO person (name, password_hash, role, scope, must_change, created_ms, changed_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (name) DO UPDATE SET password_hash = ?2, role = ?3, scope = ?4, must_change = ?5, changed_ms = ?7",
    )?
    .execute(params![
        person.name,
        person.hash.text(),
        person.role.word(),
        scope_text(&person.scope)?,
        person.must_change,
        person.created_ms,
        person.changed_ms,
    ])?;
    Ok(())
}
