//! What the server's journal holds: batches of samples as they came in, with who sent them and when.

use serde::{Deserialize, Serialize};

use crate::ids::HostId;
use crate::sample::Sample;

/// A batch in the journal. Encoded by `codec::encode_record`.
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
