//! No secret is shown or kept where none may be: a whole life of a server, its people and its hosts, logged as loudly as
//! can be on both sides, and then all of it searched for every secret that was in use.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::client::{Client, ask_client, client_binary};
use support::peer::secret;
use support::secrets;
use support::server::{Answer, Server, command, wait_for};
use vitals_wire::token::JoinToken;

const LONG: Duration = Duration::from_secs(60);
const FIRST: &str = "a first phrase of several words";
const SECOND: &str = "the second phrase, after a change";
const WRONG: &str = "not at all the right phrase";
const INFLUX: &str = "influx-token-of-this-test-0123456789==";

/// An InfluxDB that knows nobody.
fn influxdb() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
            let mut request = [0; 1 << 16];
            while matches!(stream.read(&mut request), Ok(n) if n > 0) {}
            let body = r#"{"code":"unauthorized","message":"unauthorized access"}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// All that the program prints, which must hold no secret.
fn prints(mut command: Command) -> String {
    let output = command.output().unwrap();
    let printed =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(secrets::in_text(&printed), Default::default(), "{command:?}: {printed}");
    printed
}

/// A browser's request to the server's own page.
fn browse(server: &Server, method: &str, path: &str, body: Value, cookie: &str) -> Answer {
    let origin = format!("https://{}", server.http);
    let mut headers = vec![("Origin", &*origin)];
    if !cookie.is_empty() {
        headers.push(("Cookie", cookie));
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.ask(method, path, &body, &headers)
}

/// Logs in; gives the cookie.
fn log_in(server: &Server, name: &str, password: &str) -> Result<String, u16> {
    let body = json!({ "name": name, "password": password });
    let answer = browse(server, "POST", "/api/v1/session", body, "");
    let head = answer.head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie"));
    let Some(cookie) = head.filter(|_| answer.status == 200) else { return Err(answer.status) };
    let cookie = cookie.split_once(": ").unwrap().1.split(';').next().unwrap();
    secrets::remember("a login's id", cookie.split_once('=').unwrap().1);
    Ok(cookie.to_owned())
}

fn client(dir: &Path, name: &str, more: &[&str], env: &[(&str, &str)]) -> Client {
    let mut command = Command::new(client_binary());
    command.args(["run", "--log-level", "debug", "--interval", "1s", "--hostname", name, "--data-dir"]);
    command.arg(dir.join(name)).args(more).envs(env.iter().copied());
    Client::spawn(command)
}

#[test]
fn every_form_of_a_secret_is_found_where_it_is_and_not_where_it_may_be() {
    let hidden = [7, 1, 99, 23, 200, 41, 5, 0, 61, 250, 33, 17, 90, 4, 128, 77, 3, 9];
    secrets::remember_bytes("hidden", &hidden);
    secrets::remember("long", "a secret that is longer than what is looked for");
    for text in [
        "x=0701631 070163 07016317c829 0701 07016317c82905003dfa21115a04804d",
        "07016317C82905003DFA21115A04804D0309",
        "secret=BwFjF8gpBQA9-iERWgSATQMJ",
        "Secret([7, 1, 99, 23, 200, 41, 5, 0, 61, 250, 33, 17, 90, 4, 128, 77, 3, 9])",
        "was cut: a secret that is longer than wh",
    ] {
        assert_eq!(secrets::in_text(text).len(), 1, "{text}");
    }
    assert!(secrets::in_text("a secret that is").is_empty());
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("tls")).unwrap();
    for (name, is_found) in [
        ("admin-password", false),
        ("tls/a.key", false),
        ("a.key", true),
        ("tls/x", true),
        ("state.db-wal", true),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, [&[0; 100][..], &hidden].concat()).unwrap();
        assert_eq!(!secrets::in_data_dir(dir.path()).is_empty(), is_found, "{name}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_whole_life_at_the_loudest_shows_no_secret() {
    let dir = tempfile::Builder::new().prefix("vitals").tempdir().unwrap();
    let (top, data) = (dir.path(), dir.path().join("data"));
    for (what, secret) in
        [("a password", FIRST), ("a password", SECOND), ("a password", WRONG), ("InfluxDB's token", INFLUX)]
    {
        secrets::remember(what, secret);
    }
    let password_file = file(top, "password", FIRST);
    let influx_file = file(top, "influx-token", INFLUX);
    let url = format!("http://{}", influxdb());
    let env = [
        ("VITALS_INFLUX_URL", &*url),
        ("VITALS_INFLUX_TOKEN_FILE", &*influx_file),
        ("VITALS_ADMIN_PASSWORD_FILE", &*password_file),
    ];
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut server = Server::start_at(&data, everywhere, everywhere, &["--log-level", "debug"], &env);

    // People: a wrong login, a right one, a new password, another person, tokens.
    assert_eq!(log_in(&server, "admin", WRONG), Err(401));
    let admin = log_in(&server, "admin", FIRST).unwrap();
    let change = json!({ "current": FIRST, "new": SECOND });
    assert_eq!(browse(&server, "PUT", "/api/v1/me/password", change, &admin).status, 200);
    let admin = log_in(&server, "admin", SECOND).unwrap();
    let person = json!({ "name": "vera", "password": FIRST, "role": "viewer", "scope": {} });
    assert_eq!(browse(&server, "POST", "/api/v1/users", person, &admin).status, 201);
    let token = json!({ "name": "script", "access": "admin" });
    let made = browse(&server, "POST", "/api/v1/tokens", token, &admin);
    assert_eq!(made.status, 201, "{}", made.body);
    let api_token = serde_json::from_str::<Value>(&made.body).unwrap()["secret"].as_str().unwrap().to_owned();
    // In places where they do not belong.
    server.ask("GET", &format!("/api/v1/hosts?token={api_token}"), "", &[]);
    server.ask("GET", "/api/v1/hosts", "", &[("Authorization", &format!("Basic {api_token}"))]);
    server.ask("POST", "/api/v1/session", &format!("{{\"name\":\"admin\",\"password\":\"{SECOND}"), &[]);
    server.ask("POST", "/api/v1/session", &json!({ "name": "admin", "pasword": SECOND }).to_string(), &[]);
    server.ask("POST", "/api/v1/session", &json!({ "name": [SECOND], "password": 7 }).to_string(), &[]);
    let (status, _) = server.send("POST", "/api/v1/join-tokens", r#"{"addresses":["vitals.example.org"]}"#);
    assert_eq!(status, 201);

    // Hosts: joined in each way in which a token can be given, refused, given new secrets.
    let address = format!("127.0.0.1:{}", server.clients.port());
    let join = |more: &[&str]| server.join_token(&[&["--address", &address], more].concat());
    let (one, two, three) = (join(&[]), join(&[]), join(&[]));
    let mut first = client(top, "by-env", &[], &[("VITALS_TOKEN", &one)]);
    let by_file = client(top, "by-file", &["--token-file", &file(top, "token", &two)], &[]);
    let by_argument = client(top, "by-argument", &["--token", &three], &[]);
    wait_for("the first use of its token", LONG, || first.log_line("joined"));
    let used_up = client(top, "used-up", &[], &[("VITALS_TOKEN", &one)]);
    let unknown = JoinToken { secret: secret(201), ..one.parse().unwrap() }.to_string();
    secrets::remember_join_token(&unknown);
    let unknown = client(top, "unknown", &[], &[("VITALS_TOKEN", &unknown)]);
    for (client, words) in [
        (&first, "joined"),
        (&by_file, "joined"),
        (&by_argument, "others on this machine can see the join token"),
        (&by_argument, "joined"),
        (&used_up, "token_used_up"),
        (&unknown, "token_unknown"),
    ] {
        wait_for(words, LONG, || client.log_line(words));
    }
    let done = |args: &[&str]| {
        let (code, out, error) = command(&data, args);
        assert_eq!(code, Some(0), "{args:?}: {error}");
        out
    };
    done(&["host", "rotate", "by-env"]);
    wait_for("a new secret", LONG, || server.log_line("a host has a new secret"));
    wait_for("its use", LONG, || {
        first.log_line("the old one is forgotten").or_else(|| {
            // It is used from the next connection on.
            secrets::remember_client(&top.join("by-env"));
            assert!(first.stop().success());
            first = client(top, "by-env", &[], &[]);
            std::thread::sleep(Duration::from_secs(3));
            None
        })
    });
    done(&["cert", "rotate", "--announce"]);
    wait_for("the next key", LONG, || first.log_line("these keys of the server are trusted"));
    done(&["cert", "rotate", "--switch", "--force"]);
    done(&["host", "revoke", "by-file"]);
    wait_for("its end", LONG, || by_file.log_line("this host was revoked"));
    wait_for("InfluxDB's word", LONG, || {
        (server.metric("vitals_influx_errors_total{target=\"influx\",reason=\"unauthorized\"}") > 0.0)
            .then_some(())
    });

    // What shows how things are.
    let all = [
        "hosts",
        "tokens",
        "join-tokens",
        "users",
        "me",
        "audit?limit=1000",
        "targets",
        "quarantine",
        "hosts/by-env",
    ];
    for path in all {
        let (status, body) = server.send("GET", &format!("/api/v1/{path}"), "");
        assert!(matches!(status, 200 | 404), "{path}: {status}");
        assert_eq!(secrets::in_text(&body), Default::default(), "{path}: {body}");
    }
    for args in [
        &["host", "list", "--json"][..],
        &["host", "show", "by-env", "--json"],
        &["token", "list", "--json"],
        &["api-token", "list", "--json"],
        &["user", "list", "--json"],
        &["cert", "show", "--json"],
        &["hosts"],
    ] {
        assert_eq!(secrets::in_text(&done(args)), Default::default(), "{args:?}");
    }
    let place = top.join("by-env");
    let status = ask_client(&["status", "--json", "--data-dir", place.to_str().unwrap()]);
    assert_eq!(secrets::in_text(&format!("{status:?}")), Default::default());
    configurations_show_none(top, &[FIRST, INFLUX, &one]);

    // Nothing stands among the arguments, but where somebody wanted it so.
    for pid in [server.pid(), first.pid(), by_file.pid()] {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(secrets::in_text(&String::from_utf8_lossy(&arguments)), Default::default());
    }
    assert!(server.log_text().contains("level=debug") && first.log_text().contains("level=debug"));
    // Each looks through its own at its end.
    drop((first, by_file, by_argument, used_up, unknown));
    assert!(server.stop().success());
    drop(server);
}

/// `check-config` of both, with each secret in each place, and wrong ones.
fn configurations_show_none(top: &Path, [password, influx, token]: &[&str; 3]) {
    let server = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vitals-server"));
        command.arg("check-config").args(args).envs(env.iter().copied()).stdin(Stdio::null());
        prints(command)
    };
    let client = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(client_binary());
        command.arg("check-config").args(args).envs(env.iter().copied()).stdin(Stdio::null());
        prints(command)
    };
    let url = ("VITALS_INFLUX_URL", "http://127.0.0.1:1");
    let shown = server(&[], &[url, ("VITALS_INFLUX_TOKEN", influx), ("VITALS_ADMIN_PASSWORD", password)]);
    assert!(shown.contains("influx"), "{shown}");
    let in_file =
        file(top, "server.toml", &format!("[influx]\nurl = \"http://127.0.0.1:1\"\ntoken = \"{influx}\"\n"));
    server(&["--config", &in_file], &[]);
    // Broken on the very line.
    let broken = file(top, "broken.toml", &format!("[influx]\ntoken = \"{influx}\" \"\n"));
    server(&["--config", &broken], &[]);
    let misplaced = file(
        top,
        "misplaced.toml",
        &format!("[influx]\nbatch = \"{influx}\"\n[accounts]\npassword = \"{password}\"\n"),
    );
    server(&["--config", &misplaced], &[]);

    let shown = client(&[], &[("VITALS_TOKEN", token)]);
    assert!(shown.contains("token"), "{shown}");
    let in_file = file(top, "client.toml", &format!("token = \"{token}\"\n"));
    client(&["--config", &in_file], &[]);
    client(&["--token", token], &[]);
    let damaged = format!("{}x", &token[..token.len() - 1]);
    client(&[], &[("VITALS_TOKEN", &damaged)]);
    client(&["--token", &damaged], &[]);
    let broken = file(top, "broken-client.toml", &format!("token = \"{token}\" \"\n"));
    client(&["--config", &broken], &[]);
    let damaged = file(top, "damaged-client.toml", &format!("token = \"{damaged}\"\n"));
    client(&["--config", &damaged], &[]);
}
