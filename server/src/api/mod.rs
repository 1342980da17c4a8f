//! The HTTP API: reads `store` and `live`, and is described by its own OpenAPI document.
//!
//! It asks nobody who they are yet, and so listens on loopback alone; requests with a foreign `Host` are refused, so
//! that no web page can reach it by a name of its own that leads here.

pub mod caller;
mod error;
mod extract;
mod health;
mod hosts;
mod join_tokens;
mod metrics;
mod series;
mod targets;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::commands::Place;
use crate::influx::Target;
use crate::journal::Journal;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::state::State;
use crate::store::Store;

use error::Problem;

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
    )
)]
struct Document;

/// The routes and their description.
fn router(shared: Shared) -> axum::Router {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::one, hosts::change, hosts::remove))
        .routes(routes!(hosts::rotate))
        .routes(routes!(hosts::revoke))
        .routes(routes!(join_tokens::list, join_tokens::create))
        .routes(routes!(join_tokens::revoke))
        .routes(routes!(hosts::latest))
        .routes(routes!(series::series))
        .routes(routes!(targets::list))
        .routes(routes!(targets::quarantine))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .with_state(shared)
        .split_for_parts();
    // Made once: plain values, which always serialize; should they not, the answer says why.
    let document: Arc<str> =
        document.to_json().unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}")).into();
    let openapi = move || {
        let json = [(header::CONTENT_TYPE, "application/json")];
        std::future::ready((json, document.to_string()))
    };
    router
        .route("/api/openapi.json", get(openapi))
        .fallback(|request: Request| async move {
            Problem::not_found(format!("no such path: {}", request.uri().path()))
        })
        .layer(middleware::from_fn(only_local_names))
}

/// Serves until the shutdown.
pub async fn serve(
    listener: TcpListener,
    shared: Shared,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(shared)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// All hosts as JSON, as the API gives them: for the command line.
pub fn hosts_json(shared: &Shared) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(hosts::all(shared))
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

/// Lets in requests that name this machine as this machine does.
async fn only_local_names(request: Request, next: Next) -> Response {
    if names_this_machine(request.headers()) {
        return next.run(request).await;
    }
    let host = request.headers().get(header::HOST);
    Problem::bad_request(format!("this API answers to localhost and loopback addresses, not to {host:?}"))
        .into_response()
}

/// Only a header that is missing may say nothing: no browser leaves it out.
fn names_this_machine(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(is_local))
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "localhost:7480", "127.0.0.1:7480", "[::1]:7480", "[::1]", "127.0.0.1"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "evil.example:7480", "192.0.2.1", "localhost.evil.example", ""] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn only_a_missing_header_passes_for_this_machine() {
        let with = |hosts: &[&[u8]]| {
            let hosts = hosts.iter().map(|host| (header::HOST, HeaderValue::from_bytes(host).unwrap()));
            names_this_machine(&hosts.collect())
        };
        assert!(with(&[]));
        assert!(with(&[b"localhost:7480"]));
        assert!(!with(&[b"evil.example"]));
        assert!(!with(&["\u{e9}vil.example".as_bytes()]));
        assert!(!with(&[b"\xff"]));
        assert!(!with(&[b""]));
        let both: HeaderMap = {
            let mut headers = HeaderMap::new();
            headers.append(header::HOST, HeaderValue::from_static("localhost"));
            headers.append(header::HOST, HeaderValue::from_static("evil.example"));
            headers
        };
        assert!(!names_this_machine(&both), "two names, and one of them is foreign");
    }
}
