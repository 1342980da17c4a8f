//! `vitals-server api-token`.

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Place;
use crate::config::{Config, Files};
use crate::state::api_tokens::{ApiToken, DEFAULT_LIFE, NewToken};
use crate::state::audit::By;
use crate::state::{Access, Scope};
use crate::{clock, time};

/// What `api-token` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vitals-server api-token create --name grafana --access read --expires 365d
  vitals-server api-token create --name deploy --access write --expires 30d > deploy.token
  vitals-server api-token list
  vitals-server api-token revoke grafana

`create` prints the token alone on standard output, this once: the server keeps its digest.
Programs show it as
  curl -H \"Authorization: Bearer $(cat deploy.token)\" http://127.0.0.1:7480/api/v1/hosts
Revoking ends what the token was shown for at once. Works beside a running server and without
one.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done with API tokens.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a token, and print it this once
    Create(Create),
    /// List all tokens
    List(List),
    /// Revoke a token
    Revoke(Revoke),
}

/// What `api-token create` can be told.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// What it is for; the audit log calls it so
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What it lets one do: read, write (hosts and join tokens too) or admin (everything)
    #[arg(long, value_name = "ACCESS", default_value = "read")]
    pub access: Access,
    /// Time after which it ends, such as 30d, or never
    #[arg(long, value_name = "TIME", default_value = "90d")]
    pub expires: String,
    /// A label that a host must have to be seen, such as env=prod; again for more [default: all hosts]
    #[arg(long, value_name = "KEY=VALUE")]
    pub scope: Vec<String>,
    /// Print JSON: the token as `secret`, and what is known of it
    #[arg(long)]
    pub json: bool,
}

/// What `api-token list` can be told.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `api-token revoke` can be told.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// Where the server's files are.
    #[command(flatten)]
    pub files: Files,
    /// Which: its id or name
    #[arg(value_name = "ID")]
    pub token: String,
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
    /// Make one.
    Create {
        /// What it is for.
        name: String,
        /// What it lets one do.
        access: Access,
        /// Which hosts it lets one see.
        scope: Scope,
        /// How long it holds in ms; without it, for ever.
        life_ms: Option<i64>,
    },
    /// Revoke one.
    Revoke {
        /// Its id or name.
        token: String,
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
            let tokens = state.api_tokens();
            Ok(json!({ "tokens": tokens.iter().map(|token| info(token)).collect::<Vec<_>>() }))
        }
        Request::Create { name, access, scope, life_ms } => {
            let expires_ms = life_ms.map(|life_ms| clock::now_ms().saturating_add(life_ms));
            let (secret, token) =
                state.create_api_token(&by, NewToken { name, access, scope, expires_ms }).await?;
            Ok(json!({ "secret": secret, "token": info(&token) }))
        }
        Request::Revoke { token } => {
            let token = state.revoke_api_token(&by, &token).await?;
            Ok(json!({ "revoked": info(&token) }))
        }
    }
}

fn info(token: &ApiToken) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "access": token.access,
        "scope": token.scope,
        "created": time::format(token.created_ms),
        "created_by": token.created_by,
        "expires": token.expires_ms.map(time::format),
        "expired": !token.holds(clock::now_ms()),
        "last_used": token.seen_ms().map(time::format),
    })
}

/// Asks, and shows the answer.
///
/// # Errors
/// It cannot be done; the text says why and what to do.
pub fn run(args: Args) -> anyhow::Result<()> {
    let (files, json, request) = match args.command {
        Command::List(List { files, json }) => (files, json, Request::List),
        Command::Create(Create { files, name, access, expires, scope, json }) => {
            let scope = Scope::from_pairs(scope.iter().map(String::as_str));
            let scope = scope.map_err(|error| anyhow!("--scope: {error}"))?;
            let life_ms = life(&expires)?;
            (files, json, Request::Create { name, access, scope, life_ms })
        }
        Command::Revoke(Revoke { files, token, json }) => (files, json, Request::Revoke { token }),
    };
    let config = Config::load(&files.into())?;
    let answer = super::ask(&config, super::Request::ApiToken(request.clone()))?;
    if json {
        println!("{answer:#}");
        return Ok(());
    }
    match request {
        Request::List => {
            let columns = ["id", "name", "access", "scope", "expires", "last_used", "created_by"];
            print!("{}", super::table(&answer["tokens"], &columns));
        }
        Request::Create { name, .. } => {
            let until = answer["token"]["expires"].as_str().unwrap_or("it is revoked");
            eprintln!("The token of {name}, shown this once; it holds until {until}:");
            println!("{}", answer["secret"].as_str().unwrap_or_default());
        }
        Request::Revoke { .. } => {
            eprintln!("Revoked {}.", answer["revoked"]["name"].as_str().unwrap_or_default());
        }
    }
    Ok(())
}

fn life(text: &str) -> anyhow::Result<Option<i64>> {
    if text == "never" {
        return Ok(None);
    }
    let life = humantime::parse_duration(text)
        .map_err(|error| anyhow!("--expires: {text:?} is no time such as 30d, nor never: {error}"))?;
    Ok(Some(i64::try_from(life.as_millis()).unwrap_or(DEFAULT_LIFE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_time_or_for_ever() {
        assert_eq!(life("30d").unwrap(), Some(30 * 86_400_000));
        assert_eq!(life("90d").unwrap(), Some(DEFAULT_LIFE));
        assert_eq!(life("never").unwrap(), None);
        assert!(life("soon").unwrap_err().to_string().contains("soon"));
    }
}
