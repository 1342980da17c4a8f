//! Which keys of the server each host knows, by its own word.

use rusqlite::{OptionalExtension, params};
use vitals_wire::ids::HostId;

use super::{State, StateError};

/// SHA-256 of a public key (SPKI).
pub type Pin = [u8; 32];

impl State {
    /// Takes down which keys a host knows from now on. Nothing is written where it knew the same.
    ///
    /// # Errors
    /// It is not on disk. The host says it again after its next change.
    pub async fn learnt(&self, host: HostId, pins: &[Pin]) -> Result<(), StateError> {
        let learnt = pins.concat();
        self.transaction(move |tx| {
            let known: Option<Vec<u8>> = tx
                .prepare_cached("SELECT learnt FROM host WHERE id = ?1")?
                .query_row([host.0], |row| row.get(0))
                .optional()?;
            if known.is_some_and(|known| known != learnt) {
                tx.prepare_cached("UPDATE host SET learnt = ?2 WHERE id = ?1")?
                    .execute(params![host.0, learnt])?;
            }
            Ok(())
        })
        .await
    }

    /// Hosts that do not know a key, without those that were revoked. Ascending by id.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub async fn not_learnt(&self, pin: Pin) -> Result<Vec<HostId>, StateError> {
        self.transaction(move |tx| {
            let mut query =
                tx.prepare_cached("SELECT id, learnt FROM host WHERE revoked_ms IS NULL ORDER BY id")?;
            let mut rows = query.query([])?;
            let mut hosts = Vec::new();
            while let Some(row) = rows.next()? {
                let learnt = row.get_ref(1)?.as_blob().unwrap_or_default();
                if !learnt.chunks_exact(pin.len()).any(|known| known == pin) {
                    hosts.push(HostId(row.get(0)?));
                }
            }
            Ok(hosts)
        })
        .await
    }

    /// How many hosts are known that were not revoked.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub async fn not_revoked(&self) -> Result<u64, StateError> {
        self.transaction(|tx| {
            let count: i64 =
                tx.query_row("SELECT count(*) FROM host WHERE revoked_ms IS NULL", [], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use vitals_wire::bounded::Text;
    use vitals_wire::message::Hello;

    use super::*;
    use crate::state::tests::{self, admit};

    fn hello(id: u8) -> Hello {
        tests::hello(id, &format!("host-{id}"), &[])
    }

    #[tokio::test]
    async fn what_a_host_has_learnt_is_kept_over_a_restart_and_over_what_it_says_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        {
            let (state, _thread) = State::open(&path).unwrap();
            for id in [1, 2] {
                admit(&state, hello(id), 5, None).await.unwrap();
            }
            assert_eq!(state.not_learnt([7; 32]).await.unwrap(), [HostId([1; 16]), HostId([2; 16])]);
            state.learnt(HostId([1; 16]), &[[6; 32], [7; 32]]).await.unwrap();
            let renamed = Hello { name: Text::cut("other"), ..hello(1) };
            admit(&state, renamed, 6, None).await.unwrap();
            state.learnt(HostId([9; 16]), &[[7; 32]]).await.unwrap();
        }
        let (state, _thread) = State::open(&path).unwrap();
        assert_eq!(state.not_learnt([7; 32]).await.unwrap(), [HostId([2; 16])]);
        assert_eq!(state.not_learnt([6; 32]).await.unwrap(), [HostId([2; 16])]);
        assert_eq!(state.not_revoked().await.unwrap(), 2);
        state.learnt(HostId([1; 16]), &[]).await.unwrap();
        assert_eq!(state.not_learnt([7; 32]).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn nothing_is_written_where_nothing_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
        admit(&state, hello(1), 5, None).await.unwrap();
        state.learnt(HostId([1; 16]), &[[7; 32]]).await.unwrap();
        let written = || std::fs::read(dir.path().join("state.db-wal")).unwrap();
        let before = written();
        for _ in 0..3 {
            state.learnt(HostId([1; 16]), &[[7; 32]]).await.unwrap();
        }
        assert!(before == written());
    }
}
