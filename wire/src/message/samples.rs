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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, list};
    use crate::message::ClientMessage;
    use crate::section::{Opaque, Section, Swap};

    pub(crate) fn vectors() -> Vec<Golden<ClientMessage>> {
        vec![
            golden(
                "samples_none",
                Samples { batch: 0, backlog: false, samples: list(vec![]) },
                "02 00 00 00",
            ),
            golden(
                "samples_live",
                Samples {
                    batch: 1,
                    backlog: false,
                    samples: list(vec![Sample {
                        time_ms: 1_795_232_825_003,
                        sections: list(vec![Section::Swap(Swap {
                            total: 0,
                            free: 0,
                            bytes_in: None,
                            bytes_out: None,
                        })]),
                    }]),
                },
                "02 01 00 01 fd 56 fd 6d f8 43 03 00 00 01 03 04 00 00 00 00",
            ),
            golden(
                "samples_backlog",
                Samples {
                    batch: u64::MAX,
                    backlog: true,
                    samples: list(vec![
                        Sample::default(),
                        Sample {
                            time_ms: i64::MAX,
                            sections: list(vec![Section::Opaque(Opaque {
                                kind: 251,
                                bytes: [0xde, 0xad].into(),
                            })]),
                        },
                    ]),
                },
                "02 fd ff ff ff ff ff ff ff ff 01 02 00 00 fd fe ff ff ff ff ff ff ff 01 fb fb 00 02 de ad",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
