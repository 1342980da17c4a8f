//! Everything that runs: where it lies, and how each part is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blows::Program;
use super::disk::SmallDisk;
use super::influxd::{BUCKET, Influxd, ORG};
use super::process::{Process, Spec, free_port, join_token};
use super::proxy::Proxy;

/// Before the numbers in the names of simulated hosts.
pub const PREFIX: &str = "sim-";
/// Time between two samples of a host.
pub const INTERVAL_MS: u32 = 1_000;
/// MiB of the server's disk: some minutes of journal, and history.
const SERVER_DISK: u32 = 512;
/// MiB of the disk that all spools lie on.
const CLIENTS_DISK: u32 = 256;

/// What to run.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Of the figures, and of what goes wrong.
    pub seed: u64,
    /// Simulated hosts.
    pub hosts: u32,
    /// Real clients.
    pub clients: usize,
    /// The server's program.
    pub server: PathBuf,
    /// The client's program.
    pub client: PathBuf,
    /// Whether the simulation spools.
    pub has_spool: bool,
}

/// Where all of it is.
pub struct Town {
    /// What was asked for.
    pub wish: Wish,
    /// The directory of the whole run.
    pub dir: PathBuf,
    /// Of the server and of the clients.
    pub disks: [Arc<SmallDisk>; 2],
    /// Between clients and server, and between server and InfluxDB.
    pub proxies: [Arc<Proxy>; 2],
    /// Where the server's API is.
    pub http: SocketAddr,
    server_at: SocketAddr,
}

impl Town {
    /// Makes directories, disks and proxies.
    pub async fn build(wish: Wish, dir: PathBuf, influxd: &Influxd) -> anyhow::Result<Self> {
        for part in ["logs", "record"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        // The judge reads figures without a login.
        std::fs::write(dir.join("server.toml"), "[http]\nopen_metrics = true\n")?;
        let server_disk = SmallDisk::new(dir.join("server-disk"), SERVER_DISK)?;
        let clients_disk = SmallDisk::new(dir.join("clients-disk"), CLIENTS_DISK)?;
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let server_at = loopback(free_port());
        let influx_at = influxd.url().trim_start_matches("http://").parse()?;
        let proxies = [
            Arc::new(Proxy::start(free_port(), server_at, wish.seed).await?),
            Arc::new(Proxy::start(free_port(), influx_at, wish.seed.wrapping_add(1)).await?),
        ];
        let disks = [Arc::new(server_disk), Arc::new(clients_disk)];
        Ok(Self { wish, dir, disks, proxies, http: loopback(free_port()), server_at })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    fn spec(&self, name: &str, program: &Path, arguments: super::process::Arguments) -> Spec {
        Spec {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            environment: vec![("VITALS_TOKEN_FILE".to_owned(), text(&self.token_file()))],
            log: self.log(name),
            output: self.dir.join("logs").join(format!("{name}.out")),
            ready: "",
        }
    }

    /// What all hosts join with.
    fn token_file(&self) -> PathBuf {
        self.dir.join("join-token")
    }

    /// Makes the token that all hosts join with, through the proxy. The server runs.
    pub fn make_token(&self) -> anyhow::Result<()> {
        let token = join_token(&self.wish.server, &self.server_data(), &self.proxies[0].address.to_string())?;
        Ok(std::fs::write(self.token_file(), token)?)
    }

    /// Where the server keeps everything.
    pub fn server_data(&self) -> PathBuf {
        self.disks[0].path().join("data")
    }

    /// The server.
    pub fn server(&self, influxd: &Influxd) -> Program {
        let (listen, http, data) =
            (self.server_at.to_string(), self.http.to_string(), text(&self.server_data()));
        let arguments =
            move |_| strings(&["run", "--listen", &listen, "--http-listen", &http, "--data-dir", &data]);
        let mut spec = self.spec("server", &self.wish.server, Box::new(arguments));
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        spec.environment = vec![
            set("VITALS_CONFIG", &text(&self.dir.join("server.toml"))),
            set("VITALS_INFLUX_URL", &format!("http://{}", self.proxies[1].address)),
            set("VITALS_INFLUX_ORG", ORG),
            set("VITALS_INFLUX_BUCKET", BUCKET),
            set("VITALS_INFLUX_TOKEN", influxd.token().reveal()),
        ];
        spec.ready = "vitals-server runs";
        Program { process: Process::new(spec), logs: Some(self.server_data().join("journal")) }
    }

    /// The simulation; with `more` arguments at its end.
    pub fn simulate(&self, more: &'static [&'static str]) -> Program {
        let (hosts, seed) = (self.wish.hosts.to_string(), self.wish.seed.to_string());
        let (interval, address) = (format!("{INTERVAL_MS}ms"), self.proxies[0].address.to_string());
        let (dir, has_spool) = (self.dir.clone(), self.wish.has_spool);
        let spool = self.disks[1].path().join("simulate");
        let logs = has_spool.then(|| spool.clone());
        let arguments = move |start| {
            let record = text(&record_file(&dir, has_spool, start));
            let mut arguments = strings(&["simulate", "--hosts", &hosts, "--interval", &interval]);
            arguments.extend(strings(&["--seed", &seed, "--name-prefix", PREFIX, "--server", &address]));
            arguments.extend(strings(&["--record", &record, "--json"]));
            if has_spool {
                arguments.extend(["--data-dir".to_owned(), text(&spool)]);
            }
            arguments.extend(strings(more));
            arguments
        };
        Program { process: Process::new(self.spec("simulate", &self.wish.client, Box::new(arguments))), logs }
    }

    /// Where the simulation's start with this number writes its record.
    pub fn record(&self, start: u32) -> PathBuf {
        record_file(&self.dir, self.wish.has_spool, start)
    }

    /// What a real client calls itself.
    pub fn client_name(number: usize) -> String {
        format!("chaos-client-{}", number + 1)
    }

    /// Where it keeps what is its own.
    pub fn client_data(&self, number: usize) -> PathBuf {
        self.disks[1].path().join(Self::client_name(number))
    }

    /// What it said that it sent.
    pub fn client_tee(&self, number: usize) -> PathBuf {
        self.dir.join("record").join(format!("{}.lp", Self::client_name(number)))
    }

    /// A real client.
    pub fn client(&self, number: usize) -> Program {
        let name = Self::client_name(number);
        let (host, data, tee) =
            (name.clone(), text(&self.client_data(number)), text(&self.client_tee(number)));
        let address = self.proxies[0].address.to_string();
        let arguments = move |_| {
            let mut arguments =
                strings(&["run", "--server", &address, "--data-dir", &data, "--hostname", &host]);
            arguments.extend(strings(&["--interval", "1s", "--tee", &tee]));
            arguments
        };
        let logs = Some(self.client_data(number));
        Program { process: Process::new(self.spec(&name, &self.wish.client, Box::new(arguments))), logs }
    }
}

fn record_file(dir: &Path, has_spool: bool, start: u32) -> PathBuf {
    // Without a spool a simulation begins its record anew.
    let name = if has_spool { "record.jsonl".to_owned() } else { format!("record-{start:04}.jsonl") };
    dir.join("record").join(name)
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
