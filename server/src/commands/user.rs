//! `vitals-server user`.

use anyhow::bail;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Place;
use crate::config::Overrides;

/// What `user` can be told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the server's files are.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// All of them.
    List,
}

/// Does it.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub async fn answer(_place: &Place, _request: Request) -> anyhow::Result<Value> {
    bail!("not there yet")
}

/// Asks, and shows the answer.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub fn run(_args: Args) -> anyhow::Result<()> {
    bail!("not there yet")
}
