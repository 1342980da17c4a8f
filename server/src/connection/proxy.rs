//! The PROXY protocol, versions 1 and 2: a listed proxy says in front of everything else whom it speaks for.

use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest header of version 1, by its specification.
const MAX_V1_BYTES: usize = 107;
/// Longest header of version 2 that is read: room for what proxies add.
const MAX_V2_BYTES: usize = 16 + 1024;
/// The beginning of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Its fixed part: the signature, version, family, and the length of what follows.
const V2_FIXED_BYTES: usize = SIGNATURE.len() + 4;

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It is none.
    #[error(
        "a listed proxy sent no header of the PROXY protocol; turn it on there, or take the proxy from clients.proxies"
    )]
    NoHeader,
    /// The connection ended, or failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A header ends after so many bytes.
    Header(usize),
    /// All of them belong to a header that goes on.
    Part,
    /// No header.
    Not,
}

/// Looks for a header's end.
fn find(bytes: &[u8]) -> Found {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        let Some(fixed) = bytes.first_chunk::<V2_FIXED_BYTES>() else { return Found::Part };
        let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        return match length {
            MAX_V2_BYTES.. => Found::Not,
            length if bytes.len() < length => Found::Part,
            length => Found::Header(length),
        };
    }
    let begin = v1::PROTOCOL_PREFIX.as_bytes();
    let common = bytes.len().min(begin.len());
    if bytes[..common] != begin[..common] {
        return Found::Not;
    }
    match bytes.iter().take(MAX_V1_BYTES).position(|byte| *byte == b'\n') {
        Some(end) => Found::Header(end + 1),
        None if bytes.len() >= MAX_V1_BYTES => Found::Not,
        None => Found::Part,
    }
}

/// Whom a whole header speaks for; `None` for the proxy itself, which looks whether the server is there.
fn said(header: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    match HeaderResult::parse(header) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(v4) => Some((v4.source_address, v4.source_port).into()),
            v1::Addresses::Tcp6(v6) => Some((v6.source_address, v6.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => match header.addresses {
            v2::Addresses::IPv4(v4) => Ok(Some((v4.source_address, v4.source_port).into())),
            v2::Addresses::IPv6(v6) => Ok(Some((v6.source_address, v6.source_port).into())),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Ok(None),
        },
        _ => Err(ProxyError::NoHeader),
    }
}

/// Reads the header, and not a byte behind it. Gives whom it speaks for.
///
/// # Errors
/// There is none, or the connection ends.
pub async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut bytes = vec![0; MAX_V2_BYTES];
    let mut have = 0;
    loop {
        // What is there is looked at first, and taken only as far as it is the header.
        let n = stream.peek(&mut bytes[have..]).await?;
        if n == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let (take, is_whole) = match find(&bytes[..have + n]) {
            Found::Header(end) => (end.saturating_sub(have), true),
            Found::Part => (n, false),
            Found::Not => return Err(ProxyError::NoHeader),
        };
        have += stream.read_exact(&mut bytes[have..have + take]).await?;
        if is_whole {
            return said(&bytes[..have]);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn v2_header(command: u8, more: usize) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, 0x11]);
        header.extend((12 + more as u16).to_be_bytes());
        header.extend([203, 0, 113, 9, 192, 0, 2, 1]);
        header.extend([0x30, 0x39, 0x1c, 0xe8]);
        // Something else that the proxy has to say: a no-op.
        if more > 0 {
            header.extend([4]);
            header.extend((more as u16 - 3).to_be_bytes());
            header.resize(header.len() + more - 3, 7);
        }
        header
    }

    /// What is read where these pieces arrive one by one, and what is left over.
    async fn reads(pieces: &[&[u8]]) -> (Result<Option<SocketAddr>, ProxyError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.set_nodelay(true).unwrap();
        let said = tokio::spawn(async move {
            let said = read(&mut far).await;
            let mut rest = Vec::new();
            if said.is_ok() {
                far.read_to_end(&mut rest).await.unwrap();
            }
            (said, rest)
        });
        for piece in pieces {
            if near.write_all(piece).await.is_err() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        drop(near);
        said.await.unwrap()
    }

    #[tokio::test]
    async fn both_versions_say_the_address_and_leave_what_follows() {
        let v1: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 12345 7400\r\n";
        let v6: &[u8] = b"PROXY TCP6 2001:db8::9 2001:db8::1 12345 7400\r\n";
        let (v2, v2_more) = (v2_header(1, 0), v2_header(1, 900));
        let client = "203.0.113.9:12345".parse().unwrap();
        for (header, wanted) in [
            (v1, Some(client)),
            (v6, Some("[2001:db8::9]:12345".parse().unwrap())),
            (&v2, Some(client)),
            (&v2_more, Some(client)),
            (&v2_header(0, 0), None),
            (b"PROXY UNKNOWN\r\n", None),
        ] {
            let together = [header, b"\x16rest"].concat();
            let (said, rest) = reads(&[&together]).await;
            assert_eq!((said.unwrap(), &*rest), (wanted, &b"\x16rest"[..]));
            let (said, rest) = reads(&[&header[..1], &header[1..14], &header[14..], b"\x16", b"rest"]).await;
            assert_eq!((said.unwrap(), &*rest), (wanted, &b"\x16rest"[..]));
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_told_at_once_and_an_endless_one_too() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let long = v2_header(1, 2_000);
        for wrong in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1 2 3\r\n", &endless, &long] {
            let (said, _) = reads(&[wrong]).await;
            assert!(matches!(said, Err(ProxyError::NoHeader)), "{:?}", String::from_utf8_lossy(wrong));
        }
        let (said, _) = reads(&[b"PROXY TC"]).await;
        assert!(matches!(said, Err(ProxyError::Io(_))), "half of one");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = if seed % 2 == 0 { SIGNATURE.to_vec() } else { b"PROXY TCP6 ".to_vec() };
            bytes.extend((0..random.usize(..150)).map(|_| random.u8(..)));
            if let Found::Header(end) = find(&bytes) {
                let _ = said(&bytes[..end]);
            }
        }
    }
}
