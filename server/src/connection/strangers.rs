//! Who may wait at the door: connections that have not introduced themselves yet, decided without clocks or sockets.
//!
//! There are two pools. One is for addresses where a host is, or was within the last hour, at home: a fleet that comes back
//! finds room however many strangers come from elsewhere. The other is for all other addresses, and there each address has
//! a cap of its own too. In a full pool room is made by ending the stranger who has waited longest of the address that has
//! most: once it has waited longer than clients usually need, or at once where the newcomer's address has less than half as
//! many. So a flood from one address takes no room from others, and among connections of one address those go that say
//! nothing. Who finds no room is turned away.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::network::network_of;

/// Time after which a stranger may have to make room; longer where clients usually need more than half of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest that it becomes.
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// One in so many counts for how long clients usually need.
const SMOOTHING: u32 = 8;
/// Time for which an address is known after its last host left.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Addresses that can be known: more than there can be hosts.
const MAX_KNOWN: usize = 1 << 16;
/// Time between two looks for those that are known no more.
const SWEEP: Duration = Duration::from_secs(60);

/// How many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one address that is not known.
    pub per_address: usize,
    /// Of all addresses that are not known.
    pub unknown: usize,
    /// Of all addresses that are known.
    pub known: usize,
}

impl Limits {
    /// Of so many connections a quarter may be strangers': a part of it those of unknown addresses.
    pub fn of(connections: usize, per_address: usize) -> Self {
        Self { per_address, unknown: connections.div_ceil(16), known: connections.div_ceil(16) * 3 }
    }
}

/// A place among those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    number: u64,
    network: IpAddr,
    is_known: bool,
}

impl Ticket {
    /// What its holder counts as.
    pub fn network(&self) -> IpAddr {
        self.network
    }
}

/// Whether somebody may wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<Handle> {
    /// There is room.
    In(Ticket),
    /// Another has to go.
    Instead(Ticket, Handle),
    /// There is no room.
    Full,
}

/// Those who wait, each with a handle by which it can be ended.
#[derive(Debug)]
pub struct Strangers<Handle> {
    limits: Limits,
    unknown: Pool<Handle>,
    known: Pool<Handle>,
    homes: HashMap<IpAddr, Home>,
    swept: Option<Instant>,
    next: u64,
    /// How long clients take to introduce themselves.
    usual: Duration,
}

/// An address where hosts are at home.
#[derive(Debug)]
struct Home {
    connected: u32,
    last: Instant,
}

#[derive(Debug)]
struct Pool<Handle> {
    count: usize,
    by_network: HashMap<IpAddr, BTreeMap<u64, Waiting<Handle>>>,
    /// Each network with how many wait and the number of who waits longest; the last has most and waits longest.
    ranks: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

#[derive(Debug)]
struct Waiting<Handle> {
    since: Instant,
    handle: Handle,
}

impl<Handle> Strangers<Handle> {
    /// Nobody waits.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            unknown: Pool::new(),
            known: Pool::new(),
            homes: HashMap::new(),
            swept: None,
            next: 0,
            usual: Duration::ZERO,
        }
    }

    /// Somebody comes. A listed proxy's connections count as known until they say whom they are for.
    pub fn enter(&mut self, now: Instant, address: IpAddr, is_proxy: bool, handle: Handle) -> Entry<Handle> {
        let network = network_of(address);
        let is_known = is_proxy || self.is_known(now, network);
        let patience = (self.usual * 2).clamp(PATIENCE, MOST_PATIENCE);
        let (pool, most, most_of_address) = if is_known {
            (&mut self.known, self.limits.known, self.limits.known)
        } else {
            (&mut self.unknown, self.limits.unknown, self.limits.per_address)
        };
        let here = pool.of(network);
        let full = if here >= most_of_address {
            Some((network, false))
        } else if pool.count >= most {
            pool.fullest().map(|(count, network)| (network, (here + 1) * 2 <= count))
        } else {
            None
        };
        let ended = match full {
            None => None,
            Some((of, at_once)) => {
                match pool.longest(of).filter(|(_, since)| at_once || now.duration_since(*since) >= patience)
                {
                    Some((number, _)) => pool.remove(of, number),
                    None => return Entry::Full,
                }
            }
        };
        let ticket = Ticket { number: self.next, network, is_known };
        self.next += 1;
        pool.insert(network, ticket.number, Waiting { since: now, handle });
        match ended {
            None => Entry::In(ticket),
            Some(ended) => Entry::Instead(ticket, ended.handle),
        }
    }

    /// A stranger goes, or waits no longer. Nothing where it was ended.
    pub fn leave(&mut self, ticket: &Ticket) -> Option<Instant> {
        self.pool(ticket).remove(ticket.network, ticket.number).map(|waiting| waiting.since)
    }

    /// A stranger turns out to be a host, which stays until [`gone`](Self::gone).
    pub fn admitted(&mut self, now: Instant, ticket: &Ticket) {
        if let Some(since) = self.leave(ticket) {
            let took = now.duration_since(since);
            self.usual = (self.usual * (SMOOTHING - 1) + took) / SMOOTHING;
        }
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP) {
            self.swept = Some(now);
            self.homes.retain(|_, home| home.is_known(now));
        }
        if self.homes.len() < MAX_KNOWN || self.homes.contains_key(&ticket.network) {
            let home = self.homes.entry(ticket.network).or_insert(Home { connected: 0, last: now });
            home.connected = home.connected.saturating_add(1);
            home.last = now;
        }
    }

    /// A host has gone.
    pub fn gone(&mut self, now: Instant, network: IpAddr) {
        if let Some(home) = self.homes.get_mut(&network) {
            home.connected = home.connected.saturating_sub(1);
            home.last = now;
        }
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.unknown.count + self.known.count
    }

    fn is_known(&self, now: Instant, network: IpAddr) -> bool {
        self.homes.get(&network).is_some_and(|home| home.is_known(now))
    }

    fn pool(&mut self, ticket: &Ticket) -> &mut Pool<Handle> {
        if ticket.is_known { &mut self.known } else { &mut self.unknown }
    }
}

impl Home {
    fn is_known(&self, now: Instant) -> bool {
        self.connected > 0 || now.duration_since(self.last) < KNOWN_FOR
    }
}

impl<Handle> Pool<Handle> {
    fn new() -> Self {
        Self { count: 0, by_network: HashMap::new(), ranks: BTreeSet::new() }
    }

    /// How many of this network wait.
    fn of(&self, network: IpAddr) -> usize {
        self.by_network.get(&network).map_or(0, BTreeMap::len)
    }

    /// The network of which most wait.
    fn fullest(&self) -> Option<(usize, IpAddr)> {
        self.ranks.last().map(|(count, _, network)| (*count, *network))
    }

    /// Who waits longest of a network, and since when.
    fn longest(&self, network: IpAddr) -> Option<(u64, Instant)> {
        let (number, waiting) = self.by_network.get(&network)?.first_key_value()?;
        Some((*number, waiting.since))
    }

    fn insert(&mut self, network: IpAddr, number: u64, waiting: Waiting<Handle>) {
        self.change(network, |here| here.insert(number, waiting));
        self.count += 1;
    }

    fn remove(&mut self, network: IpAddr, number: u64) -> Option<Waiting<Handle>> {
        let removed = self.change(network, |here| here.remove(&number))?;
        self.count -= 1;
        Some(removed)
    }

    fn change<T>(
        &mut self,
        network: IpAddr,
        change: impl FnOnce(&mut BTreeMap<u64, Waiting<Handle>>) -> T,
    ) -> T {
        let here = self.by_network.entry(network).or_default();
        let rank = |here: &BTreeMap<u64, _>| Some((here.len(), Reverse(*here.first_key_value()?.0), network));
        let before = rank(here);
        let done = change(here);
        let after = rank(here);
        if before != after {
            before.map(|before| self.ranks.remove(&before));
            self.ranks.extend(after);
        }
        if here.is_empty() {
            self.by_network.remove(&network);
        }
        done
    }
}

#[cfg(test)]
#[path = "strangers_tests.rs"]
mod tests;
