//! How the clients' port speaks TLS: version 1.3 alone, with [`ALPN`], nothing resumed, nothing early.

use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version::TLS13};

use super::pair::Pair;

/// The protocol that clients and server agree upon within TLS; one that does not name it is no client of ours.
pub const ALPN: &[u8] = b"vitals/1";
/// Bytes of plain text that a connection buffers towards its client.
pub const WRITE_BUFFER_BYTES: usize = 8 << 10;

/// Shows the certificate to those who speak our protocol. rustls itself lets in who names no protocol at all.
#[derive(Debug)]
struct ToClients(Arc<CertifiedKey>);

impl ResolvesServerCert for ToClients {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.alpn()?.any(|protocol| protocol == ALPN).then(|| self.0.clone())
    }
}

/// How the port speaks with this key.
///
/// # Errors
/// rustls cannot do it, which does not come about with the ciphers that it is built with.
pub fn config(pair: &Pair) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ToClients(pair.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Resumption saves 150 µs a handshake and would die with the process.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
