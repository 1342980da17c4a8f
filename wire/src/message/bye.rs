use serde::{Deserialize, Serialize};

/// I am going: until I am back the host is off or asleep, not down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Why.
    pub reason: ByeReason,
}

impl ByeReason {
    /// The reason of this word; `Restart`, the mildest, for a word that nobody knows.
    pub fn named(word: &str) -> Self {
        Self::ALL.iter().copied().find(|reason| reason.word() == word).unwrap_or(Self::Restart)
    }
}

super::codes! {
    /// Why a client goes.
    ByeReason {
        /// The system shuts down.
        1 Shutdown "shutdown",
        /// The system starts anew.
        2 Reboot "reboot",
        /// The system goes to sleep.
        3 Suspend "suspend",
        /// The client alone starts anew or was stopped.
        4 Restart "restart",
        /// The client is replaced by another version.
        5 Upgrade "upgrade",
        /// The client is removed from the host.
        6 Uninstall "uninstall",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden};
    use crate::message::ClientMessage;

    pub(crate) fn vectors() -> Vec<Golden<ClientMessage>> {
        vec![
            golden("bye_shutdown", Bye { reason: ByeReason::Shutdown }, "05 01"),
            golden("bye_uninstall", Bye { reason: ByeReason::Uninstall }, "05 06"),
            golden("bye_newer_reason", Bye { reason: ByeReason::Other(u16::MAX) }, "05 fb ff ff"),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
