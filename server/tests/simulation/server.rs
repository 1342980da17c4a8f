//! The server's machine: its disks, and the process that starts on it and dies.

use std::path::PathBuf;
use std::time::Duration;

use vitals_server::journal::JournalOptions;
use vitals_server::store::{MemoryFault, MemoryStorage};
use vitals_wire::log::model::ModelFs;

use crate::ctx::Ctx;
use crate::fault::Death;
use crate::history::History;
use crate::influxdb::InfluxDb;
use crate::net::{Arrival, ConnId, End};
use crate::plan::Plan;
use crate::process::{GROUP_MS, Limits, Process};

/// Before a server that could not start is started again.
const RESTART_MS: u64 = 2_000;

/// See the module.
pub struct Server {
    pub fs: ModelFs,
    pub storage: MemoryStorage,
    options: JournalOptions,
    limits: Limits,
    up: Option<Process>,
    start_at: Option<u64>,
    stops_with_machine: Option<bool>,
    down_ms: u64,
    starts: u64,
    /// A sync failed since the machine started: what it was to write may be in the system's memory alone, where no later
    /// sync finds it.
    lost_sync: bool,
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
            limits: Limits { share_bytes: plan.influx_share_bytes, window: plan.window },
            up: None,
            start_at: Some(0),
            stops_with_machine: None,
            down_ms: 0,
            starts: 0,
            lost_sync: false,
        }
    }

    /// Whether a connection comes about.
    pub fn listens(&self) -> bool {
        self.up.is_some()
    }

    pub fn next_at(&self) -> Option<u64> {
        let up = self.up.as_ref().map(Process::next_at);
        up.into_iter().chain(self.start_at).min()
    }

    /// Whether nothing is left to do.
    pub fn is_at_rest(&self) -> bool {
        self.up.as_ref().is_some_and(Process::is_at_rest)
    }

    /// What keeps it from rest.
    pub fn state(&self) -> String {
        let state = self.up.as_ref().map_or_else(|| "the server is down".into(), Process::state);
        format!("{state}; files {:?}", self.fs.files())
    }

    pub fn history(&self) -> Option<&History> {
        self.up.as_ref().map(Process::history)
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
        up.step(ctx, influxdb);
        if !self.look_for_stop(ctx)
            && let Some(up) = &mut self.up
        {
            up.flush(ctx);
        }
    }

    fn start(&mut self, ctx: &mut Ctx) -> Result<Process, String> {
        self.starts += 1;
        let (fs, storage) = (&self.fs, &self.storage);
        let (up, in_journal) =
            Process::start(ctx, fs, storage, self.options.clone(), self.limits, !self.lost_sync)?;
        if fs.is_stopped() {
            return Err("stopped".into());
        }
        match up.history().keys() {
            Err(what) => ctx.fail(what),
            Ok(mut there) => {
                there.extend(in_journal);
                if let Err(what) = ctx.oracle.still_there(&there) {
                    ctx.fail(format!("at start {} of the server: {what}", self.starts));
                }
            }
        }
        Ok(up)
    }

    /// Something came over the network.
    pub fn arrived(&mut self, ctx: &mut Ctx, conn: ConnId, what: Arrival) {
        let Some(up) = &mut self.up else {
            ctx.net.died(ctx.now, conn, End::Server, false);
            return;
        };
        up.arrived(ctx, conn, what);
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

    /// The process dies within a transaction of history.
    pub fn die_in_history(&mut self, calls: u64, is_durable: bool, down_ms: u64) {
        let Some(up) = &mut self.up else { return };
        self.down_ms = down_ms;
        let how = if is_durable { MemoryFault::CrashAfterCommit } else { MemoryFault::Crash };
        self.storage.fail_after(calls, how);
        up.dies_at(self.storage.calls() + calls);
    }

    /// Stops that were to come between two calls come now or never.
    pub fn heal(&mut self, ctx: &mut Ctx) {
        if let Some(with_machine) = self.stops_with_machine {
            self.killed(ctx, with_machine);
        }
        // A process that was to die within history goes on.
        self.storage.heal();
        if let Some(up) = &mut self.up {
            up.dies_at(u64::MAX);
        }
    }

    fn look_for_stop(&mut self, ctx: &mut Ctx) -> bool {
        let stopped = self.fs.is_stopped() || self.up.as_ref().is_some_and(Process::is_dead);
        if stopped {
            let with_machine = self.stops_with_machine == Some(true);
            self.killed(ctx, with_machine);
        }
        stopped
    }

    /// Commits, acknowledges, says good-bye, and writes what can be written.
    fn terminate(&mut self, ctx: &mut Ctx) {
        let Some(up) = &mut self.up else { return };
        up.shut_down(ctx);
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
            self.lost_sync = false;
        } else {
            self.fs.kill();
        }
        if let Some(up) = self.up.take() {
            self.storage.heal();
            for conn in up.conns() {
                ctx.net.died(ctx.now, conn, End::Server, with_machine);
            }
        }
        self.start_at = Some(ctx.now + self.down_ms.max(1));
    }

    /// Its disk fails in syncs.
    pub fn syncs_fail(&mut self) {
        self.lost_sync = true;
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
