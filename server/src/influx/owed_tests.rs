use super::*;
use proptest::prelude::*;
use vitals_wire::sample::Sample;

const HOUR: i64 = SLICE_MS;

fn span(from_ms: i64, to_ms: i64) -> Span {
    Span { from_ms, to_ms }
}

fn host(number: u8) -> HostId {
    HostId([number; 16])
}

fn record(number: u8, received_ms: i64, backlog: bool, times: &[i64]) -> Record {
    let samples = times.iter().map(|time_ms| Sample { time_ms: *time_ms, ..Sample::default() }).collect();
    Record { host: host(number), received_ms, backlog, samples }
}

/// Writes everything that is owed, `step` ms of a chunk at a time, and gives what was written.
fn fill(owed: &mut Owed, hosts: &[HostId], step: i64) -> Vec<(HostId, Span)> {
    let mut written = Vec::new();
    while let Some(chunk) = owed.next(hosts) {
        let until_ms = (chunk.from_ms + step).min(chunk.to_ms);
        owed.written(&chunk, Some(until_ms));
        written.push((chunk.host, span(chunk.from_ms, until_ms)));
        assert!(written.len() < 100_000, "it ends");
    }
    written
}

#[test]
fn spans_that_overlap_or_nearly_touch_are_one() {
    let mut spans = Spans::default();
    for (from, to) in [(0, 10), (500_000, 600_000), (10 + TOUCH_MS, 100_000), (550_000, 580_000), (7, 7)] {
        spans.add(span(from, to), 10);
    }
    assert_eq!(spans.as_slice(), [span(0, 100_000), span(500_000, 600_000)]);
    spans.add(span(50_000, 550_000), 10);
    assert_eq!(spans.as_slice(), [span(0, 600_000)]);
    spans.add(span(i64::MIN, i64::MIN + 1), 10);
    spans.add(span(i64::MAX - 1, i64::MAX), 10);
    assert_eq!(spans.as_slice().len(), 3);
}

#[test]
fn live_samples_concern_all_hosts_and_others_their_own() {
    let mut stretch = Stretch::new();
    let now = 1_000 * HOUR;
    stretch.add_record(&record(1, now, false, &[now - 5_000, now]));
    stretch.add_record(&record(2, now + 5_000, false, &[now + 4_000]));
    stretch.add_record(&record(3, now, true, &[now - HOUR, now - HOUR + 5_000]));
    stretch.add_record(&record(4, now, false, &[now - 7 * HOUR, now - 1]));
    assert_eq!(stretch.all(), [span(now - 5_000, now + 4_001)]);
    let hosts: Vec<_> = stretch.hosts().collect();
    assert_eq!(
        hosts,
        [
            (host(3), &[span(now - HOUR, now - HOUR + 5_001)][..]),
            (host(4), &[span(now - 7 * HOUR, now - 7 * HOUR + 1)])
        ]
    );
}

#[test]
fn what_is_beyond_a_bound_is_widened_and_not_forgotten() {
    let mut stretch = Stretch::new();
    for n in 0..1_000 {
        stretch.add_all(span(n * HOUR, n * HOUR + 1));
        stretch.add_host(host(1), span(n * HOUR, n * HOUR + 1));
    }
    for n in 0..2_000_u16 {
        let mut id = [9; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        stretch.add_host(HostId(id), span(5_000 * HOUR, 5_001 * HOUR));
    }
    assert!(stretch.all().len() <= MAX_SPANS && stretch.count() <= MAX_SPANS + MAX_HOSTS * MAX_HOST_SPANS);
    for n in 0..1_000 {
        assert!(stretch.all().iter().any(|span| span.from_ms <= n * HOUR && n * HOUR < span.to_ms), "{n}");
    }
    let (_, of_one) = stretch.hosts().find(|(id, _)| *id == host(1)).unwrap();
    assert_eq!((of_one[0].from_ms, of_one.last().unwrap().to_ms), (0, 999 * HOUR + 1));
    assert!(stretch.all().iter().any(|span| span.from_ms <= 5_000 * HOUR), "hosts beyond the bound");
}

#[test]
fn filling_goes_oldest_first_by_hours_through_all_hosts() {
    let mut owed = Owed::new();
    let mut stretch = Stretch::new();
    stretch.add_all(span(HOUR / 2, 2 * HOUR));
    stretch.add_host(host(2), span(10, 20));
    owed.owe(&stretch, Position { segment: 3, offset: 0 });
    assert_eq!(owed.needs(), Position { segment: 3, offset: 0 });
    let hosts = [host(1), host(2)];
    assert_eq!(
        fill(&mut owed, &hosts, i64::MAX / 4),
        [
            (host(2), span(10, 20)),
            (host(1), span(HOUR / 2, HOUR)),
            (host(2), span(HOUR / 2, HOUR)),
            (host(1), span(HOUR, 2 * HOUR)),
            (host(2), span(HOUR, 2 * HOUR)),
        ]
    );
    assert!(owed.is_empty());
    assert_eq!(owed.next(&hosts), None);
}

#[test]
fn a_slice_goes_on_where_it_was_unless_something_was_added() {
    let mut owed = Owed::new();
    let mut stretch = Stretch::new();
    stretch.add_all(span(0, HOUR));
    owed.owe(&stretch, Position::default());
    let hosts = [host(1), host(2), host(3)];
    let chunk = owed.next(&hosts).unwrap();
    owed.written(&chunk, None);
    let chunk = owed.next(&hosts).unwrap();
    owed.written(&chunk, Some(1_000));
    let next = owed.clone().next(&hosts).unwrap();
    assert_eq!((next.host, next.from_ms), (host(2), 1_000));
    // A host that went in between does no harm.
    let next = owed.clone().next(&[host(1), host(3)]).unwrap();
    assert_eq!((next.host, next.from_ms), (host(3), 0));
    let generation = owed.generation();
    owed.owe(&stretch, Position::default());
    assert_ne!(owed.generation(), generation);
    assert_eq!(owed.next(&hosts).unwrap().host, host(1));
}

#[test]
fn history_that_does_not_move_on_ends_the_chunk_and_not_the_writer() {
    let mut owed = Owed::new();
    let mut stretch = Stretch::new();
    stretch.add_host(host(1), span(0, 10));
    owed.owe(&stretch, Position::default());
    let chunk = owed.next(&[]).unwrap();
    owed.written(&chunk, Some(chunk.from_ms));
    assert!(owed.is_empty());
    stretch.add_all(span(0, 10));
    owed.owe(&stretch, Position::default());
    assert_eq!(fill(&mut owed, &[HostId([255; 16])], 100).len(), 2, "the last id of all too");
}

proptest! {
    /// Whatever is owed in whatever order, each ms of it is written for each host that it concerns.
    #[test]
    fn all_that_is_owed_is_written(
        adds in proptest::collection::vec((0i64..400, 1i64..60, 0u8..4), 1..60),
        step in 1i64..3_000_000,
    ) {
        let hosts = [host(1), host(2), host(3)];
        let mut owed = Owed::new();
        for (at, length, whose) in &adds {
            let of = span(at * 50_000, (at + length) * 50_000);
            let mut stretch = Stretch::new();
            match whose {
                0 => stretch.add_all(of),
                number => stretch.add_host(host(*number), of),
            }
            owed.owe(&stretch, Position::default());
        }
        let mut spans: BTreeMap<HostId, Spans> = BTreeMap::new();
        for (host, written) in fill(&mut owed, &hosts, step.max(1_000)) {
            spans.entry(host).or_default().add(written, usize::MAX);
        }
        for (at, length, whose) in adds {
            let concerned = if whose == 0 { hosts.to_vec() } else { vec![host(whose)] };
            for host in concerned {
                let (from, to) = (at * 50_000, (at + length) * 50_000);
                let is_there = spans[&host].as_slice().iter().any(|span| span.from_ms <= from && to <= span.to_ms);
                prop_assert!(is_there, "{host} {from} {to}");
            }
        }
    }
}
