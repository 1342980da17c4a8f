//! Programs as processes of their own, ended with their handle.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(20);

/// Arguments of the start with this number, from 1.
pub type Arguments = Box<dyn Fn(u32) -> Vec<String> + Send>;

/// How a program is started.
pub struct Spec {
    /// What it is called here.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Arguments,
    /// Added to its environment, from which everything of Vitals is taken.
    pub environment: Vec<(String, String)>,
    /// Where its errors go, each start behind the one before.
    pub log: PathBuf,
    /// Where its output goes, the last start's alone.
    pub output: PathBuf,
    /// The word in its log that says that it is up; empty where being started is enough.
    pub ready: &'static str,
}

/// A process that is started again and again. Dropping it ends it, by its id.
pub struct Process {
    /// How it is started.
    pub spec: Spec,
    /// How often it was started.
    pub starts: u32,
    child: Option<Child>,
}

impl Process {
    /// Not started yet.
    pub fn new(spec: Spec) -> Self {
        Self { spec, starts: 0, child: None }
    }

    /// Starts it, and waits until it says that it is up. `Err` has the last line that it said.
    pub async fn start(&mut self, most: Duration) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(&self.spec.log);
        let mut log = log.map_err(|error| error.to_string())?;
        let before = log.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?;
        self.starts += 1;
        self.spawn(log).map_err(|error| format!("{}: {error}", self.spec.program.display()))?;
        let begun = Instant::now();
        loop {
            let said = read_from(&self.spec.log, before).unwrap_or_default();
            if said.contains(self.spec.ready) {
                return Ok(());
            }
            let last = said.lines().next_back().unwrap_or("nothing said").to_owned();
            if let Some(status) = self.has_ended() {
                return Err(format!("{status}: {last}"));
            }
            if begun.elapsed() > most {
                self.kill();
                return Err(format!("not up after {most:?}: {last}"));
            }
            sleep(LOOK).await;
        }
    }

    fn spawn(&mut self, log: File) -> io::Result<()> {
        let mut command = Command::new(&self.spec.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("VITALS_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args((self.spec.arguments)(self.starts))
            .envs(self.spec.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&self.spec.output)?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Its id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, once.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // It may just have ended, which its owner will see.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// Waits for its end.
    pub async fn wait(&mut self, most: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            match self.has_ended() {
                Some(status) => return Some(status),
                None if self.child.is_none() => return None,
                None => sleep(LOOK).await,
            }
        }
        None
    }

    /// SIGTERM, and how it ended; after `most` it is killed, and there is no status.
    pub async fn stop(&mut self, most: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        let status = self.wait(most).await;
        self.kill();
        status
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_from(path: &Path, offset: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a token with which any number of hosts join the running server of this directory at `address`.
pub fn join_token(server: &Path, data: &Path, address: &str) -> anyhow::Result<String> {
    let made = Command::new(server)
        .args(["token", "create", "--uses", "100000", "--address", address])
        .arg("--data-dir")
        .arg(data)
        .output()?;
    let said = String::from_utf8_lossy(&made.stderr);
    anyhow::ensure!(made.status.success(), "no join token: {said}");
    Ok(String::from_utf8(made.stdout)?)
}

/// A port of the loopback that nobody listens on now, below those that the system gives to outgoing connections: while
/// its process is down, one of these could else take it.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(15_000..30_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
