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
    /// Two clients use its identity at the same time.
    Cloned,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Bye, Self::Cloned];

    /// The kind of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The word used as a tag and in logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Bye => "bye",
            Self::Cloned => "cloned",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_sections, golden, list, text};
    use crate::section::Section;

    pub(crate) fn vectors() -> Vec<Golden<Section>> {
        vec![
            golden("events_none", Events::default(), "00"),
            golden(
                "events_three",
                Events {
                    events: list(vec![
                        Event {
                            host: HostId([1; 16]),
                            name: text("web-1"),
                            kind: EventKind::Up,
                            detail: text(""),
                        },
                        Event {
                            host: HostId([0xff; 16]),
                            name: text("数据库"),
                            kind: EventKind::Down,
                            detail: text("silent for 15 s"),
                        },
                        Event {
                            host: HostId([0; 16]),
                            name: text(""),
                            kind: EventKind::Bye,
                            detail: text("\"reboot\""),
                        },
                    ]),
                },
                "03 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 05 77 65 62 2d 31 00 00 ff ff ff ff ff ff ff \
                 ff ff ff ff ff ff ff ff ff 09 e6 95 b0 e6 8d ae e5 ba 93 01 0f 73 69 6c 65 6e 74 20 66 6f 72 20 \
                 31 35 20 73 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 02 08 22 72 65 62 6f 6f 74 22",
            ),
            golden(
                "events_cloned",
                Events {
                    events: list(vec![Event {
                        host: HostId([2; 16]),
                        name: text("a"),
                        kind: EventKind::Cloned,
                        detail: text("192.0.2.1:9, 192.0.2.2:9"),
                    }]),
                },
                "01 02 02 02 02 02 02 02 02 02 02 02 02 02 02 02 02 01 61 03 18 31 39 32 2e 30 2e 32 2e 31 3a 39 2c 20 \
                 31 39 32 2e 30 2e 32 2e 32 3a 39",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_sections(101, &vectors());
    }
}
