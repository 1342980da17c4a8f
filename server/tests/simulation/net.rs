//! The network that is not there: connections carry bytes in order, late, in pieces, up to a byte at which they break,
//! or nowhere at all without a word.

use std::collections::BTreeMap;

use fastrand::Rng;

/// A connection, by number.
pub type ConnId = u64;

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What reaches an end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// The attempt to connect went well (the client is told; the server had it `Accepted`).
    Connected,
    /// It did not.
    Refused,
    /// The server has a new connection.
    Accepted,
    /// Bytes.
    Bytes(Vec<u8>),
    /// The other end closed it; nothing more comes.
    Closed,
    /// It broke.
    Broken,
}

/// Something that arrives at a time.
#[derive(Debug)]
pub struct Delivery {
    pub conn: ConnId,
    pub host: usize,
    pub to: End,
    pub what: Arrival,
}

#[derive(Debug)]
struct Conn {
    host: usize,
    /// Bytes that still pass before it breaks, whichever way they go.
    left: Option<usize>,
    /// Nothing passes any more, and nobody is told.
    is_silent: bool,
    /// It is over: what is under way still arrives.
    is_over: bool,
    /// When the last that was sent arrives at the client and at the server: order is kept.
    last: [u64; 2],
}

/// The way between one host and the server.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Delay to the server and back in ms.
    pub up_ms: u64,
    pub down_ms: u64,
    /// No connection comes about: refused at once, or (true) only after a while.
    pub shut: Option<bool>,
}

/// How long a client waits for a connection that never comes about.
const CONNECT_TIMEOUT_MS: u64 = 10_000;

/// All connections, and what is under way.
#[derive(Debug)]
pub struct Net {
    pub ways: Vec<Way>,
    conns: BTreeMap<ConnId, Conn>,
    next: ConnId,
    under_way: BTreeMap<(u64, u64), Delivery>,
    seq: u64,
    rng: Rng,
}

impl Net {
    pub fn new(ways: Vec<Way>, rng: Rng) -> Self {
        Self { ways, conns: BTreeMap::new(), next: 1, under_way: BTreeMap::new(), seq: 0, rng }
    }

    /// When the next thing arrives.
    pub fn next_at(&self) -> Option<u64> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    /// What arrives first, if it has by `now`.
    pub fn take(&mut self, now: u64) -> Option<Delivery> {
        let first = self.under_way.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// A client connects to a server that listens, or not.
    pub fn connect(&mut self, now: u64, host: usize, listens: bool) -> ConnId {
        let id = self.next;
        self.next += 1;
        let way = self.ways[host];
        self.conns.insert(id, Conn { host, left: None, is_silent: false, is_over: false, last: [now; 2] });
        match way.shut {
            Some(true) => self.put(now + CONNECT_TIMEOUT_MS, id, End::Client, Arrival::Refused),
            None if listens => {
                self.deliver(now, id, End::Server, Arrival::Accepted);
                let back = now + way.up_ms;
                self.deliver(back, id, End::Client, Arrival::Connected);
            }
            _ => self.put(now + way.up_ms + way.down_ms, id, End::Client, Arrival::Refused),
        }
        id
    }

    /// Sends bytes from an end.
    pub fn send(&mut self, now: u64, conn: ConnId, from: End, bytes: &[u8]) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if state.is_silent || state.is_over {
            return;
        }
        let mut pass = bytes.len();
        if let Some(left) = &mut state.left {
            pass = pass.min(*left);
            *left -= pass;
        }
        let breaks = state.left == Some(0);
        let mut rest = &bytes[..pass];
        while !rest.is_empty() {
            let piece = if self.rng.u8(..4) == 0 { self.rng.usize(1..=rest.len()) } else { rest.len() };
            let (first, after) = rest.split_at(piece);
            self.deliver(now, conn, from.other(), Arrival::Bytes(first.to_vec()));
            rest = after;
        }
        if breaks {
            self.break_off(now, conn);
        }
    }

    /// An end closes in order: what it sent before arrives.
    pub fn close(&mut self, now: u64, conn: ConnId, from: End) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if !std::mem::replace(&mut state.is_over, true) && !state.is_silent {
            self.deliver(now, conn, from.other(), Arrival::Closed);
        }
    }

    /// The process at an end died: its system tells the other end, unless the machine died with it.
    pub fn died(&mut self, now: u64, conn: ConnId, from: End, with_machine: bool) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if with_machine {
            state.is_silent = true;
        } else if !std::mem::replace(&mut state.is_over, true) && !state.is_silent {
            self.deliver(now, conn, from.other(), Arrival::Broken);
        }
    }

    /// Connections of a host that nobody has ended.
    pub fn open_of(&self, host: usize) -> Vec<ConnId> {
        let open =
            self.conns.iter().filter(|(_, conn)| conn.host == host && !conn.is_over && !conn.is_silent);
        open.map(|(id, _)| *id).collect()
    }

    /// The connection breaks once so many bytes more have passed.
    pub fn cut_after(&mut self, now: u64, conn: ConnId, bytes: usize) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.left = Some(bytes);
        }
        if bytes == 0 {
            self.break_off(now, conn);
        }
    }

    /// From now on it swallows everything.
    pub fn silence(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.is_silent = true;
        }
    }

    fn break_off(&mut self, now: u64, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        if std::mem::replace(&mut state.is_over, true) {
            return;
        }
        self.deliver(now, conn, End::Client, Arrival::Broken);
        self.deliver(now, conn, End::Server, Arrival::Broken);
    }

    fn deliver(&mut self, now: u64, conn: ConnId, to: End, what: Arrival) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        let way = self.ways[state.host];
        let (delay, last) = match to {
            End::Client => (way.down_ms, &mut state.last[0]),
            End::Server => (way.up_ms, &mut state.last[1]),
        };
        *last = (now + delay).max(*last);
        let at = *last;
        self.put(at, conn, to, what);
    }

    fn put(&mut self, at: u64, conn: ConnId, to: End, what: Arrival) {
        let Some(state) = self.conns.get(&conn) else { return };
        self.seq += 1;
        self.under_way.insert((at, self.seq), Delivery { conn, host: state.host, to, what });
    }
}
