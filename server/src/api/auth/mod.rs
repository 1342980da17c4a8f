//! Who may use the API: every request passes [`gate`], which finds out who calls, by cookie or token, and turns away who is
//! nobody. What is open to all stands in `is_open` alone: a route that forgets to ask is closed.
//!
//! What an operation needs beyond that, it takes as `caller::{Reader, Writer, Administrator}`. Should one that changes
//! something forget it, the gate still asks for `write` but for what everybody may change of his own.

pub mod cookie;
pub mod hold;
pub mod throttle;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Extensions, HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::caller::{Access, Caller, Grant, Origin, Scope};
use super::error::Problem;
use crate::clock;
use crate::seldom::Seldom;
use crate::state::audit::By;
use crate::state::logins::{Lifetimes, Login};
use crate::state::people::Person;
use throttle::{Outcome, Throttle, Try};

/// Where one logs in and out.
const SESSION: &str = "/api/v1/session";
/// Who one is.
const ME: &str = "/api/v1/me";
/// One's own password.
const MY_PASSWORD: &str = "/api/v1/me/password";

/// What logging in needs beyond the state.
#[derive(Debug, Clone)]
pub struct Auth {
    throttle: Arc<Mutex<Throttle>>,
    failed: Arc<Failed>,
}

/// Keeps wrong passwords from filling the audit log and the log: those for names that somebody has are seen however many
/// are tried for others.
#[derive(Debug)]
struct Failed {
    known: Seldom,
    unknown: Seldom,
}

impl Default for Auth {
    fn default() -> Self {
        let failed = Failed { known: Seldom::for_audit(), unknown: Seldom::for_audit() };
        Self { throttle: Arc::default(), failed: Arc::new(failed) }
    }
}

/// A try of a password that counts until it has ended, also if whoever asked goes away in between.
#[derive(Debug)]
pub struct Trying<'a> {
    auth: &'a Auth,
    one: Option<Try>,
}

impl Auth {
    /// Asks to try a password.
    ///
    /// # Errors
    /// 429.
    pub fn begin(&self, origin: &Origin, name: &str) -> Result<Trying<'_>, Problem> {
        match self.throttle().begin(origin.address, name, Instant::now()) {
            Ok(one) => Ok(Trying { auth: self, one: Some(one) }),
            Err(wait) => Err(Problem::too_many(
                "too many wrong passwords from your address: wait, then try again",
                wait,
            )),
        }
    }

    /// Knows from the start that somebody has logged in from there.
    pub fn knowing(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let auth = Self::default();
        addresses.into_iter().for_each(|address| auth.throttle().know(address, Instant::now()));
        auth
    }

    /// Whether somebody has logged in from there before, as far as is remembered.
    pub fn is_known(&self, origin: &Origin) -> bool {
        self.throttle().is_known(origin.address, Instant::now())
    }

    /// `Some` where a wrong password is to be taken down, with the number of those left out since the last; `is_known`:
    /// somebody has that name.
    pub fn failed(&self, is_known: bool, now: Instant) -> Option<u64> {
        if is_known { self.failed.known.due(now) } else { self.failed.unknown.due(now) }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trying<'_> {
    /// Says how it ended.
    pub fn end(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(one) = self.one.take() {
            self.auth.throttle().end(one, outcome, Instant::now());
        }
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.finish(Outcome::Wrong);
    }
}

/// How long logins hold.
pub fn lifetimes(shared: &Shared) -> Lifetimes {
    let accounts = &shared.place.config.accounts;
    Lifetimes { idle: accounts.session_idle, lifetime: accounts.session_lifetime }
}

/// Where a request came from: as the listener says, or as the connection does.
pub fn origin_of(extensions: &Extensions, headers: &HeaderMap) -> Origin {
    if let Some(origin) = extensions.get::<Origin>() {
        return origin.clone();
    }
    let address = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    let authority = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    Origin {
        address: address.unwrap_or_else(|| [127, 0, 0, 1].into()),
        is_tls: false,
        authority: authority.map(str::to_owned),
    }
}

/// What is open to all.
fn is_open(method: &Method, path: &str, open_metrics: bool) -> bool {
    match path {
        // Who is logged in ends that login here; all others are to log in, or are told that there is nothing else.
        SESSION => *method != Method::DELETE,
        // For any method: there is one alone, and the others are told so.
        "/healthz" | "/readyz" => true,
        "/metrics" => open_metrics && cookie::is_safe(method),
        _ => false,
    }
}

/// What one may do who has to change the password first.
fn is_for_newcomers(method: &Method, path: &str) -> bool {
    match path {
        SESSION => *method == Method::DELETE,
        ME => cookie::is_safe(method),
        MY_PASSWORD => *method == Method::PUT,
        _ => false,
    }
}

/// Finds out who calls, and turns away who is nobody, where that is needed.
pub async fn gate(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let origin = origin_of(request.extensions(), request.headers());
    request.extensions_mut().insert(origin.clone());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if is_open(&method, &path, shared.place.config.http.open_metrics) {
        // Somebody else's page must not log a browser in.
        let changes = !cookie::is_safe(&method);
        if changes && let Err(problem) = cookie::own_page(request.headers(), &origin, false) {
            return problem.into_response();
        }
        return next.run(request).await;
    }
    match admit(&shared, &request, &origin) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn admit(shared: &Shared, request: &Request, origin: &Origin) -> Result<Caller, Problem> {
    let (method, path) = (request.method(), request.uri().path());
    let caller = resolve(shared, request.headers(), origin)?;
    if let Grant::Login { person, .. } = &caller.grant {
        if !cookie::is_safe(method) {
            cookie::own_page(request.headers(), origin, true)?;
        }
        if person.must_change && !is_for_newcomers(method, path) {
            return Err(Problem::forbidden(
                "the password must be changed first (PUT /api/v1/me/password): until then only that, who one is, and logging out are possible",
            ));
        }
    }
    if !cookie::is_safe(method) && !matches!(path, SESSION | MY_PASSWORD) {
        caller.may(Access::Write)?;
    }
    Ok(caller)
}

/// Who calls: an API token counts before a cookie.
fn resolve(shared: &Shared, headers: &HeaderMap, origin: &Origin) -> Result<Caller, Problem> {
    let now_ms = clock::now_ms();
    if let Some(said) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = said.to_str().ok().and_then(|said| said.split_once(' ')).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::unauthorized("the one form of Authorization that counts is: Bearer vt_…"));
        }
        let token = shared.state.api_token(token.trim(), now_ms);
        let token = token.ok_or_else(|| {
            Problem::unauthorized(
                "the API token is unknown, revoked or expired: make one (vitals-server api-token create)",
            )
        })?;
        return Ok(Caller {
            by: By { who: format!("token:{}", token.name).into(), from: origin.address.to_string().into() },
            access: token.access,
            scope: token.scope.clone(),
            grant: Grant::Token(token),
        });
    }
    let id = cookie::id(headers, origin).ok_or_else(Problem::nobody)?;
    let lifetimes = lifetimes(shared);
    let (login, person) = shared.state.logged_in(id, lifetimes, now_ms).ok_or_else(Problem::nobody)?;
    caller_of(origin, login, Some(person), lifetimes).ok_or_else(Problem::nobody)
}

/// Who calls by a login.
pub fn caller_of(
    origin: &Origin,
    login: Arc<Login>,
    person: Option<Arc<Person>>,
    lifetimes: Lifetimes,
) -> Option<Caller> {
    let person = person?;
    Some(Caller {
        by: By { who: person.name.clone(), from: origin.address.to_string().into() },
        access: person.role.access(),
        scope: seen_by(&person.scope, person.role.access()),
        grant: Grant::Login { login, person, lifetimes },
    })
}

/// An administrator sees all, whatever a scope says.
fn seen_by(scope: &Scope, access: Access) -> Scope {
    if access == Access::Admin { Scope::default() } else { scope.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_this_and_nothing_else() {
        for (method, path) in [
            (Method::POST, "/api/v1/session"),
            (Method::TRACE, "/api/v1/session"),
            (Method::GET, "/healthz"),
            (Method::HEAD, "/healthz"),
            (Method::GET, "/readyz"),
        ] {
            assert!(is_open(&method, path, false), "{method} {path}");
        }
        for (method, path) in [
            (Method::DELETE, "/api/v1/session"),
            (Method::POST, "/api/v1/session/"),
            (Method::POST, "//api/v1/session"),
            (Method::GET, "/metrics"),
            (Method::GET, "/"),
            (Method::GET, "/api/openapi.json"),
            (Method::GET, "/api/v1/hosts"),
            (Method::GET, "/healthz/"),
            (Method::GET, "/healthz/../api/v1/hosts"),
        ] {
            assert!(!is_open(&method, path, false), "{method} {path}");
        }
        assert!(is_open(&Method::GET, "/metrics", true) && !is_open(&Method::POST, "/metrics", true));
    }

    #[test]
    fn wrong_passwords_for_names_that_nobody_has_hide_none_for_names_that_somebody_has() {
        let (auth, now) = (Auth::default(), Instant::now());
        let taken_down = (0..5_000).filter(|_| auth.failed(false, now).is_some()).count();
        assert!(taken_down < 50, "{taken_down}");
        assert_eq!(auth.failed(true, now), Some(0));
        let later = now + std::time::Duration::from_secs(60);
        assert_eq!(auth.failed(false, later), Some(5_000 - taken_down as u64));
    }

    #[test]
    fn a_try_that_nobody_waits_for_counts_as_wrong() {
        let auth = Auth::default();
        let origin = Origin { address: [192, 0, 2, 1].into(), is_tls: true, authority: None };
        for _ in 0..5 {
            drop(auth.begin(&origin, "admin").unwrap());
        }
        let problem = auth.begin(&origin, "admin").unwrap_err();
        assert_eq!(problem.into_response().headers()[header::RETRY_AFTER], "1");
    }
}
