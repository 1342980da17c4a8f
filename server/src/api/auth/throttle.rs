//! How often passwords may be tried: a plain state machine that is told the time.
//!
//! Counted is by address and account together, with growing delays, so that a stranger elsewhere locks out nobody; and by
//! address alone, at a steady rate, so that one address cannot keep the server busy with many names. An IPv6 address counts
//! as its /64: that is what one machine has. What is counted is forgotten after an hour, and the table has an end: beyond it
//! the oldest entry goes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::network::network_of;
use crate::secret::Digest;

/// Wrong passwords for one account from one address before the first delay.
const FREE: u32 = 5;
/// Each further delay is twice as long, from 1 s to this.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Tries from one address for any accounts: this many at once, then one in [`STEADY`].
const BURST: u32 = 30;
const STEADY: Duration = Duration::from_secs(2);
/// Tries from one address under way at once.
const AT_ONCE: u32 = 4;
/// What is older counts no more.
const FORGET: Duration = Duration::from_secs(3_600);
/// How long it is remembered that somebody logged in from an address.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Entries of each table.
const MAX_ENTRIES: usize = 4_096;

/// What was tried how often from where.
#[derive(Debug, Default)]
pub struct Throttle {
    accounts: HashMap<(IpAddr, Digest), Account>,
    addresses: HashMap<IpAddr, Address>,
    /// From where somebody logged in, and when last.
    known: HashMap<IpAddr, Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    wrong: u32,
    last: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Address {
    /// Until when its tries are paid for.
    paid: Instant,
    under_way: u32,
    last: Instant,
}

/// A try that was let in; to be given back to [`Throttle::end`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Try {
    address: IpAddr,
    account: Digest,
}

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was the password.
    Right,
    /// It was not.
    Wrong,
    /// It was not looked at.
    Untried,
}

impl Throttle {
    /// Asks to try a password. It counts as wrong until it has ended, so that many at once gain nothing.
    ///
    /// # Errors
    /// The time to wait.
    pub fn begin(&mut self, from: IpAddr, name: &str, now: Instant) -> Result<Try, Duration> {
        let one = Try { address: network_of(from), account: Digest::of(name.as_bytes()) };
        let key = (one.address, one.account);
        let account = self.accounts.get(&key).copied().filter(|it| now < it.last + FORGET);
        let wrong = account.map_or(0, |account| account.wrong);
        if let Some(account) = account
            && now < account.last + delay(wrong)
        {
            return Err(account.last + delay(wrong) - now);
        }
        let known = self.addresses.get(&one.address).copied();
        let mut address = known.unwrap_or(Address { paid: now, under_way: 0, last: now });
        if address.under_way >= AT_ONCE {
            return Err(Duration::from_secs(1));
        }
        address.paid = address.paid.max(now) + STEADY;
        let most = now + STEADY * BURST;
        if address.paid > most {
            return Err(address.paid - most);
        }
        address.under_way += 1;
        address.last = now;
        put(&mut self.addresses, one.address, address, |it| (it.under_way > 0, it.last));
        let account = Account { wrong: wrong.saturating_add(1), last: now };
        put(&mut self.accounts, key, account, |it| (false, it.last));
        Ok(one)
    }

    /// Somebody logged in from there.
    pub fn know(&mut self, address: IpAddr, now: Instant) {
        put(&mut self.known, network_of(address), now, |it| *it);
    }

    /// Whether somebody logged in from there before.
    pub fn is_known(&self, address: IpAddr, now: Instant) -> bool {
        self.known.get(&network_of(address)).is_some_and(|last| now < *last + KNOWN_FOR)
    }

    /// Takes down how it ended.
    pub fn end(&mut self, one: Try, outcome: Outcome, now: Instant) {
        let key = (one.address, one.account);
        if let Some(address) = self.addresses.get_mut(&one.address) {
            address.under_way = address.under_way.saturating_sub(1);
        }
        if outcome == Outcome::Right {
            self.know(one.address, now);
        }
        let Some(account) = self.accounts.get_mut(&key) else { return };
        match outcome {
            Outcome::Right => {
                self.accounts.remove(&key);
            }
            // The delay begins with the answer.
            Outcome::Wrong => account.last = now,
            Outcome::Untried => account.wrong = account.wrong.saturating_sub(1),
        }
    }
}

fn delay(wrong: u32) -> Duration {
    match wrong.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(beyond) => Duration::from_secs(1 << beyond.min(20)).min(LONGEST),
    }
}

/// Puts an entry; where there is no room, in the place of the one that is worth least.
fn put<K: Hash + Eq + Copy, V, W: Ord>(table: &mut HashMap<K, V>, key: K, value: V, worth: impl Fn(&V) -> W) {
    if table.len() >= MAX_ENTRIES && !table.contains_key(&key) {
        let least = table.iter().min_by_key(|(_, value)| worth(value)).map(|(key, _)| *key);
        if let Some(least) = least {
            table.remove(&least);
        }
    }
    table.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Tries a wrong password now; the time to wait if it is not looked at.
    fn wrong(throttle: &mut Throttle, from: &str, name: &str, now: Instant) -> Option<Duration> {
        match throttle.begin(ip(from), name, now) {
            Ok(one) => {
                throttle.end(one, Outcome::Wrong, now);
                None
            }
            Err(wait) => Some(wait),
        }
    }

    #[test]
    fn delays_grow_and_end_at_the_longest() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..FREE {
            assert_eq!(wrong(&mut throttle, "192.0.2.1", "admin", now), None);
        }
        let mut waits = Vec::new();
        for _ in 0..13 {
            let wait = wrong(&mut throttle, "192.0.2.1", "admin", now).unwrap();
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(wrong(&mut throttle, "192.0.2.1", "admin", now), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        now += FORGET;
        for _ in 0..FREE {
            assert_eq!(wrong(&mut throttle, "192.0.2.1", "admin", now), None, "forgotten after an hour");
        }
    }

    #[test]
    fn a_stranger_locks_out_nobody_at_another_address_or_of_another_name() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        while wrong(&mut throttle, "192.0.2.1", "admin", now).is_none() {}
        assert_eq!(wrong(&mut throttle, "192.0.2.2", "admin", now), None);
        assert_eq!(wrong(&mut throttle, "192.0.2.1", "ann", now), None);
        assert!(
            wrong(&mut throttle, "::ffff:192.0.2.1", "admin", now).is_some(),
            "the same in IPv6's clothes"
        );
    }

    #[test]
    fn an_address_has_a_steady_rate_for_all_names_together() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let tried = (0..1_000).filter(|i| wrong(&mut throttle, "192.0.2.1", &i.to_string(), now).is_none());
        assert_eq!(tried.count(), BURST as usize);
        assert_eq!(wrong(&mut throttle, "192.0.2.1", "x", now), Some(STEADY));
        assert_eq!(wrong(&mut throttle, "192.0.2.1", "x", now + STEADY), None);
    }

    #[test]
    fn a_network_of_64_bits_counts_as_one_address() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..FREE {
            assert_eq!(wrong(&mut throttle, &format!("2001:db8:0:1::{i:x}"), "admin", now), None);
        }
        assert!(wrong(&mut throttle, "2001:db8:0:1:ffff::1", "admin", now).is_some());
        assert_eq!(wrong(&mut throttle, "2001:db8:0:2::1", "admin", now), None);
    }

    #[test]
    fn many_at_once_gain_nothing_and_the_right_password_forgets() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let all: Vec<_> =
            (0..100).filter_map(|_| throttle.begin(ip("192.0.2.1"), "admin", now).ok()).collect();
        assert_eq!(all.len(), AT_ONCE as usize);
        for one in all {
            throttle.end(one, Outcome::Untried, now);
        }
        for _ in 0..FREE - 1 {
            assert_eq!(
                wrong(&mut throttle, "192.0.2.1", "admin", now),
                None,
                "what was not looked at is not counted"
            );
        }
        let one = throttle.begin(ip("192.0.2.1"), "admin", now).unwrap();
        throttle.end(one, Outcome::Right, now);
        for _ in 0..FREE {
            assert_eq!(wrong(&mut throttle, "192.0.2.1", "admin", now), None);
        }
    }

    #[test]
    fn an_address_is_known_by_a_right_password_alone_and_for_a_month() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(wrong(&mut throttle, "2001:db8::1", "admin", now), None);
        assert!(!throttle.is_known(ip("2001:db8::1"), now));
        let one = throttle.begin(ip("2001:db8::1"), "admin", now).unwrap();
        throttle.end(one, Outcome::Right, now);
        assert!(throttle.is_known(ip("2001:db8::2"), now) && !throttle.is_known(ip("192.0.2.1"), now));
        assert!(!throttle.is_known(ip("2001:db8::1"), now + KNOWN_FOR));
        for i in 0..6_000_u32 {
            throttle.know(std::net::Ipv4Addr::from(i).into(), now + Duration::from_millis(i.into()));
        }
        assert_eq!(throttle.known.len(), MAX_ENTRIES);
    }

    #[test]
    fn the_tables_have_an_end_and_the_oldest_goes() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for i in 0..6_000_u32 {
            let from = std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string();
            assert_eq!(wrong(&mut throttle, &from, "admin", now + Duration::from_millis(i.into())), None);
        }
        assert_eq!((throttle.accounts.len(), throttle.addresses.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(!throttle.addresses.contains_key(&ip("10.0.0.0")));
        assert!(throttle.addresses.contains_key(&ip("10.0.23.111")));
    }
}
