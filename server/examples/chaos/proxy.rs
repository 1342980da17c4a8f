//! A TCP proxy that does to connections what networks do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::schedule::Fault;

/// Bytes taken from one side at once.
const PIECE: usize = 16 << 10;
/// Of new connections in bad weather, how many in a hundred get a byte at which they break.
const DOOMED: u32 = 15;
/// The highest byte at which they do.
const DOOM_WITHIN: f64 = 256.0 * 1024.0;
/// Where this much is left no cut is near.
const NO_CUT: i64 = i64::MAX / 2;
/// Before a port that was let go is tried again.
const BIND_AGAIN: Duration = Duration::from_millis(20);

/// What it does to all connections now.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    is_bad: bool,
    refuses: bool,
    /// Grows with each order to cut, which is for this share.
    cut_order: u64,
    cut_share: f64,
    /// Grows with each freeze.
    freeze_order: u64,
    /// Zero: nothing is frozen.
    freeze_share: f64,
    delay: Duration,
    /// Zero: no limit.
    bytes_per_second: u32,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections taken.
    pub connections: AtomicU64,
    /// Connections cut.
    pub cuts: AtomicU64,
    /// Connections frozen.
    pub freezes: AtomicU64,
    /// Times that new connections were refused for a while.
    pub refusals: AtomicU64,
}

/// A running proxy. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it did.
    pub counts: Arc<Counts>,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on the loopback at `port` and passes all on to `upstream`, until told otherwise.
    pub async fn start(port: u16, upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind(address).await?;
        let (weather, watching) = watch::channel(Weather::default());
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(accept(listener, address, upstream, watching, counts.clone(), seed));
        Ok(Self { address, counts, weather, task })
    }

    /// From now on connections may break at any byte.
    pub fn begin_bad_weather(&self) {
        self.weather.send_modify(|weather| weather.is_bad = true);
    }

    /// Begins this.
    pub fn begin(&self, fault: Fault) {
        self.weather.send_modify(|weather| match fault {
            Fault::Cut(share) => {
                weather.cut_order += 1;
                weather.cut_share = share;
            }
            Fault::Freeze(share) => {
                weather.freeze_order += 1;
                weather.freeze_share = share;
            }
            Fault::Delay(delay) => weather.delay = delay,
            Fault::Throttle(rate) => weather.bytes_per_second = rate,
            Fault::Refuse => {
                weather.refuses = true;
                weather.cut_order += 1;
                weather.cut_share = 1.0;
            }
        });
        if fault == Fault::Refuse {
            self.counts.refusals.fetch_add(1, Relaxed);
        }
    }

    /// Ends what `fault` began.
    pub fn end(&self, fault: Fault) {
        self.weather.send_modify(|weather| match fault {
            Fault::Cut(_) => {}
            Fault::Freeze(_) => weather.freeze_share = 0.0,
            Fault::Delay(_) => weather.delay = Duration::ZERO,
            Fault::Throttle(_) => weather.bytes_per_second = 0,
            Fault::Refuse => weather.refuses = false,
        });
    }

    /// All passes from now on.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| {
            let Weather { cut_order, freeze_order, .. } = *weather;
            *weather = Weather { cut_order, freeze_order, ..Weather::default() };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
    seed: u64,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        let refuses = weather.borrow_and_update().refuses;
        if refuses {
            listener = None;
        } else if listener.is_none() {
            listener = TcpListener::bind(address).await.ok();
            if listener.is_none() {
                sleep(BIND_AGAIN).await;
                continue;
            }
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = accepted => {
                let Ok((stream, _)) = stream else { continue };
                let number = counts.connections.fetch_add(1, Relaxed);
                let rng = Rng::with_seed(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                connections.spawn(connection(stream, upstream, weather.clone(), counts.clone(), rng));
            }
            changed = weather.changed() => if changed.is_err() { return },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// As its sender wished.
    Closed,
    /// An error of either side.
    Broken,
    /// The byte was reached at which it had to break.
    Cut,
}

/// What both directions of a connection share.
struct Line {
    /// Bytes until it breaks.
    left: AtomicI64,
    frozen: watch::Sender<bool>,
    weather: watch::Receiver<Weather>,
}

impl Line {
    /// Waits while nothing may pass.
    async fn gate(&self) {
        let mut frozen = self.frozen.subscribe();
        // It is gone only with the line.
        let _ = frozen.wait_for(|frozen| !frozen).await;
    }

    /// Waits as long as so many bytes take.
    async fn travel(&self, bytes: usize) {
        let Weather { delay, bytes_per_second, .. } = *self.weather.borrow();
        let mut time = delay;
        if bytes_per_second > 0 {
            time += Duration::from_secs_f64(bytes as f64 / f64::from(bytes_per_second));
        }
        if !time.is_zero() {
            sleep(time).await;
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: &Line) -> Fate {
    let mut piece = vec![0; PIECE];
    loop {
        line.gate().await;
        // Small pieces where bytes are slow, so that the rate is one.
        let most = match line.weather.borrow().bytes_per_second {
            0 => PIECE,
            rate => (rate as usize / 10).clamp(1, PIECE),
        };
        let Some(room) = piece.get_mut(..most) else { return Fate::Broken };
        let bytes = match from.read(room).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return Fate::Closed;
            }
            Ok(bytes) => bytes,
            Err(_) => return Fate::Broken,
        };
        line.travel(bytes).await;
        line.gate().await;
        let left = line.left.fetch_sub(bytes as i64, Relaxed).max(0) as usize;
        let passing = bytes.min(left);
        let Some(passing) = piece.get(..passing) else { return Fate::Broken };
        if to.write_all(passing).await.is_err() {
            return Fate::Broken;
        }
        if passing.len() < bytes {
            return Fate::Cut;
        }
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
    mut rng: Rng,
) {
    // The client finds its connection closed: a proxy cannot refuse for another.
    let Ok(server) = TcpStream::connect(upstream).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut seen = *weather.borrow_and_update();
    let is_doomed = seen.is_bad && rng.u32(0..100) < DOOMED;
    let left = if is_doomed { DOOM_WITHIN.powf(rng.f64()) as i64 } else { NO_CUT };
    let line = Line {
        left: AtomicI64::new(left),
        frozen: watch::Sender::new(seen.freeze_share > rng.f64()),
        weather: weather.clone(),
    };
    counts.freezes.fetch_add(u64::from(*line.frozen.borrow()), Relaxed);
    // What is left after both halves are gone, to say how they are closed.
    let (Ok(client_fd), Ok(server_fd)) = (duplicate(&client), duplicate(&server)) else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = pump(client_read, server_write, &line);
    let down = pump(server_read, client_write, &line);
    tokio::pin!(up, down);
    let (mut up_open, mut down_open) = (true, true);
    let fate = loop {
        let fate = tokio::select! {
            fate = &mut up, if up_open => { up_open = false; fate }
            fate = &mut down, if down_open => { down_open = false; fate }
            changed = weather.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = *weather.borrow_and_update();
                let was = std::mem::replace(&mut seen, now);
                match obey(&line, was, now, &counts, &mut rng) {
                    true => Fate::Cut,
                    false => continue,
                }
            }
        };
        if fate != Fate::Closed || !(up_open || down_open) {
            break fate;
        }
    };
    if fate == Fate::Cut {
        counts.cuts.fetch_add(1, Relaxed);
    }
    // A cut is a reset or a plain end, to both sides or, for a while, to one alone.
    if fate != Fate::Closed && rng.bool() {
        for socket in [&client_fd, &server_fd] {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

/// Takes in a change of the weather. Gives whether the connection is cut at once.
fn obey(line: &Line, was: Weather, now: Weather, counts: &Counts, rng: &mut Rng) -> bool {
    if !now.is_bad && was.is_bad {
        line.left.store(NO_CUT, Relaxed);
    }
    if now.freeze_order != was.freeze_order && rng.f64() < now.freeze_share {
        counts.freezes.fetch_add(1, Relaxed);
        line.frozen.send_replace(true);
    }
    if now.freeze_share == 0.0 && line.frozen.send_replace(false) && rng.bool() {
        // What was half open either goes on or is found to be gone.
        return true;
    }
    if now.cut_order != was.cut_order && rng.f64() < now.cut_share {
        if now.refuses || rng.bool() {
            return true;
        }
        line.left.store(rng.i64(0..3_000), Relaxed);
    }
    false
}

fn duplicate(stream: &TcpStream) -> io::Result<socket2::Socket> {
    socket2::SockRef::from(stream).try_clone()
}

fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
