//! Who is let in: hosts join by tokens, stay by their secrets, and are renamed, labelled, rotated, revoked, replaced and
//! removed by commands and by the API.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::client::Client;
use support::peer::{Peer, hello, now_ms, sample};
use support::server::{Server, command, send, wait_for};
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::Secret;
use vitals_wire::message::{Hello, Label, NewSecret, Refusal, Refused, Welcome};
use vitals_wire::token::JoinToken;

const SOON: Duration = Duration::from_secs(10);

struct Scene {
    server: Server,
    data: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("vitals").tempdir().unwrap();
        let data = dir.path().join("data");
        Self { server: Server::start(&data, &[]), data, _dir: dir }
    }

    /// What a command prints that does it.
    fn run(&self, args: &[&str]) -> String {
        run(&self.data, args)
    }

    fn token(&self, args: &[&str]) -> JoinToken {
        let out = self.run(&[&["token", "create"], args].concat());
        assert_eq!(out.lines().count(), 1, "the token alone: {out}");
        out.parse().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["--json"]].concat())).unwrap()
    }

    fn welcome(&self, hello: Hello) -> (Peer, Welcome) {
        let mut peer = Peer::stranger(self.server.clients);
        peer.say(hello);
        match peer.hear() {
            Some(vitals_wire::message::ServerMessage::Welcome(welcome)) => (peer, welcome),
            other => panic!("not welcome: {other:?}"),
        }
    }

    /// Refused for ten minutes, with words that say what to do, and counted.
    fn refused(&self, hello: Hello, code: Refusal) -> Refused {
        let mut peer = Peer::stranger(self.server.clients);
        peer.say(hello);
        let refused = peer.refusal();
        assert_eq!((refused.code, refused.retry), (code, false), "{}", &*refused.text);
        assert!(self.server.metric(&format!("vitals_refused_total{{reason=\"{}\"}}", code.word())) >= 1.0);
        let words = format!("reason={}", code.word());
        wait_for("a line in the log", SOON, || self.server.log_line(&words));
        refused
    }

    fn host(&self, name: &str) -> Value {
        self.server.json(&format!("/api/v1/hosts/{name}"))
    }

    fn api(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = send(self.server.http, method, path, body, self.server.token.as_deref());
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    fn audited(&self, action: &str) -> usize {
        self.server.log_text().lines().filter(|line| line.contains(&format!("audit={action} "))).count()
    }
}

fn run(data: &Path, args: &[&str]) -> String {
    let (code, out, error) = command(data, args);
    assert_eq!(code, Some(0), "{args:?}: {error}");
    out
}

fn fails(data: &Path, args: &[&str]) -> String {
    let (code, out, error) = command(data, args);
    assert_eq!((code, &*out), (Some(1), ""), "{args:?}");
    error
}

fn with(token: &JoinToken, hello: Hello) -> Hello {
    Hello { token: Some(token.said()), ..hello }
}

fn secret(byte: u8, hello: Hello) -> Hello {
    Hello { secret: Secret([byte; 32]), ..hello }
}

#[test]
fn a_client_joins_with_one_string_and_comes_again_without_it() {
    let scene = Scene::new();
    let dir = scene.data.with_file_name("client");
    // The support gives it a token in its environment.
    let more = ["--interval", "1s"];
    let mut client = Client::run(scene.server.clients, &dir, "web", &more);
    wait_for("its samples", SOON, || {
        (scene.server.metric("vitals_samples_acknowledged_total") >= 2.0).then_some(())
    });
    assert!(client.stop().success());
    let tokens = scene.json(&["token", "list"]);
    assert_eq!(tokens["tokens"][0]["uses"], 1);
    assert_eq!(scene.audited("host_joined"), 1);
    // Nothing but the address, and its directory.
    let server = scene.server.clients.to_string();
    let args = ["run", "--server", &server, "--data-dir", dir.to_str().unwrap(), "--hostname", "web"];
    let mut again = std::process::Command::new(support::client::client_binary())
        .env("VITALS_INSECURE", "true")
        .args(args)
        .args(more)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let before = scene.server.metric("vitals_samples_acknowledged_total");
    wait_for("its samples", SOON, || {
        (scene.server.metric("vitals_samples_acknowledged_total") > before).then_some(())
    });
    again.kill().unwrap();
    again.wait().unwrap();
    assert_eq!(scene.audited("host_joined"), 1);
}

#[test]
fn tokens_let_in_whom_they_should_and_refuse_the_others_each_with_its_own_words() {
    let scene = Scene::new();
    let refused = scene.refused(hello(1, "web"), Refusal::NotEnrolled);
    assert!(refused.text.contains("vitals-server token create"), "{}", &*refused.text);
    let unknown = JoinToken { secret: Secret([3; 32]), expires_ms: 0, pins: vec![], addresses: vec![] };
    scene.refused(with(&unknown, hello(1, "web")), Refusal::TokenUnknown);
    scene.refused(Hello { token: Some(Text::cut("not a token")), ..hello(1, "web") }, Refusal::TokenUnknown);

    let short = scene.token(&["--expires", "1s"]);
    std::thread::sleep(Duration::from_millis(1_100));
    scene.refused(with(&short, hello(1, "web")), Refusal::TokenExpired);

    let once = scene.token(&["--label", "env=prod"]);
    assert_eq!(once.addresses, [scene.server.clients.to_string()], "where it listens");
    assert!(once.expires_ms > now_ms() + 23 * 3_600_000);
    let (mut web, welcome) = scene.welcome(with(&once, hello(1, "web")));
    assert_eq!(&*welcome.name, "web");
    assert_eq!(&*web.send(1, sample(now_ms(), 1)).batches, [1]);
    let host = scene.host("web");
    assert_eq!((&host["labels"]["env"], &host["label_origins"]["env"]), (&"prod".into(), &"token".into()));
    scene.refused(with(&once, hello(2, "db")), Refusal::TokenUsedUp);
    // It says it again, as after a cut between its joining and the answer.
    drop(web);
    scene.welcome(with(&once, hello(1, "web")));

    let many = scene.json(&["token", "create", "--uses", "5"]);
    let id = many["id"].as_str().unwrap();
    let many: JoinToken = many["token"].as_str().unwrap().parse().unwrap();
    scene.welcome(with(&many, hello(2, "db")));
    assert!(scene.run(&["token", "revoke", id]).contains("revoked"));
    scene.refused(with(&many, hello(3, "x")), Refusal::TokenRevoked);
    scene.welcome(hello(2, "db"));
    assert!(fails(&scene.data, &["token", "revoke", "none"]).contains("token list"));

    let list = scene.json(&["token", "list"]);
    let states: Vec<&str> =
        list["tokens"].as_array().unwrap().iter().map(|token| token["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["revoked", "used_up", "expired"]);
    let table = scene.run(&["token", "list"]);
    for token in [&short, &once, &many] {
        for secret in [token.to_string(), token.said().to_string()] {
            let log = scene.server.log_text();
            assert!(!log.contains(&secret) && !table.contains(&secret), "a secret is shown");
        }
    }
}

#[test]
fn a_connection_that_is_cut_before_the_answer_has_used_the_token_once() {
    let scene = Scene::new();
    let token = scene.token(&[]);
    let mut cut = Peer::stranger(scene.server.clients);
    cut.say(with(&token, hello(1, "web")));
    drop(cut);
    wait_for("its record", SOON, || (scene.audited("host_joined") == 1).then_some(()));
    scene.welcome(with(&token, hello(1, "web")));
    assert_eq!(
        (scene.audited("host_joined"), &scene.json(&["token", "list"])["tokens"][0]["uses"]),
        (1, &1.into())
    );
    scene.refused(with(&token, secret(9, hello(1, "web"))), Refusal::Credential);
}

#[test]
fn a_wrong_secret_never_overwrites_the_right_one_and_a_restart_changes_nothing() {
    let mut scene = Scene::new();
    scene.welcome(with(&scene.token(&[]), hello(1, "web")));
    for token in [None, Some(scene.token(&["--uses", "9"]).said())] {
        let refused = scene.refused(Hello { token, ..secret(9, hello(1, "web")) }, Refusal::Credential);
        assert!(refused.text.contains("--replace"), "{}", &*refused.text);
    }
    assert!(scene.server.stop().success());
    scene.server = Server::start(&scene.data, &[]);
    scene.refused(secret(9, hello(1, "web")), Refusal::Credential);
    scene.welcome(hello(1, "web"));
}

#[test]
fn a_revoked_host_is_closed_at_once_told_so_and_refused_until_an_administrator_lets_it_in() {
    let scene = Scene::new();
    let (mut web, _) = scene.welcome(with(&scene.token(&[]), hello(1, "web")));
    web.send(1, sample(now_ms(), 1));
    let began = Instant::now();
    let said = scene.run(&["host", "revoke", "web"]);
    assert!(said.contains("shut out"), "{said}");
    let refused = web.refusal();
    assert_eq!((refused.code, refused.retry), (Refusal::Revoked, false));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    scene.refused(hello(1, "web"), Refusal::Revoked);
    scene.refused(with(&scene.token(&["--uses", "9"]), hello(1, "web")), Refusal::Revoked);
    scene.refused(secret(9, hello(1, "web")), Refusal::Credential);
    assert!(scene.host("web")["revoked"].is_string(), "it stays in the list");
    let (mut back, _) = scene.welcome(with(&scene.token(&["--replace", "web"]), hello(1, "web")));
    back.send(2, sample(now_ms(), 2));
    assert!(scene.host("web").get("revoked").is_none());
}

#[test]
fn a_taken_name_is_never_inherited_and_a_replaced_host_keeps_name_and_history() {
    let scene = Scene::new();
    let many = scene.token(&["--uses", "9", "--label", "env=prod"]);
    let (mut old, _) = scene.welcome(with(&many, hello(1, "web")));
    let first_ms = now_ms();
    old.send(1, sample(first_ms, 1));
    let (_second, welcome) = scene.welcome(with(&many, hello(2, "web")));
    assert_eq!(&*welcome.name, "web-2");
    assert!(scene.server.log_text().contains("which is taken"), "it is logged");

    let token = scene.token(&["--replace", "web"]);
    let reinstalled = hello(3, "fresh-install");
    let (mut new, welcome) = scene.welcome(with(&token, reinstalled.clone()));
    assert_eq!(&*welcome.name, "web");
    let told = old.refusal();
    assert_eq!(told.code, Refusal::Credential, "the machine before it is shown the door: {}", &*told.text);
    assert!(told.text.contains("taken the place"), "{}", &*told.text);
    let second_ms = now_ms();
    new.send(1, sample(second_ms, 2));
    scene.refused(hello(1, "web"), Refusal::Credential);
    drop(new);
    let (_again, welcome) = scene.welcome(reinstalled);
    assert_eq!(&*welcome.name, "web", "by its secret alone");

    let host = scene.host("web");
    assert_eq!(host["id"], "01".repeat(16), "what history and InfluxDB know it by");
    assert_eq!((&host["client_id"], &host["labels"]["env"]), (&"03".repeat(16).into(), &"prod".into()));
    let path = format!(
        "/api/v1/hosts/web/series?field=system.uptime&from={}&to={}",
        first_ms - 1_000,
        second_ms + 1_000
    );
    let history = scene.server.json(&path).to_string();
    for time in [first_ms, second_ms] {
        assert!(history.contains(&time.to_string()), "one history: {time} in {history}");
    }
    let hosts = scene.server.json("/api/v1/hosts");
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 2);
}

#[test]
fn renaming_and_labelling_hold_whatever_the_client_says_and_keep_history() {
    let scene = Scene::new();
    let label = |key, value| Label { key: Text::cut(key), value: Text::cut(value) };
    let own = List::new(vec![label("env", "dev"), label("rack", "3")]).unwrap();
    let hello = Hello { labels: own, ..hello(1, "web") };
    let token = scene.token(&["--label", "env=prod"]);
    let (mut web, _) = scene.welcome(with(&token, hello.clone()));
    web.send(1, sample(now_ms(), 1));
    let said = scene.run(&["host", "rename", "web", "shop"]);
    assert!(said.contains("InfluxDB") && said.contains("\"shop\""), "{said}");
    scene.run(&["host", "label", "shop", "tier=1", "rack-"]);
    web.send(2, sample(now_ms(), 2));
    drop(web);
    let (_web, welcome) = scene.welcome(hello);
    assert_eq!(&*welcome.name, "shop");
    let host = scene.host("shop");
    assert_eq!(host["labels"], serde_json::json!({ "env": "prod", "tier": "1" }));
    assert_eq!(host["label_origins"], serde_json::json!({ "env": "token", "tier": "administrator" }));
    assert_eq!((&host["told_name"], &host["given_name"]), (&"web".into(), &"shop".into()));
    let shown = scene.run(&["host", "show", "shop"]);
    assert!(shown.contains("tier=1 (administrator)"), "{shown}");
    assert_eq!(scene.server.get("/api/v1/hosts/web").0, 404);
    scene.run(&["host", "rename", "shop", "--own"]);
    assert_eq!(scene.host("web")["id"], host["id"]);
    assert!(fails(&scene.data, &["host", "rename", "nobody", "x"]).contains("host list"));
}

#[test]
fn a_secret_is_changed_without_a_moment_in_which_none_holds() {
    let scene = Scene::new();
    let (mut web, welcome) = scene.welcome(with(&scene.token(&[]), hello(1, "web")));
    assert!(!welcome.rotate_secret);
    // Nobody asked for it.
    web.say(NewSecret { secret: Secret([7; 32]) });
    web.send(1, sample(now_ms(), 1));
    scene.run(&["host", "rotate", "web"]);
    let asked = web.refusal();
    assert!(asked.retry, "it is to connect again: {}", &*asked.text);
    scene.refused(secret(7, hello(1, "web")), Refusal::Credential);

    let (mut web, welcome) = scene.welcome(hello(1, "web"));
    assert!(welcome.rotate_secret);
    web.say(NewSecret { secret: Secret([8; 32]) });
    wait_for("the new secret", SOON, || scene.server.log_line("a host has a new secret"));
    drop(web);
    // It lost the new one, or never kept it: the old one holds, and it is asked again.
    let (mut web, welcome) = scene.welcome(hello(1, "web"));
    assert!(welcome.rotate_secret);
    web.say(NewSecret { secret: Secret([9; 32]) });
    wait_for("the newer secret", SOON, || {
        (scene.server.log_text().matches("a host has a new secret").count() == 2).then_some(())
    });
    drop(web);
    let (web, welcome) = scene.welcome(secret(9, hello(1, "web")));
    assert!(!welcome.rotate_secret, "the new one is in use");
    drop(web);
    scene.refused(hello(1, "web"), Refusal::Credential);
    assert_eq!(scene.audited("host_secret_changed"), 1);
}

#[test]
fn a_removed_host_is_not_enrolled_and_its_name_is_free() {
    let scene = Scene::new();
    let token = scene.token(&["--uses", "9"]);
    let (mut web, _) = scene.welcome(with(&token, hello(1, "web")));
    let said = scene.run(&["host", "remove", "web"]);
    assert!(said.contains("InfluxDB") && said.contains("stays"), "{said}");
    assert_eq!(web.refusal().code, Refusal::NotEnrolled);
    scene.refused(hello(1, "web"), Refusal::NotEnrolled);
    let refused = scene.refused(with(&token, hello(1, "web")), Refusal::TokenUsedUp);
    assert!(refused.text.contains("removed"), "{}", &*refused.text);
    let (_other, welcome) = scene.welcome(with(&token, hello(2, "web")));
    assert_eq!(&*welcome.name, "web");
    assert!(scene.run(&["hosts"]).contains(&"02".repeat(16)));
}

#[test]
fn commands_work_without_a_server_and_hold_when_it_starts() {
    let mut scene = Scene::new();
    let token = scene.token(&["--uses", "9"]);
    let (mut web, _) = scene.welcome(with(&token, hello(1, "web")));
    // Its clock is ahead: what is committed keeps the name that it had.
    let ahead_ms = now_ms() + 3_600_000;
    web.send(1, sample(ahead_ms, 1));
    scene.welcome(with(&token, hello(2, "db")));
    assert!(scene.server.stop().success());

    let said = scene.run(&["host", "rename", "web", "shop"]);
    assert!(said.contains("as soon as the server runs"), "{said}");
    scene.run(&["host", "label", "web", "env=prod"]);
    scene.run(&["host", "revoke", "db"]);
    assert!(scene.run(&["host", "list"]).contains("server not running"));
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "[clients]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let config = config.path().to_str().unwrap();
    assert!(fails(&scene.data, &["token", "create", "--config", config]).contains("port"));
    let made = scene.json(&["token", "create", "--address", "vitals.example.org:1"]);
    assert_eq!(made["addresses"], serde_json::json!(["vitals.example.org:1"]));
    let at_rest: JoinToken = made["token"].as_str().unwrap().parse().unwrap();

    scene.server = Server::start(&scene.data, &[]);
    let (_web, welcome) = scene.welcome(hello(1, "web"));
    assert_eq!(&*welcome.name, "shop");
    assert_eq!(scene.host("shop")["labels"]["env"], "prod");
    scene.refused(hello(2, "db"), Refusal::Revoked);
    scene.welcome(with(&at_rest, hello(3, "new")));
}

#[test]
fn the_api_does_what_the_commands_do() {
    let scene = Scene::new();
    let body = r#"{"uses":2,"labels":{"env":"prod"},"addresses":["vitals.example.org"]}"#;
    let (status, made) = scene.api("POST", "/api/v1/join-tokens", body);
    assert_eq!((status, &made["max_uses"], &made["state"]), (201, &2.into(), &"valid".into()), "{made}");
    let port = scene.server.clients.port();
    assert_eq!(made["addresses"], serde_json::json!([format!("vitals.example.org:{port}")]));
    let token: JoinToken = made["token"].as_str().unwrap().parse().unwrap();
    let (mut web, _) = scene.welcome(with(&token, hello(1, "web")));
    scene.welcome(with(&token, hello(2, "db")));
    for (body, wanted) in [
        (r#"{"uses":0}"#, 422),
        (r#"{"labels":{"host":"x"}}"#, 422),
        (r#"{"addresses":["a b"]}"#, 422),
        (r#"{"replace":"nobody"}"#, 404),
        (r#"{"more":1}"#, 422),
        ("no json", 400),
    ] {
        let (status, problem) = scene.api("POST", "/api/v1/join-tokens", body);
        assert_eq!((status, &problem["status"]), (wanted, &wanted.into()), "{body}: {problem}");
    }
    let (_, list) = scene.api("GET", "/api/v1/join-tokens", "");
    assert_eq!(list["tokens"][0]["uses"], 2);
    assert!(list["tokens"][0].get("token").is_none());
    let id = list["tokens"][0]["id"].as_str().unwrap();
    assert_eq!(scene.api("DELETE", &format!("/api/v1/join-tokens/{id}"), "").1["state"], "revoked");
    assert_eq!(scene.api("DELETE", "/api/v1/join-tokens/none", "").0, 404);

    let patch = r#"{"name":"shop","labels":{"tier":"1","env":null}}"#;
    let (status, host) = scene.api("PATCH", "/api/v1/hosts/web", patch);
    assert_eq!((status, &host["name"]), (200, &"shop".into()), "{host}");
    assert_eq!(host["labels"], serde_json::json!({ "tier": "1" }));
    for (body, wanted) in [
        (r#"{"name":"db"}"#, 409),
        (r#"{"name":"a/b"}"#, 422),
        (r#"{"labels":{"host":"x"}}"#, 422),
        (r#"{"names":"x"}"#, 422),
    ] {
        assert_eq!(scene.api("PATCH", "/api/v1/hosts/shop", body).0, wanted, "{body}");
    }
    assert_eq!(scene.api("PATCH", "/api/v1/hosts/shop", r#"{"name":null}"#).1["name"], "web");
    assert_eq!(scene.api("POST", "/api/v1/hosts/web/rotate", "").1["rotate"], true);
    assert!(web.refusal().retry);
    assert!(scene.api("POST", "/api/v1/hosts/web/revoke", "").1["revoked"].is_string());
    let (status, removed) = scene.api("DELETE", "/api/v1/hosts/web", "");
    assert_eq!((status, &removed["name"]), (200, &"web".into()));
    assert_eq!(scene.api("DELETE", "/api/v1/hosts/web", "").0, 404);
    scene.refused(hello(1, "web"), Refusal::NotEnrolled);
}
