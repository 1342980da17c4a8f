//! The door of the clients' port: [`strangers`](super::strangers) and [`denials`](super::denials) with a clock.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::denials::Denials;
use super::place::Place;
use super::strangers::{Entry, Limits, Strangers, Ticket};
use crate::metrics::Metrics;
use crate::session::Door;

/// Who waits at the door, and who was denied there.
pub struct Gate {
    strangers: Mutex<Strangers<Arc<Place>>>,
    denials: Mutex<Denials>,
    metrics: Arc<Metrics>,
}

/// One stranger, until dropped.
pub struct Stranger {
    gate: Arc<Gate>,
    ticket: Ticket,
    place: Arc<Place>,
    is_delayed: bool,
}

/// A connection that may be, or become, a host's, until dropped.
pub struct Guest {
    gate: Arc<Gate>,
    network: IpAddr,
    place: Arc<Place>,
}

impl Gate {
    /// Nobody is there.
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { strangers: Mutex::new(Strangers::new(limits)), denials: Mutex::default(), metrics }
    }

    /// Somebody comes; `None` where there is no room.
    pub fn enter(self: &Arc<Self>, address: IpAddr, is_proxy: bool) -> Option<Stranger> {
        let place = Arc::new(Place::default());
        let mut strangers = lock(&self.strangers);
        let (ticket, ended) = match strangers.enter(Instant::now(), address, is_proxy, place.clone()) {
            Entry::In(ticket) => (ticket, None),
            Entry::Instead(ticket, ended) => (ticket, Some(ended)),
            Entry::Full => return None,
        };
        self.metrics.strangers.set(strangers.count() as u64);
        drop(strangers);
        if let Some(ended) = ended {
            ended.end();
        }
        Some(Stranger { gate: self.clone(), ticket, place, is_delayed: false })
    }

    fn leave(&self, ticket: &Ticket) {
        let mut strangers = lock(&self.strangers);
        strangers.leave(ticket);
        self.metrics.strangers.set(strangers.count() as u64);
    }
}

impl Stranger {
    /// Its place.
    pub fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Notes, when dropped, that a host has gone, if it became one.
    pub fn guest(&self) -> Guest {
        Guest { gate: self.gate.clone(), network: self.ticket.network(), place: self.place.clone() }
    }
}

impl Door for Stranger {
    fn admitted(self) {
        self.place.admit();
        lock(&self.gate.strangers).admitted(Instant::now(), &self.ticket);
    }

    fn denied(&mut self) -> Duration {
        // Whoever waits for a no takes nobody's place.
        self.gate.leave(&self.ticket);
        let delay = lock(&self.gate.denials).denied(Instant::now(), self.ticket.network());
        // A second denial of one connection does not come about; if it did, one wait would be told of.
        if self.is_delayed {
            lock(&self.gate.denials).waited();
        }
        self.is_delayed = !delay.is_zero();
        delay
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.gate.leave(&self.ticket);
        if self.is_delayed {
            lock(&self.gate.denials).waited();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.place.is_admitted() {
            lock(&self.gate.strangers).gone(Instant::now(), self.network);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> (Arc<Gate>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let limits = Limits { per_address: 2, unknown: 3, known: 4 };
        (Arc::new(Gate::new(limits, metrics.clone())), metrics)
    }

    #[test]
    fn places_are_free_again_however_a_stranger_goes() {
        let (gate, metrics) = gate();
        let enter = |address: &str| gate.enter(address.parse().unwrap(), false);
        let (one, mut two) = (enter("192.0.2.1").unwrap(), enter("192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none());
        assert_eq!(metrics.strangers.get(), 2);
        drop(one);
        assert_eq!(two.denied(), Duration::ZERO);
        assert_eq!(metrics.strangers.get(), 0);
        let mut three = enter("192.0.2.1").unwrap();
        assert_eq!(three.denied(), Duration::from_secs(1));
        drop((two, three));
        assert_eq!(metrics.strangers.get(), 0);
    }

    #[test]
    fn a_host_makes_its_address_known_also_after_it_has_gone() {
        let (gate, _) = gate();
        let enter = |address: &str| gate.enter(address.parse().unwrap(), false);
        let stranger = enter("192.0.2.1").unwrap();
        let guest = stranger.guest();
        stranger.admitted();
        drop(guest);
        let all: Vec<_> = (0..4).map_while(|_| enter("192.0.2.1")).collect();
        assert_eq!(all.len(), 4, "more than strangers of one address may be");
    }
}
