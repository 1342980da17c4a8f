use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::test_server::{Key, Server};

fn by_pins(pins: &[Pin]) -> Tls {
    Tls::new(Basis::Pins, Arc::new(Pins::new(pins.to_vec())), None).unwrap()
}

/// The handshake with this server under this name; gives the error.
async fn refused(tls: &Tls, server: &Server, name: &str) -> (String, String) {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let server_side = server.turned_away();
    let (client_side, server_side) = tokio::join!(tls.secure(name, stream), server_side);
    let Err(error) = client_side else { panic!("{name} is trusted") };
    (error, server_side)
}

async fn accepted(tls: &Tls, server: &Server, name: &str) -> Box<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (client_side, _session) = tokio::join!(tls.secure(name, stream), server.accept());
    client_side.unwrap()
}

fn pem_file(pem: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    file
}

#[tokio::test]
async fn a_pinned_key_is_the_server_whatever_its_certificate_says() {
    let key = Key::new(&["elsewhere.example"]);
    let server = Server::with_key(&key).await;
    let tls = by_pins(&[Pin([1; 32]), key.pin()]);
    for name in ["127.0.0.1:1", "[::1]:1", "any.example:1", "no_name-é:1"] {
        let stream = accepted(&tls, &server, name).await;
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(connection.alpn_protocol(), Some(ALPN));
    }
}

#[tokio::test]
async fn another_key_is_turned_away_and_both_are_named() {
    let server = Server::with_key(&Key::new(&["x"])).await;
    let shown = Key::new(&["x"]);
    let mut other = Server::with_key(&shown).await;
    let tls = by_pins(&[Pin([0xcd; 32])]);
    let (error, heard) = refused(&tls, &other, "127.0.0.1:1").await;
    assert!(
        error.starts_with(&format!("the server showed key {}, this client trusts cdcdcd", shown.pin())),
        "{error}"
    );
    assert!(error.contains("vitals-server cert show"), "{error}");
    assert!(!heard.is_empty());
    let (error, _) = refused(&by_pins(&[]), &server, "127.0.0.1:1").await;
    assert!(error.contains("trusts none"), "{error}");
    // The certificate of the pinned key, without the key: whoever shows it cannot sign with it.
    let pinned = Key::new(&["x"]);
    other.change_key(&pinned.with_key_of(&shown));
    let (error, _) = refused(&by_pins(&[pinned.pin()]), &other, "127.0.0.1:1").await;
    assert!(error.contains("signature") || error.contains("cannot be trusted"), "{error}");
}

#[tokio::test]
async fn a_ca_file_is_checked_with_the_name_and_learnt_keys_hold_beside_it() {
    let (key, ca) = Key::by_ca("vitals.example.org");
    let mut server = Server::with_key(&key).await;
    let (ca, other) = (pem_file(&ca), pem_file(&Key::by_ca("x").1));
    let pins = Arc::new(Pins::default());
    let tls = Tls::new(Basis::Ca, pins.clone(), Some(ca.path())).unwrap();
    accepted(&tls, &server, "vitals.example.org:7400").await;
    let (error, _) = refused(&tls, &server, "other.example.org:7400").await;
    assert!(error.contains("not for other.example.org") && error.contains("pin"), "{error}");
    let of_other = Tls::new(Basis::Ca, Arc::default(), Some(other.path())).unwrap();
    let (error, _) = refused(&of_other, &server, "vitals.example.org:7400").await;
    assert!(error.contains("none of the CAs in ca_file"), "{error}");
    let next = Key::new(&["whatever"]);
    server.change_key(&next);
    let (error, _) = refused(&tls, &server, "vitals.example.org:7400").await;
    assert!(error.contains("none of the CAs"), "{error}");
    pins.learn(&[next.pin()]);
    accepted(&tls, &server, "vitals.example.org:7400").await;
}

#[test]
fn a_ca_file_that_holds_no_certificate_is_named() {
    for (text, words) in
        [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "")]
    {
        let file = pem_file(text);
        let error = Tls::new(Basis::Ca, Arc::default(), Some(file.path())).unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()) && error.contains(words), "{error}");
    }
    assert!(Tls::new(Basis::Ca, Arc::default(), Some(Path::new("/nowhere/ca"))).is_err());
}

#[tokio::test]
async fn a_client_that_was_given_nothing_is_told_how_to_get_a_token() {
    let (key, ca) = Key::by_ca("localhost");
    let server = Server::with_key(&key).await;
    let ca = pem_file(&ca);
    // As the system's roots, which a machine for tests need not have.
    let tls = Tls { basis: Basis::Roots, ..Tls::new(Basis::Ca, Arc::default(), Some(ca.path())).unwrap() };
    accepted(&tls, &server, "localhost:7400").await;
    let other = Server::with_key(&Key::new(&["localhost"])).await;
    let (error, _) = refused(&tls, &other, "localhost:7400").await;
    assert!(error.contains("`vitals-server token create` on this machine"), "{error}");
    let (error, _) = refused(&tls, &other, "vitals.example.org:7400").await;
    assert!(
        error.contains("`vitals-server token create` there") && error.contains("VITALS_TOKEN"),
        "{error}"
    );
}

#[tokio::test]
async fn a_port_that_speaks_something_else_is_left_with_a_word_about_what_it_is() {
    let key = Key::new(&["x"]);
    let tls = by_pins(&[key.pin()]);
    let tls13 = &[&rustls::version::TLS13][..];
    let web = Server::with_tls(key.acceptor(&[b"h2", b"http/1.1"], tls13)).await;
    let (error, _) = refused(&tls, &web, "127.0.0.1:1").await;
    assert!(error.contains("does not speak vitals/1"), "{error}");
    let silent = Server::with_tls(key.acceptor(&[], tls13)).await;
    let (error, _) = refused(&tls, &silent, "127.0.0.1:1").await;
    assert!(error.contains("does not speak vitals/1"), "{error}");
    for (answer, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "speaks no TLS"),
        (b"\0\0\0\x05\x43\x02\0\0\0", "speaks no TLS"),
        (b"", "closed the connection during the TLS handshake"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; 512];
            let _ = stream.read(&mut hello).await;
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read(&mut hello).await;
        };
        let (result, ()) = tokio::join!(tls.secure("127.0.0.1:1", stream), answering);
        let error = result.err().unwrap();
        assert!(error.contains(words), "{answer:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_says_nothing_is_left_in_time() {
    let (near, _far) = tokio::io::duplex(64 << 10);
    let error = by_pins(&[]).secure("127.0.0.1:1", near).await.err().unwrap();
    assert!(error.contains("no answer to the TLS handshake"), "{error}");
}

#[test]
fn what_is_learnt_takes_the_place_of_what_was_learnt_and_never_of_what_was_given() {
    let [given, one, two] = [1, 2, 3].map(|n| Pin([n; 32]));
    let pins = Pins::new(vec![given]);
    pins.learn(&[one]);
    assert_eq!(pins.all(), [given, one]);
    pins.learn(&[two, given]);
    assert_eq!(pins.all(), [given, two]);
    assert!(!pins.has(&one));
}
