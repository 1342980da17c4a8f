//! One schedule from its beginning until all is at rest.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::ctx::Ctx;
use crate::fault::{Death, Disk, Fault};
use crate::host::Host;
use crate::influxdb::{InfluxDb, Mood};
use crate::net::{End, Net, Way};
use crate::oracle::{Figures, Oracle};
use crate::plan::Plan;
use crate::server::Server;
use crate::verdict::judge;
use vitals_wire::log::model::{Faults, ModelFs};

/// What a schedule came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub figures: Figures,
    pub kills: u64,
    pub gave_up: u64,
    pub lost_without_disk: u64,
    pub influx_requests: u64,
    /// Virtual ms.
    pub took_ms: u64,
}

/// Turns in the same millisecond after which something goes round in circles.
const MAX_TURNS: u32 = 10_000;

/// Something that is mended at its time.
#[derive(Debug)]
enum Mend {
    Way(usize),
    ClientDisk(usize),
    ServerDisk,
    History,
    Influx,
}

struct World {
    plan: Plan,
    ctx: Ctx,
    hosts: Vec<Host>,
    server: Server,
    influxdb: InfluxDb,
    next_fault: usize,
    mends: BTreeMap<(u64, usize), Mend>,
    is_healed: bool,
}

/// Plays the schedule of a seed; what went wrong, if something did, and the trace if that is wanted.
pub fn play(seed: u64, traced: bool) -> (Result<Summary, String>, Vec<String>) {
    let plan = Plan::of(seed);
    let mut rng = Rng::with_seed(seed ^ 0x5eed);
    let ways = plan.hosts.iter().map(|_| usual(&mut rng)).collect();
    let net = Net::new(ways, rng.fork());
    let hosts = (0..plan.hosts.len()).map(|place| Host::new(place, &plan, rng.u64(..))).collect();
    let server = Server::new(&plan, rng.u64(..));
    let influxdb = InfluxDb::new(rng.fork());
    let mut ctx = Ctx::new(rng, net, Oracle::default(), traced);
    ctx.trace(|| format!("{plan:#?}"));
    let mut world =
        World { plan, ctx, hosts, server, influxdb, next_fault: 0, mends: BTreeMap::new(), is_healed: false };
    world.run();
    let outcome = match world.ctx.failure() {
        Some(failure) => Err(failure.to_owned()),
        None => Ok(world.summary()),
    };
    (outcome, world.ctx.into_trace())
}

fn usual(rng: &mut Rng) -> Way {
    Way { up_ms: rng.u64(1..60), down_ms: rng.u64(1..60), shut: None }
}

impl World {
    fn run(&mut self) {
        let mut turns = 0;
        while self.ctx.failure().is_none() {
            let Some(at) = self.next_at() else { return self.ctx.fail("nothing will ever happen again") };
            if at > self.plan.rest_by {
                let waiting: Vec<usize> = self.hosts.iter().map(Host::waiting).collect();
                let state = self.server.state();
                return self.ctx.fail(format!("never came to rest: clients hold {waiting:?}; {state}"));
            }
            turns = if at > self.ctx.now { 0 } else { turns + 1 };
            if turns > MAX_TURNS {
                return self.ctx.fail(format!("time stands still: {}", self.server.state()));
            }
            self.ctx.now = at.max(self.ctx.now);
            self.turn();
            if self.ctx.oracle.is_quiet && self.is_at_rest() {
                return self.judge();
            }
        }
    }

    fn next_at(&self) -> Option<u64> {
        let hosts = self.hosts.iter().filter_map(Host::next_at).min();
        let fault = self.plan.faults.get(self.next_fault).map(|(at, _)| *at);
        let mend = self.mends.keys().next().map(|(at, _)| *at);
        let healed = (!self.is_healed).then_some(self.plan.healed_at);
        let quiet = (!self.ctx.oracle.is_quiet).then_some(self.plan.quiet_at);
        let times = [hosts, self.server.next_at(), self.ctx.net.next_at(), fault, mend, healed, quiet];
        times.into_iter().flatten().min()
    }

    /// All that is due now.
    fn turn(&mut self) {
        let now = self.ctx.now;
        while let Some(delivery) = self.ctx.net.take(now) {
            match delivery.to {
                End::Client => self.hosts[delivery.host].arrived(&mut self.ctx, delivery.conn, delivery.what),
                End::Server => self.server.arrived(&mut self.ctx, delivery.conn, delivery.what),
            }
        }
        while let Some(first) = self.mends.first_entry().filter(|first| first.key().0 <= now) {
            let mend = first.remove();
            self.mend(mend);
        }
        while let Some((_, fault)) = self.plan.faults.get(self.next_fault).filter(|(at, _)| *at <= now) {
            let fault = fault.clone();
            self.next_fault += 1;
            self.ctx.trace(|| format!("FAULT {fault:?}"));
            self.strike(fault);
        }
        if now >= self.plan.healed_at && !self.is_healed {
            self.heal();
        }
        if now >= self.plan.quiet_at && !self.ctx.oracle.is_quiet {
            self.ctx.oracle.is_quiet = true;
            self.hosts.iter_mut().for_each(Host::quiet);
        }
        for host in &mut self.hosts {
            if host.next_at().is_some_and(|at| at <= now) {
                let listens = self.server.listens();
                host.step(&mut self.ctx, listens);
            }
        }
        if self.server.next_at().is_some_and(|at| at <= now) {
            self.server.step(&mut self.ctx, &mut self.influxdb);
        }
    }

    fn strike(&mut self, fault: Fault) {
        let now = self.ctx.now;
        let mut mend = |for_ms: u64, mend| {
            let place = self.mends.len() + self.next_fault * 1_000;
            self.mends.insert((now + for_ms, place), mend);
        };
        match fault {
            Fault::Cut { host, after } => {
                for conn in self.ctx.net.open_of(host) {
                    self.ctx.net.cut_after(now, conn, after);
                }
            }
            Fault::Silence { host } => {
                for conn in self.ctx.net.open_of(host) {
                    self.ctx.net.silence(conn);
                }
            }
            Fault::Slow { host, up_ms, down_ms, for_ms } => {
                let way = &mut self.ctx.net.ways[host];
                (way.up_ms, way.down_ms) = (up_ms.max(1), down_ms.max(1));
                mend(for_ms, Mend::Way(host));
            }
            Fault::Shut { host, slowly, for_ms } => {
                self.ctx.net.ways[host].shut = Some(slowly);
                mend(for_ms, Mend::Way(host));
            }
            Fault::Client { host, death, down_ms } => self.hosts[host].die(&mut self.ctx, death, down_ms),
            Fault::Server { death, down_ms } => {
                self.ctx.oracle.may_be_damaged |= matches!(death, Death::Crash | Death::CrashAt(_));
                self.server.die(&mut self.ctx, death, down_ms);
            }
            Fault::ServerInHistory { calls, is_durable, down_ms } => {
                self.server.die_in_history(calls, is_durable, down_ms);
            }
            Fault::ClientDisk { host, disk, for_ms } => {
                fail(&self.hosts[host].fs, disk);
                self.hosts[host].disk_fails(now + for_ms);
                mend(for_ms, Mend::ClientDisk(host));
            }
            Fault::ServerDisk { disk, for_ms } => {
                self.ctx.oracle.may_be_damaged = true;
                fail(&self.server.fs, disk);
                if disk == Disk::SyncFails {
                    self.server.syncs_fail();
                }
                mend(for_ms, Mend::ServerDisk);
            }
            Fault::History { for_ms } => {
                self.server.history_fails(true);
                mend(for_ms, Mend::History);
            }
            Fault::Influx { mood, for_ms } => {
                self.influxdb.mood = mood;
                mend(for_ms, Mend::Influx);
            }
            Fault::InfluxRestart => self.influxdb.restart(),
            Fault::Clock { host, by_ms } if !self.hosts[host].is_uncounted => {
                self.hosts[host].offset_ms += by_ms;
            }
            Fault::Clock { .. } => {}
        }
    }

    fn mend(&mut self, mend: Mend) {
        self.ctx.trace(|| format!("MENDED {mend:?}"));
        match mend {
            Mend::Way(host) => self.ctx.net.ways[host] = usual(&mut self.ctx.rng),
            Mend::ClientDisk(host) => self.hosts[host].fs.fail(|faults| *faults = Faults::default()),
            Mend::ServerDisk => self.server.fs.fail(|faults| *faults = Faults::default()),
            Mend::History => self.server.history_fails(false),
            Mend::Influx => self.influxdb.mood = Mood::Well,
        }
    }

    fn heal(&mut self) {
        self.is_healed = true;
        while let Some((_, mend)) = self.mends.pop_first() {
            self.mend(mend);
        }
        for host in &mut self.hosts {
            host.heal(&mut self.ctx);
        }
        self.server.heal(&mut self.ctx);
        if self.influxdb.mood == Mood::Full {
            self.influxdb.restart();
        }
        self.influxdb.mood = Mood::Well;
    }

    fn is_at_rest(&self) -> bool {
        let hosts = self.hosts.iter().all(Host::is_at_rest);
        hosts && self.server.is_at_rest()
    }

    fn judge(&mut self) {
        // What could not be saved is forgotten now.
        self.influxdb.restart();
        let Some(history) = self.server.history() else { return self.ctx.fail("the server is down") };
        if let Err(what) = judge(&self.ctx.oracle, &self.hosts, history, &self.influxdb) {
            self.ctx.fail(what);
        }
    }

    fn summary(&self) -> Summary {
        let oracle = &self.ctx.oracle;
        Summary {
            figures: oracle.figures(),
            kills: oracle.kills,
            gave_up: oracle.gave_up,
            lost_without_disk: oracle.lost_without_disk,
            influx_requests: self.influxdb.requests,
            took_ms: self.ctx.now,
        }
    }
}

fn fail(fs: &ModelFs, disk: Disk) {
    let used: u64 = fs.files().iter().map(|(_, bytes)| bytes).sum();
    fs.fail(|faults| match disk {
        Disk::Full(room) => faults.capacity = Some(used + room),
        Disk::ReadOnly => faults.read_only = true,
        Disk::Denied => faults.denied = true,
        Disk::SyncFails => faults.sync_fails = true,
        Disk::SyncDirFails => faults.sync_dir_fails = true,
    });
}
