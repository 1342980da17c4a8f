use super::*;

const S: Duration = Duration::from_secs(1);

fn connection() -> Connection {
    Connection {
        server: "127.0.0.1:7400".into(),
        server_version: "0.1.0".into(),
        name: "web".into(),
        since: Instant::now(),
    }
}

fn said(section: Option<Section>) -> ClientHealth {
    match section {
        Some(Section::ClientHealth(health)) => *health,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_sample_carries_it_and_then_one_every_thirty_seconds() {
    let health = Health::new();
    let start = Instant::now();
    let mut carried = Vec::new();
    // Ticks are not exact.
    for (n, early_ms) in [0, 0, 3, 1, 7, 2, 9, 1, 0, 0, 5, 0, 4].into_iter().enumerate() {
        if health
            .section(start + 5 * n as u32 * S - Duration::from_millis(early_ms).min(5 * n as u32 * S))
            .is_some()
        {
            carried.push(n);
        }
    }
    assert_eq!(carried, [0, 6, 12]);
}

#[test]
fn a_new_connection_and_a_step_of_the_clock_travel_with_the_next_sample() {
    let health = Health::new();
    let start = Instant::now();
    assert_eq!(said(health.section(start)).connected, None);
    assert!(health.section(start + 5 * S).is_none());
    health.connected(connection());
    let carried = said(health.section(start + 10 * S));
    assert_eq!((carried.connected.is_some(), carried.connections), (true, 1));
    assert!(health.section(start + 15 * S).is_none());
    health.clock_steps(Steps::default());
    assert!(health.section(start + 20 * S).is_none(), "no step is no news");
    health.clock_steps(Steps { count: 1, last_ms: -3000 });
    let carried = said(health.section(start + 25 * S));
    assert_eq!((carried.clock_steps, carried.last_step_ms), (1, Some(-3000)));
    assert!(health.section(start + 30 * S).is_none());
    health.closed("127.0.0.1:7400", "the server closed the connection");
    assert_eq!(said(health.section(start + 55 * S)).connected, None);
}

#[test]
fn what_is_counted_is_what_travels() {
    let health = Health::new();
    (0..10).for_each(|_| health.taken());
    (0..6).for_each(|_| health.settled());
    health.dropped("too_old", 1);
    health.dropped("queue_full", 1);
    health.dropped("too_old", 1);
    assert_eq!(health.snapshot().waiting.memory, 1, "until the link says what waits");
    let oldest_ms = Some(wall_ms() - 90_000);
    health.waiting(Waiting { memory: 2, disk: 40, oldest_ms, spool_bytes: 4096 });
    health.server_clock(wall_ms() + 2500);
    let carried = said(health.section(Instant::now()));
    assert_eq!((carried.samples_taken, carried.samples_acked), (10, 6));
    assert_eq!((carried.waiting_memory, carried.waiting_disk, carried.spool_bytes), (2, 40, 4096));
    let age_ms = carried.oldest_waiting_ms.unwrap();
    assert!((90_000..100_000).contains(&age_ms), "{age_ms}");
    let skew_ms = carried.skew_ms.unwrap();
    assert!((1500..=2500).contains(&skew_ms), "{skew_ms}");
    assert_eq!((carried.clock_steps, carried.last_step_ms), (0, None));
    let dropped: Vec<(&str, u64)> = carried.dropped.iter().map(|drop| (&*drop.reason, drop.count)).collect();
    assert_eq!(dropped, [("too_old", 2), ("queue_full", 1)]);
}

#[test]
fn a_server_that_makes_up_reasons_and_long_errors_takes_no_memory() {
    let health = Health::new();
    (0..1000).for_each(|n| health.dropped(&format!("other_{n}"), 1));
    let is = health.snapshot();
    assert_eq!((is.dropped.len(), is.dropped_in_all()), (MAX_REASONS, 1000));
    assert_eq!(is.dropped.last().unwrap(), &(OTHER_REASONS.to_owned(), 1000 - MAX_REASONS as u64 + 1));
    health.closed("a:1", &"ü".repeat(10_000));
    assert_eq!(health.snapshot().last_error.unwrap().text, "ü".repeat(MAX_ERROR_BYTES / 2));
}

#[test]
fn the_last_error_stays_when_there_is_a_connection_again() {
    let health = Health::new();
    health.closed("a:1", "cannot connect");
    health.connected(connection());
    let is = health.snapshot();
    assert_eq!(is.last_error.unwrap().text, "cannot connect");
    assert!(is.connection.is_some());
}
