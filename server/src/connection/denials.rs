//! Growing delays for those whose secret or token is wrong, by address, decided without clocks.
//!
//! Only the refusal of the failing connection waits, and only so many at once: what is beyond is refused without a delay,
//! so that nobody's memory is filled with connections that wait for a no.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Longest delay.
const MOST_SECONDS: u32 = 10;
/// Time after the last failure until an address is forgotten.
const FORGET: Duration = Duration::from_secs(300);
/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 4096;
/// Time between two looks for addresses to forget while the table is full.
const SWEEP: Duration = Duration::from_secs(1);
/// Refusals that wait at once.
const MAX_WAITING: usize = 256;

/// Failures by address.
#[derive(Debug, Default)]
pub struct Denials {
    by_network: HashMap<IpAddr, Failures>,
    swept: Option<Instant>,
    waiting: usize,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Denials {
    /// Somebody's secret or token is wrong. Gives how long to wait before that is said; after a wait
    /// [`waited`](Self::waited) has to be told.
    pub fn denied(&mut self, now: Instant, network: IpAddr) -> Duration {
        if let Some(failures) = self.by_network.get_mut(&network) {
            if now.duration_since(failures.last) >= FORGET {
                failures.count = 0;
            }
            let seconds = failures.count.min(MOST_SECONDS);
            *failures = Failures { count: failures.count.saturating_add(1), last: now };
            if seconds == 0 || self.waiting >= MAX_WAITING {
                return Duration::ZERO;
            }
            self.waiting += 1;
            return Duration::from_secs(seconds.into());
        }
        if self.by_network.len() >= MAX_ADDRESSES
            && self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP)
        {
            self.swept = Some(now);
            self.by_network.retain(|_, failures| now.duration_since(failures.last) < FORGET);
        }
        if self.by_network.len() < MAX_ADDRESSES {
            self.by_network.insert(network, Failures { count: 1, last: now });
        }
        Duration::ZERO
    }

    /// A wait is over.
    pub fn waited(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn delays_grow_to_ten_seconds_and_are_forgotten_in_time() {
        let (mut denials, mut now) = (Denials::default(), Instant::now());
        for second in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10] {
            assert_eq!(denials.denied(now, address(1)), Duration::from_secs(second));
            if second > 0 {
                denials.waited();
            }
        }
        assert_eq!(denials.denied(now, address(2)), Duration::ZERO, "an address has its own");
        now += FORGET;
        assert_eq!(denials.denied(now, address(1)), Duration::ZERO);
        assert_eq!(denials.denied(now, address(1)), Duration::from_secs(1));
    }

    #[test]
    fn only_so_many_refusals_wait_at_once() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        denials.denied(now, address(1));
        let waiting = (0..1_000).filter(|_| !denials.denied(now, address(1)).is_zero()).count();
        assert_eq!(waiting, MAX_WAITING);
        denials.waited();
        assert!(!denials.denied(now, address(1)).is_zero());
        assert!(denials.denied(now, address(1)).is_zero());
    }

    #[test]
    fn the_table_is_bounded_and_makes_room_in_time() {
        let (mut denials, now) = (Denials::default(), Instant::now());
        for number in 0..10_000 {
            denials.denied(now, address(number));
        }
        assert_eq!(denials.by_network.len(), MAX_ADDRESSES);
        denials.denied(now + FORGET, address(20_000));
        assert_eq!(denials.by_network.len(), 1);
    }
}
