//! Nothing is in flight: everything has to be where it belongs, once, as it was taken, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use vitals_server::store::write_row;

use crate::history::History;
use crate::host::Host;
use crate::influxdb::{InfluxDb, is_refused, split};
use crate::oracle::{Fate, Figures, Key, Oracle};
use crate::samples::{lines, tags};

/// Holds what is stored against the accounts.
pub fn judge(oracle: &Oracle, hosts: &[Host], history: &History, influxdb: &InfluxDb) -> Result<(), String> {
    let stored = history.keys()?;
    samples(oracle, &stored)?;
    let mut expected = BTreeMap::new();
    for host in hosts {
        rows(oracle, host.place, history, &mut expected)?;
        oracle.counted(host.place, host.in_header())?;
    }
    points(oracle, expected, influxdb)?;
    let figures = oracle.figures();
    let Figures { taken, stored, waiting, dropped, lost, missing } = figures;
    if taken != stored + dropped + lost || waiting + missing > 0 {
        return Err(format!("the sums do not agree: {figures:?}"));
    }
    Ok(())
}

/// Each sample is where its client believes it to be.
fn samples(oracle: &Oracle, stored: &BTreeSet<Key>) -> Result<(), String> {
    for (key, fate) in oracle.fates() {
        let is_stored = stored.contains(&key);
        if fate == Fate::Waiting || fate == Fate::Settled && !is_stored {
            let place = if is_stored { "in" } else { "not in" };
            return Err(format!("{key:?} is {fate:?} and {place} history"));
        }
    }
    if let Some(key) = stored.iter().find(|key| oracle.sample(**key).is_none()) {
        return Err(format!("history shows {key:?}, which was never taken"));
    }
    match oracle.durable().find(|key| !stored.contains(key)) {
        Some(key) => Err(format!("{key:?} was committed and is not in history")),
        None => Ok(()),
    }
}

/// History shows a host's samples as they were taken. Adds the points that InfluxDB must have of them.
fn rows(
    oracle: &Oracle,
    host: usize,
    history: &History,
    expected: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    for row in history.rows(host)? {
        let Some(sample) = oracle.sample((host, row.time_ms)) else {
            return Err(format!("history shows {} of host {host}", row.time_ms));
        };
        let lines = lines(host, sample);
        let mut written = Vec::new();
        write_row(&mut written, &tags(host), &row);
        if lines.join("\n").as_bytes() != written.trim_ascii_end() {
            return Err(format!("history shows {} of host {host} altered", row.time_ms));
        }
        for line in lines.iter().filter(|line| !is_refused(line)) {
            let (point, fields) = split(line);
            expected.insert(point, fields.to_owned());
        }
    }
    Ok(())
}

/// InfluxDB has these points and no others, but for samples that a reader saw before the power took them.
fn points(
    oracle: &Oracle,
    mut expected: BTreeMap<String, String>,
    influxdb: &InfluxDb,
) -> Result<(), String> {
    let points = influxdb.points();
    if let Some((point, fields)) = expected.iter().find(|(point, _)| !points.contains_key(*point)) {
        return Err(format!("InfluxDB does not have {point}: {fields}"));
    }
    for (host, time_ms) in oracle.seen_only() {
        for line in oracle.sample((host, time_ms)).into_iter().flat_map(|sample| lines(host, sample)) {
            let (point, fields) = split(&line);
            expected.insert(point, fields.to_owned());
        }
    }
    match points.iter().find(|(point, fields)| expected.get(*point) != Some(*fields)) {
        Some((point, fields)) => {
            Err(format!("InfluxDB has {point}: {fields}, not {:?}", expected.get(point)))
        }
        None => Ok(()),
    }
}
