//! The real client as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::secrets;
use super::server::token_for;

/// Where cargo puts the client: beside the server. Building the workspace's tests builds both.
pub fn client_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_vitals-server")).with_file_name("vitals-client");
    assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    path
}

/// Exit code, output and errors of a `vitals-client` that ends by itself.
pub fn ask_client(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(client_binary()).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A client with these arguments, and a token of the server that it is told of.
fn client(args: &[&str]) -> Command {
    let mut client = Command::new(client_binary());
    let server = args.iter().skip_while(|arg| **arg != "--server").nth(1);
    if let Some(token) = server.and_then(|server| token_for(server.parse().ok()?)) {
        client.env("VITALS_TOKEN", token);
    }
    client.args(args);
    client
}

/// A running `vitals-client`. Dropping it ends the process, by its id, and looks for secrets in its log.
pub struct Client {
    child: Child,
    /// What it says, where that goes to no file.
    said: Arc<Mutex<Vec<String>>>,
    file: Option<PathBuf>,
    dir: Option<PathBuf>,
}

impl Client {
    /// Starts `vitals-client` with these arguments.
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(client(args))
    }

    /// Starts `vitals-client run` for this machine, under this name.
    pub fn run(server: SocketAddr, dir: &Path, name: &str, more: &[&str]) -> Self {
        Self::spawn(run(server, dir, name, more))
    }

    /// The same with its log in this file.
    pub fn run_logged(server: SocketAddr, dir: &Path, name: &str, more: &[&str], log: &Path) -> Self {
        let mut command = run(server, dir, name, more);
        command.stderr(std::fs::File::create(log).unwrap());
        Self::launch(command, Some(log.to_owned()))
    }

    /// Starts this command, which is or becomes a client.
    pub fn spawn(mut command: Command) -> Self {
        command.stderr(Stdio::piped());
        Self::launch(command, None)
    }

    fn launch(mut command: Command, file: Option<PathBuf>) -> Self {
        let mut after = command.get_args().skip_while(|arg| *arg != "--data-dir");
        let dir = after.nth(1).map(PathBuf::from);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    said.lock().unwrap().push(line);
                }
            });
        }
        Self { child, said, file, dir }
    }

    /// Everything logged so far.
    pub fn log_text(&self) -> String {
        match &self.file {
            Some(file) => std::fs::read_to_string(file).unwrap_or_default(),
            None => self.said.lock().unwrap().join("\n"),
        }
    }

    /// The first line logged that holds this text.
    pub fn log_line(&self, text: &str) -> Option<String> {
        self.log_text().lines().find(|line| line.contains(text)).map(str::to_owned)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait(Duration::from_secs(30))
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self, most: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < most, "the client still runs after {most:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dir.iter().for_each(|dir| secrets::remember_client(dir));
        if std::thread::panicking() {
            eprintln!("the client's log:\n{}", self.log_text());
            return;
        }
        let logged = secrets::in_text(&self.log_text());
        assert!(logged.is_empty(), "the client's log holds {logged:?}:\n{}", self.log_text());
    }
}

/// `vitals-client run` for this machine, under this name.
fn run(server: SocketAddr, dir: &Path, name: &str, more: &[&str]) -> Command {
    let server = server.to_string();
    let mut args = vec!["run", "--server", &server, "--data-dir", dir.to_str().unwrap(), "--hostname", name];
    args.extend(more);
    client(&args)
}
