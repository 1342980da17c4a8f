//! What a link tells, for the log: repeated trouble once a minute, totals at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vitals_wire::limits::MAX_REASONS;
use vitals_wire::sample::Sample;

use crate::collect::Counters;
use crate::health::{self, Health};
use crate::link::driver::Observer;
use crate::link::event::{Closed, Event, News, TrustNews};
use crate::spool::job;
use crate::tee::Tee;

/// The same trouble is logged again after this.
const REPEAT: Duration = Duration::from_secs(60);
/// Kinds of trouble with connections that are told apart; a server can make up any number of them.
const MAX_TROUBLES: usize = 32;

/// Logs what happens, counts it, keeps the client's health, and hands what is sent to the tee.
pub struct Reporter {
    health: Arc<Health>,
    servers: Vec<String>,
    tee: Option<Tee>,
    has_settled: bool,
    /// By reason; a server can make up any number of them, so at most [`MAX_REASONS`].
    dropped: BTreeMap<String, Drops>,
    /// By server and reason, since the last connection.
    troubles: BTreeMap<(usize, String), Calm>,
}

/// Samples lost for one reason.
#[derive(Debug, Default)]
struct Drops {
    total: u64,
    calm: Calm,
}

impl Reporter {
    /// A reporter for links to these servers; what is sent goes to `tee`, too.
    pub fn new(health: Arc<Health>, servers: Vec<String>, tee: Option<Tee>) -> Self {
        Self { health, servers, tee, has_settled: false, dropped: BTreeMap::new(), troubles: BTreeMap::new() }
    }

    fn server(&self, index: usize) -> &str {
        self.servers.get(index).map_or("", String::as_str)
    }

    fn closed(&mut self, server: usize, why: &Closed, retry_in: Option<Duration>) {
        let reason = why.to_string();
        self.health.closed(self.server(server), &reason);
        let retry_ms = retry_in.map(|time| time.as_millis() as u64);
        // A server that is away for long says nothing new.
        if self.troubles.len() >= MAX_TROUBLES {
            self.troubles.clear();
        }
        let calm = self.troubles.entry((server, reason.clone())).or_default();
        let is_loud = calm.lets_pass(Instant::now()).is_some();
        let server = self.server(server);
        match why {
            Closed::Refused { retry: false, .. } => {
                tracing::error!(server, reason, retry_ms, "the server does not take this host");
            }
            _ if is_loud => tracing::warn!(server, reason, retry_ms, "no connection"),
            _ => tracing::debug!(server, reason, retry_ms, "no connection"),
        }
    }

    /// Logs what was counted; at the end `lost` samples were waiting in memory, and `spooled` on disk, for the next start.
    pub fn sum_up(&self, lost: usize, spooled: u64, counters: &Counters) {
        for (reason, drops) in &self.dropped {
            tracing::info!(reason, total = drops.total, "samples were dropped");
        }
        let dropped: u64 = self.dropped.values().map(|drops| drops.total).sum();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let is = self.health.snapshot();
        tracing::info!(
            taken = is.taken,
            settled = is.acked,
            dropped,
            lost,
            spooled,
            missed_ticks = read(&counters.missed_ticks),
            hung_reads = read(&counters.hung_reads),
            hanging_now = read(&counters.hanging_now),
            skipped_reads = read(&counters.skipped_reads),
            left_out = read(&counters.left_out),
            "stopped"
        );
    }
}

impl Observer for Reporter {
    fn event(&mut self, event: Event) {
        match event {
            Event::Taken { .. } => self.health.taken(),
            Event::Settled { age, .. } => {
                self.health.settled();
                if !std::mem::replace(&mut self.has_settled, true) {
                    let after_ms = self.health.started().elapsed().as_millis() as u64;
                    tracing::info!(
                        after_ms,
                        ack_ms = age.map(|age| age.as_millis() as u64),
                        "first sample settled"
                    );
                }
            }
            Event::Dropped { time_ms, loss, .. } => {
                let mut reason = loss.to_string();
                self.health.dropped(&reason, 1);
                if self.dropped.len() + 1 >= MAX_REASONS && !self.dropped.contains_key(&reason) {
                    reason = health::OTHER_REASONS.to_owned();
                }
                let drops = self.dropped.entry(reason.clone()).or_default();
                drops.total += 1;
                if let Some(count) = drops.calm.lets_pass(Instant::now()) {
                    tracing::warn!(reason, time_ms, count, total = drops.total, "samples dropped");
                }
            }
            Event::Opened { server, name, version, server_time_ms } => {
                let skew_ms = server_time_ms.saturating_sub(health::wall_ms());
                tracing::info!(server = self.server(server), name, version, skew_ms, "connected");
                self.troubles.clear();
                if let Some(tee) = &mut self.tee {
                    tee.set_name(&name);
                }
                let server = self.server(server).to_owned();
                let since = Instant::now();
                self.health.connected(health::Connection { server, server_version: version, name, since });
            }
            Event::Closed { server, why, retry_in } => self.closed(server, &why, retry_in),
            Event::Waiting(waiting) => self.health.waiting(health::Waiting {
                memory: waiting.memory as u64,
                disk: waiting.disk,
                oldest_ms: waiting.oldest_ms,
                spool_bytes: waiting.spool_bytes,
            }),
            Event::Spool(news) => spool(&news),
            Event::Trust(news) => trust(&news),
            Event::Standing(stands) => self.health.stands(stands.is_joined, stands.has_next_secret),
            Event::ServerClock { server_time_ms } => self.health.server_clock(server_time_ms),
            Event::Ignored { what } => tracing::debug!(what, "the server asked for what is not offered"),
        }
    }

    fn first_sent(&mut self, sample: &Sample) {
        if let Some(tee) = &mut self.tee {
            tee.write(sample);
        }
    }
}

/// Tells of the spool, which says nothing twice.
fn spool(news: &News) {
    match news {
        News::Opened { samples: 0, bytes, drops } if *drops == job::Drops::default() => {
            tracing::debug!(bytes, "the spool is empty");
        }
        News::Opened { samples, bytes, drops } => tracing::info!(
            samples,
            bytes,
            spool_full = drops.spool_full,
            too_old = drops.too_old,
            too_large = drops.too_large,
            damaged = drops.damaged,
            "the spool: samples of an earlier run that wait, and what was ever dropped from it"
        ),
        News::Lasts { max_bytes, time } => {
            let hours = time.as_secs() as f64 / 3600.0;
            tracing::info!(
                max_bytes,
                hours = format!("{hours:.1}"),
                "so long the spool has room without a server"
            );
        }
        News::Trouble { why } => {
            tracing::warn!(
                reason = why,
                "the spool cannot be used: samples wait in memory, and it is tried again"
            );
        }
        News::Recovered => tracing::info!("the spool can be used again"),
        News::Damaged { stretches } => {
            tracing::warn!(stretches, "damaged bytes in the spool are skipped; the samples in them are lost");
        }
        News::Off { why } => tracing::error!(reason = why, "no spool: samples wait in memory"),
    }
}

/// Tells of joining, secrets and keys.
fn trust(news: &TrustNews) {
    match news {
        TrustNews::Joined => {
            tracing::info!("joined: a server took this host; the join token is not needed any more")
        }
        TrustNews::TokenAgain => {
            tracing::warn!("the server does not take this host by its secret: trying the join token, too");
        }
        TrustNews::OldSecret => {
            tracing::info!("the server does not know this host's new secret: showing the old one");
        }
        TrustNews::SecretMade => {
            tracing::info!("the server asked for a new secret: it is kept, and told now")
        }
        TrustNews::SecretChanged => {
            tracing::info!("the server took this host's new secret: the old one is forgotten")
        }
        TrustNews::Learnt { pins } => {
            let pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
            tracing::info!(pins = pins.join(","), "these keys of the server are trusted from now on");
        }
        TrustNews::Trouble { why } => {
            tracing::warn!(reason = why, "what was learnt of the server cannot be kept: trying on");
        }
        TrustNews::Recovered => tracing::info!("what was learnt of the server can be kept again"),
    }
}

/// Lets the first of a kind pass, and then one a minute.
#[derive(Debug, Default)]
struct Calm {
    last: Option<Instant>,
    held_back: u64,
}

impl Calm {
    /// How many this one stands for, if it may pass.
    fn lets_pass(&mut self, now: Instant) -> Option<u64> {
        self.held_back += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < REPEAT) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::event::Loss;
    use vitals_wire::message::DropReason;

    /// What `f` logs.
    fn logged(f: impl FnOnce()) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(file.reopen().map(std::sync::Mutex::new).unwrap());
        tracing::subscriber::with_default(subscriber.finish(), f);
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn each_reason_is_told_by_itself_and_the_end_tells_all_counters() {
        let health = Arc::new(Health::new());
        let mut reporter = Reporter::new(health.clone(), vec!["a".into(), "b".into()], None);
        let text = logged(|| {
            for loss in
                [Loss::QueueFull, Loss::QueueFull, Loss::Refused(DropReason::QueueFull), Loss::TooLarge]
            {
                reporter.event(Event::Dropped { time_ms: 1, hash: 2, loss });
            }
            for _ in 0..3 {
                for server in [0, 1] {
                    reporter.event(Event::Closed { server, why: Closed::ByServer, retry_in: None });
                }
            }
        });
        assert_eq!(text.matches("samples dropped").count(), 2, "{text}");
        assert!(text.contains("too_large"), "another reason just before hides it not: {text}");
        assert_eq!(text.matches("no connection").count(), 2, "{text}");
        let counters = Counters::default();
        for (counter, count) in [
            (&counters.missed_ticks, 11),
            (&counters.hung_reads, 12),
            (&counters.hanging_now, 13),
            (&counters.skipped_reads, 14),
            (&counters.left_out, 15),
        ] {
            Counters::add(counter, count);
        }
        let text = logged(|| reporter.sum_up(3, 7, &counters));
        let words = "dropped=4 lost=3 spooled=7 missed_ticks=11 hung_reads=12 hanging_now=13 skipped_reads=14 left_out=15";
        assert!(text.contains(words), "{text}");
        assert_eq!(text.matches("samples were dropped").count(), 2, "{text}");
        assert_eq!(health.snapshot().dropped, [("queue_full".to_owned(), 3), ("too_large".to_owned(), 1)]);
        assert_eq!(health.snapshot().last_error.unwrap().server, "b");
    }

    #[test]
    fn reasons_that_a_server_makes_up_take_neither_memory_nor_the_log_for_themselves() {
        let mut reporter = Reporter::new(Arc::new(Health::new()), vec!["a".into()], None);
        let text = logged(|| {
            for code in 1000..2000 {
                let loss = Loss::Refused(DropReason::Other(code));
                reporter.event(Event::Dropped { time_ms: 1, hash: 2, loss });
            }
        });
        assert_eq!(reporter.dropped.len(), MAX_REASONS);
        assert_eq!(reporter.dropped.values().map(|drops| drops.total).sum::<u64>(), 1000);
        assert_eq!(text.matches("samples dropped").count(), MAX_REASONS);
    }

    #[test]
    fn what_repeats_is_said_once_a_minute_with_how_often_it_was() {
        let mut calm = Calm::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(calm.lets_pass(start), Some(1));
        assert_eq!(calm.lets_pass(after(1)), None);
        assert_eq!(calm.lets_pass(after(59)), None);
        assert_eq!(calm.lets_pass(after(61)), Some(3));
    }
}
