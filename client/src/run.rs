//! `vitals-client run`: samples this host and brings the samples to a server until told to stop.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::HostId;
use vitals_wire::message::{ByeReason, Hello, Label, PROTOCOL_VERSION};

use crate::clock::{SampleClock, Steps};
use crate::config::Config;
use crate::control::{self, Answer, Control, Request};
use crate::facts;
use crate::goodbye::Machine;
use crate::health::Health;
use crate::identity::{Identity, Secrets, Starts};
use crate::link::connector::{Connector, warn_of_plain_tcp};
use crate::link::driver::{Channel, Link};
use crate::link::protocol::{Known, Protocol, Settings};
use crate::link::tls::{Pins, Tls};
use crate::queue::Caps;
use crate::reporter::Reporter;
use crate::sampler::{Sampler, run_sampler};
use crate::spool::Spool;
use crate::spool::job::Keep;
use crate::status::{About, Status};
use crate::stop::Stop;
use crate::tee::Tee;
use crate::trust::{self, Basis, Kept};

/// Samples between the sampler and the link, which takes them at once.
const SAMPLE_CHANNEL: usize = 4;
/// At the end, for the last number to be written.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// Until the number of the next start is written again where it could not be.
const KEEP_AGAIN: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT; see [`crate::stop`].
pub async fn run(config: Config, tee: Option<&Path>) -> anyhow::Result<()> {
    let health = Arc::new(Health::new());
    let identity = Identity::open(&config.data_dir)?;
    let tee = match tee {
        Some(path) => Some(
            Tee::open(path, config.hostname.as_str(), config.labels.clone())
                .with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => None,
    };
    let kept = Kept::open(&trust::path(&config.data_dir));
    let is_joined = kept.host == Some(identity.host);
    config.need_token(is_joined)?;
    let basis = config.basis(&kept);
    let pins = Arc::new(Pins::new(config.pins.clone()));
    let tls = match basis {
        Basis::Nothing => None,
        basis => Some(Tls::new(basis, pins.clone(), config.ca_file.as_deref())?),
    };
    let servers: Vec<String> =
        config.servers_or(&kept).iter().map(|server| server.as_str().to_owned()).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        host = %identity.host,
        name = config.hostname.as_str(),
        servers = servers.join(","),
        interval = %config.interval,
        data_dir = %config.data_dir.display(),
        is_new = identity.is_new,
        is_joined,
        trusts = basis.word(),
        proxy = config.way_out.as_ref().map(|way_out| way_out.proxy.address()),
        "started"
    );
    tell_of_token(&config, basis, is_joined);
    let stop = Stop::new(config.shutdown_timeout.duration());
    stop.on_signals(Machine::default(), health.clone())?;
    let about = About {
        host: identity.host.to_string(),
        name: config.hostname.as_str().to_owned(),
        servers: servers.clone(),
        trusts: basis.word(),
    };
    let asked = answer_commands(&config.data_dir, about, health.clone(), stop.clone());
    let shutdown = stop.shutdown.clone();
    let (out, samples) = mpsc::channel(SAMPLE_CHANNEL);
    let interval = config.interval.duration();
    let sampler = Sampler::new(&config.collect).with_health(health.clone());
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
    let secrets = Secrets::of(&config.data_dir, identity.host);
    let known_pins = kept.pins.clone();
    let shared = trust::Shared::new(Some(trust::path(&config.data_dir)), kept, pins);
    let keeper = trust::Keeper::new(shared, Some(identity.host), basis, servers.clone(), Some(secrets));
    let known = Known {
        is_joined,
        next_secret: identity.next_secret.clone(),
        pins: known_pins,
        is_current: keeper.is_current(),
        learns: basis != Basis::Nothing,
        rotates: true,
    };
    let mut protocol = Protocol::new(settings, hello(&config, &identity)?, Instant::now()).with_trust(known);
    protocol.set_drain(stop.drain());
    let spool = (config.spool_max_size.bytes() > 0)
        .then(|| Spool::new(&config.data_dir.join("spool"), config.spool_max_size.bytes()));
    if spool.is_some() {
        protocol = protocol.with_spool(Instant::now());
    }
    let warning = tls.is_none().then(|| tokio::spawn(warn_of_plain_tcp(shutdown.clone())));
    let link = Link {
        protocol,
        connect: Connector::new(servers.clone(), tls, config.way_out.clone()),
        source: Channel { samples, shutdown: shutdown.clone(), bye: stop.bye.clone() },
        observer: Reporter::new(health, servers, tee),
        keep: spool.map(|spool| Box::new(spool) as Box<dyn Keep>),
        trust: Some(Box::new(keeper)),
    };
    let ended = link.run().await;
    let was_wanted = shutdown.is_cancelled();
    shutdown.cancel();
    ended.observer.sum_up(ended.waiting, ended.spooled, &counters);
    sampler.await.context("the sampler failed")?;
    if let Some(warning) = warning {
        warning.abort();
    }
    // It ends with the sampler's clock, but for a disk that does not answer.
    let _ = tokio::time::timeout(LAST_WRITE, keeping).await;
    if let Some(asked) = asked {
        asked.abort();
        // Then its socket is gone.
        let _ = asked.await;
    }
    if !was_wanted {
        bail!("the sampler ended by itself");
    }
    Ok(())
}

/// What there is to say about how this host will join.
fn tell_of_token(config: &Config, basis: Basis, is_joined: bool) {
    if config.shows_token() {
        tracing::warn!(
            "--token: others on this machine can see the join token among this process's arguments; --token-file or \
             VITALS_TOKEN keeps it from them"
        );
    }
    if let Some(path) = config.missing_token() {
        tracing::warn!(
            path = %path.display(),
            "the file of the join token is not there; this host has joined and needs none, so the setting can go"
        );
    }
    match &config.token {
        Some(token) if !is_joined && token.expires_ms() <= crate::health::wall_ms() => tracing::warn!(
            "the join token has expired by this host's clock: `vitals-server token create` makes a new one"
        ),
        None if !is_joined && basis == Basis::Roots => tracing::warn!(
            "no join token, pin or CA file, and no server took this host yet: only a server with a certificate from a CA that \
             the system trusts can be reached; `vitals-server token create` makes a token, VITALS_TOKEN, token_file or \
             --token-file gives it to this client"
        ),
        _ => {}
    }
}

/// Answers `vitals-client status` and the like. Where there can be no socket, the client runs without: its readings matter
/// more.
fn answer_commands(dir: &Path, about: About, health: Arc<Health>, stop: Stop) -> Option<JoinHandle<()>> {
    let control = match Control::bind(dir) {
        Ok(control) => control,
        Err(error) => {
            tracing::warn!(path = %control::path(dir).display(), %error, "cannot make the socket for commands");
            return None;
        }
    };
    let about = Arc::new(about);
    Some(tokio::spawn(control.serve(move |request| match request {
        Request::Status => {
            let status = Status::of(&about, &health, stop.shutdown.is_cancelled());
            serde_json::to_value(status).map_or_else(|error| Answer::Error(error.to_string()), Answer::Ok)
        }
        Request::Bye { reason } => {
            tracing::info!(reason = ByeReason::from(reason).word(), "the end is announced");
            stop.announced.announce(reason, Instant::now());
            Answer::Ok(serde_json::Value::Null)
        }
    })))
}

/// Keeps, for the next start, each number by which the clock's counter rises: that start is not to use the digit of the
/// stretch that it follows. The disk may be slow, so it is not the sampler that waits for it; one that is full or cannot
/// be written is tried again.
async fn keep_steps(file: Starts, starts: u64, mut steps: watch::Receiver<Steps>) {
    let (mut told, mut is_kept) = (0, true);
    loop {
        let is_over = match is_kept {
            true => steps.changed().await.is_err(),
            false => tokio::time::timeout(KEEP_AGAIN, steps.changed()).await.is_ok_and(|news| news.is_err()),
        };
        if is_over && is_kept {
            return;
        }
        let Steps { count, last_ms } = *steps.borrow_and_update();
        if count > told {
            told = count;
            tracing::warn!(
                step_ms = last_ms,
                steps = count,
                "the clock was set, timestamps go on under another digit"
            );
        }
        let (file, number) = (file.clone(), starts.wrapping_add(count));
        match tokio::task::spawn_blocking(move || file.write(number)).await {
            Ok(Ok(())) => {
                if !is_kept {
                    tracing::info!("the number of the next start is kept again");
                }
                is_kept = true;
            }
            Ok(Err(error)) => {
                if is_kept {
                    tracing::warn!(%error, "cannot keep the number of the next start; trying on");
                }
                is_kept = false;
            }
            // Only when the runtime ends.
            Err(_) => return,
        }
        if is_over {
            return;
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
        token: config.token.as_ref().map(|token| token.said()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;

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

    #[tokio::test(start_paused = true)]
    async fn a_step_that_the_disk_did_not_take_is_kept_when_the_disk_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let mut clock = SampleClock::new((identity.starts % 10) as u8, Duration::from_secs(5));
        let _keeping = tokio::spawn(keep_steps(Starts::of(dir.path()), identity.starts, clock.steps()));
        // No file can take the place of a directory.
        let file = dir.path().join("starts");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let _ = (clock.stamp(1_000_000, 0), clock.stamp(500_000, 5000));
        tokio::time::sleep(3 * KEEP_AGAIN).await;
        assert!(file.is_dir());
        std::fs::remove_dir(&file).unwrap();
        tokio::time::sleep(3 * KEEP_AGAIN).await;
        let kept: u64 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert_eq!(kept, identity.starts + 1);
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
}
