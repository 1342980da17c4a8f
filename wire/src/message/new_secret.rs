use serde::{Deserialize, Serialize};

use crate::ids::Secret;

/// The secret that the client uses from its next connection on; the old one holds until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecret {
    /// The new secret.
    pub secret: Secret,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden};
    use crate::message::ClientMessage;

    pub(crate) fn vectors() -> Vec<Golden<ClientMessage>> {
        vec![
            golden(
                "new_secret_zeros",
                NewSecret { secret: Secret([0; 32]) },
                "03 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
                 00",
            ),
            golden(
                "new_secret_high_bytes",
                NewSecret { secret: Secret([0xfb; 32]) },
                "03 fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb \
                 fb",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}
