//! Reads the store and InfluxDB, host by host, and lets the oracle judge.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use vitals_client::simulate::host::Host;
use vitals_server::journal::{Journal, JournalOptions};
use vitals_server::metrics::Metrics;
use vitals_server::store::{Store, StoreOptions};
use vitals_wire::ids::HostId;

use super::book::Entries;
use super::fields::{Field, Names, flux_query, of_flux, of_lines, of_store};
use super::influxd::{BUCKET, Influxd, ORG};
use super::oracle::{Found, Simulated, Verdict, judge, judge_real};
use super::record::{Record, Taken};
use super::schedule::Target;
use super::town::{INTERVAL_MS, PREFIX, Town};

/// How long one host's answer may take.
const QUERY: Duration = Duration::from_secs(300);

/// The store as the server left it, opened from a copy, so that what the server left stays as it is.
pub struct History {
    // Must live as long as the store reads it.
    _journal: Journal,
    store: Store,
}

impl History {
    /// Copies `data` to `copy` and opens it, what is only in the journal included.
    pub fn open(data: &Path, copy: &Path) -> anyhow::Result<Self> {
        let copied = Command::new("cp").arg("-a").arg(data).arg(copy).status()?;
        ensure!(copied.success(), "cp -a {} {}: {copied}", data.display(), copy.display());
        let metrics = Arc::new(Metrics::new());
        let journal = Journal::open(JournalOptions::new(copy.join("journal")), metrics.clone())?;
        let store = Store::open(StoreOptions::new(copy.join("history.db")), &journal, metrics)?;
        store.flush()?;
        Ok(Self { _journal: journal, store })
    }
}

async fn ask(http: &reqwest::Client, influxd: &Influxd, host: &str) -> anyhow::Result<String> {
    let body = serde_json::json!({
        "query": flux_query(BUCKET, host),
        "dialect": {"annotations": ["datatype"], "delimiter": ","},
    });
    let answer = http
        .post(format!("{}/api/v2/query?org={ORG}", influxd.url()))
        .header("authorization", format!("Token {}", influxd.token().reveal()))
        .header("content-type", "application/json")
        .timeout(QUERY)
        .body(body.to_string())
        .send()
        .await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "InfluxDB answers {status}: {text}");
    Ok(text)
}

/// What stores and InfluxDB hold of one host.
async fn found(
    (history, influxd, http): (&Arc<History>, &Influxd, &reqwest::Client),
    (id, name): (HostId, &str),
    names: Names,
    verdict: &mut Verdict,
) -> anyhow::Result<(Found, Found, Names)> {
    let csv = ask(http, influxd, name);
    let history = history.clone();
    let stored = tokio::task::spawn_blocking(move || {
        let (mut names, mut fields) = (names, Vec::new());
        of_store(&mut names, &history.store, id, &mut fields).map(|()| (names, fields))
    });
    let (csv, stored) = tokio::join!(csv, stored);
    let (mut names, stored) = stored??;
    let mut in_influx: Vec<Field> = Vec::new();
    of_flux(&mut names, &csv?, &mut in_influx).with_context(|| format!("{name} in InfluxDB"))?;
    let store = Found::new(stored, &format!("{name} in the store"), verdict, &names);
    let influx = Found::new(in_influx, &format!("{name} in InfluxDB"), verdict, &names);
    Ok((store, influx, names))
}

/// Judges all hosts.
pub async fn compare(
    town: &Town,
    record: &Record,
    entries: &Entries,
    history: History,
    influxd: &Influxd,
    http: &reqwest::Client,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    let history = Arc::new(history);
    let from = (&history, influxd, http);
    let nothing = Default::default();
    for index in 0..town.wish.hosts {
        let host = Host::numbered(town.wish.seed, index, PREFIX, INTERVAL_MS);
        let taken: &std::collections::BTreeMap<i64, Taken> = record.hosts.get(&host.name).unwrap_or(&nothing);
        let (store, influx, mut names) =
            found(from, (host.id, &host.name), Names::default(), &mut verdict).await?;
        let simulated = Simulated { host: &host, taken, store: &store, influx: &influx };
        judge(&simulated, entries, town.wish.has_spool, &mut names, &mut verdict);
        if (index + 1).is_multiple_of(50) {
            eprintln!("   {} of {} hosts compared", index + 1, town.wish.hosts);
        }
    }
    for number in 0..town.wish.clients {
        let id = identity(&town.client_data(number))?;
        let name = Town::client_name(number);
        let (store, influx, mut names) = found(from, (id, &name), Names::default(), &mut verdict).await?;
        let mut sent = Vec::new();
        of_lines(&mut names, &fs::read_to_string(town.client_tee(number))?, &mut sent)
            .with_context(|| format!("what {name} sent"))?;
        // A client that was killed may not know that it had sent a sample, and writes it down a second time.
        sent.sort_unstable();
        sent.dedup();
        let tee = Found::new(sent, &format!("{name} as sent"), &mut verdict, &names);
        let found = (&store, &influx);
        let about = (entries, town.wish.has_spool);
        judge_real(Target::Client(number), &tee, found, about, &names, &mut verdict);
    }
    Ok(verdict)
}

/// The id that a client made for itself.
fn identity(dir: &Path) -> anyhow::Result<HostId> {
    let path = dir.join("identity");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let hex = text.lines().find_map(|line| line.strip_prefix("host = ")).context("no host in an identity")?;
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        let digits = hex.get(2 * at..2 * at + 2).context("a short id in an identity")?;
        *byte = u8::from_str_radix(digits, 16)?;
    }
    Ok(HostId(id))
}
