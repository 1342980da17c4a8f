use serde::{Deserialize, Serialize};

use crate::ids::Secret;

/// The secret that the client uses from its next connection on; the old one holds until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSecret {
    /// The new secret.
    pub secret: Secret,
}
