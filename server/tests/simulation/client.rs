//! A client on its host, from its start to its end: does what the real protocol wants done on network and disk, and brings
//! what the protocol tells to the accounts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};
use vitals_client::link::event::{Closed, Event, Loss, News};
use vitals_client::link::protocol::{Action, Protocol, Settings};
use vitals_client::spool::Spool;
use vitals_client::spool::job::{Job, Keep, Outcome};
use vitals_wire::log::model::ModelFs;
use vitals_wire::message::{ClientCodec, ClientMessage, Hello, Samples, ServerMessage};
use vitals_wire::sample::Sample;

use crate::ctx::Ctx;
use crate::net::{Arrival, ConnId, End};

/// One job in so many takes the disk some time.
const SLOW_JOBS: u8 = 4;
const MAX_JOB_MS: u64 = 300;

/// See the module.
#[derive(Debug)]
pub struct Client {
    place: usize,
    fs: ModelFs,
    protocol: Protocol,
    spool: Spool,
    /// The disk is at work for this job until then.
    job: Option<(u64, Job)>,
    job_at: Option<u64>,
    /// The spool was opened.
    knows_spool: bool,
    /// The spool is full, and its oldest samples are under way: nothing can be written until they are settled.
    is_held: bool,
    wake_at: Option<u64>,
    conn: Option<ConnId>,
    is_connected: bool,
    codec: ClientCodec,
    incoming: BytesMut,
    is_draining: bool,
    /// The server has said Welcome on the present connection.
    is_open: bool,
    /// The sample that was just taken, while it has to go out at once.
    live_due: Option<i64>,
    /// Backlog on the present connection that is not acknowledged, and how many batches of it may be.
    backlog: BTreeSet<u64>,
    window: usize,
}

/// How a client's run went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    GoesOn,
    /// It drained, and its process ends.
    IsOver,
}

impl Client {
    /// A client that starts now, with the spool that lies in `dir`.
    pub fn new(
        ctx: &Ctx,
        place: usize,
        fs: &ModelFs,
        (dir, max_bytes): (&Path, u64),
        settings: Settings,
        hello: Hello,
    ) -> Self {
        Self {
            place,
            fs: fs.clone(),
            protocol: Protocol::new(settings, hello, ctx.instant()).with_spool(ctx.instant()),
            spool: Spool::new_on(Arc::new(fs.clone()), dir, max_bytes),
            job: None,
            job_at: None,
            knows_spool: false,
            is_held: false,
            wake_at: Some(ctx.now),
            conn: None,
            is_connected: false,
            codec: ClientCodec::new(),
            incoming: BytesMut::new(),
            is_draining: false,
            is_open: false,
            live_due: None,
            backlog: BTreeSet::new(),
            window: 0,
        }
    }

    /// When it has something to do by itself.
    pub fn next_at(&self) -> Option<u64> {
        let job = self.job.as_ref().map(|(at, _)| *at);
        [self.wake_at, job, self.job_at.filter(|_| job.is_none())].into_iter().flatten().min()
    }

    /// Samples that it has, in memory or on disk, and that are not settled.
    pub fn waiting(&self) -> usize {
        let waiting = self.protocol.all_waiting();
        waiting.memory + waiting.disk as usize
    }

    /// Whether it knows what its spool holds, and is not at work on it.
    pub fn knows_what_waits(&self) -> bool {
        self.knows_spool && self.job.is_none()
    }

    /// Whether its spool is full, and nothing can be written until what is under way is settled.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    pub fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    /// Samples that the header of its spool counts as dropped.
    pub fn in_header(&self) -> u64 {
        self.spool.drops().spool_full
    }

    /// A sample was taken.
    pub fn sample_taken(&mut self, ctx: &Ctx, sample: Sample) {
        self.live_due = self.is_open.then_some(sample.time_ms);
        self.protocol.sample_taken(ctx.instant(), sample);
        self.wake_at = Some(ctx.now);
    }

    /// Its end is wanted.
    pub fn shut_down(&mut self, ctx: &Ctx) {
        self.is_draining = true;
        self.protocol.shut_down(ctx.instant());
        self.wake_at = Some(ctx.now);
    }

    /// Does what the protocol wants done with the spool. The disk takes its time.
    pub fn work(&mut self, ctx: &mut Ctx) {
        let place = self.place;
        loop {
            if let Some((at, job)) = self.job.take() {
                if at > ctx.now {
                    self.job = Some((at, job));
                    return;
                }
                let outcome = self.spool.perform(job);
                // A process that died in between hears nothing any more.
                if self.fs.is_stopped() {
                    return;
                }
                ctx.trace(|| format!("client {place}: spool {}", brief_outcome(&outcome)));
                match outcome {
                    Outcome::Held => self.is_held = true,
                    Outcome::Put { .. } => self.is_held = false,
                    _ => {}
                }
                self.protocol.performed(ctx.instant(), outcome);
                self.tell(ctx);
                self.wake_at = Some(ctx.now);
            }
            let Some(job) = self.protocol.job(ctx.instant()) else { return };
            let takes = if ctx.rng.u8(..SLOW_JOBS) == 0 { ctx.rng.u64(..MAX_JOB_MS) } else { 0 };
            self.job = Some((ctx.now + takes, job));
        }
    }

    /// Does what the protocol wants done.
    pub fn pump(&mut self, ctx: &mut Ctx, listens: bool) -> Run {
        let place = self.place;
        let run = loop {
            let action = self.protocol.next(ctx.instant());
            self.tell(ctx);
            // The protocol gave the connection up.
            if let Some(conn) = self.conn.filter(|_| self.is_connected && !self.protocol.is_connected()) {
                ctx.net.close(ctx.now, conn, End::Client);
                (self.conn, self.is_connected) = (None, false);
            }
            match action {
                Action::Connect { .. } => {
                    if let Some(conn) = self.conn.take() {
                        ctx.net.close(ctx.now, conn, End::Client);
                    }
                    self.is_connected = false;
                    self.incoming.clear();
                    self.codec = ClientCodec::new();
                    self.backlog.clear();
                    let conn = ctx.net.connect(ctx.now, place, listens);
                    self.conn = Some(conn);
                }
                Action::Send { message, .. } => {
                    let Some(conn) = self.conn.filter(|_| self.is_connected) else {
                        self.protocol.closed(ctx.instant(), Closed::ByServer);
                        continue;
                    };
                    ctx.trace(|| format!("client {place}: says {}", brief(&message)));
                    if let ClientMessage::Samples(samples) = &message {
                        self.sends(ctx, samples);
                    }
                    let mut bytes = BytesMut::new();
                    match ClientCodec::new().encode(message, &mut bytes) {
                        Ok(()) => ctx.net.send(ctx.now, conn, End::Client, &bytes),
                        Err(error) => {
                            ctx.fail(format!("client {place} cannot say what it wants to: {error}"))
                        }
                    }
                }
                Action::Wait(until) => {
                    self.wake_at = until.map(|until| ctx.time_of(until).max(ctx.now + 1));
                    break Run::GoesOn;
                }
                Action::Done => break Run::IsOver,
            }
        };
        if let Some(time_ms) = self.live_due.take().filter(|_| self.is_open && !self.is_draining) {
            ctx.fail(format!("client {place} holds back the live sample {time_ms}"));
        }
        let waiting = self.waiting();
        self.job_at = self.protocol.job_at().map(|at| ctx.time_of(at));
        // Before the spool is open it is not known what it holds, nor while it is at work.
        if self.knows_what_waits()
            && let Err(what) = ctx.oracle.holds(place, waiting)
        {
            ctx.fail(what);
        }
        if run == Run::IsOver {
            ctx.trace(|| format!("client {place}: ends with {waiting} waiting"));
        }
        run
    }

    /// Something came over the network.
    pub fn arrived(&mut self, ctx: &mut Ctx, conn: ConnId, what: Arrival, wall_ms: i64) {
        let place = self.place;
        if self.conn != Some(conn) {
            return;
        }
        let now = ctx.instant();
        let closed = match what {
            Arrival::Connected => {
                self.is_connected = true;
                self.protocol.connected(now, wall_ms);
                None
            }
            Arrival::Refused => Some(Closed::Unreachable("refused".into())),
            Arrival::Closed => Some(Closed::ByServer),
            Arrival::Broken => Some(Closed::Io("broken".into())),
            Arrival::Accepted => None,
            Arrival::Bytes(bytes) => {
                self.incoming.extend_from_slice(&bytes);
                loop {
                    match self.codec.decode(&mut self.incoming) {
                        Ok(Some(message)) => {
                            ctx.trace(|| format!("client {place}: hears {message:?}"));
                            self.hears(&message);
                            self.protocol.received(now, message);
                            self.tell(ctx);
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(Closed::Violation(error.to_string())),
                    }
                }
            }
        };
        if let Some(why) = closed {
            if let Closed::Violation(why) = &why {
                ctx.fail(format!("client {place} does not understand the server: {why}"));
            }
            ctx.net.close(ctx.now, conn, End::Client);
            (self.conn, self.is_connected) = (None, false);
            self.protocol.closed(now, why);
            self.tell(ctx);
        }
        self.wake_at = Some(ctx.now);
    }

    /// Live samples go at once; backlog keeps to the window.
    fn sends(&mut self, ctx: &mut Ctx, samples: &Samples) {
        if !samples.backlog {
            self.live_due = None;
            return;
        }
        self.backlog.insert(samples.batch);
        if self.backlog.len() > self.window {
            ctx.fail(format!(
                "client {} has more backlog under way than the window {}",
                self.place, self.window
            ));
        }
    }

    fn hears(&mut self, message: &ServerMessage) {
        match message {
            ServerMessage::Welcome(welcome) => self.window = welcome.window as usize,
            ServerMessage::Ack(ack) => ack.batches.iter().for_each(|batch| {
                self.backlog.remove(batch);
            }),
            _ => {}
        }
    }

    /// Brings what happened to the accounts.
    fn tell(&mut self, ctx: &mut Ctx) {
        let place = self.place;
        for event in self.protocol.take_events() {
            match &event {
                Event::Opened { .. } => self.is_open = true,
                Event::Spool(News::Opened { .. }) => self.knows_spool = true,
                Event::Closed { .. } => self.is_open = false,
                _ => {}
            }
            let done = match &event {
                Event::Settled { time_ms, .. } => ctx.oracle.settled(place, *time_ms),
                Event::Dropped { time_ms, loss, .. } => {
                    ctx.oracle.dropped(place, *time_ms, *loss == Loss::SpoolFull)
                }
                _ => Ok(()),
            };
            if !matches!(event, Event::Taken { .. }) {
                ctx.trace(|| format!("client {place}: {event:?}"));
            }
            if let Err(what) = done {
                ctx.fail(what);
            }
        }
    }
}

/// An outcome in few words.
fn brief_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Read { samples, after, is_end, .. } => {
            let times: Vec<i64> = samples.iter().map(|kept| kept.time_ms).collect();
            format!("read {times:?} up to {after}, end: {is_end}")
        }
        other => format!("{other:?}"),
    }
}

/// A message in few words.
fn brief(message: &ClientMessage) -> String {
    match message {
        ClientMessage::Samples(samples) => {
            let times: Vec<i64> = samples.samples.iter().map(|sample| sample.time_ms).collect();
            let kind = if samples.backlog { "backlog" } else { "live" };
            format!("{kind} batch {} {times:?}", samples.batch)
        }
        ClientMessage::Hello(_) => "Hello".into(),
        other => format!("{other:?}"),
    }
}
