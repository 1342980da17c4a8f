//! The port of the page and the API, from outside: TLS with a certificate of its own, one swapped on disk, what each answer
//! says to browsers, and what is turned away.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
    StreamOwned, SupportedProtocolVersion,
};
use support::server::{Server, field, wait_for};

const SOON: Duration = Duration::from_secs(20);
/// Connections of one address to this port: `api::serve::Bounds`.
const MOST_OF_ADDRESS: usize = 128;

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// How a client speaks TLS that trusts this certificate and nothing else.
fn trusting(
    certificate: &Path,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn tls(server: &Server, name: &str, config: &Arc<ClientConfig>) -> Result<Tls, std::io::Error> {
    let tcp = TcpStream::connect(("127.0.0.1", server.http.port())).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let connection = ClientConnection::new(config.clone(), name.to_owned().try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(connection, tcp);
    tls.conn.complete_io(&mut tls.sock)?;
    Ok(tls)
}

/// A connection as a browser makes it that trusts this certificate.
fn browser(server: &Server, certificate: &Path) -> Result<Tls, std::io::Error> {
    tls(server, "localhost", &Arc::new(trusting(certificate, &[&TLS13], &["h2", "http/1.1"])))
}

/// What the server shows is this certificate.
fn shows(server: &Server, certificate: &Path) -> bool {
    browser(server, certificate).is_ok()
}

/// Sends a request and hears the answer: its status, its head in small letters, its body.
fn ask(stream: &mut (impl Read + Write), request: &str) -> (u16, String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut heard = String::new();
    loop {
        if let Some((head, body)) = heard.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, head, body.to_owned());
            }
        }
        let mut some = [0; 4096];
        let n = stream.read(&mut some).unwrap();
        assert!(n > 0, "the connection ended after {heard:?}");
        heard.push_str(std::str::from_utf8(&some[..n]).unwrap());
    }
}

fn get(stream: &mut (impl Read + Write), path: &str) -> (u16, String, String) {
    ask(stream, &format!("GET {path} HTTP/1.1\r\nHost: vitals.example.org\r\n\r\n"))
}

/// Everything that browsers are to be told; and nothing that tells attackers more than they need.
fn is_guarded(head: &str) {
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: deny",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-store",
    ] {
        assert!(head.lines().any(|line| line == header), "no {header} in\n{head}");
    }
    assert!(head.contains("\npermissions-policy: "), "{head}");
    for header in ["server:", "access-control-", "set-cookie:", "x-powered-by:"] {
        assert!(!head.lines().any(|line| line.starts_with(header)), "{header} in\n{head}");
    }
}

fn open_server(dir: &Path, config: &str) -> Server {
    let file = dir.join("server.toml");
    fs::write(&file, config).unwrap();
    let loopback = "127.0.0.1:0".parse().unwrap();
    let args = ["--config", file.to_str().unwrap()];
    Server::start_at(&dir.join("data"), loopback, "0.0.0.0:0".parse().unwrap(), &args, &[])
}

/// Makes a certificate and its key, as a person would who brings an own one.
fn bring(dir: &Path) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("page.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.join("page.key"), key.serialize_pem()).unwrap();
}

#[test]
fn a_fresh_start_on_all_addresses_serves_https_with_a_certificate_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = open_server(dir.path(), "");
    let [certificate, key] = ["page.crt", "page.key"].map(|file| dir.path().join("data/tls").join(file));
    for file in [&certificate, &key] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let line = server.log_line("compare it with what the browser shows").unwrap();
    let der = CertificateDer::from_pem_file(&certificate).unwrap();
    let digest: Vec<String> =
        vitals_server::secret::Digest::of(&der).0.iter().map(|b| format!("{b:02X}")).collect();
    assert_eq!(field(&line, "sha256"), digest.join(":"));

    let mut page = browser(&server, &certificate).unwrap();
    let (status, head, _) = get(&mut page, "/healthz");
    assert_eq!(status, 200);
    is_guarded(&head);
    assert!(!head.contains("strict-transport-security"), "only where it is asked for: {head}");
    for (request, wanted) in [
        ("GET /nowhere HTTP/1.1\r\nHost: a.example\r\n\r\n", 404),
        ("DELETE /healthz HTTP/1.1\r\nHost: a.example\r\n\r\n", 405),
        ("OPTIONS /healthz HTTP/1.1\r\nHost: a.example\r\nOrigin: https://evil.example\r\n\r\n", 405),
        ("POST /api/v1/session HTTP/1.1\r\nHost: a.example\r\nContent-Length: 999999\r\n\r\n", 413),
    ] {
        let (status, head, body) = ask(&mut browser(&server, &certificate).unwrap(), request);
        assert_eq!(status, wanted, "{request}: {body}");
        is_guarded(&head);
        assert!(head.contains("\ncontent-type: application/problem+json"), "{request}: {head}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], wanted, "{request}");
        assert_eq!(wanted == 405, head.contains("\nallow: get,head"), "{request}: {head}");
    }
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let config = Arc::new(trusting(&certificate, &[&TLS13], &[]));
    assert!(tls(&server, &address.to_string(), &config).is_ok(), "by its address too");
    let mut plain = TcpStream::connect(("127.0.0.1", server.http.port())).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"HTTP"), "no plain HTTP beside TLS");
    let key = fs::read_to_string(key).unwrap();
    assert!(key.lines().skip(1).all(|line| line.starts_with('-') || !server.log_text().contains(line)));
    let began = Instant::now();
    assert!(server.stop().success(), "with a connection that is open and idle");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(page);
    let server = open_server(dir.path(), "[http]\nhsts = true");
    assert!(
        get(&mut browser(&server, &certificate).unwrap(), "/healthz")
            .1
            .contains("\nstrict-transport-security: ")
    );
}

#[test]
fn the_page_speaks_tls_1_3_alone_with_http_1_1_and_resumes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = open_server(dir.path(), "");
    let certificate = dir.path().join("data/tls/page.crt");
    let with = |versions: &[&'static SupportedProtocolVersion], alpn: &[&str]| {
        tls(&server, "localhost", &Arc::new(trusting(&certificate, versions, alpn)))
    };
    let alert = |answer: Result<Tls, std::io::Error>| answer.err().unwrap().to_string();
    let said = alert(with(&[&TLS12], &["http/1.1"]));
    assert!(said.contains(&format!("{:?}", AlertDescription::ProtocolVersion)), "{said}");
    let said = alert(with(&[&TLS13], &["h2"]));
    assert!(said.contains(&format!("{:?}", AlertDescription::NoApplicationProtocol)), "{said}");
    let said = alert(with(&[&TLS13], &["vitals/1"]));
    assert!(said.contains(&format!("{:?}", AlertDescription::NoApplicationProtocol)), "{said}");
    // In version 1.3 nothing can be negotiated again (RFC 8446, 4.1.2).
    let both = with(&[&TLS12, &TLS13], &["h2", "http/1.1"]).unwrap();
    assert_eq!(both.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(both.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(with(&[&TLS13], &[]).unwrap().conn.alpn_protocol().is_none(), "curl need not say what it speaks");

    let config = Arc::new(trusting(&certificate, &[&TLS13], &["http/1.1"]));
    for _ in 0..3 {
        let mut again = tls(&server, "localhost", &config).unwrap();
        assert_eq!(get(&mut again, "/healthz").0, 200);
        assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(again.conn.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_certificate_swapped_on_disk_is_served_to_the_next_connection_and_the_old_ones_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["used", "first", "second", "third"].map(|name| dir.path().join(name));
    let [used, first, second, third] = &dirs;
    dirs.iter().for_each(|dir| bring(dir));
    let copy = |from: &Path, file: &str| fs::copy(from.join(file), used.join(file)).unwrap();
    let copy_both = |from: &Path| ["page.crt", "page.key"].map(|file| copy(from, file));
    let _ = copy_both(first);
    let config = format!(
        "[http]\ncertificate = {:?}\nkey = {:?}\n",
        used.join("page.crt").to_str().unwrap(),
        used.join("page.key").to_str().unwrap()
    );
    let server = open_server(dir.path(), &config);
    let [first, second, third] = [first, second, third].map(|dir| dir.join("page.crt"));
    let mut old = browser(&server, &first).unwrap();
    assert_eq!(get(&mut old, "/healthz").0, 200);
    assert!(!shows(&server, &second));
    assert!(!dir.path().join("data/tls/page.key").exists(), "none is made where one is brought");

    let _ = copy_both(&dirs[2]);
    wait_for("the second certificate", SOON, || shows(&server, &second).then_some(()));
    assert!(!shows(&server, &first));
    assert_eq!(get(&mut old, "/healthz").0, 200, "who was connected stays so");

    // Half of a pair: the certificate came, its key did not yet.
    copy(&dirs[3], "page.crt");
    let warning = wait_for("the warning", SOON, || server.log_line("has changed and cannot be used"));
    assert!(warning.contains("page.key") && warning.contains("not that of the certificate"), "{warning}");
    // Long enough for several looks.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        assert!(shows(&server, &second), "what cannot be used changes nothing");
        assert_eq!(get(&mut old, "/healthz").0, 200);
        std::thread::sleep(Duration::from_millis(500));
    }
    let warnings = server.log_text().matches("has changed and cannot be used").count();
    assert_eq!(warnings, 1, "it is said once");
    copy(&dirs[3], "page.key");
    wait_for("the third certificate", SOON, || shows(&server, &third).then_some(()));
    assert_eq!(get(&mut old, "/healthz").0, 200);
}

#[test]
fn plain_http_on_loopback_answers_to_names_of_this_machine_and_says_the_same_to_browsers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    assert!(!dir.path().join("data/tls/page.key").exists());
    let by = |host: &str| {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: localhost\r\n\r\n");
        ask(&mut TcpStream::connect(server.http).unwrap(), &request)
    };
    for (host, wanted) in
        [("localhost", 200), ("127.0.0.1:7480", 200), ("evil.example", 400), ("192.0.2.1", 400)]
    {
        let (status, head, body) = by(host);
        assert_eq!(status, wanted, "{host}: {body}");
        is_guarded(&head);
    }
    let mut half = TcpStream::connect(server.http).unwrap();
    half.set_read_timeout(Some(3 * SOON)).unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHo").unwrap();
    let mut heard = Vec::new();
    half.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"", "who does not get on with its request is closed");
}

#[test]
fn a_crowd_of_one_address_is_turned_away_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let from_2 = || {
        let connected = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse::<SocketAddr>().unwrap()).unwrap();
            socket.connect(server.http).await.unwrap()
        });
        let stream = connected.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    let held: Vec<TcpStream> = (0..MOST_OF_ADDRESS).map(|_| from_2()).collect();
    for _ in 0..9 {
        let ended = match from_2().read(&mut [0; 1]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(ended);
    }
    assert_eq!(server.get("/healthz").0, 200);
    assert!(server.log_text().contains("reason=connections_of_address"), "{}", server.log_text());
    drop(held);
    wait_for("room", SOON, || {
        let mut stream = from_2();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        (stream.read(&mut [0; 12]).ok()? == 12).then_some(())
    });
}
