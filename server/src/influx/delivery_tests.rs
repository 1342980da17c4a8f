use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    in_flight: 3,
    owed_in_flight: 2,
    max_lines: 50,
    backoff_min: Duration::from_millis(500),
    backoff_max: Duration::from_secs(30),
    slow_retry: Duration::from_secs(30),
};

fn lines(from: usize, count: usize) -> Bytes {
    (from..from + count).map(|n| format!("m v={n}\n")).collect::<String>().into()
}

fn at(offset: u64) -> Position {
    Position { segment: 1, offset }
}

fn http(status: u16, body: &str) -> Answer {
    Answer::Http { status, retry_after: None, location: None, body: body.to_owned() }
}

fn ok() -> Answer {
    http(204, "")
}

fn send(delivery: &mut Delivery, now: Instant) -> Job {
    match delivery.next(now) {
        Next::Send(job) => job,
        other => panic!("{other:?} instead of a request"),
    }
}

fn wait(delivery: &mut Delivery, now: Instant) -> Duration {
    match delivery.next(now) {
        Next::At(at) => at - now,
        other => panic!("{other:?} instead of a wait"),
    }
}

fn one_batch(count: usize) -> (Delivery, Instant) {
    let mut delivery = Delivery::new(LIMITS);
    delivery.offer(lines(0, count), count, at(1), 0);
    (delivery, Instant::now())
}

#[test]
fn the_cursor_moves_over_settled_batches_at_the_front_alone() {
    let now = Instant::now();
    let mut delivery = Delivery::new(LIMITS);
    for batch in 0..3 {
        assert!(delivery.has_room());
        delivery.offer(lines(batch * 10, 10), 10, at(batch as u64 + 1), 0);
    }
    assert!(!delivery.has_room());
    let jobs = [(); 3].map(|()| send(&mut delivery, now));
    assert!(matches!(delivery.next(now), Next::Nothing));
    let [first, second, third] = jobs;
    assert_eq!(delivery.answered(second, &ok(), now, 0.5).taken, 10);
    assert_eq!(delivery.settle(), None, "the first is still under way");
    delivery.answered(first, &ok(), now, 0.5);
    assert_eq!(delivery.settle(), Some(at(2)));
    delivery.answered(third, &ok(), now, 0.5);
    assert_eq!(delivery.settle(), Some(at(3)));
    assert!(delivery.is_empty());
}

#[test]
fn a_batch_without_lines_moves_the_cursor_without_a_request() {
    let mut delivery = Delivery::new(LIMITS);
    delivery.offer(Bytes::new(), 0, at(9), 0);
    assert!(matches!(delivery.next(Instant::now()), Next::Nothing));
    assert_eq!(delivery.settle(), Some(at(9)));
}

#[test]
fn after_a_failure_one_request_probes_and_the_waits_grow_up_to_their_bound() {
    let (mut delivery, mut now) = one_batch(10);
    delivery.offer(lines(10, 10), 10, at(2), 0);
    let job = send(&mut delivery, now);
    let outcome = delivery.answered(job, &Answer::Timeout, now, 1.0);
    assert_eq!(outcome.error, Some(Reason::Timeout));
    assert!(matches!(outcome.change, Some(Change::Trouble { reason: Reason::Timeout, .. })));
    for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        assert_eq!(wait(&mut delivery, now), Duration::from_secs_f64(seconds));
        now += Duration::from_secs_f64(seconds);
        let job = send(&mut delivery, now);
        assert!(matches!(delivery.next(now), Next::Nothing), "one probe at a time");
        let outcome = delivery.answered(job, &Answer::Timeout, now, 1.0);
        assert_eq!(outcome.change, None, "the same trouble is told once");
    }
    assert_eq!(wait(&mut delivery, now), Duration::from_secs(30));
    now += Duration::from_secs(30);
    let job = send(&mut delivery, now);
    let outcome = delivery.answered(job, &ok(), now, 1.0);
    assert!(matches!(outcome.change, Some(Change::Back { away }) if away.as_secs() == 121));
    let job = send(&mut delivery, now);
    delivery.answered(job, &Answer::Timeout, now, 0.0);
    assert_eq!(wait(&mut delivery, now - Duration::from_nanos(1)), Duration::from_nanos(1), "full jitter");
}

#[test]
fn another_reason_is_told_again_and_a_persons_fault_is_tried_slowly() {
    let (mut delivery, mut now) = one_batch(10);
    let job = send(&mut delivery, now);
    delivery.answered(job, &Answer::Unreachable("refused".into()), now, 0.0);
    let job = send(&mut delivery, now);
    let outcome = delivery.answered(job, &http(401, "{}"), now, 0.0);
    let Some(Change::Trouble { reason: Reason::Unauthorized, advice, .. }) = outcome.change else {
        panic!("{outcome:?}")
    };
    assert!(advice.contains("token"));
    assert_eq!(wait(&mut delivery, now), LIMITS.slow_retry);
    now += LIMITS.slow_retry;
    let job = send(&mut delivery, now);
    assert_eq!(job.lines, 10, "nothing of it is lost");
}

#[test]
fn retry_after_is_waited_for_without_jitter() {
    let (mut delivery, now) = one_batch(10);
    let job = send(&mut delivery, now);
    let after = Some(Duration::from_secs(7));
    let busy = Answer::Http { status: 429, retry_after: after, location: None, body: String::new() };
    delivery.answered(job, &busy, now, 0.0);
    assert_eq!(wait(&mut delivery, now), Duration::from_secs(7));
}

#[test]
fn answers_to_requests_from_before_the_failure_do_not_move_the_gate() {
    let now = Instant::now();
    let mut delivery = Delivery::new(LIMITS);
    delivery.offer(lines(0, 10), 10, at(1), 0);
    delivery.offer(lines(10, 10), 10, at(2), 0);
    let (first, second) = (send(&mut delivery, now), send(&mut delivery, now));
    delivery.answered(first, &Answer::Timeout, now, 1.0);
    let outcome = delivery.answered(second, &ok(), now, 1.0);
    assert_eq!((outcome.taken, outcome.change), (10, None));
    assert_eq!(wait(&mut delivery, now), Duration::from_millis(500));
}

/// What InfluxDB says to lines of which some are of a wrong type.
fn conflict(dropped: usize) -> Answer {
    http(422, &format!(r#"{{"code":"x","message":"partial write: field type conflict dropped={dropped}"}}"#))
}

/// Answers until the batch is settled, as an InfluxDB that cannot take the numbers for which `is_bad`.
fn play_conflicts(
    delivery: &mut Delivery,
    now: Instant,
    is_bad: impl Fn(usize) -> bool,
) -> (usize, Vec<Dropped>, usize) {
    let (mut taken, mut dropped, mut requests) = (0, vec![], 0);
    while delivery.settle().is_none() {
        let job = send(delivery, now);
        requests += 1;
        let text = std::str::from_utf8(&job.body).unwrap();
        let bad = text.lines().filter(|line| is_bad(line[4..].parse().unwrap())).count();
        let answer = if bad == 0 { ok() } else { conflict(bad) };
        let outcome = delivery.answered(job, &answer, now, 0.5);
        assert_eq!(outcome.change, None);
        taken += outcome.taken;
        dropped.extend(outcome.dropped);
    }
    (taken, dropped, requests)
}

#[test]
fn a_line_of_a_wrong_type_is_found_and_the_others_are_written() {
    let mut delivery = Delivery::new(Limits { max_lines: 1_000, ..LIMITS });
    delivery.offer(lines(0, 1_000), 1_000, at(1), 0);
    let (taken, dropped, requests) = play_conflicts(&mut delivery, Instant::now(), |n| n == 617);
    assert_eq!(taken, 999);
    assert_eq!(dropped.len(), 1);
    assert_eq!(dropped[0].line.as_deref(), Some(&b"m v=617\n"[..]));
    assert!(requests <= 21, "{requests}");
}

#[test]
fn a_conflict_that_concerns_everybody_is_counted_without_a_flood_of_requests() {
    let mut delivery = Delivery::new(Limits { max_lines: 5_000, ..LIMITS });
    delivery.offer(lines(0, 5_000), 5_000, at(1), 0);
    let (taken, dropped, requests) = play_conflicts(&mut delivery, Instant::now(), |n| n % 23 == 0);
    assert_eq!(taken + dropped.iter().map(|dropped| dropped.lines).sum::<usize>(), 5_000);
    assert_eq!(taken, 5_000 - 5_000usize.div_ceil(23));
    assert!(requests <= 2 * MAX_CONFLICT_SPLITS + 1, "{requests}");
    assert!(dropped.iter().all(|dropped| dropped.reason == "type_conflict"));
}

#[test]
fn a_partial_write_of_unknown_extent_counts_every_line() {
    let (mut delivery, now) = one_batch(10);
    let job = send(&mut delivery, now);
    let outcome = delivery.answered(job, &http(422, r#"{"code":"x","message":"?"}"#), now, 0.5);
    assert_eq!((outcome.taken, outcome.dropped[0].lines), (0, 10));
    assert_eq!(delivery.settle(), Some(at(1)));
}

#[test]
fn what_is_too_large_is_halved_and_the_next_requests_are_smaller_from_the_start() {
    let limits = Limits { max_lines: 1000, ..LIMITS };
    let mut delivery = Delivery::new(limits);
    let now = Instant::now();
    delivery.offer(lines(0, 1000), 1000, at(1), 0);
    let job = send(&mut delivery, now);
    delivery.answered(job, &http(413, ""), now, 0.5);
    for _ in 0..2 {
        let job = send(&mut delivery, now);
        assert_eq!(job.lines, 500);
        delivery.answered(job, &ok(), now, 0.5);
    }
    assert_eq!(delivery.settle(), Some(at(1)));
    delivery.offer(lines(1000, 1000), 1000, at(2), 0);
    assert_eq!(send(&mut delivery, now).lines, 500);
}

#[test]
fn who_refuses_every_line_without_a_parsers_words_makes_nothing_lost() {
    let (mut delivery, mut now) = one_batch(40);
    let refuse = http(400, r#"{"code":"invalid","message":"not today"}"#);
    for round in 0..2 {
        for requests in 0.. {
            assert!(requests < 40, "a round is short");
            let job = send(&mut delivery, now);
            let outcome = delivery.answered(job, &refuse, now, 0.5);
            assert!(outcome.dropped.is_empty(), "{outcome:?}");
            match outcome.change {
                Some(Change::Trouble { reason: Reason::Rejected, .. }) if round == 0 => {}
                None => {}
                other => panic!("{other:?} in round {round}"),
            }
            if !matches!(delivery.gate, Gate::Closed { until, .. } if until > now) {
                continue;
            }
            break;
        }
        assert_eq!(wait(&mut delivery, now), LIMITS.slow_retry);
        now += LIMITS.slow_retry;
    }
    let job = send(&mut delivery, now);
    assert_eq!(job.lines, 40, "all of it again");
    let outcome = delivery.answered(job, &ok(), now, 0.5);
    assert_eq!(outcome.taken, 40);
    assert!(matches!(outcome.change, Some(Change::Back { .. })));
}

#[test]
fn a_line_refused_in_other_words_is_dropped_once_another_of_its_batch_was_taken() {
    let (mut delivery, now) = one_batch(2);
    let refuse = http(400, r#"{"code":"invalid","message":"no such luck"}"#);
    let job = send(&mut delivery, now);
    delivery.answered(job, &refuse, now, 0.5);
    let job = send(&mut delivery, now);
    assert!(delivery.answered(job, &refuse, now, 0.5).dropped.is_empty(), "not known yet");
    let job = send(&mut delivery, now);
    let outcome = delivery.answered(job, &ok(), now, 0.5);
    assert_eq!(outcome.dropped[0].line.as_deref(), Some(&b"m v=0\n"[..]));
    assert_eq!(delivery.settle(), Some(at(1)));
}

#[test]
fn live_lines_go_before_owed_ones_and_each_lane_settles_for_itself() {
    let now = Instant::now();
    let mut delivery = Delivery::new(LIMITS);
    delivery.offer_owed(lines(0, 60), 60);
    delivery.offer_owed(Bytes::new(), 0);
    assert!(!delivery.has_owed_room() && delivery.has_room() && delivery.is_empty());
    delivery.offer(lines(100, 10), 10, at(1), 0);
    let live = send(&mut delivery, now);
    assert_eq!(live.lines, 10);
    let owed = send(&mut delivery, now);
    assert_eq!(owed.lines, 50, "the rest of it follows");
    let outcome = delivery.answered(owed, &ok(), now, 0.5);
    assert_eq!((outcome.is_owed, outcome.taken), (true, 50));
    delivery.offer(lines(200, 10), 10, at(2), 0);
    assert_eq!(send(&mut delivery, now).body, lines(200, 10), "live first");
    let rest = send(&mut delivery, now);
    assert_eq!((delivery.settle(), delivery.settle_owed()), (None, 0));
    assert!(!delivery.answered(live, &ok(), now, 0.5).is_owed);
    delivery.answered(rest, &ok(), now, 0.5);
    assert_eq!((delivery.settle(), delivery.settle_owed()), (Some(at(1)), 2));
    assert!(delivery.has_owed_room());
}

#[test]
fn what_an_older_or_newer_influxdb_says_of_a_single_line_is_that_lines_fault() {
    for (words, reason) in [
        ("partial write: field type conflict: input field \\\"v\\\" dropped=1", "type_conflict"),
        ("partial write: points beyond retention policy dropped=1", "too_old"),
        ("partial write of line protocol occurred", "refused"),
    ] {
        let (mut delivery, now) = one_batch(1);
        let job = send(&mut delivery, now);
        let outcome = delivery.answered(job, &http(400, &format!(r#"{{"error":"{words}"}}"#)), now, 0.5);
        assert_eq!(outcome.dropped.len(), 1, "{words}");
        assert_eq!(outcome.dropped[0].reason, reason);
        assert_eq!(delivery.settle(), Some(at(1)));
    }
}

/// How the modelled InfluxDB fails at times, beside refusing bad lines.
fn failure() -> impl Strategy<Value = Option<Answer>> {
    prop_oneof![
        5 => Just(None),
        1 => Just(Some(Answer::Timeout)),
        1 => Just(Some(Answer::Unreachable("closed".into()))),
        1 => Just(Some(http(500, "{}"))),
        1 => Just(Some(http(401, "{}"))),
        1 => Just(Some(http(200, "<html>"))),
        1 => Just(Some(http(413, ""))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Against a model InfluxDB that refuses some lines, takes half a batch at most, and fails at random, answers in
    /// random order: each line is stored or dropped, bad ones are the only ones dropped, the cursor never runs ahead.
    #[test]
    fn every_line_is_stored_or_counted_and_the_cursor_never_runs_ahead(
        sizes in proptest::collection::vec(0usize..120, 1..8),
        bad_every in 2usize..40,
        failures in proptest::collection::vec(failure(), 0..60),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 64),
    ) {
        let mut delivery = Delivery::new(LIMITS);
        let mut now = Instant::now();
        let mut offers = sizes.iter().enumerate();
        let (mut stored, mut dropped) = (vec![0u32; sizes.iter().sum()], 0);
        let mut offered = 0;
        let mut ends = vec![];
        let mut settled = 0;
        let mut failures = failures.into_iter();
        let mut order = order.iter().cycle();
        let mut flying: Vec<Job> = vec![];
        let mut taken = 0;
        let is_bad = |n: usize| n % bad_every == 1;
        for step in 0.. {
            prop_assert!(step < 20_000, "it ends");
            while delivery.has_room() && let Some((_, size)) = offers.next() {
                delivery.offer(lines(offered, *size), *size, at(ends.len() as u64 + 1), 0);
                offered += size;
                ends.push(offered);
            }
            match delivery.next(now) {
                Next::Send(job) => { flying.push(job); continue; }
                Next::At(at) if flying.is_empty() => { now = at; continue; }
                _ => {}
            }
            if let Some(after) = delivery.settle() {
                settled = after.offset as usize;
                for (n, times) in stored.iter().enumerate().take(ends[settled - 1]) {
                    prop_assert!(*times > 0 || is_bad(n), "line {n} is before the cursor and not stored");
                }
                continue;
            }
            if flying.is_empty() { break; }
            let which = order.next().map_or(0, |index| index.index(flying.len()));
            let job = flying.swap_remove(which);
            prop_assert!(job.lines <= LIMITS.max_lines);
            let numbers: Vec<usize> = std::str::from_utf8(&job.body).unwrap().lines()
                .map(|line| line.strip_prefix("m v=").unwrap().parse().unwrap()).collect();
            prop_assert_eq!(numbers.len(), job.lines);
            let answer = match failures.next().flatten() {
                // A single line is never too large for it.
                Some(Answer::Http { status: 413, .. }) if job.lines == 1 => ok(),
                Some(failure) => failure,
                None => match numbers.iter().find(|n| is_bad(**n)) {
                    Some(n) => http(400, &format!(r#"{{"code":"invalid","message":"unable to parse 'm v={n}'"}}"#)),
                    None => ok(),
                },
            };
            if answer == ok() {
                numbers.iter().for_each(|n| stored[*n] += 1);
            }
            let outcome = delivery.answered(job, &answer, now, 0.5);
            taken += outcome.taken;
            dropped += outcome.dropped.iter().map(|dropped| dropped.lines).sum::<usize>();
        }
        prop_assert_eq!(settled, sizes.len());
        prop_assert!(delivery.is_empty());
        prop_assert_eq!(taken + dropped, offered, "each line is accounted for once");
        // A line that is bad but was alone with a 413 answered 204 counts as stored.
        for (n, times) in stored.iter().enumerate() {
            prop_assert!(*times == 1 || is_bad(n), "line {n} stored {times} times");
        }
    }
}
