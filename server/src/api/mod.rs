//! The HTTP API: reads `store` and `live`, and is described by its own OpenAPI document.
//!
//! A request passes `serve` (connections, TLS), `headers` (what each answer says to browsers), `origin`
//! (from where, and whether this port listens to it), `limits` (how many, how long), `auth::gate` (who calls), and then its
//! handler. Handlers take what is asked with `extract`, what the caller must be allowed with `caller`, and refuse with an
//! `error::Problem`.

mod audit;
pub mod auth;
pub mod caller;
mod crowd;
mod document;
mod error;
mod extract;
mod headers;
mod health;
mod hosts;
mod join_tokens;
mod limits;
mod metrics;
mod origin;
mod series;
mod serve;
mod session;
mod targets;
pub(crate) mod tokens;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode};
use axum::middleware;
use axum::{Extension, Router};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::commands::Place;
use crate::config::Network;
use crate::influx::Target;
use crate::journal::Journal;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::state::State;
use crate::store::Store;

use error::Problem;
use limits::Limits;
use serve::{Bounds, Port};

/// What all handlers share.
#[derive(Clone)]
pub struct Shared {
    /// Who is who.
    pub state: State,
    /// The picture of now.
    pub live: Arc<Live>,
    /// History.
    pub store: Store,
    /// The durable log.
    pub journal: Journal,
    /// The server's own figures.
    pub metrics: Arc<Metrics>,
    /// The InfluxDBs that are written to.
    pub targets: Arc<[Arc<Target>]>,
    /// Who may do what.
    pub place: Place,
    /// What logging in needs.
    pub auth: auth::Auth,
    /// How long history is kept.
    pub keep_raw: Duration,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Vitals", description = "The vital signs of a fleet of machines."),
    tags(
        (name = "hosts", description = "Hosts and what each said last."),
        (name = "history", description = "What hosts said before."),
        (name = "influx", description = "InfluxDB, which is written to."),
        (name = "health", description = "How the server itself is."),
        (name = "session", description = "Logging in and out, and who one is."),
        (name = "users", description = "People, for administrators."),
        (name = "tokens", description = "API tokens, for administrators."),
        (name = "audit", description = "Who changed what, for administrators."),
        (name = "document", description = "This description."),
    ),
    modifiers(&Ways),
    security(("cookie" = []), ("bearer" = []))
)]
struct Document;

/// The ways to show who one is.
struct Ways;

impl Modify for Ways {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let parts = document.components.get_or_insert_default();
        let cookie = ApiKeyValue::with_description(
            "__Host-vitals",
            "A person's login, made by POST /api/v1/session; on plain HTTP, which is loopback's, it is called vitals-session. What changes something must come from the server's own page (Origin or Sec-Fetch-Site).",
        );
        parts.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        let bearer =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API token: vt_…"));
        parts.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    }
}

/// The routes and their description.
fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::one, hosts::change, hosts::remove))
        .routes(routes!(hosts::rotate))
        .routes(routes!(hosts::revoke))
        .routes(routes!(join_tokens::list, join_tokens::create))
        .routes(routes!(join_tokens::one, join_tokens::revoke))
        .routes(routes!(hosts::latest))
        .routes(routes!(series::series))
        .routes(routes!(targets::list))
        .routes(routes!(targets::quarantine))
        .routes(routes!(session::log_in, session::log_out))
        .routes(routes!(session::me))
        .routes(routes!(session::change_password))
        .routes(routes!(users::list, users::add))
        .routes(routes!(users::one, users::change, users::remove))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::one, tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(document::openapi))
}

/// The same with their state, and with their description to be asked for.
fn router(shared: Shared) -> Router {
    let (router, document) = routes().with_state(shared.clone()).split_for_parts();
    // Made once: plain values, which always serialize; should they not, the answer says why.
    let document: Arc<str> = serde_json::to_value(document)
        .map_or_else(
            |error| format!("{{\"error\":\"{error}\"}}"),
            |document| document::complete(document).to_string(),
        )
        .into();
    router
        .layer(Extension(document::Text(document)))
        .method_not_allowed_fallback(|method: Method| async move {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for this path; see Allow"))
        })
        .fallback(|request: Request| async move {
            Problem::not_found(format!("no such path: {}", request.uri().path()))
        })
        .layer(middleware::from_fn_with_state(shared, auth::gate))
}

/// Serves until the shutdown, with TLS where it is told how.
pub async fn serve(
    listener: TcpListener,
    shared: Shared,
    tls: Option<Arc<ServerConfig>>,
    shutdown: CancellationToken,
) {
    let http = &shared.place.config.http;
    let proxies: Arc<[Network]> = http.trusted_proxies.clone().into();
    let limits = Limits::new(http.max_requests, limits::REQUEST_TIME, shared.metrics.clone());
    let (hsts, metrics) = (http.hsts, shared.metrics.clone());
    let router = guarded(router(shared), limits, proxies.clone(), hsts);
    Port { tls, proxies, bounds: Bounds::default(), router, metrics }.serve(listener, shutdown).await;
}

/// Puts around the routes what every request has to pass; the last is the outermost.
fn guarded(router: Router, limits: Limits, proxies: Arc<[Network]>, hsts: bool) -> Router {
    router
        .layer(DefaultBodyLimit::max(limits::MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(limits, limits::keep))
        .layer(middleware::from_fn_with_state(proxies, origin::enter))
        .layer(middleware::from_fn_with_state(hsts, headers::add))
}

/// All hosts as JSON, as the API gives them: for the command line.
pub fn hosts_json(shared: &Shared) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(hosts::all(shared, &caller::Scope::default()))
}

/// The same while no server runs.
///
/// # Errors
/// It is no JSON, which cannot be.
pub fn hosts_json_at_rest(state: &State) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(hosts::all_at_rest(state))
}

/// How the InfluxDBs are, as JSON, as the API gives it. Reads files.
pub fn targets_json(shared: &Shared) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(targets::all(&shared.targets, true))
}

/// The same while no server runs.
pub fn targets_json_at_rest(targets: &[Arc<Target>]) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(targets::all(targets, false))
}

/// What InfluxDB refused, newest first, as JSON, as the API gives it. Reads files.
///
/// # Errors
/// There is no such target, or its files cannot be read, in words.
pub fn quarantine_json(
    targets: &[Arc<Target>],
    name: Option<&str>,
    skip: usize,
    limit: usize,
) -> Result<serde_json::Value, String> {
    if let Some(name) = name
        && !targets.iter().any(|target| target.options.name == name)
    {
        return Err(format!("no InfluxDB is called {name:?}"));
    }
    let lines = targets::refused(targets, name, skip, limit).map_err(|error| error.to_string())?;
    serde_json::to_value(lines).map_err(|error| error.to_string())
}
