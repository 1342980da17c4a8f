//! [`Learnt`].

use serde::{Deserialize, Serialize};

use crate::bounded::List;
use crate::limits::MAX_PINS;

/// The keys that the client accepts from now on, also after a restart: said once they are kept, after a `Welcome` or `Pins`
/// that named others than it knew. So the server knows when it may change its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// SHA-256 of the public keys (SPKI) that it knows.
    pub pins: List<[u8; 32], MAX_PINS>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, list};
    use crate::message::ClientMessage;

    pub(crate) fn vectors() -> Vec<Golden<ClientMessage>> {
        vec![
            golden("learnt_none", Learnt { pins: list(vec![]) }, "06 00"),
            golden(
                "learnt_one",
                Learnt { pins: list(vec![[0; 32]]) },
                "06 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
                 00 00",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
