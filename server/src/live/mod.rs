//! The picture of the fleet as it is now, in memory. It waits for nobody: whoever feeds it is never held up.
//!
//! Live samples are taken in the order of arrival; backlog never comes here.

mod presence;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use vitals_wire::ids::HostId;
use vitals_wire::message::{ByeReason, DropReason};
use vitals_wire::sample::Sample;
use vitals_wire::section::{EventKind, Section, TopProcesses};

use crate::metrics::Counter;

pub use presence::{Presence, Watch, down_limit};

/// Hosts are spread over this many locks, so that sessions on both cores rarely meet.
const SHARDS: usize = 64;
/// Events that wait to be journaled. A fleet that comes or goes as a whole fits.
pub const EVENT_QUEUE: usize = 16_384;

/// Good-byes of a host that count at once, and the time for each more: a machine sleeps and wakes a few times in a row, and
/// not for hours.
const BYES_AT_ONCE: u32 = 8;
const BYE_PAUSE: Duration = Duration::from_secs(5);

/// Something that happened to a host.
#[derive(Debug, Clone)]
pub struct HostEvent {
    /// To whom.
    pub host: HostId,
    /// What.
    pub kind: EventKind,
    /// For people.
    pub detail: String,
}

/// What is known of a host's connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// When it connected, in ms since 1970.
    pub connected_ms: i64,
}

/// Counts by reason, in the order of `DropReason::ALL`; what is not on that list counts as the last.
pub type Refusals = [u64; DropReason::ALL.len()];

/// A host as it is now.
#[derive(Debug, Clone)]
pub struct HostNow {
    /// Whether it is there.
    pub presence: Presence,
    /// Since when, in ms since 1970.
    pub since_ms: i64,
    /// When it was last heard, in ms since 1970; `None` if not since the server's start.
    pub heard_ms: Option<i64>,
    /// How far its clock is ahead of the server's, in ms, as seen at its last sample, or at its `Hello` if it sent none
    /// since: network and queues included.
    pub skew_ms: Option<i64>,
    /// How many of its samples were refused since the server's start, in the order of `DropReason::ALL`.
    pub refused: Refusals,
    /// Points of series beyond its cap that were dropped since the server's start.
    pub series_dropped: u64,
    /// Its connection, while it has one.
    pub peer: Option<Peer>,
    /// Its newest sample.
    pub sample: Option<Arc<Sample>>,
    /// When that arrived, in ms since 1970.
    pub received_ms: Option<i64>,
    /// The newest list of top processes and its time: not every sample has one.
    pub top: Option<Arc<(i64, TopProcesses)>>,
}

struct Entry {
    watch: Watch,
    heard_ms: Option<i64>,
    skew_ms: Option<i64>,
    refused: Refusals,
    series_dropped: u64,
    peer: Option<Peer>,
    /// Counts connections, so that the end of an old one does not erase a newer.
    connection: u64,
    /// Until when its good-byes are paid for.
    byes_paid: Duration,
    /// The newest time that was committed; what is only shown does not count.
    committed_ms: Option<i64>,
    sample: Option<Arc<Sample>>,
    received_ms: Option<i64>,
    top: Option<Arc<(i64, TopProcesses)>>,
}

/// The live picture.
pub struct Live {
    shards: [Mutex<HashMap<HostId, Entry>>; SHARDS],
    /// The zero of the watches' time, on both clocks.
    start: Instant,
    start_ms: i64,
    events: mpsc::Sender<HostEvent>,
    /// Events that found the queue full.
    pub events_dropped: Counter,
}

impl Live {
    /// An empty picture that tells `events` what happens.
    pub fn new(now_ms: i64, events: mpsc::Sender<HostEvent>) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            start: Instant::now(),
            start_ms: now_ms,
            events,
            events_dropped: Counter::default(),
        }
    }

    /// A host that was known before this start of the server, and what happened to it last.
    pub fn expect(&self, host: HostId, interval: Duration, last: Option<(EventKind, &str)>) {
        let now = self.start.elapsed();
        let presence = match last {
            Some((EventKind::Down, _)) => Presence::Down,
            Some((EventKind::Bye, word)) => Presence::Off(ByeReason::named(word)),
            Some((EventKind::Up | EventKind::Cloned, _)) | None => Presence::Unknown,
        };
        self.shard(host).entry(host).or_insert_with(|| Entry::new(Watch::known(now, interval, presence)));
    }

    /// A host has connected. Gives the connection's number, for `disconnected`.
    pub fn connected(&self, host: HostId, interval: Duration, peer: Peer) -> u64 {
        let heard_ms = peer.connected_ms;
        let number = self.with(host, interval, |entry, now| {
            entry.peer = Some(peer);
            entry.heard_ms = Some(heard_ms);
            entry.connection += 1;
            (entry.connection, entry.watch.heard(now, interval))
        });
        self.tell(host, number.1, String::new);
        number.0
    }

    /// That connection has ended.
    pub fn disconnected(&self, host: HostId, connection: u64) {
        if let Some(entry) = self.shard(host).get_mut(&host).filter(|entry| entry.connection == connection) {
            entry.peer = None;
        }
    }

    /// A live sample has arrived.
    pub fn sample(&self, host: HostId, interval: Duration, now_ms: i64, sample: Arc<Sample>) {
        let top = sample.find(|section| match section {
            Section::TopProcesses(top) => Some(top.clone()),
            _ => None,
        });
        let event = self.with(host, interval, |entry, now| {
            entry.heard_ms = Some(now_ms);
            entry.skew_ms = Some(sample.time_ms.saturating_sub(now_ms));
            entry.received_ms = Some(now_ms);
            if let Some(top) = top {
                entry.top = Some(Arc::new((sample.time_ms, top)));
            }
            entry.sample = Some(sample);
            entry.watch.heard(now, interval)
        });
        self.tell(host, event, String::new);
    }

    /// A host says that it lives, without a sample for the picture.
    pub fn heard(&self, host: HostId, interval: Duration, now_ms: i64) {
        let event = self.with(host, interval, |entry, now| {
            entry.heard_ms = Some(now_ms);
            entry.watch.heard(now, interval)
        });
        self.tell(host, event, String::new);
    }

    /// How far a host says that its clock is ahead, in ms.
    pub fn clock(&self, host: HostId, skew_ms: i64) {
        if let Some(entry) = self.shard(host).get_mut(&host) {
            entry.skew_ms = Some(skew_ms);
        }
    }

    /// A sample of a host was refused for good.
    pub fn refused(&self, host: HostId, reason: DropReason) {
        let known = DropReason::ALL.iter().position(|known| *known == reason);
        if let Some(entry) = self.shard(host).get_mut(&host) {
            entry.refused[known.unwrap_or(DropReason::ALL.len() - 1)] += 1;
        }
    }

    /// Points of series beyond a host's cap were dropped.
    pub fn series_dropped(&self, host: HostId, points: u64) {
        if let Some(entry) = self.shard(host).get_mut(&host) {
            entry.series_dropped += points;
        }
    }

    /// A host's identity is used from two addresses, which `detail` names.
    pub fn cloned(&self, host: HostId, detail: String) {
        self.tell(host, Some(EventKind::Cloned), || detail);
    }

    /// Samples of a host up to this time are on disk.
    pub fn committed(&self, host: HostId, newest_ms: i64) {
        if let Some(entry) = self.shard(host).get_mut(&host) {
            entry.committed_ms = entry.committed_ms.max(Some(newest_ms));
        }
    }

    /// A host has said good-bye on this connection; one on a connection that a newer has replaced means nothing, and one
    /// of very many neither. Gives whether it counts.
    pub fn bye(&self, host: HostId, connection: u64, reason: ByeReason) -> bool {
        let now = self.start.elapsed();
        let mut shard = self.shard(host);
        let Some(entry) = shard.get_mut(&host).filter(|entry| entry.connection == connection) else {
            return false;
        };
        if !entry.may_say_bye(now) {
            return false;
        }
        let event = entry.watch.bye(now, reason);
        drop(shard);
        self.tell(host, event, || reason.to_string());
        true
    }

    /// Time has passed: finds the hosts that are silent for too long.
    pub fn tick(&self) {
        for shard in &self.shards {
            let now = self.start.elapsed();
            let mut down = Vec::new();
            for (host, entry) in lock(shard).iter_mut() {
                if let Some(event) = entry.watch.tick(now) {
                    down.push((*host, event, entry.watch.silence(now)));
                }
            }
            for (host, event, silence) in down {
                self.tell(host, Some(event), || format!("silent for {} s", silence.as_secs()));
            }
        }
    }

    /// Forgets hosts that are not known any more.
    pub fn retain(&self, is_known: impl Fn(HostId) -> bool) {
        for shard in &self.shards {
            lock(shard).retain(|host, _| is_known(*host));
        }
    }

    /// One host as it is now.
    pub fn host(&self, host: HostId) -> Option<HostNow> {
        self.shard(host).get(&host).map(|entry| entry.now(self.start_ms))
    }

    /// The newest time of a host that was committed since the server's start.
    pub fn committed_ms(&self, host: HostId) -> Option<i64> {
        self.shard(host).get(&host).and_then(|entry| entry.committed_ms)
    }

    /// Hosts known, and those that are up.
    pub fn count(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(known, up), shard| {
            let shard = lock(shard);
            let here = shard.values().filter(|entry| entry.watch.presence() == Presence::Up).count();
            (known + shard.len() as u64, up + here as u64)
        })
    }

    fn shard(&self, host: HostId) -> MutexGuard<'_, HashMap<HostId, Entry>> {
        // Ids are random: their last byte spreads well.
        lock(&self.shards[usize::from(host.0[15]) % SHARDS])
    }

    fn with<T>(&self, host: HostId, interval: Duration, act: impl FnOnce(&mut Entry, Duration) -> T) -> T {
        let mut shard = self.shard(host);
        let now = self.start.elapsed();
        act(shard.entry(host).or_insert_with(|| Entry::new(Watch::new(now, interval))), now)
    }

    fn tell(&self, host: HostId, event: Option<EventKind>, detail: impl FnOnce() -> String) {
        let Some(kind) = event else { return };
        if self.events.try_send(HostEvent { host, kind, detail: detail() }).is_err() {
            self.events_dropped.add(1);
        }
    }
}

impl Entry {
    /// Whether a good-bye counts: so many at once, then one in [`BYE_PAUSE`]. Each makes two events, with the host's
    /// return, and a host must not fill the journal with them.
    fn may_say_bye(&mut self, now: Duration) -> bool {
        let paid = self.byes_paid.max(now) + BYE_PAUSE;
        let may = paid <= now + BYE_PAUSE * BYES_AT_ONCE;
        if may {
            self.byes_paid = paid;
        }
        may
    }

    fn new(watch: Watch) -> Self {
        Self {
            watch,
            heard_ms: None,
            skew_ms: None,
            refused: Refusals::default(),
            series_dropped: 0,
            peer: None,
            connection: 0,
            byes_paid: Duration::ZERO,
            committed_ms: None,
            sample: None,
            received_ms: None,
            top: None,
        }
    }

    fn now(&self, start_ms: i64) -> HostNow {
        let since = i64::try_from(self.watch.since().as_millis()).unwrap_or(i64::MAX);
        HostNow {
            presence: self.watch.presence(),
            since_ms: start_ms.saturating_add(since),
            heard_ms: self.heard_ms,
            skew_ms: self.skew_ms,
            refused: self.refused,
            series_dropped: self.series_dropped,
            peer: self.peer.clone(),
            sample: self.sample.clone(),
            received_ms: self.received_ms,
            top: self.top.clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is valid after each single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitals_wire::bounded::List;

    const HOST: HostId = HostId([3; 16]);
    const INTERVAL: Duration = Duration::from_secs(5);

    fn peer() -> Peer {
        Peer { address: ([127, 0, 0, 1], 9).into(), connected_ms: 1_000 }
    }

    #[test]
    fn the_newest_to_arrive_is_shown_and_top_processes_stay_until_there_are_new_ones() {
        let (events, mut told) = mpsc::channel(EVENT_QUEUE);
        let live = Live::new(0, events);
        live.connected(HOST, INTERVAL, peer());
        let top = Section::TopProcesses(TopProcesses::default());
        let with_top = Sample { time_ms: 5_000, sections: List::new(vec![top]).unwrap() };
        live.sample(HOST, INTERVAL, 5_010, Arc::new(with_top));
        live.sample(HOST, INTERVAL, 5_020, Arc::new(Sample { time_ms: 4_000, sections: List::empty() }));
        let now = live.host(HOST).unwrap();
        assert_eq!(now.sample.unwrap().time_ms, 4_000, "after a step back of its clock too");
        assert_eq!(now.top.unwrap().0, 5_000);
        assert_eq!(now.skew_ms, Some(-1_020));
        assert_eq!(now.received_ms, Some(5_020));
        assert_eq!(live.committed_ms(HOST), None, "what is shown is not what is kept");
        live.committed(HOST, 4_000);
        live.committed(HOST, 3_000);
        assert_eq!(live.committed_ms(HOST), Some(4_000));
        assert_eq!(told.try_recv().unwrap().kind, EventKind::Up);
        assert!(told.try_recv().is_err(), "told once");
    }

    #[test]
    fn a_clock_is_as_told_at_hello_until_a_sample_shows_it_and_refusals_count_by_reason() {
        let (events, _told) = mpsc::channel(EVENT_QUEUE);
        let live = Live::new(0, events);
        live.refused(HOST, DropReason::TooOld);
        live.connected(HOST, INTERVAL, peer());
        live.clock(HOST, -90_000);
        assert_eq!(live.host(HOST).unwrap().skew_ms, Some(-90_000));
        live.sample(HOST, INTERVAL, 5_000, Arc::new(Sample { time_ms: 5_700, sections: List::empty() }));
        assert_eq!(live.host(HOST).unwrap().skew_ms, Some(700));
        for reason in [DropReason::TooOld, DropReason::ClockAhead, DropReason::TooOld] {
            live.refused(HOST, reason);
        }
        let refused = live.host(HOST).unwrap().refused;
        let of = |reason| refused[DropReason::ALL.iter().position(|known| *known == reason).unwrap()];
        assert_eq!(
            (of(DropReason::TooOld), of(DropReason::ClockAhead), of(DropReason::Unreadable)),
            (2, 1, 0)
        );
    }

    #[test]
    fn the_end_of_an_old_connection_does_not_erase_a_newer() {
        let (events, _told) = mpsc::channel(EVENT_QUEUE);
        let live = Live::new(0, events);
        let old = live.connected(HOST, INTERVAL, peer());
        let new = live.connected(HOST, INTERVAL, peer());
        live.disconnected(HOST, old);
        assert!(live.host(HOST).unwrap().peer.is_some());
        live.disconnected(HOST, new);
        assert!(live.host(HOST).unwrap().peer.is_none());
    }

    #[test]
    fn a_good_bye_on_an_old_connection_means_nothing() {
        let (events, _told) = mpsc::channel(EVENT_QUEUE);
        let live = Live::new(0, events);
        let old = live.connected(HOST, INTERVAL, peer());
        let new = live.connected(HOST, INTERVAL, peer());
        live.bye(HOST, old, ByeReason::Restart);
        assert_eq!(live.host(HOST).unwrap().presence, Presence::Up);
        live.bye(HOST, new, ByeReason::Restart);
        assert_eq!(live.host(HOST).unwrap().presence, Presence::Off(ByeReason::Restart));
    }

    #[test]
    fn after_a_restart_of_the_server_a_host_is_what_it_was_last_known_to_be() {
        let (events, mut told) = mpsc::channel(EVENT_QUEUE);
        let live = Live::new(0, events);
        let hosts = [1, 2, 3, 4].map(|id| HostId([id; 16]));
        let lasts = [
            None,
            Some((EventKind::Up, "")),
            Some((EventKind::Down, "silent for 16 s")),
            Some((EventKind::Bye, "suspend")),
        ];
        hosts.iter().zip(lasts).for_each(|(host, last)| live.expect(*host, INTERVAL, last));
        let words = hosts.map(|host| live.host(host).unwrap().presence.word());
        assert_eq!(words, ["unknown", "unknown", "down", "asleep"]);
        assert!(told.try_recv().is_err(), "nobody is told again");
        for host in hosts {
            live.connected(host, INTERVAL, peer());
        }
        let up: Vec<HostId> = std::iter::from_fn(|| told.try_recv().ok()).map(|event| event.host).collect();
        assert_eq!(up, hosts[2..], "who was away is told to be back");
    }

    #[test]
    fn a_full_queue_of_events_holds_nobody_up_and_is_counted() {
        let (events, _told) = mpsc::channel(1);
        let live = Live::new(0, events);
        for id in 0..3 {
            live.connected(HostId([id; 16]), INTERVAL, peer());
        }
        assert_eq!(live.events_dropped.get(), 2);
        assert_eq!(live.count(), (3, 3));
    }
}
