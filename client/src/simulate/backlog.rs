//! Samples that a simulated host has waiting from the start: made when they are asked for, kept nowhere.

use vitals_wire::log::Position;
use vitals_wire::sample::encode_sample;

use std::sync::Arc;

use super::host::Host;
use super::script::Given;
use crate::spool::job::{Drops, Job, Keep, Kept, Opened, Outcome, Record, Standing};

/// The only "segment" of what is not on disk.
const SEGMENT: u64 = 1;

/// The samples of a host from before it was started, one each interval.
#[derive(Debug)]
pub(super) struct Generated {
    host: Arc<Host>,
    first_ms: i64,
    interval_ms: i64,
    samples: u64,
    /// The first that is not settled.
    cursor: u64,
}

impl Generated {
    /// So many, the last an interval before `until_ms`.
    pub(super) fn new(host: Arc<Host>, until_ms: i64, interval_ms: u32, samples: u64) -> Self {
        let interval_ms = i64::from(interval_ms);
        let first_ms = until_ms.saturating_sub(interval_ms.saturating_mul(samples as i64));
        Self { host, first_ms, interval_ms, samples, cursor: 0 }
    }

    fn time_ms(&self, index: u64) -> i64 {
        self.first_ms.saturating_add(self.interval_ms.saturating_mul(index as i64))
    }

    fn place(index: u64) -> Position {
        Position { segment: SEGMENT, offset: index }
    }

    fn standing(&self) -> Standing {
        Standing { cursor: Self::place(self.cursor), bytes: 0 }
    }

    fn read(&self, from: u64, most: usize) -> Outcome {
        let end = self.samples.min(from.saturating_add(most as u64));
        let samples = (from..end).filter_map(|index| {
            let time_ms = self.time_ms(index);
            let encoded = encode_sample(&self.host.sample(time_ms, &Given::default())).ok()?;
            let record = Record { encoded: encoded.into(), was_sent: false };
            Some(Kept { time_ms, record, after: Self::place(index + 1), damaged: 0 })
        });
        Outcome::Read {
            samples: samples.collect(),
            after: Self::place(end),
            is_end: end == self.samples,
            damaged: 0,
        }
    }
}

impl Keep for Generated {
    fn perform(&mut self, job: Job) -> Outcome {
        match job {
            Job::Open => Outcome::Opened(Opened {
                standing: self.standing(),
                samples: self.samples - self.cursor,
                first_ms: (self.cursor < self.samples).then(|| self.time_ms(self.cursor)),
                drops: Drops::default(),
                damaged: 0,
                max_bytes: None,
            }),
            Job::Read { from, samples, .. } => self.read(from.offset.max(self.cursor), samples),
            Job::Pass { to, .. } => {
                self.cursor = self.cursor.max(to.offset).min(self.samples);
                Outcome::Passed(self.standing())
            }
            Job::Put { .. } | Job::MakeRoom { .. } => {
                Outcome::Failed { why: "nothing can be kept here".to_owned(), is_final: false }
            }
        }
    }
}
