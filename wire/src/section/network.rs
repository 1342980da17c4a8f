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
