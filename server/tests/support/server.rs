//! The real server as a process of its own, and a plain way to ask it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::secrets;

/// Where the files of the server at an address are, and a token that lets in whoever shows it.
type Place = (PathBuf, Option<String>);

/// All servers of this process, also those that do not run just now.
static PLACES: Mutex<Option<HashMap<SocketAddr, Place>>> = Mutex::new(None);

/// A join token of the server at this address, for as many hosts as a test may want: `None` where there never was one. It
/// is made when it is asked for first.
pub fn token_for(clients: SocketAddr) -> Option<String> {
    let mut places = PLACES.lock().unwrap_or_else(|error| error.into_inner());
    let (data_dir, token) = places.as_mut()?.get_mut(&clients)?;
    if token.is_none() {
        let address = clients.to_string();
        let args = ["token", "create", "--uses", "100000", "--address", &address, "--json"];
        let (code, out, error) = command(data_dir, &args);
        assert_eq!(code, Some(0), "{error}");
        let made: Value = serde_json::from_str(&out).unwrap();
        *token = Some(made["token"].as_str().unwrap().to_owned());
    }
    token.clone()
}

/// Exit code, output and errors of a command of `vitals-server` on this data directory.
pub fn command(data_dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
        .args(args)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, error) = (text(output.stdout), text(output.stderr));
    secrets::remember_printed(&out);
    (output.status.code(), out, error)
}

/// A running `vitals-server`. Dropping it ends the process, by its id, and looks for secrets in its log and its files.
pub struct Server {
    child: Child,
    data_dir: PathBuf,
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where the API is.
    pub http: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// An administrator's API token, which `get`, `json` and `metric` send.
    pub token: Option<String>,
}

impl Server {
    /// Starts a server on this data directory and waits until it says where it listens.
    pub fn start(data_dir: &Path, args: &[&str]) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at(data_dir, loopback, loopback, args, &[])
    }

    /// The same at given addresses and with more environment.
    pub fn start_at(
        data_dir: &Path,
        clients: SocketAddr,
        http: SocketAddr,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        for (name, value) in env {
            if (name.ends_with("TOKEN") || name.ends_with("PASSWORD")) && value.len() >= 8 {
                secrets::remember("a secret from the environment", value);
            }
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
            .arg("run")
            .args(["--listen", &clients.to_string(), "--http-listen", &http.to_string()])
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .envs(env.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn({
            let log = log.clone();
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    log.lock().unwrap().push(line);
                }
            }
        });
        let mut server = Self { child, data_dir: data_dir.to_owned(), clients, http, log, token: None };
        let start = Instant::now();
        loop {
            if let Some(line) = server.log_line("vitals-server runs") {
                server.clients = field(&line, "clients").parse().unwrap();
                server.http = field(&line, "http").parse().unwrap();
                secrets::remember_server(data_dir);
                server.token = api_token(data_dir, &format!("test-{}", server.pid()), &["--access", "admin"]);
                let mut places = PLACES.lock().unwrap_or_else(|error| error.into_inner());
                let places = places.get_or_insert_default();
                if places.get(&server.clients).is_none_or(|(dir, _)| dir != data_dir) {
                    places.insert(server.clients, (data_dir.to_owned(), None));
                }
                return server;
            }
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", server.log_text());
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no start:\n{}", server.log_text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The first line logged that holds this text.
    pub fn log_line(&self, text: &str) -> Option<String> {
        self.log.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
    }

    /// Everything logged so far.
    pub fn log_text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.send("GET", path, "")
    }

    /// Status and body of a request with this server's API token, and with a body of JSON where it is not empty.
    pub fn send(&self, method: &str, path: &str, json: &str) -> (u16, String) {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|bearer| ("Authorization", &**bearer)).collect();
        let answer = self.ask(method, path, json, &headers);
        (answer.status, answer.body)
    }

    /// The answer to a request with these headers and no token.
    pub fn ask(&self, method: &str, path: &str, json: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = ask(self.page(), self.http, method, path, json, headers);
        secrets::remember_printed(&answer.body);
        answer
    }

    /// A connection to the page's port: TLS that trusts the server's own certificate where it does not listen on loopback.
    fn page(&self) -> Box<dyn Stream> {
        let tcp = TcpStream::connect(self.http).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if self.http.ip().is_loopback() {
            return Box::new(tcp);
        }
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.data_dir.join("tls/page.crt")).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        Box::new(StreamOwned::new(connection, tcp))
    }

    /// A join token as the command prints it.
    pub fn join_token(&self, args: &[&str]) -> String {
        let (code, out, error) = command(&self.data_dir, &[&["token", "create"], args].concat());
        assert_eq!(code, Some(0), "{error}");
        out.trim_end().to_owned()
    }

    /// Looks for every secret that this process knows, in the log and in the files.
    fn must_not_show_secrets(&self) {
        secrets::remember_server(&self.data_dir);
        let logged = secrets::in_text(&self.log_text());
        assert!(logged.is_empty(), "the server's log holds {logged:?}:\n{}", self.log_text());
        let kept = secrets::in_data_dir(&self.data_dir);
        assert!(kept.is_empty(), "secrets lie in the data directory: {kept:#?}");
    }

    /// The JSON of a GET that must succeed.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// A figure of `/metrics`, by its name with labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().unwrap()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "still runs:\n{}", self.log_text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log_text());
        } else {
            self.must_not_show_secrets();
        }
    }
}

/// Makes an API token beside the running server; `None` where it cannot, as with a disk that is full.
pub fn api_token(data_dir: &Path, name: &str, args: &[&str]) -> Option<String> {
    let made = Command::new(env!("CARGO_BIN_EXE_vitals-server"))
        .args(["api-token", "create", "--name", name, "--expires", "never", "--json", "--data-dir"])
        .arg(data_dir)
        .args(args)
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).ok()?;
    let secret = made["secret"].as_str()?;
    secrets::remember("an API token", secret);
    Some(secret.to_owned())
}

/// What HTTP goes over.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// An answer of the API.
pub struct Answer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

fn ask(
    mut stream: Box<dyn Stream>,
    address: SocketAddr,
    method: &str,
    path: &str,
    json: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !json.is_empty() {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", json.len());
    }
    write!(stream, "{head}\r\n{json}").unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // A server that is killed says no good-bye.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => panic!("{path}: {error}"),
        _ => {}
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Answer { status, head: head.to_owned(), body: body.to_owned() };
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    Answer { status, head: head.to_owned(), body: whole }
}

/// The value of `name=value` or `name="value"` in a line of a log.
pub fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, after) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in {line}"));
    after.split(' ').next().unwrap_or_default().trim_matches('"')
}

/// Waits until `look` gives something, at most this long.
pub fn wait_for<T>(what: &str, most: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < most, "waited {most:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
