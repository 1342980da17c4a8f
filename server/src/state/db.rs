//! `state.db`: hosts and their versions in SQLite, each transaction on disk before it counts.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction, params};
use vitals_wire::ids::HostId;

use super::StateError;
use super::host::{FactsRecord, Host, Version};

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
            "SELECT id, first_seen_ms, told_name, client_version, interval_ms, facts FROM host ORDER BY id",
        )?;
        let mut rows = query.query([])?;
        let mut hosts = Vec::new();
        while let Some(row) = rows.next()? {
            let id = HostId(row.get(0)?);
            let mut own = Vec::new();
            while let Some((_, version)) = versions.next_if(|(host, _)| *host <= id) {
                own.push(version);
            }
            // Facts are told anew at each connection: those that cannot be read are not worth stopping for.
            let facts: FactsRecord = serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default();
            hosts.extend(Host::kept(id, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, facts, own));
        }
        Ok(hosts)
    }

    fn versions(&self) -> Result<Vec<(HostId, Version)>, StateError> {
        let mut query =
            self.0.prepare("SELECT host, from_ms, name, labels FROM host_version ORDER BY host, from_ms")?;
        let mut rows = query.query([])?;
        let mut versions = Vec::new();
        while let Some(row) = rows.next()? {
            let labels = serde_json::from_str(&row.get::<_, String>(3)?)
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

    /// Writes these hosts as they are now, all or none.
    pub(super) fn write<'a>(&mut self, hosts: impl Iterator<Item = &'a Host>) -> Result<(), StateError> {
        let json =
            |value: serde_json::Result<String>| value.map_err(|error| StateError::Disk(error.to_string()));
        let transaction = self.0.transaction()?;
        {
            let mut host_row = transaction.prepare_cached(
                "INSERT INTO host (id, first_seen_ms, told_name, client_version, interval_ms, facts)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE SET
                   told_name = ?3, client_version = ?4, interval_ms = ?5, facts = ?6",
            )?;
            let mut version_row = transaction.prepare_cached(
                "INSERT INTO host_version (host, from_ms, name, labels) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO NOTHING",
            )?;
            for host in hosts {
                host_row.execute(params![
                    host.id.0,
                    host.first_seen_ms,
                    host.told_name,
                    host.client_version,
                    host.interval_ms,
                    json(serde_json::to_string(&host.facts))?,
                ])?;
                for version in host.versions() {
                    let labels = json(serde_json::to_string(&version.labels))?;
                    version_row.execute(params![host.id.0, version.from_ms, version.name, labels])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}
