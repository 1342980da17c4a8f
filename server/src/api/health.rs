//! Whether the server lives, and whether it can do its work.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Shared;

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", operation_id = "get_health", tag = "health", security(()), responses((status = 200, description = "It lives.", body = String, content_type = "text/plain")))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the server can keep what it is sent.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readiness", tag = "health", security(()),
    responses(
        (status = 200, description = "It can.", body = String, content_type = "text/plain"),
        (status = 503, description = "It cannot now; the text says why. Clients keep their samples until it can.", body = String, content_type = "text/plain"),
    )
)]
pub async fn readyz(State(shared): State<Shared>) -> Response {
    let journal = shared.journal.trouble().map(|trouble| format!("journal: {trouble}\n"));
    let history = shared.store.trouble().map(|trouble| format!("history: {trouble}\n"));
    if journal.is_none() && history.is_none() {
        return "ready\n".into_response();
    }
    let why = journal.into_iter().chain(history).collect::<String>();
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
