//! API tokens: with which programs use the API. `vt_` and 43 characters, shown once; `state.db` has the SHA-256.

use std::sync::Arc;

use rusqlite::{Transaction, params};
use tokio_util::sync::CancellationToken;

use super::accounts::{AccountError, count, is_plain_name, scope_of, scope_text};
use super::audit::{self, Action, By};
use super::logins::Used;
use super::rights::{Access, Scope};
use super::{State, StateError};
use crate::secret::{self, Digest};
use crate::{clock, time};

/// What a token begins with, so that those who look for leaked secrets find it.
pub const PREFIX: &str = "vt_";
/// How long a token holds where nothing else is said, in ms: 90 days.
pub const DEFAULT_LIFE: i64 = 90 * 24 * 3_600 * 1_000;
/// Tokens that there can be.
const MAX_TOKENS: usize = 1_000;

/// An API token.
#[derive(Debug)]
pub struct ApiToken {
    /// SHA-256 of the token.
    pub(super) digest: Digest,
    /// Its id for lists and commands. No secret.
    pub id: Box<str>,
    /// What it is for: unique, and what the audit log names.
    pub name: Box<str>,
    /// What it lets one do.
    pub access: Access,
    /// Which hosts it lets one see.
    pub scope: Scope,
    /// When it was made, in ms since 1970.
    pub created_ms: i64,
    /// By whom.
    pub created_by: Box<str>,
    /// When it ends, in ms since 1970; `None`: not by time.
    pub expires_ms: Option<i64>,

    used: Used,
    ended: CancellationToken,
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it is for.
    pub name: String,
    /// What it lets one do.
    pub access: Access,
    /// Which hosts it lets one see.
    pub scope: Scope,
    /// When it ends, in ms since 1970; `None`: not by time.
    pub expires_ms: Option<i64>,
}

impl ApiToken {
    /// When it was used last, in ms since 1970, to the minute after a restart; `None`: never.
    pub fn seen_ms(&self) -> Option<i64> {
        let seen_ms = self.used.seen_ms();
        (seen_ms > NEVER_MS).then_some(seen_ms)
    }

    /// Whether it holds now.
    pub fn holds(&self, now_ms: i64) -> bool {
        !self.ended.is_cancelled() && self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }

    /// Cancelled when it is revoked.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// Before any use.
const NEVER_MS: i64 = i64::MIN;

impl State {
    /// Makes a token; gives its text, which nobody can give again.
    ///
    /// # Errors
    /// It cannot be, or is not on disk.
    pub async fn create_api_token(
        &self,
        by: &By,
        new: NewToken,
    ) -> Result<(String, Arc<ApiToken>), AccountError> {
        let now_ms = clock::now_ms();
        if !is_plain_name(&new.name) {
            return Err(AccountError::TokenName(new.name));
        }
        new.scope.check().map_err(AccountError::Scope)?;
        if new.access == Access::Admin && !new.scope.is_all() {
            return Err(AccountError::ScopedAdmin);
        }
        if new.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            return Err(AccountError::Expired);
        }
        let text = secret::random_text(PREFIX)?;
        let token = Arc::new(ApiToken {
            digest: Digest::of(text.as_bytes()),
            id: secret::random_id()?.into(),
            name: new.name.into(),
            access: new.access,
            scope: new.scope,
            created_ms: now_ms,
            created_by: by.who.clone(),
            expires_ms: new.expires_ms,

            used: Used::new(NEVER_MS),
            ended: CancellationToken::new(),
        });
        let until = token.expires_ms.map_or_else(|| "never".to_owned(), time::format);
        let detail =
            format!("id {}, access {}, sees {}, expires {until}", token.id, token.access.word(), token.scope);
        let (by, accounts, state) = (by.clone(), self.accounts.clone(), self.accounts.clone());
        let (by_then, detail_then) = (by.clone(), detail.clone());
        let work = move |tx: &Transaction<'_>| {
            // A name is free again when its token has expired.
            let mut gone = Vec::new();
            for one in state.tokens.read().values() {
                if one.holds(now_ms) {
                    if one.name == token.name {
                        return Ok(Err(AccountError::TokenExists(token.name.to_string())));
                    }
                } else if one.name == token.name {
                    tx.execute("DELETE FROM api_token WHERE id = ?1", [&one.id])?;
                    gone.push(one.digest);
                }
            }
            if count(tx, "SELECT count(*) FROM api_token")? >= MAX_TOKENS {
                return Ok(Err(AccountError::TooMany(MAX_TOKENS)));
            }
            tx.execute(
                "INSERT INTO api_token (id, secret_hash, name, access, scope, created_ms, created_by, expires_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    token.id,
                    token.digest.0,
                    token.name,
                    token.access.word(),
                    scope_text(&token.scope)?,
                    token.created_ms,
                    token.created_by,
                    token.expires_ms,
                ],
            )?;
            audit::write(tx, &by, Action::TokenCreated, &token.name, &detail)?;
            Ok(Ok((token, gone)))
        };
        let then = move |done: &Result<(Arc<ApiToken>, Vec<Digest>), AccountError>| {
            if let Ok((token, gone)) = done {
                accounts.tokens.take(|one| gone.contains(&one.digest));
                accounts.tokens.put(token.digest, token.clone());
                audit::log(&by_then, Action::TokenCreated, &token.name, &detail_then);
            }
        };
        self.transaction_then(work, then).await?.map(|(token, _)| (text, token))
    }

    /// The token of this text, if it holds; takes down that it was used.
    pub fn api_token(&self, text: &str, now_ms: i64) -> Option<Arc<ApiToken>> {
        let token = self.accounts.tokens.get(&Digest::of(text.as_bytes()))?;
        if !token.holds(now_ms) {
            return None;
        }
        if token.used.now(now_ms) {
            let digest = token.digest;
            self.write_use(move |tx| {
                let sql = "UPDATE api_token SET seen_ms = ?2 WHERE secret_hash = ?1";
                tx.execute(sql, params![digest.0, now_ms])?;
                Ok(())
            });
        }
        Some(token)
    }

    /// All tokens, by name; those that have expired too.
    pub fn api_tokens(&self) -> Vec<Arc<ApiToken>> {
        let mut tokens: Vec<_> = self.accounts.tokens.read().values().cloned().collect();
        tokens.sort_by(|a, b| a.name.cmp(&b.name));
        tokens
    }

    /// A token by its id or, where none has this id, by its name; also one that has expired.
    ///
    /// # Errors
    /// There is none.
    pub fn api_token_called(&self, id_or_name: &str) -> Result<Arc<ApiToken>, AccountError> {
        let all = self.api_tokens();
        let found = all.iter().find(|token| *token.id == *id_or_name);
        let found = found.or_else(|| all.iter().find(|token| *token.name == *id_or_name)).cloned();
        found.ok_or_else(|| AccountError::NoSuchToken(id_or_name.to_owned()))
    }

    /// Revokes a token by its id or name.
    ///
    /// # Errors
    /// There is none, or it is not on disk.
    pub async fn revoke_api_token(&self, by: &By, id_or_name: &str) -> Result<Arc<ApiToken>, AccountError> {
        let token = self.api_token_called(id_or_name)?;
        let (by, accounts) = (by.clone(), self.accounts.clone());
        let by_then = by.clone();
        let work = move |tx: &Transaction<'_>| {
            if tx.execute("DELETE FROM api_token WHERE id = ?1", [&token.id])? == 0 {
                return Ok(Err(AccountError::NoSuchToken(token.name.to_string())));
            }
            audit::write(tx, &by, Action::TokenRevoked, &token.name, &format!("id {}", token.id))?;
            Ok(Ok(token))
        };
        let then = move |done: &Result<Arc<ApiToken>, AccountError>| {
            if let Ok(token) = done {
                accounts.tokens.take(|one| one.digest == token.digest);
                token.ended.cancel();
                audit::log(&by_then, Action::TokenRevoked, &token.name, &format!("id {}", token.id));
            }
        };
        self.transaction_then(work, then).await?
    }
}

/// All tokens, as they are kept.
pub(super) fn kept(tx: &Transaction<'_>) -> Result<Vec<ApiToken>, StateError> {
    let mut query = tx.prepare_cached(
        "SELECT id, secret_hash, name, access, scope, created_ms, created_by, expires_ms, seen_ms FROM api_token",
    )?;
    let mut rows = query.query([])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        let seen_ms: Option<i64> = row.get(8)?;
        tokens.push(ApiToken {
            id: row.get(0)?,
            digest: Digest(row.get(1)?),
            name: row.get(2)?,
            access: row.get::<_, String>(3)?.parse().map_err(StateError::Disk)?,
            scope: scope_of(&row.get::<_, String>(4)?)?,
            created_ms: row.get(5)?,
            created_by: row.get(6)?,
            expires_ms: row.get(7)?,

            used: Used::new(seen_ms.unwrap_or(NEVER_MS)),
            ended: CancellationToken::new(),
        });
    }
    Ok(tokens)
}
