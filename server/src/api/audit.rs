//! The audit log, for administrators.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::caller::Administrator;
use super::error::Problem;
use super::extract::{Json, Query};
use crate::state::Entry;
use crate::time;

/// Entries in one answer.
const MAX_LIMIT: u32 = 1_000;
/// Entries where no number is asked for.
const DEFAULT_LIMIT: u32 = 100;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Those before this id: the `next` of the answer before. Default: the newest.
    before: Option<i64>,
    /// How many, 1 to 1000. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Who changed what, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditLog {
    /// The entries.
    entries: Vec<AuditEntry>,
    /// What to ask for as `before` to go on; absent: that was all.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

/// One entry.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Rises from entry to entry.
    id: i64,
    /// When (RFC 3339).
    time: String,
    /// A user's name, `token:` and a token's, `local` for a command on the server's machine, `host:` and a host's id,
    /// `server`, or `-` for nobody.
    #[schema(example = "admin")]
    who: String,
    /// From where; `-` for this machine.
    #[schema(example = "192.0.2.7")]
    address: String,
    /// What: `login`, `login_failed`, `user_added`, ….
    #[schema(example = "login")]
    action: String,
    /// To whom or what.
    target: String,
    /// More, for people.
    detail: String,
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            time: time::format(entry.time_ms),
            who: entry.who,
            address: entry.address,
            action: entry.action,
            target: entry.target,
            detail: entry.detail,
        }
    }
}

/// The audit log: logins, failures, and changes of users, tokens and hosts, by whom, from where. Newest first.
#[utoipa::path(
    get, path = "/api/v1/audit", operation_id = "list_audit", tag = "audit",
    params(AuditQuery),
    responses(
        (status = 200, description = "Entries, newest first.", body = AuditLog),
        (status = 400, description = "A query that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The log cannot be read now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(shared): State<Shared>,
    _caller: Administrator,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditLog>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: 1 to {MAX_LIMIT}; go on with before")));
    }
    // One more than asked for says whether there are more.
    let mut entries = shared.state.audit_log(query.before.unwrap_or(i64::MAX), limit + 1).await?;
    let has_more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| has_more).map(|entry| entry.id);
    Ok(Json(AuditLog { entries: entries.into_iter().map(AuditEntry::from).collect(), next }))
}
