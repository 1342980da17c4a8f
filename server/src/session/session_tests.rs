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

use super::*;
use crate::journal::{Committer, JournalOptions, JournalReader};
use crate::live::{EVENT_QUEUE, HostNow};

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
        let (events, _told) = mpsc::channel(EVENT_QUEUE);
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
            newest_kept: Arc::new(|_| None),
        };
        Self { shared: Arc::new(shared), committer: Mutex::new(committer), store, _dir: dir }
    }

    fn commit(&self) {
        self.committer.lock().unwrap().step();
    }

    /// A client that is welcome, and its session.
    async fn client(&self) -> (Client, tokio::task::JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(4 << 20);
        let address = ([192, 0, 2, 1], 9).into();
        let session = tokio::spawn(run(self.shared.clone(), far, address, ()));
        let mut client = Client { io: near, codec: ClientCodec::new(), buffer: BytesMut::new() };
        client.say(hello()).await;
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
