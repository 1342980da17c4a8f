use serde::{Deserialize, Serialize};

/// Send live readings this often, for the time of a lease and within the client's own bounds. Stored samples stay as
/// they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetInterval {
    /// Time between two live readings in ms; 0 ends them.
    pub interval_ms: u32,
    /// For how long, in ms, unless it is said again.
    pub lease_ms: u32,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden};
    use crate::message::ServerMessage;

    pub(crate) fn vectors() -> Vec<Golden<ServerMessage>> {
        vec![
            golden("set_interval_end", SetInterval { interval_ms: 0, lease_ms: 0 }, "42 00 00"),
            golden(
                "set_interval_second",
                SetInterval { interval_ms: 1_000, lease_ms: 60_000 },
                "42 fb e8 03 fb 60 ea",
            ),
            golden(
                "set_interval_extreme",
                SetInterval { interval_ms: u32::MAX, lease_ms: 65_536 },
                "42 fc ff ff ff ff fc 00 00 01 00",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
