//! Who calls, and what that one may do and see.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio_util::sync::CancellationToken;

use super::error::Problem;
use crate::clock;
use crate::state::api_tokens::ApiToken;
use crate::state::audit::By;
use crate::state::logins::{Lifetimes, Login};
use crate::state::people::Person;
pub use crate::state::{Access, Scope};

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For the audit log.
    pub by: By,
    /// What that one may do.
    pub access: Access,
    /// Which hosts that one may see.
    pub scope: Scope,
    /// What gives these rights.
    pub grant: Grant,
}

/// What gives somebody rights, and may end.
#[derive(Debug, Clone)]
pub enum Grant {
    /// A login, and whose it is, as that one was when the request came.
    Login {
        /// The login.
        login: Arc<Login>,
        /// Whose it is.
        person: Arc<Person>,
        /// How long it holds.
        lifetimes: Lifetimes,
    },
    /// An API token.
    Token(Arc<ApiToken>),
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
            Err(Problem::forbidden(format!(
                "this needs the access {}, and yours is {}",
                access.word(),
                self.access.word()
            )))
        }
    }

    /// Lets in who sees all hosts.
    ///
    /// # Errors
    /// 403.
    pub fn sees_all(&self) -> Result<(), Problem> {
        if self.scope.is_all() {
            Ok(())
        } else {
            Err(Problem::forbidden(format!("this is about all hosts, and you see those with {}", self.scope)))
        }
    }

    /// Whether what gave these rights still holds: cheap, and to be asked by whatever lasts. Not after a logout, a revoked
    /// token, an expiry, or a change of the person's password, role or scope.
    pub fn still_holds(&self) -> bool {
        match &self.grant {
            Grant::Login { login, lifetimes, .. } => login.holds(*lifetimes, clock::now_ms()),
            Grant::Token(token) => token.holds(clock::now_ms()),
        }
    }

    /// Cancelled at the moment in which the rights end other than by time.
    pub fn ended(&self) -> &CancellationToken {
        match &self.grant {
            Grant::Login { login, .. } => login.ended(),
            Grant::Token(token) => token.ended(),
        }
    }

    /// The person who calls.
    ///
    /// # Errors
    /// 403 for an API token.
    pub fn person(&self) -> Result<(&Arc<Person>, &Arc<Login>), Problem> {
        match &self.grant {
            Grant::Login { login, person, .. } => Ok((person, login)),
            Grant::Token(_) => {
                Err(Problem::forbidden("this is for people who are logged in, and not for API tokens"))
            }
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
    type Rejection = Problem;

    // Put there by `auth::gate`, through which every request comes.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::nobody)
    }
}

macro_rules! with_access {
    ($($(#[$doc:meta])* $name:ident $access:ident,)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone)]
            pub struct $name(pub Caller);

            impl<S: Send + Sync> FromRequestParts<S> for $name {
                type Rejection = Problem;

                async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
                    let caller = Caller::from_request_parts(parts, state).await?;
                    caller.may(Access::$access)?;
                    Ok(Self(caller))
                }
            }
        )*
    };
}

with_access! {
    /// A caller who may look.
    Reader Read,
    /// A caller who may manage hosts.
    Writer Write,
    /// A caller who may do everything.
    Administrator Admin,
}
