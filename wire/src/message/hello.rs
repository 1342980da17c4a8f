use serde::{Deserialize, Serialize};

use crate::bounded::{List, Text};
use crate::ids::{HostId, RunId, Secret};
use crate::limits::{
    MAX_FACT_BYTES, MAX_HOST_NAME_BYTES, MAX_LABEL_KEY_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS,
    MAX_TOKEN_BYTES, MAX_VERSION_BYTES,
};

/// Who I am. The first message of every connection; its form never changes within version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that the client speaks.
    pub protocol: u16,
    /// The client's own version.
    pub client_version: Text<MAX_VERSION_BYTES>,
    /// The host.
    pub host: HostId,
    /// This run of the client.
    pub run: RunId,
    /// The host's secret.
    pub secret: Secret,
    /// The secret part of a join token, by a host that is not known yet.
    pub token: Option<Text<MAX_TOKEN_BYTES>>,
    /// What the host calls itself; the server decides what it is called.
    pub name: Text<MAX_HOST_NAME_BYTES>,
    /// The labels of the client's configuration.
    pub labels: List<Label, MAX_LABELS>,
    /// What the host is.
    pub facts: Facts,
    /// Time between two stored samples in ms.
    pub interval_ms: u32,
    /// The shortest time between two live readings, in ms, that the client lets itself be asked for.
    pub shortest_interval_ms: u32,
}

/// A label, such as `env` = `prod`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    /// Its key.
    pub key: Text<MAX_LABEL_KEY_BYTES>,
    /// Its value.
    pub value: Text<MAX_LABEL_VALUE_BYTES>,
}

/// What rarely changes about a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The operating system with its version, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: Option<Text<MAX_FACT_BYTES>>,
    /// The kernel's version.
    pub kernel: Option<Text<MAX_FACT_BYTES>>,
    /// The architecture, such as `x86_64`.
    pub architecture: Option<Text<MAX_FACT_BYTES>>,
    /// The CPU's model.
    pub cpu_model: Option<Text<MAX_FACT_BYTES>>,
    /// CPUs that can be scheduled on.
    pub cpus: Option<u32>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// When the system started, in seconds since 1970.
    pub boot_time: Option<i64>,
}
