//! A host's record: who it is, what it was called when, and what it said of itself last.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use vitals_wire::ids::{HostId, Secret};
use vitals_wire::limits::MAX_HOST_NAME_BYTES;
use vitals_wire::line::HostTags;
use vitals_wire::message::{Facts, Hello};

use super::labels::{self, GivenLabels, Label, Labels, Origin};
use crate::secret::Digest;

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
    /// Its secret; none of a host that was known before there were any, which joins again with a token.
    pub secret: Option<Digest>,
    /// The secret that it said it will use from its next connection on.
    pub next_secret: Option<Digest>,
    /// It is to make a new secret.
    pub rotate: bool,
    /// When it was shut out, in ms since 1970.
    pub revoked_ms: Option<i64>,
    /// What an administrator calls it, whatever it calls itself.
    pub given_name: Option<Box<str>>,
    /// Labels of its client's configuration.
    pub client_labels: Labels,
    /// Labels of the token with which it joined.
    pub token_labels: Labels,
    /// Labels of an administrator.
    pub given_labels: GivenLabels,
    /// The id that its client says: not its own where another machine took its place.
    pub client: HostId,
    /// Its names and labels over time, oldest first, never empty.
    pub(super) versions: Vec<Version>,
}

/// What a host was called during a span of time, which ends where the next one begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The first ms of the span; the first version holds since ever.
    pub from_ms: i64,
    /// Its name.
    pub name: Box<str>,
    /// Its labels in force, by key.
    pub labels: Vec<Label>,
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
    pub fn new(from_ms: i64, name: Box<str>, labels: Vec<Label>) -> Self {
        let tags = HostTags::new(&name, labels.iter().map(|label| (&*label.key, &*label.value)));
        Self { from_ms, name, labels, tags: Arc::new(tags) }
    }
}

/// Whose secret a client shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The host's own.
    Present,
    /// The one that the host said it will use next.
    Next,
    /// Another one.
    Wrong,
    /// The host has none yet.
    None,
}

impl Host {
    /// A host that comes for the first time. Its name and labels are [settled](Self::settle) then.
    pub(super) fn newcomer(hello: &Hello, now_ms: i64, name: Box<str>) -> Self {
        Self {
            id: hello.host,
            first_seen_ms: now_ms,
            told_name: (&*hello.name).into(),
            client_version: (&*hello.client_version).into(),
            interval_ms: hello.interval_ms,
            facts: FactsRecord::default(),
            secret: None,
            next_secret: None,
            rotate: false,
            revoked_ms: None,
            given_name: None,
            client_labels: labels_of(hello),
            token_labels: Labels::new(),
            given_labels: GivenLabels::new(),
            client: hello.host,
            versions: vec![Version::new(i64::MIN, name, Vec::new())],
        }
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
        let trusted = labels.iter().find(|label| *label.key == *key && label.origin != Origin::Client);
        trusted.map(|label| &*label.value)
    }

    /// The version that new samples get.
    pub fn newest(&self) -> &Version {
        // Never empty: see `newcomer` and `Db::hosts`.
        &self.versions[self.versions.len() - 1]
    }

    /// Whose secret this is, in a time that does not tell how much of it is right.
    pub fn identity_of(&self, secret: &Secret) -> Identity {
        let shown = Digest::of(&secret.0);
        let is = |own: Option<Digest>| own.is_some_and(|own| own.0.ct_eq(&shown.0).into());
        match (is(self.secret), is(self.next_secret)) {
            (true, _) => Identity::Present,
            (false, true) => Identity::Next,
            (false, false) if self.secret.is_none() => Identity::None,
            (false, false) => Identity::Wrong,
        }
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
        let are_same = |labels: &Labels| {
            let is_there = |key: &str, value: &str| labels.get(key).is_some_and(|own| **own == *value);
            let all_are = hello.labels.iter().all(|label| is_there(&label.key, &label.value));
            // Without making a map where that can be: this is asked at each connection.
            (all_are && labels.len() == hello.labels.len()) || *labels == labels_of(hello)
        };
        *self.told_name == *hello.name && are_same(&self.client_labels)
    }

    /// Takes in what it says of itself.
    pub(super) fn told(&mut self, hello: &Hello) {
        self.told_name = (&*hello.name).into();
        self.client_version = (&*hello.client_version).into();
        self.interval_ms = hello.interval_ms;
        self.facts = FactsRecord::from(&hello.facts);
        self.client_labels = labels_of(hello);
    }

    /// Whether its newest version is what an administrator, a token and its client want.
    pub(super) fn is_settled(&self) -> bool {
        let is_called_so = self.given_name.as_deref().is_none_or(|given| given == self.name());
        is_called_so && self.labels_wanted() == self.newest().labels
    }

    fn labels_wanted(&self) -> Vec<Label> {
        labels::in_force(&self.client_labels, &self.token_labels, &self.given_labels)
    }

    /// Begins a version with this name and the labels that are wanted, where they are others than now; its span begins
    /// after the newest sample. False where it has had so many that it keeps what it has.
    pub(super) fn settle(&mut self, name: Box<str>, now_ms: i64, newest_ms: Option<i64>) -> bool {
        let labels = self.labels_wanted();
        if *name == *self.name() && labels == self.newest().labels {
            return true;
        }
        if self.versions.len() >= MAX_VERSIONS {
            return false;
        }
        let after_newest = newest_ms.map_or(i64::MIN, |newest| newest.saturating_add(1));
        let from_ms = now_ms.max(after_newest).max(self.newest().from_ms.saturating_add(1));
        self.versions.push(Version::new(from_ms, name, labels));
        true
    }

    /// The first version of one that is new: nothing is written with it yet.
    pub(super) fn settle_first(&mut self) {
        let (name, labels) = (self.newest().name.clone(), self.labels_wanted());
        self.versions = vec![Version::new(i64::MIN, name, labels)];
    }
}

fn labels_of(hello: &Hello) -> Labels {
    // Of two with one key the first by value: as good as any, and always the same.
    let mut pairs: Vec<_> = hello.labels.iter().collect();
    pairs.sort_by(|one, other| other.cmp(one));
    pairs.into_iter().map(|label| ((&*label.key).into(), (&*label.value).into())).collect()
}

/// `wanted`, or where that is taken `wanted-2`, or the next that is free: a name is never inherited.
pub(super) fn free_name(wanted: &str, is_free: impl Fn(&str) -> bool) -> Box<str> {
    // A name that reads like an id would be taken for that host wherever a host is named by either.
    if is_free(wanted) && wanted.parse::<HostId>().is_err() {
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
