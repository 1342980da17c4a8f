//! A client made by hand that speaks TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};
use tokio_util::codec::{Decoder, Encoder};
use vitals_server::tls::pair::Pin;
use vitals_wire::bounded::List;
use vitals_wire::message::{Ack, ClientCodec, ClientMessage, Hello, Samples, ServerMessage, Welcome};
use vitals_wire::sample::Sample;

use super::peer::hello;

/// What a host of this id says first; whatever it takes to be let in stands here.
pub fn introduction(id: u8) -> Hello {
    hello(id, &format!("host-{id}"))
}

/// Takes any certificate, and keeps its pin.
#[derive(Debug)]
struct Look {
    seen: Mutex<Option<Pin>>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap() = Some(Pin::of(end_entity).unwrap());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// How a client speaks TLS.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    look: Arc<Look>,
}

impl Tls {
    /// With these versions and protocols.
    pub fn with(versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Self {
        let provider = ring::default_provider();
        let look = Arc::new(Look { seen: Mutex::default(), provider: provider.clone() });
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(look.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config: Arc::new(config), look }
    }

    /// For who shakes hands in another way.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// As a client of Vitals does.
    pub fn usual() -> Self {
        Self::with(&[&rustls::version::TLS13], &["vitals/1"])
    }

    /// Shakes hands over this connection.
    pub fn over(&self, mut stream: TcpStream) -> std::io::Result<TlsPeer> {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let name = ServerName::try_from("any.example").unwrap();
        let mut connection = ClientConnection::new(self.config.clone(), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let pin = self.look.seen.lock().unwrap().unwrap();
        let stream = StreamOwned::new(connection, stream);
        Ok(TlsPeer { stream, codec: ClientCodec::new(), buffer: BytesMut::new(), pin })
    }

    /// Connects and shakes hands. The server's last word on a handshake comes with the first reading.
    pub fn connect(&self, server: SocketAddr) -> std::io::Result<TlsPeer> {
        self.over(TcpStream::connect(server)?)
    }
}

/// A connection to a server.
pub struct TlsPeer {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    codec: ClientCodec,
    buffer: BytesMut,
    /// By what the server is known.
    pub pin: Pin,
}

impl TlsPeer {
    /// Connects and is welcome.
    pub fn welcome(server: SocketAddr, hello: Hello) -> (Self, Welcome) {
        let mut peer = Tls::usual().connect(server).unwrap();
        let welcome = peer.introduce(hello);
        (peer, welcome)
    }

    /// Is welcome.
    pub fn introduce(&mut self, hello: Hello) -> Welcome {
        self.say(hello);
        match self.hear() {
            Ok(Some(ServerMessage::Welcome(welcome))) => welcome,
            other => panic!("not welcome: {other:?}"),
        }
    }

    /// Sends a message.
    pub fn say(&mut self, message: impl Into<ClientMessage>) {
        let mut bytes = BytesMut::new();
        self.codec.encode(message.into(), &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// The next message; `None` when the server closes the connection.
    pub fn hear(&mut self) -> std::io::Result<Option<ServerMessage>> {
        loop {
            if let Some(message) = self.codec.decode(&mut self.buffer).unwrap() {
                return Ok(Some(message));
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(&some[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends one sample and waits for what becomes of it.
    pub fn send(&mut self, batch: u64, sample: Sample) -> Ack {
        self.say(Samples { batch, backlog: false, samples: List::new(vec![sample]).unwrap() });
        match self.hear() {
            Ok(Some(ServerMessage::Ack(ack))) => ack,
            other => panic!("no ack: {other:?}"),
        }
    }

    /// Whether the handshake was a whole one.
    pub fn handshake(&self) -> Option<HandshakeKind> {
        self.stream.conn.handshake_kind()
    }
}
