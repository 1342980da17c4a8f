//! The way out through an HTTP proxy, by CONNECT.
//!
//! The proxy resolves the server's name; what is spoken through it is TLS from end to end, so it sees no more than that
//! name. Its user and password are shown nowhere.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::config::Server;

/// From asking the proxy to its answer; it connects to the server meanwhile.
const DEADLINE: Duration = Duration::from_secs(15);
/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 8 << 10;
/// Characters of the proxy's own words in an error.
const MAX_REASON_CHARS: usize = 100;
/// Where a proxy is that names no port.
const DEFAULT_PORT: u16 = 80;
/// Longest address of a proxy, user and password included.
const MAX_CHARS: usize = 2048;

/// A proxy: `http://[USER:PASSWORD@]HOST[:PORT]`. Nothing shows its user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port`.
    address: String,
    /// `USER:PASSWORD`, as it was before it was written into an address.
    credentials: Option<Vec<u8>>,
}

impl Proxy {
    /// Where it is: `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks for a way to `server` on a connection to the proxy. The error is for people.
    ///
    /// # Errors
    /// The proxy says no, or nothing that is understood, or nothing in time.
    pub async fn connect<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut T,
        server: &str,
    ) -> Result<(), String> {
        match timeout(DEADLINE, self.ask(stream, server)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(format!("the proxy {}: {why}", self.address)),
            Err(_) => Err(format!("the proxy {} does not answer in time", self.address)),
        }
    }

    async fn ask<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut T,
        server: &str,
    ) -> Result<(), String> {
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        if let Some(credentials) = &self.credentials {
            request.push_str("Proxy-Authorization: Basic ");
            STANDARD.encode_string(credentials, &mut request);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        let mut some = [0; 512];
        let head = loop {
            // What follows the head is the server's, which says nothing before it is spoken to.
            if let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
                if end + 4 < answer.len() {
                    return Err("it said more than its answer".to_owned());
                }
                break &answer[..end];
            }
            if answer.len() >= MAX_ANSWER_BYTES {
                return Err("its answer is too long".to_owned());
            }
            match stream.read(&mut some).await.map_err(|error| error.to_string())? {
                0 => return Err("it closed the connection; is it a proxy for CONNECT?".to_owned()),
                read => answer.extend_from_slice(&some[..read]),
            }
        };
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let line: String = String::from_utf8_lossy(line)
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_REASON_CHARS)
            .collect();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
        match status.and_then(|status| status.parse::<u16>().ok()) {
            Some(200..=299) => Ok(()),
            Some(407) if self.credentials.is_some() => {
                Err(format!("it does not take the user and password of its address ({line})"))
            }
            Some(407) => {
                Err(format!("it wants a user and a password: http://USER:PASSWORD@{} ({line})", self.address))
            }
            Some(_) => Err(format!("it gives no way to {server}: {line}")),
            None => Err("its answer is not HTTP".to_owned()),
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = if self.credentials.is_some() { "********@" } else { "" };
        write!(f, "http://{credentials}{}", self.address)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text itself is not repeated: it may hold a password.
        let bad = |why: &str| {
            format!(
                "the proxy's address {why}; write it as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; proxy = \"\" means none"
            )
        };
        let text = text.trim();
        if text.len() > MAX_CHARS {
            return Err(bad("is too long"));
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(bad("is not one of plain HTTP, which is all that is spoken with it")),
            None => text,
        };
        let rest = rest.split_once('/').map_or(rest, |(before, _)| before);
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => {
                (Some(decoded(credentials).ok_or_else(|| bad("has a % without two digits"))?), host)
            }
            None => (None, rest),
        };
        let has_port = !host.ends_with(']') && host.rsplit_once(':').is_some();
        let host = if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
        let server: Server = host.parse().map_err(|_| bad("has no host that can be reached"))?;
        Ok(Self { address: server.as_str().to_owned(), credentials })
    }
}

/// `%40` is `@`.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = after;
    }
    Some(bytes)
}

/// Servers that are reached without the proxy, as `NO_PROXY` lists them: names (with all below them), addresses, networks
/// such as `10.0.0.0/8`, or `*` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<String>);

impl NoProxy {
    /// Reads the list; what is not understood fits nothing.
    pub fn new(list: &str) -> Self {
        let entries = list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        Self(entries.map(str::to_ascii_lowercase).collect())
    }

    /// Whether this server (`host:port`) is in it.
    pub fn has(&self, server: &str) -> bool {
        let server = server.to_ascii_lowercase();
        let (host, port) = server.rsplit_once(':').unwrap_or((&server, ""));
        let host = host.trim_matches(['[', ']']);
        let address = host.parse::<IpAddr>().ok();
        self.0.iter().any(|entry| {
            // An IPv6 address has colons, too.
            let (entry, of_port) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, Some(port)),
                _ => (&**entry, None),
            };
            let entry = entry.trim_matches(['[', ']']);
            let fits = match (address, entry.split_once('/')) {
                _ if entry == "*" => true,
                (Some(address), Some((network, bits))) => is_in(address, network, bits),
                (Some(address), None) => entry.parse::<IpAddr>() == Ok(address),
                (None, _) => {
                    let name = entry.trim_start_matches("*.").trim_start_matches('.');
                    let before = host.strip_suffix(name);
                    !name.is_empty()
                        && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
                }
            };
            fits && of_port.is_none_or(|of_port| of_port == port)
        })
    }
}

/// Whether the address is in `network/bits`.
fn is_in(address: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let same = |a: u128, b: u128, width: u32| {
        bits <= width && (bits == 0 || a >> (width - bits) == b >> (width - bits))
    };
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
