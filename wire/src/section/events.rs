use serde::{Deserialize, Serialize};

use crate::bounded::{List, Text};
use crate::ids::HostId;
use crate::limits::{MAX_EVENTS, MAX_FACT_BYTES, MAX_HOST_NAME_BYTES};

/// What happened to hosts, as the server saw it. Travels only in samples of the server's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Events {
    /// In the order in which they happened.
    pub events: List<Event, MAX_EVENTS>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// To whom.
    pub host: HostId,
    /// What it was called then.
    pub name: Text<MAX_HOST_NAME_BYTES>,
    /// What happened.
    pub kind: EventKind,
    /// For people: why, or for how long.
    pub detail: Text<MAX_FACT_BYTES>,
}

/// What can happen to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// It speaks, for the first time or again.
    Up,
    /// It has been silent for longer than its down limit.
    Down,
    /// It said good-bye.
    Bye,
}

impl EventKind {
    /// The word used as a tag and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Bye => "bye",
        }
    }
}
