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
