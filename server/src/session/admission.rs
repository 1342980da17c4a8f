//! Letting a host in: by its secret, or by a token. What is decided stands in [`State`](crate::state::State); here it gets
//! its words, for the client and for the audit log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{info, warn};
use vitals_wire::ids::{HostId, Secret};
use vitals_wire::message::{Hello, Refusal, Refused};

use super::Shared;
use super::protocol::refused;
use super::seats::Order;
use crate::seldom::Seldom;
use crate::state::audit::By;
use crate::state::{Action, Denied, Host, StateError};

/// Time to take a refused host down in the audit log before it is told.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a host is told that is not let in.
pub(super) fn words(denied: Denied) -> Refused {
    let (code, text) = match denied {
        Denied::NotEnrolled => (
            Refusal::NotEnrolled,
            "this server does not know this host: make a token with `vitals-server token create`, and give it to the client",
        ),
        Denied::Credential => (
            Refusal::Credential,
            "the secret is not the one with which this host joined: was its directory copied or restored? To let it in \
             under its name, make a token with `vitals-server token create --replace NAME`",
        ),
        Denied::Replaced => (
            Refusal::Credential,
            "another machine has taken the place of this host: stop this client, or join anew with another identity and token",
        ),
        Denied::Revoked => (
            Refusal::Revoked,
            "this host was revoked: an administrator can let it in again with `vitals-server token create --replace NAME`",
        ),
        Denied::TokenUnknown => (
            Refusal::TokenUnknown,
            "this server does not know the token: was it made on another server? Make one with `vitals-server token create`",
        ),
        Denied::TokenExpired => {
            (Refusal::TokenExpired, "the token has expired: make another with `vitals-server token create`")
        }
        Denied::TokenUsedUp => (
            Refusal::TokenUsedUp,
            "the token has let in as many hosts as it may: make another with `vitals-server token create --uses N`",
        ),
        Denied::TokenSpent => (
            Refusal::TokenUsedUp,
            "the token has let in this host before, and the host was removed since: make another with \
             `vitals-server token create`",
        ),
        Denied::TokenRevoked => {
            (Refusal::TokenRevoked, "the token was revoked: make another with `vitals-server token create`")
        }
    };
    refused(code, text, false)
}

/// What a host is told that is revoked.
pub fn revoked() -> Refused {
    words(Denied::Revoked)
}

/// What a host is told that is not known any more.
pub fn not_enrolled() -> Refused {
    words(Denied::NotEnrolled)
}

/// Whether a secret or token was wrong, so that the answer has to wait.
pub(super) fn is_a_guess(denied: Denied) -> bool {
    !matches!(denied, Denied::NotEnrolled | Denied::Revoked)
}

/// Lets few refused hosts into the audit log: strangers must not fill it.
#[derive(Debug)]
pub struct RefusedHosts(Seldom);

impl Default for RefusedHosts {
    fn default() -> Self {
        Self(Seldom::for_audit())
    }
}

/// Lets a host in, writing down what is new of it.
pub(super) async fn admit(
    shared: &Arc<Shared>,
    hello: Hello,
    address: SocketAddr,
    now_ms: i64,
) -> Result<Arc<Host>, StateError> {
    if let Some(host) = shared.state.admit_known(&hello, now_ms)? {
        return Ok(host);
    }
    // Seldom: a new host, or one that was renamed, labelled anew, upgraded or restarted.
    let (id, newest_kept) = (shared.state.speaks_for(&hello), shared.newest_kept.clone());
    let kept = tokio::task::spawn_blocking(move || newest_kept(id)).await.ok().flatten();
    let newest_ms = kept.max(shared.live.committed_ms(id));
    let from = address.ip().to_canonical().to_string();
    let admitted = shared.state.admit(hello, &from, now_ms, newest_ms).await?;
    if admitted.replaced {
        // The machine before it is gone, or has no business here any more.
        shared.seats.order(admitted.host.id, Order::Close(words(Denied::Replaced)));
    }
    Ok(admitted.host)
}

/// Whether a host that was let in has not been revoked, removed or replaced since.
///
/// # Errors
/// It was, in words.
pub(super) fn still_stands(shared: &Shared, host: &Host) -> Result<(), Refused> {
    match shared.state.host(host.id) {
        None => Err(words(Denied::NotEnrolled)),
        Some(now) if now.revoked_ms.is_some() => Err(words(Denied::Revoked)),
        Some(now) if now.client != host.client => Err(words(Denied::Replaced)),
        // A machine that joined anew keeps its id: only its secret tells it from who had the one before.
        Some(now) if now.secret != host.secret && now.secret != host.next_secret => {
            Err(words(Denied::Credential))
        }
        Some(_) => Ok(()),
    }
}

/// Takes down the secret that a host uses from its next connection on. Nobody waits for it: until it is on disk the
/// present one holds, and the host falls back to that where the next is refused.
pub(super) fn keep_secret(shared: Arc<Shared>, id: HostId, name: Box<str>, secret: Secret) {
    tokio::spawn(async move {
        match shared.state.next_secret(id, &secret).await {
            Ok(()) => {
                info!(host = &*name, "a host has a new secret, which holds from its next connection on")
            }
            Err(error) => {
                warn!(host = &*name, %error, "a host's new secret cannot be kept now; it is asked for again")
            }
        }
    });
}

/// Takes down that a host was refused. The log has it in any case.
pub(super) async fn note(shared: &Shared, told: &str, address: SocketAddr, denied: Denied, id: String) {
    let Some(left_out) = shared.refused_hosts.0.due(Instant::now()) else { return };
    let by = By { who: format!("host:{id}").into(), from: address.ip().to_canonical().to_string().into() };
    let mut detail = words(denied).code.word().to_owned();
    if left_out > 0 {
        detail += &format!("; {left_out} more were refused since the entry before");
    }
    match timeout(AUDIT_TIMEOUT, shared.state.audit(&by, Action::HostRefused, told, detail)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "a refused host is not in the audit log"),
        Err(_) => warn!(error = "no answer in time", "a refused host may not be in the audit log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitals_wire::limits::MAX_REFUSED_TEXT_BYTES;

    const ALL: [Denied; 9] = [
        Denied::NotEnrolled,
        Denied::Credential,
        Denied::Replaced,
        Denied::Revoked,
        Denied::TokenUnknown,
        Denied::TokenExpired,
        Denied::TokenUsedUp,
        Denied::TokenSpent,
        Denied::TokenRevoked,
    ];

    #[test]
    fn each_refusal_says_what_to_do_and_is_not_tried_again_at_once() {
        for denied in ALL {
            let refused = words(denied);
            assert!(!refused.retry, "{denied:?}");
            assert!(refused.text.len() < MAX_REFUSED_TEXT_BYTES, "{denied:?}: whole");
            assert!(refused.text.contains(':'), "{denied:?}: what is, and what to do");
        }
    }
}
