//! A join token: one text that holds all that a client needs to join.
//!
//! # Layout
//!
//! `vj1_` and base64 (RFC 4648, URL-safe, without padding) of:
//!
//! | bytes | what |
//! |---|---|
//! | 32 | the secret: what the client says in `Hello` |
//! | 8 | when it expires, in ms since 1970, big-endian |
//! | 1 | how many pins, at most [`MAX_PINS`] |
//! | 32 each | SHA-256 of a public key (SPKI) that the server may show |
//! | 1 | how many addresses, 1 to [`MAX_ADDRESSES`] |
//! | 1 and the rest, each | length and text of an address: `host:port`, an IPv6 address in brackets |
//! | 4 | CRC-32C of all before, big-endian, for what was copied by half |
//!
//! Without pins the server's certificate is checked otherwise, or the connection is plain TCP. Who holds the text may join:
//! its debug form shows nothing of the secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::bounded::Text;
use crate::ids::Secret;
use crate::limits::{MAX_PINS, MAX_TOKEN_BYTES};

/// What a token begins with.
pub const PREFIX: &str = "vj1_";
/// Addresses that a token can name.
pub const MAX_ADDRESSES: usize = 8;
/// Longest token in characters; longer ones are not looked at.
pub const MAX_CHARS: usize = 4096;

/// All that a client needs to join.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What the server knows it by.
    pub secret: Secret,
    /// When it expires, in ms since 1970.
    pub expires_ms: i64,
    /// SHA-256 of the public keys that the server may show.
    pub pins: Vec<[u8; 32]>,
    /// Where the server is, tried in order: `host:port` each.
    pub addresses: Vec<String>,
}

/// Why a text is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It begins otherwise.
    #[error("a join token begins with {PREFIX}")]
    Prefix,
    /// It was cut, or a character of it was changed.
    #[error("this join token is damaged: copy the whole of it")]
    Damaged,
}

impl JoinToken {
    /// What `Hello` carries: the secret as text.
    pub fn said(&self) -> Text<MAX_TOKEN_BYTES> {
        // 43 characters.
        Text::cut(&URL_SAFE_NO_PAD.encode(self.secret.0))
    }

    /// The secret in what a `Hello` carried.
    pub fn heard(said: &str) -> Option<Secret> {
        let bytes = URL_SAFE_NO_PAD.decode(said).ok()?;
        bytes.try_into().ok().map(Secret)
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.secret.0);
        body.extend_from_slice(&self.expires_ms.to_be_bytes());
        let pins = &self.pins[..self.pins.len().min(MAX_PINS)];
        body.push(pins.len() as u8);
        pins.iter().for_each(|pin| body.extend_from_slice(pin));
        let fit = self.addresses.iter().filter(|address| (1..=255).contains(&address.len()));
        let addresses: Vec<&String> = fit.take(MAX_ADDRESSES).collect();
        body.push(addresses.len() as u8);
        for address in addresses {
            body.push(address.len() as u8);
            body.extend_from_slice(address.as_bytes());
        }
        body
    }
}

impl fmt::Display for JoinToken {
    /// The token itself, for who is to join.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.body();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({} pins, {:?})", self.pins.len(), self.addresses)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let coded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if text.len() > MAX_CHARS {
            return Err(TokenError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(coded).map_err(|_| TokenError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
            return Err(TokenError::Damaged);
        }
        read(body).ok_or(TokenError::Damaged)
    }
}

fn read(mut body: &[u8]) -> Option<JoinToken> {
    let rest = &mut body;
    let secret = Secret(chunk(rest)?);
    let expires_ms = i64::from_be_bytes(chunk(rest)?);
    let [pins] = chunk(rest)?;
    if usize::from(pins) > MAX_PINS {
        return None;
    }
    let pins = (0..pins).map(|_| chunk(rest)).collect::<Option<_>>()?;
    let [addresses] = chunk(rest)?;
    if !(1..=MAX_ADDRESSES).contains(&usize::from(addresses)) {
        return None;
    }
    let address = |_| {
        let [len] = chunk(rest)?;
        let (text, after) = rest.split_at_checked(len.into())?;
        *rest = after;
        (len > 0).then(|| String::from_utf8(text.to_owned()).ok()).flatten()
    };
    let addresses = (0..addresses).map(address).collect::<Option<_>>()?;
    rest.is_empty().then_some(JoinToken { secret, expires_ms, pins, addresses })
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*chunk)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            secret: Secret([7; 32]),
            expires_ms: 1_795_232_825_000,
            pins: vec![[1; 32], [2; 32]],
            addresses: vec!["vitals.example.org:7400".to_owned(), "[2001:db8::1]:7400".to_owned()],
        }
    }

    /// Tokens and their text, named.
    pub(crate) fn vectors() -> Vec<(&'static str, JoinToken, &'static str)> {
        let bare = JoinToken {
            secret: Secret([0; 32]),
            expires_ms: 1,
            pins: vec![],
            addresses: vec!["a:1".to_owned()],
        };
        vec![
            ("token_bare", bare, "vj1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQABA2E6MeQhh_M"),
            (
                "token_usual",
                token(),
                "vj1_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcAAAGh_Db-qAIBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\
                 AQICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAhd2aXRhbHMuZXhhbXBsZS5vcmc6NzQwMBJbMjAwMTpkYjg6OjFdOjc0MDC4qsZt",
            ),
        ]
    }

    #[test]
    fn a_token_survives_its_text_form_and_shows_no_secret() {
        let text = token().to_string();
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
        assert!(!format!("{:?}", token()).contains("BwcH"));
        assert_eq!(JoinToken::heard(&token().said()), Some(Secret([7; 32])));
        assert_eq!(JoinToken::heard("x"), None);
    }

    #[test]
    fn its_text_is_the_golden_one() {
        for (name, token, golden) in vectors() {
            assert_eq!(token.to_string(), golden, "{name}");
            assert_eq!(golden.parse(), Ok(token), "{name}");
        }
    }

    #[test]
    fn what_was_copied_by_half_or_changed_is_damaged() {
        let text = token().to_string();
        assert_eq!("vx1_abc".parse::<JoinToken>(), Err(TokenError::Prefix));
        for end in PREFIX.len()..text.len() {
            assert_eq!(text[..end].parse::<JoinToken>(), Err(TokenError::Damaged), "cut at {end}");
        }
        let mut other = text.clone().into_bytes();
        other[20] = if other[20] == b'A' { b'B' } else { b'A' };
        assert_eq!(String::from_utf8(other).unwrap().parse::<JoinToken>(), Err(TokenError::Damaged));
        assert_eq!("vj1_".repeat(2000).parse::<JoinToken>(), Err(TokenError::Damaged));
    }

    proptest! {
        #[test]
        fn no_text_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut summed = bytes.clone();
            summed.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(summed));
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token));
            }
        }
    }
}
