//! What a server acknowledges, late, never, or wrongly.

use super::*;

#[test]
fn samples_that_the_server_never_stores_are_counted_by_reason_and_the_others_settled() {
    let mut bench = Bench::new(1);
    (1..=4).for_each(|time| bench.take(time));
    bench.open(4, 256);
    bench.batch();
    bench.batch();
    bench.ack(&[2], &[(2, DropReason::TooOld), (3, DropReason::Other(77)), (4, DropReason::ClockAhead)]);
    let events = bench.link.take_events();
    let lost: Vec<_> = events
        .iter()
        .filter_map(|event| {
            if let Event::Dropped { time_ms, loss, .. } = event {
                Some((*time_ms, loss.to_string()))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(
        lost,
        [(2, "too_old".to_owned()), (3, "other_77".to_owned())],
        "4 is in a batch that is not settled"
    );
    assert!(events.iter().any(|event| matches!(event, Event::Settled { time_ms: 1, .. })));
    assert_eq!(bench.link.waiting(), 1);
}

#[test]
fn an_ack_for_what_was_never_sent_does_nothing() {
    let mut bench = Bench::new(1);
    bench.take(1);
    bench.open(4, 256);
    bench.ack(&[0, 1, 2, 99], &[(1, DropReason::TooOld)]);
    assert_eq!(bench.link.waiting(), 1, "it was not under way yet");
    bench.batch();
    bench.ack(&[0, 7], &[(1, DropReason::TooOld)]);
    assert_eq!(bench.link.waiting(), 1);
}

#[test]
fn a_server_that_does_not_acknowledge_is_left_and_all_is_sent_again() {
    let mut bench = Bench::new(1);
    bench.open(4, 256);
    bench.take(1);
    bench.batch();
    bench.pass(ACK_DEADLINE - Duration::from_millis(1));
    bench.next();
    assert!(bench.link.is_connected());
    bench.pass(Duration::from_millis(1));
    bench.next();
    assert!(!bench.link.is_connected());
    assert_eq!(bench.closed(), [Closed::AckTimeout]);
    bench.wait();
    bench.open(4, 256);
    assert_eq!(bench.batch().2, [1]);
}

#[test]
fn the_server_s_clock_is_told_with_half_of_the_shortest_way_there_and_back() {
    let clocks = |bench: &mut Bench| -> Vec<i64> {
        let events = bench.link.take_events().into_iter();
        events
            .filter_map(|event| match event {
                Event::ServerClock { server_time_ms } => Some(server_time_ms),
                _ => None,
            })
            .collect()
    };
    let mut bench = Bench::new(1);
    bench.connect(0);
    bench.pass(Duration::from_millis(80));
    bench.receive(Welcome { server_time_ms: 10_000, ..welcome(2, 100) });
    assert_eq!(clocks(&mut bench), [10_040]);
    for (time, trip_ms, told) in [(1, 600, 20_040), (2, 20, 20_010), (3, 50, 20_010)] {
        bench.take(time);
        let batch = bench.batch().0;
        bench.pass(Duration::from_millis(trip_ms));
        let batches = List::new(vec![batch]).unwrap();
        bench.receive(Ack { server_time_ms: 20_000, batches, refused: List::empty() });
        assert_eq!(clocks(&mut bench), [told], "{trip_ms}");
    }
}

/// A link with three samples of backlog under way, taken while there was no server, and a live one that is settled.
fn with_backlog_under_way() -> (Bench, u64) {
    let mut bench = Bench::new(1);
    (1..=4).for_each(|time_ms| bench.take(time_ms));
    bench.open(1, 256);
    let (live, ..) = bench.batch();
    let (backlog, is_backlog, times, _) = bench.batch();
    assert!(is_backlog && times == [1, 2, 3]);
    bench.pass(Duration::from_secs(1));
    bench.ack(&[live], &[]);
    assert_eq!(bench.settled(), [4]);
    (bench, backlog)
}

#[test]
fn backlog_that_a_server_puts_off_is_sent_again_on_the_same_connection_while_others_are_acknowledged() {
    let (mut bench, put_off) = with_backlog_under_way();
    bench.wait();
    let (again, is_backlog, times, first) = bench.batch();
    assert!(is_backlog && times == [1, 2, 3] && first.is_empty(), "{times:?} {first:?}");
    assert_ne!(again, put_off);
    assert!(bench.link.is_connected() && bench.closed().is_empty());
    assert!(matches!(bench.next(), Action::Wait(_)), "the window holds one");
    // It may come after all: what it settles is under way under another number.
    bench.ack(&[put_off], &[]);
    assert!(bench.settled().is_empty());
    bench.ack(&[again], &[]);
    assert_eq!(bench.settled(), [1, 2, 3]);
}

#[test]
fn a_server_that_has_fallen_silent_is_left_also_if_backlog_is_under_way() {
    let (mut bench, _) = with_backlog_under_way();
    bench.wait();
    let (_, is_backlog, ..) = bench.batch();
    assert!(is_backlog);
    // Nothing was acknowledged since that was sent.
    assert_eq!(bench.wait(), ACK_DEADLINE);
    bench.next();
    assert_eq!(bench.closed(), [Closed::AckTimeout]);
}

#[test]
fn a_server_that_says_that_it_puts_backlog_off_is_not_left_though_it_acknowledges_nothing() {
    let (mut bench, _) = with_backlog_under_way();
    bench.wait();
    for _ in 0..5 {
        let (_, is_backlog, times, _) = bench.batch();
        assert!(is_backlog && times == [1, 2, 3], "{times:?}");
        bench.pass(Duration::from_millis(10));
        bench.ack(&[], &[]);
        bench.pass(ACK_DEADLINE);
    }
    assert!(bench.link.is_connected() && bench.closed().is_empty() && bench.settled().is_empty());
}

#[test]
fn a_live_sample_that_a_server_puts_off_goes_again_as_backlog_while_others_are_acknowledged() {
    let mut bench = Bench::new(1);
    bench.open(1, 256);
    bench.take(1);
    bench.batch();
    bench.pass(Duration::from_secs(5));
    bench.take(2);
    let (second, ..) = bench.batch();
    bench.ack(&[second], &[]);
    bench.pass(ACK_DEADLINE);
    let (again, is_backlog, times, _) = bench.batch();
    assert!(is_backlog && times == [1], "{times:?}");
    assert!(bench.link.is_connected());
    bench.ack(&[again], &[]);
    assert!(bench.settled().contains(&1));
}
