//! `vitals-client run`: samples this host and brings the samples to a server until told to stop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::HostId;
use vitals_wire::message::{Hello, Label, PROTOCOL_VERSION};
use vitals_wire::sample::Sample;

use crate::clock::SampleClock;
use crate::config::Config;
use crate::facts;
use crate::identity::Identity;
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
    ended.observer.sum_up(ended.waiting, counters.missed_ticks.load(Ordering::Relaxed));
    sampler.await.context("the sampler failed")?;
    if !was_wanted {
        bail!("the sampler ended by itself");
    }
    Ok(())
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
    dropped: BTreeMap<String, u64>,
    drops: Calm,
    troubles: Calm,
    last_trouble: String,
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
            drops: Calm::default(),
            troubles: Calm::default(),
            last_trouble: String::new(),
        }
    }

    fn server(&self, index: usize) -> &str {
        self.servers.get(index).map_or("", String::as_str)
    }

    fn closed(&mut self, server: usize, why: &Closed, retry_in: Option<Duration>) {
        let reason = why.to_string();
        let retry_ms = retry_in.map(|time| time.as_millis() as u64);
        // A server that is away for long says nothing new.
        let is_new = reason != self.last_trouble;
        let is_loud = self.troubles.lets_pass(Instant::now()).is_some() || is_new;
        let server = self.server(server);
        match why {
            Closed::Refused { retry: false, .. } => {
                tracing::error!(server, reason, retry_ms, "the server does not take this host");
            }
            _ if is_loud => tracing::warn!(server, reason, retry_ms, "no connection"),
            _ => tracing::debug!(server, reason, retry_ms, "no connection"),
        }
        self.last_trouble = reason;
    }

    fn sum_up(&self, lost: usize, missed_ticks: u64) {
        let dropped: u64 = self.dropped.values().sum();
        tracing::info!(taken = self.taken, settled = self.settled, dropped, lost, missed_ticks, "stopped");
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
                *self.dropped.entry(reason.clone()).or_default() += 1;
                if let Some(count) = self.drops.lets_pass(Instant::now()) {
                    let total: u64 = self.dropped.values().sum();
                    tracing::warn!(reason, time_ms, count, total, "samples dropped");
                }
            }
            Event::Opened { server, name, version, server_time_ms } => {
                let skew_ms = server_time_ms - clock_ms();
                tracing::info!(server = self.server(server), name, version, skew_ms, "connected");
                self.last_trouble.clear();
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
