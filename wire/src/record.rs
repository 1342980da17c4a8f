//! What the server's journal holds: batches of samples as they came in, with who sent them and when.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::ids::HostId;
use crate::sample::Sample;

/// A batch in the journal. Encoded by [`encode_record`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Whose samples; `HostId::SERVER` for the server's own.
    pub host: HostId,
    /// When the server took them, by its clock in ms since 1970.
    pub received_ms: i64,
    /// Whether they came as backlog.
    pub backlog: bool,
    /// The samples, oldest first.
    #[serde(deserialize_with = "crate::bounded::grown")]
    pub samples: Vec<Sample>,
}

/// Encodes a record of the journal.
pub fn encode_record(record: &Record) -> Result<Vec<u8>, CodecError> {
    codec::encode_record(record)
}

/// Decodes a record of the journal. Its bytes are the server's own, behind a checksum; they are still read with care.
pub fn decode_record(bytes: &[u8]) -> Result<Record, CodecError> {
    codec::decode_record(bytes)
}
