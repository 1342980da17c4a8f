//! Who is connected: one seat a host, and what a session is told from outside.
//!
//! The same run of a client takes over its own seat at once: its old connection is half open. Another run gets it only
//! once the connection that holds it has been silent for longer than its host's down limit. Who tries all the same is
//! noted, so that a copied identity is told from a client that restarts: see `turns`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use vitals_wire::bounded::List;
use vitals_wire::ids::{HostId, RunId};
use vitals_wire::limits::MAX_PINS;
use vitals_wire::message::{Refusal, Refused};

use super::protocol::refused;
pub use super::turns::Cloned;
use super::turns::Turns;

/// Orders that wait for one session. One that has not taken so many is told to end: it writes to a peer that takes
/// nothing in, and has a deadline for that.
pub const MAX_ORDERS: usize = 8;
/// Hosts are spread over this many locks, so that sessions on both cores rarely meet.
const SHARDS: usize = 64;
/// Time after which a shard is looked through for hosts that are long gone.
const SWEEP: Duration = Duration::from_secs(600);
/// In place of a time: the client said good-bye, and whoever comes may have the seat.
const SAID_BYE: u64 = u64::MAX;

/// What a session is told from outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// End the connection with these words.
    Close(Refused),
    /// End the connection without a word: a newer one of the same client has its seat.
    Replaced,
    /// Tell the client these keys.
    Pins(List<[u8; 32], MAX_PINS>),
}

/// Why a host gets no seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Where the client is connected from that holds it.
    pub address: SocketAddr,
    /// How long that has been silent.
    pub silent: Duration,
    /// The silence after which it would lose it.
    pub limit: Duration,
    /// A clone to be reported.
    pub cloned: Option<Box<Cloned>>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, silent, limit, .. } = self;
        write!(
            f,
            "another run of this host's client is connected from {address} and spoke {} s ago; it keeps the place until it is \
             silent for {} s. If this machine is a copy of that one, remove the copied identity here, so that it joins as \
             a host of its own",
            silent.as_secs(),
            limit.as_secs()
        )
    }
}

/// The seats of all hosts.
#[derive(Debug)]
pub struct Seats {
    shards: [Mutex<Shard>; SHARDS],
    /// The zero of all times here.
    start: Instant,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<HostId, Place>,
    swept: Duration,
}

/// A host that is connected, or was lately.
#[derive(Debug, Default)]
struct Place {
    holder: Option<Holder>,
    turns: Turns,
}

#[derive(Debug)]
struct Holder {
    run: RunId,
    address: SocketAddr,
    limit: Duration,
    shared: Arc<Mailbox>,
}

/// What a session and the rest of the server share. Empty it takes no more than itself.
#[derive(Debug)]
struct Mailbox {
    /// When the client last spoke, in ms.
    spoke_ms: AtomicU64,
    orders: Mutex<VecDeque<Order>>,
    /// It was told to end: whoever comes may have the seat.
    is_ending: AtomicBool,
    came: Notify,
}

impl Mailbox {
    fn put(&self, order: Order) {
        let mut orders = lock(&self.orders);
        if matches!(orders.front(), Some(Order::Close(_) | Order::Replaced)) {
            return;
        }
        match order {
            Order::Close(_) | Order::Replaced => {
                self.is_ending.store(true, Relaxed);
                orders.clear();
                orders.push_back(order);
            }
            _ if orders.len() >= MAX_ORDERS => {
                orders.clear();
                let text = "the client has not taken in what it was told: it is to connect anew";
                orders.push_back(Order::Close(refused(Refusal::Unavailable, text, true)));
            }
            order => orders.push_back(order),
        }
        drop(orders);
        self.came.notify_one();
    }
}

/// A host's seat, free again when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    host: HostId,
    shared: Arc<Mailbox>,
    /// A clone to be reported.
    pub cloned: Option<Box<Cloned>>,
}

impl Default for Seats {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), start: Instant::now() }
    }
}

impl Seats {
    /// Gives the host's seat to this connection, and tells the one that had it to end. `down_limit` is the silence after
    /// which another run may have it.
    ///
    /// # Errors
    /// Another run holds it and is there.
    pub fn sit(
        self: &Arc<Self>,
        host: HostId,
        run: RunId,
        address: SocketAddr,
        down_limit: Duration,
        now: Instant,
    ) -> Result<Seat, Taken> {
        let now = self.since_start(now);
        let mut shard = self.shard(host);
        if now.saturating_sub(shard.swept) >= SWEEP {
            shard.swept = now;
            shard.places.retain(|_, place| place.holder.is_some() || !place.turns.is_stale(now));
        }
        let place = shard.places.entry(host).or_default();
        let mut cloned = None;
        if let Some(holder) = &place.holder {
            let spoke_ms = holder.shared.spoke_ms.load(Relaxed);
            let spoke = Duration::from_millis(spoke_ms);
            let is_going = spoke_ms == SAID_BYE || holder.shared.is_ending.load(Relaxed);
            let is_other = holder.run != run && !is_going;
            // It has spoken since the newcomer last tried.
            if is_other && spoke > place.turns.last() {
                cloned = place.turns.heard(holder.run, holder.address, spoke);
            }
            let silent = now.saturating_sub(spoke);
            if is_other && silent <= holder.limit {
                let (address_held, limit) = (holder.address, holder.limit);
                let cloned = cloned.or(place.turns.heard(run, address, now)).map(Box::new);
                return Err(Taken { address: address_held, silent, limit, cloned });
            }
            holder.shared.put(match holder.run == run {
                true => Order::Replaced,
                false => Order::Close(refused(
                    Refusal::IdentityInUse,
                    format!("another run of this host's client has connected from {address} while this one was silent"),
                    true,
                )),
            });
        }
        let cloned = cloned.or(place.turns.heard(run, address, now)).map(Box::new);
        let shared = Arc::new(Mailbox {
            spoke_ms: AtomicU64::new(ms(now)),
            orders: Mutex::default(),
            is_ending: AtomicBool::new(false),
            came: Notify::new(),
        });
        place.holder = Some(Holder { run, address, limit: down_limit, shared: shared.clone() });
        Ok(Seat { seats: self.clone(), host, shared, cloned })
    }

    /// Tells the session of a host. False where there is none.
    pub fn order(&self, host: HostId, order: Order) -> bool {
        let mailbox = self.shard(host).places.get(&host).and_then(Place::mailbox);
        mailbox.map(|mailbox| mailbox.put(order)).is_some()
    }

    /// Tells all sessions; gives how many there are.
    pub fn order_all(&self, order: &Order) -> usize {
        let mut told = 0;
        for shard in &self.shards {
            let mailboxes: Vec<_> = lock(shard).places.values().filter_map(Place::mailbox).collect();
            told += mailboxes.len();
            mailboxes.iter().for_each(|mailbox| mailbox.put(order.clone()));
        }
        told
    }

    /// The addresses from which a host's identity is used at the same time, where that was seen within the last ten
    /// minutes.
    pub fn suspected(&self, host: HostId, now: Instant) -> Option<Cloned> {
        let now = self.since_start(now);
        self.shard(host).places.get(&host)?.turns.suspected(now)
    }

    /// Whole milliseconds, as seats keep them.
    fn since_start(&self, now: Instant) -> Duration {
        Duration::from_millis(ms(now.saturating_duration_since(self.start)))
    }

    fn shard(&self, host: HostId) -> MutexGuard<'_, Shard> {
        // Ids are random: their last byte spreads well.
        lock(&self.shards[usize::from(host.0[15]) % SHARDS])
    }
}

impl Place {
    fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.holder.as_ref().map(|holder| holder.shared.clone())
    }
}

impl Seat {
    /// The client said something.
    pub fn spoke(&self, now: Instant) {
        self.shared.spoke_ms.store(ms(self.seats.since_start(now)), Relaxed);
    }

    /// The client said good-bye: another run may come at once. The seat stays, and hears orders, until it is dropped.
    pub fn said_bye(&self) {
        self.shared.spoke_ms.store(SAID_BYE, Relaxed);
    }

    /// The next order. Nothing is lost where this is not waited for to the end.
    pub async fn order(&self) -> Order {
        loop {
            let came = self.shared.came.notified();
            if let Some(order) = lock(&self.shared.orders).pop_front() {
                return order;
            }
            came.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.seats.shard(self.host);
        if let Some(place) = shard.places.get_mut(&self.host) {
            place.holder.take_if(|holder| Arc::ptr_eq(&holder.shared, &self.shared));
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(SAID_BYE - 1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is valid after each single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "seats_tests.rs"]
mod tests;
