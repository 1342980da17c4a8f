//! Commands that change who may do what: each is asked of the running server over its socket, and where none runs it is
//! done on the files at rest, by the same code.
//!
//! A command has a file of its own with what it can be told ([`clap`]), what is asked over the socket (`Request`), how that
//! is answered (`answer`), and how the answer is shown (`run`).

mod address;
pub mod api_token;
pub mod cert;
pub mod host;
pub mod table;
mod terminal;
pub mod token;
pub mod user;

use std::sync::Arc;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::control::{self, Answer};
use crate::data_dir::DataDir;
use crate::session::NewestKept;
use crate::session::seats::Seats;
use crate::state::State;
use crate::tls::keys::Keys;

/// What one of these commands asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Request {
    /// API tokens.
    ApiToken(api_token::Request),
    /// The keys of the clients' port.
    Cert(cert::Request),
    /// Hosts.
    Host(host::Request),
    /// Join tokens.
    Token(token::Request),
    /// People.
    User(user::Request),
}

/// What the commands act upon: the running server's, or the files at rest.
#[derive(Clone)]
pub struct Place {
    /// What is in force.
    pub config: Arc<Config>,
    /// Who may do what.
    pub state: State,
    /// Hosts that are connected; nobody is at rest.
    pub seats: Arc<Seats>,
    /// The keys of the clients' port.
    pub keys: Arc<Keys>,
    /// The newest committed time of a host; none at rest.
    pub newest: Option<NewestKept>,
}

impl Place {
    /// Answers a request.
    ///
    /// # Errors
    /// It cannot be done; the text says why and what to do.
    pub async fn answer(&self, request: Request) -> anyhow::Result<Value> {
        match request {
            Request::ApiToken(request) => api_token::answer(self, request).await,
            Request::Cert(request) => cert::answer(self, request).await,
            Request::Host(request) => host::answer(self, request).await,
            Request::Token(request) => token::answer(self, request).await,
            Request::User(request) => user::answer(self, request).await,
        }
    }
}

/// Asks the running server, or does it on the files where none runs.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub fn ask(config: &Config, request: Request) -> anyhow::Result<Value> {
    let dir = &config.data_dir.0;
    let answer = control::ask(dir, &control::Request::Access(request.clone()))
        .with_context(|| format!("cannot ask the server on {}", dir.display()))?;
    match answer {
        Some(Answer::Ok(answer)) => Ok(answer),
        Some(Answer::Error(error)) => bail!("{error}"),
        None => at_rest(config, request),
    }
}

/// Rows of JSON objects in columns, for people.
fn table(rows: &Value, columns: &[&str]) -> String {
    fn cell(value: &Value) -> String {
        match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => table::shown(text),
            Value::Object(pairs) if pairs.is_empty() => "-".to_owned(),
            Value::Object(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| format!("{key}={}", cell(value)));
                pairs.collect::<Vec<_>>().join(",")
            }
            other => other.to_string(),
        }
    }
    let heads = columns.iter().map(|name| (*name).to_owned()).collect();
    let rows = rows.as_array().into_iter().flatten();
    let lines: Vec<Vec<String>> = std::iter::once(heads)
        .chain(rows.map(|row| columns.iter().map(|name| cell(&row[*name])).collect()))
        .collect();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

fn at_rest(config: &Config, request: Request) -> anyhow::Result<Value> {
    let data_dir = DataDir::lock(&config.data_dir.0)?;
    let (state, thread) = State::open(&data_dir.path().join("state.db"))?;
    let keys = Arc::new(Keys::open(config, &data_dir)?);
    let place = Place { config: Arc::new(config.clone()), state, seats: Arc::default(), keys, newest: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(place.answer(request));
    drop(place);
    // The thread ends with the last handle; what it was told is on disk already.
    let _ = thread.join();
    answer
}
