//! A host in a network of its own joins with one string, and finds its server again at another address.
//!
//! Needs root, for the network namespace; where there is none, CI fails and others are told.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::client::{Client, client_binary};
use support::server::{Server, wait_for};

/// Networks for examples (RFC 5737); this machine may itself be in one of them.
const NETWORKS: [&str; 3] = ["203.0.113", "198.51.100", "192.0.2"];
/// Time for a reading to arrive on a busy machine.
const LONG: Duration = Duration::from_secs(40);

/// A network namespace with a wire to this one. Dropping it takes both away.
struct Network {
    name: String,
    wire: String,
    /// The server's end of the wire, before and after it moves.
    before: String,
    after: String,
}

impl Network {
    fn new() -> Self {
        let id = std::process::id();
        let taken = [ip(&["route", "show", "table", "all"]), ip(&["address", "show"])].concat();
        let net = NETWORKS.iter().find(|net| !taken.contains(&format!("{net}.")));
        let net = net.expect("a network for examples that this machine does not use");
        let network = Self {
            name: format!("vitals-{id}"),
            wire: format!("vt{id}"),
            before: format!("{net}.1"),
            after: format!("{net}.3"),
        };
        let (name, wire, far) = (&*network.name, &*network.wire, &*format!("vf{id}"));
        ip(&["netns", "add", name]);
        ip(&["link", "add", wire, "type", "veth", "peer", "name", far]);
        ip(&["link", "set", far, "netns", name]);
        ip(&["address", "add", &format!("{}/24", network.before), "dev", wire]);
        ip(&["link", "set", wire, "up"]);
        ip(&["-n", name, "address", "add", &format!("{net}.2/24"), "dev", far]);
        ip(&["-n", name, "link", "set", far, "up"]);
        network
    }

    /// The server's machine has another address from now on.
    fn move_server(&self) {
        ip(&["address", "delete", &format!("{}/24", self.before), "dev", &self.wire]);
        ip(&["address", "add", &format!("{}/24", self.after), "dev", &self.wire]);
    }

    /// Starts the client in there with nothing but a token.
    fn join(&self, token: &str, dir: &Path) -> Client {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .arg(client_binary())
            .args(["run", "--hostname", "far-away", "--interval", "1s", "--data-dir"])
            .arg(dir)
            .env("VITALS_TOKEN", token);
        Client::spawn(command)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.wire]).status();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn newest_of(server: &Server) -> Option<i64> {
    let (status, body) = server.get("/api/v1/hosts/far-away/latest");
    let latest: serde_json::Value = serde_json::from_str(&body).unwrap();
    (status == 200).then(|| latest["time_ms"].as_i64().unwrap())
}

#[test]
#[allow(clippy::explicit_write, reason = "what eprintln! says is kept from whoever runs the tests")]
fn a_host_in_another_network_joins_with_one_string_and_finds_its_server_at_another_address() {
    if !rustix::process::geteuid().is_root() {
        // Where all tests have to run, one that cannot has failed.
        assert!(std::env::var("CI").as_deref() != Ok("true"), "a network namespace needs root, and CI=true");
        writeln!(std::io::stderr(), "SKIPPED: a network namespace needs root").unwrap();
        return;
    }
    let network = Network::new();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("server");
    let clients: SocketAddr = ([0, 0, 0, 0], free_port()).into();
    let http: SocketAddr = ([0, 0, 0, 0], free_port()).into();
    let mut server = Server::start_at(&data, clients, http, &[], &[]);

    let password = std::fs::metadata(data.join("admin-password")).unwrap();
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    assert!(server.log_line("admin-password").is_some(), "the log names the file");
    let (status, body) = server.get("/healthz");
    assert_eq!(status, 200, "over TLS: {body}");

    let port = clients.port();
    let token =
        server.join_token(&["--address", &format!("{}:{port},{}:{port}", network.before, network.after)]);
    let mut client = network.join(&token, &dir.path().join("client"));
    let first = wait_for("its first reading", LONG, || newest_of(&server));

    // The whole directory goes to another machine, and the old one is gone.
    assert!(server.stop().success());
    network.move_server();
    let restored = dir.path().join("restored");
    let copied = Command::new("cp").arg("-a").arg(&data).arg(&restored).status().unwrap();
    assert!(copied.success());
    std::fs::remove_dir_all(&data).unwrap();
    let server = Server::start_at(&restored, clients, http, &[], &[]);
    wait_for("a reading at the new address", LONG, || newest_of(&server).filter(|newest| *newest > first));
    let hosts = server.json("/api/v1/hosts");
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 1, "it is the same host: {hosts}");
    assert!(client.stop().success());
}
