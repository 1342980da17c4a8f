use std::time::Instant;

use axum::routing::{get, post};
use rustls::crypto::ring::default_provider;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::super::limits::Limits;
use super::*;
use crate::tls::pair::Pair;

const MS: Duration = Duration::from_millis(1);
/// Long enough for anything that happens at all.
const SOON: Duration = Duration::from_secs(10);
const GET: &str = "GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A port that serves a few odd handlers.
struct Scene {
    at: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

#[derive(Clone, Copy)]
struct How {
    bounds: Bounds,
    requests: usize,
    time: Duration,
    is_tls: bool,
    proxy: Option<&'static str>,
}

impl Default for How {
    fn default() -> Self {
        Self { bounds: Bounds::default(), requests: 64, time: SOON, is_tls: false, proxy: None }
    }
}

async fn panics() -> &'static str {
    panic!("as it was told to")
}

async fn scene(how: How) -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, metrics) = (listener.local_addr().unwrap(), Arc::new(Metrics::new()));
    let limits = Limits::new(how.requests, how.time, metrics.clone());
    let router = Router::new()
        .route("/quick", get(async || "quick"))
        .route("/healthz", get(async || "ok"))
        .route("/slow", get(async || tokio::time::sleep(300 * MS).await))
        .route("/hangs", get(async || std::future::pending::<()>().await))
        .route("/panics", get(panics))
        .route("/large", get(async || vec![b'x'; 32 << 20]))
        .route("/body", post(async |body: String| body.len().to_string()))
        .route("/api/v1/session", post(async |body: String| body.len().to_string()));
    let proxies: Arc<[Network]> = how.proxy.iter().map(|proxy| proxy.parse().unwrap()).collect();
    let router = super::super::guarded(router, limits, proxies.clone(), true);
    let tls = how.is_tls.then(|| {
        let (pair, _) = Pair::make(chrono::Utc::now()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
        let certified = Arc::unwrap_or_clone(pair.certified());
        Arc::new(config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
    });
    let port = Port { tls, proxies, bounds: how.bounds, router, metrics: metrics.clone() };
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(port.serve(listener, shutdown.clone()));
    Scene { at, metrics, shutdown, served }
}

impl Scene {
    async fn connect_from(&self, from: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    async fn connect(&self) -> TcpStream {
        self.connect_from("127.0.0.1").await
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        answer(&mut stream).await
    }

    fn turned_away(&self, reason: &str) -> u64 {
        self.metrics.http.turned_away.iter().find(|(word, _)| *word == reason).unwrap().1
    }

    async fn wait_until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is(self) {
            assert!(start.elapsed() < SOON, "{what}");
            tokio::time::sleep(10 * MS).await;
        }
    }
}

/// The next answer; empty where the connection ends instead. All of ours say how long they are.
async fn answer(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    let whole = async {
        loop {
            let text = String::from_utf8_lossy(&heard);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse().unwrap() {
                    return text.into_owned();
                }
            }
            let mut some = [0; 4096];
            match stream.read(&mut some).await {
                Ok(0) | Err(_) => return text.into_owned(),
                Ok(n) => heard.extend_from_slice(&some[..n]),
            }
        }
    };
    timeout(SOON, whole).await.expect("an answer or an end")
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {answer:?}")).parse().unwrap()
}

fn is_problem(answer: &str) -> bool {
    answer.contains("\r\ncontent-type: application/problem+json\r\n") && answer.contains("\"detail\":")
}

#[tokio::test]
async fn who_is_slow_with_a_head_or_idle_is_closed_and_others_are_served_meanwhile() {
    let scene =
        scene(How { bounds: Bounds { head_time: 300 * MS, ..Bounds::default() }, ..How::default() }).await;
    let (mut slow, mut silent, mut idle) =
        (scene.connect().await, scene.connect().await, scene.connect().await);
    idle.write_all(GET.as_bytes()).await.unwrap();
    assert_eq!(status(&answer(&mut idle).await), 200);
    let began = Instant::now();
    let trickle = async {
        for byte in GET.bytes().cycle() {
            if slow.write_all(&[byte; 1]).await.is_err() || byte == b'\n' {
                break;
            }
            tokio::time::sleep(50 * MS).await;
        }
        answer(&mut slow).await
    };
    let (slow, silent, idle) = tokio::join!(trickle, answer(&mut silent), answer(&mut idle));
    assert!(slow.is_empty() && silent.is_empty() && idle.is_empty(), "{slow}{silent}{idle}");
    assert!(began.elapsed() < 3 * Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(status(&scene.ask(GET).await), 200);
}

#[tokio::test]
async fn too_many_connections_of_one_address_are_closed_and_another_address_is_served() {
    let bounds = Bounds { connections: 4, connections_of_address: 2, ..Bounds::default() };
    let scene = scene(How { bounds, ..How::default() }).await;
    let _held = (scene.connect_from("127.0.0.2").await, scene.connect_from("127.0.0.2").await);
    assert_eq!(answer(&mut scene.connect_from("127.0.0.2").await).await, "");
    assert_eq!(status(&scene.ask(GET).await), 200);
    assert_eq!((scene.turned_away("connections_of_address"), scene.turned_away("connections")), (1, 0));
    scene.wait_until("the other is gone", |scene| scene.metrics.http.connections.get() == 2).await;
    let _more = (scene.connect_from("127.0.0.3").await, scene.connect_from("127.0.0.3").await);
    assert_eq!(answer(&mut scene.connect_from("127.0.0.4").await).await, "");
    assert_eq!(scene.turned_away("connections"), 1);
}

#[tokio::test]
async fn a_trusted_proxy_may_have_all_connections() {
    let bounds = Bounds { connections: 4, connections_of_address: 1, ..Bounds::default() };
    let scene = scene(How { bounds, proxy: Some("127.0.0.1"), ..How::default() }).await;
    let _held = [scene.connect().await, scene.connect().await, scene.connect().await];
    let forwarded = "GET /quick HTTP/1.1\r\nHost: vitals.example\r\nX-Forwarded-Proto: https\r\n\r\n";
    let answer = scene.ask(forwarded).await;
    assert_eq!(status(&answer), 200);
    assert!(answer.contains("\r\nstrict-transport-security: max-age=31536000\r\n"), "{answer}");
    assert!(!scene.ask(GET).await.contains("strict-transport-security"), "only where the caller speaks TLS");
}

#[tokio::test]
async fn handshakes_that_do_not_get_on_are_few_and_end() {
    let bounds = Bounds { handshakes_of_address: 2, handshake_time: 400 * MS, ..Bounds::default() };
    let scene = scene(How { bounds, is_tls: true, ..How::default() }).await;
    let (mut one, mut two) = (scene.connect().await, scene.connect().await);
    // A handshake message of 512 bytes begins, and never goes on.
    one.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert_eq!(answer(&mut scene.connect().await).await, "");
    assert_eq!(scene.turned_away("handshakes"), 1);
    let began = Instant::now();
    assert_eq!((answer(&mut one).await, answer(&mut two).await), (String::new(), String::new()));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    scene.wait_until("both are counted", |scene| scene.turned_away("handshake") == 2).await;
    let mut no_tls = scene.connect().await;
    no_tls.write_all(GET.as_bytes()).await.unwrap();
    scene.wait_until("what is no TLS is counted", |scene| scene.turned_away("handshake") == 3).await;
    assert!(!answer(&mut no_tls).await.contains("HTTP"), "plain HTTP is not served beside TLS");
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_cut_off_and_its_slot_is_free_again() {
    let bounds = Bounds { write_time: 300 * MS, ..Bounds::default() };
    let scene = scene(How { bounds, requests: 1, ..How::default() }).await;
    let mut greedy = scene.connect().await;
    greedy.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    scene.wait_until("the answer is under way", |scene| scene.metrics.http.connections.get() == 1).await;
    scene.wait_until("it is cut off", |scene| scene.metrics.http.connections.get() == 0).await;
    assert_eq!(status(&scene.ask(GET).await), 200);
}

#[tokio::test]
async fn one_request_too_many_is_refused_at_once_and_the_health_probe_is_not() {
    let scene = scene(How { requests: 1, ..How::default() }).await;
    let mut hangs = scene.connect().await;
    hangs.write_all(b"GET /hangs HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let began = Instant::now();
    let refused = loop {
        let answer = scene.ask(GET).await;
        if status(&answer) != 200 || began.elapsed() > SOON {
            break answer;
        }
    };
    assert_eq!(status(&refused), 503);
    assert!(is_problem(&refused) && refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("\r\ncontent-security-policy: default-src 'none'; "), "{refused}");
    assert_eq!(status(&scene.ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await), 200);
    assert!(scene.turned_away("requests") > 0);
    drop(hangs);
    scene.wait_until("its slot is free", |scene| scene.metrics.http.connections.get() == 0).await;
    assert_eq!(status(&scene.ask(GET).await), 200);
}

#[tokio::test]
async fn logins_that_do_not_get_on_keep_out_neither_others_nor_who_is_logged_in() {
    const LOGIN: &str = "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
    let scene = scene(How { requests: 20, time: Duration::from_secs(60), ..How::default() }).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = scene.connect().await;
        stream.write_all(format!("{LOGIN}half").as_bytes()).await.unwrap();
        slow.push(stream);
    }
    scene.wait_until("those that found no room", |scene| scene.turned_away("requests") >= 4).await;
    assert_eq!(status(&scene.ask(GET).await), 200, "there is room for what is no login");
    assert_eq!(status(&scene.ask(&format!("{LOGIN}whole")).await), 503);
    drop(slow);
    scene.wait_until("their room", |scene| scene.metrics.http.connections.get() == 0).await;
    let whole = scene.ask(&format!("{LOGIN}whole")).await;
    assert!(status(&whole) == 200 && whole.ends_with('5'), "{whole}");
}

#[tokio::test]
async fn a_handler_and_a_body_that_take_too_long_are_told_apart() {
    let scene = scene(How { time: 200 * MS, ..How::default() }).await;
    let hangs = scene.ask("GET /hangs HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(status(&hangs) == 503 && is_problem(&hangs), "{hangs}");
    let body = scene.ask("POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf").await;
    assert!(status(&body) == 408 && is_problem(&body), "{body}");
    assert_eq!(scene.turned_away("time"), 2);
    let whole = scene.ask("POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nwhole").await;
    assert!(status(&whole) == 200 && whole.ends_with('5'), "{whole}");
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_its_own_connection_alone() {
    let scene = scene(How { requests: 1, ..How::default() }).await;
    let mut bystander = scene.connect().await;
    for _ in 0..3 {
        assert_eq!(scene.ask("GET /panics HTTP/1.1\r\nHost: localhost\r\n\r\n").await, "");
        bystander.write_all(GET.as_bytes()).await.unwrap();
        assert_eq!(status(&answer(&mut bystander).await), 200, "and its slot is free again");
    }
}

#[tokio::test]
async fn the_shutdown_lets_requests_end_and_waits_for_nobody_else() {
    let bounds = Bounds { drain_time: 600 * MS, ..Bounds::default() };
    let scene = scene(How { bounds, ..How::default() }).await;
    let (mut idle, mut slow, mut half) =
        (scene.connect().await, scene.connect().await, scene.connect().await);
    idle.write_all(GET.as_bytes()).await.unwrap();
    answer(&mut idle).await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    half.write_all(b"GET /quick HTT").await.unwrap();
    tokio::time::sleep(100 * MS).await;
    scene.shutdown.cancel();
    let began = Instant::now();
    let ends = timeout(SOON, scene.served);
    let (slow, idle, half, ended) =
        tokio::join!(answer(&mut slow), answer(&mut idle), answer(&mut half), ends);
    ended.unwrap().unwrap();
    assert_eq!(status(&slow), 200);
    assert!(idle.is_empty() && half.is_empty(), "{idle}{half}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
