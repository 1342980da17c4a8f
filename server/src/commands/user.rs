//! `vitals-server user`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Place;
use super::terminal;
use crate::config::{Config, Files};
use crate::state::Scope;
use crate::state::audit::By;
use crate::state::password::{MAX_BYTES, Password};
use crate::state::people::{NewPerson, Person, PersonChange, Role};
use crate::time;

/// What `user` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vitals-server user add ann                             asks for the password, unseen
  vitals-server user add ann --role viewer --scope env=prod --generate
  vitals-server user passwd admin --generate             for who is locked out
  vitals-server user passwd ann --password-file /run/secrets/ann
  printf %s \"$PASSWORD\" | vitals-server user passwd ann
  vitals-server user list --json
  vitals-server user remove ann

A password has at least 12 characters: a phrase of some words will do. It is never an argument:
those are for all on this machine to see. A change or removal ends that user's logins at once.
Works beside a running server and without one; who may use the server's data directory is
administrator here.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with people.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a user
    Add(Add),
    /// Change a user's password; ends that user's logins
    Passwd(Passwd),
    /// List all users
    List(List),
    /// Remove a user; ends that user's logins
    Remove(Remove),
}

/// Where a password comes from.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// Read the password from this file [default: a prompt on a terminal, else standard input]
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub password_file: Option<PathBuf>,
    /// Make a random password and print it once; it must be changed at the first login
    #[arg(long)]
    pub generate: bool,
}

/// What `user add` can be told.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// What the user is called: letters, digits and . _ - @
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What the user may do: admin (everything) or viewer (look)
    #[arg(long, value_name = "ROLE", default_value = "viewer")]
    pub role: Role,
    /// A label that a host must have for a viewer to see it, such as env=prod; again for more [default: all hosts]
    #[arg(long, value_name = "KEY=VALUE")]
    pub scope: Vec<String>,
    /// Where the password comes from.
    #[command(flatten)]
    pub source: Source,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `user passwd` can be told.
#[derive(Debug, clap::Args)]
pub struct Passwd {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// Whose password
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where the password comes from.
    #[command(flatten)]
    pub source: Source,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `user list` can be told.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `user remove` can be told.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// Whom
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// All of them.
    List,
    /// Add somebody.
    Add {
        /// The name.
        name: String,
        /// The role.
        role: Role,
        /// Which hosts a viewer sees.
        scope: Scope,
        /// The password; one is made where there is none.
        password: Option<Password>,
    },
    /// Another password.
    Passwd {
        /// Whose.
        name: String,
        /// The password; one is made where there is none.
        password: Option<Password>,
    },
    /// Remove somebody.
    Remove {
        /// Whom.
        name: String,
    },
}

/// Does it.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub async fn answer(place: &Place, request: Request) -> anyhow::Result<Value> {
    let (state, by) = (&place.state, By::local());
    match request {
        Request::List => {
            let people = state.people();
            Ok(json!({ "users": people.iter().map(|person| info(person)).collect::<Vec<_>>() }))
        }
        Request::Add { name, role, scope, password } => {
            let (password, made) = or_random(password)?;
            let must_change = made.is_some();
            let person =
                state.add_person(&by, NewPerson { name, password, role, scope, must_change }).await?;
            Ok(json!({ "user": info(&person), "password": made }))
        }
        Request::Passwd { name, password } => {
            let (password, made) = or_random(password)?;
            let change =
                PersonChange { password: Some((password, made.is_some())), ..PersonChange::default() };
            let person = state.change_person(&by, &name, change).await?;
            Ok(json!({ "user": info(&person), "password": made }))
        }
        Request::Remove { name } => {
            state.remove_person(&by, &name).await?;
            Ok(json!({ "removed": name }))
        }
    }
}

/// The password, and the same once more if it was made here and is to be shown.
fn or_random(password: Option<Password>) -> anyhow::Result<(Password, Option<Password>)> {
    match password {
        Some(password) => Ok((password, None)),
        None => {
            let made = Password::random()?;
            Ok((made.clone(), Some(made)))
        }
    }
}

fn info(person: &Person) -> Value {
    json!({
        "name": person.name,
        "role": person.role,
        "scope": person.scope,
        "must_change": person.must_change,
        "created": time::format(person.created_ms),
        "password_changed": time::format(person.changed_ms),
    })
}

/// Asks, and shows the answer.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    let (files, json, request) = match args.command {
        Command::List(List { files, json }) => (files, json, Request::List),
        Command::Add(Add { files, name, role, scope, source, json }) => {
            let scope = Scope::from_pairs(scope.iter().map(String::as_str));
            let scope = scope.map_err(|error| anyhow::anyhow!("--scope: {error}"))?;
            let password = source.password(&name)?;
            (files, json, Request::Add { name, role, scope, password })
        }
        Command::Passwd(Passwd { files, name, source, json }) => {
            let password = source.password(&name)?;
            (files, json, Request::Passwd { name, password })
        }
        Command::Remove(Remove { files, name, json }) => (files, json, Request::Remove { name }),
    };
    let config = Config::load(&files.into())?;
    let answer = super::ask(&config, super::Request::User(request.clone()))?;
    if json {
        println!("{answer:#}");
        return Ok(());
    }
    match request {
        Request::List => {
            print!(
                "{}",
                super::table(&answer["users"], &["name", "role", "scope", "must_change", "created"])
            );
        }
        Request::Add { name, .. } => eprintln!("Added {name}."),
        Request::Passwd { name, .. } => eprintln!("Changed; all logins of {name} have ended."),
        Request::Remove { name } => eprintln!("Removed {name}; that user's logins have ended."),
    }
    if let Some(password) = answer["password"].as_str() {
        eprintln!("The password, shown this once; it must be changed at the first login:");
        println!("{password}");
    }
    Ok(())
}

impl Source {
    /// The password; `None` if one is to be made. Looked at before anything is asked of the server.
    fn password(&self, name: &str) -> anyhow::Result<Option<Password>> {
        if self.generate {
            return Ok(None);
        }
        let text = if let Some(file) = &self.password_file {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        } else if std::io::stdin().is_terminal() {
            let first = terminal::prompt(&format!("New password of {name}: "))?;
            if terminal::prompt("Again: ")? != first {
                bail!("the two are not the same: nothing was changed");
            }
            first
        } else {
            let mut text = String::new();
            // A line's end may follow.
            let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(3);
            std::io::stdin().take(most).read_to_string(&mut text).context("cannot read standard input")?;
            text
        };
        let password = Password::new(text.trim_end_matches(['\r', '\n']));
        password.check(name)?;
        Ok(Some(password))
    }
}
