//! How a run ends: signals, and what is waited for meanwhile.
//!
//! The first SIGTERM or SIGINT ends the run: the sampler stops, what waits is brought home, the server is told why, and the
//! process ends with 0 within the limit ([`Stop::limit`]). A second one ends the process at once with 1: what waits only in
//! memory is lost. So does a run that does not end in time, which only a disk or a thread that hangs can cause.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use vitals_wire::message::ByeReason;

use crate::goodbye::{Announced, Machine};
use crate::health::Health;

/// What is left of the limit for all but bringing home: finding out why, closing the connection, the last write.
const REST: Duration = Duration::from_secs(4);
/// How much longer than its limit an end that hangs is waited for.
const GRACE: Duration = Duration::from_secs(1);
/// What is waited for is said again after this.
const SAY_AGAIN: Duration = Duration::from_secs(2);

/// What ends a run.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Cancelled when the end is wanted.
    pub shutdown: CancellationToken,
    /// Why; set before `shutdown` is cancelled.
    pub bye: Arc<OnceLock<ByeReason>>,
    /// What scripts announce.
    pub announced: Arc<Announced>,
    /// Within which time all is over.
    pub limit: Duration,
}

impl Stop {
    /// Nothing has ended yet.
    pub fn new(limit: Duration) -> Self {
        Self { shutdown: CancellationToken::new(), bye: Arc::default(), announced: Arc::default(), limit }
    }

    /// How long bringing home what waits may take.
    pub fn drain(&self) -> Duration {
        self.limit.saturating_sub(REST).max(self.limit / 2)
    }

    /// Listens to signals from now on.
    pub fn on_signals(&self, machine: Machine, health: Arc<Health>) -> anyhow::Result<()> {
        let signals = Signals::listen()?;
        tokio::spawn(self.clone().end(signals, machine, health));
        Ok(())
    }

    async fn end(self, mut signals: Signals, machine: Machine, health: Arc<Health>) {
        let name = signals.next().await;
        let since = Instant::now();
        tracing::info!(
            signal = name,
            limit_ms = self.limit.as_millis() as u64,
            "stopping: bringing home what waits"
        );
        let reason = tokio::select! {
            reason = self.reason(name, machine) => reason,
            again = signals.next() => at_once(again, &health),
        };
        // Nobody else sets it.
        let _ = self.bye.set(reason);
        self.shutdown.cancel();
        let mut say = ticks(SAY_AGAIN);
        let over = sleep((self.limit + GRACE).saturating_sub(since.elapsed()));
        tokio::pin!(over);
        loop {
            tokio::select! {
                again = signals.next() => at_once(again, &health),
                _ = say.tick() => {
                    let (waiting_for, samples) = waiting_for(&health);
                    let on_disk = health.snapshot().waiting.disk;
                    tracing::info!(waiting_for, samples, on_disk, reason = reason.word(), "stopping");
                }
                () = &mut over => {
                    let (waiting_for, samples) = waiting_for(&health);
                    tracing::error!(waiting_for, samples, "the end took too long: stopping at once");
                    std::process::exit(1);
                }
            }
        }
    }

    /// Why the client goes: what was announced, else what the machine tells, where it was the system that asked.
    async fn reason(&self, signal: &str, machine: Machine) -> ByeReason {
        match self.announced.reason(Instant::now()) {
            Some(reason) => reason,
            None if signal == SIGTERM => machine.goes_down().await.unwrap_or(ByeReason::Restart),
            None => ByeReason::Restart,
        }
    }
}

/// What the end waits for, and how many samples would be lost without it: those in memory.
fn waiting_for(health: &Health) -> (&'static str, u64) {
    let is = health.snapshot();
    let samples = is.waiting.memory;
    // What is on disk would not be lost, and is brought home as far as the time goes.
    match (samples + is.waiting.disk, is.connection) {
        (0, _) => ("the connection's end", 0),
        (_, Some(_)) => ("server's acknowledgement", samples),
        (_, None) => ("a connection to a server", samples),
    }
}

fn at_once(signal: &str, health: &Health) -> ! {
    let lost = health.snapshot().waiting.memory;
    tracing::warn!(signal, lost, "stopping at once: what waits in memory is lost");
    std::process::exit(1);
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + every / 4, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

const SIGTERM: &str = "SIGTERM";

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => SIGTERM,
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT; the second ends the process. For commands that end by themselves too.
pub fn cancel_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping: bringing home what waits");
        shutdown.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "stopping at once: what waits is lost");
        std::process::exit(1);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goodbye::Announcement;
    use crate::health::{Connection, Waiting};

    #[test]
    fn bringing_home_leaves_time_for_the_rest_of_the_limit() {
        let drain = |seconds| Stop::new(Duration::from_secs(seconds)).drain();
        assert_eq!(drain(10), Duration::from_secs(6));
        assert_eq!(drain(60), Duration::from_secs(56));
        assert_eq!(drain(2), Duration::from_secs(1), "half of a short one");
    }

    #[test]
    fn what_is_waited_for_is_said_in_words() {
        let health = Health::new();
        assert_eq!(waiting_for(&health).1, 0);
        health.waiting(Waiting { memory: 2, disk: 40, ..Waiting::default() });
        assert_eq!(waiting_for(&health), ("a connection to a server", 2));
        let [server, server_version, name] = ["a:1", "0.1.0", "web"].map(str::to_owned);
        health.connected(Connection { server, server_version, name, since: Instant::now() });
        assert_eq!(waiting_for(&health), ("server's acknowledgement", 2));
    }

    #[tokio::test]
    async fn what_was_announced_is_over_what_the_machine_tells_and_a_person_s_signal_asks_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().to_owned();
        std::fs::create_dir_all(run.join("systemd/system")).unwrap();
        let systemctl = ["sh", "-c", "echo 1 poweroff.target start waiting"].map(str::to_owned).to_vec();
        let machine = Machine { run, systemctl };
        let stop = Stop::new(Duration::from_secs(10));
        assert_eq!(stop.reason(SIGTERM, machine.clone()).await, ByeReason::Shutdown);
        assert_eq!(stop.reason("SIGINT", machine.clone()).await, ByeReason::Restart);
        stop.announced.announce(Announcement::Upgrade, Instant::now());
        assert_eq!(stop.reason(SIGTERM, machine).await, ByeReason::Upgrade);
    }
}
