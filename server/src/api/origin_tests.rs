use axum::http::{HeaderName, HeaderValue};

use super::*;

const PROXY: &str = "10.0.0.1";

/// The origin of a request for `/` with these headers.
fn ask(peer: &str, is_tls: bool, headers: &[(&str, &str)]) -> Result<Origin, Problem> {
    ask_for("/", peer, is_tls, headers)
}

fn ask_for(uri: &str, peer: &str, is_tls: bool, headers: &[(&str, &str)]) -> Result<Origin, Problem> {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    ask_bytes(uri, peer, is_tls, &headers)
}

fn ask_bytes(uri: &str, peer: &str, is_tls: bool, headers: &[(&str, &[u8])]) -> Result<Origin, Problem> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    let proxies = ["10.0.0.0/24".parse().unwrap()];
    origin(Peer { address: peer.parse().unwrap(), is_tls }, &proxies, &uri.parse().unwrap(), &map)
}

fn status(answer: Result<Origin, Problem>) -> u16 {
    answer.unwrap_err().into_response().status().as_u16()
}

/// What a proxy's `X-Forwarded-For` leads to.
fn behind(forwarded: &[&str]) -> String {
    let headers: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
    ask(PROXY, false, &headers).unwrap().address.to_string()
}

#[test]
fn plain_http_on_this_machine_answers_to_names_of_this_machine_alone() {
    for host in
        ["localhost", "localhost:7480", "LOCALHOST", "127.0.0.1:7480", "[::1]:7480", "[::1]", "127.0.0.1"]
    {
        let origin = ask("127.0.0.1", false, &[("host", host)]).unwrap();
        assert_eq!((origin.is_tls, origin.authority.as_deref()), (false, Some(host)));
    }
    for host in
        ["evil.example", "evil.example:7480", "192.0.2.1", "localhost.evil.example", "", "localhost@evil"]
    {
        assert_eq!(status(ask("127.0.0.1", false, &[("host", host)])), 400, "{host:?}");
        assert_eq!(status(ask("::1", false, &[("host", host)])), 400, "{host:?}");
    }
    assert_eq!(status(ask_bytes("/", "127.0.0.1", false, &[("host", b"\xff")])), 400);
    assert_eq!(status(ask_for("http://evil.example/", "127.0.0.1", false, &[("host", "localhost")])), 400);
    assert_eq!(
        ask("127.0.0.1", false, &[]).unwrap().authority,
        None,
        "only a missing header may say nothing"
    );
    let two = [("host", "localhost"), ("host", "localhost")];
    assert_eq!((status(ask("127.0.0.1", false, &two)), status(ask("127.0.0.1", true, &two))), (400, 400));
}

#[test]
fn tls_takes_any_name_and_believes_nobodys_forwarding() {
    let headers = [
        ("host", "vitals.example.org:7480"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil.example"),
    ];
    let origin = ask("::ffff:192.0.2.7", true, &headers).unwrap();
    let authority = Some("vitals.example.org:7480".to_owned());
    assert_eq!(origin, Origin { address: "192.0.2.7".parse().unwrap(), is_tls: true, authority });
}

#[test]
fn plain_http_speaks_to_nobody_else_but_for_health_probes() {
    let host = [("host", "10.0.1.1:7480")];
    assert_eq!(status(ask_for("/api/v1/hosts", "10.0.1.9", false, &host)), 403);
    assert!(ask_for("/healthz", "10.0.1.9", false, &host).is_ok());
    assert!(ask_for("/readyz", "10.0.1.9", false, &host).is_ok());
}

#[test]
fn a_trusted_proxy_says_whom_it_speaks_for() {
    let headers = [
        ("host", "10.0.0.9:7480"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "vitals.example.org"),
    ];
    let authority = Some("vitals.example.org".to_owned());
    let wanted = Origin { address: "192.0.2.7".parse().unwrap(), is_tls: true, authority };
    assert_eq!(ask(PROXY, false, &headers).unwrap(), wanted);
    let silent = ask(PROXY, false, &[("host", "vitals.example.org")]).unwrap();
    assert_eq!((silent.address.to_string(), silent.is_tls), (PROXY.to_owned(), false));
    assert_eq!(silent.authority.as_deref(), Some("vitals.example.org"));
}

#[test]
fn the_right_most_address_that_is_no_proxys_counts() {
    assert_eq!(
        behind(&["203.0.113.9, 192.0.2.7, 10.0.0.2"]),
        "192.0.2.7",
        "the first is anybody's invention"
    );
    assert_eq!(behind(&["203.0.113.9", "192.0.2.7", "10.0.0.2"]), "192.0.2.7", "in headers of their own too");
    assert_eq!(behind(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "a proxy that asks for itself");
    assert_eq!(behind(&["::ffff:192.0.2.7"]), "192.0.2.7");
    assert_eq!(behind(&["192.0.2.7:4711"]), "192.0.2.7");
    assert_eq!(behind(&["[2001:db8::7]:4711"]), "2001:db8::7");
    assert_eq!(behind(&["[2001:db8::7]"]), "2001:db8::7");
}

#[test]
fn what_cannot_be_read_is_not_believed() {
    for wrong in ["", "unknown", "192.0.2.7.1", "192.0.2.7 10.0.0.2", "_hidden"] {
        assert_eq!(behind(&[wrong]), PROXY, "{wrong:?}");
        assert_eq!(behind(&[&format!("203.0.113.9, {wrong}, 10.0.0.2")]), "10.0.0.2", "{wrong:?}");
    }
    let unreadable = ask_bytes("/", PROXY, false, &[("x-forwarded-for", b"203.0.113.9, \xff")]).unwrap();
    assert_eq!(unreadable.address.to_string(), PROXY);
    let odd = [("host", "a.example"), ("x-forwarded-proto", "gopher"), ("x-forwarded-host", "e vil@x")];
    let origin = ask(PROXY, false, &odd).unwrap();
    assert_eq!((origin.is_tls, origin.authority.as_deref()), (false, Some("a.example")));
    let last = ask(PROXY, false, &[("x-forwarded-proto", "https, http")]).unwrap();
    assert!(!last.is_tls, "what the nearest proxy says counts");
}
