//! The client's side of the protocol as a state machine without I/O.
//!
//! Whoever drives it tells it what happens (`sample_taken`, `connected`, `received`, `closed`, `shut_down`), each time
//! with the time, and asks `next` what to do whenever it is able to do something. Because messages are pulled one by
//! one, a live sample always goes before the backlog, however slow the connection is. What happened meanwhile is
//! collected for `take_events`. Where there is a spool, `job` tells what is to be done with it, one job at a time, and
//! `performed` how that ended; nothing else waits for it.
//!
//! ```text
//! Idle -> Connecting -> Greeting -> Open -> Idle …            shut_down: … -> Done
//! ```
//!
//! - A sample is in the queue from when it is taken until its batch is settled, or it is in the spool: what is older than
//!   an interval and a quarter goes there, and everything when the end is wanted. What is under way on a connection that breaks is
//!   unsettled again.
//! - The newest sample goes at once as a live batch of one, also after a reconnection unless it is settled; the older
//!   ones follow as backlog, those of the spool first, within the server's window and at most [`BACKLOG_PER_SECOND`].
//! - A batch that is not acknowledged in time ends the connection; backlog is only sent again, as long as other batches
//!   are acknowledged, or the server says that it has put something off: one that has no room for it just then, or for
//!   which it is too much, is not helped by a new connection.
//! - Servers are tried in order. When all have failed: exponential backoff with full jitter. One that said "do not try
//!   again" is left alone for [`BARRED`].
//! - Joining, secrets and the server's keys are in `access`.

mod access;
mod batches;
mod open;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vitals_wire::limits::{MAX_BATCH_SAMPLES, MAX_FRAME_BYTES, MAX_HELLO_FRAME_BYTES};
use vitals_wire::message::{Bye, ByeReason, ClientMessage, Hello, PROTOCOL_VERSION, ServerMessage, Welcome};
use vitals_wire::sample::Sample;

use super::disk::{Disk, Wish};
use super::event::{Closed, Event, Loss, News, Waiting};
use crate::queue::{Caps, Entry, Queue};
use crate::spool::job::{Job, Outcome};
use access::Access;
pub use access::Known;
use open::Open;

/// From the greeting to the server's answer.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// From a batch to its acknowledgement.
pub const ACK_DEADLINE: Duration = Duration::from_secs(30);
/// How long one server is left alone that said "do not try again".
pub const BARRED: Duration = Duration::from_secs(600);
/// From the wish to end until the end, acknowledged or not: below the ten seconds after which containers are killed.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// Samples of backlog sent in a second: ten intervals' worth, so that catching up does not flood a server.
pub const BACKLOG_PER_SECOND: u32 = 10;
/// A sample that is not settled after so many quarters of an interval goes to the spool: early enough for a disk to have
/// it before the second sample after it is taken, also where the second sample of a run comes half an interval after the
/// first. So a kill costs at most two.
pub const QUARTERS_IN_MEMORY: u32 = 5;
/// Samples after which is told how long the spool has room: the first have no percentages yet.
const SAMPLES_TO_ESTIMATE: u64 = 3;
/// The first upper bound of the delay before a new attempt.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The least that the last upper bound is, whatever the interval.
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// More than a batch takes beside its samples: kind, number, flag and count.
const BATCH_OVERHEAD: usize = 32;

/// What does not change about a link.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many servers there are to try, in order.
    pub servers: usize,
    /// Time between two samples.
    pub interval: Duration,
    /// Bounds of the queue.
    pub caps: Caps,
    /// Seed of the jitter.
    pub seed: u64,
}

/// What the driver is to do next.
#[derive(Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "it lives as long as it takes to act")]
pub enum Action {
    /// Connect to this server, then say `connected` or `closed`.
    Connect {
        /// Its index.
        server: usize,
    },
    /// Send this, and ask again when it is sent.
    Send {
        /// The message.
        message: ClientMessage,
        /// Times of those of its samples that were never sent before.
        first: Vec<i64>,
    },
    /// Nothing until something happens or this time has come.
    Wait(Option<Instant>),
    /// The end. What is sent may be flushed, then the connection is closed.
    Done,
}

#[derive(Debug)]
enum State {
    /// Nothing is tried before then.
    Idle { until: Instant },
    /// The driver connects, once it is `asked`.
    Connecting { server: usize, asked: bool },
    /// Connected; `Hello` is sent first, and answered until the deadline.
    Greeting { server: usize, said: bool, deadline: Instant, wall_ms: i64 },
    /// Welcome.
    Open(Open),
    /// Nothing will happen any more.
    Done,
}

/// One client's link to its server.
#[derive(Debug)]
pub struct Protocol {
    settings: Settings,
    hello: Hello,
    access: Access,
    state: State,
    queue: Queue,
    disk: Disk,
    /// The newest sample, if it is not settled and in the spool, so that it can go out at once all the same.
    spooled: Option<Entry>,
    /// Samples taken, and their bytes as a spool takes them.
    taken: u64,
    taken_bytes: u64,
    /// The server's word: older samples than this, in ms since 1970, were not stored then.
    oldest: Option<(i64, Instant)>,
    /// What was last told of what waits.
    told: Waiting,
    /// The newest sample as it was taken, so that the usual way needs no decoding.
    fresh: Option<Sample>,
    /// Time of the newest sample that was queued, settled or not: the server has shown it, or is to. What is older is
    /// never live again.
    newest_ms: Option<i64>,
    /// Servers to leave alone, until when; empty while there is none.
    barred: Vec<(usize, Instant)>,
    /// Rounds over all servers that failed since a batch was settled.
    failures: u32,
    rng: fastrand::Rng,
    /// The end is wanted, at the latest then.
    closing: Option<Instant>,
    /// From the wish to end until the end.
    drain: Duration,
    bye: ByeReason,
    events: Vec<Event>,
}

impl Protocol {
    /// A link that wants to connect at once. `hello` has the host's secret and, to join, a token.
    pub fn new(settings: Settings, mut hello: Hello, now: Instant) -> Self {
        Self {
            access: Access::new(&mut hello),
            rng: fastrand::Rng::with_seed(settings.seed),
            queue: Queue::new(settings.caps),
            disk: Disk::off(now),
            spooled: None,
            taken: 0,
            taken_bytes: 0,
            oldest: None,
            told: Waiting::default(),
            settings,
            hello,
            state: State::Idle { until: now },
            fresh: None,
            newest_ms: None,
            barred: Vec::new(),
            failures: 0,
            closing: None,
            drain: DRAIN_DEADLINE,
            bye: ByeReason::Restart,
            events: Vec::new(),
        }
    }

    /// The same with a spool, which `job` asks to open first.
    pub fn with_spool(mut self, now: Instant) -> Self {
        self.disk = Disk::closed(now);
        self
    }

    /// What happened since this was last asked.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.extend(self.access.news());
        let waiting = self.all_waiting();
        if std::mem::replace(&mut self.told, waiting) != waiting {
            self.events.push(Event::Waiting(waiting));
        }
        std::mem::take(&mut self.events)
    }

    /// Samples in memory that are not settled: what a kill would cost.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// What is not settled, wherever it is.
    pub fn all_waiting(&self) -> Waiting {
        let in_memory = self.queue.oldest().map(|entry| entry.time_ms);
        Waiting {
            memory: self.queue.len(),
            disk: self.disk.samples(),
            oldest_ms: self.disk.oldest_ms().or(in_memory),
            spool_bytes: self.disk.bytes(),
        }
    }

    /// What is to be done with the spool now, if anything. No other job comes before `performed` was told its end.
    pub fn job(&mut self, now: Instant) -> Option<Job> {
        let wish = self.wish();
        self.disk.job(now, &mut self.queue, wish)
    }

    /// When there will be a job, if nothing happens until then.
    pub fn job_at(&self) -> Option<Instant> {
        earliest([self.disk.wakes_at(&self.queue, self.wish()), self.access.job_at()])
    }

    /// The job that `job` gave ended so.
    pub fn performed(&mut self, now: Instant, outcome: Outcome) {
        let kept = self.disk.performed(now, outcome, &mut self.queue, &mut self.events);
        let events = &self.events;
        self.spooled.take_if(|entry| events.iter().any(|event| is_drop_of(event, entry.time_ms)));
        for entry in kept {
            if Some(entry.time_ms) == self.newest_ms {
                self.spooled = Some(entry);
            }
        }
    }

    /// The spool does not answer any more.
    pub fn lost_spool(&mut self, now: Instant, why: String) {
        self.performed(now, Outcome::Failed { why, is_final: true });
    }

    fn wish(&self) -> Wish {
        let is_closing = self.closing.is_some();
        let at_hand = match &self.state {
            State::Open(open) if !open.said_bye => Some((self.at_most(open).max(1), open.frame_bytes)),
            _ => None,
        };
        let keep_after = match is_closing {
            false => QUARTERS_IN_MEMORY * self.settings.interval / 4,
            true => Duration::ZERO,
        };
        Wish { keep_after, at_hand, is_closing }
    }

    /// Samples of one batch of backlog.
    fn at_most(&self, open: &Open) -> usize {
        match self.closing {
            None => open.batch_samples.min(BACKLOG_PER_SECOND as usize),
            Some(_) => open.batch_samples,
        }
    }

    /// Whether nothing waits any more, as far as it can be brought anywhere.
    fn is_home(&self) -> bool {
        self.queue.is_empty() && self.disk.is_at_rest()
    }

    /// Sets what is said at the end; [`ByeReason::Restart`] otherwise.
    pub fn set_bye(&mut self, reason: ByeReason) {
        self.bye = reason;
    }

    /// Sets how long bringing home what waits may take, once the end is wanted; [`DRAIN_DEADLINE`] otherwise.
    pub fn set_drain(&mut self, limit: Duration) {
        self.drain = limit;
    }

    /// When it is over in any case, once the end is wanted.
    pub fn ends_at(&self) -> Option<Instant> {
        self.closing
    }

    /// Whether the connection that the driver holds is still wanted.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Greeting { .. } | State::Open(_))
    }

    /// A sample was taken.
    pub fn sample_taken(&mut self, now: Instant, sample: Sample) {
        let time_ms = sample.time_ms;
        let encoded = match vitals_wire::sample::encode_sample(&sample) {
            Ok(encoded) if encoded.len() + BATCH_OVERHEAD <= MAX_FRAME_BYTES => encoded,
            too_large => {
                let hash = crate::queue::content_hash(&too_large.unwrap_or_default());
                self.events.push(Event::Taken { time_ms, hash });
                self.events.push(Event::Dropped { time_ms, hash, loss: Loss::TooLarge });
                return;
            }
        };
        let entry = Entry::new(time_ms, now, encoded.into());
        self.estimate(entry.encoded.len());
        let events = &mut self.events;
        events.push(Event::Taken { time_ms, hash: entry.hash() });
        (self.newest_ms, self.spooled) = (Some(time_ms), None);
        self.queue.push(entry, |lost| events.push(dropped(&lost, Loss::QueueFull)));
        if let State::Open(open) = &mut self.state {
            open.live_due = true;
            self.fresh = Some(sample);
        }
    }

    /// Tells once how long the spool has room.
    fn estimate(&mut self, bytes: usize) {
        self.taken += 1;
        self.taken_bytes += (bytes + crate::spool::EXTRA_BYTES) as u64;
        let max_bytes = self.disk.max_bytes();
        if self.taken == SAMPLES_TO_ESTIMATE && max_bytes > 0 {
            let samples = max_bytes as f64 * self.taken as f64 / self.taken_bytes as f64;
            // Half a million years are enough for any disk.
            let time = self.settings.interval.mul_f64(samples.min(f64::from(u32::MAX)));
            self.events.push(Event::Spool(News::Lasts { max_bytes, time }));
        }
    }

    /// The driver is connected. `wall_ms` is the host's clock, in ms since 1970, right or wrong: the server is told.
    pub fn connected(&mut self, now: Instant, wall_ms: i64) {
        if let State::Connecting { server, .. } = self.state {
            self.state = State::Greeting { server, said: false, deadline: now + HANDSHAKE_DEADLINE, wall_ms };
        }
    }

    /// The connection, or the attempt at one, ended.
    pub fn closed(&mut self, now: Instant, why: Closed) {
        let (server, next) = match &self.state {
            State::Connecting { server, .. } | State::Greeting { server, .. } => (*server, *server + 1),
            // After a conversation the first server is asked first again, after a delay.
            State::Open(open) => (open.server, self.settings.servers),
            State::Idle { .. } | State::Done => return,
        };
        self.fresh = None;
        self.queue.release();
        self.disk.release();
        let (mut next, mut why) = (next, why);
        if let Closed::Refused { code, retry, .. } = &mut why {
            if self.access.refused(*code, &mut self.events) {
                // It is asked again at once, with another secret or with the token.
                (next, *retry) = (next.min(server), true);
            } else if !*retry {
                self.barred.push((server, now + BARRED));
            }
        }
        self.access.closed();
        let was_open = matches!(self.state, State::Open(_));
        self.state = match self.next_server(now, next) {
            Some(next) if !was_open => State::Connecting { server: next, asked: false },
            _ if self.closing.is_some() => State::Done,
            _ => State::Idle { until: self.retry_at(now) },
        };
        let retry_in = match self.state {
            State::Idle { until } => Some(until.saturating_duration_since(now)),
            State::Connecting { .. } => Some(Duration::ZERO),
            _ => None,
        };
        self.events.push(Event::Closed { server, why, retry_in });
    }

    /// A message came.
    pub fn received(&mut self, now: Instant, message: ServerMessage) {
        match (message, &mut self.state) {
            (ServerMessage::Refused(refused), _) => {
                let text = refused.text.to_string();
                self.closed(now, Closed::Refused { code: refused.code, text, retry: refused.retry });
            }
            (ServerMessage::Welcome(welcome), State::Greeting { server, said: true, deadline, .. }) => {
                let server = *server;
                let trip = since(now, *deadline, HANDSHAKE_DEADLINE);
                self.welcome(now, server, &welcome, trip);
            }
            (ServerMessage::Ack(ack), State::Open(_)) => self.settle(now, &ack),
            (ServerMessage::Pins(named), State::Open(_)) => self.access.named(&named.pins),
            // Live readings in between need a sampler at another pace. `Hello` offers none: its shortest interval is
            // the normal one, so a server that asks all the same is asking for what is out of bounds.
            (ServerMessage::SetInterval(_), State::Open(_)) => {
                self.events.push(Event::Ignored { what: "live readings in between" });
            }
            // From a later version: skipped, also before an answer to the greeting, which has its own deadline.
            (ServerMessage::Unknown(_), State::Open(_) | State::Greeting { said: true, .. }) => {
                self.events.push(Event::Ignored { what: "a message of a later version" });
            }
            (other, _) => {
                let name = match other {
                    ServerMessage::Welcome(_) => "a Welcome",
                    ServerMessage::Ack(_) => "an Ack",
                    ServerMessage::Pins(_) => "a Pins",
                    ServerMessage::SetInterval(_) => "a SetInterval",
                    _ => "a message of a later version",
                };
                self.closed(now, Closed::Violation(format!("{name} at the wrong time")));
            }
        }
    }

    /// No sample will come any more: what waits is to be in the spool at once and settled soon, then the link ends.
    pub fn shut_down(&mut self, now: Instant) {
        self.closing.get_or_insert(now + self.drain);
        self.disk.hurry();
        if let State::Idle { .. } = self.state {
            // One more round over the servers, if there is anything to bring them.
            self.state = match self.next_server(now, 0) {
                Some(_) if !self.is_home() => State::Idle { until: now },
                _ => State::Done,
            };
        }
    }

    /// What to do now. Asked again after each `Send`, and after whatever happened; a job is asked for first.
    pub fn next(&mut self, now: Instant) -> Action {
        let action = self.decide(now);
        let is_over = self.closing.is_some_and(|end| end <= now);
        let is_writing = || !is_over && self.disk.is_writing(now, &self.queue);
        let until = match action {
            Action::Wait(until) => until,
            // A server that is away is no reason to lose what waits.
            Action::Done if is_writing() => self.closing,
            other => return other,
        };
        Action::Wait(earliest([until, self.job_at()]))
    }

    fn decide(&mut self, now: Instant) -> Action {
        let is_home = self.is_home();
        loop {
            let closing = self.closing;
            let is_over = closing.is_some_and(|end| end <= now);
            match &mut self.state {
                State::Done => return Action::Done,
                State::Idle { until } if *until <= now => match self.next_server(now, 0) {
                    Some(server) => self.state = State::Connecting { server, asked: false },
                    None => self.state = State::Idle { until: self.retry_at(now) },
                },
                State::Idle { until } => return Action::Wait(Some(*until)),
                State::Connecting { .. } | State::Greeting { .. }
                    if is_over || closing.is_some() && is_home =>
                {
                    self.state = State::Done;
                }
                State::Connecting { asked: true, .. } => return Action::Wait(closing),
                State::Connecting { server, asked } => {
                    *asked = true;
                    return Action::Connect { server: *server };
                }
                State::Greeting { said, wall_ms, .. } if !*said => {
                    *said = true;
                    let hello = Hello { clock_ms: *wall_ms, ..self.access.greet(&self.hello) };
                    return Action::Send { message: hello.into(), first: Vec::new() };
                }
                State::Greeting { deadline, .. } if *deadline <= now => {
                    self.closed(now, Closed::HandshakeTimeout);
                    // The driver lets this connection go before it hears of another.
                    return Action::Wait(Some(now));
                }
                State::Greeting { deadline, .. } => {
                    return Action::Wait(earliest([Some(*deadline), closing]));
                }
                State::Open(open) if open.said_bye => self.state = State::Done,
                State::Open(open) if closing.is_some() && (is_over || is_home) => {
                    open.said_bye = true;
                    let bye = Bye { reason: self.bye };
                    return Action::Send { message: bye.into(), first: Vec::new() };
                }
                State::Open(open) if open.flights.front().is_some_and(|first| first.deadline <= now) => {
                    match open.put_off() {
                        Some(batch) => {
                            self.queue.put_off(batch);
                            self.disk.put_off(batch);
                        }
                        None => self.closed(now, Closed::AckTimeout),
                    }
                }
                State::Open(open) => {
                    let next_batch = open.next_batch;
                    if let Some((samples, first)) = self.live(now) {
                        return Action::Send { message: samples.into(), first };
                    }
                    if let Some(message) = self.access.say(next_batch) {
                        return Action::Send { message, first: Vec::new() };
                    }
                    if let Some((samples, first)) = self.backlog(now) {
                        return Action::Send { message: samples.into(), first };
                    }
                    return Action::Wait(self.wake(now));
                }
            }
        }
    }

    fn welcome(&mut self, now: Instant, server: usize, welcome: &Welcome, trip: Duration) {
        if welcome.protocol != PROTOCOL_VERSION {
            let text = format!("it speaks version {} and not {PROTOCOL_VERSION}", welcome.protocol);
            return self.closed(now, Closed::Violation(text));
        }
        // The newest that waits may be a leftover of the backlog, older than what the server shows already.
        let in_memory = self.queue.newest().is_some_and(|entry| Some(entry.time_ms) == self.newest_ms);
        let live_due = in_memory || self.spooled.is_some();
        self.oldest = Some((welcome.oldest_ms, now));
        // A server that takes nothing at all would never settle anything: what it says has a lower bound.
        self.state = State::Open(Open {
            server,
            window: (welcome.window as usize).max(1),
            frame_bytes: (welcome.limits.frame_bytes as usize).clamp(MAX_HELLO_FRAME_BYTES, MAX_FRAME_BYTES),
            batch_samples: (welcome.limits.batch_samples as usize).clamp(1, MAX_BATCH_SAMPLES),
            flights: VecDeque::new(),
            next_batch: 1,
            live_due,
            backlog_at: now,
            said_bye: false,
            acked_at: None,
            trip,
        });
        self.events.push(Event::Opened {
            server,
            name: welcome.name.to_string(),
            version: welcome.server_version.to_string(),
            server_time_ms: welcome.server_time_ms,
        });
        self.events.push(server_clock(welcome.server_time_ms, trip));
        self.access.welcomed(welcome, &mut self.events);
    }

    /// When `next` has something to do again while nothing happens.
    fn wake(&mut self, now: Instant) -> Option<Instant> {
        let State::Open(open) = &self.state else { return None };
        let ack = open.flights.front().map(|first| first.deadline);
        // A backlog that the window holds back waits for an `Ack`, not for a time.
        let has_idle = self.disk.has_idle() || !self.disk.has_more() && self.queue.idle().next().is_some();
        let is_due_later = open.has_room() && open.backlog_at > now && has_idle;
        let backlog = is_due_later.then_some(open.backlog_at);
        earliest([ack, backlog, self.closing])
    }

    /// The first server from `from` on that is not barred.
    fn next_server(&mut self, now: Instant, from: usize) -> Option<usize> {
        self.barred.retain(|(_, until)| *until > now);
        (from..self.settings.servers).find(|server| self.barred.iter().all(|(barred, _)| barred != server))
    }

    /// All servers have failed: when to begin anew.
    fn retry_at(&mut self, now: Instant) -> Instant {
        let last = LAST_BACKOFF.max(2 * self.settings.interval);
        let bound = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(20)).min(last);
        self.failures = self.failures.saturating_add(1);
        let at = now + bound.mul_f64(self.rng.f64());
        match self.next_server(now, 0) {
            Some(_) => at,
            None => self.barred.iter().map(|(_, until)| *until).min().map_or(at, |until| until.max(at)),
        }
    }
}

fn dropped(entry: &Entry, loss: Loss) -> Event {
    Event::Dropped { time_ms: entry.time_ms, hash: entry.hash(), loss }
}

fn is_drop_of(event: &Event, of_ms: i64) -> bool {
    matches!(event, Event::Dropped { time_ms, .. } if *time_ms == of_ms)
}

/// How long ago something was whose `deadline` is `limit` later.
fn since(now: Instant, deadline: Instant, limit: Duration) -> Duration {
    limit.saturating_sub(deadline.saturating_duration_since(now))
}

fn server_clock(said_ms: i64, trip: Duration) -> Event {
    let on_the_way = i64::try_from((trip / 2).as_millis()).unwrap_or(i64::MAX);
    Event::ServerClock { server_time_ms: said_ms.saturating_add(on_the_way) }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
