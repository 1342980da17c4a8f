//! What a power cut leaves behind the last record of a log: half a record, garbage, a new segment without a header.
//!
//! Only what lies behind the newest bytes is touched. A process that was killed has written nothing after what it
//! committed but the beginning of a commit that nobody was told of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Bytes added to a segment at most.
const MOST: usize = 4_096;
/// Directories below the first in which logs are looked for.
const DEPTH: usize = 4;

/// Spoils the newest segment of every log below `dir`. Gives how many there were.
pub fn tear(dir: &Path, rng: &mut Rng) -> io::Result<u64> {
    let mut newest: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    find(dir, DEPTH, &mut newest)?;
    let mut torn = 0;
    for path in newest.into_values() {
        // A full disk cannot be spoiled by adding to it.
        torn += u64::from(spoil(&path, rng).is_ok());
    }
    Ok(torn)
}

/// The segments with the highest number, by their directory.
fn find(dir: &Path, depth: usize, newest: &mut BTreeMap<PathBuf, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if depth > 0 {
                find(&path, depth - 1, newest)?;
            }
        } else if number(&path).is_some() {
            let place = newest.entry(dir.to_owned()).or_insert_with(|| path.clone());
            if *place < path {
                *place = path;
            }
        }
    }
    Ok(())
}

/// Twelve digits and `.log`, as the log names its segments.
fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    if name.len() == 12 { name.parse().ok() } else { None }
}

fn spoil(path: &Path, rng: &mut Rng) -> io::Result<()> {
    let mut bytes = vec![0; rng.usize(1..MOST)];
    match rng.u32(0..4) {
        // Zeros, as a file system leaves them.
        0 => {}
        // The beginning of a record that is longer than what follows.
        1 => {
            let length = (bytes.len() as u32 + 1_000).to_be_bytes();
            rng.fill(&mut bytes);
            for (place, byte) in bytes.iter_mut().zip(length.into_iter().chain([0])) {
                *place = byte;
            }
        }
        _ => rng.fill(&mut bytes),
    }
    let next = number(path).map(|number| path.with_file_name(format!("{:012}.log", number + 1)));
    match next {
        // A segment that was made and not written to: nothing, or a part of its header.
        Some(next) if rng.u32(0..4) == 0 => {
            bytes.truncate(rng.usize(0..28));
            File::create_new(next)?.write_all(&bytes)
        }
        _ => File::options().append(true).open(path)?.write_all(&bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vitals_client::simulate::host::Host;
    use vitals_client::simulate::script::Given;
    use vitals_server::journal::{Encoded, Journal, JournalOptions};
    use vitals_server::metrics::Metrics;
    use vitals_wire::record::Record;

    fn open(dir: &Path) -> Journal {
        Journal::open(JournalOptions::new(dir.to_owned()), Arc::new(Metrics::new())).unwrap()
    }

    #[tokio::test]
    async fn a_torn_log_still_has_all_that_was_committed() {
        let mut rng = Rng::with_seed(1);
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a/b");
        fs::create_dir_all(&log).unwrap();
        fs::write(dir.path().join("a/server.log"), "not a segment").unwrap();
        let host = Host::numbered(1, 0, "sim-", 1_000);
        for round in 0..30 {
            let journal = open(&log);
            let samples = vec![host.sample(round, &Given::default())];
            let record = Record { host: host.id, received_ms: round, backlog: false, samples };
            journal.append(&Encoded::new(&record).unwrap()).unwrap().wait().await.unwrap();
            journal.close().await;
            assert_eq!(tear(dir.path(), &mut rng).unwrap(), 1);
            let journal = open(&log);
            let mut reader = journal.reader("test", vitals_wire::log::Position::default()).unwrap();
            let mut found = Vec::new();
            while let Some(entry) = reader.try_next().unwrap() {
                found.push(entry.record.received_ms);
            }
            assert_eq!(found, (0..=round).collect::<Vec<_>>());
            journal.close().await;
        }
        assert_eq!(fs::read(dir.path().join("a/server.log")).unwrap(), b"not a segment");
    }
}
