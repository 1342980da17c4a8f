//! Whoever breaks the rules is told why, is counted, and harms nobody else: after each attack the server still takes a
//! good sample.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use support::peer::{Peer, hello, now_ms, sample};
use support::server::{Server, wait_for};
use vitals_wire::bounded::{List, Text};
use vitals_wire::codec::encode_frame_body;
use vitals_wire::message::{ClientMessage, DropReason, Refusal, Refused, ServerMessage};
use vitals_wire::sample::Sample;
use vitals_wire::section::{Disk, DiskIo, DiskTimes, Section};

/// A server with a bystander: an honest client that was there before the attack.
struct Scene {
    server: Server,
    bystander: Peer,
    sent: u64,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new(args: &[&str]) -> Self {
        Self::beside(args, &[])
    }

    /// The same with this environment.
    fn beside(args: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("vitals").tempdir().unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let server = Server::start_at(&dir.path().join("data"), loopback, loopback, args, env);
        let (bystander, _) = Peer::welcome(server.clients, hello(0xbb, "bystander"));
        Self { server, bystander, sent: 0, _dir: dir }
    }

    /// The server takes a good sample, from the bystander and from a newcomer, and shows it.
    fn still_works(&mut self) {
        self.sent += 1;
        let start = Instant::now();
        let ack = self.bystander.send(self.sent, sample(now_ms(), self.sent));
        assert_eq!((&*ack.batches, ack.refused.len()), (&[self.sent][..], 0));
        assert!(start.elapsed() < Duration::from_secs(2), "the bystander waited {:?}", start.elapsed());
        let (mut newcomer, _) = Peer::welcome(self.server.clients, hello(0xcc, "newcomer"));
        assert_eq!(&*newcomer.send(1, sample(now_ms(), 1)).batches, [1]);
        let latest = self.server.json("/api/v1/hosts/bystander/latest");
        assert_eq!(latest["points"][0]["fields"]["uptime"], self.sent);
    }

    fn refused(&self, reason: &str) -> f64 {
        self.server.metric(&format!("vitals_refused_total{{reason=\"{reason}\"}}"))
    }

    /// A connection that says `bytes` first is refused like this, and counted.
    fn is_refused(&mut self, bytes: &[u8], code: Refusal) -> Refused {
        let before = self.refused(code.word());
        let mut attacker = Peer::connect(self.server.clients);
        attacker.stream.write_all(bytes).unwrap();
        let refused = attacker.refusal();
        assert_eq!(refused.code, code, "{}", refused.text);
        wait_for("the counter", Duration::from_secs(5), || {
            (self.refused(code.word()) > before).then_some(())
        });
        self.still_works();
        refused
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

#[test]
fn garbage_bytes() {
    let mut scene = Scene::new(&[]);
    scene.is_refused(&framed(&[0xff; 100]), Refusal::Malformed);
    scene.is_refused(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::TooLarge);
    scene.is_refused(&framed(&[]), Refusal::Malformed);
    // A message of a later version is skipped, but the first one is a Hello.
    scene.is_refused(&framed(&[99, 1, 2, 3]), Refusal::Unexpected);
    let mut trailing = encode_frame_body(&ClientMessage::from(hello(1, "trailing"))).unwrap().to_vec();
    trailing.push(0);
    let refused = scene.is_refused(&framed(&trailing), Refusal::Malformed);
    assert!(refused.text.contains("left over"), "{}", refused.text);
}

#[test]
fn a_frame_of_4_gb() {
    let mut scene = Scene::new(&[]);
    let refused = scene.is_refused(&u32::MAX.to_be_bytes(), Refusal::TooLarge);
    assert!(refused.text.contains("4294967295"), "{}", refused.text);
    // A welcome guest may send more, but not that much.
    let (mut guest, _) = Peer::welcome(scene.server.clients, hello(1, "guest"));
    guest.stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
    assert_eq!(guest.refusal().code, Refusal::TooLarge);
    scene.still_works();
}

#[test]
fn half_a_frame_and_then_the_end() {
    let mut scene = Scene::new(&[]);
    let whole = framed(&encode_frame_body(&ClientMessage::from(hello(1, "half"))).unwrap());
    let mut attacker = Peer::connect(scene.server.clients);
    attacker.stream.write_all(&whole[..whole.len() / 2]).unwrap();
    attacker.stream.end();
    assert_eq!(attacker.hear(), None, "a connection that was cut: there is nobody to be told");
    scene.still_works();
}

#[test]
fn an_endless_slow_trickle() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.toml");
    std::fs::write(&config, "[clients]\nhello_timeout = \"2s\"\n").unwrap();
    let mut scene = Scene::new(&["--config", config.to_str().unwrap()]);
    let mut attacker = Peer::connect(scene.server.clients);
    let whole = framed(&encode_frame_body(&ClientMessage::from(hello(1, "slow"))).unwrap());
    let start = Instant::now();
    // A byte now and then, for as long as it is let.
    for byte in whole.iter().cycle() {
        if attacker.stream.write_all(&[*byte]).is_err() || start.elapsed() > Duration::from_millis(2_500) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(attacker.refusal().code, Refusal::Timeout);
    assert!(start.elapsed() < Duration::from_secs(5));
    scene.still_works();
}

#[test]
fn ten_thousand_connections_that_say_nothing() {
    // A deadline that cannot come in between leaves two reasons to be ended: no room, or to have made room for another.
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.toml");
    std::fs::write(&config, "[clients]\nhello_timeout = \"5m\"\nmax_connections = 4000\n").unwrap();
    let mut scene = Scene::new(&["--config", config.to_str().unwrap()]);
    // Both ends are here, so each connection takes two open files of the system: no more of them are kept than that allows.
    let mut silent = std::collections::VecDeque::new();
    for number in 0..10_000 {
        // Some shake hands first. Who finds no room is not answered.
        silent.push_back(match number % 50 {
            0 => Peer::try_connect(scene.server.clients).ok(),
            _ => Some(Peer::raw(scene.server.clients)),
        });
        if silent.len() > 800 {
            silent.pop_front();
        }
        if number % 1_000 == 999 {
            scene.sent += 1;
            let ack = scene.bystander.send(scene.sent, sample(now_ms(), scene.sent));
            assert_eq!(&*ack.batches, [scene.sent], "who is in, works on");
            assert!(
                scene.server.metric("vitals_strangers") <= 750.0,
                "three quarters of the quarter of 4,000"
            );
        }
    }
    // The honest come from the same address here, and have room as soon as strangers have waited for a second.
    wait_for("room for a newcomer", Duration::from_secs(5), || {
        let mut newcomer = Peer::try_connect(scene.server.clients).ok()?;
        newcomer.try_say(hello(0xcd, "later")).ok()?;
        matches!(newcomer.try_hear(), Ok(Some(ServerMessage::Welcome(_)))).then_some(())
    });
    assert!(scene.refused("too_many_connections") > 0.0);
    drop(silent);
    wait_for("the strangers to be gone", Duration::from_secs(15), || {
        (scene.server.metric("vitals_strangers") == 0.0).then_some(())
    });
    scene.still_works();
}

/// The down limit at an interval of 1 s.
const DOWN_LIMIT: Duration = Duration::from_secs(15);

/// A host that has sent a sample, samples each second, and says nothing more by itself.
fn lively_host(server: &Server, id: u8, name: &str) -> Peer {
    let mut hello = hello(id, name);
    hello.interval_ms = 1_000;
    let (mut host, _) = Peer::welcome(server.clients, hello);
    assert_eq!(&*host.send(1, sample(now_ms(), 1)).batches, [1]);
    host
}

/// The refusal comes at the down limit: not before, and soon after.
fn is_ended_at_the_down_limit(refused: Refused, start: Instant) {
    assert_eq!(refused.code, Refusal::Timeout, "{}", refused.text);
    let took = start.elapsed();
    assert!(
        took > DOWN_LIMIT - Duration::from_secs(1) && took < DOWN_LIMIT + Duration::from_secs(4),
        "{took:?}"
    );
}

/// Sends the beginning of a frame that is allowed, and a byte of it now and then, until it is refused.
fn drip(mut host: Peer) -> Refused {
    host.stream.set_read_timeout(Duration::from_millis(250));
    for byte in 50_000u32.to_be_bytes().into_iter().chain(std::iter::repeat(0)) {
        let _ = host.stream.write_all(&[byte]);
        match host.try_hear() {
            Ok(Some(ServerMessage::Refused(refused))) => return refused,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => panic!("not refused: {other:?}"),
        }
    }
    unreachable!("there is always another byte");
}

#[test]
fn whoever_falls_silent_or_trickles_after_the_hello_is_ended_at_the_down_limit_and_shown_down() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let start = Instant::now();
    let mut idle = lively_host(&server, 1, "idle");
    let trickle = lively_host(&server, 2, "trickle");
    // What a host that is well sends keeps it.
    let mut well = lively_host(&server, 3, "well");
    let state = |name: &str| server.json(&format!("/api/v1/hosts/{name}"))["state"].clone();

    std::thread::scope(|scope| {
        scope.spawn(move || is_ended_at_the_down_limit(idle.refusal(), start));
        scope.spawn(move || is_ended_at_the_down_limit(drip(trickle), start));
        for batch in 2.. {
            std::thread::sleep(Duration::from_secs(1));
            assert_eq!(&*well.send(batch, sample(now_ms(), batch)).batches, [batch]);
            if start.elapsed() > DOWN_LIMIT + Duration::from_secs(2) {
                break;
            }
            if start.elapsed() < DOWN_LIMIT - Duration::from_secs(2) {
                assert_eq!((state("idle"), state("trickle")), ("up".into(), "up".into()));
            }
        }
    });
    for name in ["idle", "trickle"] {
        wait_for("the host to be down", Duration::from_secs(5), || (state(name) == "down").then_some(()));
        let line = wait_for("the event", Duration::from_secs(5), || {
            let log = server.log_text();
            log.lines()
                .find(|line| line.contains("\"host down\"") && line.contains(&format!("host={name}")))
                .map(str::to_owned)
        });
        assert!(line.contains("silent for 1"), "{line}");
    }
    assert_eq!(state("well"), "up");
    assert!(server.log_line("\"host up\"").is_some());
}

#[test]
fn a_hello_with_a_host_name_of_1_mb() {
    let mut scene = Scene::new(&[]);
    // The frame itself is over a stranger's cap.
    scene.is_refused(&(1_048_700u32.to_be_bytes()), Refusal::TooLarge);
    // A frame that is small enough, with a name that claims to be 1 MB.
    let body = encode_frame_body(&ClientMessage::from(hello(1, "MARK"))).unwrap();
    let mark = body.windows(5).position(|bytes| bytes == b"\x04MARK").unwrap();
    let mut lie = body[..mark].to_vec();
    lie.push(252);
    lie.extend_from_slice(&1_048_576u32.to_le_bytes());
    lie.extend_from_slice(&body[mark + 1..]);
    scene.is_refused(&framed(&lie), Refusal::Malformed);
    // One that is really there, and too long.
    let mut long = body[..mark].to_vec();
    long.push(251);
    long.extend_from_slice(&4_000u16.to_le_bytes());
    long.extend_from_slice(&[b'n'; 4_000]);
    long.extend_from_slice(&body[mark + 5..]);
    let refused = scene.is_refused(&framed(&long), Refusal::TooLarge);
    assert!(refused.text.contains("4000") && refused.text.contains("255"), "{}", refused.text);
}

#[test]
fn strange_names_are_taken_and_broken_ones_refused() {
    let mut scene = Scene::new(&[]);
    for (id, name) in (1..).zip(["a b", "a,b=c", "say \"hi\"", "back\\slash", "数据库", &"n".repeat(255)])
    {
        let (mut peer, welcome) = Peer::welcome(scene.server.clients, hello(id, name));
        assert_eq!(&*welcome.name, name);
        assert_eq!(&*peer.send(1, sample(now_ms(), 7)).batches, [1]);
        let host = scene.server.json(&format!("/api/v1/hosts/{}", format!("{id:02x}").repeat(16)));
        assert_eq!(host["name"], name);
    }
    for name in ["", "a/b", "a\nb", " a", "a ", "a\u{7f}b"] {
        let mut attacker = Peer::connect(scene.server.clients);
        attacker.say(hello(9, name));
        let refused = attacker.refusal();
        assert_eq!((refused.code, refused.retry), (Refusal::BadName, false), "{name:?}");
    }
    scene.still_works();
}

#[test]
fn a_sample_with_nan_loses_that_figure_alone() {
    let mut scene = Scene::new(&[]);
    let (mut peer, _) = Peer::welcome(scene.server.clients, hello(1, "nan"));
    let disk = Disk {
        name: Text::cut("sda"),
        reads: 41,
        writes: 1,
        read_bytes: 1,
        write_bytes: 1,
        read_time: None,
        write_time: None,
        io_time: None,
        weighted_io_time: None,
        iops_in_progress: None,
        merged_reads: None,
        merged_writes: None,
        times: Some(DiskTimes { io_await: Some(f64::NAN), io_svctm: Some(2.5), io_util: f64::INFINITY }),
    };
    let section = Section::DiskIo(DiskIo { disks: List::new(vec![disk]).unwrap() });
    let ack = peer.send(1, Sample { time_ms: now_ms(), sections: List::new(vec![section]).unwrap() });
    assert_eq!((&*ack.batches, ack.refused.len()), (&[1][..], 0), "the sample itself is kept");
    let fields = scene.server.json("/api/v1/hosts/nan/latest")["points"][0]["fields"].clone();
    assert_eq!((&fields["reads"], &fields["io_svctm"]), (&41.into(), &2.5.into()));
    assert!(fields.get("io_await").is_none() && fields.get("io_util").is_none(), "{fields}");
    assert_eq!(scene.server.metric("vitals_figures_not_finite_total"), 2.0);
    scene.still_works();
}

#[test]
fn times_of_1970_and_2100_are_settled_with_their_reason_and_the_connection_lives_on() {
    let mut scene = Scene::new(&[]);
    let (mut peer, _) = Peer::welcome(scene.server.clients, hello(1, "odd"));
    let reason = |ack: vitals_wire::message::Ack| ack.refused.first().map(|refused| refused.reason);
    assert_eq!(reason(peer.send(1, sample(0, 1))), Some(DropReason::TooOld));
    assert_eq!(reason(peer.send(2, sample(4_102_444_800_000, 2))), Some(DropReason::ClockAhead));
    assert_eq!(reason(peer.send(3, sample(i64::MIN, 3))), Some(DropReason::TooOld));
    assert_eq!(reason(peer.send(4, sample(i64::MAX, 4))), Some(DropReason::ClockAhead));
    assert_eq!(reason(peer.send(5, sample(now_ms(), 5))), None);
    let dropped =
        |reason: &str| scene.server.metric(&format!("vitals_samples_dropped_total{{reason=\"{reason}\"}}"));
    assert_eq!((dropped("too_old"), dropped("clock_ahead")), (2.0, 2.0));
    scene.still_works();
}

#[test]
fn whoever_goes_on_talking_before_a_hello_is_refused() {
    let mut scene = Scene::new(&[]);
    let mut attacker = Peer::connect(scene.server.clients);
    attacker.say(vitals_wire::message::Samples { batch: 1, backlog: false, samples: List::empty() });
    assert_eq!(attacker.refusal().code, Refusal::Unexpected);
    scene.still_works();
}

/// A server that writes to the InfluxDB at `address` goes on taking samples, and counts why that one took nothing.
fn goes_on_beside_an_influxdb(address: std::net::SocketAddr, reason: &str) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.toml");
    std::fs::write(&config, "[influx]\ntimeout = \"1s\"\n").unwrap();
    let url = format!("http://{address}");
    let env = [("VITALS_INFLUX_URL", &*url), ("VITALS_INFLUX_TOKEN", "any")];
    let mut scene = Scene::beside(&["--config", config.to_str().unwrap()], &env);
    scene.still_works();
    let name = format!("vitals_influx_errors_total{{target=\"influx\",reason=\"{reason}\"}}");
    wait_for(&name, Duration::from_secs(20), || (scene.server.metric(&name) >= 1.0).then_some(()));
    scene.still_works();
    assert_eq!(scene.server.metric("vitals_influx_lines_total{target=\"influx\"}"), 0.0);
    assert!(
        scene.server.metric("vitals_influx_lag_bytes{target=\"influx\"}") > 0.0,
        "what it did not take still waits for it"
    );
    assert_eq!(scene.server.get("/readyz").0, 200);
}

#[test]
fn an_influxdb_that_is_dead() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    goes_on_beside_an_influxdb(port, "unreachable");
}

#[test]
fn an_influxdb_that_hangs() {
    // Connections come about in the listener's queue, and nobody ever answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    goes_on_beside_an_influxdb(listener.local_addr().unwrap(), "timeout");
}

#[test]
fn an_influxdb_that_lies() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let mut request = [0; 1 << 16];
            while matches!(stream.read(&mut request), Ok(n) if n > 0) {}
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            );
        }
    });
    goes_on_beside_an_influxdb(address, "unexpected");
}

#[test]
fn a_server_that_has_all_the_connections_it_takes_says_so_and_takes_another_when_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.toml");
    std::fs::write(&config, "[clients]\nmax_connections = 3\n").unwrap();
    let mut scene = Scene::new(&["--config", config.to_str().unwrap()]);
    // An answer to a sample says that its sender is no stranger any more: of those there may be only one at a time.
    scene.bystander.send(1, sample(now_ms(), 1));
    let guests = [1, 2].map(|id| {
        let (mut guest, _) = Peer::welcome(scene.server.clients, hello(id, &format!("guest-{id}")));
        guest.send(1, sample(now_ms(), 1));
        guest
    });
    // A handshake only to be told would cost more than the room it lacks.
    assert!(Peer::try_connect(scene.server.clients).is_err());
    let line = wait_for("the log", Duration::from_secs(5), || scene.server.log_line("the server is full"));
    assert!(line.contains("reason=too_many_connections"), "{line}");
    assert!(scene.refused("too_many_connections") >= 1.0);
    assert_eq!(&*scene.bystander.send(2, sample(now_ms(), 1)).batches, [2], "who is in notices nothing");
    scene.sent = 2;
    drop(guests);
    wait_for("their places", Duration::from_secs(5), || {
        (scene.server.metric("vitals_connections") <= 1.0).then_some(())
    });
    scene.still_works();
}
