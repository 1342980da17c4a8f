//! Drives a session of the server: bytes in, records to the journal, bytes out.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio_util::codec::{Decoder, Encoder};
use vitals_server::journal::{Encoded, Journal, JournalError};
use vitals_server::live::down_limit;
use vitals_server::session::protocol::{Protocol, Step};
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::HostId;
use vitals_wire::limits::{MAX_BATCH_SAMPLES, MAX_FRAME_BYTES};
use vitals_wire::message::{
    DropReason, Limits, PROTOCOL_VERSION, Refusal, ServerCodec, ServerMessage, Welcome,
};
use vitals_wire::record::Record;

use crate::ctx::Ctx;

/// Time that a stranger has to introduce itself.
const HELLO_MS: u64 = 10_000;
/// Pause before a record that the journal did not take is tried again.
const RETRY_MS: u64 = 1_000;
/// Samples that are older are refused.
pub const KEEP_RAW: Duration = Duration::from_secs(7 * 24 * 3600);

type Committing = Pin<Box<dyn Future<Output = Result<(), JournalError>>>>;

/// A session, from its connection's beginning to its end.
pub struct Session {
    protocol: Protocol,
    codec: ServerCodec,
    incoming: BytesMut,
    /// Batches of backlog under way at most.
    window: u32,
    host: HostId,
    idle_ms: u64,
    idle_at: u64,
    keeping: Vec<Keeping>,
    pub out: BytesMut,
    /// What is in `out` is the last.
    pub is_over: bool,
}

/// A record on its way to the disk.
struct Keeping {
    number: u64,
    record: Encoded,
    committing: Option<Committing>,
    retry_at: u64,
}

impl Session {
    pub fn new(now: u64, window: u32) -> Self {
        Self {
            window,
            protocol: Protocol::default(),
            codec: ServerCodec::for_strangers(),
            incoming: BytesMut::new(),
            host: HostId::default(),
            idle_ms: HELLO_MS,
            idle_at: now + HELLO_MS,
            keeping: Vec::new(),
            out: BytesMut::new(),
            is_over: false,
        }
    }

    pub fn next_at(&self) -> Option<u64> {
        let retries = self.keeping.iter().filter(|keeping| keeping.committing.is_none());
        retries.map(|keeping| keeping.retry_at).chain([self.idle_at]).min()
    }

    /// Whether nothing of it waits for the disk.
    pub fn is_at_rest(&self) -> bool {
        self.keeping.is_empty()
    }

    /// Bytes came. Gives whether the journal got something.
    pub fn read(&mut self, ctx: &mut Ctx, journal: &Journal, bytes: &[u8]) -> bool {
        self.incoming.extend_from_slice(bytes);
        let mut gave = false;
        while !self.is_over {
            let message = match self.codec.decode(&mut self.incoming) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    ctx.fail(format!("the server does not understand a client: {error}"));
                    break;
                }
            };
            self.idle_at = ctx.now + self.idle_ms;
            let now_ms = ctx.wall_ms();
            let oldest_ms = now_ms - KEEP_RAW.as_millis() as i64;
            match self.protocol.message(message, now_ms, oldest_ms) {
                Err(refused) => {
                    self.say(refused.into());
                    self.is_over = true;
                }
                Ok(Step::Admit(hello)) => {
                    self.host = hello.host;
                    self.codec.introduced();
                    self.idle_ms =
                        down_limit(Duration::from_millis(hello.interval_ms.into())).as_millis() as u64;
                    self.say(welcome(now_ms, oldest_ms, self.window).into());
                }
                Ok(Step::Take(batch)) => {
                    let (number, backlog) = (batch.number, batch.backlog);
                    if !batch.samples.is_empty() {
                        let record =
                            Record { host: self.host, received_ms: now_ms, backlog, samples: batch.samples };
                        match Encoded::new(&record) {
                            Ok(record) => {
                                let keeping = Keeping { number, record, committing: None, retry_at: ctx.now };
                                self.keeping.push(keeping);
                                gave = true;
                            }
                            Err(_) => self.protocol.unfit(number, DropReason::Unreadable),
                        }
                    }
                }
                Ok(Step::Defer(_) | Step::Show(_) | Step::Bye(_)) => {}
                Ok(Step::NewSecret(_) | Step::Learnt(_) | Step::Unknown(_)) => {}
            }
        }
        self.step(ctx, journal);
        gave
    }

    /// Brings to the journal what it did not take, hears what became of what it did, and acknowledges.
    pub fn step(&mut self, ctx: &mut Ctx, journal: &Journal) -> bool {
        let mut gave = false;
        let mut index = 0;
        while let Some(keeping) = self.keeping.get_mut(index) {
            let outcome = match &mut keeping.committing {
                Some(committing) => committing.now_or_never(),
                None if keeping.retry_at > ctx.now => None,
                None => match journal.append(&keeping.record) {
                    Ok(commit) => {
                        keeping.committing = Some(Box::pin(commit.wait()));
                        gave = true;
                        None
                    }
                    Err(error) => Some(Err(error)),
                },
            };
            match outcome {
                None => index += 1,
                Some(Ok(())) => {
                    let number = keeping.number;
                    self.protocol.committed(number);
                    self.keeping.swap_remove(index);
                }
                Some(Err(_)) => {
                    keeping.committing = None;
                    keeping.retry_at = ctx.now + RETRY_MS;
                    index += 1;
                }
            }
        }
        while let Some(ack) = self.protocol.ack(ctx.wall_ms()) {
            self.say(ack.into());
        }
        if self.idle_at <= ctx.now && !self.is_over {
            let refused =
                vitals_server::session::protocol::refused(Refusal::Timeout, "silent for too long", true);
            self.say(refused.into());
            self.is_over = true;
        }
        gave
    }

    /// The server goes down.
    pub fn shut_down(&mut self) {
        let refused = vitals_server::session::protocol::refused(Refusal::ShuttingDown, "going down", true);
        self.say(refused.into());
        self.is_over = true;
    }

    fn say(&mut self, message: ServerMessage) {
        self.codec.encode(message, &mut self.out).unwrap();
    }
}

fn welcome(now_ms: i64, oldest_ms: i64, window: u32) -> Welcome {
    Welcome {
        protocol: PROTOCOL_VERSION,
        server_version: Text::cut("0"),
        server_time_ms: now_ms,
        name: Text::cut("host"),
        window,
        limits: Limits { frame_bytes: MAX_FRAME_BYTES as u32, batch_samples: MAX_BATCH_SAMPLES as u32 },
        oldest_ms,
        pins: List::empty(),
        rotate_secret: false,
    }
}
