//! The InfluxDBs that are written to: opened, joined with journal and history, and cleared away when they are no longer
//! configured.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use vitals_wire::ids::HostId;
use vitals_wire::log::{Position, RealFs};

use crate::clock;
use crate::config::{Config, FIRST_TARGET, InfluxTarget, is_target_name};
use crate::data_dir::DataDir;
use crate::influx::owed::Span;
use crate::influx::{self, Filled, History, TagsAt, Target};
use crate::journal::{Journal, JournalError, JournalReader};
use crate::metrics::Metrics;
use crate::session::protocol::MOST_AHEAD;
use crate::store::Store;

/// Where each target has a directory of its own.
const DIR: &str = "influx";
/// Pause before a writer to InfluxDB that broke down is started again.
const RESTART: Duration = Duration::from_secs(5);

/// All writers, ready to run.
pub struct Writers {
    /// In the order of the configuration.
    pub writers: Vec<Writer>,
}

/// A target and its reader of the journal.
pub struct Writer {
    target: Arc<Target>,
    reader: JournalReader,
    /// Bytes of the journal that it may hold back.
    share: u64,
}

impl Writers {
    /// The targets, for those who ask how they are.
    pub fn targets(&self) -> Arc<[Arc<Target>]> {
        self.writers.iter().map(|writer| writer.target.clone()).collect()
    }
}

/// The time that history holds at most: also what hosts told whose clocks are ahead.
pub fn history_span(keep_raw: Duration) -> Span {
    let now_ms = clock::now_ms();
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let (kept_ms, ahead_ms) = (ms(keep_raw), ms(MOST_AHEAD));
    // Nothing is kept of before 1970.
    Span { from_ms: now_ms.saturating_sub(kept_ms).max(0), to_ms: now_ms.saturating_add(ahead_ms) }
}

/// Opens the targets of the configuration, without a journal.
///
/// # Errors
/// A directory cannot be used, or the list of what is owed cannot be read.
pub fn open_all(config: &Config, data_dir: &DataDir, metrics: &Metrics) -> anyhow::Result<Vec<Arc<Target>>> {
    let targets = config.influx.all();
    if !targets.is_empty() {
        data_dir.subdir(DIR)?;
    }
    targets.iter().map(|target| open_one(target, config, data_dir, metrics)).collect()
}

fn open_one(
    target: &InfluxTarget,
    config: &Config,
    data_dir: &DataDir,
    metrics: &Metrics,
) -> anyhow::Result<Arc<Target>> {
    let dir = data_dir.subdir(&format!("{DIR}/{}", target.name))?;
    let options = target.options(&dir);
    options.check()?;
    let history = history_span(config.store.keep_raw);
    Ok(Target::open(options, Arc::new(RealFs), metrics, history, target.start.map(|start| start.0))?)
}

/// Opens all targets with a reader each, and clears away those that are no longer configured. To be called before the
/// store reads the journal: what one reader has passed goes unless another is known to need it.
pub(super) fn open(
    config: &Config,
    data_dir: &DataDir,
    journal: &Journal,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Writers> {
    // An InfluxDB that lags may hold back half of the journal; then it gives up the oldest, and acknowledging goes on.
    let share = config.journal.max_size.as_u64() / 2;
    let mut writers = Vec::new();
    for target in open_all(config, data_dir, metrics)? {
        target.book.limit_needs(journal.end());
        let reader = register(journal, &target, share, metrics)?;
        writers.push(Writer { target, reader, share });
    }
    let names: Vec<&str> = writers.iter().map(|writer| writer.target.options.name.as_str()).collect();
    remove_others(&names, data_dir.path(), journal, config, share);
    Ok(Writers { writers })
}

fn register(
    journal: &Journal,
    target: &Target,
    share: u64,
    metrics: &Metrics,
) -> Result<JournalReader, JournalError> {
    let before = metrics.influx_given_up_bytes.get();
    let name = reader_name(&target.options.name);
    let reader = journal.lagging_reader(name, influx::starting_point(&target.options), share)?;
    // What went before this start is only known now.
    target.metrics.given_up_bytes.add(metrics.influx_given_up_bytes.get() - before);
    Ok(reader)
}

/// The store is a reader too, and no target may be taken for it.
fn reader_name(target: &str) -> String {
    if target == FIRST_TARGET { target.to_owned() } else { format!("{FIRST_TARGET}/{target}") }
}

/// Removes the directories of targets that are no longer configured, and says what they had not got.
fn remove_others(names: &[&str], data_dir: &Path, journal: &Journal, config: &Config, share: u64) {
    let Ok(entries) = std::fs::read_dir(data_dir.join(DIR)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // What has no target's name is somebody else's.
        if !is_target_name(&name) || names.contains(&&*name) || !entry.path().is_dir() {
            continue;
        }
        let gone = InfluxTarget { name: name.clone(), ..InfluxTarget::default() };
        let options = gone.options(&entry.path());
        let metrics = Metrics::new();
        let history = history_span(config.store.keep_raw);
        let target = Target::open(options, Arc::new(RealFs), &metrics, history, None).ok();
        let lag_bytes = target.as_ref().and_then(|target| {
            let name = reader_name(&name);
            let reader =
                journal.lagging_reader(&*name, influx::starting_point(&target.options), share).ok()?;
            let lag_bytes = reader.lag_bytes(reader.position());
            journal.forget(&name);
            Some(lag_bytes)
        });
        let owed_seconds = target.as_ref().map(|target| target.metrics.owed_ms.get() / 1_000);
        let quarantined = target.and_then(|target| Some(target.quarantine.newest(0, 0).ok()?.1));
        warn!(
            influx = name,
            lag_bytes,
            owed_seconds,
            quarantined,
            "an influxdb is no longer configured: its place in the journal and what it was owed are forgotten"
        );
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            warn!(influx = name, %error, "its directory cannot be removed");
        }
    }
}

impl Writer {
    /// Writes until the shutdown. A writer that breaks down is replaced: it begins again at its cursor.
    pub(super) async fn write(
        self,
        journal: Journal,
        tags_at: TagsAt,
        history: Arc<dyn History>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) {
        let Self { target, mut reader, share } = self;
        let name = target.options.name.clone();
        loop {
            let run = influx::run(target.clone(), reader, tags_at.clone(), history.clone(), shutdown.clone());
            match run.await {
                Ok(()) => return,
                Err(error) => error!(influx = name, %error, "the writer to influxdb is started again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RESTART) => {}
            }
            reader = match register(&journal, &target, share, &metrics) {
                Ok(reader) => reader,
                Err(error) => {
                    error!(influx = name, %error, "nothing is written to influxdb any more");
                    return;
                }
            };
        }
    }
}

/// History as the writers read it.
pub struct FromStore {
    /// Where it is.
    pub store: Store,
    /// What stands on its lines.
    pub tags_at: TagsAt,
}

impl History for FromStore {
    fn hosts(&self) -> Vec<HostId> {
        self.store.hosts()
    }

    fn lines(
        &self,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
        max_lines: usize,
        out: &mut Vec<u8>,
    ) -> Result<Filled, String> {
        let mut filled = Filled { lines: 0, next_ms: None };
        let read = self.store.each_row(host, from_ms, to_ms, |row| {
            // Whom nobody knows had no lines from the journal either.
            if let Some(tags) = (self.tags_at)(host, row.time_ms) {
                filled.lines += row.write(out, &tags);
            }
            if filled.lines < max_lines {
                return ControlFlow::Continue(());
            }
            filled.next_ms = row.time_ms.checked_add(1);
            ControlFlow::Break(())
        });
        read.map(|()| filled).map_err(|error| error.to_string())
    }

    fn position(&self) -> Position {
        self.store.position()
    }

    fn oldest_ms(&self) -> i64 {
        self.store.oldest_kept_ms(clock::now_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_holds_what_hosts_told_whose_clocks_are_ahead_and_nothing_of_before_1970() {
        let now_ms = clock::now_ms();
        let day = Duration::from_secs(24 * 3600);
        let Span { from_ms, to_ms } = history_span(day);
        assert!(from_ms >= now_ms - 86_400_000 && from_ms <= now_ms, "{from_ms}");
        assert!(to_ms >= now_ms + MOST_AHEAD.as_millis() as i64, "{to_ms}");
        assert_eq!(history_span(Duration::MAX).from_ms, 0);
    }
}
