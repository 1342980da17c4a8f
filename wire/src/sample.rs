//! A sample: one reading of one host.

use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::codec::{self, CodecError};
use crate::limits::MAX_SECTIONS;
use crate::section::Section;

/// One reading of one host. With the host's id, its time is what identifies it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken, in ms since 1970 by the host's own clock. Nobody rewrites it.
    pub time_ms: i64,
    /// What was read.
    pub sections: List<Section, MAX_SECTIONS>,
}

impl Sample {
    /// The first section that `pick` finds in it.
    pub fn find<'a, T>(&'a self, pick: impl FnMut(&'a Section) -> Option<T>) -> Option<T> {
        self.sections.iter().find_map(pick)
    }
}

/// Encodes one sample by itself: what identifies its content in hashes, and what waits on a client.
pub fn encode_sample(sample: &Sample) -> Result<Vec<u8>, CodecError> {
    codec::encode_section(sample)
}

/// Decodes one sample by itself.
pub fn decode_sample(bytes: &[u8]) -> Result<Sample, CodecError> {
    codec::decode_section(bytes)
}
