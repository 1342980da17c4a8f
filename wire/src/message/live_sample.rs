use serde::{Deserialize, Serialize};

use crate::sample::Sample;

/// A reading for the host's live view alone: not acknowledged, not spooled, not stored, and no alert sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveSample {
    /// The reading.
    pub sample: Sample,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, list};
    use crate::message::ClientMessage;
    use crate::section::{Opaque, Section, Swap};

    pub(crate) fn vectors() -> Vec<Golden<ClientMessage>> {
        vec![
            golden("live_sample_empty", LiveSample { sample: Sample::default() }, "04 00 00"),
            golden(
                "live_sample_two_sections",
                LiveSample {
                    sample: Sample {
                        time_ms: i64::MIN,
                        sections: list(vec![
                            Section::Swap(Swap { total: 0, free: 0, bytes_in: None, bytes_out: None }),
                            Section::Opaque(Opaque { kind: 251, bytes: [0xde, 0xad].into() }),
                        ]),
                    },
                },
                "04 fd ff ff ff ff ff ff ff ff 02 03 04 00 00 00 00 fb fb 00 02 de ad",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
