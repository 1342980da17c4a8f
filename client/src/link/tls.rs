//! TLS 1.3 over a connection, and whom it lets through.
//!
//! A server is known by its key, where pins were given or learnt; else by a certificate for the name under which it was
//! reached. Nothing switches that off. What was learnt over such a connection is trusted from then on, beside what was
//! given.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::trust::{Basis, Pin};

/// What both sides must say that they speak.
pub const ALPN: &[u8] = b"vitals/1";
/// From the connection to the end of the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that a connection holds back at most until the network takes them.
const BUFFER_BYTES: usize = 8 << 10;
/// Pins named in an error.
const MAX_SHOWN: usize = 4;
/// Longest PEM file of CAs that is read.
const MAX_CA_BYTES: u64 = 4 << 20;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of CAs.
    #[error("cannot use the CA file {}: {why}; ca_file names certificates in PEM form", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No roots.
    #[error(
        "the system trusts no CA ({0}): give this client a join token from `vitals-server token create`, a pin or a ca_file"
    )]
    NoRoots(String),
    /// What does not happen with the code as it is.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// The keys that are trusted; shared by all connections of a process.
#[derive(Debug, Default)]
pub struct Pins {
    given: Vec<Pin>,
    learnt: RwLock<Vec<Pin>>,
}

impl Pins {
    /// Those that were given.
    pub fn new(given: Vec<Pin>) -> Self {
        Self { given, learnt: RwLock::default() }
    }

    /// A server that was trusted named these: they take the place of what was learnt before.
    pub fn learn(&self, pins: &[Pin]) {
        let mut learnt = self.learnt.write().unwrap_or_else(PoisonError::into_inner);
        learnt.clear();
        learnt.extend_from_slice(pins);
    }

    /// Whether this one is trusted.
    pub fn has(&self, pin: &Pin) -> bool {
        self.given.contains(pin) || self.learnt.read().unwrap_or_else(PoisonError::into_inner).contains(pin)
    }

    /// Those that are trusted, each once.
    pub fn all(&self) -> Vec<Pin> {
        let mut all = self.given.clone();
        all.extend_from_slice(&self.learnt.read().unwrap_or_else(PoisonError::into_inner));
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Makes connections secret and checks who is at their end. One for all connections of a process.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    basis: Basis,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.basis.word())
    }
}

impl Tls {
    /// Trusts `pins`; and, unless `basis` says that these are all, a certificate from a CA in `ca_file` or from one that
    /// the system trusts.
    ///
    /// # Errors
    /// The CAs cannot be read.
    pub fn new(basis: Basis, pins: Arc<Pins>, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let by_name = match basis {
            Basis::Pins | Basis::Nothing => None,
            Basis::Ca => Some(by_name(from_file(ca_file.unwrap_or(Path::new("")))?, &provider)?),
            Basis::Roots => Some(by_name(from_system()?, &provider)?),
        };
        let verifier = Arc::new(Verifier { pins, by_name, provider: provider.clone() });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            // Not dangerous: the verifier lets nobody through whom it does not know.
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        // It would save a fraction of a ms for each start of a server, and cost memory all the time.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), basis })
    }

    /// The handshake with `server` (`host:port`), within its deadline. The error says what to do.
    ///
    /// # Errors
    /// It is not trusted, speaks something else, or does not answer.
    pub async fn secure<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        server: &str,
        stream: T,
    ) -> Result<Box<TlsStream<T>>, String> {
        let handshake = self.connector.connect_with(server_name(server), stream, |connection| {
            connection.set_buffer_limit(Some(BUFFER_BYTES));
        });
        // On the heap: it is several kB, and gone after the handshake.
        let stream = match timeout(HANDSHAKE_DEADLINE, Box::pin(handshake)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.explain(server, &error)),
            Err(_) => {
                return Err(
                    "no answer to the TLS handshake in time: is it a Vitals server's port for clients, \
                            without insecure = true there?"
                        .to_owned(),
                );
            }
        };
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(no_alpn());
        }
        Ok(Box::new(stream))
    }

    /// What went wrong and what to do, for people.
    fn explain(&self, server: &str, error: &io::Error) -> String {
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    "the server closed the connection during the TLS handshake: it is busy, or speaks no TLS; \
                     plain TCP needs insecure = true on both sides"
                        .to_owned()
                }
                _ => format!("the TLS handshake failed: {error}"),
            };
        };
        use rustls::Error as Tls;
        match tls {
            Tls::InvalidCertificate(CertificateError::Other(OtherError(wrong))) => wrong.to_string(),
            Tls::InvalidCertificate(CertificateError::UnknownIssuer) => match self.basis {
                Basis::Ca => "its certificate is from none of the CAs in ca_file: name the right file, or join with a \
                              token from `vitals-server token create`"
                    .to_owned(),
                _ => {
                    let here = if is_loopback(server) { " on this machine" } else { " there" };
                    format!(
                        "its certificate is from no CA that the system trusts, and this client has neither join token nor \
                         pin: run `vitals-server token create`{here} and give the token with VITALS_TOKEN, token_file or \
                         --token-file"
                    )
                }
            },
            Tls::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "its certificate is not for {}: reach it under the name that it has, or trust its key with a join token or a \
                 pin",
                host_of(server)
            ),
            Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                "its certificate has expired: renew it at the server; or this host's clock is wrong".to_owned()
            }
            Tls::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => "its certificate is not valid yet: mostly this host's clock is wrong".to_owned(),
            Tls::InvalidCertificate(other) => format!("its certificate cannot be trusted: {other:?}"),
            Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. } => {
                "it speaks no TLS: is it the port for clients, mostly 7400? If it is, remove insecure from the server's \
                 [clients], or set insecure = true here, too, where the network is trusted"
                    .to_owned()
            }
            Tls::AlertReceived(AlertDescription::NoApplicationProtocol) | Tls::NoApplicationProtocol => no_alpn(),
            Tls::AlertReceived(AlertDescription::ProtocolVersion) | Tls::PeerIncompatible(_) => {
                "it offers no TLS 1.3: is it the port for clients of a Vitals server?".to_owned()
            }
            other => format!("the TLS handshake failed: {other}"),
        }
    }
}

fn no_alpn() -> String {
    "it does not speak vitals/1: that is another service's port, or the page's; clients have one of their own, mostly 7400"
        .to_owned()
}

/// The verifier of names for these CAs.
fn by_name(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| TlsError::NoRoots(error.to_string()))
}

fn from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    use std::io::Read as _;
    let failed = |why: String| TlsError::CaFile { path: path.to_owned(), why };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(MAX_CA_BYTES).read_to_end(&mut pem).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("there is no certificate in it".to_owned())) } else { Ok(roots) }
}

fn from_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or("none found".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots(why));
    }
    Ok(roots)
}

/// The host in `host:port`, without an IPv6 address's brackets.
fn host_of(server: &str) -> &str {
    server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']'])
}

fn is_loopback(server: &str) -> bool {
    server.parse::<crate::config::Server>().is_ok_and(|server| server.is_loopback())
}

/// What the certificate is to be for. A name that cannot be in one is only of use with a pin.
fn server_name(server: &str) -> ServerName<'static> {
    let name = ServerName::try_from(host_of(server).to_owned());
    name.unwrap_or(ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into()))
}

/// SHA-256 of a certificate's public key.
fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &parsed.subject_public_key_info());
    let bytes = digest.as_ref().try_into();
    Ok(Pin(bytes.map_err(|_| rustls::Error::General("a digest of another length".to_owned()))?))
}

/// Checks who is at the other end.
#[derive(Debug)]
struct Verifier {
    pins: Arc<Pins>,
    /// Beside the pins.
    by_name: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// The server has another key than those that are trusted.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server showed key {shown}, this client trusts {}: it is another server, or somebody is in between; if its key was \
     replaced, `vitals-server cert show` there prints it: join with a new token, or set pin",
    listed(trusted)
)]
struct WrongPin {
    shown: Pin,
    trusted: Vec<Pin>,
}

fn listed(pins: &[Pin]) -> String {
    let shown: Vec<String> = pins.iter().take(MAX_SHOWN).map(Pin::to_string).collect();
    let more = if pins.len() > MAX_SHOWN { " and others" } else { "" };
    if shown.is_empty() { "none".to_owned() } else { format!("{}{more}", shown.join(", ")) }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = pin_of(end_entity)?;
        if self.pins.has(&shown) {
            // The key is the server: its name may change, and it has no date.
            return Ok(ServerCertVerified::assertion());
        }
        match &self.by_name {
            Some(by_name) => {
                by_name.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            None => {
                let wrong = WrongPin { shown, trusted: self.pins.all() };
                Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
