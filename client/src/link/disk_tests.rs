//! A link with its spool against a server, on a disk and a network that fail, with kills in between: all in one thread,
//! with a clock that only the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use vitals_wire::bounded::List;
use vitals_wire::ids::{HostId, RunId, Secret};
use vitals_wire::limits::MAX_FRAME_BYTES;
use vitals_wire::log::model::ModelFs;
use vitals_wire::message::{
    Ack, ClientMessage, Facts, Hello, Limits, PROTOCOL_VERSION, Samples, ServerMessage, Welcome,
};
use vitals_wire::sample::Sample;
use vitals_wire::section::{Opaque, Section};

use super::*;
use crate::link::event::{Closed, Waiting};
use crate::link::protocol::{Action, BACKLOG_PER_SECOND, Protocol, Settings};
use crate::queue::Caps;
use crate::spool::Spool;
use crate::spool::job::Keep;

#[path = "disk_chaos_tests.rs"]
mod chaos;

const DIR: &str = "/state/spool";
const INTERVAL: Duration = Duration::from_secs(5);

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Default::default(),
        host: HostId([1; 16]),
        run: RunId([2; 16]),
        secret: Secret([3; 32]),
        token: None,
        name: Default::default(),
        labels: List::empty(),
        facts: Facts::default(),
        interval_ms: 5000,
        shortest_interval_ms: 5000,
        clock_ms: 0,
    }
}

fn sample(time_ms: i64, bytes: usize) -> Sample {
    let opaque = Opaque { kind: 999, bytes: vec![time_ms as u8; bytes].into() };
    Sample { time_ms, sections: List::first(vec![Section::Opaque(opaque)]).0 }
}

/// A host with its client, and all that happened.
struct World {
    fs: ModelFs,
    now: Instant,
    next_ms: i64,
    link: Protocol,
    spool: Spool,
    /// What the server has stored, and how often it came.
    stored: BTreeMap<i64, u32>,
    taken: BTreeSet<i64>,
    settled: Vec<i64>,
    dropped: BTreeMap<i64, Loss>,
    news: Vec<News>,
    waiting: Waiting,
    /// Batches that the server has not acknowledged.
    unacked: Vec<u64>,
    acks: bool,
    window: u32,
    oldest_ms: i64,
    max_bytes: u64,
    queue: usize,
    sent: Vec<Samples>,
    /// Connections that ended.
    closed: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, 1 << 20, 50)
    }

    fn with(seed: u64, max_bytes: u64, queue: usize) -> Self {
        let (fs, now) = (ModelFs::new(seed), Instant::now());
        let (link, spool) = Self::client(&fs, now, max_bytes, queue);
        Self {
            fs,
            now,
            next_ms: 0,
            link,
            spool,
            stored: BTreeMap::new(),
            taken: BTreeSet::new(),
            settled: Vec::new(),
            dropped: BTreeMap::new(),
            news: Vec::new(),
            waiting: Waiting::default(),
            unacked: Vec::new(),
            acks: true,
            window: 4,
            oldest_ms: i64::MIN,
            max_bytes,
            queue,
            sent: Vec::new(),
            closed: 0,
        }
    }

    fn client(fs: &ModelFs, now: Instant, max_bytes: u64, queue: usize) -> (Protocol, Spool) {
        let caps = Caps { entries: queue, bytes: 1 << 20 };
        let settings = Settings { servers: 1, interval: INTERVAL, caps, seed: 1 };
        let spool = Spool::new_on(Arc::new(fs.clone()), Path::new(DIR), max_bytes);
        (Protocol::new(settings, hello(), now).with_spool(now), spool)
    }

    /// The process dies, and another one begins.
    fn kill(&mut self, crash: Option<&mut fastrand::Rng>) {
        match crash {
            Some(rng) => self.fs.crash(rng),
            None => self.fs.kill(),
        }
        (self.link, self.spool) = Self::client(&self.fs, self.now, self.max_bytes, self.queue);
        self.unacked.clear();
    }

    fn tell(&mut self) {
        for event in self.link.take_events() {
            match event {
                Event::Taken { time_ms, .. } => assert!(self.taken.insert(time_ms)),
                Event::Settled { time_ms, .. } => {
                    assert!(self.stored.contains_key(&time_ms), "{time_ms} settled but not stored");
                    self.settled.push(time_ms);
                }
                Event::Dropped { time_ms, loss, .. } => {
                    assert_eq!(self.dropped.insert(time_ms, loss), None, "{time_ms} dropped twice");
                    assert!(!self.settled.contains(&time_ms), "{time_ms} settled and then dropped");
                }
                Event::Waiting(waiting) => self.waiting = waiting,
                Event::Spool(news) => self.news.push(news),
                Event::Closed { why, .. } => self.closed += u32::from(!matches!(why, Closed::Unreachable(_))),
                _ => {}
            }
        }
    }

    fn jobs(&mut self) {
        while let Some(job) = self.link.job(self.now) {
            let outcome = self.spool.perform(job);
            // A process that is dead learns nothing.
            if self.fs.is_stopped() {
                break;
            }
            self.link.performed(self.now, outcome);
        }
        self.tell();
    }

    /// Does what there is to do; `up` tells whether there is a server. Gives until when nothing happens.
    fn pump(&mut self, up: bool) -> Option<Instant> {
        for _ in 0..10_000 {
            self.jobs();
            let action = self.link.next(self.now);
            self.tell();
            match action {
                Action::Connect { .. } if up => self.link.connected(self.now, 0),
                Action::Connect { .. } => self.link.closed(self.now, Closed::Unreachable(String::new())),
                Action::Send { message: ClientMessage::Hello(_), .. } => {
                    let welcome = Welcome {
                        protocol: PROTOCOL_VERSION,
                        server_version: Default::default(),
                        server_time_ms: 0,
                        name: Default::default(),
                        window: self.window,
                        limits: Limits { frame_bytes: MAX_FRAME_BYTES as u32, batch_samples: 100 },
                        oldest_ms: self.oldest_ms,
                        pins: List::empty(),
                        rotate_secret: false,
                    };
                    self.link.received(self.now, welcome.into());
                }
                Action::Send { message: ClientMessage::Samples(samples), .. } => {
                    for sample in &samples.samples {
                        *self.stored.entry(sample.time_ms).or_default() += 1;
                    }
                    self.unacked.push(samples.batch);
                    self.sent.push(samples);
                    if self.acks {
                        self.ack();
                    }
                }
                Action::Send { .. } => {}
                Action::Wait(until) => return until,
                Action::Done => return None,
            }
        }
        panic!("it goes round and round");
    }

    fn ack(&mut self) {
        let batches = List::new(std::mem::take(&mut self.unacked)).unwrap();
        let ack = Ack { server_time_ms: 0, batches, refused: List::empty() };
        self.link.received(self.now, ServerMessage::from(ack));
        self.tell();
    }

    fn cut(&mut self) {
        self.link.closed(self.now, Closed::ByServer);
        self.unacked.clear();
        self.tell();
    }

    fn take(&mut self, bytes: usize) -> i64 {
        self.next_ms += 5000;
        let sample = sample(self.next_ms, bytes);
        self.link.sample_taken(self.now, sample);
        self.tell();
        self.next_ms
    }

    /// Lets time pass, and takes a sample at its end.
    fn interval(&mut self, up: bool) {
        let end = self.now + INTERVAL;
        loop {
            match self.pump(up) {
                Some(until) if until < end => self.now = until.max(self.now + Duration::from_millis(1)),
                _ => break,
            }
        }
        self.now = end;
        self.take(100);
        self.pump(up);
    }

    /// What a kill may cost now: the two newest; with a disk in trouble
    /// what is in memory; and while a job is being done what that was to bring to disk.
    fn may_cost(&self) -> Vec<i64> {
        let trouble = self.news.iter().rev().find_map(|news| match news {
            News::Trouble { .. } => Some(true),
            News::Recovered => Some(false),
            _ => None,
        });
        let is_settled = |time: &&i64| !self.settled.contains(time) && !self.dropped.contains_key(time);
        let most = if trouble == Some(true) || self.fs.is_stopped() { self.queue + 1 } else { 2 };
        self.taken.iter().rev().filter(is_settled).take(most).copied().collect()
    }

    fn on_disk(&self) -> u64 {
        self.fs.files().iter().map(|(_, len)| len).sum()
    }
}

#[test]
fn while_all_is_well_nothing_is_written() {
    let mut world = World::new(1);
    for _ in 0..50 {
        world.interval(true);
    }
    assert_eq!((world.settled.len(), world.fs.files().len()), (50, 0));
    assert!(world.sent.iter().all(|batch| !batch.backlog));
    assert!(world.fs.calls() < 3, "{}", world.fs.calls());
}

#[test]
fn without_a_server_a_kill_costs_the_two_newest_and_the_rest_comes_home_oldest_first_at_a_bounded_rate() {
    let mut world = World::new(2);
    for _ in 0..100 {
        world.interval(false);
        assert!(world.waiting.memory <= 2, "{:?}", world.waiting);
    }
    assert_eq!(world.waiting.memory as u64 + world.waiting.disk, 100);
    assert_eq!(world.waiting.oldest_ms, Some(5000));
    world.kill(None);
    world.pump(false);
    assert!(world.waiting.disk >= 98, "{:?}", world.waiting);
    let began = world.now;
    let live = world.take(100);
    world.window = 2;
    world.now += Duration::from_secs(20);
    world.pump(true);
    assert_eq!(world.sent[0].samples[0].time_ms, live, "first of all");
    assert!(!world.sent[0].backlog);
    let rest = world.waiting.disk;
    while world.waiting.disk > 0 {
        world.now += Duration::from_millis(100);
        world.pump(true);
    }
    let seconds = (world.now - began - Duration::from_secs(20)).as_secs_f64();
    let per_second = rest as f64 / seconds;
    assert!(per_second <= f64::from(BACKLOG_PER_SECOND) * 1.2, "{per_second}");
    assert!(per_second >= f64::from(BACKLOG_PER_SECOND) * 0.8, "{per_second}");
    let backlog: Vec<i64> = world
        .sent
        .iter()
        .filter(|batch| batch.backlog)
        .flat_map(|batch| batch.samples.iter().map(|s| s.time_ms))
        .collect();
    assert!(backlog.is_sorted() && backlog[0] == 5000, "{backlog:?}");
    assert!(world.stored.values().all(|times| *times == 1));
    world.pump(true);
    assert!(world.on_disk() < 200, "{:?}", world.fs.files());
}

#[test]
fn what_is_under_way_when_it_is_spooled_is_settled_by_its_own_acknowledgement() {
    let mut world = World::new(3);
    world.acks = false;
    // A server that is slow: each live sample goes out once, and to the disk a good interval later.
    for _ in 0..5 {
        world.interval(true);
    }
    assert_eq!((world.waiting.memory, world.waiting.disk), (2, 3), "{:?}", world.waiting);
    world.ack();
    world.pump(true);
    assert_eq!(world.waiting, Waiting { spool_bytes: world.waiting.spool_bytes, ..Waiting::default() });
    world.acks = true;
    world.interval(true);
    world.settled.sort();
    assert_eq!(world.settled, [5000, 10_000, 15_000, 20_000, 25_000, 30_000], "each once");
    assert!(world.stored.values().all(|times| *times == 1), "none was sent again: {:?}", world.stored);
    assert!(world.on_disk() < 200);
}

#[test]
fn the_disk_has_time_to_take_a_sample_before_a_third_waits_in_memory() {
    let mut world = World::new(13);
    world.pump(false);
    let taken = world.now;
    for second in [0, 5] {
        world.now = taken + Duration::from_secs(second);
        world.take(100);
        world.pump(false);
        assert_eq!(world.waiting.disk, 0, "while all is well nothing is written");
    }
    let due = world.link.job_at().unwrap();
    assert!(due > taken + INTERVAL && due + INTERVAL / 2 <= taken + 2 * INTERVAL, "{:?}", due - taken);
}

#[test]
fn what_is_settled_and_not_passed_yet_is_no_loss_when_room_is_made() {
    let mut world = World::with(14, 4 << 10, 50);
    world.pump(false);
    for _ in 0..12 {
        world.take(250);
    }
    world.now += Duration::from_secs(7);
    world.pump(false);
    assert_eq!((world.waiting.memory, world.waiting.disk), (0, 12));
    // The newest goes as live, ten of the others as backlog; that batch alone is settled.
    world.acks = false;
    world.now += Duration::from_millis(1100);
    world.pump(true);
    world.unacked = vec![2];
    world.ack();
    assert_eq!(world.settled.len(), 10);
    world.cut();
    world.take(900);
    world.link.shut_down(world.now);
    world.pump(false);
    // They lie in one segment with the two others, which have to go with it.
    assert_eq!((world.dropped.len(), world.spool.drops().spool_full), (2, 2));
    assert!(world.settled.iter().all(|time| !world.dropped.contains_key(time)), "{:?}", world.dropped);
    assert_eq!((world.waiting.memory, world.waiting.disk), (0, 1));
}

#[test]
fn the_newest_goes_out_at_once_also_if_it_is_on_disk_only() {
    let mut world = World::new(4);
    world.interval(false);
    world.interval(false);
    let newest = world.next_ms;
    // The sampler hangs.
    for _ in 0..30 {
        world.now += Duration::from_secs(1);
        world.pump(false);
    }
    assert_eq!(world.waiting.memory, 0);
    world.now += Duration::from_secs(20);
    world.pump(true);
    assert_eq!((world.sent[0].backlog, world.sent[0].samples[0].time_ms), (false, newest));
    world.now += Duration::from_secs(20);
    world.pump(true);
    assert_eq!(world.settled, [newest, newest - 5000]);
}

#[test]
fn what_the_server_calls_too_old_is_dropped_by_its_word_alone_and_counted_once() {
    let mut world = World::new(5);
    for _ in 0..10 {
        world.interval(false);
    }
    // The server's clock goes on after its word: five seconds later the next one is too old.
    world.oldest_ms = 12_000;
    world.now += Duration::from_secs(20);
    world.acks = false;
    world.window = 1;
    world.pump(true);
    assert_eq!(world.dropped.keys().copied().collect::<Vec<_>>(), [5000, 10_000]);
    world.acks = true;
    world.ack();
    for _ in 0..100 {
        world.now += Duration::from_millis(200);
        world.pump(true);
    }
    assert_eq!(world.settled.len() + world.dropped.len(), 10);
    assert_eq!(world.spool.drops().too_old, world.dropped.len() as u64);
}

#[test]
fn the_end_puts_all_on_disk_first_and_waits_for_no_server() {
    let mut world = World::new(6);
    world.interval(false);
    world.interval(false);
    world.link.shut_down(world.now);
    world.jobs();
    assert_eq!((world.waiting.memory, world.waiting.disk), (0, 2));
    world.kill(None);
    world.now += Duration::from_secs(20);
    world.pump(true);
    for _ in 0..20 {
        world.now += Duration::from_millis(200);
        world.pump(true);
    }
    assert_eq!(world.settled, [5000, 10_000]);
    // With a server all of it comes home, whatever the rate.
    for _ in 0..300 {
        world.interval(false);
    }
    world.now += Duration::from_secs(20);
    world.link.shut_down(world.now);
    assert_eq!(world.pump(true), None);
    assert_eq!((world.settled.len(), world.waiting.memory, world.waiting.disk), (302, 0, 0));
}

#[test]
fn a_disk_that_takes_nothing_is_told_of_once_memory_holds_the_newest_and_all_goes_on_by_itself() {
    let mut world = World::with(7, 1 << 20, 20);
    world.fs.fail(|faults| faults.read_only = true);
    for _ in 0..60 {
        world.interval(false);
    }
    assert_eq!((world.waiting.memory, world.waiting.disk), (20, 0));
    assert_eq!(world.dropped.len(), 40);
    assert!(world.dropped.values().all(|loss| *loss == Loss::QueueFull));
    let troubles = |world: &World| {
        world.news.iter().filter(|news| matches!(news, News::Trouble { .. } | News::Recovered)).count()
    };
    assert_eq!(troubles(&world), 1, "{:?}", world.news);
    world.fs.fail(|faults| faults.read_only = false);
    for _ in 0..30 {
        world.interval(false);
    }
    assert!(world.waiting.memory <= 3 && world.news.last() == Some(&News::Recovered), "{:?}", world.news);
    assert_eq!(world.waiting.memory as u64 + world.waiting.disk + world.dropped.len() as u64, 90);
}

#[test]
fn a_spool_at_its_cap_gives_up_the_oldest_and_never_what_is_under_way() {
    let mut world = World::with(8, 6000, 50);
    for _ in 0..200 {
        world.interval(false);
        assert!(world.waiting.spool_bytes <= 6000);
    }
    let lost = world.dropped.len();
    assert!(lost > 100, "{lost}");
    assert!(world.dropped.values().all(|loss| *loss == Loss::SpoolFull));
    assert_eq!(world.spool.drops().spool_full, lost as u64);
    assert_eq!(lost as u64 + world.waiting.disk + world.waiting.memory as u64, 200);
    // The oldest are under way and not acknowledged: they stay until the connection is given up.
    world.acks = false;
    for _ in 0..4 {
        world.interval(true);
    }
    let under_way: BTreeSet<i64> = world.stored.keys().copied().collect();
    assert!(world.dropped.keys().all(|time_ms| !under_way.contains(time_ms)));
    world.acks = true;
    world.cut();
    for _ in 0..30 {
        world.interval(true);
    }
    // What was sent and not acknowledged may be given up after all, once the connection is.
    assert!(
        world.taken.iter().all(|time| world.stored.contains_key(time) || world.dropped.contains_key(time))
    );
    assert_eq!(world.settled.len() + world.dropped.len(), world.taken.len());
    assert_eq!(world.waiting.disk, 0);
}

#[test]
fn what_is_settled_and_not_passed_yet_is_no_loss_when_a_full_spool_makes_room() {
    let mut world = World::with(9, 6000, 50);
    while world.dropped.is_empty() {
        world.interval(false);
    }
    let before = world.dropped.len();
    world.window = 1;
    world.now += Duration::from_secs(20);
    world.acks = false;
    // The first batch is passed at once, the second not for ten seconds. Before that two large samples want room.
    world.pump(true);
    world.ack();
    world.pump(true);
    world.take(1400);
    world.take(1400);
    world.now += Duration::from_secs(1);
    world.pump(true);
    world.unacked.retain(|number| world.sent.iter().any(|batch| batch.batch == *number && batch.backlog));
    world.ack();
    let settled = world.settled.len();
    assert!(settled >= 20 && world.waiting.disk > 5, "{settled} {:?}", world.waiting);
    world.cut();
    for _ in 0..9 {
        world.now += Duration::from_secs(1);
        world.pump(false);
    }
    assert_eq!(world.waiting.memory, 0);
    assert_eq!(world.spool.drops().spool_full, world.dropped.len() as u64);
    assert_eq!(world.dropped.len(), before, "what is settled made room enough");
}

#[test]
fn room_that_nobody_wants_any_more_costs_nothing_and_the_backlog_goes_on() {
    let mut world = World::with(10, 6000, 50);
    while world.dropped.is_empty() {
        world.interval(false);
    }
    world.now += Duration::from_secs(20);
    world.window = 1;
    world.acks = false;
    world.pump(true);
    // The oldest are under way when large samples want room.
    world.take(1500);
    world.take(1500);
    world.now += Duration::from_secs(9);
    world.pump(true);
    assert_eq!(world.waiting.memory, 2, "held");
    let before = world.dropped.len();
    // All that was sent is acknowledged, and so is what comes after it.
    world.acks = true;
    world.ack();
    for _ in 0..60 {
        world.now += Duration::from_secs(1);
        world.pump(true);
    }
    assert_eq!(world.dropped.len(), before, "there was room without them");
    assert_eq!((world.waiting.memory, world.waiting.disk), (0, 0));
    assert_eq!(world.settled.len() + world.dropped.len(), world.taken.len());
}

#[test]
fn what_a_server_puts_off_is_kept_and_sent_again_wherever_it_was_when_it_was_sent() {
    let mut world = World::new(11);
    for _ in 0..5 {
        world.interval(false);
    }
    world.now += Duration::from_secs(20);
    world.acks = false;
    world.pump(true);
    world.now += Duration::from_secs(1);
    world.pump(true);
    let live = |world: &World, batch: u64| world.sent.iter().any(|sent| sent.batch == batch && !sent.backlog);
    let sent = world.sent.len();
    assert_eq!(world.stored.len(), 5, "from memory and from disk");
    // For two minutes only live batches are acknowledged; what came from memory is put on disk meanwhile.
    for _ in 0..24 {
        world.interval(true);
        let (acked, kept) = world.unacked.iter().partition(|batch| live(&world, **batch));
        world.unacked = acked;
        world.ack();
        world.unacked = kept;
    }
    assert!(world.sent.len() > sent + 24, "backlog was sent again");
    assert!(world.waiting.disk >= 3, "{:?}", world.waiting);
    let settled = world.settled.len();
    world.acks = true;
    world.ack();
    for _ in 0..8 {
        world.interval(true);
    }
    assert!(world.settled.len() > settled);
    assert_eq!((world.waiting.memory, world.waiting.disk), (0, 0));
    world.settled.sort();
    assert!(world.settled.iter().eq(&world.taken), "each once: {:?}", world.settled);
    assert!(world.closed == 0, "on one connection");
}
