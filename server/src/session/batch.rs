//! What is kept, shown and refused of a batch, sample by sample.

use std::time::Duration;

use vitals_wire::message::{DropReason, RefusedSample, Samples};
use vitals_wire::sample::Sample;
use vitals_wire::section::Section;

use super::protocol::Allowed;

/// How far ahead of the server's clock a sample may be and still be stored.
pub const MOST_AHEAD: Duration = Duration::from_secs(24 * 3600);

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

/// Looks at each sample. `oldest_ms` is the oldest time that is still stored.
pub(super) fn look_at(batch: Samples, now_ms: i64, oldest_ms: i64, allowed: Allowed) -> Batch {
    let passing = match allowed {
        Allowed::First(passing) => passing,
        Allowed::All | Allowed::Later => usize::MAX,
    };
    let newest_ms = now_ms.saturating_add(MOST_AHEAD.as_millis() as i64);
    let mut taken = Batch { number: batch.batch, backlog: batch.backlog, ..Batch::default() };
    for (place, sample) in batch.samples.into_vec().into_iter().enumerate() {
        let time_ms = sample.time_ms;
        if place >= passing {
            taken.refused.push(RefusedSample { time_ms, reason: DropReason::OverLimit });
            continue;
        }
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
