//! `vitals-client run`: samples this host and brings the samples to a server until told to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::HostId;
use vitals_wire::message::{Hello, Label, PROTOCOL_VERSION};
use vitals_wire::sample::Sample;

use crate::clock::SampleClock;
use crate::collect::Counters;
use crate::config::Config;
use crate::facts;
use crate::identity::{Identity, Starts};
use crate::link::driver::{Channel, Link, Observer};
use crate::link::event::{Closed, Event};
use crate::link::protocol::{Protocol, Settings};
use crate::link::tcp::Tcp;
use crate::queue::Caps;
use crate::sampler::{Sampler, run_sampler};
use crate::tee::Tee;

/// Samples between the sampler and the link, which takes them at once.
const SAMPLE_CHANNEL: usize = 4;
/// The same trouble is logged again after this.
const REPEAT: Duration = Duration::from_secs(60);
/// Kinds of trouble with connections that are told apart; a server can make up any number of them.
const MAX_TROUBLES: usize = 32;
/// At the end, for the last number to be written.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT; a second one ends the process at once.
pub async fn run(config: Config, tee: Option<&Path>) -> anyhow::Result<()> {
    let started = Instant::now();
    let identity = Identity::open(&config.data_dir)?;
    let tee = match tee {
        Some(path) => Some(
            Tee::open(path, config.hostname.as_str(), config.labels.clone())
                .with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => None,
    };
    let servers: Vec<String> = config.servers.iter().map(|server| server.as_str().to_owned()).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        host = %identity.host,
        name = config.hostname.as_str(),
        servers = servers.join(","),
        interval = %config.interval,
        data_dir = %config.data_dir.display(),
        is_new = identity.is_new,
        "started"
    );
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    let (out, samples) = mpsc::channel(SAMPLE_CHANNEL);
    let interval = config.interval.duration();
    let sampler = Sampler::new(&config.collect);
    let counters = sampler.counters();
    let clock = SampleClock::new((identity.starts % 10) as u8, interval);
    let keeping = tokio::spawn(keep_steps(Starts::of(&config.data_dir), identity.starts, clock.steps()));
    let phase = phase(identity.host, interval);
    let sampler = tokio::spawn(run_sampler(sampler, interval, phase, clock, out, shutdown.clone()));

    let settings = Settings {
        servers: servers.len(),
        interval,
        caps: Caps::CLIENT,
        seed: u64::from_be_bytes(crate::identity::random()?),
    };
    let link = Link {
        protocol: Protocol::new(settings, hello(&config, &identity)?, Instant::now()),
        connect: Tcp::new(servers.clone(), config.insecure),
        source: Channel { samples, shutdown: shutdown.clone() },
        observer: Reporter::new(started, servers, tee),
    };
    let ended = link.run().await;
    let was_wanted = shutdown.is_cancelled();
    shutdown.cancel();
    ended.observer.sum_up(ended.waiting, &counters);
    sampler.await.context("the sampler failed")?;
    // It ends with the sampler's clock, but for a disk that does not answer.
    let _ = tokio::time::timeout(LAST_WRITE, keeping).await;
    if !was_wanted {
        bail!("the sampler ended by itself");
    }
    Ok(())
}

/// Keeps, for the next start, each number by which the clock's counter rises: that start is not to use the digit of the
/// stretch that it follows. The disk may be slow, so it is not the sampler that waits for it.
async fn keep_steps(file: Starts, starts: u64, mut steps: watch::Receiver<u64>) {
    while steps.changed().await.is_ok() {
        let number = starts.wrapping_add(*steps.borrow_and_update());
        tracing::warn!("the clock was set, timestamps go on under another digit");
        let file = file.clone();
        match tokio::task::spawn_blocking(move || file.write(number)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot keep the number of the next start"),
            // Only when the runtime ends.
            Err(_) => return,
        }
    }
}

/// Samples at this host's own phase of the interval, so that a fleet does not speak in the same instant.
fn phase(host: HostId, interval: Duration) -> Duration {
    let bits = host.0.iter().fold(0u32, |bits, &byte| bits.wrapping_mul(257).wrapping_add(byte.into()));
    interval.mul_f64(f64::from(bits) / f64::from(u32::MAX))
}

fn hello(config: &Config, identity: &Identity) -> anyhow::Result<Hello> {
    let labels =
        config.labels.iter().map(|(key, value)| Ok(Label { key: Text::new(key)?, value: Text::new(value)? }));
    Ok(Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Text::cut(env!("CARGO_PKG_VERSION")),
        host: identity.host,
        run: identity.run,
        secret: identity.secret.clone(),
        token: config.token.as_ref().map(|token| token.text()),
        name: config.hostname.text(),
        labels: List::new(labels.collect::<anyhow::Result<Vec<_>>>()?)?,
        facts: facts::facts(),
        interval_ms: config.interval.millis(),
        // No live readings in between are offered.
        shortest_interval_ms: config.interval.millis(),
        // Set when it is said.
        clock_ms: 0,
    })
}

/// The first SIGTERM or SIGINT ends the run, the second the process.
fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if shutdown.is_cancelled() {
                tracing::warn!(signal = name, "stopping at once: what waits is lost");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "stopping: bringing home what waits");
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Cancels `shutdown` on SIGTERM or SIGINT, for commands that end by themselves too.
pub fn cancel_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    stop_on_signals(shutdown)
}

fn clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Logs what happens, counts, and hands what is sent to the tee.
struct Reporter {
    started: Instant,
    servers: Vec<String>,
    tee: Option<Tee>,
    taken: u64,
    settled: u64,
    /// By reason.
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
    fn new(started: Instant, servers: Vec<String>, tee: Option<Tee>) -> Self {
        Self {
            started,
            servers,
            tee,
            taken: 0,
            settled: 0,
            dropped: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    fn server(&self, index: usize) -> &str {
        self.servers.get(index).map_or("", String::as_str)
    }

    fn closed(&mut self, server: usize, why: &Closed, retry_in: Option<Duration>) {
        let reason = why.to_string();
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

    fn sum_up(&self, lost: usize, counters: &Counters) {
        for (reason, drops) in &self.dropped {
            tracing::info!(reason, total = drops.total, "samples were dropped");
        }
        let dropped: u64 = self.dropped.values().map(|drops| drops.total).sum();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        tracing::info!(
            taken = self.taken,
            settled = self.settled,
            dropped,
            lost,
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
            Event::Taken { .. } => self.taken += 1,
            Event::Settled { age, .. } => {
                self.settled += 1;
                if self.settled == 1 {
                    let after_ms = self.started.elapsed().as_millis() as u64;
                    tracing::info!(after_ms, ack_ms = age.as_millis() as u64, "first sample settled");
                }
            }
            Event::Dropped { time_ms, loss, .. } => {
                let reason = loss.to_string();
                let drops = self.dropped.entry(reason.clone()).or_default();
                drops.total += 1;
                if let Some(count) = drops.calm.lets_pass(Instant::now()) {
                    tracing::warn!(reason, time_ms, count, total = drops.total, "samples dropped");
                }
            }
            Event::Opened { server, name, version, server_time_ms } => {
                let skew_ms = server_time_ms - clock_ms();
                tracing::info!(server = self.server(server), name, version, skew_ms, "connected");
                self.troubles.clear();
                if let Some(tee) = &mut self.tee {
                    tee.set_name(&name);
                }
            }
            Event::Closed { server, why, retry_in } => self.closed(server, &why, retry_in),
            Event::Ignored { what } => tracing::debug!(what, "the server asked for what is not offered"),
        }
    }

    fn first_sent(&mut self, sample: &Sample) {
        if let Some(tee) = &mut self.tee {
            tee.write(sample);
        }
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
    use crate::clock::Stamp;
    use crate::link::event::Loss;
    use vitals_wire::message::DropReason;

    #[tokio::test]
    async fn a_start_after_a_step_of_the_clock_uses_a_digit_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let mut clock = SampleClock::new((identity.starts % 10) as u8, Duration::from_secs(5));
        let keeping = tokio::spawn(keep_steps(Starts::of(dir.path()), identity.starts, clock.steps()));
        let mut digits = std::collections::BTreeSet::new();
        for (wall_ms, steady_ms) in [(1_000_000, 0), (500_000, 5000), (900_000, 10_000)] {
            let Stamp::Take(stamp) = clock.stamp(wall_ms, steady_ms) else { panic!("no step") };
            digits.insert(stamp.rem_euclid(10) as u64);
        }
        assert_eq!(digits.len(), 3, "each stretch has its own");
        drop(clock);
        keeping.await.unwrap();
        drop(identity);
        let next = Identity::open(dir.path()).unwrap().starts % 10;
        assert!(!digits.contains(&next), "{next} was used: {digits:?}");
    }

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
        let mut reporter = Reporter::new(Instant::now(), vec!["a".into(), "b".into()], None);
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
        let text = logged(|| reporter.sum_up(3, &counters));
        let words =
            "dropped=4 lost=3 missed_ticks=11 hung_reads=12 hanging_now=13 skipped_reads=14 left_out=15";
        assert!(text.contains(words), "{text}");
        assert_eq!(text.matches("samples were dropped").count(), 2, "{text}");
    }

    #[test]
    fn hosts_spread_over_the_interval() {
        let interval = Duration::from_secs(5);
        let mut quarters = [0; 4];
        for _ in 0..4000 {
            let phase = phase(HostId(crate::identity::random().unwrap()), interval);
            assert!(phase <= interval);
            quarters[(phase.as_millis() / 1250).min(3) as usize] += 1;
        }
        assert!(quarters.iter().all(|count| (800..1200).contains(count)), "{quarters:?}");
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
