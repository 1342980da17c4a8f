//! What comes before a session: the PROXY protocol's header from listed proxies, a look at the first byte, TLS.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{PeerIncompatible, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::place::{Guarded, Place};
use super::proxy::{self, ProxyError};
use crate::tls::accept::{ALPN, WRITE_BUFFER_BYTES};

/// The first byte of a TLS connection: a record of its handshake. No frame begins so: that would be longer than any may be.
const TLS_HANDSHAKE: u8 = 0x16;

macro_rules! failures {
    ($($(#[$doc:meta])* $variant:ident $word:literal $text:literal,)*) => {
        /// Why a connection ends before its session begins.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Failure {
            $($(#[$doc])* $variant,)*
        }

        impl Failure {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in metrics and logs.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What to do about it, for people.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

failures! {
    /// It went without a word: a port scan, a health check, a cut line.
    Closed "closed" "it went away",
    /// It did not get on in time.
    Timeout "timeout" "it did not finish in time (clients.hello_timeout)",
    /// It had to make room for another.
    MadeRoom "made_room" "it waited too long while others came",
    /// A listed proxy sent no header.
    NoProxyHeader "no_proxy_header"
        "a listed proxy sent no header of the PROXY protocol: turn it on there, or take the proxy from clients.proxies",
    /// Plain TCP where TLS is spoken.
    PlainTcp "plain_tcp"
        "it speaks plain TCP and this port TLS; take insecure from that client's configuration (or, to go without TLS, set clients.insecure here)",
    /// TLS where plain TCP is spoken.
    TlsOnPlain "tls_on_plain"
        "it speaks TLS and this port plain TCP; take clients.insecure from this server's configuration (or, to go without TLS, set insecure there)",
    /// No TLS 1.3.
    Version "version" "it does not offer TLS 1.3",
    /// Not our protocol.
    Alpn "alpn" "it does not speak vitals/1 (ALPN): it is no client of Vitals",
    /// The peer did not like what it saw.
    Rejected "rejected" "it does not trust this server's key; see vitals-server cert show, and the client's log",
    /// More than any client says.
    TooLarge "too_large" "its handshake is too large",
    /// Bytes that are no TLS.
    Malformed "malformed" "it broke off TLS's rules",
}

/// How a connection may go on.
pub enum Met {
    /// TLS is set up.
    Tls(Box<TlsStream<Guarded>>),
    /// The port speaks plain TCP, and the client has said something.
    Plain(Guarded),
}

/// Reads whom a proxy speaks for.
///
/// # Errors
/// There is no header, or the stranger had to go.
pub async fn said(stream: &mut TcpStream, place: &Place) -> Result<Option<SocketAddr>, Failure> {
    tokio::select! {
        () = place.ended() => Err(Failure::MadeRoom),
        said = proxy::read(stream) => said.map_err(|error| match error {
            ProxyError::NoHeader => Failure::NoProxyHeader,
            ProxyError::Io(_) => Failure::Closed,
        }),
    }
}

/// Looks at the first byte and sets up TLS, where `config` says how. Nothing is kept for a stranger that says nothing.
///
/// # Errors
/// It is no client of this port, or had to go.
pub async fn meet(
    stream: TcpStream,
    place: Arc<Place>,
    config: Option<Arc<ServerConfig>>,
) -> Result<Met, Failure> {
    let mut first = [0];
    let seen = tokio::select! {
        () = place.ended() => return Err(Failure::MadeRoom),
        seen = stream.peek(&mut first) => seen,
    };
    if !matches!(seen, Ok(1)) {
        return Err(Failure::Closed);
    }
    let mut guarded = Guarded::new(stream, place);
    let Some(config) = config else {
        if first == [TLS_HANDSHAKE] {
            return Err(Failure::TlsOnPlain);
        }
        guarded.shaken();
        return Ok(Met::Plain(guarded));
    };
    if first != [TLS_HANDSHAKE] {
        return Err(Failure::PlainTcp);
    }
    let accept = TlsAcceptor::from(config).accept_with(guarded, |connection| {
        connection.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
    });
    let mut tls = Box::new(accept.await.map_err(|error| failure_of(&error))?);
    let (guarded, connection) = tls.get_mut();
    guarded.shaken();
    // Seen to by the key's resolver; looked at again, since much hangs on it.
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(Failure::Alpn);
    }
    Ok(Met::Tls(tls))
}

fn failure_of(error: &std::io::Error) -> Failure {
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        // The second is what the key's resolver causes by showing none.
        Some(rustls::Error::NoApplicationProtocol | rustls::Error::General(_)) => Failure::Alpn,
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic,
        )) => Failure::Version,
        Some(rustls::Error::AlertReceived(_)) => Failure::Rejected,
        Some(_) => Failure::Malformed,
        None => match error.kind() {
            ErrorKind::FileTooLarge => Failure::TooLarge,
            ErrorKind::ConnectionAborted => Failure::MadeRoom,
            _ => Failure::Closed,
        },
    }
}
