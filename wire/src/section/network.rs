use serde::{Deserialize, Serialize};

use super::Name;
use crate::bounded::List;
use crate::limits::MAX_INTERFACES;

/// Counters of network interfaces (`/proc/net/dev`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Network {
    /// In the kernel's order.
    pub interfaces: List<Interface, MAX_INTERFACES>,
}

/// One interface. Counters count since it came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The kernel's name, such as `eth0`.
    pub name: Name,
    /// Bytes received.
    pub bytes_recv: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Packets received.
    pub packets_recv: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Errors while receiving.
    pub err_in: u64,
    /// Errors while sending.
    pub err_out: u64,
    /// Received packets dropped; `None` where the system does not count them.
    pub drop_in: Option<u64>,
    /// Packets to send dropped.
    pub drop_out: Option<u64>,
    /// Link speed in Mbit/s; -1 where the driver does not know one, as the kernel and Telegraf say it.
    pub speed: Option<i64>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("network_none", Network::default(), "00"),
            golden(
                "network_two",
                Network {
                    interfaces: list(vec![
                        Interface {
                            name: text("eth0"),
                            bytes_recv: 1_683_075_226,
                            bytes_sent: 7_293_249,
                            packets_recv: 93_408,
                            packets_sent: 66_663,
                            err_in: 0,
                            err_out: 0,
                            drop_in: Some(0),
                            drop_out: Some(7),
                            speed: Some(-1),
                        },
                        Interface {
                            name: text("以太网"),
                            bytes_recv: u64::MAX,
                            bytes_sent: u64::MAX,
                            packets_recv: u64::MAX,
                            packets_sent: u64::MAX,
                            err_in: u64::MAX,
                            err_out: u64::MAX,
                            drop_in: None,
                            drop_out: None,
                            speed: None,
                        },
                    ]),
                },
                "02 04 65 74 68 30 fc 9a b0 51 64 fc 41 49 6f 00 fc e0 6c 01 00 fc 67 04 01 00 00 00 01 00 01 07 \
                 01 01 09 e4 bb a5 e5 a4 aa e7 bd 91 fd ff ff ff ff ff ff ff ff fd ff ff ff ff ff ff ff ff fd ff \
                 ff ff ff ff ff ff ff fd ff ff ff ff ff ff ff ff fd ff ff ff ff ff ff ff ff fd ff ff ff ff ff ff \
                 ff ff 00 00 00",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(6, &vectors());
    }
}
