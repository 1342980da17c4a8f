use serde::{Deserialize, Serialize};

/// I am going: until I am back the host is off or asleep, not down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Why.
    pub reason: ByeReason,
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
