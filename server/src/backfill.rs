//! `vitals-server backfill`: owes a stretch of history to InfluxDB again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vitals_wire::log::Position;

use crate::app::targets::{history_span, open_all};
use crate::config::Config;
use crate::control::{self, Answer, Request};
use crate::data_dir::DataDir;
use crate::influx::Target;
use crate::influx::book::JOURNAL_END;
use crate::influx::owed::Span;
use crate::metrics::Metrics;
use crate::state::State;
use crate::time;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The first ms.
    pub from_ms: i64,
    /// The first that is not wanted any more.
    pub to_ms: i64,
    /// Which InfluxDB; all of them where none is named.
    pub target: Option<String>,
    /// Whose history, by id or present name; that of all hosts where none is named.
    pub host: Option<String>,
}

/// Owes it, and says what: on disk when this returns. Blocks. History is asked when it has come to `needs`: the journal's
/// end as of now.
///
/// # Errors
/// There is no such target or host, history does not go so far back, or the disk said no: the text says which.
pub fn note(
    wanted: &Wanted,
    targets: &[Arc<Target>],
    state: &State,
    keep_raw: Duration,
    needs: Position,
) -> anyhow::Result<Value> {
    let named = targets
        .iter()
        .filter(|target| wanted.target.as_ref().is_none_or(|name| *name == target.options.name));
    let named: Vec<_> = named.collect();
    if named.is_empty() {
        let known: Vec<&str> = targets.iter().map(|target| target.options.name.as_str()).collect();
        match &wanted.target {
            Some(name) => bail!("no InfluxDB is called {name:?}; configured are: {}", known.join(", ")),
            None => bail!("no InfluxDB is configured"),
        }
    }
    let host = match &wanted.host {
        Some(name) => {
            Some(state.find(name).with_context(|| format!("no host has the id or name {name:?}"))?.id)
        }
        None => None,
    };
    let history = history_span(keep_raw);
    let span = Span { from_ms: wanted.from_ms.max(history.from_ms), to_ms: wanted.to_ms.min(history.to_ms) };
    if wanted.from_ms >= wanted.to_ms {
        bail!("--from must be before --to");
    }
    if span.from_ms >= span.to_ms {
        bail!(
            "history goes from {} to {}, and none of what is wanted lies there",
            time::format(history.from_ms),
            time::format(history.to_ms)
        );
    }
    for target in &named {
        target.backfill(host, span, needs).with_context(|| {
            format!(
                "what {} is owed cannot be written to {}",
                target.options.name,
                target.book.file().display()
            )
        })?;
    }
    let names: Vec<&str> = named.iter().map(|target| target.options.name.as_str()).collect();
    Ok(json!({
        "from": time::format(span.from_ms),
        "to": time::format(span.to_ms),
        "host": wanted.host,
        "targets": names,
    }))
}

/// Asks the running server, or notes it in the files for the next start.
///
/// # Errors
/// As those of [`note`], or the server cannot be asked.
pub fn run(config: &Config, wanted: Wanted) -> anyhow::Result<()> {
    let dir = &config.data_dir.0;
    let answer = control::ask(dir, &Request::Backfill(wanted.clone()))
        .with_context(|| format!("cannot ask the server on {}", dir.display()))?;
    let (noted, when) = match answer {
        Some(Answer::Ok(noted)) => (noted, "It is being written"),
        Some(Answer::Error(error)) => bail!("{error}"),
        None => (note_in_files(config, &wanted)?, "It will be written when a server runs here"),
    };
    let targets = noted["targets"].as_array().into_iter().flatten().filter_map(Value::as_str);
    println!(
        "Noted for {}: {} from {} to {}.",
        targets.collect::<Vec<_>>().join(", "),
        noted["host"].as_str().map_or("all hosts".to_owned(), |host| format!("host {host}")),
        noted["from"].as_str().unwrap_or_default(),
        noted["to"].as_str().unwrap_or_default(),
    );
    println!("{when}; `vitals-server targets` and vitals_influx_owed_seconds on /metrics show what is left.");
    Ok(())
}

fn note_in_files(config: &Config, wanted: &Wanted) -> anyhow::Result<Value> {
    let dir = &config.data_dir.0;
    // Looked for before anything is opened: opening makes what is not there.
    let state_file = dir.join("state.db");
    if !state_file.is_file() {
        bail!(
            "no server runs on {dir}, and none ever did: there is no state.db in it; name another with --data-dir",
            dir = dir.display()
        );
    }
    let data_dir = DataDir::lock(dir)?;
    let (state, _thread) = State::open(&state_file)?;
    let targets = open_all(config, &data_dir, &Metrics::new())?;
    note(wanted, &targets, &state, config.store.keep_raw, JOURNAL_END)
}
