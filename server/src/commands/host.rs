//! `vitals-server host`.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vitals_wire::ids::HostId;
use vitals_wire::message::Refusal;

use super::Place;
use crate::config::{Config, Files};
use crate::hosts_command;
use crate::session::protocol::refused;
use crate::session::seats::Order;
use crate::state::audit::By;
use crate::state::{Begins, Host, HostChange, LabelChange, StateError};

/// What `host` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vitals-server host list
  vitals-server host show web-1                     all that is known of it, by its name or its id
  vitals-server host rename web-1 shop              it keeps this name, whatever its client says
  vitals-server host rename shop --own              it is called as its client says again
  vitals-server host label web-1 env=prod rack-     sets one label, and takes another away
  vitals-server host label web-1 env=               leaves env to its token and its client again
  vitals-server host rotate web-1                   it makes a new secret
  vitals-server host revoke web-1                   it is shut out at once, and stays in the list
  vitals-server host remove web-1                   it is forgotten; its name is free

A revoked host comes back with a token of `vitals-server token create --replace NAME`.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List all hosts, as `vitals-server hosts` does
    List(List),
    /// Show one host
    Show(One),
    /// Call a host by another name, whatever its client says
    Rename(Rename),
    /// Label a host, whatever its token and client say
    Label(Label),
    /// Ask a host for a new secret
    Rotate(One),
    /// Shut a host out: its connection ends at once
    Revoke(One),
    /// Forget a host: its name is free again
    Remove(One),
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    files: Files,
    /// Print JSON, as the API gives it
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    files: Files,
    /// Its name or id
    host: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Rename {
    #[command(flatten)]
    files: Files,
    /// Its name or id
    host: String,
    /// What it is called from now on
    #[arg(required_unless_present = "own", conflicts_with = "own")]
    name: Option<String>,
    /// Call it as its client does
    #[arg(long)]
    own: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Label {
    #[command(flatten)]
    files: Files,
    /// Its name or id
    host: String,
    /// KEY=VALUE sets it, KEY- takes it away, KEY= leaves it to token and client
    #[arg(required = true, value_parser = label)]
    labels: Vec<(String, Option<String>)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A value, empty to leave it to others; `None` takes it away.
fn label(text: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => (key, Some(value.to_owned())),
        (None, Some(key)) => (key, None),
        (None, None) => return Err(format!("{text:?} is none of KEY=VALUE, KEY- and KEY=")),
    };
    let checked = value.as_deref().filter(|value| !value.is_empty()).unwrap_or("x");
    vitals_wire::name::check_label(key, checked).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value))
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Another name; none: its own again.
    Rename {
        /// Its name or id.
        host: String,
        /// What it is called.
        name: Option<String>,
    },
    /// Labels: a value sets, an empty one leaves it to others, none takes it away.
    Label {
        /// Its name or id.
        host: String,
        /// By key.
        labels: BTreeMap<String, Option<String>>,
    },
    /// A new secret.
    Rotate {
        /// Its name or id.
        host: String,
    },
    /// Shut it out.
    Revoke {
        /// Its name or id.
        host: String,
    },
    /// Forget it.
    Remove {
        /// Its name or id.
        host: String,
    },
}

/// What an administrator says of labels: a value sets one, an empty one leaves it to others, none takes it away.
pub fn label_changes(labels: BTreeMap<String, Option<String>>) -> BTreeMap<String, LabelChange> {
    let change = |value: Option<String>| match value {
        None => LabelChange::TakeAway,
        Some(value) if value.is_empty() => LabelChange::Leave,
        Some(value) => LabelChange::Set(value),
    };
    labels.into_iter().map(|(key, value)| (key, change(value))).collect()
}

impl Place {
    /// Changes name and labels of a host.
    ///
    /// # Errors
    /// See [`State::change_host`](crate::state::State::change_host).
    pub async fn change_host(
        &self,
        by: &By,
        host: HostId,
        change: HostChange,
    ) -> Result<Arc<Host>, StateError> {
        let begins = match self.newest.clone() {
            // It may read from disk.
            Some(newest) => {
                Begins::Now(tokio::task::spawn_blocking(move || newest(host)).await.ok().flatten())
            }
            None => Begins::AtStart,
        };
        self.state.change_host(by, host, change, begins).await
    }

    /// Asks a host for a new secret; one that is connected connects again for it.
    ///
    /// # Errors
    /// There is no such host, or it is not on disk.
    pub async fn rotate_host(&self, by: &By, host: HostId) -> Result<Arc<Host>, StateError> {
        let rotated = self.state.rotate_host(by, host).await?;
        let words = refused(Refusal::Unavailable, "connect again: a new secret is asked for", true);
        self.seats.order(host, Order::Close(words));
        Ok(rotated)
    }

    /// Shuts a host out, and ends its connection.
    ///
    /// # Errors
    /// There is no such host, or it is not on disk.
    pub async fn revoke_host(&self, by: &By, host: HostId) -> Result<Arc<Host>, StateError> {
        let revoked = self.state.revoke_host(by, host).await?;
        self.seats.order(host, Order::Close(crate::session::revoked()));
        Ok(revoked)
    }

    /// Forgets a host, and ends its connection.
    ///
    /// # Errors
    /// There is no such host, or it is not on disk.
    pub async fn remove_host(&self, by: &By, host: HostId) -> Result<Arc<Host>, StateError> {
        let removed = self.state.remove_host(by, host).await?;
        self.seats.order(host, Order::Close(crate::session::not_enrolled()));
        Ok(removed)
    }

    fn find(&self, host: &str) -> anyhow::Result<Arc<Host>> {
        self.state.find(host).ok_or_else(|| {
            anyhow::anyhow!("no host has the id or name {host:?}: `vitals-server host list` shows all")
        })
    }
}

/// What stays of a host that is removed, for whoever removes it.
pub fn what_stays(name: &str) -> String {
    format!(
        "Its history here stays until it ages out, and nobody finds it by name. What InfluxDB has of it, under host={name:?}, \
         stays there; what was not written there yet never will be. The name is free."
    )
}

/// Does it.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub async fn answer(place: &Place, request: Request) -> anyhow::Result<Value> {
    let by = By::local();
    let (host, note) = match request {
        Request::Rename { host, name } => {
            let before = place.find(&host)?;
            let change = HostChange { name: Some(name), ..HostChange::default() };
            let host = place.change_host(&by, before.id, change).await?;
            let name = host.given_name.as_deref().unwrap_or(host.name()).to_owned();
            let note = match place.newest {
                None => "It is called so as soon as the server runs. In InfluxDB the tag `host` changes then"
                    .to_owned(),
                Some(_) => {
                    "History is kept under the new name. In InfluxDB the tag `host` changes from now on"
                        .to_owned()
                }
            };
            let note = format!(
                "{:?} is {name:?} now. {note}: what was written before keeps the old one.",
                before.name()
            );
            (host, note)
        }
        Request::Label { host, labels } => {
            let before = place.find(&host)?;
            let change = HostChange { labels: label_changes(labels), ..HostChange::default() };
            let host = place.change_host(&by, before.id, change).await?;
            let note = match place.newest {
                None => "Its labels change as soon as the server runs, in InfluxDB too.",
                Some(_) => "Its labels are changed, in InfluxDB from now on.",
            };
            (host, note.to_owned())
        }
        Request::Rotate { host } => {
            let host = place.rotate_host(&by, place.find(&host)?.id).await?;
            let note = "It is asked for a new secret at its next connection; the present one holds until the new one was used.";
            (host, note.to_owned())
        }
        Request::Revoke { host } => {
            let host = place.revoke_host(&by, place.find(&host)?.id).await?;
            let note = format!(
                "{:?} is shut out. It stays in the list, with its name and history, until `vitals-server host remove`.",
                host.name()
            );
            (host, note)
        }
        Request::Remove { host } => {
            let host = place.remove_host(&by, place.find(&host)?.id).await?;
            let note = format!("{:?} is removed. {}", host.name(), what_stays(host.name()));
            (host, note)
        }
    };
    Ok(json!({ "id": host.id.to_string(), "name": host.name(), "note": note }))
}

/// Asks, and shows the answer.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    let (files, json, request) = match args.command {
        Command::List(List { files, json }) => {
            return hosts_command::run(&Config::load(&files.into())?, json);
        }
        Command::Show(One { files, host, json }) => {
            return hosts_command::show(&Config::load(&files.into())?, &host, json);
        }
        Command::Rename(Rename { files, host, name, json, .. }) => {
            (files, json, Request::Rename { host, name })
        }
        Command::Label(Label { files, host, labels, json }) => {
            (files, json, Request::Label { host, labels: labels.into_iter().collect() })
        }
        Command::Rotate(One { files, host, json }) => (files, json, Request::Rotate { host }),
        Command::Revoke(One { files, host, json }) => (files, json, Request::Revoke { host }),
        Command::Remove(One { files, host, json }) => (files, json, Request::Remove { host }),
    };
    let config = Config::load(&files.into())?;
    // Opening makes what is not there, and there would be no host in it.
    hosts_command::check_used(&config)?;
    let answer = super::ask(&config, super::Request::Host(request))?;
    if json {
        println!("{answer:#}");
    } else {
        println!("{}", answer["note"].as_str().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_set_taken_away_or_left_to_others() {
        assert_eq!(label("env=prod"), Ok(("env".to_owned(), Some("prod".to_owned()))));
        assert_eq!(label("env-"), Ok(("env".to_owned(), None)));
        assert_eq!(label("env="), Ok(("env".to_owned(), Some(String::new()))));
        assert!(label("env").is_err() && label("host=x").is_err() && label("-").is_err());
        let changes = label_changes(
            [("a", Some("1")), ("b", None), ("c", Some(""))]
                .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
                .into(),
        );
        let wanted = [LabelChange::Set("1".to_owned()), LabelChange::TakeAway, LabelChange::Leave];
        assert_eq!(changes.into_values().collect::<Vec<_>>(), wanted);
    }
}
