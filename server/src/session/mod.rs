//! One task for each client: introduces it, looks at each message, hands fresh samples to `live` and all of them to the
//! journal at the same time, and acknowledges what is on disk.
//!
//! A session never waits for the journal before it reads on: live samples pass whatever the disk does. Batches that
//! wait for their commit are few and bounded; one more is shown as live and not kept, and the client, which gets no
//! `Ack` for it, sends it again.

pub mod protocol;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use vitals_wire::bounded::{List, Text};
use vitals_wire::codec::FrameError;
use vitals_wire::ids::HostId;
use vitals_wire::limits::{MAX_ACK_BATCHES, MAX_BATCH_SAMPLES, MAX_FRAME_BYTES};
use vitals_wire::message::ServerCodec;
use vitals_wire::message::{
    Ack, ByeReason, ClientMessage, DropReason, Hello, Limits, PROTOCOL_VERSION, Refusal, Refused,
    RefusedSample, ServerMessage, Welcome,
};
use vitals_wire::record::Record;

use crate::clock;
use crate::journal::{Encoded, Journal, JournalError};
use crate::live::{Live, Peer, down_limit};
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::state::{Host, State, StateError};
use protocol::{Batch, Protocol, Step, refused, refused_for};

/// Read buffer of a connection. Small, because ten thousand of them wait most of the time.
const READ_BUFFER_BYTES: usize = 1 << 10;
/// Batches of one client that wait for their commit: its live samples and its backlog together.
const MAX_PENDING: usize = 8;
/// Batches of backlog that a client may have under way; leaves room for live ones within `MAX_PENDING`.
const BACKLOG_WINDOW: u32 = 4;
/// Pause before a batch that the journal could not take is tried again.
const JOURNAL_RETRY: Duration = Duration::from_secs(1);
/// Time a client has to take in what it is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the last acknowledgements when the session ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for the last word to a client.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time to write down a host that is new, or has changed.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of all batches that wait for their commit: what a slow or full disk makes the server hold at most.
pub const MAX_PENDING_BYTES: usize = 64 << 20;

/// What all sessions share.
pub struct Shared {
    /// The durable log.
    pub journal: Journal,
    /// The picture of now.
    pub live: Arc<Live>,
    /// Who is who.
    pub state: State,
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
    /// Room for batches that wait for their commit, in bytes: `MAX_PENDING_BYTES` at first.
    pub room: Arc<Semaphore>,
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

/// Why a session ended.
enum End {
    /// The client closed the connection, after a good-bye or without.
    Closed,
    /// The connection failed.
    Failed(std::io::Error),
    /// The server ended it with these words.
    Refused(Refused),
}

impl From<Refused> for End {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match (refused_for(&error), error) {
            (Some(refused), _) => Self::Refused(refused),
            (None, FrameError::Io(error)) => Self::Failed(error),
            // Cannot be: every codec error has its words.
            (None, FrameError::Codec(error)) => {
                Self::Refused(refused(Refusal::Malformed, error.to_string(), false))
            }
        }
    }
}

/// A batch that is settled.
struct Settled {
    number: u64,
    stored: usize,
    /// The newest time of what is stored.
    newest_ms: Option<i64>,
    refused: Vec<RefusedSample>,
}

/// Serves one client until its connection ends. `introduced` is dropped as soon as the client said a valid `Hello`.
pub async fn run<Io, Stranger>(shared: Arc<Shared>, io: Io, address: SocketAddr, introduced: Stranger)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let frames = FramedRead::with_capacity(io, ServerCodec::for_strangers(), READ_BUFFER_BYTES);
    let mut session = Session { shared, frames, protocol: Protocol::default(), address, host: None };
    let end = session.serve(introduced).await;
    session.finish(end).await;
}

/// The host that a session serves.
struct Guest {
    id: HostId,
    name: Box<str>,
    interval: Duration,
    connection: u64,
}

struct Session<Io> {
    shared: Arc<Shared>,
    frames: FramedRead<Io, ServerCodec>,
    protocol: Protocol,
    address: SocketAddr,
    host: Option<Guest>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Session<Io> {
    async fn serve<Stranger>(&mut self, introduced: Stranger) -> End {
        match self.introduce().await {
            Ok(()) => drop(introduced),
            Err(end) => return end,
        }
        let mut pending: FuturesUnordered<BoxFuture<'static, Settled>> = FuturesUnordered::new();
        let end = loop {
            let idle =
                self.host.as_ref().map_or(self.shared.hello_timeout, |guest| down_limit(guest.interval));
            let shutdown = self.shared.shutdown.clone();
            tokio::select! {
                // Acknowledgements first: they free what is pending.
                biased;
                Some(settled) = pending.next() => {
                    if let Err(end) = self.acknowledge(settled, &mut pending).await {
                        break end;
                    }
                }
                () = shutdown.cancelled() => break refused(Refusal::ShuttingDown, "the server is going down", true).into(),
                read = timeout(idle, self.frames.next()) => {
                    if let Err(end) = self.read(read, &pending) {
                        break end;
                    }
                }
            }
        };
        self.drain(pending).await;
        end
    }

    /// Waits for a valid `Hello` and answers it.
    async fn introduce(&mut self) -> Result<(), End> {
        let shutdown = self.shared.shutdown.clone();
        let read = tokio::select! {
            () = shutdown.cancelled() => return Err(refused(Refusal::ShuttingDown, "the server is going down", true).into()),
            read = timeout(self.shared.hello_timeout, self.frames.next()) => read,
        };
        let now_ms = clock::now_ms();
        let message = message_of(read, "no Hello in time")?;
        let Step::Admit(hello) = self.protocol.message(message, now_ms, self.shared.oldest_ms(now_ms))?
        else {
            // The first message is either a Hello or refused.
            return Err(refused(Refusal::Unexpected, "a message before Hello", true).into());
        };
        self.admit(*hello, now_ms).await
    }

    async fn admit(&mut self, hello: Hello, now_ms: i64) -> Result<(), End> {
        let (id, interval_ms, told) = (hello.host, hello.interval_ms, hello.name.clone());
        let shutdown = self.shared.shutdown.clone();
        let admitted = tokio::select! {
            () = shutdown.cancelled() => return Err(refused(Refusal::ShuttingDown, "the server is going down", true).into()),
            admitted = timeout(ADMIT_TIMEOUT, admit(&self.shared, hello, now_ms)) => admitted,
        };
        let host = admitted
            .unwrap_or_else(|_| Err(StateError::Disk("no answer in time".to_owned())))
            .map_err(|error| {
                warn!(host = %told, peer = %self.address, %error, "a host cannot be taken in");
                refused(Refusal::Unavailable, "the server cannot write its state", true)
            })?;
        self.frames.decoder_mut().introduced();
        self.send(self.welcome(&host, now_ms).into()).await?;
        let interval = Duration::from_millis(interval_ms.into());
        let peer = Peer { address: self.address, connected_ms: now_ms };
        let connection = self.shared.live.connected(id, interval, peer);
        info!(host = host.name(), id = %id, peer = %self.address, version = &*host.client_version, "client connected");
        self.host = Some(Guest { id, name: host.name().into(), interval, connection });
        Ok(())
    }

    fn welcome(&self, host: &Host, now_ms: i64) -> Welcome {
        Welcome {
            protocol: PROTOCOL_VERSION,
            server_version: Text::cut(env!("CARGO_PKG_VERSION")),
            server_time_ms: now_ms,
            name: Text::cut(host.name()),
            window: BACKLOG_WINDOW,
            limits: Limits { frame_bytes: MAX_FRAME_BYTES as u32, batch_samples: MAX_BATCH_SAMPLES as u32 },
            oldest_ms: self.shared.oldest_ms(now_ms),
            pins: List::empty(),
            rotate_secret: false,
        }
    }

    fn read(
        &mut self,
        read: Read,
        pending: &FuturesUnordered<BoxFuture<'static, Settled>>,
    ) -> Result<(), End> {
        let message = message_of(read, "silent for too long")?;
        let now_ms = clock::now_ms();
        let step = self.protocol.message(message, now_ms, self.shared.oldest_ms(now_ms))?;
        let Some(guest) = &self.host else { return Ok(()) };
        match step {
            Step::Take(batch) => {
                if let Some(settling) = take(&self.shared, guest, batch, now_ms, pending.len()) {
                    pending.push(settling);
                }
            }
            Step::Show(sample) => self.shared.live.sample(guest.id, guest.interval, now_ms, Arc::new(sample)),
            Step::Bye(reason) => self.bye(reason),
            Step::Admit(_) | Step::Nothing => {}
        }
        Ok(())
    }

    fn bye(&self, reason: ByeReason) {
        if let Some(guest) = &self.host {
            info!(host = &*guest.name, peer = %self.address, %reason, "client says good-bye");
            self.shared.live.bye(guest.id, guest.connection, reason);
        }
    }

    /// Acknowledges this batch and whatever else was settled with the same commit.
    async fn acknowledge(
        &mut self,
        first: Settled,
        pending: &mut FuturesUnordered<BoxFuture<'static, Settled>>,
    ) -> Result<(), End> {
        let mut batches = vec![first.number];
        let mut stored = first.stored;
        let mut newest_ms = first.newest_ms;
        let mut refused = first.refused;
        while batches.len() < MAX_ACK_BATCHES.min(MAX_PENDING) && refused.len() < MAX_BATCH_SAMPLES {
            let Some(Some(settled)) = futures_util::FutureExt::now_or_never(pending.next()) else { break };
            batches.push(settled.number);
            stored += settled.stored;
            newest_ms = newest_ms.max(settled.newest_ms);
            refused.extend(settled.refused);
        }
        if let (Some(guest), Some(newest_ms)) = (&self.host, newest_ms) {
            self.shared.live.committed(guest.id, newest_ms);
        }
        let reasons: Vec<DropReason> = refused.iter().map(|sample| sample.reason).collect();
        let ack = Ack {
            server_time_ms: clock::now_ms(),
            batches: List::first(batches).0,
            refused: protocol::refused_list(refused),
        };
        self.send(ack.into()).await?;
        self.shared.metrics.samples_acked.add(stored as u64);
        // After the client knows: what it does not, it sends again.
        reasons.into_iter().for_each(|reason| self.shared.metrics.samples_dropped.add(reason.word(), 1));
        Ok(())
    }

    /// Acknowledges what is still being committed, for a short while.
    async fn drain(&mut self, mut pending: FuturesUnordered<BoxFuture<'static, Settled>>) {
        let all = async {
            while let Some(settled) = pending.next().await {
                if self.acknowledge(settled, &mut pending).await.is_err() {
                    return;
                }
            }
        };
        // What is not acknowledged by then, the client sends again.
        let _ = timeout(DRAIN_TIMEOUT, all).await;
    }

    async fn send(&mut self, message: ServerMessage) -> Result<(), End> {
        let mut bytes = BytesMut::new();
        self.frames.decoder_mut().encode(message, &mut bytes)?;
        match timeout(WRITE_TIMEOUT, self.frames.get_mut().write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::Failed(error)),
            Err(_) => Err(End::Failed(std::io::ErrorKind::TimedOut.into())),
        }
    }

    /// Says the last word, and leaves the live picture.
    async fn finish(mut self, end: End) {
        let host = self.host.as_ref().map_or("", |guest| &guest.name).to_owned();
        let peer = self.address;
        match end {
            End::Closed | End::Failed(_) if self.host.is_none() => debug!(%peer, "stranger gone"),
            End::Closed => info!(host, %peer, reason = "closed", "client disconnected"),
            End::Failed(error) => info!(host, %peer, reason = "failed", %error, "client disconnected"),
            End::Refused(refused) => {
                let (reason, error) = (refused.code.word(), refused.text.to_string());
                self.shared.metrics.refused.add(reason, 1);
                if refused.code == Refusal::ShuttingDown {
                    info!(host, %peer, reason, "client disconnected");
                } else if self.host.is_some() {
                    warn!(host, %peer, reason, error, "client refused");
                } else if let Some(left_out) = self.shared.seldom.due(Instant::now()) {
                    warn!(%peer, reason, error, left_out, "stranger refused");
                }
                // A peer that is gone, or takes nothing in, cannot be told.
                let _ = timeout(GOODBYE_TIMEOUT, self.send(refused.into())).await;
            }
        }
        if let Some(guest) = &self.host {
            self.shared.live.disconnected(guest.id, guest.connection);
        }
        let _ = timeout(GOODBYE_TIMEOUT, self.frames.get_mut().shutdown()).await;
    }
}

/// What reading a frame within a deadline gives.
type Read = Result<Option<Result<ClientMessage, FrameError>>, tokio::time::error::Elapsed>;

fn message_of(read: Read, late: &str) -> Result<ClientMessage, End> {
    match read {
        Ok(Some(Ok(message))) => Ok(message),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Err(End::Closed),
        Err(_) => Err(refused(Refusal::Timeout, late, true).into()),
    }
}

/// Writes down what a host says of itself, where that is new.
async fn admit(shared: &Arc<Shared>, hello: Hello, now_ms: i64) -> Result<Arc<Host>, StateError> {
    if let Some(host) = shared.state.as_told(&hello) {
        return Ok(host);
    }
    // Seldom: a new host, or one that was renamed, labelled anew, upgraded or restarted.
    let (id, newest_kept) = (hello.host, shared.newest_kept.clone());
    let kept = tokio::task::spawn_blocking(move || newest_kept(id)).await.ok().flatten();
    shared.state.admit(hello, now_ms, kept.max(shared.live.committed_ms(id))).await
}

/// Shows what is live, and starts to keep what can be kept. `None` where too much waits already: not kept, no `Ack`.
fn take(
    shared: &Arc<Shared>,
    guest: &Guest,
    batch: Batch,
    now_ms: i64,
    pending: usize,
) -> Option<BoxFuture<'static, Settled>> {
    let arrived = Instant::now();
    let metrics = &shared.metrics;
    metrics.samples_received.add((batch.samples.len() + batch.refused.len()) as u64);
    metrics.sections_unknown.add(batch.oddities.unknown);
    metrics.sections_damaged.add(batch.oddities.damaged);
    metrics.figures_not_finite.add(batch.oddities.not_finite);
    for sample in &batch.refused {
        debug!(
            host = &*guest.name,
            reason = sample.reason.word(),
            time_ms = sample.time_ms,
            "sample refused"
        );
    }
    let stored = batch.samples.len();
    let record =
        Record { host: guest.id, received_ms: now_ms, backlog: batch.backlog, samples: batch.samples };
    // Before `live` takes the samples over.
    let encoded = (stored > 0 && pending < MAX_PENDING).then(|| Encoded::new(&record));
    let newest_ms = record.samples.iter().map(|sample| sample.time_ms).max();
    let mut settled = Settled { number: batch.number, stored, newest_ms, refused: batch.refused };
    if let Some(Err(error)) = &encoded {
        error!(host = &*guest.name, %error, "samples can never be kept");
        let reason = DropReason::Unreadable;
        let refused = record.samples.iter().map(|sample| RefusedSample { time_ms: sample.time_ms, reason });
        settled.refused.extend(refused);
        (settled.stored, settled.newest_ms) = (0, None);
    }
    if batch.backlog {
        shared.live.heard(guest.id, guest.interval, now_ms);
    } else {
        for sample in record.samples.into_iter().chain(batch.ahead) {
            shared.live.sample(guest.id, guest.interval, now_ms, Arc::new(sample));
        }
    }
    match encoded {
        Some(Ok(encoded)) => {
            // At most two MiB, far below 2^32.
            let Ok(room) = shared.room.clone().try_acquire_many_owned(encoded.bytes() as u32) else {
                metrics.batches_deferred.add(1);
                return None;
            };
            let shared = shared.clone();
            Some(Box::pin(async move {
                commit(&shared.journal, &encoded).await;
                drop(room);
                shared.metrics.batch_commit.observe(arrived.elapsed());
                settled
            }))
        }
        None if stored > 0 => {
            metrics.batches_deferred.add(1);
            None
        }
        // Nothing of it is to be kept.
        Some(Err(_)) | None => Some(Box::pin(std::future::ready(settled))),
    }
}

/// Returns when the record is on disk, however often that takes: while the disk is full or broken, the client waits for
/// its `Ack` and keeps what it has.
async fn commit(journal: &Journal, record: &Encoded) {
    loop {
        let outcome = match journal.append(record) {
            Ok(commit) => commit.wait().await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => return,
            // Nothing will be committed any more: never settled, and the client sends it again.
            Err(JournalError::Closed) => std::future::pending().await,
            Err(JournalError::Busy | JournalError::Full | JournalError::Disk(_) | JournalError::Unfit(_)) => {
                tokio::time::sleep(JOURNAL_RETRY).await;
            }
        }
    }
}
