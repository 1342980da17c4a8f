//! The server: its disk, and the process on it now and then, with journal, history, InfluxDB's writer and sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vitals_server::journal::{Committer, Journal, JournalOptions, JournalReader};
use vitals_server::metrics::Metrics;
use vitals_server::store::{MemoryFault, MemoryStorage};
use vitals_wire::log::Position;
use vitals_wire::log::model::ModelFs;

use crate::ctx::Ctx;
use crate::history::History;
use crate::influxdb::InfluxDb;
use crate::net::{Arrival, ConnId, End};
use crate::oracle::Key;
use crate::plan::{Death, Plan};
use crate::samples::host_of;
use crate::session::Session;
use crate::target::Target;

/// Before a server that could not start is started again.
const RESTART_MS: u64 = 2_000;
/// A commit waits so long for others.
const GROUP_MS: u64 = 25;

/// See the module.
pub struct Server {
    pub fs: ModelFs,
    pub storage: MemoryStorage,
    options: JournalOptions,
    share_bytes: u64,
    up: Option<Up>,
    start_at: Option<u64>,
    stops_with_machine: Option<bool>,
    down_ms: u64,
    starts: u64,
}

/// One run of the server.
struct Up {
    metrics: Arc<Metrics>,
    journal: Journal,
    committer: Committer,
    /// Reads what is committed, for the accounts.
    audit: JournalReader,
    history: History,
    target: Target,
    sessions: BTreeMap<ConnId, Session>,
    commit_at: Option<u64>,
    tidy_at: u64,
}

impl Server {
    pub fn new(plan: &Plan, seed: u64) -> Self {
        let options = JournalOptions {
            dir: PathBuf::from("/var/lib/vitals/journal"),
            segment_bytes: plan.journal_segment_bytes,
            cap_bytes: plan.journal_cap_bytes,
            compress: plan.compress,
            group: Duration::from_millis(GROUP_MS),
        };
        Self {
            fs: ModelFs::new(seed),
            storage: MemoryStorage::new(),
            options,
            share_bytes: plan.influx_share_bytes,
            up: None,
            start_at: Some(0),
            stops_with_machine: None,
            down_ms: 0,
            starts: 0,
        }
    }

    /// Whether a connection comes about.
    pub fn listens(&self) -> bool {
        self.up.is_some()
    }

    pub fn next_at(&self) -> Option<u64> {
        let up = self.up.as_ref().map(|up| {
            let sessions = up.sessions.values().filter_map(Session::next_at).min();
            let times = [sessions, up.commit_at, Some(up.history.next_at()), Some(up.target.next_at())];
            times.into_iter().flatten().fold(up.tidy_at, u64::min)
        });
        up.into_iter().chain(self.start_at).min()
    }

    /// Whether nothing is left to do.
    pub fn is_at_rest(&self) -> bool {
        self.up.as_ref().is_some_and(|up| {
            up.commit_at.is_none()
                && up.sessions.values().all(Session::is_at_rest)
                && up.history.is_at_rest(&up.journal)
                && up.target.is_at_rest(&up.journal)
        })
    }

    /// What keeps it from rest.
    pub fn state(&self) -> String {
        match &self.up {
            None => "the server is down".into(),
            Some(up) => format!(
                "{} sessions, history at {} of {}, {}, journal: {:?}",
                up.sessions.len(),
                up.history.position(),
                up.journal.end(),
                up.target.state(&up.journal),
                up.journal.trouble()
            ),
        }
    }

    pub fn history(&self) -> Option<&History> {
        self.up.as_ref().map(|up| &up.history)
    }

    /// Does what is due.
    pub fn step(&mut self, ctx: &mut Ctx, influxdb: &mut InfluxDb) {
        if self.start_at.is_some_and(|at| at <= ctx.now) && self.up.is_none() {
            self.start_at = None;
            match self.start(ctx) {
                Ok(up) => self.up = Some(up),
                Err(error) => {
                    ctx.trace(|| format!("server: cannot start: {error}"));
                    self.start_at = Some(ctx.now + RESTART_MS);
                    // Nothing of the attempt stays.
                    self.look_for_stop(ctx);
                }
            }
        }
        let Some(up) = &mut self.up else { return };
        let mut gave = false;
        for session in up.sessions.values_mut() {
            gave |= session.step(ctx, &up.journal);
        }
        if gave {
            up.due_commit(ctx);
        }
        if up.commit_at.is_some_and(|at| at <= ctx.now) || up.tidy_at <= ctx.now {
            up.commit(ctx);
        }
        if !self.fs.is_stopped() {
            up.history.step(ctx);
        }
        if !self.fs.is_stopped() {
            up.target.step(ctx, influxdb, &up.history);
        }
        if !self.look_for_stop(ctx)
            && let Some(up) = &mut self.up
        {
            up.flush(ctx);
        }
    }

    fn start(&mut self, ctx: &mut Ctx) -> Result<Up, String> {
        self.starts += 1;
        let metrics = Arc::new(Metrics::new());
        let fs = Arc::new(self.fs.clone());
        let opened = Journal::open_manual(fs, self.options.clone(), metrics.clone());
        let (journal, committer) = opened.map_err(|error| error.to_string())?;
        let audit = journal.reader("audit", Position::default()).map_err(|error| error.to_string())?;
        // As `app`: those that may lag first.
        let target = Target::open(ctx, &self.fs, &journal, &metrics, self.share_bytes)?;
        let history = History::open(ctx, &self.storage, &journal, metrics.clone())?;
        let now = ctx.now;
        let mut up = Up {
            metrics,
            journal,
            committer,
            audit,
            history,
            target,
            sessions: BTreeMap::new(),
            commit_at: None,
            tidy_at: now,
        };
        let in_journal = up.audit(ctx).map_err(|error| format!("cannot be audited: {error}"))?;
        if self.fs.is_stopped() {
            return Err("stopped".into());
        }
        match up.history.keys() {
            Err(what) => ctx.fail(what),
            Ok(mut there) => {
                there.extend(in_journal);
                if let Err(what) = ctx.oracle.still_there(&there) {
                    ctx.fail(format!("at start {} of the server: {what}", self.starts));
                }
            }
        }
        ctx.trace(|| format!("server: up, journal ends at {}", up.journal.end()));
        Ok(up)
    }

    /// Something came over the network.
    pub fn arrived(&mut self, ctx: &mut Ctx, conn: ConnId, what: Arrival) {
        let Some(up) = &mut self.up else {
            ctx.net.died(ctx.now, conn, End::Server, false);
            return;
        };
        match what {
            Arrival::Accepted => {
                up.sessions.insert(conn, Session::new(ctx.now));
            }
            Arrival::Bytes(bytes) => match up.sessions.get_mut(&conn) {
                Some(session) => {
                    if session.read(ctx, &up.journal, &bytes) {
                        up.due_commit(ctx);
                    }
                }
                // A process that was started anew knows nothing of it.
                None => ctx.net.died(ctx.now, conn, End::Server, false),
            },
            Arrival::Closed | Arrival::Broken => {
                up.sessions.remove(&conn);
                ctx.net.close(ctx.now, conn, End::Server);
            }
            Arrival::Connected | Arrival::Refused => {}
        }
        up.flush(ctx);
    }

    /// The process, or the machine, comes to its end.
    pub fn die(&mut self, ctx: &mut Ctx, death: Death, down_ms: u64) {
        self.down_ms = down_ms;
        ctx.trace(|| format!("server: {death:?}"));
        match death {
            Death::Kill => self.killed(ctx, false),
            Death::Crash => self.killed(ctx, true),
            Death::KillAt(calls) | Death::CrashAt(calls) => {
                self.stops_with_machine = Some(matches!(death, Death::CrashAt(_)));
                self.fs.stop_after(calls);
            }
            Death::Term => self.terminate(ctx),
        }
    }

    /// Stops that were to come between two calls come now or never.
    pub fn heal(&mut self, ctx: &mut Ctx) {
        if let Some(with_machine) = self.stops_with_machine {
            self.killed(ctx, with_machine);
        }
        self.storage.heal();
    }

    fn look_for_stop(&mut self, ctx: &mut Ctx) -> bool {
        let stopped = self.fs.is_stopped();
        if stopped {
            let with_machine = self.stops_with_machine == Some(true);
            self.killed(ctx, with_machine);
        }
        stopped
    }

    /// Commits, acknowledges, says good-bye, and writes what can be written.
    fn terminate(&mut self, ctx: &mut Ctx) {
        let Some(up) = &mut self.up else { return };
        up.commit(ctx);
        for session in up.sessions.values_mut() {
            session.shut_down();
        }
        up.history.flush(ctx);
        up.target.close(ctx);
        if self.look_for_stop(ctx) {
            return;
        }
        if let Some(mut up) = self.up.take() {
            up.flush(ctx);
            self.start_at = Some(ctx.now + self.down_ms.max(1));
        }
    }

    fn killed(&mut self, ctx: &mut Ctx, with_machine: bool) {
        ctx.trace(|| format!("server: dead{}", if with_machine { ", its machine too" } else { "" }));
        self.stops_with_machine = None;
        if with_machine {
            self.fs.crash(&mut ctx.rng);
        } else {
            self.fs.kill();
        }
        if let Some(up) = self.up.take() {
            for conn in up.sessions.keys() {
                ctx.net.died(ctx.now, *conn, End::Server, with_machine);
            }
        }
        self.start_at = Some(ctx.now + self.down_ms.max(1));
    }

    /// History's file can or cannot be written.
    pub fn history_fails(&mut self, fails: bool) {
        if fails {
            self.storage.fail_after(0, MemoryFault::Full);
        } else {
            self.storage.heal();
        }
    }
}

impl Up {
    /// A record waits: it is committed with those that come meanwhile, as soon as the disk takes them.
    fn due_commit(&mut self, ctx: &mut Ctx) {
        if self.commit_at.is_none() {
            let slow = if ctx.rng.u8(..8) == 0 { ctx.rng.u64(..3_000) } else { 0 };
            self.commit_at = Some(ctx.now + GROUP_MS + slow);
        }
    }

    fn commit(&mut self, ctx: &mut Ctx) {
        self.commit_at = None;
        self.tidy_at = ctx.now + 1_000;
        self.committer.step();
        // What cannot be read now is read the next time.
        if let Err(error) = self.audit(ctx) {
            ctx.trace(|| format!("audit: {error}"));
        }
        let mut gave = false;
        for session in self.sessions.values_mut() {
            gave |= session.step(ctx, &self.journal);
        }
        if gave {
            self.due_commit(ctx);
        }
        self.history.news(ctx.now);
        self.target.news(ctx.now);
    }

    /// Reads what is committed into the accounts. Gives what it found.
    fn audit(&mut self, ctx: &mut Ctx) -> Result<BTreeSet<Key>, String> {
        let mut found = BTreeSet::new();
        let outcome = loop {
            match self.audit.try_next() {
                Err(error) => break Err(error.to_string()),
                Ok(None) => break Ok(()),
                Ok(Some(entry)) => {
                    let Some(host) = host_of(entry.record.host) else {
                        ctx.fail(format!("the journal holds records of {}", entry.record.host));
                        continue;
                    };
                    for sample in &entry.record.samples {
                        found.insert((host, sample.time_ms));
                        if let Err(what) = ctx.oracle.committed(host, sample) {
                            ctx.fail(what);
                        }
                    }
                }
            }
        };
        self.audit.passed(self.audit.position());
        let damaged = self.metrics.journal_damaged.get();
        if damaged > 0 && !ctx.oracle.may_be_damaged {
            ctx.fail(format!(
                "{damaged} stretches of the journal are damaged, though no disk failed and no power"
            ));
        }
        outcome.map(|()| found)
    }

    /// Sends what sessions have to say, and closes those that are over.
    fn flush(&mut self, ctx: &mut Ctx) {
        self.sessions.retain(|conn, session| {
            if !session.out.is_empty() {
                ctx.net.send(ctx.now, *conn, End::Server, &session.out);
                session.out.clear();
            }
            if session.is_over {
                ctx.net.close(ctx.now, *conn, End::Server);
            }
            !session.is_over
        });
    }
}
