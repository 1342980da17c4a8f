//! Hosts that are not there, over the real protocol.
//!
//! One process plays a fleet: each host has a link of its own, as a real client has, and takes samples at its own phase
//! of the interval. What a host reads is a function of seed and time ([`host`]), or given by a [`script`].
//!
//! All hosts join with one token and share what is learnt of the servers. Their ids and secrets are a function of the seed,
//! so nothing else has to be kept, and no secret of theirs changes.

pub mod host;
pub mod record;
pub mod script;
pub mod summary;

mod backlog;
mod connection;
mod source;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::RunId;
use vitals_wire::message::{Hello, PROTOCOL_VERSION};
use vitals_wire::sample::{Sample, encode_sample};

use crate::config::{self, Interval, Server, Token};
use crate::identity::{Identity, IdentityError, random};
use crate::link::connector::{Connector, WayOut, warn_of_plain_tcp};
use crate::link::driver::{Ended, Link, Observer};
use crate::link::event::Event;
use crate::link::protocol::{Known, Protocol, Settings};
use crate::link::tls::{Pins, Tls, TlsError};
use crate::queue::{Caps, content_hash};
use crate::spool::Spool;
use crate::spool::job::Keep;
use crate::trust::{self, Basis, Kept, Pin};
use backlog::Generated;
use connection::{Gate, Paced};
use host::{Character, Host};
use record::Record;
use script::Script;
use source::{Played, Ticking};
pub use summary::{Summary, Totals};

/// Samples that wait for one host unless told otherwise.
pub const DEFAULT_QUEUE: usize = 60;
/// Connections opened in a second unless told otherwise.
pub const DEFAULT_CONNECTS_PER_SECOND: u32 = 1000;
/// Hosts of one simulation.
pub const MAX_HOSTS: u32 = 100_000;
/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// Files that are open beside the connections.
const OTHER_FILES: u64 = 64;

/// What to play.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts that are numbered; those of the script come on top.
    pub hosts: u32,
    /// Time between two samples of a host.
    pub interval: Interval,
    /// For how long; `None` until `shutdown`, or until the script ends where there are no other hosts.
    pub duration: Option<Duration>,
    /// Of ids, secrets and figures.
    pub seed: u64,
    /// Servers, tried in order; none for those of the state file, or the one on this machine.
    pub servers: Vec<Server>,
    /// Whether connections are plain TCP.
    pub insecure: bool,
    /// To join with.
    pub token: Option<Token>,
    /// Keys that servers may have.
    pub pins: Vec<Pin>,
    /// CAs that servers' certificates may be from, where there are no pins.
    pub ca_file: Option<PathBuf>,
    /// The proxy, if any.
    pub way_out: Option<WayOut>,
    /// Where what is learnt of the servers is kept; else in the data directory, or in memory.
    pub state: Option<PathBuf>,
    /// Before the numbers in the hosts' names.
    pub name_prefix: String,
    /// Samples that wait for one host at most.
    pub queue: usize,
    /// Connections opened in a second at most, all hosts together.
    pub connects_per_second: u32,
    /// Where to write what was taken and settled.
    pub record: Option<PathBuf>,
    /// Where each host has a spool of its own, under its id. A record that is there is gone on with.
    pub data_dir: Option<PathBuf>,
    /// Bytes that each host's spool may take, where there is a data directory.
    pub spool_max_bytes: u64,
    /// From how long ago hosts have samples waiting at the start; these count as taken when they are first sent.
    pub backlog: Option<Duration>,
    /// What to play at given times.
    pub script: Option<Script>,
    /// Whether to print progress to standard error.
    pub progress: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: 10,
            interval: Interval::default(),
            duration: None,
            seed: 1,
            servers: Vec::new(),
            insecure: false,
            token: None,
            pins: Vec::new(),
            ca_file: None,
            way_out: None,
            state: None,
            name_prefix: "sim-".to_owned(),
            queue: DEFAULT_QUEUE,
            connects_per_second: DEFAULT_CONNECTS_PER_SECOND,
            record: None,
            data_dir: None,
            spool_max_bytes: crate::spool::DEFAULT_MAX_BYTES,
            backlog: None,
            script: None,
            progress: false,
        }
    }
}

/// Why nothing could be played.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// There can be no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A name that cannot travel.
    #[error("{what}: {error}")]
    Value {
        /// Which.
        what: &'static str,
        /// Why.
        error: String,
    },
    /// The record cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// No random bits, or the data directory cannot be used, or another simulation runs on it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What all hosts share.
#[derive(Debug, Default)]
struct Shared {
    totals: Mutex<Totals>,
    record: Option<Record>,
}

impl Shared {
    fn totals(&self) -> std::sync::MutexGuard<'_, Totals> {
        // Counting cannot panic half-way.
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts and records for one host.
struct Watcher {
    host: Arc<Host>,
    shared: Arc<Shared>,
    was_welcomed: bool,
    connected_since: Option<Instant>,
    /// Samples from before this time were never taken: they count when they are first sent.
    began_ms: Option<i64>,
}

impl Observer for Watcher {
    fn event(&mut self, event: Event) {
        let recorded = match &self.shared.record {
            Some(record) => record.write(self.host.id, &self.host.name, &event),
            None => Ok(()),
        };
        let mut totals = self.shared.totals();
        totals.count(&event, self.connected_since.map(|since| since.elapsed()));
        totals.unrecorded += u64::from(recorded.is_err());
        match event {
            Event::Opened { .. } => {
                totals.connected += 1;
                totals.welcomed += u64::from(!self.was_welcomed);
                self.was_welcomed = true;
                self.connected_since = Some(Instant::now());
            }
            Event::Closed { server, why, .. } => {
                totals.connected -= u64::from(self.connected_since.take().is_some());
                drop(totals);
                tracing::debug!(host = self.host.name, server, reason = %why, "connection closed");
            }
            _ => {}
        }
    }

    fn first_sent(&mut self, sample: &Sample) {
        if self.began_ms.is_some_and(|began_ms| sample.time_ms < began_ms)
            && let Ok(encoded) = encode_sample(sample)
        {
            self.event(Event::Taken { time_ms: sample.time_ms, hash: content_hash(&encoded) });
        }
    }
}

/// Plays the hosts until `shutdown` is cancelled or their time is over, then brings home what waits.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<Summary, SimulateError> {
    let fleet = Fleet::new(&options, shutdown)?;
    let started = Instant::now();
    let mut links = JoinSet::new();
    let warning = options.insecure.then(|| tokio::spawn(warn_of_plain_tcp(fleet.shutdown.clone())));
    let interval_ms = options.interval.millis();
    let script = options.script.clone().unwrap_or_default();
    let count = options.hosts as usize + script.len();
    // A spool in which something waits is an open file, too.
    allow_open_files(if options.data_dir.is_some() { 2 * count } else { count });
    for index in 0..options.hosts.min(MAX_HOSTS) {
        let host = Arc::new(Host::numbered(options.seed, index, &options.name_prefix, interval_ms));
        let source = Ticking::new(host.clone(), &options, started, fleet.digit, fleet.shutdown.clone());
        let keep = fleet.keep(&host, &options);
        let link = fleet.link(host, source, fleet.settings.caps, keep)?;
        links.spawn(link.run());
    }
    for (name, steps) in script {
        let host = Arc::new(Host::named(options.seed, &name, interval_ms));
        let source = Played::new(host.clone(), steps, started, fleet.digit, fleet.shutdown.clone());
        let keep = fleet.spool(&host, &options);
        let link = fleet.link(host, source, Caps::SCRIPT, keep)?;
        links.spawn(link.run());
    }
    let mut waiting = 0;
    let mut progress = tokio::time::interval(PROGRESS);
    progress.tick().await;
    loop {
        tokio::select! {
            ended = links.join_next() => match ended {
                Some(Ok(Ended { waiting: left, spooled, .. })) => waiting += left as u64 + spooled,
                // A link that panicked is a bug; its samples are missing from the sum, which shows.
                Some(Err(error)) => tracing::error!(error = %error, "a simulated host failed"),
                None => break,
            },
            _ = progress.tick(), if options.progress => fleet.print_progress(started, count),
        }
    }
    if let Some(warning) = warning {
        warning.abort();
    }
    let totals = fleet.shared.totals().clone();
    Ok(totals.summary(count, started.elapsed(), waiting))
}

struct Fleet {
    shared: Arc<Shared>,
    connect: Paced,
    settings: Settings,
    token: Option<Token>,
    /// What is learnt of the servers, by all hosts.
    trust: Arc<Mutex<trust::Shared>>,
    known: Vec<Pin>,
    basis: Basis,
    addresses: Vec<String>,
    seed: u64,
    /// Of the times of all samples.
    digit: u8,
    /// When the last sample of the backlog would have been followed by the next.
    began_ms: i64,
    has_backlog: bool,
    shutdown: CancellationToken,
    /// Of the data directory, which is locked as long as it is here.
    _identity: Option<Identity>,
}

impl Fleet {
    fn new(options: &Options, shutdown: CancellationToken) -> Result<Self, SimulateError> {
        let identity = options.data_dir.as_deref().map(Identity::open).transpose()?;
        let state = options.state.clone().or_else(|| options.data_dir.as_deref().map(trust::path));
        let kept = state.as_deref().map(Kept::open).unwrap_or_default();
        let has_pins = !options.pins.is_empty();
        let basis = Basis::of(options.insecure, has_pins, options.ca_file.is_some(), &kept);
        let pins = Arc::new(Pins::new(options.pins.clone()));
        let tls = match basis {
            Basis::Nothing => None,
            basis => Some(Tls::new(basis, pins.clone(), options.ca_file.as_deref())?),
        };
        let servers = config::servers_or(&options.servers, &kept);
        let addresses: Vec<String> = servers.iter().map(|server| server.as_str().to_owned()).collect();
        let connector = Connector::new(addresses.clone(), tls, options.way_out.clone());
        let begin = if identity.is_some() { Record::append } else { Record::create };
        let record = match &options.record {
            Some(path) => {
                Some(begin(path).map_err(|error| SimulateError::Record { path: path.clone(), error })?)
            }
            None => None,
        };
        let digit = identity.as_ref().map_or(0, |identity| (identity.starts % 10) as u8);
        let gate = Arc::new(Gate::new(options.connects_per_second));
        let caps = Caps { entries: options.queue.max(1), bytes: Caps::CLIENT.bytes };
        let interval = options.interval.duration();
        Ok(Self {
            shared: Arc::new(Shared { totals: Mutex::default(), record }),
            connect: Paced::new(connector, gate),
            settings: Settings { servers: addresses.len(), interval, caps, seed: 0 },
            token: options.token.clone(),
            known: kept.pins.clone(),
            trust: trust::Shared::new(state, kept, pins),
            basis,
            addresses,
            seed: options.seed,
            digit,
            began_ms: source::clock_ms(digit),
            has_backlog: options.backlog.is_some(),
            shutdown,
            _identity: identity,
        })
    }

    /// What keeps this host's samples outside of memory.
    fn keep(&self, host: &Arc<Host>, options: &Options) -> Option<Box<dyn Keep>> {
        let Some(backlog) = options.backlog else { return self.spool(host, options) };
        let samples = (backlog.as_millis() / self.settings.interval.as_millis().max(1)) as u64;
        let until_ms = self.began_ms - (host.phase() * options.interval.millis() as f64) as i64 / 10 * 10;
        Some(Box::new(Generated::new(host.clone(), until_ms, options.interval.millis(), samples)))
    }

    fn spool(&self, host: &Host, options: &Options) -> Option<Box<dyn Keep>> {
        let dir = options.data_dir.as_ref()?.join(host.id.to_string()).join("spool");
        Some(Box::new(Spool::new(&dir, options.spool_max_bytes)))
    }

    fn link<S>(
        &self,
        host: Arc<Host>,
        source: S,
        caps: Caps,
        keep: Option<Box<dyn Keep>>,
    ) -> Result<Link<Paced, S, Watcher>, SimulateError> {
        let value = |what| {
            move |error: vitals_wire::bounded::TooLong| SimulateError::Value {
                what,
                error: error.to_string(),
            }
        };
        let interval_ms = u32::try_from(self.settings.interval.as_millis()).unwrap_or(u32::MAX);
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            client_version: Text::cut(env!("CARGO_PKG_VERSION")),
            host: host.id,
            run: RunId(random()?),
            secret: host.secret.clone(),
            token: self.token.as_ref().map(Token::said),
            name: Text::new(host.name.as_str()).map_err(value("name"))?,
            labels: List::empty(),
            facts: host.facts(),
            interval_ms,
            shortest_interval_ms: interval_ms,
            // Set when it is said.
            clock_ms: 0,
        };
        let seed = self.seed ^ crate::queue::content_hash(&host.id.0);
        let settings = Settings { seed, caps, ..self.settings.clone() };
        let is_flapping = host.character == Character::Flapping;
        let shared = self.shared.clone();
        let now = Instant::now();
        let keeper = trust::Keeper::new(self.trust.clone(), None, self.basis, self.addresses.clone(), None);
        let known = Known {
            pins: self.known.clone(),
            is_current: keeper.is_current(),
            learns: self.basis != Basis::Nothing,
            ..Known::default()
        };
        let protocol = Protocol::new(settings, hello, now).with_trust(known);
        let began_ms = Some(self.began_ms).filter(|_| self.has_backlog);
        Ok(Link {
            protocol: if keep.is_some() { protocol.with_spool(now) } else { protocol },
            connect: self.connect.for_host(is_flapping),
            source,
            observer: Watcher { host, shared, was_welcomed: false, connected_since: None, began_ms },
            keep,
            trust: Some(Box::new(keeper)),
        })
    }

    fn print_progress(&self, started: Instant, hosts: usize) {
        let totals = self.shared.totals();
        let dropped: u64 = totals.dropped.values().sum();
        eprintln!(
            "{:>5} s  {} of {hosts} hosts connected, {} samples taken, {} settled, {} waiting, {dropped} dropped, {} reconnects",
            started.elapsed().as_secs(),
            totals.connected,
            totals.taken,
            totals.settled,
            totals.taken.saturating_sub(totals.settled + dropped),
            totals.opened.saturating_sub(totals.welcomed),
        );
    }
}

/// Each connection is an open file: raises the limit where that is allowed, and says so where it is not.
fn allow_open_files(hosts: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = hosts as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok() {
        return;
    }
    // Only root raises the hard limit; as far as it goes is allowed to all.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if now < wanted {
        tracing::warn!(
            limit = now,
            wanted,
            "the limit of open files is too low for all hosts to connect at once; raise it with ulimit -n"
        );
    }
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
