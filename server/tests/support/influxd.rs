//! A real InfluxDB 2 for a test: on a free port of the loopback, in a directory of its own, gone with the test.

// clippy.toml allows these in test functions; helpers of tests are no different.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Each test binary uses a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vitals_server::influx::setup::SetUp;
use vitals_server::influx::{Token, set_up};

/// The organisation that is set up.
pub const ORG: &str = "vitals";
/// The bucket that is set up. It keeps points for ever.
pub const BUCKET: &str = "vitals";

/// How long a start may take: two cores may be busy with other tests.
const START: Duration = Duration::from_secs(60);

/// A row of a query's result: the column's name and its text. A Flux row also has each column's type, under the
/// column's name with `#` before it.
pub type Row = BTreeMap<String, String>;

/// A running InfluxDB. Killed when it is dropped.
pub struct Influxd {
    child: Option<Child>,
    dir: tempfile::TempDir,
    port: u16,
    token: Token,
    http: reqwest::Client,
}

impl Influxd {
    /// Starts a new one and sets it up. Fails the test where there is no InfluxDB on this machine.
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        let dir = tempfile::Builder::new().prefix("vitals-influxd-").tempdir().unwrap();
        let mut influxd = Self { child: None, dir, port: 0, token: "".into(), http };
        // Between finding a free port and using it somebody else may take it.
        let mut tries = 0;
        loop {
            influxd.port = free_port();
            tries += 1;
            match influxd.spawn().await {
                Ok(()) => break,
                Err(error) if tries >= 3 => panic!("influxd does not start: {error}"),
                Err(_) => {}
            }
        }
        let first = SetUp {
            user: "admin".into(),
            password: "correct horse".into(),
            org: ORG.into(),
            bucket: BUCKET.into(),
            keep: None,
        };
        influxd.token = set_up(&influxd.url(), &first).await.expect("set-up of a new influxdb");
        influxd
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A token that may do everything.
    pub fn token(&self) -> Token {
        self.token.clone()
    }

    /// Its process's id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Asks it to end and waits until it has. What it holds stays.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < START, "influxd does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again with what it held, at the same address.
    pub async fn start_again(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        self.spawn().await.expect("influxd starts again");
    }

    /// Makes a bucket that keeps points for `keep`, at least an hour, or for ever.
    pub async fn create_bucket(&self, name: &str, keep: Option<Duration>) {
        let rules: Vec<Value> =
            keep.iter().map(|keep| json!({"type": "expire", "everySeconds": keep.as_secs()})).collect();
        let org_id = self.org_id().await;
        let body = json!({"orgID": org_id, "name": name, "retentionRules": rules});
        self.api("/api/v2/buckets", body).await;
    }

    /// Makes a token that may write to `bucket`, and nothing else.
    pub async fn create_write_token(&self, bucket: &str) -> Token {
        let org_id = self.org_id().await;
        let buckets = self.get(&format!("/api/v2/buckets?name={bucket}")).await;
        let bucket_id = buckets["buckets"][0]["id"].as_str().unwrap();
        let resource = json!({"type": "buckets", "id": bucket_id, "orgID": org_id});
        let body = json!({"orgID": org_id, "permissions": [{"action": "write", "resource": resource}]});
        Token::from(self.api("/api/v2/authorizations", body).await["token"].as_str().unwrap())
    }

    /// Writes lines directly; gives the status and the body of the answer.
    pub async fn write(&self, bucket: &str, lines: impl Into<String>) -> (u16, String) {
        let url = format!("{}/api/v2/write?org={ORG}&bucket={bucket}&precision=ns", self.url());
        let answer = self.authorized(self.http.post(url)).body(lines.into()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Runs a Flux query.
    pub async fn flux(&self, query: &str) -> Vec<Row> {
        let url = format!("{}/api/v2/query?org={ORG}", self.url());
        let body = json!({"query": query, "dialect": {"annotations": ["datatype"], "delimiter": ","}});
        let answer = self
            .authorized(self.http.post(url))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{query}: {status} {text}");
        flux_rows(&text)
    }

    /// All points of a bucket, one row a field, with `ns` as time.
    pub async fn everything(&self, bucket: &str) -> Vec<Row> {
        let drop = r#"drop(columns: ["_start", "_stop", "_time", "result", "table"])"#;
        let query = format!(
            r#"from(bucket: "{bucket}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) |> map(fn: (r) => ({{r with ns: int(v: r._time)}})) |> {drop}"#
        );
        self.flux(&query).await
    }

    /// Runs an InfluxQL query with times in ns, and gives `results`.
    pub async fn influxql(&self, bucket: &str, query: &str) -> Value {
        let url = format!("{}/query", self.url());
        let url =
            reqwest::Url::parse_with_params(&url, [("db", bucket), ("q", query), ("epoch", "ns")]).unwrap();
        let answer = self.authorized(self.http.get(url)).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{query}: {status} {text}");
        serde_json::from_str::<Value>(&text).unwrap()["results"].take()
    }

    async fn spawn(&mut self) -> Result<(), String> {
        let dir = self.dir.path();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let child = Command::new(binary())
            .arg("run")
            .arg("--bolt-path")
            .arg(dir.join("bolt"))
            .arg("--engine-path")
            .arg(dir.join("engine"))
            .arg("--sqlite-path")
            .arg(dir.join("sqlite"))
            .arg(format!("--http-bind-address=127.0.0.1:{}", self.port))
            .args(["--reporting-disabled", "--log-level=error"])
            // Its own settings must not come from whoever runs the tests.
            .env_clear()
            .env("HOME", dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let child = self.child.insert(child);
        let begun = Instant::now();
        let health = format!("http://127.0.0.1:{}/health", self.port);
        loop {
            if let Ok(answer) = self.http.get(&health).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            let ended = child.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > START {
                self.kill();
                return Err(std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        request.header("authorization", format!("Token {}", self.token.reveal()))
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.authorized(self.http.get(format!("{}{path}", self.url()))).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }

    async fn org_id(&self) -> String {
        let orgs = self.get(&format!("/api/v2/orgs?org={ORG}")).await;
        orgs["orgs"][0]["id"].as_str().unwrap().to_owned()
    }

    async fn api(&self, path: &str, body: Value) -> Value {
        let request = self.authorized(self.http.post(format!("{}{path}", self.url())));
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on now, below those that the system gives to outgoing connections: while InfluxDB is
/// down, one of these could else take it, or a client that tries to reconnect be connected to itself.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(15_000..30_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where `influxd` is. Looked up once, and said once.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut candidates: Vec<PathBuf> = Vec::new();
        // What is asked for by name is taken or fails; nothing else is tried in its place.
        match env::var_os("INFLUXD") {
            Some(path) => candidates.push(path.into()),
            None => {
                let path = env::var_os("PATH").unwrap_or_default();
                candidates.extend(env::split_paths(&path).map(|dir| dir.join("influxd")));
                candidates.extend(built());
            }
        }
        for path in candidates.iter().filter(|path| path.is_file()) {
            let Ok(output) = Command::new(path).arg("version").output() else { continue };
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            let number = version.split_whitespace().nth(1).unwrap_or("").trim_start_matches('v');
            if number.starts_with("2.") {
                // Past the test harness, which would keep it from whoever runs the tests.
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "real InfluxDB {number} used: {}", path.display());
                return path.clone();
            }
        }
        panic!(
            "these tests need a real InfluxDB 2: put `influxd` 2.7 in PATH or name it in $INFLUXD, \
             or run scripts/influxd.sh, which builds one"
        )
    })
}

/// Where `scripts/influxd.sh` puts what it builds; the script alone knows directory and version.
fn built() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/influxd.sh");
    let output = Command::new(script).arg("--built-path").output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end()))
}

/// Annotated CSV: tables one after another, each with `#datatype` and a header of its own where they change.
fn flux_rows(text: &str) -> Vec<Row> {
    let (mut types, mut names, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut header_is_next = false;
    for record in csv_records(text) {
        if record.iter().all(String::is_empty) {
            continue;
        }
        if record[0] == "#datatype" {
            types = record;
            header_is_next = true;
        } else if std::mem::take(&mut header_is_next) {
            names = record;
        } else {
            let mut row = Row::new();
            for ((name, kind), value) in names.iter().zip(&types).zip(record).skip(1) {
                row.insert(format!("#{name}"), kind.clone());
                row.insert(name.clone(), value);
            }
            rows.push(row);
        }
    }
    rows
}

fn csv_records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut is_quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => record.push(std::mem::take(&mut field)),
            '\r' if !is_quoted => {}
            '\n' if !is_quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c => field.push(c),
        }
    }
    records
}
