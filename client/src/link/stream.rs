//! A connection to a server, secret or not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to a server.
#[derive(Debug)]
pub enum Stream {
    /// Anybody on the way can read it.
    Plain {
        /// The connection.
        stream: TcpStream,
        /// The other end has said something.
        has_heard: bool,
    },
    /// Nobody can. On the heap, for what it holds is large.
    Secret(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, has_heard } => {
                let before = buffer.filled().len();
                match Pin::new(stream).poll_read(context, buffer) {
                    // What a port that speaks TLS does to who speaks no TLS.
                    Poll::Ready(Err(error))
                        if !*has_heard && error.kind() == io::ErrorKind::ConnectionReset =>
                    {
                        let why = format!(
                            "{error}; perhaps the server speaks TLS: then remove insecure from this client's configuration"
                        );
                        Poll::Ready(Err(io::Error::new(error.kind(), why)))
                    }
                    other => {
                        *has_heard |= buffer.filled().len() > before;
                        other
                    }
                }
            }
            Self::Secret(stream) => match Pin::new(stream.as_mut()).poll_read(context, buffer) {
                // A server that was killed says no good-bye. What is cut shows in the frames.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(()))
                }
                other => other,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_write(context, bytes),
            Self::Secret(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_flush(context),
            Self::Secret(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { stream, .. } => Pin::new(stream).poll_shutdown(context),
            Self::Secret(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_reset_before_any_word_says_that_the_server_may_speak_tls() {
        for says in ["", "something"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut stream = Stream::Plain { stream, has_heard: false };
            let mut heard = vec![0; says.len()];
            tokio::io::AsyncWriteExt::write_all(&mut peer, says.as_bytes()).await.unwrap();
            stream.read_exact(&mut heard).await.unwrap();
            // Closing with unread bytes is a reset.
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello").await.unwrap();
            peer.readable().await.unwrap();
            drop(peer);
            let error = stream.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(error.to_string().contains("remove insecure"), says.is_empty(), "{error}");
        }
    }
}
