//! Moves the messages of a [`Protocol`] over connections, and brings it the samples of a [`Source`].
//!
//! One task per link. Its buffers are small, for ten thousand of them may run in one process. What waits for a disk does
//! so on one of the runtime's threads for that, at most one for each link, and none while there is nothing to do.

use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep_until, timeout};
use tokio_util::codec::{Encoder, FramedRead};
use tokio_util::sync::CancellationToken;
use vitals_wire::codec::{CodecError, FrameError};
use vitals_wire::message::ClientCodec;
use vitals_wire::message::{ByeReason, ClientMessage, ServerMessage};
use vitals_wire::sample::Sample;

use super::event::{Closed, Event};
use super::protocol::{Action, Protocol};
use super::tcp::Connect;
use crate::spool::job::{Keep, Outcome};
use crate::trust::job as trust;

/// From the first byte of a message until the system has taken it all.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// For the last bytes to reach the server before the connection is closed.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// At the end, for what is being written to be kept.
const LAST_JOB: Duration = Duration::from_secs(1);
/// What TLS's complaint about plain TCP looks like where a length is expected: an alert, of TLS 1.
const TLS_ALERT: usize = 0x1503;
/// A server says little.
const READ_BUFFER_BYTES: usize = 256;
/// A write buffer that grew over this is given back.
const WRITE_BUFFER_BYTES: usize = 2 << 10;

/// Where samples come from.
pub trait Source: Send {
    /// The next sample; `None` when there will be no more, which ends the link once all is settled. Safe to cancel.
    fn next(&mut self) -> impl Future<Output = Option<Sample>> + Send;

    /// The host's clock in ms since 1970, right or wrong, for the server.
    fn wall_ms(&self) -> i64 {
        crate::health::wall_ms()
    }

    /// Why there are no more, for the server; asked once they have ended.
    fn bye(&self) -> ByeReason {
        ByeReason::Restart
    }
}

/// Samples from a channel, until it is closed or `shutdown` is cancelled.
#[derive(Debug)]
pub struct Channel {
    /// The samples.
    pub samples: mpsc::Receiver<Sample>,
    /// No more samples are wanted.
    pub shutdown: CancellationToken,
    /// Why, set before `shutdown` is cancelled; [`ByeReason::Restart`] where it is not set.
    pub bye: Arc<OnceLock<ByeReason>>,
}

impl Source for Channel {
    async fn next(&mut self) -> Option<Sample> {
        /// For a sampler that is just taking its last sample.
        const LAST_SAMPLE: Duration = Duration::from_millis(100);
        tokio::select! {
            biased;
            sample = self.samples.recv() => return sample,
            () = self.shutdown.cancelled() => {}
        }
        timeout(LAST_SAMPLE, self.samples.recv()).await.ok().flatten()
    }

    fn bye(&self) -> ByeReason {
        self.bye.get().copied().unwrap_or(ByeReason::Restart)
    }
}

/// Is told what happens on a link.
pub trait Observer: Send {
    /// Something happened.
    fn event(&mut self, event: Event);
    /// This sample is about to be sent for the first time.
    fn first_sent(&mut self, _sample: &Sample) {}
}

/// A link with all that it needs.
#[derive(Debug)]
pub struct Link<C, S, O> {
    /// Decides.
    pub protocol: Protocol,
    /// Opens connections.
    pub connect: C,
    /// Gives samples.
    pub source: S,
    /// Is told.
    pub observer: O,
    /// Keeps samples outside of memory; then the protocol is one [`with_spool`](Protocol::with_spool).
    pub keep: Option<Box<dyn Keep>>,
    /// Keeps what is learnt of servers; then the protocol is one [`with_trust`](Protocol::with_trust).
    pub trust: Option<Box<dyn trust::Keep>>,
}

/// What is left when a link has ended.
#[derive(Debug)]
pub struct Ended<O> {
    /// The observer.
    pub observer: O,
    /// Samples in memory that were neither settled nor dropped: they are lost.
    pub waiting: usize,
    /// Samples in the spool that were neither: they wait for the next start.
    pub spooled: u64,
}

impl<C: Connect, S: Source, O: Observer> Link<C, S, O> {
    /// Runs until the source has ended and all is settled, or the limit for that is over.
    pub async fn run(self) -> Ended<O> {
        let Self { protocol, mut connect, source, observer, keep, trust } = self;
        let (keep, trust) = (Keeper::new(keep), Keeper::new(trust));
        let mut side = Side { protocol, source, observer, keep, trust, has_ended: false };
        loop {
            match side.next() {
                Action::Connect { server } => {
                    let opened = {
                        let attempt = connect.connect(server);
                        tokio::pin!(attempt);
                        side.while_waiting_for(attempt).await
                    };
                    match opened {
                        Some(Ok(stream)) => {
                            let wall_ms = side.source.wall_ms();
                            side.protocol.connected(now(), wall_ms);
                            side.converse(stream).await;
                        }
                        Some(Err(error)) => side.closed(Closed::Unreachable(error)),
                        None => {}
                    }
                }
                Action::Wait(until) => side.wait(until).await,
                Action::Done => break,
                // There is no connection to send on: whatever it was is sent again on the next one.
                Action::Send { .. } => side.closed(Closed::ByServer),
            }
        }
        // What is being written may still be kept.
        if let Keeper::Busy(_) = side.keep
            && let Ok(outcome) = timeout(LAST_JOB, side.keep.done()).await
        {
            side.performed(outcome);
        }
        let waiting = side.protocol.all_waiting();
        Ended { waiting: waiting.memory, spooled: waiting.disk, observer: side.observer }
    }
}

/// What keeps something on disk, and what it does.
enum Keeper<K: ?Sized, O> {
    /// There is none, or it is lost.
    None,
    Idle(Box<K>),
    Busy(JoinHandle<(Box<K>, O)>),
}

impl<K: ?Sized + Send + 'static, O: Send + 'static> Keeper<K, O> {
    fn new(keep: Option<Box<K>>) -> Self {
        keep.map_or(Self::None, Self::Idle)
    }

    fn start(&mut self, job: impl FnOnce(&mut K) -> O + Send + 'static) {
        *self = match std::mem::replace(self, Self::None) {
            Self::Idle(mut keep) => Self::Busy(spawn_blocking(move || {
                let outcome = job(&mut keep);
                (keep, outcome)
            })),
            other => other,
        };
    }

    /// How its job ended; waits for ever while there is none. Safe to cancel.
    async fn done(&mut self) -> Result<O, String> {
        let Self::Busy(job) = self else { return std::future::pending().await };
        match job.await {
            Ok((keep, outcome)) => {
                *self = Self::Idle(keep);
                Ok(outcome)
            }
            Err(error) => {
                *self = Self::None;
                Err(error.to_string())
            }
        }
    }
}

/// The side of a link that does not depend on a connection.
struct Side<S, O> {
    protocol: Protocol,
    source: S,
    observer: O,
    keep: Keeper<dyn Keep, Outcome>,
    trust: Keeper<dyn trust::Keep, trust::Outcome>,
    has_ended: bool,
}

impl<S: Source, O: Observer> Side<S, O> {
    fn start_job(&mut self) {
        if let Keeper::Idle(_) = self.keep
            && let Some(job) = self.protocol.job(now())
        {
            self.keep.start(move |keep| keep.perform(job));
        }
        if let Keeper::Idle(_) = self.trust
            && let Some(job) = self.protocol.trust_job(now())
        {
            self.trust.start(move |keep| keep.perform(job));
        }
    }

    fn trust_kept(&mut self, outcome: Result<trust::Outcome, String>) {
        match outcome {
            Ok(outcome) => self.protocol.trust_kept(now(), outcome),
            Err(why) => self.protocol.lost_trust(why),
        }
        self.tell();
    }

    fn performed(&mut self, outcome: Result<Outcome, String>) {
        match outcome {
            Ok(outcome) => self.protocol.performed(now(), outcome),
            Err(why) => self.protocol.lost_spool(now(), why),
        }
        self.tell();
    }

    fn next(&mut self) -> Action {
        self.start_job();
        let action = self.protocol.next(now());
        self.tell();
        action
    }

    fn closed(&mut self, why: Closed) {
        self.protocol.closed(now(), why);
        self.tell();
    }

    fn tell(&mut self) {
        for event in self.protocol.take_events() {
            self.observer.event(event);
        }
    }

    fn took(&mut self, sample: Option<Sample>) {
        match sample {
            Some(sample) => self.protocol.sample_taken(now(), sample),
            None => {
                self.has_ended = true;
                self.protocol.set_bye(self.source.bye());
                self.protocol.shut_down(now());
            }
        }
        self.tell();
    }

    /// Until a sample comes, the source ends, a job ends, or `until`.
    async fn wait(&mut self, until: Option<Instant>) {
        tokio::select! {
            outcome = self.keep.done() => self.performed(outcome),
            outcome = self.trust.done() => self.trust_kept(outcome),
            sample = self.source.next(), if !self.has_ended => self.took(sample),
            () = sleep_until_some(until) => {}
        }
    }

    /// Samples go on being taken meanwhile. `None` where the protocol does not want it any more.
    async fn while_waiting_for<T>(&mut self, mut attempt: impl Future<Output = T> + Unpin) -> Option<T> {
        loop {
            let until = match self.next() {
                Action::Wait(until) => until,
                _ => return None,
            };
            tokio::select! {
                result = &mut attempt => return Some(result),
                () = self.wait(until) => {}
            }
        }
    }

    /// Speaks with a server until the connection is closed.
    async fn converse<T: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: T) {
        let (read, write) = tokio::io::split(stream);
        let mut frames = FramedRead::with_capacity(read, ClientCodec::new(), READ_BUFFER_BYTES);
        let mut out = Outgoing { write, buffer: BytesMut::new(), deadline: None };
        while self.protocol.is_connected() {
            let until;
            let mut limit = out.deadline;
            if limit.is_some() {
                // The disk does not wait for the network either.
                self.start_job();
                limit = limit.min(self.protocol.ends_at().or(limit));
                until = limit.min(self.protocol.job_at().or(limit));
            } else {
                match self.next() {
                    Action::Send { message, first } => {
                        self.first_sent(&message, &first);
                        if let Err(error) = out.put(message) {
                            return self.closed(closed_by(error));
                        }
                        limit = out.deadline;
                        until = limit;
                    }
                    Action::Wait(wake) => until = wake,
                    Action::Connect { .. } => continue,
                    Action::Done => {
                        // The server may have acknowledged more than was read: only a clean end brings it the `Bye`.
                        let _ = timeout(CLOSE_DEADLINE, out.end(frames.get_mut())).await;
                        return;
                    }
                }
            }
            tokio::select! {
                frame = frames.next() => match frame {
                    Some(Ok(message)) => self.received(message),
                    Some(Err(error)) => self.closed(closed_by(error)),
                    None => self.closed(Closed::ByServer),
                },
                result = out.step(), if out.deadline.is_some() => if let Err(error) = result {
                    // A server that refuses says why before it closes; that is worth more than a broken pipe.
                    if let Ok(Some(Ok(message))) = timeout(CLOSE_DEADLINE, frames.next()).await {
                        self.received(message);
                    }
                    if self.protocol.is_connected() {
                        self.closed(Closed::Io(error.to_string()));
                    }
                    return;
                },
                sample = self.source.next(), if !self.has_ended => self.took(sample),
                outcome = self.keep.done() => self.performed(outcome),
                outcome = self.trust.done() => self.trust_kept(outcome),
                () = sleep_until_some(until) => {
                    if out.deadline.is_some() && limit.is_some_and(|limit| limit <= now()) {
                        self.closed(Closed::WriteTimeout);
                    }
                }
            }
        }
    }

    fn received(&mut self, message: ServerMessage) {
        self.protocol.received(now(), message);
        self.tell();
    }

    fn first_sent(&mut self, message: &ClientMessage, first: &[i64]) {
        let ClientMessage::Samples(samples) = message else { return };
        for sample in samples.samples.iter().filter(|sample| first.contains(&sample.time_ms)) {
            self.observer.first_sent(sample);
        }
    }
}

/// The writing half: at most one message at a time.
struct Outgoing<W> {
    write: W,
    buffer: BytesMut,
    /// Until when the message must be out; `None` while there is none.
    deadline: Option<Instant>,
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    fn put(&mut self, message: ClientMessage) -> Result<(), FrameError> {
        ClientCodec::new().encode(message, &mut self.buffer)?;
        self.deadline = Some(now() + WRITE_DEADLINE);
        Ok(())
    }

    /// Writes some more; `deadline` is gone when all is out. Safe to cancel.
    async fn step(&mut self) -> io::Result<()> {
        if self.buffer.has_remaining() {
            if self.write.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            if self.buffer.has_remaining() {
                return Ok(());
            }
        }
        self.write.flush().await?;
        self.deadline = None;
        if self.buffer.capacity() > WRITE_BUFFER_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Says that nothing more comes, and reads to the server's end: closing with unread bytes would be a reset, which
    /// can take back what was just sent.
    async fn end(&mut self, read: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        self.write.shutdown().await?;
        let mut rest = [0; 64];
        while read.read(&mut rest).await? > 0 {}
        Ok(())
    }
}

fn closed_by(error: FrameError) -> Closed {
    match error {
        FrameError::Io(error) => Closed::Io(error.to_string()),
        FrameError::Codec(CodecError::FrameTooLarge { len, .. }) if len >> 16 == TLS_ALERT => {
            Closed::Violation(
                "it speaks TLS, and this client was told not to: remove insecure from its configuration"
                    .to_owned(),
            )
        }
        FrameError::Codec(error) => Closed::Violation(error.to_string()),
    }
}

/// The runtime's clock, so that a test can play it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until_some(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
