//! The oracle finds each kind of wrong that it is there for, and nothing where there is none.

use super::super::book::Mark;
use super::super::fields::Figure;
use super::*;

const SEED: u64 = 3;
const START_MS: i64 = 1_790_000_000_000;

/// A host with ten samples, acknowledged, stored and in InfluxDB, to be spoiled.
struct Scene {
    host: Host,
    names: Names,
    taken: BTreeMap<i64, Taken>,
    store: Vec<Field>,
    influx: Vec<Field>,
    entries: Entries,
    has_spool: bool,
}

impl Scene {
    fn new() -> Self {
        let host = Host::numbered(SEED, 0, "sim-", 1_000);
        let (mut names, mut store, mut taken) = (Names::default(), Vec::new(), BTreeMap::new());
        for time_ms in (0..10).map(|second| START_MS + second * 1_000) {
            let sample = host.sample(time_ms, &Given::default());
            let hash = content_hash(&encode_sample(&sample).unwrap());
            taken.insert(time_ms, Taken { hash, is_taken: true, is_settled: true, is_dropped: false });
            of_sample(&mut names, &sample, &mut store);
        }
        let (influx, entries) = (store.clone(), Entries::default());
        Self { host, names, taken, store, influx, entries, has_spool: true }
    }

    fn lose(&mut self, second: i64) {
        let ns = (START_MS + second * 1_000) * 1_000_000;
        self.store.retain(|field| field.ns != ns);
        self.influx.retain(|field| field.ns != ns);
    }

    fn not_settled(&mut self, second: i64) {
        self.taken.get_mut(&(START_MS + second * 1_000)).unwrap().is_settled = false;
    }

    fn end_at(&mut self, second: i64, end: End) {
        let at_ms = START_MS + second * 1_000 + 500;
        self.entries.marks.push(Mark { target: Target::Simulate, at_ms, end });
    }

    fn verdict(mut self) -> Verdict {
        let mut verdict = Verdict::default();
        let store = Found::new(self.store, "store", &mut verdict, &self.names);
        let influx = Found::new(self.influx, "influx", &mut verdict, &self.names);
        let simulated = Simulated { host: &self.host, taken: &self.taken, store: &store, influx: &influx };
        judge(&simulated, &self.entries, self.has_spool, &mut self.names, &mut verdict);
        verdict
    }
}

fn faults(verdict: &Verdict) -> (u64, u64, u64) {
    (verdict.lost, verdict.doubled, verdict.altered)
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let verdict = Scene::new().verdict();
    assert_eq!(faults(&verdict), (0, 0, 0), "{:?}", verdict.shown);
    assert_eq!((verdict.taken, verdict.settled, verdict.stored, verdict.in_influx), (10, 10, 10, 10));
    assert!(verdict.fields > 500);
}

#[test]
fn an_acknowledged_sample_that_is_not_stored_is_lost_even_after_a_kill() {
    let mut scene = Scene::new();
    scene.lose(9);
    scene.end_at(9, End::Killed);
    assert_eq!(faults(&scene.verdict()), (1, 0, 0));
}

#[test]
fn a_kill_may_cost_the_two_newest_and_no_more() {
    for (lost, wrong) in [(1, 0), (2, 0), (3, 1), (5, 3)] {
        let mut scene = Scene::new();
        for second in 10 - lost..10 {
            scene.not_settled(second);
            scene.lose(second);
        }
        scene.end_at(9, End::Killed);
        let verdict = scene.verdict();
        assert_eq!(faults(&verdict), (wrong, 0, 0), "{:?}", verdict.shown);
        assert_eq!(verdict.lost_at_kills, lost.min(2) as u64);
    }
}

#[test]
fn an_end_that_is_no_kill_costs_nothing() {
    for end in [Some(End::Stopped), Some(End::ByItself), None] {
        let mut scene = Scene::new();
        scene.not_settled(9);
        scene.lose(9);
        if let Some(end) = end {
            scene.end_at(9, end);
        }
        assert_eq!(faults(&scene.verdict()), (1, 0, 0), "{end:?}");
    }
}

#[test]
fn what_is_lost_while_the_spool_could_not_be_written_is_told_apart() {
    let mut scene = Scene::new();
    for second in 5..10 {
        scene.not_settled(second);
        scene.lose(second);
    }
    scene.end_at(9, End::Killed);
    scene.entries.full.push((Disk::Clients, START_MS + 4_000, START_MS + 8_000));
    let verdict = scene.verdict();
    assert_eq!(faults(&verdict), (0, 0, 0), "{:?}", verdict.shown);
    assert_eq!((verdict.lost_at_kills, verdict.lost_without_spool), (2, 3));
}

#[test]
fn what_was_dropped_and_counted_is_not_lost() {
    let mut scene = Scene::new();
    scene.not_settled(3);
    scene.taken.get_mut(&(START_MS + 3_000)).unwrap().is_dropped = true;
    scene.lose(3);
    let verdict = scene.verdict();
    assert_eq!((faults(&verdict), verdict.dropped), ((0, 0, 0), 1));
}

#[test]
fn a_stored_sample_that_nobody_acknowledged_is_no_fault() {
    let mut scene = Scene::new();
    scene.not_settled(4);
    assert_eq!(faults(&scene.verdict()), (0, 0, 0));
}

#[test]
fn a_figure_that_changed_is_found_in_the_store_and_in_influxdb() {
    let mut scene = Scene::new();
    scene.influx[700].figure = Figure::Integer(-7);
    let verdict = scene.verdict();
    assert_eq!(faults(&verdict), (0, 0, 1));
    assert!(verdict.shown[0].contains("-7i"), "{:?}", verdict.shown);
    let mut scene = Scene::new();
    scene.store[700].figure = Figure::Integer(-7);
    assert_eq!(faults(&scene.verdict()), (0, 0, 2), "against what was taken, and against InfluxDB");
    let mut scene = Scene::new();
    scene.store.remove(300);
    scene.influx.remove(300);
    assert_eq!(faults(&scene.verdict()), (0, 0, 1), "a field that is missing");
}

#[test]
fn a_sample_that_one_of_both_lacks_is_lost() {
    let mut scene = Scene::new();
    let ns = (START_MS + 2_000) * 1_000_000;
    scene.influx.retain(|field| field.ns != ns);
    assert_eq!(faults(&scene.verdict()), (1, 0, 0));
}

#[test]
fn a_field_that_is_there_twice_is_doubled() {
    let mut scene = Scene::new();
    let again = scene.store[11];
    scene.store.push(again);
    assert_eq!(faults(&scene.verdict()), (0, 1, 0));
}

#[test]
fn a_sample_that_was_never_taken_is_found() {
    let mut scene = Scene::new();
    scene.taken.remove(&(START_MS + 6_000));
    assert_eq!(faults(&scene.verdict()), (0, 0, 1));
}

#[test]
fn a_record_of_another_content_is_found() {
    let mut scene = Scene::new();
    scene.taken.get_mut(&(START_MS + 6_000)).unwrap().hash ^= 1;
    assert_eq!(faults(&scene.verdict()), (0, 0, 1));
}
