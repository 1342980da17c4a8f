use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded::{List, Text};
use crate::ids::{HostId, RunId, Secret};
use crate::limits::{
    MAX_FACT_BYTES, MAX_HOST_NAME_BYTES, MAX_LABEL_KEY_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS,
    MAX_TOKEN_BYTES, MAX_VERSION_BYTES,
};

/// Who I am. The first message of every connection; its form never changes within version 1.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The host's clock in ms since 1970, from which the server learns its skew.
    pub clock_ms: i64,
}

impl fmt::Debug for Hello {
    /// Shows that there is a token, and not which.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("protocol", &self.protocol)
            .field("client_version", &self.client_version)
            .field("host", &self.host)
            .field("run", &self.run)
            .field("secret", &self.secret)
            .field("token", &self.token.as_ref().map(|_| format_args!("…")))
            .field("name", &self.name)
            .field("labels", &self.labels)
            .field("facts", &self.facts)
            .field("interval_ms", &self.interval_ms)
            .field("shortest_interval_ms", &self.shortest_interval_ms)
            .field("clock_ms", &self.clock_ms)
            .finish()
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::golden::{Golden, check_messages, golden, list, text};
    use crate::message::ClientMessage;

    pub(crate) fn vectors() -> Vec<Golden<ClientMessage>> {
        vec![
            golden(
                "hello_bare",
                Hello {
                    protocol: 1,
                    client_version: text(""),
                    host: HostId([1; 16]),
                    run: RunId([2; 16]),
                    secret: Secret([3; 32]),
                    token: None,
                    name: text("x"),
                    labels: list(vec![]),
                    facts: Facts::default(),
                    interval_ms: 5_000,
                    shortest_interval_ms: 1_000,
                    clock_ms: 0,
                },
                "01 01 00 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 01 02 02 02 02 02 02 02 02 02 02 02 02 02 \
                 02 02 02 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 03 \
                 03 03 03 00 01 78 00 00 00 00 00 00 00 00 fb 88 13 fb e8 03 00",
            ),
            golden(
                "hello_full",
                Hello {
                    protocol: u16::MAX,
                    client_version: text("0.1.0"),
                    host: HostId([0xfb; 16]),
                    run: RunId([0xff; 16]),
                    secret: Secret([0xfe; 32]),
                    token: Some(text("join-me")),
                    name: text("web 1, \"数据库\"=x"),
                    labels: list(vec![
                        Label { key: text("env"), value: text("prod") },
                        Label { key: text("rack"), value: text("Süd 3") },
                    ]),
                    facts: Facts {
                        os: Some(text("Debian GNU/Linux 12 (bookworm)")),
                        kernel: Some(text("6.1.0")),
                        architecture: Some(text("x86_64")),
                        cpu_model: Some(text("")),
                        cpus: Some(u32::MAX),
                        memory: Some(u64::MAX),
                        boot_time: Some(-1),
                    },
                    interval_ms: u32::MAX,
                    shortest_interval_ms: 250,
                    clock_ms: -1,
                },
                "01 fb ff ff 05 30 2e 31 2e 30 fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb ff ff ff ff ff ff \
                 ff ff ff ff ff ff ff ff ff ff fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe fe \
                 fe fe fe fe fe fe fe fe fe fe 01 07 6a 6f 69 6e 2d 6d 65 14 77 65 62 20 31 2c 20 22 e6 95 b0 e6 \
                 8d ae e5 ba 93 22 3d 78 02 03 65 6e 76 04 70 72 6f 64 04 72 61 63 6b 06 53 c3 bc 64 20 33 01 1e \
                 44 65 62 69 61 6e 20 47 4e 55 2f 4c 69 6e 75 78 20 31 32 20 28 62 6f 6f 6b 77 6f 72 6d 29 01 05 \
                 36 2e 31 2e 30 01 06 78 38 36 5f 36 34 01 00 01 fc ff ff ff ff 01 fd ff ff ff ff ff ff ff ff 01 \
                 01 fc ff ff ff ff fa 01",
            ),
        ]
    }

    #[test]
    fn its_bytes_are_the_golden_ones() {
        check_messages(&vectors());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_shows_neither_its_secret_nor_its_token() {
        let hello = Hello {
            protocol: 1,
            client_version: Text::cut("1"),
            host: HostId([1; 16]),
            run: RunId([2; 16]),
            secret: Secret([7; 32]),
            token: Some(Text::cut("hush")),
            name: Text::cut("web"),
            labels: List::empty(),
            facts: Facts::default(),
            interval_ms: 5_000,
            shortest_interval_ms: 1_000,
            clock_ms: 0,
        };
        let shown = format!("{hello:?}");
        assert!(!shown.contains("hush") && !shown.contains("7, 7"), "{shown}");
        assert!(shown.contains("web") && shown.contains("token: Some(…)"), "{shown}");
    }
}
