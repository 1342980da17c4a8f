//! Who may do what: every operation of the running server's OpenAPI document, tried by everybody there can be, against the
//! table beside this file.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};
use support::peer::{self, Peer};
use support::server::{Server, api_token};
use vitals_wire::bounded::{List, Text};
use vitals_wire::message::{Hello, Label};
use vitals_wire::token::JoinToken;

const TABLE: &str = include_str!("rights/table.txt");
const PHRASE: &str = "a phrase of five words";
const OTHER: &str = "another phrase of words";
/// The columns of the table, in its order.
const CALLERS: [&str; 10] =
    ["nobody", "viewer", "V in", "V out", "admin", "read", "write", "W in", "W out", "all"];

/// What somebody who asks shows, as lines of a request's head.
type Shown = String;

/// A running server, its administrator, and what is made for a test.
struct World {
    server: Server,
    _dir: tempfile::TempDir,
    /// An administrator's API token, as a line of a request's head.
    admin: Shown,
    /// Join tokens for hosts in the scope, and for others.
    joins: [JoinToken; 2],
    /// Counts what was made, for names that nothing else has.
    made: Cell<u8>,
}

impl World {
    fn new() -> Self {
        let dir =
            tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let password = [("VITALS_ADMIN_PASSWORD", PHRASE)];
        let server = Server::start_at(dir.path(), loopback, loopback, &[], &password);
        let admin = bearer(server.token.as_deref().unwrap());
        let joins = ["prod", "test"].map(|env| {
            let body = json!({ "uses": 1_000, "labels": { "env": env }, "addresses": ["127.0.0.1"] });
            let made = ask(server.http, "POST", "/api/v1/join-tokens", &admin, Some(&body));
            assert_eq!(made.0, 201, "{made:?}");
            let made: Value = serde_json::from_str(&made.1).unwrap();
            made["token"].as_str().unwrap().parse().unwrap()
        });
        Self { server, _dir: dir, admin, joins, made: Cell::new(0) }
    }

    fn ask(&self, method: &str, path: &str, shown: &str, body: Option<&Value>) -> (u16, String) {
        ask(self.server.http, method, path, shown, body)
    }

    /// What an administrator makes, which must succeed.
    fn make(&self, path: &str, body: &Value) -> Value {
        let (status, text) = self.ask("POST", path, &self.admin, Some(body));
        assert_eq!(status, 201, "{path} {body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    fn number(&self) -> u8 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }

    /// The id of a new host that has sent a sample, with the label `env=prod` if it is to be in the scope.
    fn host(&self, in_scope: bool) -> String {
        let id = self.number();
        let said = self.joins[usize::from(!in_scope)].said();
        let hello = Hello { token: Some(said), ..peer::hello(id, &format!("host-{id}")) };
        let (mut peer, _) = Peer::welcome(self.server.clients, hello);
        peer.send(1, peer::sample(peer::now_ms(), 60));
        format!("{id:02x}").repeat(16)
    }

    /// The name of a new user with the password [`PHRASE`].
    fn user(&self, role: &str, scope: &Value, must_change: bool) -> String {
        let name = format!("user-{}", self.number());
        let body = json!({
            "name": name, "password": PHRASE, "role": role, "scope": scope, "must_change": must_change,
        });
        self.make("/api/v1/users", &body);
        name
    }

    /// Logs in, as the server's own page does.
    fn log_in(&self, name: &str) -> Shown {
        let body = json!({ "name": name, "password": PHRASE });
        let answer = whole(self.server.http, "POST", "/api/v1/session", "", Some(&body));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let set = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let cookie = set.split(';').next().unwrap();
        format!("Cookie: {cookie}\r\nOrigin: http://{}\r\n", self.server.http)
    }

    /// Somebody new of this column.
    fn caller(&self, column: &str) -> Shown {
        let scope = json!({ "env": "prod" });
        let token = |access: &str, scope: &[&str]| {
            let name = format!("token-{}", self.number());
            let args = [&["--access", access], scope].concat();
            bearer(&api_token(self._dir.path(), &name, &args).unwrap())
        };
        match column {
            "nobody" => String::new(),
            "viewer" => self.log_in(&self.user("viewer", &json!({}), false)),
            "V in" | "V out" => self.log_in(&self.user("viewer", &scope, false)),
            "admin" => self.log_in(&self.user("admin", &json!({}), false)),
            "read" => token("read", &[]),
            "write" => token("write", &[]),
            "W in" | "W out" => token("write", &["--scope", "env=prod"]),
            "all" => token("admin", &[]),
            other => panic!("no such caller: {other}"),
        }
    }

    /// Operations as `GET /healthz`, as the running server describes them.
    fn operations(&self) -> Vec<String> {
        let document = self.server.json("/api/openapi.json");
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        operations.collect()
    }

    /// Path and body of a request that is refused for want of rights alone. What it needs is made for it.
    fn request(&self, operation: &str, in_scope: bool) -> (String, Option<Value>) {
        let (method, path) = operation.split_once(' ').unwrap();
        let env = if in_scope { "prod" } else { "test" };
        let labels = json!({ "env": env });
        let new = |what: &str| format!("{what}-{}", self.number());
        let path = match path {
            _ if path.contains("{host}") => path.replace("{host}", &self.host(in_scope)),
            "/api/v1/join-tokens/{id}" => {
                let body = json!({ "labels": labels, "addresses": ["127.0.0.1"] });
                let made = self.make("/api/v1/join-tokens", &body);
                path.replace("{id}", made["id"].as_str().unwrap())
            }
            "/api/v1/users/{name}" => path.replace("{name}", &self.user("viewer", &json!({}), false)),
            "/api/v1/tokens/{id}" => {
                let made = self.make("/api/v1/tokens", &json!({ "name": new("target"), "access": "read" }));
                path.replace("{id}", made["token"]["id"].as_str().unwrap())
            }
            path => path.to_owned(),
        };
        let body = match operation {
            "PATCH /api/v1/hosts/{host}" => json!({ "labels": { "rack": "r1" } }),
            "POST /api/v1/join-tokens" => json!({ "labels": labels, "addresses": ["127.0.0.1"] }),
            "POST /api/v1/session" => json!({ "name": "admin", "password": PHRASE }),
            "PUT /api/v1/me/password" => json!({ "current": PHRASE, "new": OTHER }),
            "POST /api/v1/users" => json!({ "name": new("new"), "password": OTHER, "role": "viewer" }),
            "PATCH /api/v1/users/{name}" => json!({ "scope": { "env": "dev" } }),
            "POST /api/v1/tokens" => json!({ "name": new("new"), "access": "read" }),
            // Whoever adds an operation says here what a request for it is.
            _ => {
                let has_none = ["GET", "DELETE"].contains(&method)
                    || path.ends_with("/rotate")
                    || path.ends_with("/revoke");
                assert!(has_none, "what does one send with {operation}?");
                let query = if path.ends_with("/series") { "?field=system.uptime" } else { "" };
                return (path + query, None);
            }
        };
        (path, Some(body))
    }
}

fn bearer(token: &str) -> Shown {
    format!("Authorization: Bearer {token}\r\n")
}

/// The whole answer to a request.
fn whole(server: SocketAddr, method: &str, path: &str, shown: &str, body: Option<&Value>) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{shown}");
    if !body.is_empty() {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Status and body.
fn ask(server: SocketAddr, method: &str, path: &str, shown: &str, body: Option<&Value>) -> (u16, String) {
    let answer = whole(server, method, path, shown, body);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What the table says: the statuses of each operation, in the order of [`CALLERS`].
fn table() -> BTreeMap<String, Vec<u16>> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let mut table = BTreeMap::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let operation = format!("{} {}", words.next().unwrap(), words.next().unwrap());
        let statuses: Vec<u16> = words.map(|status| status.parse().unwrap()).collect();
        assert_eq!(statuses.len(), CALLERS.len(), "{line}");
        assert!(table.insert(operation, statuses).is_none(), "twice: {line}");
    }
    table
}

#[test]
fn everybody_may_do_what_the_table_says_and_the_table_knows_every_operation() {
    let world = World::new();
    let (table, operations) = (table(), world.operations());
    for operation in &operations {
        assert!(table.contains_key(operation), "{operation} is missing in the table");
    }
    for operation in table.keys() {
        assert!(operations.contains(operation), "the table's {operation} is not in the document");
    }
    let callers = CALLERS.map(|column| world.caller(column));
    // Hosts and users are numbered by a byte: what only looks takes what is there.
    let looked_at = operations.iter().filter(|operation| operation.starts_with("GET "));
    let looked_at: BTreeMap<_, _> = looked_at
        .map(|operation| (operation, [false, true].map(|in_scope| world.request(operation, in_scope))))
        .collect();
    let mut wrong = Vec::new();
    for operation in &operations {
        let (method, _) = operation.split_once(' ').unwrap();
        for ((column, usual), wanted) in CALLERS.iter().zip(&callers).zip(&table[operation]) {
            let in_scope = !column.ends_with(" out");
            // What is asked for is new for each who might change it.
            let (path, body) = match looked_at.get(operation) {
                Some(there) => there[usize::from(in_scope)].clone(),
                None => world.request(operation, in_scope),
            };
            // These end the login that they come with.
            let ends_login = ["DELETE /api/v1/session", "PUT /api/v1/me/password"];
            let is_person = usual.starts_with("Cookie");
            let own = (is_person && ends_login.contains(&operation.as_str())).then(|| world.caller(column));
            let (status, text) = world.ask(method, &path, own.as_ref().unwrap_or(usual), body.as_ref());
            if status != *wanted {
                wrong.push(format!("{operation} as {column}: {status} instead of {wanted}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_changes_something_is_refused_when_another_sites_page_asks_with_a_persons_cookie() {
    let world = World::new();
    let own = world.log_in("admin");
    let cookie = own.split_inclusive("\r\n").next().unwrap();
    let mut count = 0;
    for operation in world.operations().iter().filter(|operation| !operation.starts_with("GET ")) {
        let (method, _) = operation.split_once(' ').unwrap();
        let (path, body) = world.request(operation, true);
        for foreign in
            ["Origin: https://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"]
        {
            let (status, text) = world.ask(method, &path, &format!("{cookie}{foreign}"), body.as_ref());
            assert_eq!(status, 403, "{operation} with {foreign}: {text}");
        }
        count += 1;
    }
    assert!(count > 10, "{count}");
    assert_eq!(world.ask("GET", "/api/v1/me", &own, None).0, 200, "none of them ended the login");
}

#[test]
fn who_must_change_the_password_does_nothing_before() {
    let world = World::new();
    let newcomer = world.user("admin", &json!({}), true);
    let shown = world.log_in(&newcomer);
    // These come last: they end the login.
    let (last, others): (Vec<_>, Vec<_>) = world.operations().into_iter().partition(|operation| {
        ["PUT /api/v1/me/password", "DELETE /api/v1/session"].contains(&operation.as_str())
    });
    for operation in others {
        let (method, _) = operation.split_once(' ').unwrap();
        let (path, body) = world.request(&operation, true);
        let wanted = match operation.as_str() {
            // Open to all, and who one is.
            "GET /healthz" | "GET /readyz" | "POST /api/v1/session" | "GET /api/v1/me" => 200,
            _ => 403,
        };
        let (status, text) = world.ask(method, &path, &shown, body.as_ref());
        assert_eq!(status, wanted, "{operation}: {text}");
        assert!(wanted == 200 || text.contains("/api/v1/me/password"), "{operation} says what to do: {text}");
    }
    assert_eq!(last.len(), 2);
    assert_eq!(world.ask("DELETE", "/api/v1/session", &shown, None).0, 204);
    let change = json!({ "current": PHRASE, "new": OTHER });
    let shown = world.log_in(&newcomer);
    assert_eq!(world.ask("PUT", "/api/v1/me/password", &shown, Some(&change)).0, 200);
}

#[test]
fn a_tokens_and_an_administrators_label_puts_a_host_into_a_viewers_scope_and_its_own_does_not() {
    let world = World::new();
    let viewer = world.caller("V in");
    let inside = world.host(true);
    // It says that it is of prod; its token says nothing.
    let own = Label { key: Text::cut("env"), value: Text::cut("prod") };
    let id = world.number();
    let hello = Hello { labels: List::new(vec![own]).unwrap(), ..peer::hello(id, "pretender") };
    let (mut peer, _) = Peer::welcome(world.server.clients, hello);
    peer.send(1, peer::sample(peer::now_ms(), 60));
    let pretender = format!("{id:02x}").repeat(16);
    let labels = |host: &str| world.server.json(&format!("/api/v1/hosts/{host}"))["label_origins"].clone();
    assert_eq!(labels(&inside), json!({ "env": "token" }));
    assert_eq!(labels(&pretender), json!({ "env": "client" }));

    let seen = |host: &str| {
        let (status, list) = world.ask("GET", "/api/v1/hosts", &viewer, None);
        assert_eq!(status, 200);
        let list: Value = serde_json::from_str(&list).unwrap();
        let listed = list["hosts"].as_array().unwrap().iter().any(|entry| entry["id"] == host);
        let one = ["", "/latest", "/series?field=system.uptime"]
            .map(|what| world.ask("GET", &format!("/api/v1/hosts/{host}{what}"), &viewer, None).0);
        (listed, one)
    };
    let (visible, hidden) = ((true, [200; 3]), (false, [404; 3]));
    assert_eq!(seen(&inside), visible);
    assert_eq!(seen(&pretender), hidden, "what a host says of itself counts for nothing");
    let label = |value: Value| {
        let path = format!("/api/v1/hosts/{pretender}");
        let body = json!({ "labels": { "env": value } });
        assert_eq!(world.ask("PATCH", &path, &world.admin, Some(&body)).0, 200);
    };
    label(json!("prod"));
    assert_eq!(seen(&pretender), visible, "an administrator's counts");
    label(json!("test"));
    assert_eq!(seen(&pretender), hidden);
    label(json!(""));
    assert_eq!(labels(&pretender), json!({ "env": "client" }), "left to the client again");
    assert_eq!(seen(&pretender), hidden);
}
