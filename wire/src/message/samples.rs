use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::limits::MAX_BATCH_SAMPLES;
use crate::sample::Sample;

/// Readings to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// The client's number of this batch, rising within a connection.
    pub batch: u64,
    /// Whether these are older readings sent again or late. A backlog is stored, and neither shown as live nor alerted on.
    pub backlog: bool,
    /// The readings, oldest first.
    pub samples: List<Sample, MAX_BATCH_SAMPLES>,
}
