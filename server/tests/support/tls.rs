//! How a client made by hand speaks TLS, also in ways in which no client of Vitals does.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};
use vitals_server::tls::pair::Pin;

use super::peer::{Peer, READ_TIMEOUT};
use super::wire::Wire;

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
    pub fn over(&self, mut stream: TcpStream) -> std::io::Result<Peer> {
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        let server = stream.peer_addr()?;
        let name = ServerName::try_from("any.example").unwrap();
        let mut connection = ClientConnection::new(self.config.clone(), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let pin = self.look.seen.lock().unwrap().unwrap();
        let wire = Wire::Tls(Box::new(StreamOwned::new(connection, stream)));
        Ok(Peer::over(wire, server, Some(pin)))
    }

    /// Connects and shakes hands. The server's last word on a handshake comes with the first reading.
    pub fn connect(&self, server: SocketAddr) -> std::io::Result<Peer> {
        self.over(TcpStream::connect(server)?)
    }
}
