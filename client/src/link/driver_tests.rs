use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use vitals_wire::ids::{HostId, RunId, Secret};
use vitals_wire::message::{DropReason, Facts, Hello, PROTOCOL_VERSION, Refusal};
use vitals_wire::sample::encode_sample;

use super::*;
use crate::link::event::{Loss, News};
use crate::link::protocol::Settings;
use crate::link::tcp::Tcp;
use crate::queue::Caps;
use crate::simulate::host::Host;
use crate::simulate::script::Given;
use crate::spool::job::Job;
use crate::test_server::{Server, welcome_to};

/// Keeps everything.
struct Notes {
    events: mpsc::UnboundedSender<Event>,
    sent: Vec<i64>,
}

impl Observer for Notes {
    fn event(&mut self, event: Event) {
        // Comes with each message of the server; the protocol's own tests look at it.
        if !matches!(
            event,
            Event::ServerClock { .. } | Event::Waiting(_) | Event::Standing(_) | Event::Trust(_)
        ) {
            let _ = self.events.send(event);
        }
    }
    fn first_sent(&mut self, sample: &Sample) {
        self.sent.push(sample.time_ms);
    }
}

/// A client's link that runs, with what a test needs of it.
struct Client {
    samples: mpsc::Sender<Sample>,
    events: mpsc::UnboundedReceiver<Event>,
    shutdown: CancellationToken,
    ended: JoinHandle<Ended<Notes>>,
}

fn sample(time_ms: i64) -> Sample {
    Host::named(1, "x", 1000).sample(time_ms, &Given::default())
}

fn client(servers: &[&Server]) -> Client {
    let addresses: Vec<String> = servers.iter().map(|server| server.address()).collect();
    client_by(addresses.len(), Tcp::new(addresses))
}

fn client_by(servers: usize, connect: impl Connect + 'static) -> Client {
    client_with(servers, connect, None)
}

fn client_with(servers: usize, connect: impl Connect + 'static, keep: Option<Box<dyn Keep>>) -> Client {
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Default::default(),
        host: HostId([1; 16]),
        run: RunId([2; 16]),
        secret: Secret([3; 32]),
        token: None,
        name: Default::default(),
        labels: Default::default(),
        facts: Facts::default(),
        interval_ms: 1000,
        shortest_interval_ms: 1000,
        clock_ms: 0,
    };
    let settings = Settings { servers, interval: Duration::from_secs(1), caps: Caps::CLIENT, seed: 1 };
    let (samples, from_sampler) = mpsc::channel(100);
    let (events_out, events) = mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let link = Link {
        protocol: match keep {
            Some(_) => Protocol::new(settings, hello, now()).with_spool(now()),
            None => Protocol::new(settings, hello, now()),
        },
        connect,
        source: Channel { samples: from_sampler, shutdown: shutdown.clone(), bye: Arc::default() },
        observer: Notes { events: events_out, sent: Vec::new() },
        keep,
        trust: None,
    };
    Client { samples, events, shutdown, ended: tokio::spawn(link.run()) }
}

impl Client {
    async fn take(&self, time_ms: i64) {
        self.samples.send(sample(time_ms)).await.unwrap();
    }

    /// The next event that is of interest.
    async fn event(&mut self) -> Event {
        loop {
            let event = timeout(Duration::from_secs(20), self.events.recv())
                .await
                .expect("something happens")
                .unwrap();
            let is_usual = matches!(
                event,
                Event::Taken { .. }
                    | Event::Opened { .. }
                    | Event::Spool(News::Opened { .. } | News::Lasts { .. })
            );
            if !is_usual {
                return event;
            }
        }
    }

    async fn closed(&mut self) -> (Closed, Option<Duration>) {
        match self.event().await {
            Event::Closed { why, retry_in, .. } => (why, retry_in),
            other => panic!("{other:?}"),
        }
    }

    async fn end(self) -> Ended<Notes> {
        self.shutdown.cancel();
        timeout(Duration::from_secs(20), self.ended).await.expect("the link ends").unwrap()
    }
}

#[tokio::test]
async fn samples_travel_unchanged_are_settled_and_the_end_is_announced() {
    let server = Server::start().await;
    let mut client = client(&[&server]);
    let (mut session, hello) = server.welcome().await;
    assert_eq!((hello.host, hello.run), (HostId([1; 16]), RunId([2; 16])));
    client.take(1000).await;
    let samples = session.samples().await;
    assert_eq!((samples.backlog, &samples.samples[..]), (false, &[sample(1000)][..]));
    session.ack(samples.batch, &[]).await;
    let Event::Settled { time_ms: 1000, hash, .. } = client.event().await else { panic!() };
    assert_eq!(hash, crate::queue::content_hash(&encode_sample(&sample(1000)).unwrap()));
    client.take(2000).await;
    let serving = tokio::spawn(session.serve());
    let ended = client.end().await;
    assert_eq!(serving.await.unwrap(), (vec![2000], true));
    assert_eq!((ended.waiting, ended.observer.sent), (0, vec![1000, 2000]));
}

#[tokio::test]
async fn a_reconnection_resends_exactly_what_was_unsettled_and_counts_each_as_sent_once() {
    let server = Server::start().await;
    let mut client = client(&[&server]);
    let (mut session, _) = server.welcome().await;
    for time in [1000, 2000, 3000] {
        client.take(time).await;
        let batch = session.samples().await.batch;
        if time == 2000 {
            session.ack(batch, &[]).await;
        }
    }
    assert!(matches!(client.event().await, Event::Settled { time_ms: 2000, .. }));
    drop(session);
    client.closed().await;
    let (mut session, _) = server.welcome().await;
    let (live, backlog) = (session.samples().await, session.samples().await);
    assert_eq!((live.backlog, &live.samples[..]), (false, &[sample(3000)][..]));
    assert_eq!((backlog.backlog, &backlog.samples[..]), (true, &[sample(1000)][..]));
    session.ack(live.batch, &[]).await;
    session.ack(backlog.batch, &[]).await;
    assert!(matches!(client.event().await, Event::Settled { time_ms: 3000, .. }));
    let serving = tokio::spawn(session.serve());
    let ended = client.end().await;
    assert_eq!(serving.await.unwrap(), (vec![], true));
    assert_eq!((ended.waiting, ended.observer.sent), (0, vec![1000, 2000, 3000]));
}

#[tokio::test]
async fn samples_that_the_server_refuses_are_dropped_for_its_reason() {
    let server = Server::start().await;
    let mut client = client(&[&server]);
    let (mut session, _) = server.welcome().await;
    client.take(1000).await;
    let batch = session.samples().await.batch;
    session.ack(batch, &[(1000, DropReason::ClockAhead)]).await;
    let event = client.event().await;
    assert!(
        matches!(event, Event::Dropped { time_ms: 1000, loss: Loss::Refused(DropReason::ClockAhead), .. }),
        "{event:?}"
    );
    let serving = tokio::spawn(session.serve());
    assert_eq!(client.end().await.waiting, 0);
    serving.await.unwrap();
}

#[tokio::test]
async fn garbage_from_a_server_ends_that_connection_and_the_next_one_works() {
    let server = Server::start().await;
    let mut client = client(&[&server]);
    let garbage: [&[u8]; 5] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 2, 64, 1],
        &[0, 0, 0, 3, 65, 0, 0],
    ];
    for (time, bytes) in (1..).zip(garbage) {
        let (mut session, _) = server.welcome().await;
        client.take(time).await;
        let batch = session.samples().await.batch;
        session.ack(batch, &[]).await;
        assert!(matches!(client.event().await, Event::Settled { .. }));
        // A message of a later version is none.
        session.raw(&[0, 0, 0, 2, 250, 1]).await;
        assert!(matches!(client.event().await, Event::Ignored { .. }));
        session.raw(bytes).await;
        let (why, _) = client.closed().await;
        assert!(matches!(why, Closed::Violation(_)), "{bytes:?}: {why}");
    }
    let mut torn = server.accept().await;
    torn.raw(&[0, 0, 0, 9, 64]).await;
    drop(torn);
    client.closed().await;
    client.take(1000).await;
    let (session, _) = server.welcome().await;
    let serving = tokio::spawn(session.serve());
    assert!(matches!(client.event().await, Event::Settled { time_ms: 1000, .. }));
    client.end().await;
    serving.await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_why_and_when_to_come_back() {
    let server = Server::start().await;
    let mut client = client(&[&server]);
    server.accept().await.refuse(true).await;
    let (why, retry_in) = client.closed().await;
    assert_eq!(why, Closed::Refused { code: Refusal::Credential, text: "not you".to_owned(), retry: true });
    assert!(retry_in.unwrap() <= Duration::from_secs(1));
    let mut session = server.accept().await;
    session.refuse(false).await;
    let (_, retry_in) = client.closed().await;
    assert!(retry_in.unwrap() > Duration::from_secs(599));
    client.take(1000).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(client.end().await.waiting, 1, "there is no other server to bring it to");
    assert!(asked.elapsed() < Duration::from_secs(2), "and no reason to wait");
}

#[tokio::test]
async fn a_second_server_takes_over_when_the_first_refuses() {
    let (first, second) = (Server::start().await, Server::start().await);
    let client = client(&[&first, &second]);
    first.accept().await.refuse(false).await;
    let (session, _) = second.welcome().await;
    client.take(1000).await;
    let serving = tokio::spawn(session.serve());
    client.end().await;
    assert_eq!(serving.await.unwrap(), (vec![1000], true));
}

/// The same with streams in memory and a clock that jumps, for what takes long.
struct Pipes(mpsc::UnboundedSender<tokio::io::DuplexStream>);

impl Connect for Pipes {
    type Stream = tokio::io::DuplexStream;

    async fn connect(&mut self, _server: usize) -> Result<Self::Stream, String> {
        let (ours, theirs) = tokio::io::duplex(64);
        self.0.send(theirs).map(|()| ours).map_err(|_| "nobody listens".to_owned())
    }
}

fn piped() -> (Client, mpsc::UnboundedReceiver<tokio::io::DuplexStream>) {
    let (pipes, opened) = mpsc::unbounded_channel();
    (client_by(1, Pipes(pipes)), opened)
}

/// Waits for an event without a limit: the clock jumps while nothing else can happen.
async fn patient_closed(client: &mut Client) -> Closed {
    loop {
        if let Some(Event::Closed { why, .. }) = client.events.recv().await {
            return why;
        }
    }
}

type Frames = tokio_util::codec::Framed<tokio::io::DuplexStream, vitals_wire::message::ServerCodec>;

async fn greeted(stream: tokio::io::DuplexStream) -> Frames {
    let mut frames = Frames::new(stream, vitals_wire::message::ServerCodec::new());
    assert!(matches!(frames.next().await, Some(Ok(ClientMessage::Hello(_)))));
    frames
}

async fn welcomed(stream: tokio::io::DuplexStream) -> Frames {
    let mut frames = greeted(stream).await;
    futures_util::SinkExt::send(&mut frames, welcome_to("x").into()).await.unwrap();
    frames
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_after_the_deadline_of_each_step() {
    let (mut client, mut opened) = piped();
    let silent = greeted(opened.recv().await.unwrap()).await;
    let start = tokio::time::Instant::now();
    assert_eq!(patient_closed(&mut client).await, Closed::HandshakeTimeout);
    assert_eq!(start.elapsed().as_secs(), 10);
    drop(silent);

    let mut frames = welcomed(opened.recv().await.unwrap()).await;
    client.take(1000).await;
    assert!(matches!(frames.next().await, Some(Ok(ClientMessage::Samples(_)))));
    let start = tokio::time::Instant::now();
    assert_eq!(patient_closed(&mut client).await, Closed::AckTimeout);
    assert_eq!(start.elapsed().as_secs(), 30);
    drop(frames);

    // A pipe of 64 bytes that nobody reads does not take a sample.
    let frames = welcomed(opened.recv().await.unwrap()).await;
    let start = tokio::time::Instant::now();
    assert_eq!(patient_closed(&mut client).await, Closed::WriteTimeout);
    assert_eq!(start.elapsed().as_secs(), 10);
    drop(frames);
}

#[tokio::test(start_paused = true)]
async fn a_second_server_takes_over_when_the_first_does_not_answer_the_greeting() {
    let (pipes, mut opened) = mpsc::unbounded_channel();
    let mut client = client_by(2, Pipes(pipes));
    let silent = greeted(opened.recv().await.unwrap()).await;
    assert_eq!(patient_closed(&mut client).await, Closed::HandshakeTimeout);
    let second = timeout(Duration::from_secs(60), opened.recv()).await.expect("the second is tried").unwrap();
    let mut frames = welcomed(second).await;
    client.take(1000).await;
    assert!(matches!(frames.next().await, Some(Ok(ClientMessage::Samples(_)))));
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_gets_everything_and_the_newest_before_the_older_ones() {
    let (mut client, mut opened) = piped();
    let mut stream = welcomed(opened.recv().await.unwrap()).await.into_inner();
    assert!(matches!(client.events.recv().await, Some(Event::Opened { .. })));
    for time in 1..=5 {
        client.take(time * 1000).await;
    }
    // A few bytes at a time: the first sample is under way while the others are taken.
    let mut order = Vec::new();
    let mut codec = vitals_wire::message::ServerCodec::new();
    let mut buffer = BytesMut::new();
    while order.len() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut some = [0; 100];
        let count = stream.read(&mut some).await.unwrap();
        buffer.extend_from_slice(&some[..count]);
        while let Some(ClientMessage::Samples(samples)) =
            tokio_util::codec::Decoder::decode(&mut codec, &mut buffer).unwrap()
        {
            order.push((
                samples.backlog,
                samples.samples.iter().map(|sample| sample.time_ms).collect::<Vec<_>>(),
            ));
        }
    }
    assert_eq!(order, [(false, vec![1000]), (false, vec![5000]), (true, vec![2000, 3000, 4000])]);
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_a_server_that_hangs() {
    let (client, mut opened) = piped();
    let _frames = welcomed(opened.recv().await.unwrap()).await;
    for time in 1..=3 {
        client.take(time * 1000).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let start = tokio::time::Instant::now();
    let ended = client.end().await;
    assert_eq!(ended.waiting, 3);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_no_disk_that_does_nothing() {
    let (client, mut opened) = piped();
    let mut frames = welcomed(opened.recv().await.unwrap()).await;
    let serving = tokio::spawn(async move { while let Some(Ok(_)) = frames.next().await {} });
    let start = tokio::time::Instant::now();
    client.end().await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    serving.await.unwrap();
}

/// Keeps samples as a spool does, on a disk that answers when it is let.
#[derive(Debug)]
struct SlowDisk {
    spool: crate::spool::Spool,
    may_go: std::sync::mpsc::Receiver<()>,
}

impl Keep for SlowDisk {
    fn perform(&mut self, job: Job) -> Outcome {
        if self.may_go.recv().is_err() {
            panic!("the disk is gone");
        }
        self.spool.perform(job)
    }
}

/// A client with a disk in `dir`; it answers one job for each message.
fn with_disk(servers: &[&Server], dir: &std::path::Path) -> (Client, std::sync::mpsc::Sender<()>) {
    let (go, may_go) = std::sync::mpsc::channel();
    let disk = SlowDisk { spool: crate::spool::Spool::new(dir, 4 << 20), may_go };
    let addresses: Vec<String> = servers.iter().map(|server| server.address()).collect();
    (client_with(addresses.len(), Tcp::new(addresses), Some(Box::new(disk))), go)
}

#[tokio::test]
async fn a_disk_that_hangs_or_is_gone_holds_back_no_live_sample() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (mut client, go) = with_disk(&[&server], dir.path());
    let (mut session, _) = server.welcome().await;
    for time in [1000, 2000] {
        client.take(time).await;
        let batch = session.samples().await;
        assert_eq!((batch.backlog, batch.samples[0].time_ms), (false, time));
        session.ack(batch.batch, &[]).await;
        assert!(matches!(client.event().await, Event::Settled { .. }));
    }
    // It panics instead of answering: what keeps samples is given up, and said to be.
    drop(go);
    assert!(matches!(client.event().await, Event::Spool(News::Off { .. })));
    client.take(3000).await;
    let serving = tokio::spawn(session.serve());
    assert_eq!((client.end().await.waiting, serving.await.unwrap()), (0, (vec![3000], true)));
}

#[tokio::test]
async fn what_is_not_settled_is_on_disk_when_a_link_ends_and_comes_with_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (client, go) = with_disk(&[&server], dir.path());
    (0..100).for_each(|_| go.send(()).unwrap());
    let (mut session, _) = server.welcome().await;
    client.take(1000).await;
    session.samples().await;
    drop(server);
    drop(session);
    client.take(2000).await;
    let ended = client.end().await;
    assert_eq!((ended.waiting, ended.spooled), (0, 2));
    let mut sent = ended.observer.sent;

    let server = Server::start().await;
    let (client, go) = with_disk(&[&server], dir.path());
    (0..100).for_each(|_| go.send(()).unwrap());
    let (session, _) = server.welcome().await;
    let serving = tokio::spawn(session.serve());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ended = client.end().await;
    assert_eq!((ended.waiting, ended.spooled), (0, 0));
    assert_eq!(serving.await.unwrap(), (vec![1000, 2000], true));
    // What was sent by the first run is not told as sent for the first time again.
    sent.extend(ended.observer.sent);
    assert_eq!(sent, [1000, 2000]);
}
