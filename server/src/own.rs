//! What the server has to say for itself: its health each 10 s and what happens to hosts. Both go through the journal
//! like any sample, under an id that is no host's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_EVENTS;
use vitals_wire::record::Record;
use vitals_wire::sample::Sample;
use vitals_wire::section::{Event, EventKind, Events, ReasonCount, Section, ServerHealth};

use crate::clock;
use crate::journal::{Encoded, Journal, JournalError};
use crate::live::{HostEvent, Live};
use crate::metrics::Metrics;
use crate::process;
use crate::state::State;

/// How often the server says how it is.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
/// Pause before events that could not be kept are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// A clock that goes back by less than this is waited out.
const STEP_BACK: Duration = Duration::from_secs(60);
/// How often silent hosts are looked for.
const PRESENCE_INTERVAL: Duration = Duration::from_secs(1);

/// What the task needs.
pub struct Own {
    /// Where its samples go.
    pub journal: Journal,
    /// What it watches.
    pub live: Arc<Live>,
    /// What hosts are called.
    pub state: State,
    /// What it reports.
    pub metrics: Arc<Metrics>,
    /// Times of its samples.
    pub times: Mutex<Times>,
}

/// Says how the server is, and looks for silent hosts, until the shutdown.
pub async fn report(own: Arc<Own>, shutdown: CancellationToken) {
    let start = Instant::now();
    let mut health = tokio::time::interval(HEALTH_INTERVAL);
    let mut presence = tokio::time::interval(PRESENCE_INTERVAL);
    health.set_missed_tick_behavior(MissedTickBehavior::Delay);
    presence.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = presence.tick() => own.live.tick(),
            _ = health.tick() => {
                if own.live.count().0 > own.state.count() as u64 {
                    own.live.retain(|host| own.state.host(host).is_some());
                }
                // One in 10 s: whether it is kept shows in the next.
                if own.try_keep(Section::ServerHealth(own.health(start.elapsed()))).await.is_err() {
                    own.metrics.own_dropped.add(1);
                }
            }
        }
    }
}

/// Keeps what happens to hosts, in order, until the shutdown and what had happened by then. While the journal takes
/// nothing, events wait in their queue.
pub async fn tell(own: Arc<Own>, mut events: mpsc::Receiver<HostEvent>, shutdown: CancellationToken) {
    let mut group = Vec::with_capacity(MAX_EVENTS);
    loop {
        tokio::select! {
            biased;
            _ = events.recv_many(&mut group, MAX_EVENTS) => {}
            () = shutdown.cancelled() => return,
        }
        let (count, section) = (group.len() as u64, own.told(&mut group));
        while let Err(error) = own.try_keep(section.clone()).await {
            if shutdown.is_cancelled() || matches!(error, JournalError::Closed | JournalError::Unfit(_)) {
                warn!(%error, count, "events are not kept");
                own.metrics.own_dropped.add(count);
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }
}

impl Own {
    fn health(&self, uptime: Duration) -> ServerHealth {
        let metrics = &self.metrics;
        let (hosts, hosts_up) = self.live.count();
        let process = process::read();
        let dropped = metrics.samples_dropped.iter().chain([
            ("event_queue_full", self.live.events_dropped.get()),
            ("own_not_kept", metrics.own_dropped.get()),
        ]);
        let dropped = dropped
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| ReasonCount { reason: Text::cut(reason), count })
            .collect();
        ServerHealth {
            uptime: uptime.as_secs(),
            hosts,
            hosts_up,
            connections: metrics.connections.get(),
            samples_received: metrics.samples_received.get(),
            samples_acked: metrics.samples_acked.get(),
            journal_bytes: metrics.journal_bytes.get(),
            store_lag_bytes: metrics.store_lag_bytes.get(),
            influx_lag_bytes: metrics.influx.worst(|target| target.lag_bytes.get()),
            influx_lag_ms: metrics.influx.worst(|target| target.lag_ms.get()),
            influx_lines: lines(metrics),
            memory: process.memory_bytes,
            cpu_ms: process.cpu_ms,
            dropped: List::first(dropped).0,
        }
    }

    /// Logs what happened to hosts, and makes a section of it.
    fn told(&self, group: &mut Vec<HostEvent>) -> Section {
        let events = group.drain(..).map(|event| {
            let host = self.state.host(event.host);
            let name = host.as_ref().map_or("", |host| host.name());
            match event.kind {
                EventKind::Up => info!(host = name, "host up"),
                EventKind::Down => warn!(host = name, reason = &*event.detail, "host down"),
                EventKind::Bye => info!(host = name, reason = &*event.detail, "host off"),
                // Said where it was seen.
                EventKind::Cloned => {}
            }
            Event {
                host: event.host,
                name: Text::cut(name),
                kind: event.kind,
                detail: Text::cut(&event.detail),
            }
        });
        Section::Events(Events { events: List::first(events.collect()).0 })
    }

    /// Keeps a sample of the server's own; done when it is on disk.
    async fn try_keep(&self, section: Section) -> Result<(), JournalError> {
        let time_ms = self.times.lock().unwrap_or_else(PoisonError::into_inner).next(clock::now_ms());
        let samples = vec![Sample { time_ms, sections: List::first(vec![section]).0 }];
        let record = Record { host: HostId::SERVER, received_ms: time_ms, backlog: false, samples };
        self.journal.append(&Encoded::new(&record)?)?.wait().await
    }
}

/// Lines that all InfluxDBs together took, where there is one.
fn lines(metrics: &Metrics) -> Option<u64> {
    let targets = metrics.influx.all();
    (!targets.is_empty()).then(|| targets.iter().map(|target| target.lines.get()).sum())
}

/// Unique times for the server's own samples. A clock that goes back by more than a little is followed.
#[derive(Debug, Default)]
pub struct Times {
    last_ms: i64,
}

impl Times {
    fn next(&mut self, now_ms: i64) -> i64 {
        let goes_on = self.last_ms.saturating_sub(now_ms) < STEP_BACK.as_millis() as i64;
        self.last_ms = if goes_on { now_ms.max(self.last_ms + 1) } else { now_ms };
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_never_repeat_within_a_ms_or_when_the_clock_goes_back() {
        let mut times = Times::default();
        assert_eq!([times.next(10), times.next(10), times.next(5), times.next(100)], [10, 11, 12, 100]);
        assert_eq!(
            [times.next(10_000_000), times.next(200), times.next(200)],
            [10_000_000, 200, 201],
            "a step"
        );
    }
}
