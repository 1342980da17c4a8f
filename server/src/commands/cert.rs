//! `vitals-server cert`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vitals_wire::ids::HostId;

use super::Place;
use crate::config::{Config, Files};
use crate::session::seats::Order;
use crate::state::Action;
use crate::state::audit::By;
use crate::store::spoke_since;
use crate::tls::files;
use crate::tls::keys::Shown;
use crate::tls::pair::Pin;
use crate::{clock, time};

/// Hosts that are named where many are meant.
const MOST_NAMES: usize = 20;
/// A host that has been silent for longer holds up nothing.
const SEEN_DAYS: i64 = 7;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What `cert` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `cert` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the keys by which clients know this server, and how many clients have learnt the next one
    Show(Show),
    /// Bring in a new key: announce it, wait until clients have learnt it, switch to it
    #[command(after_help = "\
Examples:
  vitals-server cert rotate               makes and announces the next key
  vitals-server cert show                 how many clients have learnt it
  vitals-server cert rotate --switch      clients see it from now on; asks that all who were here
                                          within 7 days have learnt it
  vitals-server cert rotate --abort       gives it up

Connections that are open stay open; those that come see the new key.")]
    Rotate(Rotate),
}

/// What `cert show` can be told.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `cert rotate` can be told.
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// Make the next key and tell all clients; the default where none is announced
    #[arg(long, conflicts_with_all = ["switch", "abort"])]
    pub announce: bool,
    /// Make the announced key the one that clients see
    #[arg(long, conflicts_with = "abort")]
    pub switch: bool,
    /// Give up the announced key
    #[arg(long)]
    pub abort: bool,
    /// Switch also where clients that have not learnt the key are lost by it: they have to join again
    #[arg(long, requires = "switch")]
    pub force: bool,
    /// With clients.certificate: the certificate (PEM) whose key is announced
    #[arg(long, value_name = "FILE", conflicts_with_all = ["switch", "abort"])]
    pub certificate: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// How things stand.
    Show,
    /// The next step: announces where nothing is announced, and shows how things stand otherwise.
    Next,
    /// Announce a key: one that the server makes, or that of this certificate (PEM).
    Announce {
        /// The certificate.
        certificate: Option<String>,
    },
    /// Make the announced key today's.
    Switch {
        /// Also where hosts are lost by it.
        force: bool,
    },
    /// Give up the announced key.
    Abort,
}

/// Does it.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub async fn answer(place: &Place, request: Request) -> anyhow::Result<Value> {
    let keys = &place.keys;
    match request {
        Request::Show => report(place, None).await,
        Request::Next if keys.next().is_some() => report(place, None).await,
        Request::Next => {
            let pin = keys.announce(None)?;
            changed(place, pin, "announced").await
        }
        Request::Announce { certificate } => {
            let pin = keys.announce(certificate.as_deref())?;
            changed(place, pin, "announced").await
        }
        Request::Switch { force } => {
            if !force {
                all_have_learnt(place).await?;
            }
            let pin = keys.switch()?;
            changed(place, pin, if force { "in use, forced" } else { "in use" }).await
        }
        Request::Abort => {
            let pin = keys.abort()?;
            changed(place, pin, "given up").await
        }
    }
}

/// Tells those who are connected, and the audit log.
async fn changed(place: &Place, pin: Pin, what: &str) -> anyhow::Result<Value> {
    let told = place.seats.order_all(&Order::Pins(place.keys.pins()));
    place
        .state
        .audit(&By::local(), Action::KeyRotated, pin.to_string(), what)
        .await
        .with_context(|| format!("the key is {what}, but that is not in the audit log"))?;
    report(place, Some((what, told))).await
}

/// Refuses where hosts that were seen of late would not know the server any more.
async fn all_have_learnt(place: &Place) -> anyhow::Result<()> {
    let Some(next) = place.keys.next() else { return Ok(()) };
    let since_ms = clock::now_ms() - SEEN_DAYS * DAY_MS;
    let not_learnt = place.state.not_learnt(next.pin.0).await?;
    let history = place.config.data_dir.0.join("history.db");
    let asked = not_learnt.clone();
    let spoke = tokio::task::spawn_blocking(move || spoke_since(&history, &asked, since_ms, clock::now_ms()))
        .await?
        .context("it is not known which hosts were seen of late; --force switches all the same")?;
    let seen = |id: &HostId| {
        spoke.contains(id) || place.state.host(*id).is_some_and(|host| host.first_seen_ms >= since_ms)
    };
    let missing: Vec<HostId> = not_learnt.into_iter().filter(seen).collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "{} hosts that were seen within {SEEN_DAYS} days have not learnt the next key and would not know this server any \
         more: {}. They learn it when they connect; --force switches all the same, and they have to join again",
        missing.len(),
        names(place, &missing).join(", ")
    )
}

/// The names of the first of these, by name.
fn names(place: &Place, ids: &[HostId]) -> Vec<String> {
    let name =
        |id: &HostId| place.state.host(*id).map_or_else(|| id.to_string(), |host| host.name().to_owned());
    let mut names: Vec<String> = ids.iter().map(name).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    if more > 0 {
        names.push(format!("… and {more} more"));
    }
    names
}

async fn report(place: &Place, done: Option<(&str, usize)>) -> anyhow::Result<Value> {
    let shown = |key: Shown, usage: &str| json!({ "pin": key.pin.to_string(), "use": usage, "since": key.since_ms.map(time::format) });
    let (today, next) = (place.keys.today(), place.keys.next());
    let mut report = json!({
        "insecure": today.is_none(),
        "certificate": place.keys.configured().map(|(certificate, _)| certificate.display().to_string()),
        "keys": today.map(|key| shown(key, "today")).into_iter()
            .chain(next.clone().map(|key| shown(key, "next"))).collect::<Vec<_>>(),
        "done": done.map(|(what, _)| what),
        "told": done.map(|(_, told)| told),
        "hosts": Value::Null,
    });
    if let Some(next) = next {
        let (known, not_learnt) =
            (place.state.not_revoked().await?, place.state.not_learnt(next.pin.0).await?);
        report["hosts"] = json!({
            "known": known,
            "learnt": known.saturating_sub(not_learnt.len() as u64),
            "not_learnt": not_learnt.len(),
            "not_learnt_names": names(place, &not_learnt),
        });
    }
    Ok(report)
}

/// Asks, and shows the answer.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    let (files, json, request) = match args.command {
        Command::Show(show) => (show.files, show.json, Request::Show),
        Command::Rotate(rotate) => {
            let request = match (&rotate.certificate, rotate.announce, rotate.switch, rotate.abort) {
                (Some(file), ..) => Request::Announce { certificate: Some(read(file)?) },
                (None, true, ..) => Request::Announce { certificate: None },
                (None, _, true, _) => Request::Switch { force: rotate.force },
                (None, _, _, true) => Request::Abort,
                (None, false, false, false) => Request::Next,
            };
            (rotate.files, rotate.json, request)
        }
    };
    let report = super::ask(&Config::load(&files.into())?, super::Request::Cert(request))?;
    if json {
        println!("{report:#}");
    } else {
        print!("{}", text(&report));
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let name = file.display();
    let bytes = files::read(file).with_context(|| format!("cannot read {name}"))?;
    let text = String::from_utf8(bytes.with_context(|| format!("{name} does not exist"))?);
    let text = text.ok().with_context(|| format!("{name} is no PEM"))?;
    // What the server need not see does not travel.
    Ok(crate::tls::pair::certificates_of(&text))
}

/// For people.
fn text(report: &Value) -> String {
    let mut text = String::new();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    if let (Some(done), Some(told)) = (report["done"].as_str(), report["told"].as_u64()) {
        text += &format!("The key is {done}; {told} connected clients were told.\n");
    }
    if report["insecure"] == true {
        text += "The clients' port speaks plain TCP (clients.insecure): it has no key.\n";
    }
    for key in report["keys"].as_array().into_iter().flatten() {
        text += &format!("{:5}  {}  since {}\n", word(&key["use"]), word(&key["pin"]), word(&key["since"]));
    }
    if let Some(certificate) = report["certificate"].as_str() {
        text += &format!("today's certificate is {certificate}\n");
    }
    let hosts = &report["hosts"];
    if !hosts.is_null() {
        text += &format!("{} of {} hosts have learnt the next key\n", hosts["learnt"], hosts["known"]);
        let names: Vec<&str> =
            hosts["not_learnt_names"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.is_empty() {
            text += "vitals-server cert rotate --switch makes it today's\n";
        } else {
            text += &format!("not yet: {}\n", names.join(", "));
        }
    }
    text
}

#[cfg(test)]
#[path = "cert_tests.rs"]
mod tests;
