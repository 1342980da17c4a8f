//! Where a request comes from, and whether this port listens to it at all.
//!
//! | port | peer | what is taken |
//! |---|---|---|
//! | TLS | any | any name |
//! | plain | a trusted proxy | any name; `X-Forwarded-For`, `-Proto` and `-Host` are believed |
//! | plain | this machine | names of this machine: no web page can reach it by a name of its own that leads here |
//! | plain | another | health probes alone: passwords would travel in clear |
//!
//! `Forwarded` (RFC 7239) is not read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::caller::Origin;
use super::error::Problem;
use crate::config::Network;

/// The other end of the connection that a request came through; put into its extensions by the listener.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
}

/// Puts the [`Origin`] into each request's extensions, and into its answer's; or refuses it.
pub async fn enter(State(proxies): State<Arc<[Network]>>, mut request: Request, next: Next) -> Response {
    let Some(&peer) = request.extensions().get::<Peer>() else {
        // The listener always puts it there.
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "it is not known who asks").into_response();
    };
    match origin(peer, &proxies, request.uri(), request.headers()) {
        Ok(origin) => {
            request.extensions_mut().insert(origin.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(origin);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

fn origin(peer: Peer, proxies: &[Network], uri: &Uri, headers: &HeaderMap) -> Result<Origin, Problem> {
    let address = peer.address.to_canonical();
    let is_proxy = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let plain = Origin { address, is_tls: peer.is_tls, authority: authority(uri, headers)? };
    if is_proxy(address) {
        return Ok(Origin {
            address: forwarded_for(headers, is_proxy).unwrap_or(address),
            is_tls: forwarded_proto(headers).unwrap_or(peer.is_tls),
            authority: forwarded_host(headers).or(plain.authority),
        });
    }
    if peer.is_tls {
        return Ok(plain);
    }
    if !address.is_loopback() {
        if matches!(uri.path(), "/healthz" | "/readyz") {
            return Ok(plain);
        }
        return Err(Problem::forbidden(
            "this port speaks plain HTTP, to its proxy alone (http.trusted_proxies): ask the proxy",
        ));
    }
    match &plain.authority {
        Some(name) if !is_local(name) => Err(Problem::bad_request(format!(
            "this API answers to localhost and loopback addresses, not to {name:?}"
        ))),
        // A header that is missing says nothing: no browser leaves it out.
        _ => Ok(plain),
    }
}

/// The name that is asked for: that of the whole address where one is asked for, else `Host`.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Problem::bad_request("there is more than one Host"));
    }
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.to_string()));
    }
    let Some(host) = host else { return Ok(None) };
    let name = host.to_str().ok().and_then(name);
    name.map(Some).ok_or_else(|| Problem::bad_request(format!("Host: {host:?} is no name of a host")))
}

/// A host with or without a port, as a header may name it.
fn name(text: &str) -> Option<String> {
    let authority: Authority = text.parse().ok()?;
    (!authority.host().is_empty() && !text.contains('@')).then(|| text.to_owned())
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

/// The right-most address that is no proxy's: what stands left of it anybody may have written. One that cannot be read
/// ends the walk at the proxy that wrote it.
fn forwarded_for(headers: &HeaderMap, is_proxy: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut last = None;
    for part in parts(headers, "x-forwarded-for") {
        let Some(address) = address_of(part?) else { break };
        last = Some(address);
        if !is_proxy(address) {
            break;
        }
    }
    last
}

/// An address with or without a port, as proxies write them.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let address = bare.or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()))?;
    Some(address.to_canonical())
}

fn forwarded_proto(headers: &HeaderMap) -> Option<bool> {
    match parts(headers, "x-forwarded-proto").next()?? {
        proto if proto.eq_ignore_ascii_case("https") => Some(true),
        proto if proto.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

fn forwarded_host(headers: &HeaderMap) -> Option<String> {
    name(parts(headers, "x-forwarded-host").next()??)
}

/// The parts of a list that stands in one header or in several, the last first; `None` for what is no text.
fn parts<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    let lines = headers.get_all(name).iter().rev();
    lines.flat_map(|line| {
        let text = line.to_str().ok();
        // A line that is no text is one part, which is none.
        let none = text.is_none().then_some(None);
        let some = text.into_iter().flat_map(|text| text.rsplit(',')).map(|part| Some(part.trim()));
        none.into_iter().chain(some)
    })
}

#[cfg(test)]
#[path = "origin_tests.rs"]
mod tests;
