//! People, logins and API tokens: the real server process on loopback, its files and its commands.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::peer::{self, Peer};
use support::secrets;
use support::server::{Server, api_token, wait_for};

const PHRASE: &str = "a phrase of five words";
const OTHER: &str = "another phrase of words";

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The cookie that it sets, as a browser sends it back.
    fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").unwrap().split(';').next().unwrap();
        secrets::remember("a login's id", cookie.split_once('=').unwrap().1);
        cookie.to_owned()
    }
}

/// Somebody who asks.
#[derive(Clone, Default)]
struct Asker {
    from: Option<IpAddr>,
    headers: Vec<(&'static str, String)>,
}

impl Asker {
    fn bearer(token: &str) -> Self {
        Self { from: None, headers: vec![("Authorization", format!("Bearer {token}"))] }
    }

    /// A browser on the server's own page.
    fn browser(server: &Server, cookie: &str) -> Self {
        let origin = format!("http://{}", server.http);
        Self { from: None, headers: vec![("Cookie", cookie.to_owned()), ("Origin", origin)] }
    }

    fn ask(&self, server: &Server, method: &str, path: &str, body: Option<Value>) -> Answer {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        }
        socket.connect(&server.http.into()).unwrap();
        let mut stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", server.http);
        for (name, value) in &self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        if !body.is_empty() {
            request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        secrets::remember_printed(body);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn get(&self, server: &Server, path: &str) -> Answer {
        self.ask(server, "GET", path, None)
    }

    fn log_in(&self, server: &Server, name: &str, password: &str) -> Answer {
        self.ask(server, "POST", "/api/v1/session", Some(json!({ "name": name, "password": password })))
    }
}

fn logged_in(server: &Server, name: &str, password: &str) -> Asker {
    let answer = Asker::default().log_in(server, name, password);
    assert_eq!(answer.status, 200, "{answer:?}");
    Asker::browser(server, &answer.cookie())
}

/// A directory as a server wants it.
fn home() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

/// Starts a server whose administrator has [`PHRASE`].
fn start(dir: &Path, args: &[&str]) -> Server {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Server::start_at(dir, loopback, loopback, args, &[("VITALS_ADMIN_PASSWORD", PHRASE)])
}

fn command(dir: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who needs none may be gone.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    if stdin.len() >= 8 {
        secrets::remember("a password", stdin.trim_end());
    }
    let output = child.wait_with_output().unwrap();
    secrets::remember_printed(&String::from_utf8_lossy(&output.stdout));
    output
}

/// The standard output of a command that must succeed.
fn done(dir: &Path, args: &[&str], stdin: &str) -> String {
    let output = command(dir, args, stdin);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn actions(server: &Server) -> Vec<(String, String, String)> {
    let log = server.json("/api/v1/audit?limit=1000");
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = log["entries"].as_array().unwrap().iter();
    entries.map(|entry| (text(entry, "action"), text(entry, "who"), text(entry, "target"))).collect()
}

fn has(all: &[(String, String, String)], action: &str, who: &str, target: &str) -> bool {
    all.iter().any(|(a, w, t)| (a.as_str(), w.as_str(), t.as_str()) == (action, who, target))
}

/// All that lies in a directory, but for these files.
fn holds_text(dir: &Path, text: &str, but: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(holds_text(&entry.path(), text, but));
        } else if entry.file_type().unwrap().is_file() && !but.contains(&name.as_str()) {
            let bytes = std::fs::read(entry.path()).unwrap();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn the_first_password_lies_in_its_file_until_it_is_changed_which_comes_before_all_else() {
    let dir = home();
    let mut server = Server::start(dir.path(), &[]);
    let file = dir.path().join("admin-password");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let first = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(server.log_text().contains(file.to_str().unwrap()), "the log names the file");
    assert!(!server.log_text().contains(&first), "and not what is in it");

    let answer = Asker::default().log_in(&server, "admin", &first);
    assert_eq!(answer.status, 200, "{answer:?}");
    let set = answer.header("set-cookie").unwrap();
    assert!(
        set.starts_with("vitals-session=") && set.contains("HttpOnly") && set.contains("SameSite=Lax"),
        "{set}"
    );
    assert_eq!(answer.json()["must_change"], true);
    let admin = Asker::browser(&server, &answer.cookie());
    for path in ["/api/v1/hosts", "/api/v1/users", "/api/openapi.json", "/metrics"] {
        let answer = admin.get(&server, path);
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.body.contains("/api/v1/me/password"), "{answer:?}");
    }
    assert_eq!(admin.get(&server, "/api/v1/me").status, 200);

    let change = |asker: &Asker, current: &str, new: &str| {
        let body = json!({ "current": current, "new": new });
        asker.ask(&server, "PUT", "/api/v1/me/password", Some(body))
    };
    assert_eq!(change(&admin, "not the present one", PHRASE).status, 403);
    for bad in ["short", "aaaaaaaaaaaaaaaa", "adminadminadmin", &first] {
        assert_eq!(change(&admin, &first, bad).status, 422, "{bad}");
    }
    assert!(file.exists());
    let changed = change(&admin, &first, PHRASE);
    assert_eq!(changed.status, 200, "{changed:?}");
    assert!(!file.exists(), "out of use");
    assert_eq!(admin.get(&server, "/api/v1/me").status, 401, "the logins before have ended");
    let admin = Asker::browser(&server, &changed.cookie());
    assert_eq!(admin.get(&server, "/api/v1/hosts").status, 200);
    assert_eq!(Asker::default().log_in(&server, "admin", &first).status, 401);

    // A restart keeps the login, and makes nobody anew.
    server.stop();
    let server = Server::start(dir.path(), &[]);
    assert!(!file.exists());
    assert_eq!(admin.get(&server, "/api/v1/me").json()["name"], "admin");
}

#[test]
fn one_logs_out_here_or_everywhere_and_a_login_ends_by_itself() {
    let dir = home();
    let config = dir.path().join("server.toml");
    std::fs::write(&config, "[accounts]\nsession_idle = \"3s\"\nsession_lifetime = \"8s\"\n").unwrap();
    let server = start(&dir.path().join("data"), &["--config", config.to_str().unwrap()]);
    let [one, two, three] = [(); 3].map(|()| logged_in(&server, "admin", PHRASE));
    let me = |asker: &Asker| asker.get(&server, "/api/v1/me").status;
    let gone = one.ask(&server, "DELETE", "/api/v1/session", None);
    assert_eq!(gone.status, 204);
    assert!(gone.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!((me(&one), me(&two), me(&three)), (401, 200, 200));
    assert_eq!(two.ask(&server, "DELETE", "/api/v1/session?everywhere=true", None).status, 204);
    assert_eq!((me(&two), me(&three)), (401, 401));

    // Used, it outlives the idle time, and ends at the end of its life all the same.
    let (used, idle) = (logged_in(&server, "admin", PHRASE), logged_in(&server, "admin", PHRASE));
    let start = std::time::Instant::now();
    let mut lived = Duration::ZERO;
    wait_for("the end of a login's life", Duration::from_secs(30), || {
        if me(&used) == 200 {
            lived = start.elapsed();
            return None;
        }
        Some(())
    });
    assert!(lived > Duration::from_secs(4), "ended after {lived:?}");
    assert_eq!(me(&idle), 401);
}

#[test]
fn another_sites_page_changes_nothing_with_a_persons_cookie() {
    let dir = home();
    let server = start(dir.path(), &[]);
    let own = logged_in(&server, "admin", PHRASE);
    let user = || Some(json!({ "name": "eve", "password": OTHER, "role": "admin" }));
    for foreign in [
        None,
        Some(("Origin", "https://evil.example")),
        Some(("Origin", "null")),
        Some(("Sec-Fetch-Site", "cross-site")),
    ] {
        let mut asker = own.clone();
        asker.headers.truncate(1);
        asker.headers.extend(foreign.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(asker.ask(&server, "POST", "/api/v1/users", user()).status, 403, "{foreign:?}");
        assert_eq!(asker.ask(&server, "DELETE", "/api/v1/session", None).status, 403, "{foreign:?}");
        assert_eq!(asker.get(&server, "/api/v1/users").status, 200, "looking is free");
    }
    let evil = Asker { from: None, headers: vec![("Origin", "https://evil.example".to_owned())] };
    assert_eq!(evil.log_in(&server, "admin", PHRASE).status, 403, "nor logs anybody in");
    assert_eq!(own.ask(&server, "POST", "/api/v1/users", user()).status, 201);
    let token = Asker::bearer(server.token.as_deref().unwrap());
    assert_eq!(
        token.ask(&server, "DELETE", "/api/v1/users/eve", None).status,
        204,
        "a token needs no origin"
    );
}

#[test]
fn who_guesses_waits_while_others_log_in() {
    let dir = home();
    let server = start(dir.path(), &[]);
    let guesser = Asker { from: Some([127, 0, 0, 2].into()), headers: Vec::new() };
    let answers: Vec<Answer> =
        (0..8).map(|i| guesser.log_in(&server, "admin", &format!("wrong guess {i}"))).collect();
    assert_eq!(answers[0].status, 401);
    assert_eq!(answers[0].header("www-authenticate"), Some("Bearer"));
    assert_eq!(answers[0].header("content-type"), Some("application/problem+json"));
    let waits = answers.iter().find(|answer| answer.status == 429).expect("a delay");
    assert!(waits.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(guesser.log_in(&server, "admin", PHRASE).status, 429, "the right one waits too");
    logged_in(&server, "admin", PHRASE);

    let unknown = guesser.log_in(&server, "my secret typed as a name", "whatever it may be");
    assert_eq!(
        (unknown.status, &unknown.body),
        (401, &answers[0].body),
        "who is unknown is answered the same"
    );
    let log = actions(&server);
    assert!(
        has(&log, "login_failed", "-", "admin") && has(&log, "login_failed", "-", "(unknown)"),
        "{log:?}"
    );
    assert!(has(&log, "login", "admin", "admin"));
    assert!(
        !server.log_text().contains("typed as a name"),
        "what is typed in the wrong field is told to nobody"
    );
}

#[test]
fn each_sees_and_does_what_role_access_and_scope_say() {
    let dir = home();
    let server = start(dir.path(), &[]);
    let nobody = Asker::default();
    for path in [
        "/",
        "/nothing",
        "/api/openapi.json",
        "/metrics",
        "/api/v1/hosts",
        "/api/v1/me",
        "/api/v1/users",
        "/api/v1/targets",
    ] {
        let answer = nobody.get(&server, path);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(nobody.get(&server, path).status, 200, "{path}");
    }
    assert_eq!(Asker::bearer("vt_wrong").get(&server, "/api/v1/hosts").status, 401);

    let admin = logged_in(&server, "admin", PHRASE);
    let add = |name: &str, role: &str, scope: Value| {
        let body = json!({ "name": name, "password": OTHER, "role": role, "scope": scope });
        admin.ask(&server, "POST", "/api/v1/users", Some(body)).status
    };
    assert_eq!(add("vera", "viewer", json!({})), 201);
    assert_eq!(add("sam", "viewer", json!({ "env": "prod" })), 201);
    assert_eq!(add("sam", "viewer", json!({})), 409);
    assert_eq!(add("ann", "admin", json!({ "env": "prod" })), 422, "an administrator sees all");
    assert_eq!(add("local", "viewer", json!({})), 422, "the audit log's own word");
    assert_eq!(add("a b", "viewer", json!({})), 422);
    let (vera, sam) = (logged_in(&server, "vera", OTHER), logged_in(&server, "sam", OTHER));
    for (who, open, closed) in [
        (
            &vera,
            &["/api/v1/hosts", "/metrics", "/api/v1/targets", "/api/v1/quarantine"][..],
            &["/api/v1/users", "/api/v1/tokens", "/api/v1/audit"][..],
        ),
        (&sam, &["/api/v1/hosts"], &["/metrics", "/api/v1/targets", "/api/v1/quarantine", "/api/v1/users"]),
    ] {
        for path in open {
            assert_eq!(who.get(&server, path).status, 200, "{path}");
        }
        for path in closed {
            assert_eq!(who.get(&server, path).status, 403, "{path}");
        }
        assert_eq!(
            who.ask(&server, "POST", "/api/v1/tokens", Some(json!({ "name": "x", "access": "read" }))).status,
            403
        );
    }

    // The last administrator stays.
    assert_eq!(admin.ask(&server, "DELETE", "/api/v1/users/admin", None).status, 409);
    let demoted = Some(json!({ "role": "viewer" }));
    assert_eq!(admin.ask(&server, "PATCH", "/api/v1/users/admin", demoted).status, 409);
    assert_eq!(admin.get(&server, "/api/v1/me").status, 200, "what is refused ends no login");
    // A change of scope, and a removal, end that one's logins.
    let scope = Some(json!({ "scope": { "env": "dev" } }));
    assert_eq!(admin.ask(&server, "PATCH", "/api/v1/users/vera", scope).status, 200);
    assert_eq!(admin.ask(&server, "DELETE", "/api/v1/users/sam", None).status, 204);
    assert_eq!((vera.get(&server, "/api/v1/me").status, sam.get(&server, "/api/v1/me").status), (401, 401));
    assert_eq!(admin.get(&server, "/api/v1/users/sam").status, 404);
    let log = actions(&server);
    for (action, target) in [("user_added", "sam"), ("user_changed", "vera"), ("user_removed", "sam")] {
        assert!(has(&log, action, "admin", target), "{action}: {log:?}");
    }
}

#[test]
fn a_scoped_viewer_sees_nothing_of_hosts_outside_the_scope() {
    let dir = home();
    let server = start(dir.path(), &[]);
    let (mut peer, _) = Peer::welcome(server.clients, peer::hello(7, "web-1"));
    peer.send(1, peer::sample(peer::now_ms(), 60));
    let add = ["user", "add", "sam", "--role", "viewer", "--scope", "env=prod"];
    done(dir.path(), &add, OTHER);
    done(dir.path(), &["user", "add", "vera", "--role", "viewer"], OTHER);
    let (sam, vera) = (logged_in(&server, "sam", OTHER), logged_in(&server, "vera", OTHER));
    let names = |who: &Asker| {
        let listed = who.get(&server, "/api/v1/hosts").json();
        listed["hosts"].as_array().unwrap().iter().map(|host| host["name"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!((names(&vera), names(&sam)), (vec!["\"web-1\"".to_owned()], Vec::new()));
    for path in [
        "/api/v1/hosts/web-1",
        "/api/v1/hosts/web-1/latest",
        "/api/v1/hosts/web-1/series?field=system.uptime",
    ] {
        assert_eq!(vera.get(&server, path).status, 200, "{path}");
        let (hidden, unknown) = (sam.get(&server, path), sam.get(&server, &path.replace("web-1", "web-9")));
        assert_eq!(hidden.status, 404, "{path}");
        assert_eq!(hidden.body.replace("web-1", "web-9"), unknown.body, "as if there were none");
    }
}

#[test]
fn an_api_token_does_what_it_is_for_until_it_is_revoked() {
    let dir = home();
    let mut server = start(dir.path(), &[]);
    let admin = logged_in(&server, "admin", PHRASE);
    let create = |body: Value| admin.ask(&server, "POST", "/api/v1/tokens", Some(body));
    let made = create(json!({ "name": "api-admin", "access": "admin", "expires": "never" }));
    assert_eq!(made.status, 201, "{made:?}");
    let by_api = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(by_api.starts_with("vt_") && by_api.len() == 46);
    assert_eq!(create(json!({ "name": "api-admin", "access": "read" })).status, 409);
    assert_eq!(
        create(json!({ "name": "old", "access": "read", "expires": "2001-01-01T00:00:00Z" })).status,
        422
    );
    assert_eq!(create(json!({ "name": "a", "access": "admin", "scope": { "env": "prod" } })).status, 422);
    assert_eq!(create(json!({ "name": "a", "access": "root" })).status, 422);

    let read = done(dir.path(), &["api-token", "create", "--name", "r", "--access", "read"], "");
    let read = read.trim_end();
    assert!(read.starts_with("vt_") && !read.contains(char::is_whitespace), "the token alone: {read:?}");
    let write = api_token(dir.path(), "w", &["--access", "write", "--scope", "env=prod"]).unwrap();
    let status = |token: &str, path: &str| Asker::bearer(token).get(&server, path).status;
    for (token, hosts, targets, users) in
        [(read, 200, 200, 403), (&write, 200, 403, 403), (&by_api, 200, 200, 200)]
    {
        let got = (
            status(token, "/api/v1/hosts"),
            status(token, "/api/v1/targets"),
            status(token, "/api/v1/users"),
        );
        assert_eq!(got, (hosts, targets, users));
    }
    let me = Asker::bearer(&write).get(&server, "/api/v1/me").json();
    assert_eq!(
        (&me["kind"], &me["access"], &me["scope"]["env"]),
        (&json!("token"), &json!("write"), &json!("prod"))
    );
    let password = Some(json!({ "current": PHRASE, "new": OTHER }));
    assert_eq!(Asker::bearer(&by_api).ask(&server, "PUT", "/api/v1/me/password", password).status, 403);
    let listed = admin.get(&server, "/api/v1/tokens");
    assert!(!listed.body.contains(read) && listed.body.contains("last_used"), "{listed:?}");

    assert!(command(dir.path(), &["api-token", "revoke", "r"], "").status.success());
    assert_eq!(status(read, "/api/v1/hosts"), 401, "at once");
    assert_eq!(admin.ask(&server, "DELETE", "/api/v1/tokens/api-admin", None).status, 204);
    assert_eq!(status(&by_api, "/api/v1/hosts"), 401);
    assert_eq!(admin.ask(&server, "DELETE", "/api/v1/tokens/api-admin", None).status, 404);
    let log = actions(&server);
    assert!(has(&log, "token_created", "local", "r") && has(&log, "token_revoked", "local", "r"), "{log:?}");
    assert!(
        has(&log, "token_created", "admin", "api-admin") && has(&log, "token_revoked", "admin", "api-admin")
    );

    // Nothing of it lies anywhere in plain.
    server.stop();
    for secret in [read, &write, &by_api, PHRASE, &admin.headers[0].1["vitals-session=".len()..]] {
        assert_eq!(holds_text(dir.path(), secret, &[]), Vec::<String>::new());
        assert!(!server.log_text().contains(secret));
    }
    let listed = done(dir.path(), &["api-token", "list", "--json"], "");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let kept = listed["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "w");
    assert_eq!(kept.unwrap()["access"], "write", "at rest too: {listed}");
}

#[test]
fn the_commands_work_beside_a_server_and_without_one() {
    let dir = home();
    let mut server = start(dir.path(), &[]);
    done(dir.path(), &["user", "add", "ann", "--role", "admin"], &format!("{OTHER}\n"));
    let ann = logged_in(&server, "ann", OTHER);
    let output = command(dir.path(), &["user", "add", "bob"], "short");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("at least 12 characters"));

    let made = done(dir.path(), &["user", "passwd", "ann", "--generate"], "");
    assert_eq!(ann.get(&server, "/api/v1/me").status, 401, "her logins have ended");
    let again = Asker::default().log_in(&server, "ann", made.trim_end());
    assert_eq!((again.status, &again.json()["must_change"]), (200, &json!(true)));
    assert!(has(&actions(&server), "password_changed", "local", "ann"));
    assert!(!server.log_text().contains(made.trim_end()));

    server.stop();
    let elsewhere = home();
    let file = elsewhere.path().join("new-password");
    std::fs::write(&file, format!("{OTHER} again\n")).unwrap();
    done(dir.path(), &["user", "passwd", "admin", "--password-file", file.to_str().unwrap()], "");
    done(dir.path(), &["user", "remove", "ann"], "");
    let output = command(dir.path(), &["user", "remove", "admin"], "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("last administrator"));
    let listed: Value = serde_json::from_str(&done(dir.path(), &["user", "list", "--json"], "")).unwrap();
    assert_eq!(listed["users"].as_array().unwrap().len(), 1, "{listed}");
    assert!(done(dir.path(), &["user", "list"], "").starts_with("name"));

    let server = start(dir.path(), &[]);
    assert_eq!(
        Asker::default().log_in(&server, "admin", PHRASE).status,
        401,
        "the configuration's is for the first start"
    );
    logged_in(&server, "admin", &format!("{OTHER} again"));
}

#[test]
fn a_first_password_that_cannot_be_is_refused_with_words() {
    let dir = home();
    let output = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
        .args(["run", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .env("VITALS_ADMIN_PASSWORD", "elevenchars")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("VITALS_ADMIN_PASSWORD")
            && said.contains("12 characters")
            && !said.contains("elevenchars")
    );
}
