use std::collections::BTreeSet;

use proptest::prelude::*;
use vitals_client::simulate::host::Host;
use vitals_client::simulate::script::Given;
use vitals_wire::bounded::{List, Text};
use vitals_wire::ids::HostId;
use vitals_wire::sample::Sample;
use vitals_wire::section::{Event, EventKind, Events, ReasonCount, Section, ServerHealth};

use super::*;
use crate::store::engine::Seal;
use crate::store::test_support::{BASE_MS, Rig, host, tags, written};

/// Samples of a plausible host, with all that hosts have.
fn plausible(index: u32, from: i64, count: i64) -> (HostId, Vec<Sample>) {
    let host = Host::numbered(7, index, "host", 5_000);
    // Hosts that are simulated began in 2026.
    let first = 1_800_000_000_000 + from * 5_000;
    let samples = (0..count).map(|i| host.sample(first + i * 5_000, &Given::default())).collect();
    (host.id, samples)
}

#[derive(Debug, Clone)]
enum Step {
    Send { host: u32, from: i64, count: i64, is_reversed: bool },
    Seal,
    Merge,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..3, 0i64..1500, 1i64..60, any::<bool>())
            .prop_map(|(host, from, count, is_reversed)| Step::Send { host, from, count, is_reversed }),
        3 => Just(Step::Seal),
        2 => Just(Step::Merge),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 100, ..ProptestConfig::default() })]
    #[test]
    fn stored_samples_are_written_as_the_same_lines_as_fresh_ones(
        steps in proptest::collection::vec(step(), 1..25), part in 0i64..1500
    ) {
        let mut rig = Rig::new();
        let (mut sent, mut ids) = (vec![Vec::new(); 3], BTreeSet::new());
        for step in steps {
            match step {
                Step::Send { host, from, count, is_reversed } => {
                    let (id, mut samples) = plausible(host, from, count);
                    if is_reversed {
                        samples.reverse();
                    }
                    sent[host as usize].extend(samples.clone());
                    ids.insert((id, host));
                    rig.send(id, samples);
                }
                Step::Seal => rig.commit(Seal::All),
                Step::Merge => {
                    rig.now.wall_ms = 1_800_000_000_000 + 24 * 3_600_000;
                    rig.merge_all();
                }
                Step::Kill => rig.reopen(),
            }
        }
        for (id, host) in ids {
            let sent = &sent[host as usize];
            let (all, some) = (0..i64::MAX, 1_800_000_000_000..1_800_000_000_001 + part * 5_000);
            prop_assert_eq!(rig.lines(id, all.clone()), written(sent, all.clone()));
            prop_assert_eq!(rig.lines(id, some.clone()), written(sent, some));
            // The same in parts, to be kept.
            let (mut out, mut from) = (Vec::new(), 0);
            loop {
                let rows = rig.engine().shared.rows(id, from..i64::MAX, 77).unwrap();
                let Some(last) = rows.last() else { break };
                from = last.time_ms + 1;
                prop_assert!(rows.len() <= 77);
                for row in &rows {
                    write_row(&mut out, &tags(), row);
                }
            }
            prop_assert_eq!(String::from_utf8(out).unwrap(), written(sent, all));
        }
    }
}

fn health(connections: u32) -> Section {
    let reasons =
        ["too_old", "clock_ahead"].map(|reason| ReasonCount { reason: Text::cut(reason), count: 3 });
    let dropped = List::first(reasons.to_vec()).0;
    ServerHealth { connections: connections.into(), dropped, ..ServerHealth::default() }.into()
}

fn events(kinds: &[EventKind]) -> Section {
    let event = |kind: &EventKind| Event {
        host: host(7),
        name: Text::cut("web 1"),
        kind: *kind,
        detail: Text::cut("said \"bye\""),
    };
    Events { events: List::first(kinds.iter().map(event).collect()).0 }.into()
}

#[test]
fn what_the_server_says_for_itself_is_written_with_its_events() {
    let mut rig = Rig::new();
    let at = |time_ms, sections: Vec<Section>| Sample { time_ms, sections: List::first(sections).0 };
    let (up, down, bye) = (EventKind::Up, EventKind::Down, EventKind::Bye);
    let sent = vec![
        at(BASE_MS, vec![events(&[up, down])]),
        at(BASE_MS + 1, vec![health(5)]),
        at(BASE_MS + 2, vec![health(6), events(&[bye])]),
        at(BASE_MS + 3, vec![events(&[down])]),
        at(BASE_MS + 2 * 3_600_000, vec![events(&[up; 3])]),
    ];
    let all = 0..i64::MAX;
    for round in 0..3 {
        rig.send(HostId::SERVER, sent.clone());
        assert_eq!(rig.lines(HostId::SERVER, all.clone()), written(&sent, all.clone()), "round {round}");
        let some = BASE_MS + 1..BASE_MS + 3;
        assert_eq!(rig.lines(HostId::SERVER, some.clone()), written(&sent, some));
        let rows = rig.engine().shared.rows(HostId::SERVER, all.clone(), 4).unwrap();
        let times: Vec<_> = rows.iter().map(|row| row.time_ms - BASE_MS).collect();
        assert_eq!(times, [0, 1, 2, 3]);
        // Sealed, and then what was sealed comes again.
        rig.commit(Seal::All);
        rig.reopen();
    }
    // Events are kept for longer than samples.
    rig.pass(8 * 24 * 3_600_000);
    let now = rig.now;
    rig.engine().tidy(now).unwrap();
    let left = rig.lines(HostId::SERVER, all.clone());
    assert!(rig.engine().shared.samples(HostId::SERVER, all.clone()).unwrap().is_empty());
    let only_events = written(&sent, all).lines().filter(|line| line.starts_with("vitals_event")).count();
    assert_eq!((left.lines().count(), only_events), (7, 7));
}

#[test]
fn more_events_than_are_held_at_once_are_all_there() {
    let mut rig = Rig::new();
    let kinds = [EventKind::Up; 200];
    let sample = |i| Sample { time_ms: BASE_MS + i, sections: List::first(vec![events(&kinds)]).0 };
    let sent: Vec<_> = (0..50).map(sample).collect();
    rig.send(HostId::SERVER, sent[..30].to_vec());
    rig.commit(Seal::Due);
    rig.send(HostId::SERVER, sent[30..].to_vec());
    assert!(rig.lines(HostId::SERVER, 0..i64::MAX) == written(&sent, 0..i64::MAX));
}

#[test]
fn place_and_hosts_are_those_of_what_can_be_read() {
    let mut rig = Rig::new();
    let (id, samples) = plausible(0, 0, 4);
    rig.send(id, samples[..2].to_vec());
    rig.send(host(9), samples[2..].to_vec());
    for _ in 0..2 {
        assert_eq!(rig.engine().shared.position().offset, 2);
        assert_eq!(rig.engine().shared.hosts(), [id, host(9)]);
        rig.reopen();
    }
    rig.commit(Seal::All);
    rig.engine = None;
    let engine = crate::store::Engine::open(rig.options.clone(), rig.metrics.clone(), rig.now).unwrap();
    assert_eq!(engine.shared.position().offset, 2, "all that is sealed can be read at once");
    assert_eq!(engine.shared.hosts(), [id, host(9)]);
}
