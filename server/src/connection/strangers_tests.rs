//! Floods, storms and honest clients, by the clock of the test.

use super::*;

const LIMITS: Limits = Limits { per_address: 3, unknown: 6, known: 6 };
const MS: Duration = Duration::from_millis(1);

struct Door {
    strangers: Strangers<u32>,
    now: Instant,
    name: u32,
}

impl Door {
    fn new(limits: Limits) -> Self {
        Self { strangers: Strangers::new(limits), now: Instant::now(), name: 0 }
    }

    /// Somebody comes; who comes is numbered from 1.
    fn enter(&mut self, address: &str) -> Entry<u32> {
        self.name += 1;
        self.strangers.enter(self.now, address.parse().unwrap(), false, self.name)
    }

    fn enters(&mut self, address: &str) -> Ticket {
        match self.enter(address) {
            Entry::In(ticket) | Entry::Instead(ticket, _) => ticket,
            Entry::Full => panic!("no room for {address}"),
        }
    }

    /// A host is at home there.
    fn know(&mut self, address: &str) {
        let ticket = self.enters(address);
        self.strangers.admitted(self.now, &ticket);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn strangers_of_one_address_are_few_and_leave_room_when_they_go() {
    let mut door = Door::new(LIMITS);
    let first = door.enters("192.0.2.1");
    door.enters("::ffff:192.0.2.1");
    door.enters("192.0.2.1");
    assert_eq!(door.enter("192.0.2.1"), Entry::Full);
    door.enters("192.0.2.2");
    assert!(door.strangers.leave(&first).is_some() && door.strangers.leave(&first).is_none());
    assert!(matches!(door.enter("192.0.2.1"), Entry::In(_)));
    assert_eq!(door.strangers.count(), 4);
}

#[test]
fn who_has_waited_a_second_makes_room_for_a_newcomer() {
    let mut door = Door::new(LIMITS);
    door.enters("192.0.2.1");
    door.wait(500 * MS);
    door.enters("192.0.2.1");
    door.enters("192.0.2.1");
    door.wait(499 * MS);
    assert_eq!(door.enter("192.0.2.1"), Entry::Full);
    door.wait(MS);
    assert!(matches!(door.enter("192.0.2.1"), Entry::Instead(_, 1)));
    assert_eq!(door.enter("192.0.2.1"), Entry::Full, "the next is younger");
}

#[test]
fn a_full_pool_ends_the_one_that_waits_longest_of_the_address_that_has_most() {
    let mut door = Door::new(LIMITS);
    door.enters("192.0.2.1");
    for _ in 0..3 {
        door.enters("192.0.2.2");
    }
    door.enters("192.0.2.3");
    door.enters("192.0.2.4");
    // Has less than half as many: takes the place at once.
    let Entry::Instead(_, ended) = door.enter("192.0.2.5") else { panic!("no room") };
    assert_eq!(ended, 2);
    // Two against one now: that takes patience.
    assert_eq!(
        door.enter("192.0.2.6"),
        Entry::Instead(Ticket { number: 7, network: "192.0.2.6".parse().unwrap(), is_known: false }, 3)
    );
    assert_eq!(door.enter("192.0.2.7"), Entry::Full);
    door.wait(PATIENCE);
    assert!(matches!(door.enter("192.0.2.7"), Entry::Instead(_, 1)), "all have one: the oldest");
    assert_eq!(door.strangers.count(), LIMITS.unknown);
}

#[test]
fn a_flood_of_strangers_takes_no_room_from_addresses_with_hosts() {
    let mut door = Door::new(LIMITS);
    door.know("198.51.100.1");
    for host in 0..200 {
        door.enter(&format!("192.0.2.{host}"));
    }
    for _ in 0..LIMITS.known {
        assert!(
            matches!(door.enter("198.51.100.1"), Entry::In(_)),
            "more than strangers of one address may be"
        );
    }
}

#[test]
fn an_attacker_among_hosts_behind_one_address_takes_no_room_from_hosts_elsewhere() {
    let mut door = Door::new(LIMITS);
    door.know("198.51.100.1");
    door.know("198.51.100.2");
    for _ in 0..100 {
        door.enter("198.51.100.1");
    }
    assert!(matches!(door.enter("198.51.100.2"), Entry::Instead(..)));
    // Of those behind it with him, who say their Hello at once, one comes in each second at the least.
    door.wait(PATIENCE);
    assert!(matches!(door.enter("198.51.100.1"), Entry::Instead(..)));
}

#[test]
fn an_address_is_known_while_a_host_is_there_and_for_an_hour_after() {
    let mut door = Door::new(LIMITS);
    let address = "198.51.100.1".parse().unwrap();
    door.know("198.51.100.1");
    door.wait(5 * KNOWN_FOR);
    assert!(door.strangers.is_known(door.now, address));
    door.strangers.gone(door.now, address);
    door.wait(KNOWN_FOR - MS);
    assert!(door.strangers.is_known(door.now, address));
    door.wait(MS);
    assert!(!door.strangers.is_known(door.now, address));
    door.know("198.51.100.2");
    assert_eq!(door.strangers.homes.len(), 1, "what is over is forgotten");
}

#[test]
fn a_busy_server_gives_clients_more_time_but_not_without_end() {
    let mut door = Door::new(LIMITS);
    for _ in 0..20 {
        let ticket = door.enters("192.0.2.1");
        door.wait(Duration::from_secs(2));
        door.strangers.admitted(door.now, &ticket);
    }
    for _ in 0..LIMITS.known {
        door.enters("192.0.2.1");
    }
    door.wait(2 * PATIENCE);
    assert_eq!(door.enter("192.0.2.1"), Entry::Full);
    door.wait(MOST_PATIENCE);
    assert!(matches!(door.enter("192.0.2.1"), Entry::Instead(..)));
}

#[test]
fn a_storm_of_ten_thousand_from_one_address_is_through() {
    let mut door = Door::new(Limits::of(20_000, 512));
    let (mut outside, mut waiting) = (10_000, std::collections::VecDeque::new());
    let mut rounds = 0;
    // Each round is 100 ms, in which the server lets in 100.
    while outside + waiting.len() > 0 {
        for _ in 0..std::mem::take(&mut outside) {
            match door.enter("192.0.2.1") {
                Entry::In(ticket) => waiting.push_back(ticket),
                Entry::Instead(ticket, _) => {
                    waiting.pop_front();
                    waiting.push_back(ticket);
                    outside += 1;
                }
                Entry::Full => outside += 1,
            }
        }
        door.wait(100 * MS);
        for ticket in waiting.drain(..waiting.len().min(100)) {
            door.strangers.admitted(door.now, &ticket);
        }
        rounds += 1;
        assert!(rounds < 600, "{outside} outside, {} wait", waiting.len());
    }
    assert_eq!(door.strangers.count(), 0);
}

#[test]
fn a_64_of_ipv6_counts_as_one() {
    let network = |text: &str| network_of(text.parse().unwrap());
    assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::1"));
    assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
}

#[test]
fn nothing_is_left_of_an_address_when_its_last_stranger_is_gone() {
    let mut door = Door::new(LIMITS);
    let tickets = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(|address| door.enters(address));
    for ticket in &tickets {
        door.strangers.leave(ticket);
    }
    let pool = &door.strangers.unknown;
    assert!(pool.by_network.is_empty() && pool.ranks.is_empty() && pool.count == 0);
}

#[test]
fn a_listed_proxy_may_bring_more_than_an_address_of_strangers() {
    let mut door = Door::new(LIMITS);
    let proxy = "192.0.2.1".parse().unwrap();
    for _ in 0..LIMITS.known {
        assert!(matches!(door.strangers.enter(door.now, proxy, true, 0), Entry::In(_)));
    }
}
