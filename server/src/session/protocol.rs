//! What a session does with each message: plain logic without I/O or clocks.

use std::time::Duration;

use vitals_wire::bounded::{List, Text};
use vitals_wire::codec::{CodecError, FrameError};
use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_BATCH_SAMPLES;
use vitals_wire::message::{
    ByeReason, ClientMessage, DropReason, Hello, PROTOCOL_VERSION, Refusal, Refused, RefusedSample, Samples,
};
use vitals_wire::name::{check_host_name, check_label};
use vitals_wire::sample::Sample;
use vitals_wire::section::Section;

/// How far ahead of the server's clock a sample may be and still be stored.
pub const MOST_AHEAD: Duration = Duration::from_secs(24 * 3600);
/// The shortest and longest normal interval that a client may have.
pub const INTERVALS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;

/// What a session does next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Let this host in.
    Admit(Box<Hello>),
    /// Show and keep.
    Take(Batch),
    /// Show this reading in the host's live view, and forget it.
    Show(Sample),
    /// The host goes.
    Bye(ByeReason),
    /// Nothing to do.
    Nothing,
}

/// A batch after a look at each of its samples.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// The client's number of it.
    pub number: u64,
    /// Whether it is backlog.
    pub backlog: bool,
    /// What is to be stored, oldest first.
    pub samples: Vec<Sample>,
    /// What is shown as live though it will never be stored: the host's clock is ahead.
    pub ahead: Vec<Sample>,
    /// What will never be stored, and why.
    pub refused: Vec<RefusedSample>,
    /// What was odd about the content.
    pub oddities: Oddities,
}

/// Counts of what could not be understood within samples. None of it is a reason to refuse anything else.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Oddities {
    /// Sections of a kind that this version does not know.
    pub unknown: u64,
    /// Sections of a known kind that could not be read.
    pub damaged: u64,
    /// Figures that are NaN or infinite.
    pub not_finite: u64,
}

/// One session's protocol.
#[derive(Debug, Default)]
pub struct Protocol {
    introduced: bool,
}

impl Protocol {
    /// Decides about a message. `oldest_ms` is the oldest time that is still stored.
    pub fn message(&mut self, message: ClientMessage, now_ms: i64, oldest_ms: i64) -> Result<Step, Refused> {
        match message {
            ClientMessage::Hello(hello) if !self.introduced => {
                check_hello(&hello)?;
                self.introduced = true;
                Ok(Step::Admit(Box::new(hello)))
            }
            ClientMessage::Hello(_) => Err(refused(Refusal::Unexpected, "a second Hello", true)),
            _ if !self.introduced => Err(refused(Refusal::Unexpected, "a message before Hello", true)),
            ClientMessage::Samples(samples) => Ok(Step::Take(look_at(samples, now_ms, oldest_ms))),
            ClientMessage::LiveSample(live) => Ok(Step::Show(live.sample)),
            ClientMessage::Bye(bye) => Ok(Step::Bye(bye.reason)),
            // Secrets are not checked yet, so there is nothing to change.
            ClientMessage::NewSecret(_) => Ok(Step::Nothing),
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

fn look_at(batch: Samples, now_ms: i64, oldest_ms: i64) -> Batch {
    let newest_ms = now_ms.saturating_add(MOST_AHEAD.as_millis() as i64);
    let mut taken = Batch { number: batch.batch, backlog: batch.backlog, ..Batch::default() };
    for sample in batch.samples.into_vec() {
        let time_ms = sample.time_ms;
        let oddities = look_into(&sample);
        taken.oddities.unknown += oddities.unknown;
        taken.oddities.damaged += oddities.damaged;
        taken.oddities.not_finite += oddities.not_finite;
        let reason = if time_ms > newest_ms {
            if !batch.backlog {
                taken.ahead.push(sample);
            }
            DropReason::ClockAhead
        } else if time_ms < oldest_ms {
            DropReason::TooOld
        } else if oddities.damaged as usize == sample.sections.len() {
            DropReason::Unreadable
        } else {
            taken.samples.push(sample);
            continue;
        };
        taken.refused.push(RefusedSample { time_ms, reason });
    }
    taken
}

fn look_into(sample: &Sample) -> Oddities {
    let mut oddities = Oddities::default();
    for section in &sample.sections {
        match section {
            Section::Opaque(opaque) if opaque.is_damaged() => oddities.damaged += 1,
            Section::Opaque(_) => oddities.unknown += 1,
            Section::DiskIo(disk_io) => {
                let times = disk_io.disks.iter().filter_map(|disk| disk.times);
                let figures =
                    times.flat_map(|times| [times.io_await, times.io_svctm, Some(times.io_util)]).flatten();
                oddities.not_finite += figures.filter(|figure| !figure.is_finite()).count() as u64;
            }
            _ => {}
        }
    }
    oddities
}

/// The refused samples of one batch as an `Ack` can carry them: a batch's always fit.
pub fn refused_list<const MAX: usize>(refused: Vec<RefusedSample>) -> List<RefusedSample, MAX> {
    const { assert!(MAX >= MAX_BATCH_SAMPLES) };
    List::first(refused).0
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
