use serde::{Deserialize, Serialize};

use crate::sample::Sample;

/// A reading for the host's live view alone: not acknowledged, not spooled, not stored, and no alert sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveSample {
    /// The reading.
    pub sample: Sample,
}
