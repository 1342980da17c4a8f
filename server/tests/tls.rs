//! The clients' port over TLS: what it speaks, by which key it is known, how one key follows another, and who is kept
//! waiting. A real server, and clients made by hand.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;
use support::peer::{Peer, READ_TIMEOUT, hello, now_ms, sample};
use support::server::{Server, wait_for};
use support::tls::Tls;
use vitals_server::tls::pair::{Pair, Pin, certificates_of};
use vitals_wire::bounded::List;
use vitals_wire::message::{Hello, Learnt, Refusal, ServerMessage};

const SOON: Duration = Duration::from_secs(10);

/// A place for a server.
struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("vitals").tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn start(&self) -> Server {
        Server::start(&self.data(), &[])
    }

    /// A server with this under `[clients]`.
    fn start_with(&self, clients: &str) -> Server {
        let config = self.config(clients);
        Server::start(&self.data(), &["--config", config.to_str().unwrap()])
    }

    fn config(&self, clients: &str) -> PathBuf {
        let config = self.dir.path().join("server.toml");
        std::fs::write(&config, format!("[clients]\n{clients}\n")).unwrap();
        config
    }

    /// `vitals-server cert …`.
    fn try_cert(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vitals-server"));
        command.arg("cert").args(args).arg("--data-dir").arg(self.data());
        let config = self.dir.path().join("server.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        command.output().unwrap()
    }

    /// The answer to `vitals-server cert … --json`.
    fn cert(&self, args: &[&str]) -> Value {
        let output = self.try_cert(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Puts a certificate with its key in place; gives both as text.
    fn put(&self) -> (Pin, String) {
        let (pair, pem) = Pair::make(chrono::Utc::now()).unwrap();
        self.put_this(&pem);
        (pair.pin(), pem)
    }

    fn put_this(&self, pem: &str) {
        std::fs::write(self.dir.path().join("own.crt"), certificates_of(pem)).unwrap();
        std::fs::write(self.dir.path().join("own.key"), pem).unwrap();
    }

    fn own_certificate(&self) -> String {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        format!("certificate = {:?}\nkey = {:?}", path("own.crt"), path("own.key"))
    }
}

/// What a host of this id says first.
fn introduction(id: u8) -> Hello {
    hello(id, &format!("host-{id}"))
}

fn failed(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("vitals_handshakes_failed_total{{reason=\"{reason}\"}}"))
}

/// Waits until this many failures of this kind are counted, and gives the line of the log that tells of them.
fn is_told(server: &Server, reason: &str, count: f64) -> String {
    wait_for(reason, SOON, || (failed(server, reason) >= count).then_some(()));
    wait_for("the log", SOON, || server.log_line(&format!("reason={reason}")))
}

/// What comes of a handshake whose end the client sees with its first reading.
fn error_of(tls: &Tls, server: SocketAddr) -> String {
    match tls.connect(server).and_then(|mut peer| peer.try_hear().map(|heard| format!("{heard:?}"))) {
        Ok(heard) => panic!("let in, and heard {heard}"),
        Err(error) => error.to_string(),
    }
}

/// The connection is served as ever.
fn lives_on(peer: &mut Peer, batch: u64) {
    assert_eq!(&*peer.send(batch, sample(now_ms(), batch)).batches, [batch]);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn only_tls_1_3_with_our_protocol_is_spoken() {
    let scene = Scene::new();
    let server = scene.start();
    let error = error_of(&Tls::with(&[&TLS12], &["vitals/1"]), server.clients);
    assert!(error.contains("ProtocolVersion"), "{error}");
    is_told(&server, "version", 1.0);
    for alpn in [&[][..], &["h2"], &["vitals/2", "http/1.1"]] {
        let error = error_of(&Tls::with(&[&TLS13], alpn), server.clients);
        assert!(error.contains("lert"), "{alpn:?}: {error}");
    }
    is_told(&server, "alpn", 3.0);

    let both = Tls::with(&[&TLS12, &TLS13], &["h2", "vitals/1"]);
    let mut peer = both.connect(server.clients).unwrap();
    peer.introduce(introduction(1));
    assert_eq!(peer.stream.tls().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(peer.stream.tls().alpn_protocol(), Some(&b"vitals/1"[..]));
    lives_on(&mut peer, 1);
}

#[test]
fn nothing_is_resumed_and_no_ticket_is_given() {
    let scene = Scene::new();
    let server = scene.start();
    let tls = Tls::usual();
    for _ in 0..3 {
        let mut peer = tls.connect(server.clients).unwrap();
        peer.introduce(introduction(1));
        lives_on(&mut peer, 1);
        assert_eq!(peer.stream.tls().handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(peer.stream.tls().tls13_tickets_received(), 0);
    }
}

#[test]
fn the_key_is_what_the_command_shows_stays_over_restarts_and_is_its_owners_alone() {
    let scene = Scene::new();
    let mut server = scene.start();
    let (peer, welcome) = Peer::welcome(server.clients, introduction(1));
    assert_eq!(*welcome.pins, [peer.pin.unwrap().0]);
    let pin = peer.pin.unwrap().to_string();
    assert_eq!(scene.cert(&["show"])["keys"][0]["pin"], pin);
    drop(peer);
    assert!(server.stop().success());
    assert_eq!(scene.cert(&["show"])["keys"][0]["pin"], pin, "without a server too");
    assert_eq!(mode(&scene.data().join("tls")), 0o700);
    let files: Vec<PathBuf> =
        std::fs::read_dir(scene.data().join("tls")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty() && files.iter().all(|file| mode(file) == 0o600), "{files:?}");

    let server = scene.start();
    assert_eq!(Tls::usual().connect(server.clients).unwrap().pin.unwrap().to_string(), pin);
    assert!(!server.log_text().contains("PRIVATE"));
}

#[test]
fn a_damaged_key_keeps_the_server_from_starting_and_is_named() {
    let scene = Scene::new();
    assert!(scene.start().stop().success());
    let file = scene.data().join("tls/clients.pem");
    std::fs::write(&file, &std::fs::read(&file).unwrap()[..200]).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
        .args(["run", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(scene.data())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("clients.pem") && error.contains("backup"), "{error}");
}

#[test]
fn a_key_is_announced_learnt_and_switched_to_while_connections_live_on() {
    let scene = Scene::new();
    let server = scene.start();
    let (mut old, _) = Peer::welcome(server.clients, introduction(1));
    lives_on(&mut old, 1);
    let first = old.pin.unwrap().to_string();

    let announced = scene.cert(&["rotate"]);
    assert_eq!(
        (&announced["done"], &announced["keys"][0]["pin"]),
        (&"announced".into(), &first.clone().into())
    );
    let next = announced["keys"][1]["pin"].as_str().unwrap().to_owned();
    assert_eq!((&announced["hosts"]["known"], &announced["hosts"]["learnt"]), (&1.into(), &0.into()));
    let refused = scene.try_cert(&["rotate", "--switch"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("host-1") && error.contains("--force"), "{error}");

    // Who comes hears of both and says so once they are kept.
    let (mut other, welcome) = Peer::welcome(server.clients, introduction(2));
    assert_eq!(other.pin.unwrap().to_string(), first);
    assert_eq!(welcome.pins.iter().map(|pin| Pin(*pin).to_string()).collect::<Vec<_>>(), [&*first, &*next]);
    for peer in [&mut other, &mut old] {
        peer.say(Learnt { pins: welcome.pins.clone() });
    }
    wait_for("both to have learnt it", SOON, || {
        (scene.cert(&["show"])["hosts"]["learnt"] == 2).then_some(())
    });
    let switched = scene.cert(&["rotate", "--switch"]);
    assert_eq!((&switched["done"], &switched["keys"][0]["pin"]), (&"in use".into(), &next.clone().into()));

    let (new, welcome) = Peer::welcome(server.clients, introduction(3));
    assert_eq!(new.pin.unwrap().to_string(), next);
    assert_eq!(*welcome.pins, [new.pin.unwrap().0]);
    lives_on(&mut old_after_orders(old), 2);
}

/// A peer that has read whatever the server had to tell it.
fn old_after_orders(mut peer: Peer) -> Peer {
    peer.stream.set_read_timeout(Duration::from_millis(300));
    while let Ok(Some(_)) = peer.try_hear() {}
    peer.stream.set_read_timeout(READ_TIMEOUT);
    peer
}

#[test]
fn who_is_connected_is_told_of_the_next_key() {
    let scene = Scene::new();
    let server = scene.start();
    let (mut peer, _) = Peer::welcome(server.clients, introduction(1));
    let announced = scene.cert(&["rotate", "--announce"]);
    assert_eq!(announced["told"], 1);
    match peer.try_hear() {
        Ok(Some(ServerMessage::Pins(pins))) => {
            assert_eq!(Pin(pins.pins[1]).to_string(), announced["keys"][1]["pin"].as_str().unwrap());
            peer.say(Learnt { pins: pins.pins });
        }
        other => panic!("not told: {other:?}"),
    }
    wait_for("the host to have learnt it", SOON, || {
        (scene.cert(&["show"])["hosts"]["learnt"] == 1).then_some(())
    });
    scene.cert(&["rotate", "--switch"]);
}

#[test]
fn an_announced_key_outlives_a_kill_and_can_be_given_up_without_a_server() {
    let scene = Scene::new();
    let mut server = scene.start();
    let announced = scene.cert(&["rotate", "--announce"]);
    server.kill();
    assert_eq!(scene.cert(&["show"])["keys"], announced["keys"]);
    assert_eq!(scene.cert(&["rotate", "--abort"])["keys"].as_array().unwrap().len(), 1);
    let server = scene.start();
    let (peer, welcome) = Peer::welcome(server.clients, introduction(1));
    assert_eq!(*welcome.pins, [peer.pin.unwrap().0]);
}

#[test]
fn a_configured_certificate_is_read_again_but_not_with_a_key_that_nobody_announced() {
    let scene = Scene::new();
    let (first, first_pem) = scene.put();
    let server = scene.start_with(&scene.own_certificate());
    let (mut old, welcome) = Peer::welcome(server.clients, introduction(1));
    assert_eq!((old.pin, &*welcome.pins), (Some(first), &[first.0][..]));

    let (second, second_pem) = scene.put();
    server.hang_up();
    let line = wait_for("the refusal", SOON, || server.log_line("not read again"));
    assert!(line.contains(&second.to_string()) && line.contains("--announce"), "{line}");
    assert_eq!(Tls::usual().connect(server.clients).unwrap().pin, Some(first));

    // Back, announced, and in place again; seen without a signal too.
    scene.put_this(&first_pem);
    let next = scene.dir.path().join("next.crt");
    std::fs::write(&next, &second_pem).unwrap();
    let announced = scene.cert(&["rotate", "--announce", "--certificate", next.to_str().unwrap()]);
    assert_eq!(announced["keys"][1]["pin"], second.to_string());
    scene.put_this(&second_pem);
    wait_for("the announced key", Duration::from_secs(20), || {
        (Tls::usual().connect(server.clients).unwrap().pin == Some(second)).then_some(())
    });
    assert_eq!(scene.cert(&["show"])["keys"].as_array().unwrap().len(), 1);
    old = old_after_orders(old);
    lives_on(&mut old, 1);
}

#[test]
fn a_listed_proxy_says_whom_it_speaks_for_and_one_that_does_not_is_told_so() {
    let scene = Scene::new();
    let server = scene.start_with("proxies = [\"127.0.0.1\"]");
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    v2.extend([203, 0, 113, 8, 192, 0, 2, 1, 0x30, 0x39, 0x1c, 0xe8]);
    let v1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 12345 7400\r\n".to_vec();
    for (id, header, said) in [(1, v1, "203.0.113.9:12345"), (2, v2, "203.0.113.8:12345")] {
        let mut stream = TcpStream::connect(server.clients).unwrap();
        stream.write_all(&header).unwrap();
        let mut peer = Tls::usual().over(stream).unwrap();
        peer.introduce(introduction(id));
        lives_on(&mut peer, 1);
        wait_for("the log", SOON, || server.log_line(&format!("peer={said}")));
    }
    assert!(Tls::usual().connect(server.clients).is_err());
    let line = is_told(&server, "no_proxy_header", 1.0);
    assert!(line.contains("clients.proxies"), "{line}");
}

#[test]
fn who_is_no_listed_proxy_cannot_say_whom_it_speaks_for() {
    let scene = Scene::new();
    let server = scene.start_with("proxies = [\"203.0.113.0/24\"]");
    let mut stream = TcpStream::connect(server.clients).unwrap();
    stream.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 12345 7400\r\n").unwrap();
    assert!(Tls::usual().over(stream).is_err());
    is_told(&server, "plain_tcp", 1.0);
}

#[test]
fn slow_handshakes_end_in_time() {
    let scene = Scene::new();
    let server = scene.start_with("hello_timeout = \"1s\"");
    let start = Instant::now();
    let ends = |first: &[u8]| {
        let mut stream = TcpStream::connect(server.clients).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(first).unwrap();
        // A reset is an end too.
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "{first:?}");
    };
    std::thread::scope(|scope| {
        for first in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
            scope.spawn(move || ends(first));
        }
    });
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    is_told(&server, "timeout", 3.0);
    // Those who shook hands and say nothing more are told within TLS.
    let mut peer = Tls::usual().connect(server.clients).unwrap();
    match peer.try_hear() {
        Ok(Some(ServerMessage::Refused(refused))) => assert_eq!(refused.code, Refusal::Timeout),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(peer.try_hear().unwrap(), None);
}

#[test]
fn plain_tcp_where_tls_is_spoken_and_tls_where_it_is_not_are_told_in_the_log() {
    let scene = Scene::new();
    let mut server = scene.start();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.clients).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&[0, 0, 0, 9]).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    let line = is_told(&server, "plain_tcp", 50.0);
    assert!(line.contains("insecure") && line.contains("127.0.0.1"), "{line}");
    assert!(server.log_text().matches("reason=plain_tcp").count() < 50, "seldom");
    assert!(server.stop().success());

    let server = Server::start(&scene.data(), &["--insecure"]);
    assert!(server.log_line("clients.insecure is set").is_some());
    assert!(Tls::usual().connect(server.clients).is_err());
    let line = is_told(&server, "tls_on_plain", 1.0);
    assert!(line.contains("clients.insecure"), "{line}");
    assert_eq!(scene.cert(&["show"])["insecure"], true);
}

#[test]
fn bytes_that_are_no_tls_and_handshakes_without_end_are_cut() {
    let scene = Scene::new();
    let server = scene.start();
    let cut = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.clients).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        // It may be cut while it is writing.
        let _ = stream.write_all(bytes);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    };
    cut(&[0x16; 1_000]);
    is_told(&server, "malformed", 1.0);
    // A ClientHello that says it is 60 kB long, in records of 8 kB.
    let mut endless = Vec::new();
    for record in 0..8 {
        endless.extend([0x16, 3, 1, 0x20, 0]);
        let begin: &[u8] = if record == 0 { &[1, 0, 0xea, 0x60] } else { &[] };
        endless.extend_from_slice(begin);
        endless.resize(endless.len() + 0x2000 - begin.len(), 0);
    }
    cut(&endless);
    is_told(&server, "too_large", 1.0);
    let (mut peer, _) = Peer::welcome(server.clients, introduction(1));
    lives_on(&mut peer, 1);
}

#[test]
fn a_flood_of_silent_strangers_from_a_hosts_own_address_keeps_nobody_out_for_long() {
    let scene = Scene::new();
    let server =
        scene.start_with("hello_timeout = \"5m\"\nmax_connections = 640\nmax_strangers_per_address = 30");
    let (mut there, _) = Peer::welcome(server.clients, introduction(1));
    // An answer to a sample says that its sender is no stranger any more, and its address known.
    lives_on(&mut there, 1);
    let mut silent = Vec::new();
    for number in 0..500 {
        let mut stream = TcpStream::connect(server.clients).unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(b"\x16");
        }
        silent.push(stream);
    }
    wait_for("the strangers", SOON, || (server.metric("vitals_strangers") == 120.0).then_some(()));
    let start = Instant::now();
    lives_on(&mut there, 2);
    let mut newcomer = wait_for("a newcomer", SOON, || {
        let mut peer = Tls::usual().connect(server.clients).ok()?;
        peer.introduce(introduction(2));
        Some(peer)
    });
    lives_on(&mut newcomer, 1);
    lives_on(&mut there, 3);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    wait_for("the count", SOON, || (failed(&server, "made_room") >= 1.0).then_some(()));
    assert!(server.metric("vitals_strangers") <= 120.0);
}

#[test]
fn keys_learnt_by_a_host_are_kept_over_a_restart() {
    let scene = Scene::new();
    let mut server = scene.start();
    scene.cert(&["rotate"]);
    let (mut peer, welcome) = Peer::welcome(server.clients, introduction(1));
    peer.say(Learnt { pins: List::new(welcome.pins.to_vec()).unwrap() });
    drop(peer);
    wait_for("it", SOON, || (scene.cert(&["show"])["hosts"]["learnt"] == 1).then_some(()));
    server.kill();
    let shown = scene.cert(&["show"]);
    assert_eq!((&shown["hosts"]["learnt"], &shown["hosts"]["not_learnt"]), (&1.into(), &0.into()));
}
