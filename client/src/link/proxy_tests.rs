use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// Asks a proxy that answers so; gives what came of it and what it was asked.
async fn ask(proxy: &str, answer: &[u8]) -> (Result<(), String>, String) {
    let proxy: Proxy = proxy.parse().unwrap();
    let (mut client, mut far) = duplex(64 << 10);
    far.write_all(answer).await.unwrap();
    far.shutdown().await.unwrap();
    let result = proxy.connect(&mut client, "vitals.example.org:7400").await;
    drop(client);
    let mut asked = String::new();
    far.read_to_string(&mut asked).await.unwrap();
    (result, asked)
}

#[tokio::test]
async fn a_way_is_asked_for_by_name_with_what_the_address_holds() {
    let (result, asked) =
        ask("http://us%40er:p%3Ass@proxy:3128/", b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await;
    assert_eq!(result, Ok(()));
    let head = "CONNECT vitals.example.org:7400 HTTP/1.1\r\nHost: vitals.example.org:7400\r\n";
    assert_eq!(asked, format!("{head}Proxy-Authorization: Basic {}\r\n\r\n", STANDARD.encode("us@er:p:ss")));
    let (_, asked) = ask("proxy:3128", b"HTTP/1.0 200\r\n\r\n").await;
    assert_eq!(asked, format!("{head}\r\n"));
}

#[tokio::test]
async fn whatever_else_the_proxy_says_is_an_error_with_what_to_do() {
    let long = [b"HTTP/1.1 200 ", &[b'x'; 20_000][..]].concat();
    for (answer, words) in [
        (&b"HTTP/1.1 403 Forbidden by \x1b[31mrule\r\n\r\n"[..], "403 Forbidden by [31mrule"),
        (b"HTTP/1.1 407 Authentication Required\r\n\r\n", "wants a user and a password"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "more than its answer"),
        (b"SSH-2.0-x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 xyz\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection"),
        (&long, "too long"),
    ] {
        let (result, _) = ask("http://proxy:3128", answer).await;
        let error = result.unwrap_err();
        assert!(error.starts_with("the proxy proxy:3128: ") && error.contains(words), "{error}");
    }
    let (result, _) = ask("http://u:hush@proxy", b"HTTP/1.1 407 No\r\n\r\n").await;
    let error = result.unwrap_err();
    assert!(error.contains("does not take the user") && !error.contains("hush"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_answer_is_left() {
    let proxy: Proxy = "proxy:1".parse().unwrap();
    let (mut client, _far) = duplex(1 << 10);
    let error = proxy.connect(&mut client, "a:1").await.unwrap_err();
    assert!(error.contains("in time"), "{error}");
}

#[test]
fn a_proxy_s_address_is_read_and_shown_without_its_secrets() {
    for (text, shown) in [
        ("http://proxy:3128", "http://proxy:3128"),
        ("proxy", "http://proxy:80"),
        ("HTTP://u:hush@[2001:db8::1]:8080/", "http://********@[2001:db8::1]:8080"),
        ("http://[::1]", "http://[::1]:80"),
    ] {
        let proxy: Proxy = text.parse().unwrap();
        assert_eq!((proxy.to_string(), format!("{proxy:?}")), (shown.to_owned(), shown.to_owned()));
    }
    for bad in [
        "https://hush@proxy:1",
        "socks5://x",
        "http://",
        "http://hush%4@x",
        "http://a:b:c",
        &"x".repeat(3000),
    ] {
        let error = bad.parse::<Proxy>().unwrap_err();
        assert!(error.contains("http://HOST:PORT") && !error.contains("hush"), "{error}");
    }
}

#[test]
fn servers_in_the_list_are_reached_without_the_proxy() {
    let list =
        NoProxy::new("example.org, .internal,*.lan 10.0.0.0/8,192.0.2.7,2001:db8::/32,web:7401, nonsense/99");
    for server in [
        "example.org:7400",
        "Vitals.Example.ORG:7400",
        "a.internal:1",
        "x.lan:1",
        "10.255.0.1:7400",
        "192.0.2.7:1",
        "[2001:db8::5]:7400",
        "web:7401",
    ] {
        assert!(list.has(server), "{server}");
    }
    for server in
        ["notexample.org:7400", "11.0.0.1:7400", "192.0.2.8:1", "[2001:db9::1]:7400", "web:7400", "org:1"]
    {
        assert!(!list.has(server), "{server}");
    }
    assert!(NoProxy::new("*").has("anything:1") && !NoProxy::new("").has("anything:1"));
    assert!(NoProxy::new("0.0.0.0/0").has("192.0.2.1:1"));
}
