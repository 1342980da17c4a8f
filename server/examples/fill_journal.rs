//! Fills the journal of a data directory as if nobody had read it for hours: `fill_journal DATA_DIR MIB [HOSTS]`.
//!
//! The hosts are those of `vitals-client simulate` with seed 1 and names that begin with `late-`, a sample each 5 s until
//! now. No server may run on the directory. `scripts/bench.sh restart` starts one on it then.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use vitals_client::simulate::host::Host;
use vitals_client::simulate::script::Given;
use vitals_server::data_dir::DataDir;
use vitals_server::journal::{Encoded, Journal, JournalError, JournalOptions};
use vitals_server::metrics::Metrics;
use vitals_server::state::audit::By;
use vitals_server::state::{Labels, NewJoinToken, State};
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::RunId;
use vitals_wire::message::{Hello, PROTOCOL_VERSION};
use vitals_wire::record::Record;
use vitals_wire::token::JoinToken;

const INTERVAL_MS: i64 = 5_000;
/// More than a sample of these hosts takes in the journal, compressed: only to know where to begin.
const LEAST_BYTES: u64 = 90;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().context("fill_journal DATA_DIR MIB [HOSTS]")?;
    let bytes = arguments.next().context("how many MiB?")?.parse::<u64>()? << 20;
    let hosts = arguments.next().map_or(Ok(1_000), |hosts| hosts.parse::<u32>())?;
    let dir = DataDir::lock(Path::new(&dir))?;
    let (state, _thread) = State::open(&dir.path().join("state.db"))?;
    let hosts: Vec<Host> =
        (0..hosts).map(|index| Host::numbered(1, index, "late-", INTERVAL_MS as u32)).collect();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let rounds = (bytes / LEAST_BYTES / hosts.len() as u64).max(1) as i64;
    let wanted = NewJoinToken {
        expires_ms: i64::MAX,
        max_uses: u32::try_from(hosts.len())?,
        labels: Labels::new(),
        replaces: None,
    };
    let (_, secret) = state.create_join_token(&By::local(), wanted).await?;
    let token = JoinToken { secret, expires_ms: i64::MAX, pins: Vec::new(), addresses: Vec::new() };
    for host in &hosts {
        let hello = Hello { token: Some(token.said()), ..hello(host) };
        state.admit(hello, "-", now_ms - rounds * INTERVAL_MS, None).await?;
    }
    let options = JournalOptions { cap_bytes: 2 * bytes, ..JournalOptions::new(dir.subdir("journal")?) };
    let metrics = Arc::new(Metrics::new());
    let journal = Journal::open(options, metrics.clone())?;
    let mut samples = 0u64;
    for round in (0..rounds).rev() {
        for host in &hosts {
            let phase = (host.phase() * INTERVAL_MS as f64) as i64 / 10 * 10;
            let time_ms = (now_ms - round * INTERVAL_MS) / INTERVAL_MS * INTERVAL_MS - INTERVAL_MS + phase;
            let record = Record {
                host: host.id,
                received_ms: time_ms,
                backlog: false,
                samples: vec![host.sample(time_ms, &Given::default())],
            };
            append(&journal, &Encoded::new(&record)?).await?;
            samples += 1;
        }
        if metrics.journal_bytes.get() >= bytes {
            break;
        }
    }
    journal.close().await;
    println!("samples={samples} bytes={}", metrics.journal_bytes.get());
    Ok(())
}

/// As sessions do, but for the wait of a second.
async fn append(journal: &Journal, record: &Encoded) -> Result<()> {
    loop {
        match journal.append(record) {
            Ok(_) => return Ok(()),
            Err(JournalError::Busy) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

fn hello(host: &Host) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Text::cut("fill_journal"),
        host: host.id,
        run: RunId([1; 16]),
        secret: host.secret.clone(),
        token: None,
        name: Text::cut(&host.name),
        labels: List::empty(),
        facts: host.facts(),
        interval_ms: INTERVAL_MS as u32,
        shortest_interval_ms: INTERVAL_MS as u32,
        clock_ms: 0,
    }
}
