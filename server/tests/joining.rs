//! What can go wrong when a real client joins a real server, or comes back to it: each with words of its own in the
//! server's log and in the client's, and the client's readings arrive once the cause is mended.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::client::{Client, ask_client, client_binary};
use support::cutter::Cutter;
use support::peer::{Peer, hello, now_ms, secret};
use support::server::{Server, command, field, wait_for};
use vitals_wire::message::Refusal;
use vitals_wire::token::JoinToken;

/// Time for anything to happen by itself on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A place for a server and its clients.
struct Scene {
    server: Server,
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vitals").tempdir().unwrap();
        Self { server: Server::start(&dir.path().join("server"), &[]), dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    fn client_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A client of this name, in a directory of the same name, with this token or none.
    fn client(&self, name: &str, token: Option<&str>) -> Client {
        start(&self.client_dir(name), name, token, &[])
    }

    /// What a command prints that does it.
    fn run(&self, args: &[&str]) -> String {
        let (code, out, error) = command(&self.data(), args);
        assert_eq!(code, Some(0), "{args:?}: {error}");
        out
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--json"]].concat())).unwrap()
    }

    /// Another server at the same address, over this directory.
    fn another(&mut self, data: &Path) {
        let (clients, http) = (self.server.clients, self.server.http);
        assert!(self.server.stop().success());
        self.server = Server::start_at(data, clients, http, &[], &[]);
    }

    /// The server logs a line with all of these.
    fn server_says(&self, words: &[&str]) -> String {
        says(&format!("the server to say {words:?}"), words, || self.server.log_text())
    }

    fn hosts(&self) -> Vec<String> {
        let list = self.server.json("/api/v1/hosts");
        let hosts = list["hosts"].as_array().unwrap().iter();
        hosts.map(|host| host["name"].as_str().unwrap().to_owned()).collect()
    }

    fn audited(&self, action: &str) -> usize {
        self.server.log_text().lines().filter(|line| line.contains(&format!("audit={action} "))).count()
    }
}

/// A client with this token or none, and nothing else that it needs.
fn start(dir: &Path, name: &str, token: Option<&str>, more: &[&str]) -> Client {
    let mut command = Command::new(client_binary());
    command.args(["run", "--hostname", name, "--interval", "1s", "--data-dir"]).arg(dir).args(more);
    if let Some(token) = token {
        command.env("VITALS_TOKEN", token);
    }
    Client::spawn(command)
}

/// Waits for a line with all of these words.
fn says(what: &str, words: &[&str], log: impl Fn() -> String) -> String {
    wait_for(what, LONG, || {
        let log = log();
        let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
        line.map(str::to_owned)
    })
}

/// The client logs a line with all of these.
fn client_says(client: &Client, words: &[&str]) -> String {
    says(&format!("the client to say {words:?}"), words, || client.log_text())
}

/// What `vitals-client status` says of the client on this directory.
fn status(dir: &Path) -> Value {
    serde_json::from_str(&ask_client(&["status", "--json", "--data-dir", dir.to_str().unwrap()]).1).unwrap()
}

/// `vitals-client status` names this as the last error.
fn status_says(dir: &Path, words: &str) {
    let status = status(dir);
    assert_eq!(status["connected"], false, "{status}");
    let text = status["last_error"]["text"].as_str().unwrap_or_default();
    assert!(text.contains(words), "{words:?} is not in {status}");
}

/// A reading that was taken from now on arrives.
fn arrives(server: &Server, name: &str) {
    let since = now_ms();
    wait_for(&format!("a reading of {name}"), LONG, || {
        let (status, body) = server.get(&format!("/api/v1/hosts/{name}/latest"));
        let latest: Value = serde_json::from_str(&body).ok()?;
        (status == 200 && latest["time_ms"].as_i64()? > since).then_some(())
    });
}

#[test]
fn a_server_with_another_key_hears_nothing_and_the_right_one_is_found_again() {
    let mut scene = Scene::new();
    let token = scene.server.join_token(&[]);
    let right = scene.json(&["cert", "show"])["keys"][0]["pin"].as_str().unwrap().to_owned();
    let impostor = scene.dir.path().join("impostor");
    scene.another(&impostor);
    let client = scene.client("web", Some(&token));
    let line = client_says(&client, &["no connection", "the server showed key", &right, "cert show"]);
    assert!(line.contains("level=warn"), "{line}");
    scene.server_says(&["connection ended", "reason=rejected", "127.0.0.1"]);
    status_says(&scene.client_dir("web"), &right);
    assert_eq!(scene.hosts(), [""; 0], "it said nothing to it");
    scene.another(&scene.data());
    arrives(&scene.server, "web");
}

#[test]
fn a_token_that_lets_nobody_in_is_named_with_its_reason_and_another_one_does() {
    let scene = Scene::new();
    let expired = scene.server.join_token(&["--expires", "1s"]);
    let once = scene.server.join_token(&[]);
    let first = scene.client("first", Some(&once));
    arrives(&scene.server, "first");
    let revoked = scene.json(&["token", "create"]);
    scene.run(&["token", "revoke", revoked["id"].as_str().unwrap()]);
    let revoked = revoked["token"].as_str().unwrap();
    let unknown = JoinToken { secret: secret(200), ..once.parse().unwrap() }.to_string();
    std::thread::sleep(Duration::from_millis(1_100));
    let cases = [
        ("expired", &*expired, Refusal::TokenExpired, "the token has expired"),
        ("used-up", &once, Refusal::TokenUsedUp, "as many hosts as it may"),
        ("revoked", revoked, Refusal::TokenRevoked, "the token was revoked"),
        ("unknown", &unknown, Refusal::TokenUnknown, "does not know the token"),
    ];
    for (name, token, code, words) in cases {
        let mut client = scene.client(name, Some(token));
        let remedy = "the new one is given with VITALS_TOKEN";
        let line = client_says(&client, &["the server does not take this host", words, code.word(), remedy]);
        assert!(line.contains("level=error") && line.contains("retry_ms=600000"), "{line}");
        assert_eq!(client.log_line("the join token has expired by this host").is_some(), name == "expired");
        let line = scene.server_says(&["stranger refused", words]);
        assert_eq!(field(&line, "reason"), code.word());
        status_says(&scene.client_dir(name), words);
        assert!(client.stop().success());
        let _mended = scene.client(name, Some(&scene.server.join_token(&[])));
        arrives(&scene.server, name);
    }
    // Who has none is told that it needs one.
    let mut bare = start(&scene.client_dir("bare"), "bare", None, &pinned(&scene));
    client_says(&bare, &["the server does not take this host", "not_enrolled", "vitals-server token create"]);
    scene.server_says(&["stranger refused", "reason=not_enrolled"]);
    assert!(bare.stop().success());
    let _mended = scene.client("bare", Some(&scene.server.join_token(&[])));
    arrives(&scene.server, "bare");
    drop(first);
}

/// How a client is told of the server without a token.
fn pinned(scene: &Scene) -> [&'static str; 4] {
    let pin = scene.json(&["cert", "show"])["keys"][0]["pin"].as_str().unwrap().to_owned();
    ["--server", scene.server.clients.to_string().leak(), "--pin", pin.leak()]
}

#[test]
fn a_revoked_host_is_told_so_on_both_sides_and_comes_back_under_its_name_with_a_token_for_it() {
    let scene = Scene::new();
    let mut client = scene.client("web", Some(&scene.server.join_token(&[])));
    arrives(&scene.server, "web");
    scene.run(&["host", "revoke", "web"]);
    let words = ["the server does not take this host", "this host was revoked", "(revoked)"];
    let line = client_says(&client, &words);
    assert!(line.contains("retry_ms=600000"), "{line}");
    scene.server_says(&["client refused", "host=web", "reason=revoked"]);
    scene.server_says(&["audit=host_revoked", "target_name=web", "by=local"]);
    let dir = scene.client_dir("web");
    status_says(&dir, "this host was revoked");
    assert_eq!(status(&dir)["joined"], true);
    assert!(client.stop().success());
    // A token for anybody is none for it.
    let mut client = scene.client("web", Some(&scene.server.join_token(&[])));
    client_says(&client, &words);
    assert!(client.stop().success());

    let client = scene.client("web", Some(&scene.server.join_token(&["--replace", "web"])));
    arrives(&scene.server, "web");
    client_says(&client, &["trying the join token"]);
    assert_eq!(scene.hosts(), ["web"]);
}

#[test]
fn a_machine_that_is_a_copy_is_refused_and_named_on_both_sides_until_it_joins_as_its_own() {
    let scene = Scene::new();
    let first = scene.client("web", Some(&scene.server.join_token(&[])));
    arrives(&scene.server, "web");
    let copy = scene.client_dir("copy");
    fs::create_dir(&copy).unwrap();
    for file in ["identity", "trust", "starts"] {
        fs::copy(scene.client_dir("web").join(file), copy.join(file)).unwrap();
    }
    let mut second = start(&copy, "web", None, &[]);
    let line =
        client_says(&second, &["no connection", "(identity_in_use)", "the identity is a file in data_dir"]);
    assert!(line.contains("level=warn"), "it tries on: {line}");
    scene.server_says(&["stranger refused", "web: another run", "reason=identity_in_use"]);
    status_says(&copy, "If this machine is a copy of that one");
    let line = scene.server_says(&["two clients use one identity", "host=web"]);
    assert!(line.matches("127.0.0.1:").count() == 2, "both addresses: {line}");
    scene.server_says(&["audit=host_cloned", "target_name=web"]);
    arrives(&scene.server, "web");
    assert_eq!(status(&scene.client_dir("web"))["connections"], 1, "the first notices nothing");

    assert!(second.stop().success());
    fs::remove_dir_all(&copy).unwrap();
    let _second = start(&copy, "web", Some(&scene.server.join_token(&[])), &[]);
    arrives(&scene.server, "web-2");
    arrives(&scene.server, "web");
    drop(first);
}

#[test]
fn a_name_that_is_taken_is_not_inherited_and_both_sides_say_what_the_newcomer_is_called() {
    let scene = Scene::new();
    let token = scene.server.join_token(&["--uses", "2"]);
    let _first = scene.client("web", Some(&token));
    arrives(&scene.server, "web");
    let second = start(&scene.client_dir("other"), "web", Some(&token), &[]);
    arrives(&scene.server, "web-2");
    client_says(&second, &["connected", "name=web-2"]);
    assert_eq!(status(&scene.client_dir("other"))["connection"]["name"], "web-2");
    scene.server_says(&["which is taken", "web-2"]);
    arrives(&scene.server, "web");
}

#[test]
fn a_connection_that_is_cut_between_join_and_answer_joins_once_and_its_readings_arrive() {
    let scene = Scene::new();
    let token = scene.server.join_token(&[]);
    let cutter = Cutter::start(scene.server.clients);
    let client = start(
        &scene.client_dir("web"),
        "web",
        Some(&token),
        &["--server", &cutter.address.to_string(), "--spool-max-size", "0"],
    );
    // It is in, and does not know.
    scene.server_says(&["audit=host_joined", "target_name=web"]);
    assert_eq!(status(&scene.client_dir("web"))["joined"], false);
    cutter.cut();
    client_says(&client, &["no connection", "the connection"]);
    scene.server_says(&["client disconnected", "host=web"]);
    arrives(&scene.server, "web");
    client_says(&client, &["joined: a server took this host"]);
    assert_eq!(scene.audited("host_joined"), 1);
    assert_eq!(scene.json(&["token", "list"])["tokens"][0]["uses"], 1);
    assert_eq!(scene.hosts(), ["web"]);
    assert_eq!(status(&scene.client_dir("web"))["dropped"], serde_json::json!({}));
}

#[test]
fn a_key_is_announced_learnt_and_switched_to_and_who_missed_it_joins_anew() {
    let scene = Scene::new();
    let token = scene.server.join_token(&["--uses", "2"]);
    let mut client = scene.client("web", Some(&token));
    let mut away = scene.client("away", Some(&token));
    arrives(&scene.server, "web");
    arrives(&scene.server, "away");
    let dir = scene.client_dir("web");
    assert!(away.stop().success());

    let announced = scene.json(&["cert", "rotate", "--announce"]);
    let next = announced["keys"][1]["pin"].as_str().unwrap().to_owned();
    client_says(&client, &["these keys of the server are trusted from now on", &next]);
    scene.server_says(&["announced", &next]);
    wait_for("it to be learnt", LONG, || {
        (scene.json(&["cert", "show"])["hosts"]["learnt"] == 1).then_some(())
    });
    let (code, _, error) = command(&scene.data(), &["cert", "rotate", "--switch"]);
    assert!(code == Some(1) && error.contains("away") && error.contains("--force"), "{error}");
    scene.run(&["cert", "rotate", "--switch", "--force"]);
    scene.server_says(&["in use", &next]);
    arrives(&scene.server, "web");
    assert_eq!(status(&dir)["connections"], 1, "the old connection lives on");

    assert!(client.stop().success());
    let client = scene.client("web", None);
    arrives(&scene.server, "web");
    client_says(&client, &["connected", "name=web"]);
    // With the new key: there is no other.
    assert_eq!(scene.json(&["cert", "show"])["keys"].as_array().unwrap().len(), 1);

    let mut away = scene.client("away", None);
    client_says(&away, &["the server showed key", &next, "join with a new token"]);
    scene.server_says(&["connection ended", "reason=rejected"]);
    assert!(away.stop().success());
    let _away = scene.client("away", Some(&scene.server.join_token(&[])));
    arrives(&scene.server, "away");
    assert_eq!(scene.hosts().len(), 2, "as the host that it was");
}

#[test]
fn a_server_that_is_restored_at_another_address_is_found_by_who_knows_that_address() {
    let mut scene = Scene::new();
    let port = |address: SocketAddr| address.port();
    let elsewhere = free_port();
    let addresses = format!("127.0.0.1:{},127.0.0.1:{elsewhere}", port(scene.server.clients));
    let client = scene.client("web", Some(&scene.server.join_token(&["--address", &addresses])));
    arrives(&scene.server, "web");
    let (old, http) = (scene.server.clients, scene.server.http);
    assert!(scene.server.stop().success());
    let restored = scene.dir.path().join("restored");
    assert!(Command::new("cp").arg("-a").arg(scene.data()).arg(&restored).status().unwrap().success());
    fs::remove_dir_all(scene.data()).unwrap();
    let clients = ([127, 0, 0, 1], elsewhere).into();
    scene.server = Server::start_at(&restored, clients, http, &[], &[]);
    client_says(&client, &["no connection", &format!("server={old}")]);
    client_says(&client, &["connected", &format!("server={clients}")]);
    scene.server_says(&["client connected", "host=web"]);
    arrives(&scene.server, "web");
    assert_eq!(scene.hosts(), ["web"], "the same host");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn plain_tcp_is_spoken_only_where_both_sides_are_told_and_both_warn() {
    let mut scene = Scene::new();
    let token = scene.server.join_token(&[]);
    // One side alone.
    let mut client = start(&scene.client_dir("web"), "web", Some(&token), &["--insecure"]);
    client_says(&client, &["no connection", "the connection"]);
    let line = client_says(&client, &["insecure = true: connections are plain TCP"]);
    assert!(line.contains("level=warn"), "{line}");
    scene.server_says(&["connection ended", "reason=plain_tcp", "clients.insecure"]);
    assert!(client.stop().success());
    // The other.
    assert!(scene.server.stop().success());
    let (clients, http) = (scene.server.clients, scene.server.http);
    scene.server = Server::start_at(&scene.data(), clients, http, &["--insecure"], &[]);
    let line = scene.server_says(&["clients.insecure is set"]);
    assert!(line.contains("level=warn"), "{line}");
    let mut client = scene.client("web", Some(&token));
    client_says(
        &client,
        &["no connection", "closed the connection during the TLS handshake", "insecure = true on both"],
    );
    scene.server_says(&["connection ended", "reason=tls_on_plain"]);
    assert!(client.stop().success());
    // Both.
    let _client = start(&scene.client_dir("web"), "web", Some(&token), &["--insecure"]);
    arrives(&scene.server, "web");
    assert_eq!(status(&scene.client_dir("web"))["trusts"], "none");
    let mut peer = Peer::raw(clients);
    peer.introduce(hello(1, "by-hand"));
    assert!(peer.pin.is_none());
}
