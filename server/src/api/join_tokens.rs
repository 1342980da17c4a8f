//! Join tokens: how hosts are let in.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::caller::{Access, Caller, Origin};
use super::error::Problem;
use super::extract::{Json, Path};
use crate::commands::token::{CreateError, Wanted};
use crate::state::JoinRecord;
use crate::{clock, time};

/// All join tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct JoinTokenList {
    /// Newest first.
    tokens: Vec<JoinTokenInfo>,
}

/// A join token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct JoinTokenInfo {
    /// What it is called in lists and commands. No secret.
    #[schema(example = "5b0c4e91a7d2")]
    id: String,
    /// `valid`, `expired`, `used_up` or `revoked`.
    #[schema(example = "valid")]
    state: &'static str,
    /// When it was made (RFC 3339).
    created: String,
    /// By whom: a person's name, `token:` and an API token's name, or `local` for a command.
    #[schema(example = "admin")]
    created_by: String,
    /// When it expires (RFC 3339).
    expires: String,
    /// Hosts that it has let in.
    uses: u32,
    /// Hosts that it may let in.
    #[schema(example = 50)]
    max_uses: u32,
    /// Labels of the hosts that it lets in.
    #[schema(example = json!({ "env": "prod" }))]
    labels: BTreeMap<String, String>,
    /// The host whose name and history the newcomer takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

/// What a join token is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewJoinToken {
    /// Hosts that it may let in; 1 where nothing is said.
    #[schema(example = 50, minimum = 1, maximum = 1_000_000)]
    uses: Option<u32>,
    /// Seconds for which it holds; a day where nothing is said.
    #[schema(example = 86400, minimum = 1, maximum = 315_360_000)]
    expires_seconds: Option<u64>,
    /// Labels of the hosts that it lets in.
    #[schema(example = json!({ "env": "prod" }))]
    labels: BTreeMap<String, String>,
    /// The host, by id or name, whose name and history the newcomer takes over; its secret lets nobody in any more then.
    replace: Option<String>,
    /// Where clients reach this server, `host` or `host:port` each; where nothing is said, as configured, or else the name
    /// under which this API was called.
    #[schema(example = json!(["vitals.example.org"]))]
    addresses: Vec<String>,
}

/// A join token that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeJoinToken {
    /// All that a client needs to join, in one text. It is not shown again.
    #[schema(example = "vj1_…")]
    token: String,
    /// Where clients reach this server, as the token says.
    addresses: Vec<String>,
    /// What to mind, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    /// What is kept of it.
    #[serde(flatten)]
    info: JoinTokenInfo,
}

/// All join tokens, without their secrets; of a caller with a scope, those whose hosts it will see.
#[utoipa::path(
    get, path = "/api/v1/join-tokens", operation_id = "list_join_tokens", tag = "hosts",
    responses(
        (status = 200, description = "Those that the caller may see.", body = JoinTokenList),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights.", body = Problem),
    )
)]
pub async fn list(caller: Caller, State(shared): State<Shared>) -> Result<Json<JoinTokenList>, Problem> {
    caller.may(Access::Write)?;
    let tokens = shared.state.join_tokens();
    let seen = tokens.iter().filter(|token| is_seen(&caller, token));
    Ok(Json(JoinTokenList { tokens: seen.map(|token| info(&shared, token)).collect() }))
}

/// Makes a join token: one text that holds all a client needs. It is shown this once.
#[utoipa::path(
    post, path = "/api/v1/join-tokens", operation_id = "create_join_token", tag = "hosts",
    request_body = NewJoinToken,
    responses(
        (status = 201, description = "Made.", body = MadeJoinToken),
        (status = 400, description = "No JSON.", body = Problem),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights, or labels outside the caller's scope.", body = Problem),
        (status = 404, description = "No such host to replace.", body = Problem),
        (status = 409, description = "Too many join tokens are kept.", body = Problem),
        (status = 413, description = "Too long.", body = Problem),
        (status = 415, description = "Not said to be JSON.", body = Problem),
        (status = 422, description = "A label, address or number that cannot be, or no address is known.", body = Problem),
        (status = 503, description = "It cannot be written now.", body = Problem),
    )
)]
pub async fn create(
    caller: Caller,
    State(shared): State<Shared>,
    origin: Option<Extension<Origin>>,
    Json(new): Json<NewJoinToken>,
) -> Result<(StatusCode, Json<MadeJoinToken>), Problem> {
    caller.may(Access::Write)?;
    if let Some((key, value)) = caller.scope.0.iter().find(|(key, value)| new.labels.get(*key) != Some(value))
    {
        return Err(Problem::forbidden(format!(
            "you may only let in hosts that you see: label them {key}={value}"
        )));
    }
    // By its id from here on: by then another host may have the name.
    let replace = match &new.replace {
        Some(host) => Some(super::hosts::find(&shared, &caller, host)?.id.to_string()),
        None => None,
    };
    let wanted = Wanted {
        uses: new.uses,
        expires_seconds: new.expires_seconds,
        labels: new.labels,
        replace,
        addresses: new.addresses,
    };
    let under = origin.and_then(|Extension(origin)| origin.authority);
    let made = shared.place.create_join_token(&caller.by, wanted, under.as_deref()).await?;
    let (addresses, note) = (made.addresses, made.note);
    let made = MadeJoinToken { token: made.text, addresses, note, info: info(&shared, &made.record) };
    Ok((StatusCode::CREATED, Json(made)))
}

/// One join token, without its secret.
#[utoipa::path(
    get, path = "/api/v1/join-tokens/{id}", operation_id = "get_join_token", tag = "hosts",
    params(("id" = String, Path, description = "Its id, as the list shows it.")),
    responses(
        (status = 200, description = "The join token.", body = JoinTokenInfo),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights.", body = Problem),
        (status = 404, description = "No such join token, or none that the caller may see.", body = Problem),
    )
)]
pub async fn one(
    caller: Caller,
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<JoinTokenInfo>, Problem> {
    let token = find(&caller, &shared, &id)?;
    Ok(Json(info(&shared, &token)))
}

/// Revokes a join token: it lets nobody in any more. Hosts that joined with it stay.
#[utoipa::path(
    delete, path = "/api/v1/join-tokens/{id}", operation_id = "revoke_join_token", tag = "hosts",
    params(("id" = String, Path, description = "Its id, as the list shows it.")),
    responses(
        (status = 200, description = "Revoked, also where it was before.", body = JoinTokenInfo),
        (status = 401, description = "Nobody is logged in.", body = Problem),
        (status = 403, description = "Too few rights.", body = Problem),
        (status = 404, description = "No such join token, or none that the caller may see.", body = Problem),
        (status = 503, description = "It cannot be written now.", body = Problem),
    )
)]
pub async fn revoke(
    caller: Caller,
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<JoinTokenInfo>, Problem> {
    let token = find(&caller, &shared, &id)?;
    let token = shared.state.revoke_join_token(&caller.by, &token.id).await?;
    Ok(Json(info(&shared, &token)))
}

/// A join token that the caller may manage: one of hosts outside its scope is not there.
fn find(caller: &Caller, shared: &Shared, id: &str) -> Result<Arc<JoinRecord>, Problem> {
    caller.may(Access::Write)?;
    let tokens = shared.state.join_tokens();
    let found = tokens.into_iter().find(|token| token.id == id && is_seen(caller, token));
    found.ok_or_else(|| Problem::not_found(format!("no join token has the id {id:?}")))
}

/// Whether the hosts that it lets in are in the caller's scope.
fn is_seen(caller: &Caller, token: &JoinRecord) -> bool {
    caller
        .scope
        .0
        .iter()
        .all(|(key, value)| token.labels.get(key.as_str()).is_some_and(|own| **own == **value))
}

fn info(shared: &Shared, token: &JoinRecord) -> JoinTokenInfo {
    JoinTokenInfo {
        id: token.id.clone(),
        state: token.standing(clock::now_ms()),
        created: time::format(token.created_ms),
        created_by: token.created_by.clone(),
        expires: time::format(token.expires_ms),
        uses: token.uses,
        max_uses: token.max_uses,
        labels: token.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        replaces: token.replaces.map(|host| shared.place.name_of(host)),
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        let detail = error.to_string();
        match error {
            CreateError::NoHost(_) => Self::not_found(detail),
            CreateError::Address(_) | CreateError::Value(_) => Self::unprocessable(detail),
            CreateError::State(error) => error.into(),
        }
    }
}
