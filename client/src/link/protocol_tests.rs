use vitals_wire::bounded::List;
use vitals_wire::ids::{HostId, RunId, Secret};
use vitals_wire::message::{Ack, DropReason, Facts, Limits, Refusal, Refused, RefusedSample, SetInterval};
use vitals_wire::section::{Section, System};

use super::*;

#[path = "protocol_ack_tests.rs"]
mod acks;
#[path = "protocol_refusal_tests.rs"]
mod refusals;

/// A link with a clock that only the test moves.
struct Bench {
    link: Protocol,
    start: Instant,
    now: Instant,
}

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

fn sample(time_ms: i64) -> Sample {
    let system = System { uptime: 1, ..System::default() };
    Sample { time_ms, sections: List::first(vec![Section::from(system)]).0 }
}

/// A sample of about this many bytes.
fn large(time_ms: i64, bytes: usize) -> Sample {
    let opaque = vitals_wire::section::Opaque { kind: 999, bytes: vec![7; bytes].into() };
    Sample { time_ms, sections: List::first(vec![Section::Opaque(opaque)]).0 }
}

fn welcome(window: u32, batch_samples: u32) -> Welcome {
    Welcome {
        protocol: PROTOCOL_VERSION,
        server_version: Default::default(),
        server_time_ms: 0,
        name: Default::default(),
        window,
        limits: Limits { frame_bytes: MAX_FRAME_BYTES as u32, batch_samples },
        oldest_ms: 0,
        pins: List::empty(),
        rotate_secret: false,
    }
}

fn refused(retry: bool) -> ServerMessage {
    Refused { code: Refusal::Unavailable, text: Default::default(), retry }.into()
}

impl Bench {
    fn new(servers: usize) -> Self {
        Self::with(Settings { servers, interval: Duration::from_secs(5), caps: Caps::CLIENT, seed: 1 })
    }

    fn with(settings: Settings) -> Self {
        let start = Instant::now();
        Self { link: Protocol::new(settings, hello(), start), start, now: start }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn next(&mut self) -> Action {
        self.link.next(self.now)
    }

    /// Waits as the link wishes; gives for how long.
    fn wait(&mut self) -> Duration {
        let Action::Wait(Some(until)) = self.next() else { panic!("nothing to wait for") };
        let time = until - self.now;
        self.now = until;
        time
    }

    fn take(&mut self, time_ms: i64) {
        self.link.sample_taken(self.now, sample(time_ms));
    }

    fn receive(&mut self, message: impl Into<ServerMessage>) {
        self.link.received(self.now, message.into());
    }

    fn connect(&mut self, server: usize) {
        assert_eq!(self.next(), Action::Connect { server });
        self.link.connected(self.now, 77);
        let action = self.next();
        assert!(matches!(action, Action::Send { message: ClientMessage::Hello(_), .. }), "{action:?}");
    }

    fn open(&mut self, window: u32, batch_samples: u32) {
        self.connect(0);
        self.receive(welcome(window, batch_samples));
    }

    /// The next batch: its number, whether it is backlog, its samples' times, and which are sent for the first time.
    fn batch(&mut self) -> (u64, bool, Vec<i64>, Vec<i64>) {
        match self.next() {
            Action::Send { message: ClientMessage::Samples(samples), first } => {
                let times = samples.samples.iter().map(|sample| sample.time_ms).collect();
                (samples.batch, samples.backlog, times, first)
            }
            other => panic!("{other:?} is no batch"),
        }
    }

    fn ack(&mut self, batches: &[u64], refused: &[(i64, DropReason)]) {
        let refused = refused.iter().map(|&(time_ms, reason)| RefusedSample { time_ms, reason });
        self.receive(Ack {
            server_time_ms: 0,
            batches: List::new(batches.to_vec()).unwrap(),
            refused: List::new(refused.collect()).unwrap(),
        });
    }

    fn settled(&mut self) -> Vec<i64> {
        let events = self.link.take_events().into_iter();
        events
            .filter_map(|event| if let Event::Settled { time_ms, .. } = event { Some(time_ms) } else { None })
            .collect()
    }

    fn losses(&mut self) -> Vec<(i64, Loss)> {
        let events = self.link.take_events().into_iter();
        events
            .filter_map(|event| {
                if let Event::Dropped { time_ms, loss, .. } = event { Some((time_ms, loss)) } else { None }
            })
            .collect()
    }

    fn closed(&mut self) -> Vec<Closed> {
        let events = self.link.take_events().into_iter();
        events
            .filter_map(|event| if let Event::Closed { why, .. } = event { Some(why) } else { None })
            .collect()
    }

    fn lose(&mut self) {
        self.link.closed(self.now, Closed::ByServer);
    }
}

#[test]
fn a_sample_is_sent_once_at_once_and_forgotten_when_it_is_settled() {
    let mut bench = Bench::new(1);
    bench.open(4, 256);
    assert_eq!(bench.next(), Action::Wait(None));
    bench.take(10);
    assert_eq!(bench.batch(), (1, false, vec![10], vec![10]));
    assert_eq!(bench.wait(), ACK_DEADLINE, "and not sent again");
    bench.now = bench.start;
    bench.take(20);
    assert_eq!(bench.batch(), (2, false, vec![20], vec![20]), "an ack that is still due holds nothing back");
    bench.pass(Duration::from_millis(30));
    bench.ack(&[1], &[]);
    let settled = bench.link.take_events().into_iter().find(|event| matches!(event, Event::Settled { .. }));
    let Some(Event::Settled { time_ms: 10, age, .. }) = settled else { panic!("{settled:?}") };
    assert_eq!(age, Some(Duration::from_millis(30)));
    assert_eq!(bench.link.waiting(), 1);
    bench.ack(&[2], &[]);
    assert_eq!(bench.link.waiting(), 0);
    assert_eq!(bench.next(), Action::Wait(None));
}

#[test]
fn samples_taken_while_nothing_can_be_sent_wait_and_the_newest_goes_first() {
    let mut bench = Bench::new(1);
    (1..=4).for_each(|time| bench.take(time));
    bench.open(4, 256);
    assert_eq!(bench.batch(), (1, false, vec![4], vec![4]));
    assert_eq!(bench.batch(), (2, true, vec![1, 2, 3], vec![1, 2, 3]));
    bench.ack(&[2, 1], &[]);
    assert_eq!(bench.settled(), [1, 2, 3, 4]);
}

#[test]
fn a_reconnection_resends_exactly_what_was_not_settled() {
    let mut bench = Bench::new(1);
    bench.open(4, 256);
    for time in 1..=3 {
        bench.take(time);
        bench.batch();
    }
    bench.ack(&[2], &[]);
    assert_eq!(bench.settled(), [2]);
    bench.lose();
    bench.wait();
    bench.open(4, 256);
    bench.take(4);
    assert_eq!(bench.batch(), (1, false, vec![4], vec![4]), "the newest, which is new");
    assert_eq!(bench.batch(), (2, true, vec![1, 3], vec![]), "no other is sent for the first time");
    bench.lose();
    bench.wait();
    bench.open(4, 256);
    assert_eq!(
        bench.batch(),
        (1, false, vec![4], vec![]),
        "the newest again, live: the server may have forgotten it"
    );
    assert_eq!(bench.batch(), (2, true, vec![1, 3], vec![]));
    bench.ack(&[1, 2], &[]);
    assert_eq!(bench.link.waiting(), 0);
}

#[test]
fn what_is_left_of_the_backlog_never_becomes_live_once_a_newer_sample_is_settled() {
    let mut bench = Bench::new(1);
    (1..=3).for_each(|time| bench.take(time));
    bench.open(4, 256);
    assert_eq!(bench.batch(), (1, false, vec![3], vec![3]));
    assert_eq!(bench.batch(), (2, true, vec![1, 2], vec![1, 2]));
    bench.ack(&[1], &[]);
    bench.lose();
    bench.wait();
    bench.open(4, 256);
    assert_eq!(bench.batch(), (1, true, vec![1, 2], vec![]), "the server shows sample 3 already");
    bench.take(4);
    assert_eq!(bench.batch(), (2, false, vec![4], vec![4]));
}

#[test]
fn the_backlog_keeps_to_the_window_the_pace_and_the_size_of_a_batch_and_never_delays_a_live_sample() {
    let mut bench = Bench::new(1);
    (1..=100).for_each(|time| bench.take(time));
    bench.open(2, 4);
    assert_eq!(bench.batch().2, [100]);
    assert_eq!(bench.batch(), (2, true, vec![1, 2, 3, 4], vec![1, 2, 3, 4]));
    assert_eq!(bench.wait(), Duration::from_millis(400), "four samples at ten a second");
    assert_eq!(bench.batch().2, [5, 6, 7, 8]);
    assert_eq!(
        bench.wait(),
        ACK_DEADLINE - Duration::from_millis(400),
        "two batches are under way: only an ack helps"
    );
    bench.now = bench.start + Duration::from_secs(5);
    bench.take(101);
    assert_eq!(bench.batch(), (4, false, vec![101], vec![101]));
    bench.ack(&[2], &[]);
    assert_eq!(bench.batch().2, [9, 10, 11, 12]);
    bench.ack(&[1, 3, 4, 5], &[]);
    let start = bench.now;
    let mut sent = 4;
    while sent < 80 {
        match bench.next() {
            Action::Send { message: ClientMessage::Samples(samples), .. } => {
                sent += samples.samples.len();
                bench.ack(&[samples.batch], &[]);
            }
            Action::Wait(Some(until)) => bench.now = until,
            other => panic!("{other:?}"),
        }
    }
    let rate = (sent - 4) as f64 / (bench.now - start).as_secs_f64();
    assert!((9.0..=10.5).contains(&rate), "{rate} samples a second");
}

#[test]
fn a_batch_is_split_by_the_bytes_that_a_frame_may_have() {
    let mut bench = Bench::new(1);
    (1..=5).for_each(|time| bench.link.sample_taken(bench.now, large(time, 9_000)));
    bench.connect(0);
    let limits = Limits { frame_bytes: 20_000, batch_samples: 256 };
    bench.receive(Welcome { limits, ..welcome(10, 256) });
    assert_eq!(bench.batch().2, [5]);
    assert_eq!(bench.batch().2, [1, 2]);
    bench.wait();
    let Action::Send { message, .. } = bench.next() else { panic!() };
    let body = vitals_wire::codec::encode_frame_body(&message).unwrap();
    assert!(body.len() <= 20_000 && body.len() > 18_000, "{}", body.len());
}

#[test]
fn a_sample_that_fits_no_frame_is_dropped_and_blocks_nobody() {
    let mut bench = Bench::new(1);
    bench.link.sample_taken(bench.now, large(1, MAX_FRAME_BYTES));
    assert_eq!(bench.losses(), [(1, Loss::TooLarge)], "no server takes it");
    for (time, bytes) in [(2, 10), (3, 50_000), (4, 10), (5, 50_000)] {
        bench.link.sample_taken(bench.now, large(time, bytes));
    }
    bench.connect(0);
    let limits = Limits { frame_bytes: 20_000, batch_samples: 256 };
    bench.receive(Welcome { limits, ..welcome(10, 256) });
    assert_eq!(bench.batch().2, [2, 4]);
    let losses = bench.losses();
    assert_eq!(losses, [(5, Loss::TooLarge), (3, Loss::TooLarge)], "this server does not take them");
}

#[test]
fn what_does_not_fit_the_queue_is_lost_oldest_first_and_told() {
    let caps = Caps { entries: 3, bytes: usize::MAX };
    let mut bench = Bench::with(Settings { servers: 1, interval: Duration::from_secs(5), caps, seed: 1 });
    (1..=5).for_each(|time| bench.take(time));
    assert_eq!(bench.losses(), [(1, Loss::QueueFull), (2, Loss::QueueFull)]);
}

#[test]
fn attempts_come_at_random_times_below_a_bound_that_doubles_up_to_ten_seconds_or_two_intervals() {
    for (interval, last) in [(5, 10f64), (60, 120.0)] {
        let mut longest = [0f64; 12];
        for seed in 0..300 {
            let interval = Duration::from_secs(interval);
            let mut bench = Bench::with(Settings { servers: 1, interval, caps: Caps::CLIENT, seed });
            for longest in &mut longest {
                assert_eq!(bench.next(), Action::Connect { server: 0 });
                bench.link.closed(bench.now, Closed::Unreachable(String::new()));
                *longest = longest.max(bench.wait().as_secs_f64());
            }
        }
        for (attempt, longest) in longest.into_iter().enumerate() {
            let bound = last.min(0.5 * 2f64.powi(attempt as i32));
            assert!(longest <= bound && longest > 0.95 * bound, "attempt {attempt}: {longest} of {bound}");
        }
    }
}

#[test]
fn only_a_settled_batch_makes_the_delays_short_again() {
    let longest = |settle: bool| {
        let mut longest = Duration::ZERO;
        for seed in 0..100 {
            let interval = Duration::from_secs(5);
            let mut bench = Bench::with(Settings { servers: 1, interval, caps: Caps::CLIENT, seed });
            for time in 1..=10 {
                bench.take(time);
                bench.open(4, 256);
                let (batch, ..) = bench.batch();
                if settle {
                    bench.ack(&[batch], &[]);
                }
                bench.lose();
                longest = longest.max(bench.wait());
            }
        }
        longest
    };
    assert!(longest(true) <= Duration::from_millis(500));
    assert!(longest(false) > Duration::from_secs(9), "a server that welcomes and hangs up is not hammered");
}

#[test]
fn servers_are_tried_in_order_and_only_when_all_failed_is_there_a_delay() {
    let mut bench = Bench::new(3);
    for server in [0, 1] {
        assert_eq!(bench.next(), Action::Connect { server });
        bench.link.closed(bench.now, Closed::Unreachable(String::new()));
    }
    bench.connect(2);
    bench.pass(HANDSHAKE_DEADLINE);
    assert!(
        matches!(bench.next(), Action::Wait(Some(_))),
        "the third does not answer its greeting: all failed"
    );
    bench.wait();
    bench.open(4, 256);
    bench.lose();
    bench.wait();
    assert_eq!(
        bench.next(),
        Action::Connect { server: 0 },
        "after a conversation the first is the first again"
    );
}

#[test]
fn a_server_that_says_no_for_good_is_left_alone_for_ten_minutes() {
    let mut bench = Bench::new(1);
    bench.connect(0);
    bench.receive(refused(false));
    assert!(!bench.link.is_connected());
    assert_eq!(bench.wait(), BARRED);
    bench.connect(0);
    bench.receive(refused(true));
    assert!(bench.wait() <= Duration::from_secs(1), "one that says to try again is tried as usual");

    let mut two = Bench::new(2);
    two.connect(0);
    two.receive(refused(false));
    for _ in 0..5 {
        two.connect(1);
        two.lose();
        assert!(two.wait() < BARRED, "the other one is tried meanwhile");
    }
    two.pass(BARRED);
    two.connect(0);
}

#[test]
fn a_server_that_does_not_answer_the_greeting_is_left() {
    let mut bench = Bench::new(1);
    bench.connect(0);
    assert_eq!(bench.wait(), HANDSHAKE_DEADLINE);
    bench.next();
    assert!(!bench.link.is_connected());
    assert_eq!(bench.closed(), [Closed::HandshakeTimeout]);
}

#[test]
fn messages_at_the_wrong_time_end_the_connection_and_nothing_else() {
    let messages = [
        ServerMessage::from(Ack::default()),
        SetInterval { interval_ms: 1, lease_ms: 1 }.into(),
        Welcome { protocol: 2, ..welcome(1, 1) }.into(),
    ];
    for message in messages {
        let mut bench = Bench::new(1);
        bench.take(1);
        bench.connect(0);
        bench.receive(message.clone());
        assert!(!bench.link.is_connected(), "{message:?}");
        assert!(matches!(&bench.closed()[..], [Closed::Violation(_)]), "{message:?}");
        assert_eq!(bench.link.waiting(), 1);
    }
    let mut bench = Bench::new(1);
    bench.open(1, 1);
    bench.receive(welcome(1, 1));
    assert!(!bench.link.is_connected(), "one welcome is enough");
}

#[test]
fn messages_of_a_later_version_are_skipped_before_and_after_the_welcome() {
    let mut bench = Bench::new(1);
    bench.connect(0);
    bench.receive(ServerMessage::Unknown(99));
    assert!(bench.link.is_connected());
    bench.receive(welcome(1, 1));
    bench.receive(ServerMessage::Unknown(99));
    assert!(bench.link.is_connected());
}

#[test]
fn a_wish_for_live_readings_in_between_is_left_alone() {
    let mut bench = Bench::new(1);
    bench.open(4, 256);
    bench.link.take_events();
    bench.receive(SetInterval { interval_ms: 1000, lease_ms: 60_000 });
    assert!(bench.link.is_connected());
    assert!(matches!(&bench.link.take_events()[..], [Event::Ignored { .. }]));
    assert_eq!(bench.next(), Action::Wait(None));
}

#[test]
fn a_welcome_with_absurd_limits_still_lets_everything_through() {
    let mut bench = Bench::new(1);
    (1..=3).for_each(|time| bench.take(time));
    bench.connect(0);
    bench.receive(Welcome { limits: Limits { frame_bytes: 0, batch_samples: 0 }, ..welcome(0, 0) });
    assert_eq!(bench.batch().2, [3]);
    assert_eq!(bench.batch().2, [1]);
    bench.ack(&[2], &[]);
    bench.wait();
    assert_eq!(bench.batch().2, [2]);
}

#[test]
fn the_end_has_the_reason_and_the_limit_that_were_set() {
    let mut bench = Bench::new(1);
    bench.open(2, 100);
    bench.take(1);
    bench.batch();
    bench.link.set_drain(Duration::from_secs(3));
    bench.link.set_bye(ByeReason::Reboot);
    bench.link.shut_down(bench.now);
    assert_eq!(bench.wait(), Duration::from_secs(3));
    let Action::Send { message: ClientMessage::Bye(bye), .. } = bench.next() else { panic!("no bye") };
    assert_eq!(bye.reason, ByeReason::Reboot);
}

#[test]
fn the_end_waits_for_acks_says_bye_and_is_quick_when_the_server_is() {
    let mut bench = Bench::new(1);
    (1..=300).for_each(|time| bench.take(time));
    bench.open(2, 100);
    bench.link.shut_down(bench.now);
    let mut settled = 0;
    loop {
        match bench.next() {
            Action::Send { message: ClientMessage::Samples(samples), .. } => {
                settled += samples.samples.len();
                bench.ack(&[samples.batch], &[]);
            }
            Action::Send { message: ClientMessage::Bye(bye), .. } => {
                assert_eq!(bye.reason, ByeReason::Restart);
                break;
            }
            other => panic!("{other:?}: without a word about time"),
        }
    }
    assert_eq!(settled, 300);
    assert_eq!(bench.next(), Action::Done);
}

#[test]
fn the_end_comes_in_any_case_when_the_server_does_not_acknowledge() {
    let mut bench = Bench::new(1);
    bench.open(2, 100);
    bench.take(1);
    bench.batch();
    bench.link.shut_down(bench.now);
    assert_eq!(bench.wait(), DRAIN_DEADLINE);
    assert!(matches!(bench.next(), Action::Send { message: ClientMessage::Bye(_), .. }));
    assert_eq!(bench.next(), Action::Done);
    assert_eq!(bench.link.waiting(), 1);
}

#[test]
fn the_end_without_a_connection_tries_each_server_once_if_there_is_something_to_bring() {
    let mut bench = Bench::new(2);
    for server in [0, 1] {
        assert_eq!(bench.next(), Action::Connect { server });
        bench.lose();
    }
    bench.link.shut_down(bench.now);
    assert_eq!(bench.next(), Action::Done, "nothing to bring");

    let mut bench = Bench::new(2);
    bench.take(1);
    for round in 0..2 {
        if round == 1 {
            bench.link.shut_down(bench.now);
        }
        for server in [0, 1] {
            assert_eq!(bench.next(), Action::Connect { server });
            bench.lose();
        }
    }
    assert_eq!(bench.next(), Action::Done);

    let mut hanging = Bench::new(1);
    hanging.take(1);
    assert_eq!(hanging.next(), Action::Connect { server: 0 });
    hanging.link.shut_down(hanging.now);
    assert_eq!(hanging.wait(), DRAIN_DEADLINE);
    assert_eq!(hanging.next(), Action::Done);
}

#[test]
fn a_long_story_loses_and_doubles_nothing() {
    // Random events; whatever happens, taken = settled + lost + waiting, and each sample ends in one way only.
    for seed in 0..200 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let caps = Caps { entries: 20, bytes: 4000 };
        let mut bench = Bench::with(Settings { servers: 2, interval: Duration::from_secs(5), caps, seed });
        let (mut taken, mut ended) = (0, std::collections::BTreeSet::new());
        let mut under_way = Vec::new();
        for _ in 0..600 {
            match rng.u8(..10) {
                0..=3 => {
                    taken += 1;
                    bench.take(taken);
                }
                4 | 5 if bench.link.is_connected() => bench.ack(&std::mem::take(&mut under_way), &[]),
                6 if rng.u8(..8) == 0 => bench.lose(),
                7 => bench.pass(Duration::from_millis(rng.u64(..8000))),
                _ => match bench.next() {
                    Action::Connect { .. } => bench.link.connected(bench.now, 77),
                    Action::Send { message: ClientMessage::Hello(_), .. } => {
                        under_way.clear();
                        bench.receive(welcome(rng.u32(..4), rng.u32(..8)));
                    }
                    Action::Send { message: ClientMessage::Samples(samples), .. } => {
                        assert!(samples.backlog || samples.samples.len() == 1);
                        assert!(samples.samples.iter().all(|sample| !ended.contains(&sample.time_ms)));
                        under_way.push(samples.batch);
                    }
                    _ => {}
                },
            }
            for event in bench.link.take_events() {
                if let Event::Settled { time_ms, .. } | Event::Dropped { time_ms, .. } = event {
                    assert!(ended.insert(time_ms), "{time_ms} ended twice");
                }
            }
            assert_eq!(taken as usize, ended.len() + bench.link.waiting(), "seed {seed}");
        }
        assert!(ended.len() > 20, "the story went on");
    }
}
