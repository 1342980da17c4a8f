//! A server for tests: speaks the real protocol on loopback, over TLS or not, and does what the test says.

use std::time::Duration;

use std::pin::Pin as Pinned;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rcgen::PublicKeyData as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::Framed;
use vitals_wire::bounded::{List, Text};
use vitals_wire::limits::{MAX_BATCH_SAMPLES, MAX_FRAME_BYTES};
use vitals_wire::message::ServerCodec;
use vitals_wire::message::{
    Ack, ClientMessage, DropReason, Hello, Limits, PROTOCOL_VERSION, Refusal, Refused, RefusedSample,
    Samples, ServerMessage, Welcome,
};

/// No step of a test takes longer unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// A connection, secret or not.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A key with a certificate of its own.
pub struct Key {
    pub certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Key {
    /// A certificate for these names, by itself.
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        Self { certificate: cert, key: signing_key }
    }

    /// A certificate for this name by a CA, and the CA's own as PEM.
    pub fn by_ca(name: &str) -> (Self, String) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(
            rcgen::DnType::CommonName,
            format!("CA {}", crate::health::wall_ms() ^ i64::from(fastrand::u32(..))),
        );
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (Self { certificate, key }, pem)
    }

    /// This certificate, and the other's key: what a thief of the certificate alone has.
    pub fn with_key_of(&self, other: &Self) -> Self {
        let key = rcgen::KeyPair::try_from(other.key.serialize_der()).unwrap();
        Self { certificate: self.certificate.clone(), key }
    }

    /// SHA-256 of its public key.
    pub fn pin(&self) -> crate::trust::Pin {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.key.subject_public_key_info());
        crate::trust::Pin(digest.as_ref().try_into().unwrap())
    }

    /// What a TLS server with it speaks.
    pub fn acceptor(
        &self,
        alpn: &[&[u8]],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsAcceptor {
        let certificate = CertificateDer::from(self.certificate.der().to_vec());
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Not checked against each other: a test may show a certificate that is not its own.
        let key = provider.key_provider.load_private_key(key).unwrap();
        let certified = rustls::sign::CertifiedKey::new(vec![certificate], key);
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// One client's connection.
pub struct Session {
    pub frames: Framed<Pinned<Box<dyn Wire>>, ServerCodec>,
}

impl Server {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls: None }
    }

    /// The same over TLS, with this key.
    pub async fn with_key(key: &Key) -> Self {
        let tls = Some(key.acceptor(&[crate::link::tls::ALPN], &[&rustls::version::TLS13]));
        Self { tls, ..Self::start().await }
    }

    /// Shows another key from now on.
    pub fn change_key(&mut self, key: &Key) {
        self.tls = Some(key.acceptor(&[crate::link::tls::ALPN], &[&rustls::version::TLS13]));
    }

    /// Speaks TLS with whatever this says.
    pub async fn with_tls(tls: TlsAcceptor) -> Self {
        Self { tls: Some(tls), ..Self::start().await }
    }

    /// Takes a connection whose TLS handshake is to fail; gives what the server heard of it.
    pub async fn turned_away(&self) -> String {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("a client comes").unwrap();
        let tls = self.tls.as_ref().unwrap().accept(stream);
        match timeout(PATIENCE, tls).await.expect("the handshake ends") {
            Err(error) => error.to_string(),
            // The client's half of a handshake can end after the server's.
            Ok(mut stream) => {
                let mut heard = Vec::new();
                let end = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard).await;
                assert!(heard.is_empty(), "said to a server that is not trusted: {heard:?}");
                end.map_or_else(|error| error.to_string(), |_| "nothing".to_owned())
            }
        }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub async fn accept(&self) -> Session {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("a client comes").unwrap();
        let stream: Pinned<Box<dyn Wire>> = match &self.tls {
            Some(tls) => Box::pin(timeout(PATIENCE, tls.accept(stream)).await.expect("a handshake").unwrap()),
            None => Box::pin(stream),
        };
        Session { frames: Framed::new(stream, ServerCodec::new()) }
    }

    /// Takes a client and lets it in.
    pub async fn welcome(&self) -> (Session, Hello) {
        let mut session = self.accept().await;
        let Some(ClientMessage::Hello(hello)) = session.next().await else { panic!("no Hello") };
        session.send(welcome_to("as-named")).await;
        (session, hello)
    }
}

pub fn welcome_to(name: &str) -> Welcome {
    Welcome {
        protocol: PROTOCOL_VERSION,
        server_version: Text::cut("test"),
        server_time_ms: 0,
        name: Text::cut(name),
        window: 4,
        limits: Limits { frame_bytes: MAX_FRAME_BYTES as u32, batch_samples: MAX_BATCH_SAMPLES as u32 },
        oldest_ms: 0,
        pins: List::empty(),
        rotate_secret: false,
    }
}

impl Session {
    /// The next message; `None` when the client has closed.
    pub async fn next(&mut self) -> Option<ClientMessage> {
        timeout(PATIENCE, self.frames.next()).await.expect("the client says something").and_then(Result::ok)
    }

    pub async fn samples(&mut self) -> Samples {
        match self.next().await {
            Some(ClientMessage::Samples(samples)) => samples,
            other => panic!("{other:?} instead of samples"),
        }
    }

    pub async fn send(&mut self, message: impl Into<ServerMessage>) {
        self.frames.send(message.into()).await.unwrap();
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.frames.get_mut().write_all(bytes).await.unwrap();
    }

    pub async fn refuse(&mut self, retry: bool) {
        self.send(Refused { code: Refusal::Credential, text: Text::cut("not you"), retry }).await;
    }

    pub async fn ack(&mut self, batch: u64, refused: &[(i64, DropReason)]) {
        let refused = refused.iter().map(|&(time_ms, reason)| RefusedSample { time_ms, reason });
        let batches = List::new(vec![batch]).unwrap();
        self.send(Ack { server_time_ms: 0, batches, refused: List::new(refused.collect()).unwrap() }).await;
    }

    /// Acknowledges everything until the client says good-bye; gives the times and whether it did.
    pub async fn serve(mut self) -> (Vec<i64>, bool) {
        let mut times = Vec::new();
        loop {
            match self.next().await {
                Some(ClientMessage::Samples(samples)) => {
                    times.extend(samples.samples.iter().map(|sample| sample.time_ms));
                    self.ack(samples.batch, &[]).await;
                }
                Some(ClientMessage::Bye(_)) => return (times, true),
                Some(_) => {}
                None => return (times, false),
            }
        }
    }
}
