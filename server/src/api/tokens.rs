//! API tokens, for administrators.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::caller::{Access, Administrator, Scope};
use super::error::Problem;
use super::extract::{Json, Path};
use crate::state::api_tokens::{ApiToken, DEFAULT_LIFE, NewToken};
use crate::{clock, time};

/// What a token lets one do; each may do what those before it may.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessName {
    /// Look.
    Read,
    /// Manage hosts and join tokens.
    Write,
    /// Everything: users, API tokens and the audit log too.
    Admin,
}

impl From<AccessName> for Access {
    fn from(name: AccessName) -> Self {
        match name {
            AccessName::Read => Self::Read,
            AccessName::Write => Self::Write,
            AccessName::Admin => Self::Admin,
        }
    }
}

impl From<Access> for AccessName {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Write => Self::Write,
            Access::Admin => Self::Admin,
        }
    }
}

/// All API tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenList {
    /// By name.
    tokens: Vec<TokenInfo>,
}

/// An API token. Its text is nowhere but with who made it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenInfo {
    /// Its id.
    #[schema(example = "3f9c2a7d10be")]
    id: String,
    /// What it is for.
    #[schema(example = "grafana")]
    name: String,
    /// What it lets one do.
    access: AccessName,
    /// Labels that a host must have to be seen; empty: all hosts are seen.
    scope: BTreeMap<String, String>,
    /// When it was made (RFC 3339).
    created: String,
    /// By whom.
    #[schema(example = "admin")]
    created_by: String,
    /// When it ends (RFC 3339); absent: not by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    /// It has ended by time.
    expired: bool,
    /// When it was used last (RFC 3339), to the minute after a restart; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<String>,
}

/// A token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiToken {
    /// What it is for, and what the audit log will call it: 1 to 64 letters, digits and `. _ - @` of ASCII, beginning with a
    /// letter or digit.
    #[schema(
        example = "grafana",
        min_length = 1,
        max_length = 64,
        pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]*$"
    )]
    name: String,
    /// What it lets one do.
    access: AccessName,
    /// For `read` and `write`: labels that a host must have to be seen. Default: all hosts are seen.
    #[serde(default)]
    scope: BTreeMap<String, String>,
    /// When it ends (RFC 3339), or `never`. Default: in 90 days.
    #[schema(example = "2030-01-31T12:00:00Z")]
    expires: Option<String>,
}

/// A token just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// The token itself, for `Authorization: Bearer`. Nobody can show it again.
    #[schema(example = "vt_…")]
    secret: String,
    /// What is known of it.
    token: TokenInfo,
}

impl TokenInfo {
    /// What is known of a token.
    pub(crate) fn new(token: &ApiToken) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name.to_string(),
            access: token.access.into(),
            scope: token.scope.0.clone(),
            created: time::format(token.created_ms),
            created_by: token.created_by.to_string(),
            expires: token.expires_ms.map(time::format),
            expired: !token.holds(clock::now_ms()),
            last_used: token.seen_ms().map(time::format),
        }
    }
}

/// All API tokens, those that have expired too.
#[utoipa::path(
    get, path = "/api/v1/tokens", operation_id = "list_api_tokens", tag = "tokens",
    responses(
        (status = 200, description = "All tokens.", body = TokenList),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(State(shared): State<Shared>, _caller: Administrator) -> Json<TokenList> {
    let tokens = shared.state.api_tokens();
    Json(TokenList { tokens: tokens.iter().map(|token| TokenInfo::new(token)).collect() })
}

/// Make an API token. Its text is shown this once.
#[utoipa::path(
    post, path = "/api/v1/tokens", operation_id = "create_api_token", tag = "tokens",
    request_body = NewApiToken,
    responses(
        (status = 201, description = "Made.", body = CreatedToken),
        (status = 400, description = "No JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken, or there are as many tokens as there may be.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not said to be JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "JSON, but no token; or a name, scope or expiry that cannot be.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(shared): State<Shared>,
    Administrator(caller): Administrator,
    Json(new): Json<NewApiToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    let expires_ms = match new.expires.as_deref() {
        None => Some(clock::now_ms().saturating_add(DEFAULT_LIFE)),
        Some("never") => None,
        Some(time) => {
            let time = time::parse(time);
            Some(time.map_err(|error| Problem::unprocessable(format!("expires: {error}, or as \"never\"")))?)
        }
    };
    let (name, access, scope) = (new.name, new.access.into(), Scope(new.scope));
    let new = NewToken { name, access, scope, expires_ms };
    let (secret, token) = shared.state.create_api_token(&caller.by, new).await?;
    Ok((StatusCode::CREATED, Json(CreatedToken { secret, token: TokenInfo::new(&token) })))
}

/// One API token, without its text.
#[utoipa::path(
    get, path = "/api/v1/tokens/{id}", operation_id = "get_api_token", tag = "tokens",
    params(("id" = String, Path, description = "The token's id or name.")),
    responses(
        (status = 200, description = "The token.", body = TokenInfo),
        (status = 400, description = "A path that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such token.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn one(
    State(shared): State<Shared>,
    _caller: Administrator,
    Path(id): Path<String>,
) -> Result<Json<TokenInfo>, Problem> {
    Ok(Json(TokenInfo::new(&*shared.state.api_token_called(&id)?)))
}

/// Revoke an API token: nothing that it was shown for goes on.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", operation_id = "revoke_api_token", tag = "tokens",
    params(("id" = String, Path, description = "The token's id or name.")),
    responses(
        (status = 204, description = "Revoked."),
        (status = 400, description = "A path that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such token.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn revoke(
    State(shared): State<Shared>,
    Administrator(caller): Administrator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    shared.state.revoke_api_token(&caller.by, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
