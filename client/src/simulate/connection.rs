//! Connections of simulated hosts: opened at a bounded rate, one of them breaking now and then.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, sleep_until};

use crate::link::connector::Connector;
use crate::link::stream::Stream;
use crate::link::tcp::Connect;

/// How long a connection of the flapping host lasts.
const FLAP: Duration = Duration::from_secs(20);

/// Lets connections pass at a bounded rate, in the order in which they come.
#[derive(Debug)]
pub struct Gate {
    next: Mutex<Instant>,
    step: Duration,
}

impl Gate {
    /// At most `per_second`.
    pub fn new(per_second: u32) -> Self {
        Self { next: Mutex::new(Instant::now()), step: Duration::from_secs(1) / per_second.max(1) }
    }

    async fn pass(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + self.step;
            at
        };
        sleep_until(at.into()).await;
    }
}

/// Connects through a gate.
#[derive(Debug, Clone)]
pub struct Paced {
    connector: Connector,
    gate: Arc<Gate>,
    is_flapping: bool,
}

impl Paced {
    /// As this connector does.
    pub fn new(connector: Connector, gate: Arc<Gate>) -> Self {
        Self { connector, gate, is_flapping: false }
    }

    /// For one host.
    pub fn for_host(&self, is_flapping: bool) -> Self {
        Self { is_flapping, ..self.clone() }
    }
}

impl Connect for Paced {
    type Stream = Connection;

    async fn connect(&mut self, server: usize) -> Result<Connection, String> {
        self.gate.pass().await;
        let stream = self.connector.connect(server).await?;
        let breaks = self.is_flapping.then(|| Box::pin(sleep(FLAP)));
        Ok(Connection { stream, breaks })
    }
}

/// A connection that may break by itself.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    breaks: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.breaks.as_mut().is_some_and(|breaks| breaks.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
