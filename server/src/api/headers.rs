//! What every answer says to browsers, so that they help no attacker.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;

use super::caller::Origin;

/// Nothing but our own files is loaded, no code stands in the page itself, and nobody shows it in a frame.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                   connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// A year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

const ALWAYS: [(HeaderName, HeaderValue); 7] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static(
            "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ),
];

/// Adds them. What says nothing of caching is not kept anywhere: answers belong to who asked.
///
/// `hsts` (from the configuration) is said over TLS alone: browsers do not listen to it elsewhere.
pub async fn add(State(hsts): State<bool>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let is_tls = response.extensions().get::<Origin>().is_some_and(|origin| origin.is_tls);
    let headers = response.headers_mut();
    headers.extend(ALWAYS);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if hsts && is_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}
