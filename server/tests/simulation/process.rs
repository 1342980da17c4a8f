//! One run of the server, with journal, history, InfluxDB's writer and sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vitals_server::journal::{Committer, Journal, JournalOptions, JournalReader};
use vitals_server::metrics::Metrics;
use vitals_server::store::MemoryStorage;
use vitals_wire::log::Position;
use vitals_wire::log::model::ModelFs;

use crate::ctx::Ctx;
use crate::history::History;
use crate::influxdb::InfluxDb;
use crate::net::{Arrival, ConnId, End};
use crate::oracle::Key;
use crate::samples::host_of;
use crate::session::Session;
use crate::target::Target;

/// A commit waits so long for others.
pub const GROUP_MS: u64 = 25;
/// The journal's thread looks what may go at least so often.
const TIDY_MS: u64 = 1_000;
/// And how much room the disk has.
const LOOK_MS: u64 = 10_000;
/// One commit in so many takes the disk up to [`MAX_COMMIT_MS`].
const SLOW_COMMITS: u8 = 8;
const MAX_COMMIT_MS: u64 = 3_000;

/// What the server's configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// InfluxDB may lag so many bytes of the journal.
    pub share_bytes: u64,
    /// Batches of backlog of one client under way at most.
    pub window: u32,
}

/// See the module.
pub struct Process {
    fs: ModelFs,
    storage: MemoryStorage,
    /// Calls of history's storage behind which it is dead.
    dies_at: u64,
    metrics: Arc<Metrics>,
    journal: Journal,
    committer: Committer,
    /// Reads what is committed, for the accounts.
    audit: JournalReader,
    history: History,
    target: Target,
    window: u32,
    sessions: BTreeMap<ConnId, Session>,
    commit_at: Option<u64>,
    tidy_at: u64,
    look_at: u64,
}

impl Process {
    /// Opens what lies on its disks. Gives also what the journal still holds; `is_synced`: all of that is durable once
    /// the journal is open.
    pub fn start(
        ctx: &mut Ctx,
        fs: &ModelFs,
        storage: &MemoryStorage,
        options: JournalOptions,
        limits: Limits,
        is_synced: bool,
    ) -> Result<(Self, BTreeSet<Key>), String> {
        let metrics = Arc::new(Metrics::new());
        let opened = Journal::open_manual(Arc::new(fs.clone()), options, metrics.clone());
        let (journal, committer) = opened.map_err(|error| error.to_string())?;
        let audit = journal.reader("audit", Position::default()).map_err(|error| error.to_string())?;
        // As `app`: those that may lag first.
        let target = Target::open(ctx, fs, &journal, &metrics, limits.share_bytes)?;
        let history = History::open(ctx, storage, &journal, metrics.clone())?;
        let mut up = Self {
            fs: fs.clone(),
            storage: storage.clone(),
            dies_at: u64::MAX,
            metrics,
            journal,
            committer,
            audit,
            history,
            target,
            window: limits.window,
            sessions: BTreeMap::new(),
            commit_at: None,
            tidy_at: ctx.now,
            look_at: ctx.now + LOOK_MS,
        };
        let in_journal = up.audit(ctx, is_synced).map_err(|error| format!("cannot be audited: {error}"))?;
        ctx.trace(|| format!("server: up, journal ends at {}", up.journal.end()));
        Ok((up, in_journal))
    }

    pub fn next_at(&self) -> u64 {
        let sessions = self.sessions.values().filter_map(Session::next_at).min();
        let times = [sessions, self.commit_at, Some(self.history.next_at()), Some(self.target.next_at())];
        times.into_iter().flatten().fold(self.tidy_at, u64::min)
    }

    /// Whether nothing is left to do.
    pub fn is_at_rest(&self) -> bool {
        self.commit_at.is_none()
            && self.sessions.values().all(Session::is_at_rest)
            && self.history.is_at_rest(&self.journal)
            && self.target.is_at_rest(&self.journal)
    }

    /// What keeps it from rest.
    pub fn state(&self) -> String {
        format!(
            "{} sessions, history at {} of {}, {}, journal: {:?}",
            self.sessions.len(),
            self.history.position(),
            self.journal.end(),
            self.target.state(&self.journal),
            self.journal.trouble()
        )
    }

    /// It dies at this call of history's storage.
    pub fn dies_at(&mut self, call: u64) {
        self.dies_at = call;
    }

    /// Whether it died between two calls of its disk, or within one of history's.
    pub fn is_dead(&self) -> bool {
        self.fs.is_stopped() || self.storage.calls() > self.dies_at
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// Its open connections.
    pub fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.sessions.keys().copied()
    }

    /// Does what is due, as long as the process lives.
    pub fn step(&mut self, ctx: &mut Ctx, influxdb: &mut InfluxDb) {
        let mut gave = false;
        for session in self.sessions.values_mut() {
            gave |= session.step(ctx, &self.journal);
        }
        if gave {
            self.due_commit(ctx);
        }
        if self.commit_at.is_some_and(|at| at <= ctx.now) || self.tidy_at <= ctx.now {
            self.commit(ctx);
        }
        if !self.is_dead() {
            self.history.step(ctx);
        }
        if !self.is_dead() {
            self.target.step(ctx, influxdb, &self.history);
        }
    }

    /// Something came over the network.
    pub fn arrived(&mut self, ctx: &mut Ctx, conn: ConnId, what: Arrival) {
        match what {
            Arrival::Accepted => {
                self.sessions.insert(conn, Session::new(ctx.now, self.window));
            }
            Arrival::Bytes(bytes) => match self.sessions.get_mut(&conn) {
                Some(session) => {
                    if session.read(ctx, &self.journal, &bytes) {
                        self.due_commit(ctx);
                    }
                }
                // A process that was started anew knows nothing of it.
                None => ctx.net.died(ctx.now, conn, End::Server, false),
            },
            Arrival::Closed | Arrival::Broken => {
                self.sessions.remove(&conn);
                ctx.net.close(ctx.now, conn, End::Server);
            }
            Arrival::Connected | Arrival::Refused => {}
        }
        self.flush(ctx);
    }

    /// Commits, acknowledges, says good-bye, and writes what can be written.
    pub fn shut_down(&mut self, ctx: &mut Ctx) {
        self.commit(ctx);
        for session in self.sessions.values_mut() {
            session.shut_down();
        }
        self.history.flush(ctx);
        if !self.is_dead() {
            self.target.close(ctx);
        }
    }

    /// A record waits: it is committed with those that come meanwhile, as soon as the disk takes them.
    fn due_commit(&mut self, ctx: &mut Ctx) {
        if self.commit_at.is_none() {
            let slow = if ctx.rng.u8(..SLOW_COMMITS) == 0 { ctx.rng.u64(..MAX_COMMIT_MS) } else { 0 };
            self.commit_at = Some(ctx.now + GROUP_MS + slow);
        }
    }

    fn commit(&mut self, ctx: &mut Ctx) {
        self.commit_at = None;
        self.tidy_at = ctx.now + TIDY_MS;
        if self.look_at <= ctx.now {
            self.look_at = ctx.now + LOOK_MS;
            self.committer.disk_has(None);
        }
        self.committer.step();
        // What cannot be read now is read the next time.
        if let Err(error) = self.audit(ctx, true) {
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
    fn audit(&mut self, ctx: &mut Ctx, is_durable: bool) -> Result<BTreeSet<Key>, String> {
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
                        if let Err(what) = ctx.oracle.shown(host, sample, is_durable) {
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
    pub fn flush(&mut self, ctx: &mut Ctx) {
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
