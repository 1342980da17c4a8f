//! What a session does with each message, and what it may acknowledge: plain logic without I/O or clocks.
//!
//! Whoever drives it hands each message to [`Protocol::message`], commits the batches of [`Step::Take`], says what
//! became of them ([`committed`](Protocol::committed), [`unfit`](Protocol::unfit), [`deferred`](Protocol::deferred)), and
//! sends what [`Protocol::ack`] gives.

use vitals_wire::bounded::{List, Text};
use vitals_wire::codec::{CodecError, FrameError};
use vitals_wire::ids::{HostId, Secret};
use vitals_wire::limits::MAX_PINS;
use vitals_wire::message::{
    Ack, ByeReason, ClientMessage, DropReason, Hello, PROTOCOL_VERSION, Refusal, Refused, Samples,
};
use vitals_wire::name::{check_host_name, check_label};
use vitals_wire::sample::Sample;

use super::pending::Pending;

pub use super::batch::{Batch, MOST_AHEAD, Oddities};
pub use super::pending::{MAX_PENDING, Stored};

/// The shortest and longest normal interval that a client may have.
pub const INTERVALS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;

/// What a session does next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Let this host in.
    Admit(Box<Hello>),
    /// Show and keep: it is pending from now on. One without `samples` is settled already.
    Take(Batch),
    /// Show and do not keep: too many are pending, or one of the same number is. The client, which gets no `Ack` for it,
    /// sends it again.
    Defer(Batch),
    /// Show this reading in the host's live view, and forget it.
    Show(Sample),
    /// The host goes.
    Bye(ByeReason),
    /// The host uses this secret from its next connection on; the present one holds until then.
    NewSecret(Secret),
    /// The host knows the server by these keys from now on.
    Learnt(List<[u8; 32], MAX_PINS>),
    /// A message of a later version, which is skipped and counted.
    Unknown(u32),
}

/// What the host's limits let pass of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// All of it.
    All,
    /// So many samples, from the first on; the others are never stored.
    First(usize),
    /// Nothing now: it has to come again.
    Later,
}

/// One session's protocol.
#[derive(Debug, Default)]
pub struct Protocol {
    introduced: bool,
    pending: Pending,
}

impl Protocol {
    /// Decides about a message. `oldest_ms` is the oldest time that is still stored.
    pub fn message(&mut self, message: ClientMessage, now_ms: i64, oldest_ms: i64) -> Result<Step, Refused> {
        self.message_within(message, now_ms, oldest_ms, Allowed::All)
    }

    /// The same for a message of which the host's limits let this pass, if it is samples to keep.
    pub fn message_within(
        &mut self,
        message: ClientMessage,
        now_ms: i64,
        oldest_ms: i64,
        allowed: Allowed,
    ) -> Result<Step, Refused> {
        match message {
            ClientMessage::Hello(hello) if !self.introduced => {
                check_hello(&hello)?;
                self.introduced = true;
                Ok(Step::Admit(Box::new(hello)))
            }
            ClientMessage::Hello(_) => Err(refused(Refusal::Unexpected, "a second Hello", true)),
            _ if !self.introduced => Err(refused(Refusal::Unexpected, "a message before Hello", true)),
            ClientMessage::Samples(samples) => Ok(self.take(samples, now_ms, oldest_ms, allowed)),
            ClientMessage::LiveSample(live) => Ok(Step::Show(live.sample)),
            ClientMessage::Bye(bye) => Ok(Step::Bye(bye.reason)),
            ClientMessage::NewSecret(new) => Ok(Step::NewSecret(new.secret)),
            ClientMessage::Learnt(learnt) => Ok(Step::Learnt(learnt.pins)),
            ClientMessage::Unknown(kind) => Ok(Step::Unknown(kind)),
        }
    }

    /// A batch is on disk, and may be acknowledged. What is stored of it; None where no such batch is pending.
    pub fn committed(&mut self, number: u64) -> Option<Stored> {
        self.pending.committed(number)
    }

    /// A batch can never be kept: all of its samples are refused, and that may be said.
    pub fn unfit(&mut self, number: u64, reason: DropReason) {
        self.pending.unfit(number, reason);
    }

    /// A batch was not taken after all. It is forgotten, and never acknowledged unless it comes again.
    pub fn deferred(&mut self, number: u64) {
        self.pending.deferred(number);
    }

    /// What may be acknowledged now, as much as an `Ack` can carry: ask until there is nothing.
    pub fn ack(&mut self, now_ms: i64) -> Option<Ack> {
        self.pending.ack(now_ms)
    }

    /// Samples that the `Ack`s given out since this was asked last have settled as durable.
    pub fn take_acknowledged(&mut self) -> usize {
        self.pending.take_acknowledged()
    }

    fn take(&mut self, samples: Samples, now_ms: i64, oldest_ms: i64, allowed: Allowed) -> Step {
        let batch = super::batch::look_at(samples, now_ms, oldest_ms, allowed);
        if allowed != Allowed::Later && self.pending.note(&batch) {
            Step::Take(batch)
        } else {
            Step::Defer(batch)
        }
    }
}

/// A refusal with its words, cut where they are too long.
pub fn refused(code: Refusal, text: impl AsRef<str>, retry: bool) -> Refused {
    Refused { code, text: Text::cut(text.as_ref()), retry }
}

/// What a peer is told whose bytes cannot be understood. `None` where the connection itself failed.
pub fn refused_for(error: &FrameError) -> Option<Refused> {
    let FrameError::Codec(error) = error else { return None };
    let code = match error {
        CodecError::FrameTooLarge { .. } | CodecError::TooLong(_) => Refusal::TooLarge,
        _ => Refusal::Malformed,
    };
    Some(refused(code, error.to_string(), false))
}

fn check_hello(hello: &Hello) -> Result<(), Refused> {
    if hello.protocol != PROTOCOL_VERSION {
        let text = format!(
            "this server speaks version {PROTOCOL_VERSION} of the protocol, the client version {}: upgrade the older one",
            hello.protocol
        );
        return Err(refused(Refusal::Version, text, false));
    }
    if hello.host == HostId::SERVER {
        return Err(refused(Refusal::Credential, "this host id is reserved", false));
    }
    let bad_name = |error: vitals_wire::name::NameError| refused(Refusal::BadName, error.to_string(), false);
    check_host_name(&hello.name).map_err(bad_name)?;
    hello.labels.iter().try_for_each(|label| check_label(&label.key, &label.value)).map_err(bad_name)?;
    if !INTERVALS.contains(&hello.interval_ms) {
        let text = format!("an interval of {} ms: 1 s to 1 h are taken", hello.interval_ms);
        return Err(refused(Refusal::Malformed, text, false));
    }
    Ok(())
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
