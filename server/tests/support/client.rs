//! The real client as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

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
    // Plain TCP on both sides, until the server speaks TLS.
    client.env("VITALS_INSECURE", "true");
    client.args(args);
    client
}

/// A running `vitals-client`. Dropping it ends the process, by its id.
pub struct Client(Child);

impl Client {
    /// Starts `vitals-client` with these arguments, over plain TCP.
    pub fn start(args: &[&str]) -> Self {
        Self(client(args).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// Starts `vitals-client run` for this machine, under this name.
    pub fn run(server: SocketAddr, dir: &Path, name: &str, more: &[&str]) -> Self {
        let server = server.to_string();
        let mut args =
            vec!["run", "--server", &server, "--data-dir", dir.to_str().unwrap(), "--hostname", name];
        args.extend(more);
        Self::start(&args)
    }

    /// The same with its log in this file.
    pub fn run_logged(server: SocketAddr, dir: &Path, name: &str, more: &[&str], log: &Path) -> Self {
        let server = server.to_string();
        let mut args =
            vec!["run", "--server", &server, "--data-dir", dir.to_str().unwrap(), "--hostname", name];
        args.extend(more);
        let child = client(&args).stdout(Stdio::null()).stderr(std::fs::File::create(log).unwrap()).spawn();
        Self(child.unwrap())
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait(Duration::from_secs(30))
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self, most: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < most, "the client still runs after {most:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
