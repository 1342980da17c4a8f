//! One task for each client: introduces it, looks at each message, hands fresh samples to `live` and all of them to the
//! journal at the same time, and acknowledges what is on disk.
//!
//! A session never waits for the journal before it reads on: live samples pass whatever the disk does. Batches that
//! wait for their commit are few and bounded; one more is shown as live and not kept, and the client, which gets no
//! `Ack` for it, sends it again. What may be acknowledged is decided by [`protocol::Protocol`] alone.
//!
//! Backlog never keeps a live batch waiting: it takes at most three quarters of the journal's queue and of the room for
//! what waits, and whatever finds the queue full tries again within a fraction of a second.

mod admission;
mod batch;
mod books;
mod end;
mod keep;
mod learning;
mod limits;
mod pending;
pub mod protocol;
mod seating;
pub mod seats;
mod series;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use vitals_wire::bounded::Text;
use vitals_wire::ids::HostId;
use vitals_wire::message::ServerCodec;
use vitals_wire::message::{
    Ack, ByeReason, DropReason, Hello, Limits, PROTOCOL_VERSION, Refusal, Refused, ServerMessage, Welcome,
};

use crate::clock;
use crate::journal::Journal;
use crate::live::{Live, Peer, down_limit};
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::state::{Host, State, StateError};
use crate::tls::keys::Keys;
use books::Book;
use end::{End, Read, message_of};
use keep::Committing;
use learning::Learning;
use protocol::{Allowed, MAX_PENDING, Protocol, Step, refused};
use seats::{Seat, Seats};

pub use books::Books;
pub use series::MEASUREMENTS as LIMITED_MEASUREMENTS;

pub use admission::{RefusedHosts, not_enrolled, revoked};
pub use keep::{MAX_PENDING_BYTES, Room};

/// Read buffer of a connection. Small, because ten thousand of them wait most of the time.
const READ_BUFFER_BYTES: usize = 1 << 10;
/// Batches of backlog that a client may have under way; leaves room for live ones within `MAX_PENDING`.
const BACKLOG_WINDOW: u32 = 4;
const _: () = assert!((BACKLOG_WINDOW as usize) < MAX_PENDING);
/// Time a client has to take in what it is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the last acknowledgements when the session ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for the last word to a client.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time to write down a host that is new, or has changed.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A clock that is further off than this is worth a word, once a connection.
const MOST_SKEW_MS: u64 = 60_000;

/// What all sessions share.
pub struct Shared {
    /// The durable log.
    pub journal: Journal,
    /// The picture of now.
    pub live: Arc<Live>,
    /// Who is who.
    pub state: State,
    /// Who is connected.
    pub seats: Arc<Seats>,
    /// The keys by which clients know this server.
    pub keys: Arc<Keys>,
    /// The server's own figures.
    pub metrics: Arc<Metrics>,
    /// How long samples are kept: older ones are refused.
    pub keep_raw: Duration,
    /// Time a connection has to introduce itself.
    pub hello_timeout: Duration,
    /// The server is going down.
    pub shutdown: CancellationToken,
    /// Keeps strangers from filling the log.
    pub seldom: Seldom,
    /// Keeps them from filling the audit log.
    pub refused_hosts: RefusedHosts,
    /// Room for batches that wait for their commit.
    pub room: Room,
    /// What each host has used of its limits.
    pub books: Books,
    /// The newest time that history holds of a host. It may read from disk.
    pub newest_kept: NewestKept,
}

/// Gives the newest time that is kept of a host, in ms since 1970.
pub type NewestKept = Arc<dyn Fn(HostId) -> Option<i64> + Send + Sync>;

impl Shared {
    fn oldest_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::try_from(self.keep_raw.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A connection's place among those that nobody knows yet.
pub trait Door: Send {
    /// The client is who it says: its place is free for another.
    fn admitted(self);
    /// The client's secret or token was not right. Gives how long to wait before that is said.
    fn denied(&mut self) -> Duration;
}

/// No place, and no waiting.
impl Door for () {
    fn admitted(self) {}

    fn denied(&mut self) -> Duration {
        Duration::ZERO
    }
}

/// Serves one client until its connection ends.
pub async fn run<Io, D>(shared: Arc<Shared>, io: Io, address: SocketAddr, door: D)
where
    Io: AsyncRead + AsyncWrite + Unpin,
    D: Door,
{
    let frames = FramedRead::with_capacity(io, ServerCodec::for_strangers(), READ_BUFFER_BYTES);
    let mut session = Session {
        shared,
        frames,
        protocol: Protocol::default(),
        committing: FuturesUnordered::new(),
        learning: Learning::default(),
        address,
        host: None,
        seat: None,
    };
    let end = session.serve(door).await;
    session.finish(end).await;
}

/// The host that a session serves.
struct Guest {
    id: HostId,
    name: Box<str>,
    interval: Duration,
    connection: u64,
    /// What it has used of its limits.
    book: Book,
    /// That its clock is off has been said.
    is_skew_told: bool,
    /// It was asked for a new secret, and has not told one yet.
    is_asked_for_secret: bool,
}

impl Guest {
    /// Says once that a clock is far off.
    fn mind_clock(&mut self, time_ms: i64, now_ms: i64) {
        let skew_ms = time_ms.saturating_sub(now_ms);
        if skew_ms.unsigned_abs() > MOST_SKEW_MS && !self.is_skew_told {
            self.is_skew_told = true;
            warn!(host = &*self.name, skew_ms, "the clock of a host is far off; below zero: it is behind");
        }
    }
}

struct Session<Io> {
    shared: Arc<Shared>,
    frames: FramedRead<Io, ServerCodec>,
    protocol: Protocol,
    /// Batches on their way to the disk; the protocol bounds them.
    committing: FuturesUnordered<Committing>,
    /// Keys that the client knows now, on their way to the disk.
    learning: Learning,
    address: SocketAddr,
    host: Option<Guest>,
    /// The host's, from when it is let in until nothing is read of it any more.
    seat: Option<Seat>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Session<Io> {
    async fn serve(&mut self, mut door: impl Door) -> End {
        match self.introduce(&mut door).await {
            Ok(()) => door.admitted(),
            Err(end) => return end,
        }
        let end = loop {
            let idle =
                self.host.as_ref().map_or(self.shared.hello_timeout, |guest| down_limit(guest.interval));
            let shutdown = self.shared.shutdown.clone();
            let done = tokio::select! {
                // Acknowledgements first: they free what is pending.
                biased;
                Some(number) = self.committing.next() => {
                    self.committed(number);
                    Ok(())
                }
                outcome = self.learning.done() => {
                    self.learnt(outcome);
                    Ok(())
                }
                order = seating::order(&self.seat) => self.obey(order).await,
                () = shutdown.cancelled() => Err(End::shutdown()),
                read = timeout(idle, self.frames.next()) => self.read(read).await,
            };
            if let Err(end) = done {
                break end;
            }
            if let Err(end) = self.acknowledge().await {
                break end;
            }
        };
        // Nothing is read any more: whoever comes may have it.
        self.seat = None;
        self.learning.end();
        if let End::Ordered(refused) = &end {
            // At once: nobody waits for the disk to be shown the door.
            self.last_word(refused.clone()).await;
        }
        // What is not acknowledged by then, the client sends again.
        let _ = timeout(DRAIN_TIMEOUT, self.drain()).await;
        end
    }

    /// Waits for a valid `Hello` and answers it.
    async fn introduce(&mut self, door: &mut impl Door) -> Result<(), End> {
        let shutdown = self.shared.shutdown.clone();
        let read = tokio::select! {
            () = shutdown.cancelled() => return Err(End::shutdown()),
            read = timeout(self.shared.hello_timeout, self.frames.next()) => read,
        };
        let now_ms = clock::now_ms();
        let message = message_of(read, "no Hello in time")?;
        let Step::Admit(hello) = self.protocol.message(message, now_ms, self.shared.oldest_ms(now_ms))?
        else {
            // The first message is either a Hello or refused.
            return Err(refused(Refusal::Unexpected, "a message before Hello", true).into());
        };
        self.admit(*hello, now_ms, door).await
    }

    async fn admit(&mut self, hello: Hello, now_ms: i64, door: &mut impl Door) -> Result<(), End> {
        let (client, run, interval_ms, told) = (hello.host, hello.run, hello.interval_ms, hello.name.clone());
        let clock_ms = hello.clock_ms;
        let shutdown = self.shared.shutdown.clone();
        let admitted = tokio::select! {
            () = shutdown.cancelled() => return Err(End::shutdown()),
            admitted = timeout(ADMIT_TIMEOUT, admission::admit(&self.shared, hello, self.address, now_ms)) => admitted,
        };
        let host = match admitted.unwrap_or_else(|_| Err(StateError::Disk("no answer in time".to_owned()))) {
            Ok(host) => host,
            Err(StateError::Denied(denied)) => {
                admission::note(&self.shared, &told, self.address, denied, client.to_string()).await;
                if admission::is_a_guess(denied) {
                    let _ = timeout(door.denied(), shutdown.cancelled()).await;
                }
                return Err(admission::words(denied).into());
            }
            Err(error) => {
                warn!(host = %told, peer = %self.address, %error, "a host cannot be taken in");
                let text = match error {
                    StateError::TooManyHosts => error.to_string(),
                    _ => "the server cannot write its state".to_owned(),
                };
                return Err(refused(Refusal::Unavailable, text, true).into());
            }
        };
        // What stands for it here is the host that it speaks for: its own id, or that of the one whose place it took.
        let id = host.id;
        let interval = Duration::from_millis(interval_ms.into());
        self.seat = Some(seating::sit(&self.shared, &host, run, self.address, down_limit(interval))?);
        self.frames.decoder_mut().introduced();
        self.send(self.welcome(&host, now_ms).into()).await?;
        let peer = Peer { address: self.address, connected_ms: now_ms };
        let connection = self.shared.live.connected(id, interval, peer);
        info!(host = host.name(), id = %id, peer = %self.address, version = &*host.client_version, "client connected");
        let book = self.shared.books.open(id, Instant::now());
        let mut guest = Guest {
            id,
            name: host.name().into(),
            interval,
            connection,
            book,
            is_skew_told: false,
            is_asked_for_secret: host.rotate,
        };
        // Zero: it does not say.
        if clock_ms != 0 {
            guest.mind_clock(clock_ms, now_ms);
            self.shared.live.clock(id, clock_ms.saturating_sub(now_ms));
        }
        self.host = Some(guest);
        Ok(())
    }

    fn welcome(&self, host: &Host, now_ms: i64) -> Welcome {
        let (batch_samples, frame_bytes) = self.shared.books.largest_batch();
        Welcome {
            protocol: PROTOCOL_VERSION,
            server_version: Text::cut(env!("CARGO_PKG_VERSION")),
            server_time_ms: now_ms,
            name: Text::cut(host.name()),
            window: BACKLOG_WINDOW,
            limits: Limits { frame_bytes, batch_samples },
            oldest_ms: self.shared.oldest_ms(now_ms),
            pins: self.shared.keys.pins(),
            rotate_secret: host.rotate,
        }
    }

    async fn read(&mut self, read: Read) -> Result<(), End> {
        let message = message_of(read, "silent for too long")?;
        let (now, now_ms) = (Instant::now(), clock::now_ms());
        let allowed = self.allowed(&message, now, now_ms);
        let step = self.protocol.message_within(message, now_ms, self.shared.oldest_ms(now_ms), allowed)?;
        let Some(guest) = &mut self.host else { return Ok(()) };
        let mut batch = match step {
            Step::Take(batch) => (batch, true),
            Step::Defer(batch) => (batch, false),
            Step::Show(_) if allowed != Allowed::All => return Ok(()),
            Step::Show(mut sample) => {
                keep::trim(&self.shared, guest, std::iter::once(&mut sample), now);
                self.shared.live.sample(guest.id, guest.interval, now_ms, Arc::new(sample));
                return Ok(());
            }
            Step::Bye(reason) => {
                self.bye(reason);
                return Ok(());
            }
            Step::Unknown(kind) => {
                self.shared.metrics.unknown_messages.add(1);
                debug!(host = &*guest.name, kind, "a message of a later version is skipped");
                return Ok(());
            }
            Step::Learnt(pins) => {
                self.learning.take(&self.shared.state, guest.id, pins);
                return Ok(());
            }
            Step::NewSecret(secret) => {
                // Once, and only where it was asked: whoever holds a stolen secret could lock its owner out.
                if std::mem::take(&mut guest.is_asked_for_secret) {
                    admission::keep_secret(self.shared.clone(), guest.id, guest.name.clone(), secret);
                } else {
                    debug!(host = &*guest.name, "a new secret that nobody asked for is not taken");
                }
                return Ok(());
            }
            Step::Admit(_) => return Ok(()),
        };
        if allowed == Allowed::Later {
            // So that the client does not take the server for dead.
            let ack = Ack { server_time_ms: now_ms, ..Ack::default() };
            keep::put_off(&self.shared, guest, &batch.0, now_ms);
            return self.send(ack.into()).await;
        }
        keep::trim(&self.shared, guest, batch.0.samples.iter_mut().chain(&mut batch.0.ahead), now);
        let committing = keep::take(&self.shared, guest, &mut self.protocol, batch, now_ms);
        self.committing.extend(committing);
        Ok(())
    }

    fn learnt(&self, outcome: Result<(), StateError>) {
        if let (Err(error), Some(guest)) = (outcome, &self.host) {
            warn!(host = &*guest.name, %error, "which keys of the server a host knows cannot be written down");
        }
    }

    fn bye(&self, reason: ByeReason) {
        if let Some(seat) = &self.seat {
            seat.said_bye();
        }
        if let Some(guest) = &self.host
            && self.shared.live.bye(guest.id, guest.connection, reason)
        {
            info!(host = &*guest.name, peer = %self.address, %reason, "client says good-bye");
        }
    }

    /// Takes down that this batch is on disk, and whatever else came with the same commit.
    fn committed(&mut self, number: u64) {
        let mut next = Some(number);
        while let Some(number) = next {
            let stored = self.protocol.committed(number);
            if let (Some(guest), Some(stored)) = (&self.host, stored) {
                self.shared.live.committed(guest.id, stored.newest_ms);
            }
            next = self.committing.next().now_or_never().flatten();
        }
    }

    /// Says what is settled.
    async fn acknowledge(&mut self) -> Result<(), End> {
        while let Some(ack) = self.protocol.ack(clock::now_ms()) {
            self.send_ack(ack).await?;
        }
        Ok(())
    }

    async fn send_ack(&mut self, ack: Ack) -> Result<(), End> {
        let reasons: Vec<DropReason> = ack.refused.iter().map(|sample| sample.reason).collect();
        let stored = self.protocol.take_acknowledged();
        self.send(ack.into()).await?;
        // After the client knows: what it does not, it sends again.
        self.shared.metrics.samples_acked.add(stored as u64);
        for reason in reasons {
            self.shared.metrics.samples_dropped.add(reason.word(), 1);
            if let Some(guest) = &self.host {
                self.shared.live.refused(guest.id, reason);
            }
        }
        Ok(())
    }

    /// Hears what becomes of what is still being committed, and acknowledges it while somebody listens.
    async fn drain(&mut self) {
        let mut listens = true;
        loop {
            listens = listens && self.acknowledge().await.is_ok();
            let Some(number) = self.committing.next().await else { return };
            self.committed(number);
        }
    }

    async fn send(&mut self, message: ServerMessage) -> Result<(), End> {
        let mut bytes = BytesMut::new();
        self.frames.decoder_mut().encode(message, &mut bytes)?;
        let io = self.frames.get_mut();
        // TLS may hold back what the socket does not take at once.
        let sent = async {
            io.write_all(&bytes).await?;
            io.flush().await
        };
        match timeout(WRITE_TIMEOUT, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Failed(error)),
            Err(_) => Err(End::Failed(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Says the last word, and leaves the live picture.
    async fn finish(mut self, end: End) {
        let host = self.host.as_ref().map_or("", |guest| &guest.name);
        end.note(&self.shared, host, self.address);
        if let Some(guest) = &self.host {
            self.shared.live.disconnected(guest.id, guest.connection);
        }
        match end {
            // It has been said.
            End::Ordered(_) => {}
            End::Refused(refused) => self.last_word(Some(refused)).await,
            End::Closed | End::Failed(_) => self.last_word(None).await,
        }
    }

    /// Says this, if anything, and closes the connection. A peer that is gone, or takes nothing in, cannot be told.
    async fn last_word(&mut self, refused: Option<Refused>) {
        if let Some(refused) = refused {
            let _ = timeout(GOODBYE_TIMEOUT, self.send(refused.into())).await;
        }
        let _ = timeout(GOODBYE_TIMEOUT, self.frames.get_mut().shutdown()).await;
    }
}

#[cfg(test)]
mod session_tests;
