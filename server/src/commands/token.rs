//! `vitals-server token`: the tokens with which hosts join.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vitals_wire::ids::HostId;
use vitals_wire::token::JoinToken;

use super::Place;
use super::address::{self, AddressError, Machine};
use super::table::table;
use crate::config::{Config, Files};
use crate::state::audit::By;
use crate::state::{JoinRecord, NewJoinToken, StateError};
use crate::{clock, time};

/// Times for which a token can hold.
const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 365 * 24 * 3_600);
/// How long a token holds where nobody says it.
const LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Hosts that a token may let in.
const USES: std::ops::RangeInclusive<u32> = 1..=1_000_000;

/// What `token` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vitals-server token create                                   one host, within 24 h
  vitals-server token create --uses 50 --label env=prod        fifty hosts, labelled
  vitals-server token create --address vitals.example.org      where clients reach this server
  vitals-server token create --replace web-1                   a new machine in web-1's place
  vitals-server token create > token && chmod 600 token        for VITALS_TOKEN_FILE of the client
  vitals-server token list
  vitals-server token revoke 5b0c4e91a7d2

Whoever holds a token may join. Only the token goes to standard output; it is not shown again.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token: one text that holds all a client needs to join
    Create(Create),
    /// List all tokens, without their secrets
    List(List),
    /// Revoke a token: it lets nobody in any more; hosts that joined with it stay
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    files: Files,
    /// Hosts that it may let in
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// Time after which it lets nobody in
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "24h")]
    expires: Duration,
    /// Label of the hosts that it lets in, which their clients cannot change; again for more
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Host, by id or name, whose name and history the newcomer takes over; the machine before it is shut out
    #[arg(long, value_name = "HOST")]
    replace: Option<String>,
    /// Where clients reach this server; again or with commas for more, tried in order [default: public_address, else what
    /// the server listens on]
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    address: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
struct Revoke {
    #[command(flatten)]
    files: Files,
    /// Its id, as `token list` shows it
    id: String,
    /// Print JSON, as the API gives it
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    vitals_wire::name::check_label(key, value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// All of them.
    List,
    /// A new one.
    Create(Wanted),
    /// One lets nobody in any more.
    Revoke {
        /// Which.
        id: String,
    },
}

/// What a token is to be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// Hosts that it may let in; 1 where nothing is said.
    pub uses: Option<u32>,
    /// Seconds for which it holds; 24 h where nothing is said.
    pub expires_seconds: Option<u64>,
    /// Labels of the hosts that it lets in.
    pub labels: BTreeMap<String, String>,
    /// The host whose place a newcomer takes, by id or name.
    pub replace: Option<String>,
    /// Where clients reach this server.
    pub addresses: Vec<String>,
}

/// A token that was made: the only time that its text is seen.
#[derive(Debug, Clone)]
pub struct Made {
    /// All that a client needs.
    pub text: String,
    /// Where clients reach this server.
    pub addresses: Vec<String>,
    /// What to mind.
    pub note: Option<&'static str>,
    /// Its record.
    pub record: std::sync::Arc<JoinRecord>,
}

/// Why no token is made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No address is known, or one is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A number outside its bounds.
    #[error("{0}")]
    Value(String),
    /// There is no such host to replace.
    #[error("no host has the id or name {0:?}")]
    NoHost(String),
    /// The state does not take it.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Place {
    /// Makes a join token. `opened_under` is the name under which the page was opened.
    ///
    /// # Errors
    /// It cannot be made; the text says why and what to do.
    pub async fn create_join_token(
        &self,
        by: &By,
        wanted: Wanted,
        opened_under: Option<&str>,
    ) -> Result<Made, CreateError> {
        let uses = wanted.uses.unwrap_or(1);
        if !USES.contains(&uses) {
            return Err(CreateError::Value(format!("{uses} uses: 1 to {} are taken", USES.end())));
        }
        let lifetime = wanted.expires_seconds.map_or(LIFETIME, Duration::from_secs);
        if !LIFETIMES.contains(&lifetime) {
            return Err(CreateError::Value("a token holds for 1 s to 10 years".to_owned()));
        }
        let replaces = match &wanted.replace {
            None => None,
            Some(host) => {
                let found = self.state.find(host).ok_or_else(|| CreateError::NoHost(host.clone()))?;
                if uses != 1 {
                    return Err(CreateError::Value("a token that replaces a host has one use".to_owned()));
                }
                Some(found.id)
            }
        };
        let config = &self.config;
        let reached = address::reached(
            &wanted.addresses,
            &config.public_address,
            opened_under,
            config.clients.listen,
            Machine::this,
        )?;
        let lifetime_ms = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
        let new = NewJoinToken {
            expires_ms: clock::now_ms().saturating_add(lifetime_ms),
            max_uses: uses,
            labels: wanted.labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            replaces,
        };
        let (record, secret) = self.state.create_join_token(by, new).await?;
        let token = JoinToken {
            secret,
            expires_ms: record.expires_ms,
            pins: self.keys.pins().into_vec(),
            addresses: reached.addresses.clone(),
        };
        Ok(Made { text: token.to_string(), addresses: reached.addresses, note: reached.note, record })
    }

    /// What a host is called now; its id where it is gone.
    pub(crate) fn name_of(&self, host: HostId) -> String {
        self.state.host(host).map_or_else(|| host.to_string(), |host| host.name().to_owned())
    }

    fn token_json(&self, token: &JoinRecord) -> Value {
        json!({
            "id": token.id,
            "state": token.standing(clock::now_ms()),
            "created": time::format(token.created_ms),
            "created_by": token.created_by,
            "expires": time::format(token.expires_ms),
            "uses": token.uses,
            "max_uses": token.max_uses,
            "labels": token.labels,
            "replaces": token.replaces.map(|host| self.name_of(host)),
        })
    }
}

/// Does it.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub async fn answer(place: &Place, request: Request) -> anyhow::Result<Value> {
    match request {
        Request::List => {
            let tokens: Vec<_> =
                place.state.join_tokens().iter().map(|token| place.token_json(token)).collect();
            Ok(json!({ "tokens": tokens }))
        }
        Request::Create(wanted) => {
            let made = place.create_join_token(&By::local(), wanted, None).await?;
            let mut answer = place.token_json(&made.record);
            answer["token"] = made.text.into();
            answer["addresses"] = made.addresses.into();
            answer["note"] = made.note.into();
            Ok(answer)
        }
        Request::Revoke { id } => {
            let token = place.state.revoke_join_token(&By::local(), &id).await?;
            Ok(place.token_json(&token))
        }
    }
}

/// Asks, and shows the answer.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create(create) => {
            let labels: BTreeMap<String, String> = create.label.iter().cloned().collect();
            if labels.len() < create.label.len() {
                bail!("a label's key stands twice");
            }
            let wanted = Wanted {
                uses: Some(create.uses),
                // A part of a second counts as one.
                expires_seconds: Some(
                    create.expires.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX),
                ),
                labels,
                replace: create.replace,
                addresses: create.address,
            };
            let answer = super::ask(
                &Config::load(&create.files.into())?,
                super::Request::Token(Request::Create(wanted)),
            )?;
            if create.json {
                println!("{answer:#}");
                return Ok(());
            }
            println!("{}", answer["token"].as_str().context("the server gave no token")?);
            eprint!("{}", about(&answer));
        }
        Command::List(list) => {
            let answer =
                super::ask(&Config::load(&list.files.into())?, super::Request::Token(Request::List))?;
            if list.json {
                println!("{answer:#}");
            } else {
                print!("{}", listed(&answer));
            }
        }
        Command::Revoke(Revoke { files, id, json }) => {
            let request = super::Request::Token(Request::Revoke { id: id.clone() });
            let answer = super::ask(&Config::load(&files.into())?, request)?;
            if json {
                println!("{answer:#}");
            } else {
                println!("{id} is revoked: it lets nobody in any more. Hosts that joined with it stay.");
            }
        }
    }
    Ok(())
}

/// What is said beside the token.
fn about(answer: &Value) -> String {
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let addresses: Vec<&str> =
        answer["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (uses, until) = (answer["max_uses"].as_u64().unwrap_or(1), text("expires"));
    let hosts = if uses == 1 { "1 host".to_owned() } else { format!("{uses} hosts") };
    let mut about =
        format!("Token {} lets in {hosts} until {until}, at {}.\n", text("id"), addresses.join(", "));
    if let Some(replaced) = answer["replaces"].as_str() {
        about += &format!(
            "Who joins with it takes the name and the history of {replaced}; the machine before it is shut out.\n"
        );
    }
    if let Some(note) = answer["note"].as_str() {
        about += &format!("Mind: {note}.\n");
    }
    about + "Give it to the client in VITALS_TOKEN or VITALS_TOKEN_FILE. It is not shown again.\n"
}

fn listed(answer: &Value) -> String {
    let rows: Vec<[String; 8]> = answer["tokens"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|token| {
            let text = |key: &str| token[key].as_str().unwrap_or_default().to_owned();
            let labels = token["labels"].as_object().into_iter().flatten();
            let labels: Vec<String> =
                labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            [
                text("id"),
                text("state"),
                format!("{}/{}", token["uses"], token["max_uses"]),
                text("expires"),
                labels.join(","),
                text("replaces"),
                text("created"),
                text("created_by"),
            ]
        })
        .collect();
    table(["id", "state", "uses", "expires", "labels", "replaces", "created", "by"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_token_holds_no_secret_and_says_where_it_leads() {
        let answer = json!({
            "id": "5b0c4e91a7d2", "token": "vj1_secret", "max_uses": 2, "expires": "2026-01-01T00:00:00Z",
            "addresses": ["a:1", "b:2"], "replaces": "web", "note": "mind this",
        });
        let about = about(&answer);
        assert!(about.contains("2 hosts until 2026") && about.contains("a:1, b:2"), "{about}");
        assert!(about.contains("history of web") && about.contains("Mind: mind this."), "{about}");
        assert!(!about.contains("vj1_"), "{about}");
    }

    #[test]
    fn tokens_stand_in_columns() {
        let list = json!({ "tokens": [
            { "id": "5b", "state": "valid", "uses": 1, "max_uses": 50, "expires": "x", "labels": {"env": "prod"},
              "created": "y", "created_by": "local", "replaces": null },
        ]});
        let shown = listed(&list);
        assert!(shown.lines().nth(1).unwrap().contains("5b  valid  1/50  x        env=prod  -"), "{shown}");
    }

    #[test]
    fn a_label_is_a_pair() {
        assert_eq!(pair("env=prod"), Ok(("env".to_owned(), "prod".to_owned())));
        assert!(pair("env").is_err() && pair("host=x").is_err());
    }
}
