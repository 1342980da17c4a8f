//! Logging in and out, and who one is.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::auth::throttle::Outcome;
use super::auth::{Trying, cookie, lifetimes};
use super::caller::{Caller, Grant, Origin};
use super::error::Problem;
use super::extract::{Json, Query};
use super::{Shared, auth};
use crate::state::audit::{Action, By};
use crate::state::password::{Asks, HashError, MAX_BYTES, Password};
use crate::state::people::{Person, PersonChange};
use crate::{clock, time};

/// Names that are looked up; a longer one is nobody's.
const MAX_NAME_BYTES: usize = 64;

/// A name and its password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user's name.
    #[schema(example = "admin")]
    name: String,
    /// The user's password.
    #[schema(value_type = String, format = Password)]
    password: Password,
}

/// A new password, and the present one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The password until now.
    #[schema(value_type = String, format = Password)]
    current: Password,
    /// The password from now on: at least 12 characters, any text, such as a phrase of some words.
    #[schema(value_type = String, format = Password, min_length = 12, max_length = 1024)]
    new: Password,
}

/// Which logins end.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LogOutQuery {
    /// All of the user's logins, on all browsers; otherwise this one.
    #[serde(default)]
    everywhere: bool,
}

/// Who calls.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// The user's name, or the token's.
    #[schema(example = "admin")]
    name: String,
    /// `user`, or `token`.
    #[schema(example = "user")]
    kind: &'static str,
    /// `read`, `write` or `admin`: each may do what those before it may.
    #[schema(example = "admin")]
    access: &'static str,
    /// Labels that a host must have to be seen; empty: all hosts are seen.
    scope: BTreeMap<String, String>,
    /// The password must be changed before anything else.
    must_change: bool,
    /// When this login, or token, ends without another request (RFC 3339); absent: not by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl Me {
    fn new(caller: &Caller) -> Self {
        let (name, kind, must_change, until_ms) = match &caller.grant {
            Grant::Login { login, person, lifetimes } => {
                (person.name.to_string(), "user", person.must_change, Some(login.until_ms(*lifetimes)))
            }
            Grant::Token(token) => (token.name.to_string(), "token", false, token.expires_ms),
        };
        Self {
            name,
            kind,
            access: caller.access.word(),
            scope: caller.scope.0.clone(),
            must_change,
            expires: until_ms.map(time::format),
        }
    }
}

/// Log in: sets the cookie of a login, `__Host-vitals` over TLS, `vitals-session` on loopback.
#[utoipa::path(
    post, path = "/api/v1/session", operation_id = "log_in", tag = "session", security(()),
    request_body = Credentials,
    responses(
        (status = 200, description = "Logged in; who that is.", body = Me, headers(("Set-Cookie" = String, description = "The login: HttpOnly, SameSite=Lax, Secure over TLS."))),
        (status = 400, description = "No JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No such name and password: which of them is wrong is not said.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Another site's page asks.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not said to be JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "JSON, but no name and password.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many wrong passwords from this address: `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn log_in(
    State(shared): State<Shared>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    Json(said): Json<Credentials>,
) -> Result<Response, Problem> {
    let trying = shared.auth.begin(&origin, &said.name)?;
    let asks = if shared.auth.is_known(&origin) { Asks::Known } else { Asks::Stranger };
    let Some(person) = proven(&shared, &origin, trying, asks, &said.name, said.password).await? else {
        return Err(Problem::unauthorized("no user has this name and this password"));
    };
    let response = logged_in(&shared, &origin, &headers, &person).await?;
    response.ok_or_else(|| Problem::unauthorized("no user has this name and this password"))
}

/// The person whose name and password these are; takes down how it ended.
async fn proven(
    shared: &Shared,
    origin: &Origin,
    trying: Trying<'_>,
    asks: Asks,
    name: &str,
    password: Password,
) -> Result<Option<std::sync::Arc<Person>>, Problem> {
    let known = if name.len() > MAX_NAME_BYTES { "" } else { name };
    // No password is longer: an empty one costs as much as any, and is nobody's.
    let password = if password.reveal().len() > MAX_BYTES { Password::new("") } else { password };
    let person = match shared.state.knows(known, password, asks).await {
        Ok(person) => person,
        Err(error) => {
            trying.end(Outcome::Untried);
            return Err(busy(error));
        }
    };
    trying.end(if person.is_some() { Outcome::Right } else { Outcome::Wrong });
    if person.is_none() {
        // A name that nobody has may be a password in the wrong field: it is told to nobody.
        let is_known = shared.state.person(known).is_some();
        let target = if is_known { known } else { "(unknown)" };
        let by = By { who: "-".into(), from: origin.address.to_string().into() };
        if let Some(left_out) = shared.auth.failed(is_known, Instant::now()) {
            let detail = match left_out {
                0 => String::new(),
                more => format!("{more} more failed since the entry before"),
            };
            shared.state.audit_soon(&by, Action::LoginFailed, target, detail);
        }
    }
    Ok(person)
}

fn busy(error: HashError) -> Problem {
    Problem::unavailable(error.to_string()).after(std::time::Duration::from_secs(2))
}

/// Makes a login and answers with its cookie; `None` where the person was changed in between.
async fn logged_in(
    shared: &Shared,
    origin: &Origin,
    headers: &HeaderMap,
    person: &Person,
) -> Result<Option<Response>, Problem> {
    let lifetimes = lifetimes(shared);
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let made = shared.state.log_in(person, origin.address, agent, lifetimes, clock::now_ms()).await?;
    let Some((id, login)) = made else { return Ok(None) };
    let caller = auth::caller_of(origin, login, shared.state.person(&person.name), lifetimes);
    let (Some(caller), Some(cookie)) = (caller, cookie::set(origin, &id, lifetimes.lifetime.as_secs()))
    else {
        return Ok(None);
    };
    let headers = AppendHeaders([(header::SET_COOKIE, cookie)]);
    Ok(Some((headers, Json(Me::new(&caller))).into_response()))
}

/// Log out: ends this login, or all of the user's.
#[utoipa::path(
    delete, path = "/api/v1/session", operation_id = "log_out", tag = "session",
    params(LogOutQuery),
    responses(
        (status = 204, description = "Logged out."),
        (status = 400, description = "A query that cannot be read.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "An API token, or another site's page.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn log_out(
    State(shared): State<Shared>,
    Extension(origin): Extension<Origin>,
    caller: Caller,
    Query(query): Query<LogOutQuery>,
) -> Result<Response, Problem> {
    let (_, login) = caller.person()?;
    shared.state.log_out(&caller.by, login, query.everywhere).await.map_err(Problem::from)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(cookie) = cookie::clear(&origin) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Who calls, and what that one may do.
#[utoipa::path(
    get, path = "/api/v1/me", operation_id = "get_me", tag = "session",
    responses(
        (status = 200, description = "Who calls.", body = Me),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn me(caller: Caller) -> Json<Me> {
    Json(Me::new(&caller))
}

/// Change one's own password: ends all of one's logins, and gives a new one.
#[utoipa::path(
    put, path = "/api/v1/me/password", operation_id = "change_password", tag = "session",
    request_body = PasswordChange,
    responses(
        (status = 200, description = "Changed; who that is.", body = Me, headers(("Set-Cookie" = String, description = "The new login."))),
        (status = 400, description = "No JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Nobody is logged in.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The present password is another; or an API token, or another site's page.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too long.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Not said to be JSON.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "JSON, but no passwords; or a new one that cannot be: too short, too long, too obvious, or the present one.", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many wrong passwords from this address: `Retry-After` says how long to wait.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The server cannot do it now.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn change_password(
    State(shared): State<Shared>,
    Extension(origin): Extension<Origin>,
    caller: Caller,
    headers: HeaderMap,
    Json(said): Json<PasswordChange>,
) -> Result<Response, Problem> {
    let (person, _) = caller.person()?;
    said.new.check(&person.name).map_err(|error| Problem::unprocessable(error.to_string()))?;
    if said.new == said.current {
        return Err(Problem::unprocessable("the new password is the present one: take another"));
    }
    let trying = shared.auth.begin(&origin, &person.name)?;
    if proven(&shared, &origin, trying, Asks::Known, &person.name, said.current).await?.is_none() {
        return Err(Problem::forbidden("the present password is another"));
    }
    let change = PersonChange { password: Some((said.new, false)), ..PersonChange::default() };
    let person = shared.state.change_person(&caller.by, &person.name, change).await?;
    let response = logged_in(&shared, &origin, &headers, &person).await?;
    response.ok_or_else(|| Problem::unauthorized("the password was changed again meanwhile: log in"))
}
