//! Strangers by the thousand: bad handshakes on the clients' port, wrong passwords on the page's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::codec::{Decoder, Encoder};
use vitals_wire::ids::{HostId, Secret};
use vitals_wire::message::{ClientCodec, Hello, ServerMessage};
use vitals_wire::token::JoinToken;

use crate::support::peer::hello;

/// How long an attacker holds a connection: longer than the server lets a stranger.
const HELD: Duration = Duration::from_secs(12);
/// How long a host or a person waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks at the clock.
const STEP: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Default)]
pub struct Felt {
    /// Connections to the clients' port that were made.
    pub handshakes: AtomicU64,
    /// Of these, hosts that were refused with a word.
    pub refused: AtomicU64,
    /// Of these, hosts that were let in.
    pub welcomed: AtomicU64,
    /// Logins that were asked for.
    pub logins: AtomicU64,
    /// Of these, wrong passwords that were looked at.
    pub wrong: AtomicU64,
    /// Of these, those told to wait.
    pub told_to_wait: AtomicU64,
    /// Of these, those that got in.
    pub logged_in: AtomicU64,
    /// Connections that could not be made.
    pub not_made: AtomicU64,
    /// Connections that were closed without a word.
    pub unanswered: AtomicU64,
}

/// Whom to attack, and how.
#[derive(Clone)]
pub struct Plan {
    /// The clients' port.
    pub clients: SocketAddr,
    /// The page's.
    pub http: SocketAddr,
    /// A host that joined.
    pub host: HostId,
    /// How TLS is spoken.
    pub tls: Arc<ClientConfig>,
    /// From where.
    pub sources: Vec<IpAddr>,
    /// Bad handshakes, and wrong logins, spread evenly over ...
    pub handshakes: u64,
    /// (see above)
    pub logins: u64,
    /// ... this time ...
    pub round: Duration,
    /// ... and where this machine is too busy to make them all, until then.
    pub most: Duration,
}

/// Plays one round; calls `look` now and then.
pub async fn attack(plan: &Plan, felt: &Arc<Felt>, mut look: impl FnMut()) {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    let (mut handshakes, mut logins) = (0, 0);
    loop {
        let past = begun.elapsed();
        let due = |all: u64| (all as f64 * (past.as_secs_f64() / plan.round.as_secs_f64()).min(1.0)) as u64;
        while handshakes < due(plan.handshakes) {
            tasks.spawn(bad_handshake(plan.clone(), handshakes, felt.clone()));
            handshakes += 1;
        }
        while logins < due(plan.logins) {
            tasks.spawn(wrong_login(plan.clone(), logins, felt.clone()));
            logins += 1;
        }
        while let Some(done) = tasks.try_join_next() {
            done.unwrap();
        }
        look();
        let made =
            felt.handshakes.load(Relaxed) >= plan.handshakes && felt.logins.load(Relaxed) >= plan.logins;
        if past >= plan.round && made || past >= plan.most {
            return;
        }
        sleep(STEP).await;
    }
}

async fn connect(plan: &Plan, number: u64, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    // Many connections end on this side: their ports are to be free again.
    socket.set_reuseaddr(true).unwrap();
    socket.bind((plan.sources[number as usize % plan.sources.len()], 0).into()).ok()?;
    timeout(HELD, socket.connect(to)).await.ok()?.ok()
}

/// One of six ways not to shake hands.
async fn bad_handshake(plan: Plan, number: u64, felt: Arc<Felt>) {
    let Some(mut stream) = connect(&plan, number, plan.clients).await else {
        felt.not_made.fetch_add(1, Relaxed);
        return;
    };
    felt.handshakes.fetch_add(1, Relaxed);
    let nonsense = || std::iter::repeat_with(|| fastrand::u8(..)).take(256).collect::<Vec<u8>>();
    let said = match number % 6 {
        // Nothing at all.
        0 => Vec::new(),
        // No TLS.
        1 => vec![0x41; 300],
        // The beginning of a record, and no more.
        2 => vec![22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        // A record full of nonsense.
        3 => [vec![22, 3, 1, 1, 0], nonsense()].concat(),
        // A whole handshake, and nothing more.
        4 => {
            let name = ServerName::try_from("any.example").unwrap();
            let shaken = timeout(HELD, TlsConnector::from(plan.tls).connect(name, stream)).await;
            if let Ok(Ok(mut tls)) = shaken {
                let _ = timeout(HELD, tls.read(&mut [0; 64])).await;
            }
            return;
        }
        // A whole handshake, and a token or secret that is none.
        _ => {
            match timeout(HELD, introduced(&plan, stream, number)).await {
                Ok(Some(ServerMessage::Welcome(_))) => felt.welcomed.fetch_add(1, Relaxed),
                Ok(Some(ServerMessage::Refused(_))) => felt.refused.fetch_add(1, Relaxed),
                _ => felt.unanswered.fetch_add(1, Relaxed),
            };
            return;
        }
    };
    let _ = stream.write_all(&said).await;
    let _ = timeout(HELD, stream.read(&mut [0; 512])).await;
}

/// What a host hears first that has no token, one that nobody made, or another's id.
async fn introduced(plan: &Plan, stream: TcpStream, number: u64) -> Option<ServerMessage> {
    let mut random = [0; 32];
    fastrand::fill(&mut random);
    let token =
        JoinToken { secret: Secret(random), expires_ms: i64::MAX, pins: Vec::new(), addresses: Vec::new() };
    let hello = Hello { secret: Secret(random), ..hello(1, &format!("stranger-{number}")) };
    let mine = HostId(random[..16].try_into().unwrap());
    let hello = match number / 6 % 3 {
        0 => Hello { host: mine, ..hello },
        1 => Hello { host: mine, token: Some(token.said()), ..hello },
        _ => Hello { host: plan.host, ..hello },
    };
    first_word(plan.tls.clone(), stream, hello).await
}

/// What the server says to this `Hello`.
async fn first_word(tls: Arc<ClientConfig>, stream: TcpStream, hello: Hello) -> Option<ServerMessage> {
    let name = ServerName::try_from("any.example").unwrap();
    let mut tls = TlsConnector::from(tls).connect(name, stream).await.ok()?;
    let (mut codec, mut bytes) = (ClientCodec::new(), BytesMut::new());
    codec.encode(hello.into(), &mut bytes).unwrap();
    tls.write_all(&bytes).await.ok()?;
    tls.flush().await.ok()?;
    bytes.clear();
    loop {
        if let Some(message) = codec.decode(&mut bytes).unwrap() {
            return Some(message);
        }
        if tls.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// What a host hears that is at home at 127.0.0.1; `None` where it does not get so far within the time that clients take.
pub async fn at_home(tls: Arc<ClientConfig>, to: SocketAddr, hello: Hello) -> Option<ServerMessage> {
    let hear = async { first_word(tls, TcpStream::connect(to).await.ok()?, hello).await };
    timeout(PATIENCE, hear).await.ok()?
}

async fn wrong_login(plan: Plan, number: u64, felt: Arc<Felt>) {
    let Some(mut stream) = connect(&plan, number, plan.http).await else {
        felt.not_made.fetch_add(1, Relaxed);
        return;
    };
    felt.logins.fetch_add(1, Relaxed);
    let name = if number.is_multiple_of(2) { "admin".to_owned() } else { format!("nobody-{number}") };
    let asked =
        timeout(HELD, ask_in(&mut stream, plan.http, &name, &format!("wrong password {number}"))).await;
    match asked {
        Ok(Some(401)) => felt.wrong.fetch_add(1, Relaxed),
        Ok(Some(429 | 503)) => felt.told_to_wait.fetch_add(1, Relaxed),
        Ok(Some(200..300)) => felt.logged_in.fetch_add(1, Relaxed),
        _ => felt.unanswered.fetch_add(1, Relaxed),
    };
}

/// Status of a login over this connection.
async fn ask_in(stream: &mut TcpStream, to: SocketAddr, name: &str, password: &str) -> Option<u16> {
    let body = format!("{{\"name\":\"{name}\",\"password\":\"{password}\"}}");
    let request = format!(
        "POST /api/v1/session HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// Status of a person's login from 127.0.0.1.
pub async fn log_in(to: SocketAddr, name: &str, password: &str) -> Option<u16> {
    let asked = async { ask_in(&mut TcpStream::connect(to).await.ok()?, to, name, password).await };
    timeout(PATIENCE, asked).await.ok()?
}
