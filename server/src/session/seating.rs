//! How a session comes to its seat, hears orders, and keeps to its host's limits.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::warn;
use vitals_wire::ids::RunId;
use vitals_wire::message::{ClientMessage, Pins, Refusal};

use super::admission;
use super::end::End;
use super::protocol::{Allowed, refused};
use super::seats::{Cloned, Order, Seat};
use super::{Session, Shared};
use crate::state::Host;
use crate::state::audit::{Action, By};

/// Gives the host's seat to this connection, and reports a clone where one shows.
///
/// # Errors
/// Another run of the host's client holds it and is there.
pub(super) fn sit(
    shared: &Shared,
    host: &Host,
    run: RunId,
    address: SocketAddr,
    down_limit: Duration,
) -> Result<Seat, End> {
    let seated = shared.seats.sit(host.id, run, address, down_limit, Instant::now());
    let cloned = match &seated {
        Ok(seat) => seat.cloned.as_deref(),
        Err(taken) => taken.cloned.as_deref(),
    };
    if let Some(cloned) = cloned {
        report(shared, host, cloned);
    }
    let seat = seated.map_err(|taken| {
        let text = format!("{}: {taken}", host.name());
        End::from(refused(Refusal::IdentityInUse, text, true))
    })?;
    // Whoever changed what a host may after it was admitted found no session to tell.
    admission::still_stands(shared, host)?;
    Ok(seat)
}

fn report(shared: &Shared, host: &Host, Cloned([one, other]): &Cloned) {
    warn!(
        host = host.name(), %one, %other,
        "two clients use one identity: on the copied machine remove the client's identity, so that it joins as its own"
    );
    let detail = format!("{one}, {other}");
    shared.live.cloned(host.id, detail.clone());
    let (state, name) = (shared.state.clone(), host.name().to_owned());
    // Nobody waits for that disk.
    tokio::spawn(async move {
        if let Err(error) = state.audit(&By::server(), Action::HostCloned, &*name, detail).await {
            warn!(host = name, %error, "the audit log cannot be written");
        }
    });
}

/// The next order for a session.
pub(super) async fn order(seat: &Option<Seat>) -> Order {
    match seat {
        Some(seat) => seat.order().await,
        None => std::future::pending().await,
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Session<Io> {
    /// Does what the session is told from outside.
    pub(super) async fn obey(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Close(refused) => Err(End::Ordered(Some(refused))),
            Order::Replaced => Err(End::Ordered(None)),
            Order::Pins(pins) => self.send(Pins { pins }.into()).await,
        }
    }

    /// Notes that the client spoke, and gives what the host's limits let pass of what it said.
    pub(super) fn allowed(&self, message: &ClientMessage, now: Instant, now_ms: i64) -> Allowed {
        if let Some(seat) = &self.seat {
            seat.spoke(now);
        }
        let Some(guest) = &self.host else { return Allowed::All };
        let (books, bytes) = (&self.shared.books, self.frames.decoder().frame_bytes());
        let allowed = match message {
            ClientMessage::Samples(samples) => books.allow(&guest.book, samples, bytes, now),
            ClientMessage::LiveSample(_) if !books.allow_one(&guest.book, bytes, now) => {
                self.shared.metrics.live_over_limit.add(1);
                Allowed::First(0)
            }
            _ => Allowed::All,
        };
        if let Allowed::First(_) = allowed {
            // What is dropped shows all the same that the host is there.
            self.shared.live.heard(guest.id, guest.interval, now_ms);
        }
        allowed
    }
}
