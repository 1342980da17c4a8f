//! Holds what was taken against what is stored and what InfluxDB has.
//!
//! taken = stored ∪ dropped ∪ lost at a kill, acknowledged ⊆ stored, and stored = in InfluxDB, field by field; nothing
//! twice, nothing altered, nothing that was never taken. One host after another, so that little is held at once.

use std::collections::{BTreeMap, BTreeSet};

use super::book::{End, Entries};
use super::fields::{Field, Names, of_sample};
use super::record::Taken;
use super::schedule::{Disk, Target};
use vitals_client::queue::content_hash;
use vitals_client::simulate::host::Host;
use vitals_client::simulate::script::Given;
use vitals_wire::sample::encode_sample;

/// Differences that are kept to be shown.
const MOST_SHOWN: usize = 25;
/// Samples of a host that a kill may cost a client that spools.
pub const LOST_AT_A_KILL: usize = 2;
/// A spool that could not be written this long before an end may have cost what was taken since.
const SPOOL_SLACK_MS: i64 = 5_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Samples that were taken.
    pub taken: u64,
    /// Samples that were acknowledged.
    pub settled: u64,
    /// Samples dropped by the clients.
    pub dropped: u64,
    /// Samples of simulated hosts in the store.
    pub stored: u64,
    /// The same in InfluxDB.
    pub in_influx: u64,
    /// Fields compared in the store.
    pub fields: u64,
    /// Samples stored though a client gave them up.
    pub dropped_and_stored: u64,
    /// Samples lost when a client was killed, within what is allowed.
    pub lost_at_kills: u64,
    /// Samples lost at an end of a client whose spool could not be written.
    pub lost_without_spool: u64,
    /// Samples of the real clients: stored, and in InfluxDB.
    pub real: (u64, u64),
    /// Samples that the real clients sent and lost at kills.
    pub real_lost: u64,
    /// Acknowledged and not there, or lost beyond what a kill may cost.
    pub lost: u64,
    /// There twice.
    pub doubled: u64,
    /// There with other figures, or never taken.
    pub altered: u64,
    /// The first of them.
    pub shown: Vec<String>,
}

impl Verdict {
    /// Whether nothing was lost, doubled or altered.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.altered == 0
    }

    fn show(&mut self, what: String) {
        if self.shown.len() < MOST_SHOWN {
            self.shown.push(what);
        }
    }

    fn lost(&mut self, what: String) {
        self.lost += 1;
        self.show(format!("lost: {what}"));
    }

    fn altered(&mut self, what: String) {
        self.altered += 1;
        self.show(format!("altered: {what}"));
    }
}

/// Fields of one host, sorted, each once, by their time.
pub struct Found {
    fields: Vec<Field>,
    /// The times of its samples in ns.
    pub times: BTreeSet<i64>,
}

impl Found {
    /// Counts what is there twice.
    pub fn new(mut fields: Vec<Field>, whose: &str, verdict: &mut Verdict, names: &Names) -> Self {
        fields.sort_unstable();
        let mut doubled = Vec::new();
        fields.dedup_by(|next, kept| {
            let same = (next.ns, next.series) == (kept.ns, kept.series);
            if same {
                doubled.push(*next);
            }
            same
        });
        for field in doubled {
            verdict.doubled += 1;
            verdict.show(format!("doubled: {whose} {} ns {}", field.ns, names.name(field.series)));
        }
        let times = fields.iter().map(|field| field.ns).collect();
        Self { fields, times }
    }

    /// The fields of one time.
    pub fn at(&self, ns: i64) -> &[Field] {
        let from = self.fields.partition_point(|field| field.ns < ns);
        let to = self.fields.partition_point(|field| field.ns <= ns);
        self.fields.get(from..to).unwrap_or_default()
    }
}

/// The first difference of two sorted lists of fields, in words.
fn difference(wanted: &[Field], found: &[Field], names: &Names) -> Option<String> {
    if wanted == found {
        return None;
    }
    let say = |field: Option<&Field>| match field {
        Some(field) => format!("{} = {}", names.name(field.series), field.figure),
        None => "nothing".to_owned(),
    };
    let missing = wanted.iter().find(|field| found.binary_search(field).is_err());
    let strange = found.iter().find(|field| wanted.binary_search(field).is_err());
    Some(format!("wanted {}, found {}", say(missing), say(strange)))
}

/// What stands in the store and in InfluxDB must be the same.
fn same_in_both(whose: &str, store: &Found, influx: &Found, names: &Names, verdict: &mut Verdict) {
    for ns in &store.times {
        if !influx.times.contains(ns) {
            verdict.lost(format!("{whose} {} ms: in the store, not in InfluxDB", ns / 1_000_000));
        } else if let Some(how) = difference(store.at(*ns), influx.at(*ns), names) {
            verdict.altered(format!("{whose} {} ms: store against InfluxDB: {how}", ns / 1_000_000));
        }
    }
    for ns in influx.times.difference(&store.times) {
        verdict.lost(format!("{whose} {} ms: in InfluxDB, not in the store", ns / 1_000_000));
    }
}

/// Sorts losses by the end of the process that took the samples.
struct Losses<'a> {
    whose: &'a str,
    target: Target,
    entries: &'a Entries,
    has_spool: bool,
    /// By the end's number; `None` for the end of the whole run.
    by_end: BTreeMap<Option<usize>, Vec<i64>>,
}

impl Losses<'_> {
    fn add(&mut self, time_ms: i64) {
        let mut ends = self.entries.marks.iter().enumerate().filter(|(_, mark)| mark.target == self.target);
        let end = ends.find(|(_, mark)| mark.at_ms >= time_ms).map(|(number, _)| number);
        self.by_end.entry(end).or_default().push(time_ms);
    }

    /// Gives those lost at kills and those lost without a spool, and notes what must not be.
    fn settle(self, verdict: &mut Verdict) -> (u64, u64) {
        let (mut at_kills, mut without_spool) = (0, 0);
        for (end, times) in self.by_end {
            let mark = end.and_then(|number| self.entries.marks.get(number));
            let full = |time_ms: i64| {
                let until = mark.map_or(i64::MAX, |mark| mark.at_ms);
                self.entries.was_full(Disk::Clients, time_ms - SPOOL_SLACK_MS, until)
            };
            let allowed = match mark.map(|mark| mark.end) {
                // What a client without a spool holds is in its memory alone.
                Some(_) if !self.has_spool => usize::MAX,
                Some(End::Killed) => LOST_AT_A_KILL,
                _ => 0,
            };
            // The newest are those that a kill may cost.
            for (newer, time_ms) in times.iter().rev().enumerate() {
                if newer < allowed {
                    at_kills += 1;
                } else if self.has_spool && full(*time_ms) {
                    without_spool += 1;
                } else {
                    let at = match mark {
                        Some(mark) => format!("{:?} at {} ms", mark.end, mark.at_ms),
                        None => "the end of the run".to_owned(),
                    };
                    verdict.lost(format!(
                        "{} {time_ms} ms: taken, not stored, number {} of {} before {at}",
                        self.whose,
                        newer + 1,
                        times.len()
                    ));
                }
            }
        }
        (at_kills, without_spool)
    }
}

/// One simulated host: what its record says, what the store and InfluxDB hold.
pub struct Simulated<'a> {
    /// The host.
    pub host: &'a Host,
    /// What was taken of it.
    pub taken: &'a BTreeMap<i64, Taken>,
    /// In the store.
    pub store: &'a Found,
    /// In InfluxDB, where there is one.
    pub influx: &'a Found,
}

/// Judges one simulated host. `has_spool`: what it took is kept when its process is killed.
pub fn judge(
    of: &Simulated<'_>,
    entries: &Entries,
    has_spool: bool,
    names: &mut Names,
    verdict: &mut Verdict,
) {
    let whose = &*of.host.name;
    let mut losses = Losses { whose, target: Target::Simulate, entries, has_spool, by_end: BTreeMap::new() };
    verdict.stored += of.store.times.len() as u64;
    verdict.in_influx += of.influx.times.len() as u64;
    let mut wanted = Vec::new();
    for (time_ms, taken) in of.taken.iter().filter(|(_, taken)| taken.is_taken) {
        verdict.taken += 1;
        verdict.settled += u64::from(taken.is_settled);
        verdict.dropped += u64::from(taken.is_dropped);
        let ns = time_ms * 1_000_000;
        if !of.store.times.contains(&ns) {
            if taken.is_settled {
                verdict.lost(format!("{whose} {time_ms} ms: acknowledged, not stored"));
            } else if !taken.is_dropped {
                losses.add(*time_ms);
            }
            continue;
        }
        verdict.dropped_and_stored += u64::from(taken.is_dropped && !taken.is_settled);
        let sample = of.host.sample(*time_ms, &Given::default());
        let hash = encode_sample(&sample).map(|bytes| content_hash(&bytes)).unwrap_or_default();
        if hash != taken.hash {
            verdict.altered(format!("{whose} {time_ms} ms: the record's hash is another than the sample's"));
        }
        wanted.clear();
        of_sample(names, &sample, &mut wanted);
        wanted.sort_unstable();
        verdict.fields += wanted.len() as u64;
        if let Some(how) = difference(&wanted, of.store.at(ns), names) {
            verdict.altered(format!("{whose} {time_ms} ms: taken against the store: {how}"));
        }
    }
    let is_known = |ns: &i64| of.taken.get(&(ns / 1_000_000)).is_some_and(|taken| taken.is_taken);
    for ns in of.store.times.iter().filter(|ns| !is_known(ns)) {
        verdict.altered(format!("{whose} {ns} ns: stored, never taken"));
    }
    let (at_kills, without_spool) = losses.settle(verdict);
    verdict.lost_at_kills += at_kills;
    verdict.lost_without_spool += without_spool;
    same_in_both(whose, of.store, of.influx, names, verdict);
}

/// Judges one real client by what it said it sent (`tee`), the store and InfluxDB.
pub fn judge_real(
    target: Target,
    tee: &Found,
    (store, influx): (&Found, &Found),
    (entries, has_spool): (&Entries, bool),
    names: &Names,
    verdict: &mut Verdict,
) {
    let whose = target.to_string();
    verdict.real.0 += store.times.len() as u64;
    verdict.real.1 += influx.times.len() as u64;
    let mut losses = Losses { whose: &whose, target, entries, has_spool, by_end: BTreeMap::new() };
    for ns in &tee.times {
        if !store.times.contains(ns) {
            losses.add(ns / 1_000_000);
            continue;
        }
        // What the client says of itself is added after the sample was shown.
        let found: Vec<Field> = store
            .at(*ns)
            .iter()
            .filter(|field| !names.is_of(field.series, "vitals_client"))
            .copied()
            .collect();
        let sent: Vec<Field> =
            tee.at(*ns).iter().filter(|field| !names.is_of(field.series, "vitals_client")).copied().collect();
        if let Some(how) = difference(&sent, &found, names) {
            verdict.altered(format!("{whose} {} ms: sent against the store: {how}", ns / 1_000_000));
        }
    }
    let (at_kills, without_spool) = losses.settle(verdict);
    verdict.real_lost += at_kills;
    verdict.lost_without_spool += without_spool;
    same_in_both(&whose, store, influx, names, verdict);
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
