use super::*;

const HOST: HostId = HostId([5; 16]);
const LIMIT: Duration = Duration::from_secs(15);
const A: RunId = RunId([1; 16]);
const B: RunId = RunId([2; 16]);

fn address(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 9).into()
}

/// Seats, and a moment some time after they were made.
fn seats() -> (Arc<Seats>, Instant) {
    (Arc::default(), Instant::now() + Duration::from_secs(1_000))
}

/// The orders that wait.
fn orders(seat: &Seat) -> Vec<Order> {
    lock(&seat.shared.orders).drain(..).collect()
}

fn codes(seat: &Seat) -> Vec<Refusal> {
    let codes = orders(seat).into_iter().filter_map(|order| match order {
        Order::Close(refused) => Some(refused.code),
        _ => None,
    });
    codes.collect()
}

#[test]
fn the_same_run_takes_over_its_half_open_connection_at_once() {
    let (seats, now) = seats();
    let old = seats.sit(HOST, A, address(1), LIMIT, now).unwrap();
    let new = seats.sit(HOST, A, address(2), LIMIT, now).unwrap();
    assert_eq!(orders(&old), [Order::Replaced]);
    drop(old);
    assert!(seats.order(HOST, Order::Pins(List::empty())), "the end of the old one leaves the seat alone");
    assert_eq!(orders(&new).len(), 1);
    drop(new);
    assert!(!seats.order(HOST, Order::Pins(List::empty())));
}

#[test]
fn another_run_gets_the_seat_once_its_holder_is_silent_for_longer_than_the_limit() {
    let (seats, now) = seats();
    let old = seats.sit(HOST, A, address(1), LIMIT, now).unwrap();
    old.spoke(now + LIMIT);
    let taken = seats.sit(HOST, B, address(2), LIMIT, now + LIMIT + Duration::from_secs(2)).unwrap_err();
    assert_eq!((taken.address, taken.silent.as_secs(), taken.limit), (address(1), 2, LIMIT));
    assert!(
        taken.to_string().contains("192.0.2.1:9 and spoke 2 s ago") && taken.to_string().contains("15 s")
    );
    assert_eq!(orders(&old), []);
    assert!(seats.sit(HOST, B, address(2), LIMIT, now + 2 * LIMIT).is_err());
    let new = seats.sit(HOST, B, address(2), LIMIT, now + 2 * LIMIT + Duration::from_millis(1)).unwrap();
    assert_eq!(codes(&old), [Refusal::IdentityInUse]);
    assert_eq!(new.cloned, None);
}

#[test]
fn a_client_that_said_good_bye_or_is_gone_keeps_nobody_out() {
    let (seats, now) = seats();
    let old = seats.sit(HOST, A, address(1), LIMIT, now).unwrap();
    old.said_bye();
    let new = seats.sit(HOST, B, address(1), LIMIT, now).unwrap();
    assert_eq!(codes(&old), [Refusal::IdentityInUse], "it hears orders to the last");
    drop(new);
    assert!(seats.sit(HOST, RunId([3; 16]), address(1), LIMIT, now).is_ok());
}

#[test]
fn a_clone_is_noticed_though_it_is_never_let_in() {
    let (seats, now) = seats();
    let at = |seconds| now + Duration::from_secs(seconds);
    let seat = seats.sit(HOST, A, address(1), LIMIT, now).unwrap();
    // It tries and tries, and the other has not spoken meanwhile.
    for second in 1..10 {
        assert_eq!(seats.sit(HOST, B, address(2), LIMIT, at(second)).unwrap_err().cloned, None);
    }
    assert_eq!(seats.suspected(HOST, at(10)), None);
    seat.spoke(at(11));
    let cloned = seats.sit(HOST, B, address(2), LIMIT, at(12)).unwrap_err().cloned;
    assert_eq!(cloned.as_deref(), Some(&Cloned([address(1), address(2)])));
    assert_eq!(seats.suspected(HOST, at(13)).as_ref(), cloned.as_deref());
    assert_eq!(seats.suspected(HostId([6; 16]), at(13)), None);
}

#[test]
fn orders_are_bounded_and_the_last_word_comes_first() {
    let (seats, now) = seats();
    let seat = seats.sit(HOST, A, address(1), LIMIT, now).unwrap();
    let other = seats.sit(HostId([6; 16]), A, address(1), LIMIT, now).unwrap();
    for _ in 0..MAX_ORDERS {
        assert_eq!(seats.order_all(&Order::Pins(List::empty())), 2);
    }
    assert_eq!(orders(&other).len(), MAX_ORDERS);
    assert!(seats.order(HOST, Order::Pins(List::empty())));
    assert_eq!(codes(&seat), [Refusal::Unavailable], "one that takes no orders is to end");
    seats.order(HOST, Order::Pins(List::empty()));
    seats.order(HOST, Order::Close(refused(Refusal::Revoked, "", false)));
    seats.order(HOST, Order::Pins(List::empty()));
    assert_eq!(codes(&seat), [Refusal::Revoked]);
}

#[tokio::test]
async fn an_order_that_was_not_waited_for_to_the_end_comes_again() {
    let (seats, now) = seats();
    let seat = seats.sit(HOST, A, address(1), LIMIT, now).unwrap();
    for round in 0..100 {
        let mut waiting = Box::pin(seat.order());
        assert!(futures_util::poll!(&mut waiting).is_pending(), "round {round}");
        seats.order(HOST, Order::Pins(List::empty()));
        if round % 2 == 0 {
            assert_eq!(waiting.await, Order::Pins(List::empty()));
            continue;
        }
        drop(waiting);
        assert_eq!(seat.order().await, Order::Pins(List::empty()));
    }
}

#[test]
fn hosts_that_are_long_gone_are_forgotten() {
    let (seats, now) = seats();
    for i in 0..=255 {
        let mut host = [i; 16];
        host[15] = 0;
        drop(seats.sit(HostId(host), A, address(1), LIMIT, now).unwrap());
    }
    let places = || lock(&seats.shards[0]).places.len();
    assert_eq!(places(), 256);
    let _stays = seats.sit(HostId([64; 16]), A, address(1), LIMIT, now).unwrap();
    let later = now + Duration::from_secs(2 * 3_600);
    let _new = seats.sit(HostId([128; 16]), A, address(1), LIMIT, later).unwrap();
    assert_eq!(places(), 2);
}
