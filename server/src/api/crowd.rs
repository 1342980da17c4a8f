//! How many are there at once, in all and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::network::network_of;

/// Those who are there.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    most_of_address: usize,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why one more has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There are as many as may be.
    All,
    /// There are as many of this address as may be.
    Address,
}

/// A place, until dropped.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    /// `None`: not counted by address.
    address: Option<IpAddr>,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(most: usize, most_of_address: usize) -> Self {
        Self { most, most_of_address, counts: Mutex::default() }
    }

    /// Gives a place. `many`: one that speaks for many others, a proxy, counts only in all.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(self: &Arc<Self>, address: IpAddr, many: bool) -> Result<Place, Full> {
        let address = (!many).then(|| network_of(address));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.most {
            return Err(Full::All);
        }
        if let Some(address) = address {
            let here = counts.by_address.get(&address).copied().unwrap_or_default();
            if here >= self.most_of_address {
                return Err(Full::Address);
            }
            counts.by_address.insert(address, here + 1);
        }
        counts.all += 1;
        Ok(Place { crowd: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        let Some(address) = self.address else { return };
        if let Some(here) = counts.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                counts.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_address_are_few_and_leave_room_when_they_go() {
        let crowd = Arc::new(Crowd::new(3, 2));
        let enter = |address: &str| crowd.enter(address.parse().unwrap(), false);
        let first = enter("192.0.2.1").unwrap();
        let _second = enter("::ffff:192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Full::Address);
        let other = enter("2001:db8:1:2:3::4").unwrap();
        assert_eq!(enter("192.0.2.9").unwrap_err(), Full::All, "others are not held back until all is full");
        drop((first, other));
        let _again = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").unwrap_err(), Full::Address);
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one_and_nothing_is_left_of_it() {
        let crowd = Arc::new(Crowd::new(9, 1));
        let one = crowd.enter("2001:db8:1:2:3::4".parse().unwrap(), false).unwrap();
        assert!(crowd.enter("2001:db8:1:2:ffff::1".parse().unwrap(), false).is_err());
        drop((one, crowd.enter("2001:db8:1:3::1".parse().unwrap(), false).unwrap()));
        let counts = crowd.counts.lock().unwrap();
        assert!(counts.all == 0 && counts.by_address.is_empty());
    }

    #[test]
    fn who_speaks_for_many_counts_in_all_alone() {
        let crowd = Arc::new(Crowd::new(3, 1));
        let proxy = "192.0.2.1".parse().unwrap();
        let _places: Vec<Place> = (0..3).map(|_| crowd.enter(proxy, true).unwrap()).collect();
        assert_eq!(crowd.enter(proxy, true).unwrap_err(), Full::All);
    }
}
