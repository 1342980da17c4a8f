//! What the server has to say for itself: its health each 10 s and what happens to hosts. Both go through the journal
//! like any sample, under an id that is no host's.

use std::sync::Arc;
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
use crate::journal::{Encoded, Journal};
use crate::live::{HostEvent, Live};
use crate::metrics::Metrics;
use crate::process;
use crate::state::State;

/// How often the server says how it is.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
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
    /// Whether there is an InfluxDB to report on.
    pub has_influx: bool,
}

/// Runs until the shutdown.
pub async fn run(own: Own, mut events: mpsc::Receiver<HostEvent>, shutdown: CancellationToken) {
    let start = Instant::now();
    let mut health = tokio::time::interval(HEALTH_INTERVAL);
    let mut presence = tokio::time::interval(PRESENCE_INTERVAL);
    health.set_missed_tick_behavior(MissedTickBehavior::Delay);
    presence.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Times::default();
    let mut group = Vec::with_capacity(MAX_EVENTS);
    loop {
        let section = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = presence.tick() => {
                own.live.tick();
                continue;
            }
            _ = health.tick() => Section::ServerHealth(own.health(start.elapsed())),
            _ = events.recv_many(&mut group, MAX_EVENTS) => own.told(&mut group),
        };
        own.keep(times.next(clock::now_ms()), section);
    }
}

impl Own {
    fn health(&self, uptime: Duration) -> ServerHealth {
        let metrics = &self.metrics;
        let (hosts, hosts_up) = self.live.count();
        let process = process::read();
        let dropped =
            metrics.samples_dropped.iter().chain([("event_queue_full", self.live.events_dropped.get())]);
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
            influx_lag_bytes: self.has_influx.then(|| metrics.influx_lag_bytes.get()),
            influx_lag_ms: self.has_influx.then(|| metrics.influx_lag_ms.get()),
            influx_lines: self.has_influx.then(|| metrics.influx_lines.get()),
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

    /// Hands a sample to the journal without waiting for the disk: the server's own word never holds anybody up.
    fn keep(&self, time_ms: i64, section: Section) {
        let sections = List::new(vec![section]).unwrap_or_default();
        let samples = vec![Sample { time_ms, sections }];
        let record = Record { host: HostId::SERVER, received_ms: time_ms, backlog: false, samples };
        let kept = Encoded::new(&record).and_then(|record| self.journal.append(&record));
        if let Err(error) = kept {
            warn!(%error, "own figures are not kept");
        }
    }
}

/// Unique times for the server's own samples.
#[derive(Debug, Default)]
struct Times {
    last_ms: i64,
}

impl Times {
    fn next(&mut self, now_ms: i64) -> i64 {
        self.last_ms = now_ms.max(self.last_ms + 1);
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
    }
}
