use serde::{Deserialize, Serialize};

use crate::bounded::Text;
use crate::limits::MAX_REFUSED_TEXT_BYTES;

/// No. The connection ends after it; its form never changes within version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for programs.
    pub code: Refusal,
    /// Why, for people.
    pub text: Text<MAX_REFUSED_TEXT_BYTES>,
    /// Whether trying again as usual makes sense; if not, the client waits ten minutes.
    pub retry: bool,
}

super::codes! {
    /// Why a connection is refused.
    Refusal {
        /// A frame or message that cannot be read.
        1 Malformed "malformed",
        /// A length over its cap.
        2 TooLarge "too_large",
        /// A version of the protocol that the server does not speak.
        3 Version "version",
        /// A message at the wrong time, such as samples before a `Hello`.
        4 Unexpected "unexpected",
        /// No `Hello`, or no message at all, within the deadline.
        5 Timeout "timeout",
        /// Too many connections, in all or from one address.
        6 TooManyConnections "too_many_connections",
        /// A name or label that cannot be taken.
        7 BadName "bad_name",
        /// A secret that is not that host's.
        8 Credential "credential",
        /// The host was revoked.
        9 Revoked "revoked",
        /// Another run of a client holds this host's place.
        10 IdentityInUse "identity_in_use",
        /// The server is going down.
        11 ShuttingDown "shutting_down",
        /// The server cannot do it now.
        12 Unavailable "unavailable",
        /// A host that is not known, and has no token to join with.
        13 NotEnrolled "not_enrolled",
        /// A token that the server does not know.
        14 TokenUnknown "token_unknown",
        /// A token whose time is over.
        15 TokenExpired "token_expired",
        /// A token that has let in as many hosts as it may.
        16 TokenUsedUp "token_used_up",
        /// A token that was revoked.
        17 TokenRevoked "token_revoked",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, text};
    use crate::message::ServerMessage;

    pub(crate) fn vectors() -> Vec<Golden<ServerMessage>> {
        vec![
            golden(
                "refused_empty_text",
                Refused { code: Refusal::Malformed, text: text(""), retry: false },
                "43 01 00 00",
            ),
            golden(
                "refused_with_text",
                Refused { code: Refusal::ShuttingDown, text: text("gleich zurück"), retry: true },
                "43 0b 0e 67 6c 65 69 63 68 20 7a 75 72 c3 bc 63 6b 01",
            ),
            golden(
                "refused_newer_code",
                Refused { code: Refusal::Other(251), text: text("?"), retry: true },
                "43 fb fb 00 01 3f 01",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
