//! [`Pins`].

use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::limits::MAX_PINS;

/// The keys that are accepted from now on, as in `Welcome`: told to those who are connected when they change. Answered by
/// `Learnt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// SHA-256 of the public keys (SPKI) that the server has or will have.
    pub pins: List<[u8; 32], MAX_PINS>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, list};
    use crate::message::ServerMessage;

    pub(crate) fn vectors() -> Vec<Golden<ServerMessage>> {
        vec![
            golden("pins_none", Pins { pins: list(vec![]) }, "44 00"),
            golden(
                "pins_one",
                Pins { pins: list(vec![[0xfb; 32]]) },
                "44 01 fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb \
                 fb fb",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
