//! Strangers at speed: wrong passwords and bad handshakes by the thousand, from other addresses and from that of the hosts
//! themselves, while these go on sending. None of their samples is lost, and the server's memory stays bounded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::client::client_binary;
use support::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// Hosts that go on sending, a sample a second each.
const HOSTS: u64 = 50;
/// Within one round.
const LOGINS: u64 = 5_000;
const HANDSHAKES: u64 = 20_000;
const ROUND: Duration = Duration::from_secs(50);
/// How long an attacker holds a connection at most.
const HELD: Duration = Duration::from_secs(3);
/// By how much the server may grow under all of it: its pools of strangers are full then.
const MOST_GROWTH: u64 = 150 << 20;

/// What came of the attack.
#[derive(Default)]
struct Felt {
    handshakes: AtomicU64,
    logins: AtomicU64,
    welcomed: AtomicU64,
    logged_in: AtomicU64,
    unanswered: AtomicU64,
}

#[test]
fn a_flood_of_strangers_costs_no_host_a_sample() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let token = server.join_token(&["--uses", "1000"]);
    let simulate = Command::new(client_binary())
        .args(["simulate", "--hosts", &HOSTS.to_string(), "--interval", "1s", "--json"])
        .args(["--seconds", &(2 * ROUND.as_secs() + 15).to_string()])
        .env("VITALS_TOKEN", token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let up = || server.json("/api/v1/hosts")["hosts"].as_array().unwrap().len() as u64 >= HOSTS;
    support::server::wait_for("the hosts", Duration::from_secs(30), || up().then_some(()));
    let before = rss(server.pid());

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let others: Vec<IpAddr> = (2..=9).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect();
    let mut most = before;
    for (whence, sources) in [("other addresses", others), ("the hosts' own address", vec![Ipv4Addr::LOCALHOST.into()])] {
        let felt = Arc::new(Felt::default());
        most = most.max(runtime.block_on(attack(&server, &sources, &felt)));
        println!(
            "from {whence}: {} bad handshakes and {} wrong logins in {ROUND:?}, {} without an answer; the server takes {} MiB, {} before",
            felt.handshakes.load(Relaxed),
            felt.logins.load(Relaxed),
            felt.unanswered.load(Relaxed),
            most >> 20,
            before >> 20,
        );
        assert_eq!((felt.welcomed.load(Relaxed), felt.logged_in.load(Relaxed)), (0, 0));
        assert!(felt.handshakes.load(Relaxed) >= HANDSHAKES * 9 / 10, "this machine is too slow to show anything");
        assert!(felt.logins.load(Relaxed) >= LOGINS * 9 / 10, "this machine is too slow to show anything");
    }

    let output = simulate.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    println!(
        "the hosts: {} samples taken, {} settled, to acknowledgement p50 {} ms, p99 {} ms",
        summary["taken"], summary["settled"], summary["ack_p50_ms"], summary["ack_p99_ms"]
    );
    assert_eq!(summary["taken"], summary["settled"], "{summary}");
    assert_eq!(summary["waiting"], 0, "{summary}");
    assert!(summary["dropped"].as_object().unwrap().values().all(|dropped| *dropped == 0), "{summary}");
    assert!(summary["taken"].as_u64().unwrap() >= HOSTS * 2 * ROUND.as_secs());
    assert!(most < before + MOST_GROWTH, "the server grew from {before} to {most} bytes");
    assert!(server.log_line("host down").is_none(), "no host was shown as down");
    let lines = server.log_text().lines().count();
    assert!(lines < 20_000, "strangers fill the log: {lines} lines");
}

/// Plays one round, and gives the most memory that the server took.
async fn attack(server: &Server, sources: &[IpAddr], felt: &Arc<Felt>) -> u64 {
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let (clients, http, pid) = (server.clients, server.http, server.pid());
    let (mut handshakes, mut logins, mut most) = (0, 0, 0);
    while begun.elapsed() < ROUND {
        let due = |count: u64| (count as f64 * begun.elapsed().as_secs_f64() / ROUND.as_secs_f64()) as u64;
        while handshakes < due(HANDSHAKES) {
            let source = sources[handshakes as usize % sources.len()];
            tasks.spawn(bad_handshake(source, clients, handshakes, felt.clone()));
            handshakes += 1;
        }
        while logins < due(LOGINS) {
            let source = sources[logins as usize % sources.len()];
            tasks.spawn(wrong_login(source, http, logins, felt.clone()));
            logins += 1;
        }
        while tasks.try_join_next().is_some() {}
        most = most.max(rss(pid));
        sleep(Duration::from_millis(20)).await;
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    most
}

async fn connect(source: IpAddr, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).ok()?;
    timeout(HELD, socket.connect(to)).await.ok()?.ok()
}

/// One of five ways not to shake hands.
async fn bad_handshake(source: IpAddr, to: SocketAddr, number: u64, felt: Arc<Felt>) {
    felt.handshakes.fetch_add(1, Relaxed);
    let Some(mut stream) = connect(source, to).await else {
        felt.unanswered.fetch_add(1, Relaxed);
        return;
    };
    let mut answer = [0; 512];
    match number % 5 {
        // Nothing at all.
        0 => {
            let _ = timeout(HELD, stream.read(&mut answer)).await;
        }
        // No TLS.
        1 => {
            let _ = stream.write_all(&[0x41; 300]).await;
            let _ = timeout(HELD, stream.read(&mut answer)).await;
        }
        // The beginning of a record, and no more.
        2 => {
            let _ = stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
            let _ = timeout(HELD, stream.read(&mut answer)).await;
        }
        // A record full of nonsense.
        3 => {
            let mut record = vec![22, 3, 1, 1, 0];
            record.extend(std::iter::repeat_with(|| fastrand::u8(..)).take(256));
            let _ = stream.write_all(&record).await;
            let _ = timeout(HELD, stream.read(&mut answer)).await;
        }
        // A whole handshake, and a token that is none.
        _ => {
            if timeout(HELD, support::peer::is_welcome_by(stream, number)).await == Ok(true) {
                felt.welcomed.fetch_add(1, Relaxed);
            }
        }
    }
}

async fn wrong_login(source: IpAddr, to: SocketAddr, number: u64, felt: Arc<Felt>) {
    felt.logins.fetch_add(1, Relaxed);
    let Some(mut stream) = connect(source, to).await else {
        felt.unanswered.fetch_add(1, Relaxed);
        return;
    };
    let name = if number.is_multiple_of(2) { "admin".to_owned() } else { format!("nobody-{number}") };
    let body = format!("{{\"name\":\"{name}\",\"password\":\"wrong password {number}\"}}");
    let request = format!(
        "POST /api/v1/session HTTP/1.1\r\nHost: {to}\r\nOrigin: http://{to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut answer = Vec::new();
    let talked = timeout(HELD, async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    });
    let _ = talked.await;
    match answer.get(9..12) {
        Some(b"200" | b"204") => drop(felt.logged_in.fetch_add(1, Relaxed)),
        Some(_) => {}
        None => drop(felt.unanswered.fetch_add(1, Relaxed)),
    }
}

/// Bytes of memory that a process holds.
fn rss(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: u64 = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    kib << 10
}
