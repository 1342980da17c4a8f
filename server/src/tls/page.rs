//! The certificate of the page's port, of its own: never that of the clients' port.
//!
//! Unless one is configured, the server makes one that it signs itself, in `<data>/tls/page.{key,crt}`. A browser cannot
//! know it, so its fingerprint is logged for a person to compare. Its key stays; the certificate is made anew with that key
//! when it nears its end, or no longer names what `public_address` or `http.listen` say.
//!
//! The files are looked at each [`LOOK`]. Who connects after they have changed is shown what is in them then; who is
//! connected stays so. What cannot be used is logged once, and what was read before stays in use.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::files;
use super::pair::{Pair, PairError};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::secret::Digest;

/// What is spoken within TLS.
pub const ALPN: &[u8] = b"http/1.1";
/// How often the files are looked at.
pub const LOOK: Duration = Duration::from_secs(3);
const DIR: &str = "tls";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a certificate of our own holds. Apple's systems take none of more than 825 days, even one that a person trusts.
const HOLDS: Duration = Duration::from_secs(800 * 24 * 3600);
/// It is made anew so long before its end.
const RENEWED_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often that is looked at.
const RENEWAL_LOOK: Duration = Duration::from_secs(3600);

/// Why the page's port has no certificate to show. Each text names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A file cannot be read or written.
    #[error("{path}: {error}", path = path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file of a certificate or its key that cannot be used.
    #[error("{path} cannot be used as the page's certificate or key (http.certificate, http.key): {error}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: PairError,
    },
    /// A file that is not there.
    #[error("{path} does not exist (http.certificate, http.key)", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No certificate can be made.
    #[error("no certificate can be made for the page: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls does not take it.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// How the page's port speaks TLS, and with what.
#[derive(Debug)]
pub struct Page {
    files: Files,
    /// What a certificate of our own is for; `None` where one is configured.
    own: Option<Names>,
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
    /// What the files looked like when they were read last, usable or not.
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug)]
struct Seen {
    stamps: [Option<Stamp>; 2],
    renewal: SystemTime,
}

/// What tells one content of a file from another without reading it.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// What a certificate of our own is made out to.
#[derive(Debug, Clone, Default)]
struct Names {
    /// Without one of these it is made anew.
    must: Vec<String>,
    /// What this machine is called and found under now. It changes with each container, and the certificate does not.
    may: Vec<String>,
}

/// Gives each connection what is shown at that moment.
struct Shown(RwLock<Pair>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).certified())
    }
}

impl Page {
    /// Reads the configured certificate, or that of the data directory, made where there is none.
    ///
    /// # Errors
    /// It cannot be read, used or written.
    pub fn open(config: &Config, data_dir: &DataDir, listens: SocketAddr) -> anyhow::Result<Self> {
        let page = match (&config.http.certificate, &config.http.key) {
            (Some(certificate), Some(key)) => {
                Self::of(Files { certificate: certificate.clone(), key: key.clone() }, None)
            }
            _ => {
                let dir = data_dir.subdir(DIR)?;
                let files = Files { certificate: dir.join("page.crt"), key: dir.join("page.key") };
                Self::of(files, Some(Names::of(&config.public_address, listens.ip())))
            }
        }?;
        page.say("certificate of the page: compare it with what the browser shows");
        Ok(page)
    }

    fn of(files: Files, own: Option<Names>) -> Result<Self, PageError> {
        if let Some(names) = &own {
            files.make_where_needed(names, SystemTime::now())?;
        }
        let stamps = files.stamps();
        let shown = Arc::new(Shown(RwLock::new(files.read()?)));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Nothing is resumed, nothing comes early.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        let seen = Mutex::new(Seen { stamps, renewal: SystemTime::now() });
        Ok(Self { files, own, shown, config: Arc::new(config), seen })
    }

    /// How the port speaks TLS: version 1.3 alone, with [`ALPN`].
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// SHA-256 of the certificate that is shown now, as browsers write it.
    pub fn fingerprint(&self) -> String {
        let pair = self.shown.0.read().unwrap_or_else(PoisonError::into_inner).certified();
        let digest = pair.cert.first().map(|certificate| Digest::of(certificate));
        let bytes = digest.iter().flat_map(|digest| digest.0).map(|byte| format!("{byte:02X}"));
        bytes.collect::<Vec<_>>().join(":")
    }

    /// Looks at the files until the shutdown.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let page = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || page.look(SystemTime::now())).await {
                error!(%error, "certificate of the page could not be looked at");
            }
        }
    }

    /// Takes what is in the files now, if they have changed since the last look and can be used.
    fn look(&self, now: SystemTime) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = &self.own
            && now.duration_since(seen.renewal).is_ok_and(|since| since >= RENEWAL_LOOK)
        {
            seen.renewal = now;
            if let Err(error) = self.files.make_where_needed(names, now) {
                error!(%error, "certificate of the page could not be made anew");
            }
        }
        // Before they are read: what changes meanwhile is read once more.
        let stamps = self.files.stamps();
        if stamps == seen.stamps {
            return;
        }
        seen.stamps = stamps;
        match self.files.read() {
            Ok(pair) => {
                *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
                self.say("certificate of the page read again");
            }
            Err(error) => {
                warn!(%error, "certificate of the page has changed and cannot be used: the one before stays")
            }
        }
    }

    fn say(&self, what: &'static str) {
        info!(sha256 = self.fingerprint(), file = %self.files.certificate.display(), "{what}");
    }
}

impl Files {
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let is = fs::metadata(path).ok()?;
            let changed = (is.mtime(), is.mtime_nsec(), is.ctime(), is.ctime_nsec());
            Some((is.dev(), is.ino(), is.size(), changed.0, changed.1, changed.2, changed.3))
        })
    }

    fn read(&self) -> Result<Pair, PageError> {
        let of = |path: &Path| {
            let bytes = read(path)?;
            bytes.ok_or_else(|| PageError::Missing { path: path.to_owned() })
        };
        Pair::of(&of(&self.certificate)?, &of(&self.key)?).map_err(|error| {
            let path = if error == PairError::NoCertificate { &self.certificate } else { &self.key };
            PageError::Unusable { path: path.clone(), error }
        })
    }

    /// Makes what is missing, damaged, near its end or made out to something else.
    fn make_where_needed(&self, names: &Names, now: SystemTime) -> Result<(), PageError> {
        if self.read().is_ok_and(|pair| names.are_in(&pair, now + RENEWED_BEFORE)) {
            return Ok(());
        }
        let kept = match read(&self.key)? {
            Some(text) => KeyPair::from_pem(&String::from_utf8_lossy(&text)).ok().or_else(|| {
                warn!(file = %self.key.display(), "key of the page is damaged: another is made");
                None
            }),
            None => None,
        };
        let key = match kept {
            Some(key) => key,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                write(&self.key, &key.serialize_pem())?;
                key
            }
        };
        write(&self.certificate, &names.certificate(&key, now)?)
    }
}

impl Names {
    fn of(public: &[String], listens: IpAddr) -> Self {
        let mut must = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().collect::<Vec<_>>();
        must.extend(public.iter().map(|address| host_of(address).to_owned()));
        let mut may = vec![rustix::system::uname().nodename().to_string_lossy().into_owned()];
        match listens.to_canonical() {
            any if any.is_unspecified() => may.extend(own_addresses().map(|address| address.to_string())),
            address => must.push(address.to_string()),
        }
        must.retain(|name| is_name(name));
        may.retain(|name| is_name(name));
        Self { must, may }
    }

    fn certificate(&self, key: &KeyPair, now: SystemTime) -> Result<String, PageError> {
        let mut names: Vec<String> = self.must.iter().chain(&self.may).cloned().collect();
        names.sort_unstable();
        names.dedup();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Vitals");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        // The browser's clock may be behind.
        params.not_before = date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(DAY);
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970 + HOLDS;
        Ok(params.self_signed(key)?.pem())
    }

    /// Whether this certificate, signed by itself, is good for all that it must be, at that time.
    fn are_in(&self, pair: &Pair, at: SystemTime) -> bool {
        let pair = pair.certified();
        let Some(certificate) = pair.cert.first() else { return false };
        let mut roots = RootCertStore::empty();
        if roots.add(certificate.clone()).is_err() {
            return false;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
        let Ok(verifier) = verifier.build() else { return false };
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.must.iter().all(|name| {
            ServerName::try_from(&**name)
                .is_ok_and(|name| verifier.verify_server_cert(certificate, &[], &name, &[], at).is_ok())
        })
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, PageError> {
    files::read(path).map_err(|error| PageError::Disk { path: path.to_owned(), error })
}

fn write(path: &Path, text: &str) -> Result<(), PageError> {
    files::write(path, text).map_err(|error| PageError::Disk { path: path.to_owned(), error })
}

fn is_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// The host of `host`, `host:port`, `[address]:port` or an address.
fn host_of(address: &str) -> &str {
    if address.parse::<IpAddr>().is_ok() {
        return address;
    }
    let host = match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The addresses by which this machine goes out, for it to be found under; nothing is sent.
fn own_addresses() -> impl Iterator<Item = IpAddr> {
    // Both are for documentation (RFC 5737, RFC 3849): only the route to them is asked for.
    let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let any: [(IpAddr, IpAddr); 2] =
        [(Ipv4Addr::UNSPECIFIED.into(), v4.into()), (Ipv6Addr::UNSPECIFIED.into(), v6.into())];
    any.into_iter().filter_map(|(from, to)| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
    })
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
