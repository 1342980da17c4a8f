//! Sessions over a pipe in memory, with a real journal on a real disk that commits when the test says so.

use std::sync::Mutex;
use std::time::Instant;

use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::codec::Decoder;
use vitals_wire::bounded::List;
use vitals_wire::ids::{RunId, Secret};
use vitals_wire::log::{Position, RealFs};
use vitals_wire::message::{ClientCodec, ClientMessage, Facts, Refused, Samples};
use vitals_wire::sample::Sample;
use vitals_wire::section::{Opaque, Section, System};
use vitals_wire::token::JoinToken;

use super::*;
use crate::config::HostLimits;
use crate::journal::{Committer, JournalOptions, JournalReader};
use crate::live::{EVENT_QUEUE, HostEvent, HostNow};
use crate::state::NewJoinToken;
use crate::state::audit::By;

mod misuse;

const HOST: HostId = HostId([5; 16]);
const LONG: Duration = Duration::from_secs(10);
/// Time in which nothing is to come.
const QUIET: Duration = Duration::from_millis(200);

/// What sessions share, and the journal's committer, which the test steps.
struct Rig {
    shared: Arc<Shared>,
    committer: Mutex<Committer>,
    store: JournalReader,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new(change: impl FnOnce(&mut JournalOptions, &mut Room)) -> Self {
        Self::limited(HostLimits::default(), change)
    }

    /// The same with limits for each host.
    fn limited(limits: HostLimits, change: impl FnOnce(&mut JournalOptions, &mut Room)) -> Self {
        Self::made(limits, change).0
    }

    /// One of which the events are heard.
    fn watched() -> (Self, mpsc::Receiver<HostEvent>) {
        Self::made(HostLimits::default(), |_, _| {})
    }

    fn made(
        limits: HostLimits,
        change: impl FnOnce(&mut JournalOptions, &mut Room),
    ) -> (Self, mpsc::Receiver<HostEvent>) {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let mut options = JournalOptions::new(dir.path().join("journal"));
        let mut room = Room::default();
        // So that a record is as long on disk as it says.
        options.compress = false;
        change(&mut options, &mut room);
        let (journal, committer) = Journal::open_manual(Arc::new(RealFs), options, metrics.clone()).unwrap();
        let store = journal.reader("store", Position::default()).unwrap();
        let (state, _thread) = State::open(&dir.path().join("state.db")).unwrap();
        let (events, told) = mpsc::channel(EVENT_QUEUE);
        let shared = Shared {
            journal,
            live: Arc::new(Live::new(clock::now_ms(), events)),
            state,
            seats: Arc::default(),
            keys: Arc::default(),
            metrics,
            keep_raw: Duration::from_secs(7 * 24 * 3600),
            hello_timeout: Duration::from_millis(500),
            shutdown: CancellationToken::new(),
            seldom: Seldom::default(),
            refused_hosts: RefusedHosts::default(),
            room,
            books: Books::new(limits),
            newest_kept: Arc::new(|_| None),
        };
        (Self { shared: Arc::new(shared), committer: Mutex::new(committer), store, _dir: dir }, told)
    }

    fn commit(&self) {
        self.committer.lock().unwrap().step();
    }

    /// A connection on which nothing was said, and its session.
    fn stranger(&self) -> (Client, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(4 << 20);
        let address = ([192, 0, 2, 1], 9).into();
        let session = tokio::spawn(run(self.shared.clone(), far, address, ()));
        (Client { io: near, codec: ClientCodec::new(), buffer: BytesMut::new() }, session)
    }

    /// With a token that lets it in.
    async fn joining(&self, hello: Hello) -> Hello {
        let labels = crate::state::Labels::new();
        let wanted = NewJoinToken { expires_ms: i64::MAX, max_uses: 1, labels, replaces: None };
        let (_, secret) = self.shared.state.create_join_token(&By::local(), wanted).await.unwrap();
        let token = JoinToken { secret, expires_ms: 0, pins: vec![], addresses: vec![] };
        Hello { token: Some(token.said()), ..hello }
    }

    /// A client that is welcome, and its session.
    async fn client(&self) -> (Client, tokio::task::JoinHandle<()>) {
        let (mut client, session) = self.stranger();
        client.say(self.joining(hello()).await).await;
        assert!(matches!(client.hear(LONG).await, Some(ServerMessage::Welcome(_))));
        (client, session)
    }

    async fn live(&self, what: &str, is_so: impl Fn(&HostNow) -> bool) {
        self.until(what, || self.shared.live.host(HOST).is_some_and(|now| is_so(&now))).await;
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < LONG, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Client {
    io: DuplexStream,
    codec: ClientCodec,
    buffer: BytesMut,
}

impl Client {
    async fn say(&mut self, message: impl Into<ClientMessage>) {
        let mut bytes = BytesMut::new();
        self.codec.encode(message.into(), &mut bytes).unwrap();
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn send(&mut self, batch: u64, backlog: bool, samples: Vec<Sample>) {
        self.say(Samples { batch, backlog, samples: List::new(samples).unwrap() }).await;
    }

    /// The next message within `limit`; None where there is none, or the connection has ended.
    async fn hear(&mut self, limit: Duration) -> Option<ServerMessage> {
        let read = async {
            loop {
                if let Some(message) = self.codec.decode(&mut self.buffer).unwrap() {
                    return Some(message);
                }
                if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                    return None;
                }
            }
        };
        timeout(limit, read).await.ok().flatten()
    }

    async fn ack(&mut self) -> Ack {
        match self.hear(LONG).await {
            Some(ServerMessage::Ack(ack)) => ack,
            other => panic!("no ack: {other:?}"),
        }
    }

    async fn refusal(&mut self) -> Refused {
        match self.hear(LONG).await {
            Some(ServerMessage::Refused(refused)) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Text::cut("0.0.0-test"),
        host: HOST,
        run: RunId([1; 16]),
        secret: Secret([1; 32]),
        token: None,
        name: Text::cut("web"),
        labels: List::empty(),
        facts: Facts::default(),
        interval_ms: 5_000,
        shortest_interval_ms: 1_000,
        clock_ms: clock::now_ms() - 100_000,
    }
}

fn sample(time_ms: i64) -> Sample {
    Sample { time_ms, sections: List::new(vec![Section::System(System::default())]).unwrap() }
}

fn large_sample(time_ms: i64, bytes: usize) -> Sample {
    let section = Section::Opaque(Opaque { kind: 9_999, bytes: vec![7; bytes].into() });
    Sample { time_ms, sections: List::new(vec![section]).unwrap() }
}

#[tokio::test]
async fn an_ack_comes_after_the_commit_and_one_names_all_that_the_commit_settled() {
    let mut rig = Rig::new(|_, _| {});
    let (mut client, session) = rig.client().await;
    let now = clock::now_ms();
    rig.live("the clock told at Hello", |host| host.skew_ms.is_some_and(|skew| skew < -99_000)).await;
    client.send(1, false, vec![sample(now)]).await;
    client.send(2, true, vec![sample(now - 5_000), sample(0)]).await;
    assert_eq!(client.hear(QUIET).await, None, "nothing is on disk");
    assert_eq!(rig.shared.live.committed_ms(HOST), None);
    rig.commit();
    let ack = client.ack().await;
    let mut batches = ack.batches.to_vec();
    batches.sort_unstable();
    assert_eq!((batches, ack.refused.len()), (vec![1, 2], 1));
    assert_eq!(rig.shared.live.committed_ms(HOST), Some(now));
    let entries = std::iter::from_fn(|| rig.store.try_next().unwrap());
    assert_eq!(
        entries.map(|entry| entry.record.samples.len()).sum::<usize>(),
        2,
        "and what is on disk is it"
    );
    rig.until("the counts", || rig.shared.metrics.samples_acked.get() == 2).await;
    let too_old = DropReason::ALL.iter().position(|reason| *reason == DropReason::TooOld).unwrap();
    rig.live("the refusal by host", |host| host.refused[too_old] == 1).await;
    client.send(3, false, vec![sample(0)]).await;
    assert_eq!(&*client.ack().await.batches, [3], "what is wholly refused waits for no disk");
    drop(client);
    session.await.unwrap();
    assert!(rig.shared.live.host(HOST).unwrap().peer.is_none());
}

#[tokio::test]
async fn a_journal_that_is_stuck_stops_the_acks_and_not_the_live_picture() {
    let rig = Rig::new(|_, _| {});
    let (mut client, session) = rig.client().await;
    let now = clock::now_ms();
    let sent = 3 * MAX_PENDING as u64;
    for batch in 1..=sent {
        let time_ms = now + batch as i64;
        client.send(batch, false, vec![sample(time_ms)]).await;
        rig.live("its sample", |host| host.sample.as_ref().is_some_and(|now| now.time_ms == time_ms)).await;
    }
    assert_eq!(client.hear(QUIET).await, None);
    assert_eq!(rig.shared.metrics.batches_deferred.get(), sent - MAX_PENDING as u64);
    rig.commit();
    let mut settled = Vec::new();
    while settled.len() < MAX_PENDING {
        settled.extend(client.ack().await.batches.iter().copied());
    }
    settled.sort_unstable();
    assert_eq!(settled, (1..=MAX_PENDING as u64).collect::<Vec<_>>());
    assert_eq!(client.hear(QUIET).await, None, "what was not taken is never acknowledged");
    client.send(9, false, vec![sample(now + 9)]).await;
    rig.until("the batch that comes again", || {
        rig.commit();
        rig.shared.metrics.batch_commit.snapshot().0.iter().sum::<u64>() > MAX_PENDING as u64
    })
    .await;
    assert_eq!(&*client.ack().await.batches, [9]);
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn batches_beyond_the_room_of_all_sessions_are_shown_and_not_kept() {
    let rig = Rig::new(|_, room| *room = Room::new(40_000));
    let (mut client, session) = rig.client().await;
    let now = clock::now_ms();
    // Each takes about a quarter: three of backlog, one live one, and no more.
    for batch in 1..=4 {
        client.send(batch, true, vec![large_sample(now - 10_000 - batch as i64, 9_800)]).await;
    }
    client.send(5, false, vec![large_sample(now, 9_800)]).await;
    client.send(6, false, vec![large_sample(now + 1, 9_800)]).await;
    rig.live("the last", |host| host.sample.as_ref().is_some_and(|sample| sample.time_ms == now + 1)).await;
    assert_eq!(rig.shared.metrics.batches_deferred.get(), 2);
    rig.commit();
    let mut settled = Vec::new();
    while settled.len() < 4 {
        settled.extend(client.ack().await.batches.iter().copied());
    }
    settled.sort_unstable();
    assert_eq!(settled, [1, 2, 3, 5]);
    client.send(4, true, vec![large_sample(now - 10_004, 9_800)]).await;
    rig.until("room again", || {
        rig.commit();
        rig.shared.metrics.samples_acked.get() == 5
    })
    .await;
    assert_eq!((&*client.ack().await.batches, rig.shared.metrics.batches_deferred.get()), (&[4][..], 2));
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn a_full_journal_delays_the_ack_until_its_reader_has_passed() {
    let mut rig = Rig::new(|options, _| options.cap_bytes = 20_000);
    let (mut client, session) = rig.client().await;
    let now = clock::now_ms();
    client.send(1, false, vec![large_sample(now, 30_000)]).await;
    rig.until("its commit", || {
        rig.commit();
        rig.shared.journal.trouble().is_some()
    })
    .await;
    client.ack().await;
    assert!(rig.shared.journal.trouble().unwrap().contains("store"));
    client.send(2, false, vec![sample(now + 1)]).await;
    assert_eq!(client.hear(QUIET).await, None);
    while rig.store.try_next().unwrap().is_some() {}
    rig.store.passed(rig.store.position());
    rig.until("the second", || {
        rig.commit();
        rig.shared.metrics.samples_acked.get() == 2
    })
    .await;
    assert_eq!(&*client.ack().await.batches, [2]);
    drop(client);
    session.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_is_half_open_times_out() {
    let rig = Rig::new(|_, _| {});
    let (near, far) = tokio::io::duplex(1 << 16);
    let mut silent = Client { io: near, codec: ClientCodec::new(), buffer: BytesMut::new() };
    let session = tokio::spawn(run(rig.shared.clone(), far, ([192, 0, 2, 1], 9).into(), ()));
    let refused = silent.refusal().await;
    assert_eq!((refused.code, refused.retry), (Refusal::Timeout, true), "it never introduced itself");
    session.await.unwrap();

    let (mut client, session) = rig.client().await;
    // Three of its intervals, which is as short as it gets.
    assert_eq!(client.hear(Duration::from_secs(13)).await, None);
    assert_eq!(client.refusal().await.code, Refusal::Timeout);
    session.await.unwrap();
    assert!(rig.shared.live.host(HOST).unwrap().peer.is_none());
}

#[tokio::test]
async fn at_a_shutdown_what_is_under_way_is_acknowledged_before_the_last_word() {
    let rig = Rig::new(|_, _| {});
    let (mut client, session) = rig.client().await;
    let now = clock::now_ms();
    client.send(1, false, vec![sample(now)]).await;
    rig.live("its sample", |host| host.sample.is_some()).await;
    rig.shared.shutdown.cancel();
    assert_eq!(client.hear(QUIET).await, None);
    rig.commit();
    assert_eq!(&*client.ack().await.batches, [1]);
    assert_eq!(client.refusal().await.code, Refusal::ShuttingDown);
    session.await.unwrap();
}

/// Another run of the same client.
fn other_run(run: u8) -> Hello {
    Hello { run: RunId([run; 16]), interval_ms: 1_000, ..hello() }
}

#[tokio::test]
async fn a_client_takes_over_its_own_half_open_connection_and_is_never_down() {
    let rig = Rig::new(|_, _| {});
    let (mut old, first) = rig.client().await;
    let now = clock::now_ms();
    old.send(1, false, vec![sample(now)]).await;
    rig.live("its sample", |host| host.sample.is_some()).await;
    let (mut new, second) = rig.client().await;
    assert_eq!(old.hear(LONG).await, None, "the old connection ends without a word");
    rig.commit();
    first.await.unwrap();
    assert_eq!(rig.shared.live.committed_ms(HOST), Some(now), "what it had under way counts all the same");
    let host = rig.shared.live.host(HOST).unwrap();
    assert!(host.peer.is_some() && host.presence == crate::live::Presence::Up);
    new.send(1, false, vec![sample(now)]).await;
    rig.live("the new connection's", |host| host.received_ms.is_some_and(|at| at >= now)).await;
    drop(new);
    second.await.unwrap();
    assert!(rig.shared.live.host(HOST).unwrap().peer.is_none());
}

#[tokio::test]
async fn another_run_is_refused_while_the_first_is_there_and_welcome_once_it_said_good_bye() {
    let rig = Rig::new(|_, _| {});
    let (mut old, first) = rig.client().await;
    let (mut other, second) = rig.stranger();
    other.say(other_run(2)).await;
    let refused = other.refusal().await;
    assert_eq!((refused.code, refused.retry), (Refusal::IdentityInUse, true));
    assert!(refused.text.contains("192.0.2.1:9"), "{}", &*refused.text);
    second.await.unwrap();
    old.say(vitals_wire::message::Bye { reason: ByeReason::Restart }).await;
    rig.live("its good-bye", |host| matches!(host.presence, crate::live::Presence::Off(_))).await;
    let (mut other, second) = rig.stranger();
    other.say(other_run(2)).await;
    assert!(matches!(other.hear(LONG).await, Some(ServerMessage::Welcome(_))));
    assert_eq!(old.refusal().await.code, Refusal::IdentityInUse);
    first.await.unwrap();
    drop(other);
    second.await.unwrap();
}

#[tokio::test]
async fn orders_reach_the_client_and_the_last_one_ends_it_at_once() {
    let rig = Rig::new(|_, _| {});
    let (mut client, session) = rig.client().await;
    // It waits for a commit that does not come.
    client.send(1, false, vec![sample(clock::now_ms())]).await;
    rig.live("its sample", |host| host.sample.is_some()).await;
    let pins = List::new(vec![[7; 32]]).unwrap();
    assert_eq!(rig.shared.seats.order_all(&seats::Order::Pins(pins.clone())), 1);
    match client.hear(LONG).await {
        Some(ServerMessage::Pins(told)) => assert_eq!(told.pins, pins),
        other => panic!("no pins: {other:?}"),
    }
    let began = Instant::now();
    assert!(rig.shared.seats.order(HOST, seats::Order::Close(refused(Refusal::Revoked, "go", false))));
    assert_eq!(client.refusal().await, refused(Refusal::Revoked, "go", false));
    assert!(began.elapsed() < Duration::from_secs(1), "it waits for no disk");
    assert!(!rig.shared.seats.order(HOST, seats::Order::Pins(List::empty())));
    rig.commit();
    session.await.unwrap();
    let revoked = rig.shared.metrics.refused.iter().find(|(word, _)| *word == "revoked").unwrap();
    assert_eq!(revoked.1, 1);
}

#[tokio::test]
async fn a_host_over_its_limits_keeps_its_connection_and_others_lose_nothing() {
    let limits = HostLimits { samples_per_second: 1, ..HostLimits::default() };
    let rig = Rig::limited(limits, |_, _| {});
    let (mut client, session) = rig.client().await;
    let now = clock::now_ms();
    client.send(1, false, (0..100).map(|i| sample(now + i)).collect()).await;
    rig.live("the last that passes", |host| host.sample.as_ref().is_some_and(|s| s.time_ms >= now + 59))
        .await;
    rig.commit();
    let ack = client.ack().await;
    assert_eq!(&*ack.batches, [1]);
    assert!((38..=40).contains(&ack.refused.len()), "{}", ack.refused.len());
    assert!(ack.refused.iter().all(|one| one.reason == DropReason::OverLimit && one.time_ms >= now + 60));
    client.send(2, true, vec![sample(now - 1_000)]).await;
    let ack = client.ack().await;
    assert_eq!((ack.batches.len(), ack.refused.len()), (0, 0), "put off, and said so");
    assert_eq!(rig.shared.metrics.batches_over_limit.get(), 1);
    client.say(vitals_wire::message::LiveSample { sample: sample(now + 5_000) }).await;
    rig.until("the one that is ignored", || rig.shared.metrics.live_over_limit.get() == 1).await;
    assert!(rig.shared.live.host(HOST).unwrap().sample.is_none_or(|s| s.time_ms < now + 5_000));

    let (mut bystander, theirs) = rig.stranger();
    let other = Hello { host: HostId([6; 16]), name: Text::cut("other"), ..hello() };
    bystander.say(rig.joining(other).await).await;
    assert!(matches!(bystander.hear(LONG).await, Some(ServerMessage::Welcome(_))));
    bystander.send(1, false, vec![sample(now)]).await;
    rig.until("the other's", || rig.shared.live.host(HostId([6; 16])).is_some_and(|h| h.sample.is_some()))
        .await;
    rig.commit();
    assert_eq!((bystander.ack().await.refused.len(), session.is_finished()), (0, false));
    drop(client);
    // A new connection gains nothing.
    session.await.unwrap();
    let (mut again, session) = rig.client().await;
    again.send(1, true, vec![sample(now - 1_000)]).await;
    assert_eq!(again.ack().await.batches.len(), 0);
    drop((again, bystander));
    session.await.unwrap();
    theirs.await.unwrap();
}

#[tokio::test]
async fn series_beyond_the_cap_are_in_neither_the_journal_nor_the_live_picture() {
    use vitals_wire::section::{Temperature, Temperatures};
    let mut rig = Rig::limited(HostLimits { series: 10, ..HostLimits::default() }, |_, _| {});
    let (mut client, session) = rig.client().await;
    let now = clock::now_ms();
    let sensor = |i: u32| Temperature { sensor: Text::cut(&format!("s{i}")), millidegrees: 1 };
    let sensors = List::first((0..15).map(sensor).collect()).0;
    let hot = Sample { time_ms: now, sections: List::first(vec![Temperatures { sensors }.into()]).0 };
    client.send(1, false, vec![hot.clone()]).await;
    rig.live("its sample", |host| host.series_dropped == 5).await;
    rig.commit();
    assert_eq!(client.ack().await.refused.len(), 0, "no sample is refused for it");
    client.send(2, true, vec![hot]).await;
    rig.live("the same again", |host| host.series_dropped == 10).await;
    rig.commit();
    client.ack().await;
    let kept: Vec<_> = std::iter::from_fn(|| rig.store.try_next().unwrap()).collect();
    let kept: Vec<_> = kept.iter().flat_map(|entry| &entry.record.samples).collect();
    assert_eq!((kept.len(), kept[0]), (2, kept[1]), "cut as before");
    assert_eq!(*kept[0], *rig.shared.live.host(HOST).unwrap().sample.unwrap());
    let Section::Temperatures(left) = &kept[0].sections[0] else { panic!("{kept:?}") };
    assert_eq!(left.sensors.len(), 10);
    let counted = rig.shared.metrics.series_dropped.iter().find(|(word, _)| *word == "temp").unwrap();
    assert_eq!(counted.1, 10);
    drop(client);
    session.await.unwrap();
}

/// A door that notes what is said of who stands in it.
struct NotedDoor(Arc<Mutex<Vec<&'static str>>>);

impl Door for NotedDoor {
    fn admitted(self) {
        self.0.lock().unwrap().push("admitted");
    }

    fn denied(&mut self) -> Duration {
        self.0.lock().unwrap().push("denied");
        Duration::from_millis(300)
    }
}

#[tokio::test]
async fn a_wrong_secret_is_answered_late_and_only_who_is_let_in_gives_its_place_back() {
    let rig = Rig::new(|_, _| {});
    let said = Arc::new(Mutex::new(Vec::new()));
    let come = async |hello: Hello| {
        let (near, far) = tokio::io::duplex(1 << 16);
        let door = NotedDoor(said.clone());
        let session = tokio::spawn(run(rig.shared.clone(), far, ([192, 0, 2, 1], 9).into(), door));
        let mut client = Client { io: near, codec: ClientCodec::new(), buffer: BytesMut::new() };
        let began = Instant::now();
        client.say(hello).await;
        let answer = client.hear(LONG).await;
        drop(client);
        session.await.unwrap();
        (answer, began.elapsed(), std::mem::take(&mut *said.lock().unwrap()))
    };
    let code = |answer| match answer {
        Some(ServerMessage::Refused(refused)) => refused.code,
        other => panic!("not refused: {other:?}"),
    };
    let (answer, _, door) = come(hello()).await;
    assert_eq!((code(answer), door), (Refusal::NotEnrolled, vec![]), "it has guessed nothing");
    let (answer, _, door) = come(rig.joining(hello()).await).await;
    assert!(matches!(answer, Some(ServerMessage::Welcome(_))), "{answer:?}");
    assert_eq!(door, ["admitted"]);
    let (answer, took, door) = come(Hello { secret: Secret([9; 32]), ..hello() }).await;
    assert_eq!((code(answer), door), (Refusal::Credential, vec!["denied"]));
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let unknown = Hello { host: HostId([7; 16]), token: Some(Text::cut("guess")), ..hello() };
    let (answer, took, door) = come(unknown).await;
    assert_eq!((code(answer), door), (Refusal::TokenUnknown, vec!["denied"]));
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let refused = rig.shared.state.audit_log(i64::MAX, 10).await.unwrap();
    let refused: Vec<_> = refused.iter().filter(|entry| entry.action == "host_refused").collect();
    let words: Vec<&str> = refused.iter().map(|entry| &*entry.detail).collect();
    assert_eq!(words, ["token_unknown", "credential", "not_enrolled"]);
    assert!(refused.iter().all(|entry| entry.target == "web" && entry.address == "192.0.2.1"));
}
