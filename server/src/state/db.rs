//! `state.db`: hosts and their versions in SQLite, each transaction on disk before it counts.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use vitals_wire::ids::HostId;

use super::StateError;
use super::host::{FactsRecord, Host, Version};
use super::join::JoinRecord;
use super::labels;
use crate::secret::Digest;

/// What this version reads and writes (`PRAGMA user_version`).
const SCHEMA: i64 = 2;

/// From schema 1 to 2: who may do what. A host of schema 1 has no secret, and joins again with a token.
const ACCESS: &str = include_str!("access.sql");

/// The open file.
pub(super) struct Db(Connection);

impl Db {
    pub(super) fn open(path: &Path) -> Result<Self, StateError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > SCHEMA {
            return Err(StateError::Newer { found, known: SCHEMA });
        }
        if found == 0 {
            db.execute_batch(
                "BEGIN;
                 CREATE TABLE host (
                   id BLOB PRIMARY KEY CHECK (length(id) = 16),
                   first_seen_ms INTEGER NOT NULL,
                   told_name TEXT NOT NULL,
                   client_version TEXT NOT NULL,
                   interval_ms INTEGER NOT NULL,
                   facts TEXT NOT NULL
                 ) STRICT, WITHOUT ROWID;
                 CREATE TABLE host_version (
                   host BLOB NOT NULL REFERENCES host (id),
                   from_ms INTEGER NOT NULL,
                   name TEXT NOT NULL,
                   labels TEXT NOT NULL,
                   PRIMARY KEY (host, from_ms)
                 ) STRICT, WITHOUT ROWID;
                 PRAGMA user_version = 1;
                 COMMIT;",
            )?;
        }
        if found < 2 {
            db.execute_batch(&format!("BEGIN; {ACCESS} PRAGMA user_version = {SCHEMA}; COMMIT;"))?;
        }
        Ok(Self(db))
    }

    /// All hosts.
    pub(super) fn hosts(&self) -> Result<Vec<Host>, StateError> {
        let mut versions = self.versions()?.into_iter().peekable();
        let mut query = self.0.prepare(
            "SELECT id, first_seen_ms, told_name, client_version, interval_ms, facts, secret_hash, next_secret_hash,
               rotate, revoked_ms, given_name, client_labels, token_labels, given_labels, client
             FROM host ORDER BY id",
        )?;
        let mut rows = query.query([])?;
        let mut hosts = Vec::new();
        while let Some(row) = rows.next()? {
            let id = HostId(row.get(0)?);
            let mut own = Vec::new();
            while let Some((_, version)) = versions.next_if(|(host, _)| *host <= id) {
                own.push(version);
            }
            if own.is_empty() {
                continue;
            }
            // Facts are told anew at each connection: those that cannot be read are not worth stopping for.
            let facts: FactsRecord = serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default();
            hosts.push(Host {
                id,
                first_seen_ms: row.get(1)?,
                told_name: row.get(2)?,
                client_version: row.get(3)?,
                interval_ms: row.get(4)?,
                facts,
                secret: row.get::<_, Option<[u8; 32]>>(6)?.map(Digest),
                next_secret: row.get::<_, Option<[u8; 32]>>(7)?.map(Digest),
                rotate: row.get(8)?,
                revoked_ms: row.get(9)?,
                given_name: row.get(10)?,
                client_labels: read_json(row.get(11)?)?,
                token_labels: read_json(row.get(12)?)?,
                given_labels: read_json(row.get(13)?)?,
                client: row.get::<_, Option<[u8; 16]>>(14)?.map_or(id, HostId),
                versions: own,
            });
        }
        Ok(hosts)
    }

    /// Which host stands behind another id that a client says.
    pub(super) fn aliases(&self) -> Result<Vec<(HostId, HostId)>, StateError> {
        let mut query = self.0.prepare("SELECT client, host FROM host_alias")?;
        let rows = query.query_map([], |row| Ok((HostId(row.get(0)?), HostId(row.get(1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// All join tokens.
    pub(super) fn join_tokens(&self) -> Result<Vec<JoinRecord>, StateError> {
        let mut query = self.0.prepare(
            "SELECT id, secret_hash, created_ms, created_by, expires_ms, max_uses, uses, labels, replaces, revoked_ms
             FROM join_token",
        )?;
        let mut rows = query.query([])?;
        let mut tokens = Vec::new();
        while let Some(row) = rows.next()? {
            tokens.push(JoinRecord {
                id: row.get(0)?,
                secret: Digest(row.get(1)?),
                created_ms: row.get(2)?,
                created_by: row.get(3)?,
                expires_ms: row.get(4)?,
                max_uses: row.get(5)?,
                uses: row.get(6)?,
                labels: read_json(row.get(7)?)?,
                replaces: row.get::<_, Option<[u8; 16]>>(8)?.map(HostId),
                revoked_ms: row.get(9)?,
            });
        }
        Ok(tokens)
    }

    fn versions(&self) -> Result<Vec<(HostId, Version)>, StateError> {
        let mut query =
            self.0.prepare("SELECT host, from_ms, name, labels FROM host_version ORDER BY host, from_ms")?;
        let mut rows = query.query([])?;
        let mut versions = Vec::new();
        while let Some(row) = rows.next()? {
            let labels = labels::from_json(&row.get::<_, String>(3)?)
                .map_err(|error| StateError::Disk(format!("labels of a host: {error}")))?;
            versions.push((HostId(row.get(0)?), Version::new(row.get(1)?, row.get(2)?, labels)));
        }
        Ok(versions)
    }

    /// Runs `work` in a transaction of its own, which stands if it gives `Ok`.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let transaction = self.0.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

fn read_json<T: DeserializeOwned>(text: String) -> Result<T, StateError> {
    serde_json::from_str(&text).map_err(|error| StateError::Disk(format!("labels: {error}")))
}

fn json(value: &impl Serialize) -> Result<String, StateError> {
    serde_json::to_string(value).map_err(|error| StateError::Disk(error.to_string()))
}

/// Writes a host as it is now. Which keys it has learnt stands in the same row, and is left as it is.
pub(super) fn write_host(tx: &Transaction<'_>, host: &Host) -> Result<(), StateError> {
    tx.prepare_cached(
        "INSERT INTO host (id, first_seen_ms, told_name, client_version, interval_ms, facts, secret_hash,
           next_secret_hash, rotate, revoked_ms, given_name, client_labels, token_labels, given_labels, client)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
         ON CONFLICT (id) DO UPDATE SET
           told_name = ?3, client_version = ?4, interval_ms = ?5, facts = ?6, secret_hash = ?7, next_secret_hash = ?8,
           rotate = ?9, revoked_ms = ?10, given_name = ?11, client_labels = ?12, token_labels = ?13,
           given_labels = ?14, client = ?15",
    )?
    .execute(params![
        host.id.0,
        host.first_seen_ms,
        host.told_name,
        host.client_version,
        host.interval_ms,
        json(&host.facts)?,
        host.secret.map(|digest| digest.0),
        host.next_secret.map(|digest| digest.0),
        host.rotate,
        host.revoked_ms,
        host.given_name,
        json(&host.client_labels)?,
        json(&host.token_labels)?,
        json(&host.given_labels)?,
        (host.client != host.id).then_some(host.client.0),
    ])?;
    let mut version_row = tx.prepare_cached(
        "INSERT INTO host_version (host, from_ms, name, labels) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    for version in host.versions() {
        let labels = labels::to_json(&version.labels).map_err(|error| StateError::Disk(error.to_string()))?;
        version_row.execute(params![host.id.0, version.from_ms, version.name, labels])?;
    }
    Ok(())
}

/// A client that says another id stands for this host from now on; what its last machine had learnt is forgotten.
pub(super) fn write_alias(tx: &Transaction<'_>, client: HostId, host: HostId) -> Result<(), StateError> {
    tx.prepare_cached(
        "INSERT INTO host_alias (client, host) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET host = ?2",
    )?
    .execute([client.0, host.0])?;
    tx.prepare_cached("UPDATE host SET learnt = x'' WHERE id = ?1")?.execute([host.0])?;
    Ok(())
}

/// Forgets a host.
pub(super) fn delete_host(tx: &Transaction<'_>, host: HostId) -> Result<(), StateError> {
    tx.execute("DELETE FROM host_alias WHERE host = ?1", [host.0])?;
    tx.execute("DELETE FROM host_version WHERE host = ?1", [host.0])?;
    tx.execute("DELETE FROM host WHERE id = ?1", [host.0])?;
    Ok(())
}

/// Writes a join token as it is now.
pub(super) fn write_token(tx: &Transaction<'_>, token: &JoinRecord) -> Result<(), StateError> {
    tx.prepare_cached(
        "INSERT INTO join_token (id, secret_hash, created_ms, created_by, expires_ms, max_uses, uses, labels, replaces,
           revoked_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (id) DO UPDATE SET uses = ?7, revoked_ms = ?10",
    )?
    .execute(params![
        token.id,
        token.secret.0,
        token.created_ms,
        token.created_by,
        token.expires_ms,
        token.max_uses,
        token.uses,
        json(&token.labels)?,
        token.replaces.map(|host| host.0),
        token.revoked_ms,
    ])?;
    Ok(())
}

/// Forgets a join token.
pub(super) fn delete_token(tx: &Transaction<'_>, id: &str) -> Result<(), StateError> {
    tx.execute("DELETE FROM join_token WHERE id = ?1", [id])?;
    Ok(())
}

/// Takes down that a client joined with a token. False where it did so before.
pub(super) fn use_token(
    tx: &Transaction<'_>,
    token: &str,
    client: HostId,
    now_ms: i64,
) -> Result<bool, StateError> {
    let rows = tx
        .prepare_cached(
            "INSERT INTO join_token_use (token, host, time_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![token, client.0, now_ms])?;
    Ok(rows > 0)
}
