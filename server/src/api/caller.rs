//! Who calls, and what that one may do and see.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::Problem;
use crate::state::Host;
use crate::state::audit::By;

/// How much one may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Look.
    Read,
    /// Manage hosts: name, label, enrol, revoke and remove them.
    Write,
    /// Everything: people, API tokens, the audit log too.
    Admin,
}

/// Labels that a host must have to be seen, given by a token or an administrator; empty: all hosts are seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope(pub BTreeMap<String, String>);

impl Scope {
    /// Whether this host is seen.
    pub fn covers(&self, host: &Host) -> bool {
        self.0.iter().all(|(key, value)| host.trusted_label(key) == Some(value))
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For the audit log.
    pub by: By,
    /// What that one may do.
    pub access: Access,
    /// Which hosts that one may see.
    pub scope: Scope,
}

impl Caller {
    /// Lets in who may do so much.
    ///
    /// # Errors
    /// 403.
    pub fn may(&self, access: Access) -> Result<(), Problem> {
        if self.access >= access {
            Ok(())
        } else {
            Err(Problem::forbidden("this needs more rights than yours"))
        }
    }
}

/// Where a request came from, as the listener or a trusted proxy says; put into each request's extensions by the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The caller's address.
    pub address: IpAddr,
    /// Whether the caller's connection is encrypted, up to the proxy at least.
    pub is_tls: bool,
    /// The name that the caller used: `Host`, or what the proxy says it was.
    pub authority: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    // Everybody on this machine, until there are people.
    async fn from_request_parts(_parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self { by: By::local(), access: Access::Admin, scope: Scope::default() })
    }
}
