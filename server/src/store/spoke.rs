//! Which hosts have spoken of late, asked of the file alone: for commands, with or without a server.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::Connection;
use vitals_wire::ids::HostId;

use super::db::{self, Blobs};
use super::error::StoreError;

/// Those of `hosts` of which there are samples since `since_ms`, by the hour. What came within the last minutes may be in
/// nobody's file yet. Nobody has spoken where there is no history.
///
/// # Errors
/// The file cannot be read.
pub fn spoke_since(
    path: &Path,
    hosts: &[HostId],
    since_ms: i64,
    now_ms: i64,
) -> Result<HashSet<HostId>, StoreError> {
    if hosts.is_empty() || !path.is_file() {
        return Ok(HashSet::new());
    }
    let connection = db::open_reader(path)?;
    let numbers = numbers(&connection)?;
    let (Some(first), Some(last)) = (db::hour_of(since_ms), db::hour_of(now_ms)) else {
        return Ok(HashSet::new());
    };
    let mut spoke = HashSet::new();
    for (host, number) in hosts.iter().filter_map(|host| Some((*host, *numbers.get(host)?))) {
        // Most have spoken within this hour or never again.
        for hour in (first..=last).rev() {
            let has =
                |blobs| db::keys_in(&connection, blobs, db::keys(hour, number)).map(|keys| !keys.is_empty());
            if has(Blobs::Pieces)? || has(Blobs::Raw)? {
                spoke.insert(host);
                break;
            }
        }
    }
    Ok(spoke)
}

fn numbers(connection: &Connection) -> rusqlite::Result<HashMap<HostId, u32>> {
    connection
        .prepare("SELECT id, number FROM hosts")?
        .query_map([], |row| Ok((HostId(row.get(0)?), row.get(1)?)))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_spoken_if_it_did_so_within_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.db");
        let hosts = [1, 2, 3].map(|id| HostId([id; 16]));
        assert!(spoke_since(&path, &hosts, 0, 1).unwrap().is_empty(), "no history yet");
        let mut connection = db::open(&path).unwrap();
        let hour = |hour: i64| hour * 3_600_000;
        let tx = connection.transaction().unwrap();
        for (number, host) in hosts.into_iter().take(2).enumerate() {
            db::put_host(&tx, number as u32, host).unwrap();
        }
        db::put_blob(&tx, Blobs::Pieces, db::key(100, 0), b"x").unwrap();
        db::put_blob(&tx, Blobs::Raw, db::key(90, 1), b"x").unwrap();
        tx.commit().unwrap();
        let spoke = |since, now| {
            let mut spoke: Vec<_> =
                spoke_since(&path, &hosts, hour(since), hour(now)).unwrap().into_iter().collect();
            spoke.sort_unstable();
            spoke
        };
        assert_eq!(spoke(90, 101), hosts[..2]);
        assert_eq!(spoke(91, 101), hosts[..1]);
        assert_eq!(spoke(101, 110), []);
    }
}
