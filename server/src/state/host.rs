//! A host's record: who it is, what it was called when, and what it said of itself last.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vitals_wire::ids::HostId;
use vitals_wire::limits::MAX_HOST_NAME_BYTES;
use vitals_wire::line::HostTags;
use vitals_wire::message::{Facts, Hello};

/// Names and labels that a host can have had.
const MAX_VERSIONS: usize = 256;
/// Seconds by which two readings of a time of start may differ.
const BOOT_TIME_WOBBLE: u64 = 5;

/// A host.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// When it was first seen, in ms since 1970.
    pub first_seen_ms: i64,
    /// What it called itself last; what it is called stands in its versions.
    pub told_name: Box<str>,
    /// The version of its client.
    pub client_version: Box<str>,
    /// Time between two stored samples in ms.
    pub interval_ms: u32,
    /// What it is.
    pub facts: FactsRecord,
    /// Its names and labels over time, oldest first, never empty.
    versions: Vec<Version>,
}

/// What a host was called during a span of time, which ends where the next one begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The first ms of the span; the first version holds since ever.
    pub from_ms: i64,
    /// Its name.
    pub name: Box<str>,
    /// Its labels, by key.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Both, as tags.
    pub tags: Arc<HostTags>,
}

/// What rarely changes about a host, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FactsRecord {
    /// The operating system with its version.
    pub os: Option<String>,
    /// The kernel's version.
    pub kernel: Option<String>,
    /// The architecture.
    pub architecture: Option<String>,
    /// The CPU's model.
    pub cpu_model: Option<String>,
    /// CPUs that can be scheduled on.
    pub cpus: Option<u32>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// When the system started, in seconds since 1970.
    pub boot_time: Option<i64>,
}

impl From<&Facts> for FactsRecord {
    fn from(facts: &Facts) -> Self {
        Self {
            os: facts.os.as_ref().map(ToString::to_string),
            kernel: facts.kernel.as_ref().map(ToString::to_string),
            architecture: facts.architecture.as_ref().map(ToString::to_string),
            cpu_model: facts.cpu_model.as_ref().map(ToString::to_string),
            cpus: facts.cpus,
            memory: facts.memory,
            boot_time: facts.boot_time,
        }
    }
}

impl FactsRecord {
    /// Whether the two say the same: a time of start may differ a little, as it follows from two clocks.
    fn is_like(&self, other: &Self) -> bool {
        let times_agree = match (self.boot_time, other.boot_time) {
            (Some(one), Some(other)) => one.abs_diff(other) <= BOOT_TIME_WOBBLE,
            (one, other) => one == other,
        };
        times_agree && Self { boot_time: None, ..self.clone() } == Self { boot_time: None, ..other.clone() }
    }
}

impl Version {
    /// A version with its tags made.
    pub fn new(from_ms: i64, name: Box<str>, mut labels: Vec<(Box<str>, Box<str>)>) -> Self {
        labels.sort();
        labels.dedup_by(|a, b| a.0 == b.0);
        let tags = HostTags::new(&name, labels.iter().map(|(key, value)| (&**key, &**value)));
        Self { from_ms, name, labels, tags: Arc::new(tags) }
    }
}

impl Host {
    /// A host as it was kept. `None` without any version.
    pub(super) fn kept(
        id: HostId,
        first_seen_ms: i64,
        told_name: Box<str>,
        client_version: Box<str>,
        interval_ms: u32,
        facts: FactsRecord,
        versions: Vec<Version>,
    ) -> Option<Self> {
        let host = Self { id, first_seen_ms, told_name, client_version, interval_ms, facts, versions };
        (!host.versions.is_empty()).then_some(host)
    }

    /// Its versions, oldest first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version that holds at `time_ms`.
    pub fn version_at(&self, time_ms: i64) -> &Version {
        let after = self.versions.partition_point(|version| version.from_ms <= time_ms);
        // There is always a first, and it holds since ever.
        &self.versions[after.saturating_sub(1)]
    }

    /// What it is called now.
    pub fn name(&self) -> &str {
        &self.newest().name
    }

    /// A label given by a token or an administrator, which a client cannot make up.
    pub fn trusted_label(&self, key: &str) -> Option<&str> {
        let labels = &self.newest().labels;
        labels.iter().find(|(own, _)| **own == *key).map(|(_, value)| &**value)
    }

    /// The version that new samples get.
    pub fn newest(&self) -> &Version {
        // Never empty: see `kept` and `told`.
        &self.versions[self.versions.len() - 1]
    }

    /// Whether `hello` says nothing new.
    pub(super) fn is_as_told(&self, hello: &Hello) -> bool {
        self.is_called_the_same(hello)
            && *self.client_version == *hello.client_version
            && self.interval_ms == hello.interval_ms
            && self.facts.is_like(&FactsRecord::from(&hello.facts))
    }

    /// Whether `hello` leaves name and labels as they are.
    pub(super) fn is_called_the_same(&self, hello: &Hello) -> bool {
        *self.told_name == *hello.name && self.newest().labels == labels_of(hello)
    }

    /// The record of `known`, or of a newcomer, after `hello`. A name that another host holds is never inherited: the
    /// host becomes `name-2`, or the next that is free.
    pub(super) fn told(
        known: Option<&Host>,
        hello: &Hello,
        now_ms: i64,
        newest_ms: Option<i64>,
        is_free: impl Fn(&str) -> bool,
    ) -> Self {
        let labels = labels_of(hello);
        let facts = FactsRecord::from(&hello.facts);
        let mut host = match known {
            None => Host {
                id: hello.host,
                first_seen_ms: now_ms,
                told_name: (&*hello.name).into(),
                client_version: (&*hello.client_version).into(),
                interval_ms: hello.interval_ms,
                facts,
                versions: vec![Version::new(i64::MIN, free_name(&hello.name, is_free), labels)],
            },
            Some(known) => {
                let name = if *known.told_name == *hello.name {
                    known.name().into()
                } else {
                    free_name(&hello.name, is_free)
                };
                let mut host = known.clone();
                let changes = *name != *host.name() || labels != host.newest().labels;
                if changes && host.versions.len() >= MAX_VERSIONS {
                    tracing::warn!(
                        host = host.name(),
                        "too many names and labels: it keeps those that it has"
                    );
                } else if changes {
                    let after_newest = newest_ms.map_or(i64::MIN, |newest| newest.saturating_add(1));
                    let from_ms = now_ms.max(after_newest).max(host.newest().from_ms.saturating_add(1));
                    host.versions.push(Version::new(from_ms, name, labels));
                }
                host.facts = facts;
                host
            }
        };
        host.told_name = (&*hello.name).into();
        host.client_version = (&*hello.client_version).into();
        host.interval_ms = hello.interval_ms;
        host
    }
}

fn labels_of(hello: &Hello) -> Vec<(Box<str>, Box<str>)> {
    let mut labels: Vec<_> =
        hello.labels.iter().map(|label| ((&*label.key).into(), (&*label.value).into())).collect();
    labels.sort();
    labels.dedup_by(|a: &mut (Box<str>, Box<str>), b| a.0 == b.0);
    labels
}

fn free_name(wanted: &str, is_free: impl Fn(&str) -> bool) -> Box<str> {
    if is_free(wanted) {
        return wanted.into();
    }
    let numbered = |number: u64| -> Box<str> {
        let suffix = format!("-{number}");
        // The longest names lose their end to the number.
        let mut end = wanted.len().min(MAX_HOST_NAME_BYTES - suffix.len());
        while !wanted.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{suffix}", &wanted[..end]).into()
    };
    // Endless, so something is found.
    (2..).map(numbered).find(|name| is_free(name)).unwrap_or_else(|| wanted.into())
}
