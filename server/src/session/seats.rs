//! Who is connected: one seat a host, and what a session is told from outside.

use vitals_wire::bounded::List;
use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_PINS;
use vitals_wire::message::Refused;

/// What a session is told from outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// End the connection with these words.
    Close(Refused),
    /// Tell the client these keys.
    Pins(List<[u8; 32], MAX_PINS>),
}

/// The seats of all hosts.
#[derive(Debug, Default)]
pub struct Seats {}

impl Seats {
    /// Tells the session of a host. False where there is none.
    pub fn order(&self, _host: HostId, _order: Order) -> bool {
        false
    }

    /// Tells all sessions; gives how many there are.
    pub fn order_all(&self, _order: &Order) -> usize {
        0
    }
}
