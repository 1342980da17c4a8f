//! Links of clients with real files to servers over real TLS: joining, trust, secrets, the way out.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vitals_wire::bounded::{List, Text};
use vitals_wire::message::{
    ClientMessage, Facts, Hello, PROTOCOL_VERSION, Pins as PinsMessage, Refusal, Refused,
};
use vitals_wire::sample::Sample;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connector::{Connector, WayOut};
use super::driver::{Channel, Ended, Link, Observer};
use super::event::{Closed, Event, TrustNews};
use super::protocol::{Known, Protocol, Settings};
use super::proxy::NoProxy;
use super::tls::{Pins, Tls};
use crate::identity::{Identity, Secrets};
use crate::queue::Caps;
use crate::simulate::host::Host;
use crate::simulate::script::Given;
use crate::test_server::{Key, Server, Session, welcome_to};
use crate::trust::{self, Basis, Keeper, Kept, Pin, Shared};

const PATIENCE: Duration = Duration::from_secs(20);

struct Notes(mpsc::UnboundedSender<Event>);

impl Observer for Notes {
    fn event(&mut self, event: Event) {
        let _ = self.0.send(event);
    }
}

/// What a client was given.
#[derive(Default)]
struct Setup {
    servers: Vec<String>,
    pins: Vec<Pin>,
    token: Option<&'static str>,
    way_out: Option<WayOut>,
}

/// A client that runs on a directory, as `vitals-client run` puts it together.
struct Client {
    events: mpsc::UnboundedReceiver<Event>,
    samples: mpsc::Sender<Sample>,
    shutdown: CancellationToken,
    ended: JoinHandle<Ended<Notes>>,
    /// Locks the directory.
    identity: Identity,
}

fn start(dir: &Path, given: Setup) -> Client {
    let identity = Identity::open(dir).unwrap();
    let kept = Kept::open(&trust::path(dir));
    let basis = Basis::of(false, !given.pins.is_empty(), false, &kept);
    let pins = Arc::new(Pins::new(given.pins));
    let tls = Tls::new(basis, pins.clone(), None).unwrap();
    let servers = if given.servers.is_empty() { kept.addresses.clone() } else { given.servers };
    let (is_joined, known_pins) = (kept.host == Some(identity.host), kept.pins.clone());
    let shared = Shared::new(Some(trust::path(dir)), kept, pins);
    let secrets = Secrets::of(dir, identity.host);
    let keeper = Keeper::new(shared, Some(identity.host), basis, servers.clone(), Some(secrets));
    let known = Known {
        is_joined,
        next_secret: identity.next_secret.clone(),
        pins: known_pins,
        is_current: keeper.is_current(),
        learns: true,
        rotates: true,
    };
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Default::default(),
        host: identity.host,
        run: identity.run,
        secret: identity.secret.clone(),
        token: given.token.map(Text::cut),
        name: Default::default(),
        labels: Default::default(),
        facts: Facts::default(),
        interval_ms: 1000,
        shortest_interval_ms: 1000,
        clock_ms: 0,
    };
    let settings =
        Settings { servers: servers.len(), interval: Duration::from_secs(1), caps: Caps::CLIENT, seed: 1 };
    let (out, events) = mpsc::unbounded_channel();
    let (samples, from_sampler) = mpsc::channel(100);
    let shutdown = CancellationToken::new();
    let link = Link {
        protocol: Protocol::new(settings, hello, Instant::now()).with_trust(known),
        connect: Connector::new(servers, Some(tls), given.way_out),
        source: Channel { samples: from_sampler, shutdown: shutdown.clone(), bye: Arc::default() },
        observer: Notes(out),
        keep: None,
        trust: Some(Box::new(keeper)),
    };
    Client { events, samples, shutdown, ended: tokio::spawn(link.run()), identity }
}

impl Client {
    /// The first event of which `pick` makes something.
    async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.events.recv().await.expect("the link runs")) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("it happens")
    }

    async fn closed(&mut self) -> String {
        self.until(|event| match event {
            Event::Closed { why, .. } => Some(why.to_string()),
            _ => None,
        })
        .await
    }

    async fn told(&mut self, news: TrustNews) {
        self.until(|event| (event == Event::Trust(news.clone())).then_some(())).await;
    }

    async fn take(&self, time_ms: i64) {
        let sample = Host::named(1, "x", 1000).sample(time_ms, &Given::default());
        self.samples.send(sample).await.unwrap();
    }

    /// As a kill would: nothing is brought home.
    async fn kill(self) {
        self.ended.abort();
        let _ = self.ended.await;
    }

    async fn end(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.ended).await.expect("the link ends").unwrap();
    }
}

async fn greeted(server: &Server) -> (Session, Hello) {
    let mut session = server.accept().await;
    let Some(ClientMessage::Hello(hello)) = session.next().await else { panic!("no Hello") };
    (session, hello)
}

fn named(keys: &[&Key]) -> List<[u8; 32], 4> {
    List::new(keys.iter().map(|key| key.pin().0).collect()).unwrap()
}

fn refusal(code: Refusal) -> Refused {
    Refused { code, text: Text::cut("no"), retry: false }
}

#[tokio::test]
async fn a_host_joins_over_tls_with_a_token_and_comes_back_without_anything() {
    let dir = tempfile::tempdir().unwrap();
    let (key, next) = (Key::new(&["x"]), Key::new(&["y"]));
    let mut server = Server::with_key(&key).await;
    let given = Setup {
        servers: vec![server.address()],
        pins: vec![key.pin()],
        token: Some("join"),
        ..Setup::default()
    };
    let mut client = start(dir.path(), given);
    let (mut session, first) = greeted(&server).await;
    assert_eq!(first.token.as_deref(), Some("join"));
    let mut welcome = welcome_to("x");
    welcome.pins = named(&[&key, &next]);
    session.send(welcome).await;
    let Some(ClientMessage::Learnt(learnt)) = session.next().await else { panic!("no Learnt") };
    assert_eq!(learnt.pins.len(), 2);
    let kept = Kept::read(&trust::path(dir.path())).unwrap();
    assert_eq!((kept.pins.len(), kept.host, kept.addresses), (2, Some(first.host), vec![server.address()]));
    client.take(1000).await;
    let batch = session.samples().await.batch;
    session.ack(batch, &[]).await;
    client.until(|event| matches!(event, Event::Settled { .. }).then_some(())).await;
    drop(session);
    client.kill().await;

    // Neither token nor pins nor address are given any more, and the server has its other key.
    server.change_key(&next);
    let mut client = start(dir.path(), Setup::default());
    let (mut session, again) = greeted(&server).await;
    assert_eq!((again.host, again.secret, again.token), (first.host, first.secret, None));
    let mut welcome = welcome_to("x");
    welcome.pins = named(&[&next]);
    session.send(welcome).await;
    client.told(TrustNews::Learnt { pins: vec![next.pin()] }).await;
    session.send(PinsMessage { pins: named(&[&next, &key]) }).await;
    loop {
        match session.next().await {
            Some(ClientMessage::Learnt(learnt)) if learnt.pins.len() == 2 => break,
            Some(ClientMessage::Learnt(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(Kept::read(&trust::path(dir.path())).unwrap().pins.len(), 2);
    client.end().await;
}

#[tokio::test]
async fn a_server_with_another_key_hears_nothing_and_the_client_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (real, false_one) = (Key::new(&["x"]), Key::new(&["x"]));
    let server = Server::with_key(&false_one).await;
    let given = Setup {
        servers: vec![server.address()],
        pins: vec![real.pin()],
        token: Some("hush"),
        ..Setup::default()
    };
    let mut client = start(dir.path(), given);
    let (heard, said) = tokio::join!(server.turned_away(), client.closed());
    assert!(!heard.contains("hush"), "{heard}");
    for part in ["cannot connect: 127.0.0.1:", &false_one.pin().to_string(), &real.pin().to_string()] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!trust::path(dir.path()).exists(), "nothing was learnt from it");
    client.kill().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_between_joining_and_the_answer_joins_again_as_the_same_host() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new(&["x"]);
    let server = Server::with_key(&key).await;
    let given = || Setup {
        servers: vec![server.address()],
        pins: vec![key.pin()],
        token: Some("join"),
        ..Setup::default()
    };
    let client = start(dir.path(), given());
    let (session, first) = greeted(&server).await;
    drop(session);
    // The same process tries again, and after a kill another one.
    let (_session, second) = greeted(&server).await;
    client.kill().await;
    let mut client = start(dir.path(), given());
    let (mut session, third) = greeted(&server).await;
    for again in [&second, &third] {
        assert_eq!((again.host, &again.secret, &again.token), (first.host, &first.secret, &first.token));
    }
    session.send(welcome_to("x")).await;
    client.told(TrustNews::Joined).await;
    client.end().await;
}

#[tokio::test]
async fn the_next_address_is_tried_when_the_first_is_dead_or_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new(&["x"]);
    let server = Server::with_key(&key).await;
    let false_one = Server::with_key(&Key::new(&["x"])).await;
    let dead = {
        let server = Server::start().await;
        server.address()
    };
    let given = Setup {
        servers: vec![dead, false_one.address(), server.address()],
        pins: vec![key.pin()],
        ..Setup::default()
    };
    let mut client = start(dir.path(), given);
    let (_, (mut session, _)) = tokio::join!(false_one.turned_away(), greeted(&server));
    session.send(welcome_to("x")).await;
    let opened = client
        .until(|event| match event {
            Event::Opened { server, .. } => Some(server),
            _ => None,
        })
        .await;
    assert_eq!(opened, 2);
    client.end().await;
}

#[tokio::test]
async fn a_new_secret_is_kept_told_used_and_the_old_one_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new(&["x"]);
    let server = Server::with_key(&key).await;
    let given = || Setup { servers: vec![server.address()], pins: vec![key.pin()], ..Setup::default() };
    let on_disk = || std::fs::read_to_string(dir.path().join("identity")).unwrap();
    let mut client = start(dir.path(), given());
    let old = client.identity.secret.clone();
    let (mut session, _) = greeted(&server).await;
    let mut rotate = welcome_to("x");
    rotate.rotate_secret = true;
    session.send(rotate.clone()).await;
    let Some(ClientMessage::NewSecret(new)) = session.next().await else { panic!("no NewSecret") };
    assert!(on_disk().contains("next-secret = "), "before it is told");
    // The server did not hear it.
    drop(session);
    client.told(TrustNews::SecretMade).await;
    let (mut session, hello) = greeted(&server).await;
    assert_eq!(hello.secret, new.secret);
    session.send(refusal(Refusal::Credential)).await;
    client.told(TrustNews::OldSecret).await;
    let (mut session, hello) = greeted(&server).await;
    assert_eq!(hello.secret, old, "and not after ten minutes");
    session.send(rotate.clone()).await;
    let Some(ClientMessage::NewSecret(again)) = session.next().await else { panic!("no NewSecret") };
    assert_eq!(again.secret, new.secret);
    client.kill().await;
    let mut client = start(dir.path(), given());
    let (mut session, hello) = greeted(&server).await;
    assert_eq!(hello.secret, new.secret, "also after a restart");
    session.send(welcome_to("x")).await;
    client.told(TrustNews::SecretChanged).await;
    let forgotten = async {
        while on_disk().contains("next-secret") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, forgotten).await.unwrap();
    client.end().await;
    assert_eq!(Identity::open(dir.path()).unwrap().secret, new.secret);
}

#[tokio::test]
async fn a_server_that_forgot_this_host_is_given_the_token_at_once_and_a_refusal_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new(&["x"]);
    let server = Server::with_key(&key).await;
    let given = Setup {
        servers: vec![server.address()],
        pins: vec![key.pin()],
        token: Some("join"),
        ..Setup::default()
    };
    let mut client = start(dir.path(), given);
    let (mut session, _) = greeted(&server).await;
    session.send(welcome_to("x")).await;
    client.told(TrustNews::Joined).await;
    drop(session);
    let (mut session, hello) = greeted(&server).await;
    assert_eq!(hello.token, None);
    session.send(refusal(Refusal::NotEnrolled)).await;
    client.told(TrustNews::TokenAgain).await;
    let (mut session, hello) = greeted(&server).await;
    assert_eq!(hello.token.as_deref(), Some("join"));
    session.send(refusal(Refusal::TokenUsedUp)).await;
    let (why, retry_in) = client
        .until(|event| match event {
            Event::Closed {
                why: why @ Closed::Refused { code: Refusal::TokenUsedUp, .. }, retry_in, ..
            } => Some((why.to_string(), retry_in)),
            _ => None,
        })
        .await;
    assert!(why.contains("VITALS_TOKEN, token_file or --token-file"), "{why}");
    assert!(retry_in.unwrap() > Duration::from_secs(590), "{retry_in:?}");
    client.kill().await;
}

/// A proxy that makes the ways it is asked for, to wherever `to` is; gives the heads of what it was asked.
async fn proxy(to: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, heads) = (to.clone(), heads.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(near.read_u8().await.unwrap());
                }
                heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                let mut far = TcpStream::connect(to).await.unwrap();
                near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_server_behind_a_proxy_is_reached_by_its_name_and_one_on_this_machine_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let key = Key::new(&["x"]);
    let server = Server::with_key(&key).await;
    let (address, asked) = proxy(server.address()).await;
    let way_out = || {
        let proxy = format!("http://us%3Aer:pass@{address}").parse().unwrap();
        Some(WayOut { proxy, except: NoProxy::default() })
    };
    let far = "vitals.only-the-proxy-knows:7400".to_owned();
    let given =
        Setup { servers: vec![far.clone()], pins: vec![key.pin()], way_out: way_out(), ..Setup::default() };
    let client = start(dir.path(), given);
    let (mut session, _) = greeted(&server).await;
    session.send(welcome_to("x")).await;
    client.take(1000).await;
    assert_eq!(session.samples().await.samples.len(), 1);
    client.kill().await;
    let head = asked.lock().unwrap().pop().unwrap();
    assert!(head.starts_with(&format!("CONNECT {far} HTTP/1.1\r\n")), "{head}");
    assert!(head.contains("\r\nProxy-Authorization: Basic "), "{head}");

    let given = Setup {
        servers: vec![server.address()],
        pins: vec![key.pin()],
        way_out: way_out(),
        ..Setup::default()
    };
    let client = start(dir.path(), given);
    greeted(&server).await;
    client.kill().await;
    assert!(asked.lock().unwrap().is_empty(), "no proxy on the way to this machine");
}

#[tokio::test]
async fn a_client_that_was_told_to_speak_plain_tcp_says_when_the_server_does_not() {
    let key = Key::new(&["x"]);
    let server = Server::with_key(&key).await;
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    drop(stream);
    let mut client = {
        let given = Setup { servers: vec![server.address()], pins: vec![key.pin()], ..Setup::default() };
        start_plain(dir.path(), given)
    };
    let (said, _) = tokio::join!(client.closed(), async {
        // Of the connection above, then the client's.
        server.turned_away().await;
        server.turned_away().await
    });
    assert!(said.contains("it speaks TLS") && said.contains("remove insecure"), "{said}");
    client.kill().await;
}

/// The same with `insecure = true`.
fn start_plain(dir: &Path, given: Setup) -> Client {
    let identity = Identity::open(dir).unwrap();
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        client_version: Default::default(),
        host: identity.host,
        run: identity.run,
        secret: identity.secret.clone(),
        token: None,
        name: Default::default(),
        labels: Default::default(),
        facts: Facts::default(),
        interval_ms: 1000,
        shortest_interval_ms: 1000,
        clock_ms: 0,
    };
    let settings = Settings { servers: 1, interval: Duration::from_secs(1), caps: Caps::CLIENT, seed: 1 };
    let (out, events) = mpsc::unbounded_channel();
    let (samples, from_sampler) = mpsc::channel(100);
    let shutdown = CancellationToken::new();
    let link = Link {
        protocol: Protocol::new(settings, hello, Instant::now()),
        connect: Connector::new(given.servers, None, None),
        source: Channel { samples: from_sampler, shutdown: shutdown.clone(), bye: Arc::default() },
        observer: Notes(out),
        keep: None,
        trust: None,
    };
    Client { events, samples, shutdown, ended: tokio::spawn(link.run()), identity }
}
