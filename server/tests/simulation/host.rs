//! A host: its clock, its disk, and the client that runs on it now and then: takes samples, starts, and dies.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vitals_client::clock::{SampleClock, Stamp};
use vitals_client::link::protocol::Settings;
use vitals_client::queue::Caps;
use vitals_client::spool::Spool;
use vitals_client::spool::job::{Job, Keep, Outcome};
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::{RunId, Secret};
use vitals_wire::log::model::ModelFs;
use vitals_wire::log::{Fs, Position};
use vitals_wire::message::{Facts, Hello, PROTOCOL_VERSION};

use crate::client::{Client, Run};
use crate::ctx::Ctx;
use crate::fault::Death;
use crate::net::{Arrival, ConnId, End};
use crate::plan::{HostPlan, Plan};
use crate::samples::{CONFLICT, MALFORMED, host_id, sample};

/// The client's directory on the host's disk.
const DIR: &str = "/var/lib/vitals-client";
const SPOOL: &str = "/var/lib/vitals-client/spool";
const STARTS: &str = "/var/lib/vitals-client/starts";

/// A client tries its disk again at least so often, and then needs some samples' time to catch up.
const SPOOL_RETRY_MS: u64 = 65_000;
/// From a start to the first sample: readings that are rates need two looks.
const FIRST_SAMPLE_MS: u64 = 600;

/// See the module.
#[derive(Debug)]
pub struct Host {
    pub place: usize,
    plan: HostPlan,
    queue_samples: usize,
    spool_bytes: u64,
    pub fs: ModelFs,
    /// How far its clock is off.
    pub offset_ms: i64,
    /// Samples so far, over all lives.
    number: u64,
    lives: u64,
    life: Option<Life>,
    /// When the client is started (again).
    start_at: Option<u64>,
    /// What happens to the machine when the process stops between two calls.
    stops_with_machine: Option<bool>,
    /// How long it stays away then.
    down_ms: u64,
    /// Its disk could be written at the last kill, and had been for a while.
    has_disk: bool,
    /// A start was not counted: from then on the clock is left alone.
    pub is_uncounted: bool,
    /// The digit of the last such start.
    lucky: u64,
    /// Steps of the clock in the last life that the disk never took.
    unkept: u64,
    /// Until then a spool may wait before it tries a disk again that failed.
    disk_bad_until: u64,
}

/// One run of the client.
#[derive(Debug)]
struct Life {
    client: Client,
    clock: SampleClock,
    starts: u64,
    /// Steps of the clock that the disk knows of.
    steps_kept: u64,
    /// When the next sample is due; none once it drains.
    tick_at: Option<u64>,
    /// A stamp that is waited for.
    stamp_at: Option<u64>,
}

impl Host {
    pub fn new(place: usize, plan: &Plan, seed: u64) -> Self {
        let (queue_samples, spool_bytes) = (plan.queue_samples, plan.spool_bytes);
        let plan = &plan.hosts[place];
        Self {
            place,
            queue_samples,
            spool_bytes,
            fs: ModelFs::new(seed),
            offset_ms: plan.offset_ms,
            number: 0,
            lives: 0,
            life: None,
            start_at: Some(plan.starts_at),
            stops_with_machine: None,
            down_ms: 0,
            has_disk: true,
            is_uncounted: false,
            lucky: 0,
            unkept: 0,
            disk_bad_until: 0,
            plan: plan.clone(),
        }
    }

    /// When it has something to do by itself.
    pub fn next_at(&self) -> Option<u64> {
        let life = self.life.as_ref().map(|life| [life.stamp_at.or(life.tick_at), life.client.next_at()]);
        life.into_iter().flatten().flatten().chain(self.start_at).min()
    }

    /// Samples that its client has and that are not settled.
    pub fn waiting(&self) -> usize {
        self.life.as_ref().map_or(0, |life| life.client.waiting())
    }

    /// Whether a client runs that has nothing left to bring.
    pub fn is_at_rest(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.client.knows_what_waits()) && self.waiting() == 0
    }

    /// Does what is due.
    pub fn step(&mut self, ctx: &mut Ctx, listens: bool) {
        if self.start_at.is_some_and(|at| at <= ctx.now) {
            self.start_at = None;
            self.start(ctx);
        }
        self.tick(ctx);
        if let Some(life) = &mut self.life {
            life.client.work(ctx);
            if !self.fs.is_stopped() && life.client.pump(ctx, listens) == Run::IsOver {
                self.end(ctx, false);
            }
        }
        self.look_for_stop(ctx);
    }

    /// Samples that the header of its client's spool counts as dropped.
    pub fn in_header(&self) -> u64 {
        self.life.as_ref().map_or(0, |life| life.client.in_header())
    }

    /// No sample is taken any more.
    pub fn quiet(&mut self) {
        if let Some(life) = &mut self.life {
            (life.tick_at, life.stamp_at) = (None, None);
        }
    }

    /// A disk that cannot be written makes a kill cost more, also for a while after it is mended.
    pub fn disk_fails(&mut self, until: u64) {
        self.disk_bad_until = self.disk_bad_until.max(until + SPOOL_RETRY_MS);
    }

    fn start(&mut self, ctx: &mut Ctx) {
        if self.life.is_some() {
            return;
        }
        self.lives += 1;
        let place = self.place;
        let interval = Duration::from_millis(self.plan.interval_ms);
        let starts = self.next_start(ctx);
        let mut run = [0; 16];
        run.fill_with(|| ctx.rng.u8(..));
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            client_version: Text::cut("0"),
            host: host_id(place),
            run: RunId(run),
            secret: Secret([7; 32]),
            token: None,
            name: Text::cut(&format!("host{place}")),
            labels: List::empty(),
            facts: Facts::default(),
            interval_ms: self.plan.interval_ms as u32,
            shortest_interval_ms: self.plan.interval_ms as u32,
            clock_ms: 0,
        };
        let settings = Settings {
            servers: 1,
            interval,
            caps: Caps { entries: self.queue_samples, bytes: usize::MAX },
            seed: ctx.rng.u64(..),
        };
        if self.lives > 1 {
            let (found, in_header) = found(&self.fs, self.spool_bytes);
            let without_disk = (!self.has_disk).then_some(self.queue_samples);
            match ctx.oracle.reborn(place, &found, in_header, without_disk) {
                Ok(lost) => ctx.trace(|| format!("client {place}: back, {lost} lost")),
                Err(what) => ctx.fail(what),
            }
        }
        let clock = SampleClock::new((starts % 10) as u8, interval);
        ctx.trace(|| format!("client {place}: start {starts}"));
        let spool = (Path::new(SPOOL), self.spool_bytes);
        let mut life = Life {
            client: Client::new(ctx, place, &self.fs, spool, settings, hello),
            clock,
            starts,
            steps_kept: 0,
            tick_at: Some(ctx.now + FIRST_SAMPLE_MS),
            stamp_at: None,
        };
        if ctx.oracle.is_quiet {
            life.tick_at = None;
        }
        self.life = Some(life);
    }

    /// As `identity` does it: one more than last time.
    fn next_start(&mut self, ctx: &mut Ctx) -> u64 {
        let path = Path::new(STARTS);
        let before =
            self.fs.read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<u64>().ok());
        // A number that was lost with a step of the clock would have the client begin with a digit that it had before. That
        // the digit is free all the same is taken for granted too.
        let unkept = std::mem::take(&mut self.unkept);
        self.is_uncounted |= unkept > 0;
        let starts = before.unwrap_or_default().wrapping_add(1 + unkept);
        let kept = self
            .fs
            .create_dir(Path::new(DIR))
            .and_then(|()| self.fs.replace(path, starts.to_string().as_bytes()));
        if kept.is_ok() {
            return starts;
        }
        // The client takes a random digit then, and one time in ten that is one of a stretch before. That it is not is
        // taken for granted here: counted starts and steps are fewer than these digits.
        self.is_uncounted = true;
        self.lucky = if self.lucky == 0 { 9 } else { 0 };
        ctx.trace(|| format!("client {}: this start cannot be counted", self.place));
        starts / 10 * 10 + 10 + self.lucky
    }

    /// Takes a sample when it is time.
    fn tick(&mut self, ctx: &mut Ctx) {
        let Some(life) = &mut self.life else { return };
        let due = match (life.stamp_at, life.tick_at) {
            (Some(at), _) | (None, Some(at)) => at,
            (None, None) => return,
        };
        if due > ctx.now {
            return;
        }
        let wall_ms = ctx.wall_ms() + self.offset_ms;
        match life.clock.stamp(wall_ms, ctx.now as i64) {
            Stamp::Wait(wait) => life.stamp_at = Some(ctx.now + wait.as_millis().max(1) as u64),
            Stamp::Take(time_ms) => {
                life.stamp_at = None;
                let interval = self.plan.interval_ms;
                let mut next =
                    life.tick_at.unwrap_or(ctx.now).max(ctx.now - ctx.now % interval + self.plan.phase_ms);
                while next < ctx.now + interval / 2 {
                    next += interval;
                }
                life.tick_at = Some(next);
                self.number += 1;
                let place = self.place;
                let number = self.number;
                let refused = self.plan.refused_in.is_some_and(|every| number.is_multiple_of(every));
                let total = refused.then_some(if number.is_multiple_of(2) { MALFORMED } else { CONFLICT });
                let sample = sample(place, number, time_ms, total);
                if let Err(what) = ctx.oracle.taken(place, self.lives, &sample) {
                    ctx.fail(what);
                }
                ctx.trace(|| format!("client {place}: takes #{number} at {time_ms}"));
                life.client.sample_taken(ctx, sample);
                self.keep_steps();
            }
        }
    }

    /// As `run` does it: the next start is not to use the digit of a stretch of this one. A disk that does not take the
    /// number is tried again.
    fn keep_steps(&mut self) {
        let Some(life) = &mut self.life else { return };
        let steps = life.clock.steps_so_far().count;
        if steps != life.steps_kept {
            let number = life.starts.wrapping_add(steps);
            if self.fs.replace(Path::new(STARTS), number.to_string().as_bytes()).is_ok() {
                life.steps_kept = steps;
            }
        }
    }

    /// Something came over the network.
    pub fn arrived(&mut self, ctx: &mut Ctx, conn: ConnId, what: Arrival) {
        let wall_ms = ctx.wall_ms() + self.offset_ms;
        if let Some(life) = &mut self.life {
            life.client.arrived(ctx, conn, what, wall_ms);
        }
    }

    /// The process, or the machine, comes to its end.
    pub fn die(&mut self, ctx: &mut Ctx, death: Death, down_ms: u64) {
        self.down_ms = down_ms;
        let place = self.place;
        ctx.trace(|| format!("client {place}: {death:?}"));
        match death {
            Death::Kill => self.killed(ctx, false),
            Death::Crash => self.killed(ctx, true),
            Death::KillAt(calls) | Death::CrashAt(calls) => {
                self.stops_with_machine = Some(matches!(death, Death::CrashAt(_)));
                self.fs.stop_after(calls);
            }
            Death::Term => {
                if let Some(life) = &mut self.life {
                    (life.tick_at, life.stamp_at) = (None, None);
                    life.client.shut_down(ctx);
                }
            }
        }
    }

    /// Stops that were to come between two calls come now or never.
    pub fn heal(&mut self, ctx: &mut Ctx) {
        if self.stops_with_machine.is_some() {
            let with_machine = self.stops_with_machine == Some(true);
            self.killed(ctx, with_machine);
        }
    }

    fn look_for_stop(&mut self, ctx: &mut Ctx) {
        if self.fs.is_stopped() {
            let with_machine = self.stops_with_machine == Some(true);
            self.killed(ctx, with_machine);
        }
    }

    fn killed(&mut self, ctx: &mut Ctx, with_machine: bool) {
        let place = self.place;
        ctx.trace(|| format!("client {place}: dead{}", if with_machine { ", its machine too" } else { "" }));
        if with_machine {
            self.fs.crash(&mut ctx.rng);
        } else {
            self.fs.kill();
        }
        self.stops_with_machine = None;
        self.end(ctx, with_machine);
    }

    fn end(&mut self, ctx: &mut Ctx, with_machine: bool) {
        if let Some(life) = self.life.take() {
            self.unkept = life.clock.steps_so_far().count - life.steps_kept;
            self.has_disk = self.disk_bad_until <= ctx.now && !life.client.is_held();
            if let Some(conn) = life.client.conn() {
                ctx.net.died(ctx.now, conn, End::Client, with_machine);
            }
            self.start_at = Some(ctx.now + self.down_ms.max(1));
        }
    }
}

/// Times of the samples that a client finds on this disk, whatever fails there at the moment, and how many were dropped.
fn found(fs: &ModelFs, spool_bytes: u64) -> (BTreeSet<i64>, u64) {
    let copy = ModelFs::new(0);
    copy.create_dir(Path::new(SPOOL)).unwrap();
    for (path, _) in fs.files() {
        if path.parent() == Some(Path::new(SPOOL)) {
            copy.create(&path).unwrap().append(&fs.content(&path).unwrap()).unwrap();
        }
    }
    let mut spool = Spool::new_on(Arc::new(copy), Path::new(SPOOL), spool_bytes);
    let Outcome::Opened(opened) = spool.perform(Job::Open) else { return Default::default() };
    let all = Job::Read { from: Position::default(), samples: usize::MAX, bytes: usize::MAX };
    let times = match spool.perform(all) {
        Outcome::Read { samples, .. } => samples.into_iter().map(|kept| kept.time_ms).collect(),
        _ => BTreeSet::new(),
    };
    (times, opened.drops.spool_full)
}
