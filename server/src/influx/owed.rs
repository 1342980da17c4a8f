//! What a target is owed: spans of sample time that it did not get from the journal, and gets from history. Plain logic
//! without I/O; [`super::book`] keeps it on disk, `filler` reads history for it.
//!
//! A span that concerns all hosts comes from live records, whose samples were taken when they came. Backlog, and hosts
//! whose clocks are off, have spans of their own. Spans that overlap, or lie nearer to each other than [`TOUCH_MS`], are
//! one. Their number is bounded; beyond it they are widened, never forgotten: what is too much is written twice, which
//! is harmless.
//!
//! Filling goes oldest first, in slices that end at full hours (history's own unit), through the hosts in the order of
//! their ids. How far the slice has come is part of the state, so that a fill which is interrupted goes on near where
//! it was. Whatever is added begins the slice anew, since what is added may lie in the part that is done.

use std::collections::BTreeMap;

use vitals_wire::ids::HostId;
use vitals_wire::log::Position;
use vitals_wire::record::Record;

/// Spans that concern all hosts.
pub const MAX_SPANS: usize = 256;
/// Spans of one host's own.
pub const MAX_HOST_SPANS: usize = 16;
/// Hosts with spans of their own; those of further ones concern all hosts from then on.
pub const MAX_HOSTS: usize = 1_024;
/// Spans with less time between them are one.
pub const TOUCH_MS: i64 = 60_000;
/// A live sample was taken about when it came if the two times lie no further apart.
pub const NEAR_MS: i64 = 60_000;
/// A slice ends with an hour.
const SLICE_MS: i64 = 3_600_000;

/// A stretch of sample time in ms since 1970, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first ms.
    pub from_ms: i64,
    /// The first that is not part of it any more.
    pub to_ms: i64,
}

/// Spans in ascending order, each further than [`TOUCH_MS`] from the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// All of them.
    pub fn as_slice(&self) -> &[Span] {
        &self.0
    }

    /// Adds one, and widens the nearest neighbours while there are more than `most`. An empty one adds nothing.
    pub fn add(&mut self, span: Span, most: usize) {
        if span.from_ms >= span.to_ms {
            return;
        }
        let first = self.0.partition_point(|old| old.to_ms.saturating_add(TOUCH_MS) < span.from_ms);
        let after = self.0.partition_point(|old| old.from_ms <= span.to_ms.saturating_add(TOUCH_MS));
        // Those between touch it. There are none where it lies alone: then `first` and `after` are the same.
        let touched = self.0.get(first..after).unwrap_or_default();
        let from_ms = touched.first().map_or(span.from_ms, |old| old.from_ms.min(span.from_ms));
        let to_ms = touched.last().map_or(span.to_ms, |old| old.to_ms.max(span.to_ms));
        self.0.splice(first..after.max(first), [Span { from_ms, to_ms }]);
        while self.0.len() > most.max(1) {
            let gaps = self.0.windows(2).enumerate();
            let nearest = gaps.min_by_key(|(_, pair)| pair[1].from_ms.saturating_sub(pair[0].to_ms));
            let Some((at, _)) = nearest else { break };
            self.0[at].to_ms = self.0[at + 1].to_ms;
            self.0.remove(at + 1);
        }
    }

    /// Takes away all that lies before `ms`.
    fn cut_before(&mut self, ms: i64) {
        self.0.retain(|span| span.to_ms > ms);
        if let Some(first) = self.0.first_mut() {
            first.from_ms = first.from_ms.max(ms);
        }
    }

    fn first(&self) -> Option<Span> {
        self.0.first().copied()
    }

    fn total_ms(&self) -> u64 {
        self.0.iter().fold(0, |sum, span| sum.saturating_add(span.from_ms.abs_diff(span.to_ms)))
    }
}

/// Sample times, of all hosts or of some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretch {
    all: Spans,
    hosts: BTreeMap<HostId, Spans>,
}

impl Stretch {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it is nothing.
    pub fn is_empty(&self) -> bool {
        self.all.0.is_empty() && self.hosts.is_empty()
    }

    /// Adds a span of all hosts.
    pub fn add_all(&mut self, span: Span) {
        self.all.add(span, MAX_SPANS);
    }

    /// Adds a span of one host.
    pub fn add_host(&mut self, host: HostId, span: Span) {
        if span.from_ms >= span.to_ms {
            return;
        }
        if self.hosts.len() >= MAX_HOSTS && !self.hosts.contains_key(&host) {
            return self.add_all(span);
        }
        self.hosts.entry(host).or_default().add(span, MAX_HOST_SPANS);
    }

    /// Adds the times of a record of the journal.
    pub fn add_record(&mut self, record: &Record) {
        let is_near = |time_ms: i64| time_ms.abs_diff(record.received_ms) <= NEAR_MS.unsigned_abs();
        for sample in &record.samples {
            let span = Span { from_ms: sample.time_ms, to_ms: sample.time_ms.saturating_add(1) };
            if !record.backlog && is_near(sample.time_ms) {
                self.add_all(span);
            } else {
                self.add_host(record.host, span);
            }
        }
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        other.all.0.iter().for_each(|span| self.add_all(*span));
        for (host, spans) in &other.hosts {
            spans.0.iter().for_each(|span| self.add_host(*host, *span));
        }
    }

    /// Spans of all hosts.
    pub fn all(&self) -> &[Span] {
        self.all.as_slice()
    }

    /// Spans of hosts of their own.
    pub fn hosts(&self) -> impl Iterator<Item = (HostId, &[Span])> {
        self.hosts.iter().map(|(host, spans)| (*host, spans.as_slice()))
    }

    /// How many spans.
    pub fn count(&self) -> usize {
        self.all.0.len() + self.hosts.values().map(|spans| spans.0.len()).sum::<usize>()
    }

    /// Their length in ms; a span of all hosts counts once.
    pub fn total_ms(&self) -> u64 {
        self.hosts.values().fold(self.all.total_ms(), |sum, spans| sum.saturating_add(spans.total_ms()))
    }
}

/// How far the oldest slice that concerns all hosts has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Where it ends; it begins where the oldest span does.
    pub to_ms: i64,
    /// The host that is next. Those with smaller ids are done.
    pub host: HostId,
    /// Where that host goes on.
    pub host_from_ms: i64,
}

/// A host's history from `from_ms` to before `to_ms`, to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Whose.
    pub host: HostId,
    /// The first ms.
    pub from_ms: i64,
    /// The first that is not wanted any more.
    pub to_ms: i64,
    /// Whether it is a part of what concerns all hosts.
    pub(super) of_all: bool,
}

/// All that one target is owed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owed {
    pub(super) stretch: Stretch,
    pub(super) slice: Option<Slice>,
    /// History must have come so far in the journal before it can be asked.
    pub(super) needs: Position,
    /// Raised when something is added: what was read of history before does not settle it.
    pub(super) generation: u64,
}

impl Owed {
    /// Owes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.stretch.is_empty()
    }

    /// What is owed.
    pub fn stretch(&self) -> &Stretch {
        &self.stretch
    }

    /// Where history must have come to in the journal before it is asked.
    pub fn needs(&self) -> Position {
        self.needs
    }

    /// How often something was added since it was read from disk: a state that was made before the last time is stale.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A journal that begins anew never comes to where the one before was.
    pub fn limit_needs(&mut self, end: Position) {
        self.needs = self.needs.min(end);
    }

    /// Owes a stretch, which history has once it has come to `needs` in the journal.
    pub fn owe(&mut self, stretch: &Stretch, needs: Position) {
        if stretch.is_empty() {
            return;
        }
        self.stretch.add(stretch);
        self.needs = self.needs.max(needs);
        self.slice = None;
        self.generation += 1;
    }

    /// What is to be written next; `hosts` are all that history knows, ascending.
    pub fn next(&mut self, hosts: &[HostId]) -> Option<Chunk> {
        loop {
            let all = self.stretch.all.first();
            let own = self.stretch.hosts.iter().filter_map(|(host, spans)| Some((*host, spans.first()?)));
            let own = own.min_by_key(|(_, span)| span.from_ms);
            if let Some((host, span)) = own
                && all.is_none_or(|all| span.from_ms < all.from_ms)
            {
                let to_ms = span.to_ms.min(slice_end(span.from_ms));
                return Some(Chunk { host, from_ms: span.from_ms, to_ms, of_all: false });
            }
            let span = all?;
            let slice = *self.slice.get_or_insert(Slice {
                to_ms: span.to_ms.min(slice_end(span.from_ms)),
                host: HostId::default(),
                host_from_ms: span.from_ms,
            });
            if let Some(host) = hosts.get(hosts.partition_point(|host| *host < slice.host)) {
                let from_ms = if *host == slice.host { slice.host_from_ms } else { span.from_ms };
                return Some(Chunk { host: *host, from_ms, to_ms: slice.to_ms, of_all: true });
            }
            self.slice_is_done(slice.to_ms);
        }
    }

    /// Takes down that of the chunk that came from `next` last all before `until_ms` is written, or its end.
    pub fn written(&mut self, chunk: &Chunk, until_ms: Option<i64>) {
        // History that does not move on would be asked for ever.
        let until_ms = until_ms.filter(|until_ms| *until_ms < chunk.to_ms && *until_ms > chunk.from_ms);
        if !chunk.of_all {
            if let Some(spans) = self.stretch.hosts.get_mut(&chunk.host) {
                spans.cut_before(until_ms.unwrap_or(chunk.to_ms));
                if spans.0.is_empty() {
                    self.stretch.hosts.remove(&chunk.host);
                }
            }
            return;
        }
        let (Some(slice), Some(span)) = (&mut self.slice, self.stretch.all.first()) else { return };
        match until_ms {
            Some(until_ms) => {
                slice.host = chunk.host;
                slice.host_from_ms = until_ms;
            }
            None => match successor(chunk.host) {
                Some(host) => {
                    slice.host = host;
                    slice.host_from_ms = span.from_ms;
                }
                None => {
                    let to_ms = slice.to_ms;
                    self.slice_is_done(to_ms);
                }
            },
        }
    }

    fn slice_is_done(&mut self, to_ms: i64) {
        self.stretch.all.cut_before(to_ms);
        self.slice = None;
    }
}

/// The end of the hour that holds this time.
fn slice_end(ms: i64) -> i64 {
    ms.div_euclid(SLICE_MS).saturating_add(1).saturating_mul(SLICE_MS)
}

fn successor(host: HostId) -> Option<HostId> {
    u128::from_be_bytes(host.0).checked_add(1).map(|next| HostId(next.to_be_bytes()))
}

#[cfg(test)]
#[path = "owed_tests.rs"]
mod tests;
