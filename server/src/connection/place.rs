//! A stranger's place as its connection sees it: who has to make room finds its connection cut at its next read, so that
//! whoever serves it ends in order.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that a TLS handshake may take from a client: several times what any client says, so that a stranger cannot
/// fill the buffer in which rustls joins them.
const MAX_HANDSHAKE_BYTES: usize = 16 << 10;

const STRANGER: u8 = 0;
const ADMITTED: u8 = 1;
const ENDED: u8 = 2;

/// A place at the door.
#[derive(Debug, Default)]
pub struct Place {
    state: AtomicU8,
    waker: AtomicWaker,
}

impl Place {
    /// The stranger has to go.
    pub fn end(&self) {
        let ended = self.state.compare_exchange(STRANGER, ENDED, Ordering::AcqRel, Ordering::Acquire);
        if ended.is_ok() {
            self.waker.wake();
        }
    }

    /// The stranger is known from now on, also where it just was to go.
    pub fn admit(&self) {
        self.state.store(ADMITTED, Ordering::Release);
    }

    /// Whether it became known.
    pub fn is_admitted(&self) -> bool {
        self.state.load(Ordering::Acquire) == ADMITTED
    }

    /// Whether it has to go.
    pub fn is_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == ENDED
    }

    /// Waits until it has to go.
    pub async fn ended(&self) {
        poll_fn(|cx| self.poll_ended(cx)).await;
    }

    fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        match self.state.load(Ordering::Acquire) {
            ADMITTED => Poll::Pending,
            ENDED => Poll::Ready(()),
            _ => {
                self.waker.register(cx.waker());
                // It may have been ended before the waker was there.
                if self.is_ended() { Poll::Ready(()) } else { Poll::Pending }
            }
        }
    }
}

/// A connection that can be ended while it is a stranger's.
#[derive(Debug)]
pub struct Guarded {
    stream: TcpStream,
    place: Arc<Place>,
    /// Bytes of the handshake that may still come; `None` when it is over.
    handshake_left: Option<usize>,
}

impl Guarded {
    /// A connection whose first bytes, until [`shaken`](Self::shaken), are few.
    pub fn new(stream: TcpStream, place: Arc<Place>) -> Self {
        Self { stream, place, handshake_left: Some(MAX_HANDSHAKE_BYTES) }
    }

    /// The handshake is over: what follows is limited by whoever reads it.
    pub fn shaken(&mut self) {
        self.handshake_left = None;
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.place.poll_ended(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(ErrorKind::ConnectionAborted, "it had to make room")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(left) = &mut self.handshake_left {
            match left.checked_sub(buffer.filled().len() - before) {
                Some(less) => *left = less,
                None => {
                    return Poll::Ready(Err(io::Error::new(
                        ErrorKind::FileTooLarge,
                        "too much in a handshake",
                    )));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Guarded, Arc<Place>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let place = Arc::new(Place::default());
        (near, Guarded::new(listener.accept().await.unwrap().0, place.clone()), place)
    }

    #[tokio::test]
    async fn who_has_to_make_room_is_cut_while_it_waits_and_a_host_is_not() {
        let (_near, mut far, place) = pair().await;
        let reading = tokio::spawn(async move { far.read_u8().await });
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        place.end();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
        tokio::time::timeout(std::time::Duration::from_secs(5), place.ended()).await.unwrap();

        let (mut near, mut far, place) = pair().await;
        place.admit();
        place.end();
        near.write_u8(7).await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_handshake_that_never_ends_is_cut_and_what_follows_one_is_not() {
        let (mut near, mut far, _) = pair().await;
        near.write_all(&vec![0; MAX_HANDSHAKE_BYTES + 1]).await.unwrap();
        let mut bytes = vec![0; MAX_HANDSHAKE_BYTES + 1];
        assert_eq!(far.read_exact(&mut bytes).await.unwrap_err().kind(), ErrorKind::FileTooLarge);

        let (mut near, mut far, _) = pair().await;
        far.shaken();
        near.write_all(&bytes).await.unwrap();
        far.read_exact(&mut bytes).await.unwrap();
    }
}
