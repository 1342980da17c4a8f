//! Join tokens: who holds one may bring a new host, until it expires, is used up or is revoked.
//!
//! They are on disk, and in memory too, so that a stranger with a wrong one waits for no disk and makes nobody wait.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use vitals_wire::ids::{HostId, Secret};
use vitals_wire::limits::MAX_LABELS;
use vitals_wire::name::check_label;

use super::audit::{self, Action, By};
use super::labels::Labels;
use super::{Denied, State, StateError, db};
use crate::clock;
use crate::secret::{Digest, random, random_id};

/// Join tokens that are kept.
pub const MAX_JOIN_TOKENS: usize = 10_000;
/// Time for which a token is listed that lets nobody in any more.
const KEEP_MS: i64 = 30 * 24 * 3_600_000;

/// A join token, as it is kept: its secret is known to whoever was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRecord {
    /// What it is called in lists and commands. No secret.
    pub id: String,
    /// Of its secret.
    pub secret: Digest,
    /// When it was made, in ms since 1970.
    pub created_ms: i64,
    /// By whom: [`By::who`].
    pub created_by: String,
    /// When it expires, in ms since 1970.
    pub expires_ms: i64,
    /// Hosts that it may let in.
    pub max_uses: u32,
    /// Hosts that it has let in.
    pub uses: u32,
    /// Labels of the hosts that it lets in.
    pub labels: Labels,
    /// The host whose name and history the newcomer takes over.
    pub replaces: Option<HostId>,
    /// When it was revoked, in ms since 1970.
    pub revoked_ms: Option<i64>,
}

/// What a join token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJoinToken {
    /// When it expires, in ms since 1970.
    pub expires_ms: i64,
    /// Hosts that it may let in: one, where it replaces a host.
    pub max_uses: u32,
    /// Labels of the hosts that it lets in.
    pub labels: Labels,
    /// The host whose name and history the newcomer takes over.
    pub replaces: Option<HostId>,
}

impl JoinRecord {
    /// Whether it lets in one more host.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now_ms: i64) -> Result<(), Denied> {
        if self.revoked_ms.is_some() {
            Err(Denied::TokenRevoked)
        } else if now_ms >= self.expires_ms {
            Err(Denied::TokenExpired)
        } else if self.uses >= self.max_uses {
            Err(Denied::TokenUsedUp)
        } else {
            Ok(())
        }
    }

    /// `valid`, `revoked`, `expired` or `used_up`.
    pub fn standing(&self, now_ms: i64) -> &'static str {
        match self.check(now_ms) {
            Ok(()) => "valid",
            Err(Denied::TokenRevoked) => "revoked",
            Err(Denied::TokenExpired) => "expired",
            Err(_) => "used_up",
        }
    }

    /// Whether nobody asks for it any more.
    fn is_forgotten(&self, now_ms: i64) -> bool {
        let end = self.revoked_ms.map_or(self.expires_ms, |revoked| revoked.min(self.expires_ms));
        now_ms >= end.saturating_add(KEEP_MS)
    }
}

/// All join tokens by the digest of their secret.
pub(super) type Tokens = RwLock<HashMap<Digest, Arc<JoinRecord>>>;

pub(super) fn read(tokens: &Tokens) -> RwLockReadGuard<'_, HashMap<Digest, Arc<JoinRecord>>> {
    // Each change of the map is a single step.
    tokens.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn keep(tokens: &Tokens, changed: impl IntoIterator<Item = JoinRecord>) {
    let mut tokens = tokens.write().unwrap_or_else(PoisonError::into_inner);
    tokens.extend(changed.into_iter().map(|token| (token.secret, Arc::new(token))));
}

/// The tokens that replace this host and still let somebody in, revoked.
pub(super) fn without_replacing(tokens: &Tokens, host: HostId, now_ms: i64) -> Vec<JoinRecord> {
    let tokens = read(tokens);
    let replacing =
        tokens.values().filter(|token| token.replaces == Some(host) && token.revoked_ms.is_none());
    replacing.map(|token| JoinRecord { revoked_ms: Some(now_ms), ..(**token).clone() }).collect()
}

impl State {
    /// All join tokens, newest first.
    pub fn join_tokens(&self) -> Vec<Arc<JoinRecord>> {
        let mut tokens: Vec<_> = read(&self.tokens).values().cloned().collect();
        tokens.sort_by(|one, other| (other.created_ms, &other.id).cmp(&(one.created_ms, &one.id)));
        tokens
    }

    /// The join token with this secret.
    pub fn join_token(&self, secret: &Secret) -> Option<Arc<JoinRecord>> {
        // By its digest: what is compared in passing tells nothing of the secret.
        read(&self.tokens).get(&Digest::of(&secret.0)).cloned()
    }

    /// Makes a join token, and gives its secret: nobody is told it again.
    ///
    /// # Errors
    /// A label cannot be taken, there are too many, or it is not on disk.
    pub async fn create_join_token(
        &self,
        by: &By,
        new: NewJoinToken,
    ) -> Result<(Arc<JoinRecord>, Secret), StateError> {
        new.labels.iter().try_for_each(|(key, value)| check_label(key, value))?;
        if new.labels.len() > MAX_LABELS {
            return Err(StateError::TooManyLabels);
        }
        let secret = Secret(random()?);
        let now_ms = clock::now_ms();
        let token = JoinRecord {
            id: random_id()?,
            secret: Digest::of(&secret.0),
            created_ms: now_ms,
            created_by: by.who.to_string(),
            expires_ms: new.expires_ms,
            max_uses: if new.replaces.is_some() { 1 } else { new.max_uses },
            uses: 0,
            labels: new.labels,
            replaces: new.replaces,
            revoked_ms: None,
        };
        let by = by.clone();
        let made = self.act(move |writer| {
            let old: Vec<Arc<JoinRecord>> =
                read(&writer.tokens).values().filter(|token| token.is_forgotten(now_ms)).cloned().collect();
            if read(&writer.tokens).len() - old.len() >= MAX_JOIN_TOKENS {
                return Err(StateError::TooManyTokens);
            }
            let replaced = token.replaces.map(|host| writer.host(host)).transpose()?;
            let until = crate::time::format(token.expires_ms);
            let mut detail = format!("max_uses={} expires={until}", token.max_uses);
            if let Some(host) = replaced {
                detail += &format!(" replaces={:?}", host.name());
            }
            writer.db.transaction(|tx| {
                old.iter().try_for_each(|token| db::delete_token(tx, &token.id))?;
                db::write_token(tx, &token)?;
                audit::write(tx, &by, Action::JoinTokenCreated, &token.id, &detail)
            })?;
            audit::log(&by, Action::JoinTokenCreated, &token.id, &detail);
            let mut tokens = writer.tokens.write().unwrap_or_else(PoisonError::into_inner);
            old.iter().for_each(|token| {
                tokens.remove(&token.secret);
            });
            let token = Arc::new(token);
            tokens.insert(token.secret, token.clone());
            Ok(token)
        });
        Ok((made.await?, secret))
    }

    /// Revokes a join token: it lets nobody in any more. Those that joined with it stay.
    ///
    /// # Errors
    /// There is none with this id, or it is not on disk.
    pub async fn revoke_join_token(&self, by: &By, id: &str) -> Result<Arc<JoinRecord>, StateError> {
        let (by, id) = (by.clone(), id.to_owned());
        self.act(move |writer| {
            let found = read(&writer.tokens).values().find(|token| token.id == id).cloned();
            let token = found.ok_or(StateError::NoToken(id))?;
            if token.revoked_ms.is_some() {
                return Ok(token);
            }
            let revoked = JoinRecord { revoked_ms: Some(clock::now_ms()), ..(*token).clone() };
            writer.db.transaction(|tx| {
                db::write_token(tx, &revoked)?;
                audit::write(tx, &by, Action::JoinTokenRevoked, &revoked.id, "")
            })?;
            audit::log(&by, Action::JoinTokenRevoked, &revoked.id, "");
            keep(&writer.tokens, [revoked.clone()]);
            Ok(Arc::new(revoked))
        })
        .await
    }
}
