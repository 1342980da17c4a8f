//! Values of the configuration, checked where they are read: in a file each error has its line, elsewhere its variable
//! or flag.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use vitals_wire::bounded::Text;
use vitals_wire::limits::{MAX_HOST_NAME_BYTES, MAX_LABELS, MAX_TOKEN_BYTES};
use vitals_wire::name::{check_host_name, check_label, nearest_host_name};
use vitals_wire::token::{JoinToken, MAX_CHARS};

use super::{ConfigError, DEFAULT_PORT};
use crate::collect::CollectConfig;
use crate::link::proxy::Proxy;
use crate::trust::Pin;

/// Servers that may be named.
const MAX_SERVERS: usize = 16;
/// Pins that may be given.
const MAX_PINS: usize = 16;

/// A server: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server(String);

impl Server {
    /// `host:port`, with an IPv6 address in brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is certainly on this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self(format!("127.0.0.1:{DEFAULT_PORT}"))
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bad = |why: &str| {
            format!(
                "{text:?} {why}; write host or host:port, such as 127.0.0.1:{DEFAULT_PORT} or [::1]:{DEFAULT_PORT}"
            )
        };
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Ok(Self(format!("[{text}]:{DEFAULT_PORT}")));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (
                host,
                port.parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| bad("has no port after its colon"))?,
            ),
            _ => (text, DEFAULT_PORT),
        };
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if is_bracketed && host.trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>().is_err() {
            return Err(bad("has no IPv6 address in its brackets"));
        }
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !is_bracketed && !host.chars().all(is_name) {
            return Err(bad("is no address of a server"));
        }
        Ok(Self(format!("{host}:{port}")))
    }
}

/// Servers in the order in which they are tried: one text, with commas between, or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers(pub Vec<Server>);

impl Servers {
    fn checked(servers: Vec<Server>) -> Result<Self, String> {
        match servers.len() {
            0 => Err("no server is named".to_owned()),
            1..=MAX_SERVERS => Ok(Self(servers)),
            many => Err(format!("{many} servers, at most {MAX_SERVERS} are taken")),
        }
    }
}

impl FromStr for Servers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split(',').map(str::trim).filter(|server| !server.is_empty());
        Self::checked(named.map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Servers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a server's address, or a list of them")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Servers, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Servers, A::Error> {
                let mut servers = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    servers.push(text.parse().map_err(A::Error::custom)?);
                }
                Servers::checked(servers).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

/// A time, mostly that between two samples: `5s`, `1m`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(Duration);

impl Interval {
    /// The shortest that is taken.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// The longest that is taken.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// Within which time an end is over, where nothing else is said: containers are killed after ten seconds.
    pub const SHUTDOWN: Self = Self(Duration::from_secs(10));

    /// The time.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// The time in ms; at most an hour, so it always fits.
    pub fn millis(self) -> u32 {
        u32::try_from(self.0.as_millis()).unwrap_or(u32::MAX)
    }

    fn from_seconds(seconds: f64) -> Result<Self, String> {
        let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        if !(Self::SHORTEST..=Self::LONGEST).contains(&time) {
            return Err(format!("a time of {seconds} s; between 1s and 1h are taken"));
        }
        // A sample's time is in ms, and so are the intervals of the protocol.
        Ok(Self(Duration::from_millis(time.as_millis() as u64)))
    }
}

/// Bytes that the spool may take: 0 for no spool, or 4 MiB to 1 TiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    /// The least that is taken, beside 0: some samples of the largest kind.
    pub const SMALLEST: u64 = 4 << 20;
    /// The most that is taken.
    pub const LARGEST: u64 = 1 << 40;

    /// The bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Default for Size {
    fn default() -> Self {
        Self(crate::spool::DEFAULT_MAX_BYTES)
    }
}

/// Longer ones first: each ends with those after it.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
    ("", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (number, unit) = SIZE_UNITS
            .into_iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number.trim(), unit)))
            .unwrap_or((text, 1));
        let number: u64 =
            number.parse().map_err(|_| format!("{text:?} is no size; write it as 64MiB, 100MB or 0"))?;
        let bytes = number.saturating_mul(unit);
        if bytes != 0 && !(Self::SMALLEST..=Self::LARGEST).contains(&bytes) {
            return Err(format!("{bytes} bytes; 0 or between 4MiB and 1024GiB are taken"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, unit) = SIZE_UNITS[..3]
            .iter()
            .rev()
            .find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit))
            .unwrap_or(&("", 1));
        write!(f, "{}{suffix}", self.0 / unit)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer) {
            Ok(Written::Bytes(bytes)) => bytes.to_string(),
            Ok(Written::Text(text)) => text,
            Err(_) => {
                return Err(D::Error::custom("a size is a text such as \"64MiB\", or a number of bytes"));
            }
        };
        text.parse().map_err(D::Error::custom)
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)];
        let (number, unit) = units
            .into_iter()
            .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number.trim(), unit)))
            .unwrap_or((text, 1.0));
        let number: f64 =
            number.parse().map_err(|_| format!("{text:?} is no time; write it as 5s, 500ms, 1m or 1h"))?;
        Self::from_seconds(number * unit)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Time;
        impl Visitor<'_> for Time {
            type Value = Interval;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"5s\", or a number of seconds")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Interval, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Interval, E> {
                Interval::from_seconds(seconds as f64).map_err(E::custom)
            }
            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Interval, E> {
                Interval::from_seconds(seconds).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Time)
    }
}

/// What a host is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(Text<MAX_HOST_NAME_BYTES>);

impl HostName {
    /// The valid name nearest to what a system calls itself.
    pub fn nearest(raw: &str) -> Self {
        Self(nearest_host_name(raw))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it travels.
    pub fn text(&self) -> Text<MAX_HOST_NAME_BYTES> {
        self.0.clone()
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_host_name(text).map_err(|error| error.to_string())?;
        Text::new(text).map(Self).map_err(|error| error.to_string())
    }
}

/// A host's labels, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Keys and values, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// All of several together; a key that is given twice is an error.
    pub fn merge(several: Vec<Self>) -> Result<Option<Self>, String> {
        if several.is_empty() {
            return Ok(None);
        }
        Self::checked(several.into_iter().flat_map(|labels| labels.0)).map(Some)
    }

    fn checked(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            check_label(&key, &value).map_err(|error| error.to_string())?;
            if labels.contains_key(&key) {
                return Err(format!("the label {key:?} is given twice"));
            }
            labels.insert(key, value);
        }
        if labels.len() > MAX_LABELS {
            return Err(format!("{} labels, at most {MAX_LABELS} are taken", labels.len()));
        }
        Ok(Self(labels))
    }
}

impl FromStr for Labels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| format!("{pair:?} is no label; write it as key=value"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        });
        Self::checked(pairs.collect::<Result<Vec<_>, String>>()?)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::checked(BTreeMap::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A join token, and the servers that it names. Its debug form shows nothing of its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    join: JoinToken,
    servers: Vec<Server>,
}

impl Token {
    /// Reads it from a file; blanks and the newline at its ends do not belong to it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |error| ConfigError::Read { path: path.to_owned(), error };
        let file = std::fs::File::open(path).map_err(read_error)?;
        let mut text = String::new();
        // More than a token can have is not one, however long the file is.
        file.take(2 * MAX_CHARS as u64).read_to_string(&mut text).map_err(read_error)?;
        text.parse().map_err(|message| ConfigError::Value { from: path.display().to_string(), message })
    }

    /// What of it travels.
    pub fn said(&self) -> Text<MAX_TOKEN_BYTES> {
        self.join.said()
    }

    /// The servers that it names.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The keys that it trusts.
    pub fn pins(&self) -> Vec<Pin> {
        self.join.pins.iter().copied().map(Pin).collect()
    }

    /// When it expires, in ms since 1970.
    pub fn expires_ms(&self) -> i64 {
        self.join.expires_ms
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("the token is empty".to_owned());
        }
        let join: JoinToken =
            text.parse().map_err(|error: vitals_wire::token::TokenError| error.to_string())?;
        let servers = join.addresses.iter().map(|address| address.parse()).collect::<Result<_, String>>();
        let servers = servers.map_err(|error| format!("the token names a server that cannot be: {error}"))?;
        Ok(Self { join, servers })
    }
}

/// A text that is shown nowhere, not even when it is no token.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// The token in it.
    pub(super) fn token(&self) -> Result<Token, String> {
        self.0.parse()
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Keys that are trusted: one text, with commas between, or a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinList(pub Vec<Pin>);

impl FromStr for PinList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.split(',').map(str::trim).filter(|pin| !pin.is_empty());
        Self::checked(named.map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl PinList {
    fn checked(pins: Vec<Pin>) -> Result<Self, String> {
        match pins.len() {
            0..=MAX_PINS => Ok(Self(pins)),
            many => Err(format!("{many} pins, at most {MAX_PINS} are taken")),
        }
    }
}

impl<'de> Deserialize<'de> for PinList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(String),
            Many(Vec<String>),
        }
        let pins = match Written::deserialize(deserializer) {
            Ok(Written::One(text)) => return text.parse().map_err(D::Error::custom),
            Ok(Written::Many(texts)) => texts.iter().map(|text| text.parse()).collect::<Result<_, _>>(),
            Err(_) => Err("pins are a text of 64 hexadecimal digits, or a list of them".to_owned()),
        };
        pins.and_then(Self::checked).map_err(D::Error::custom)
    }
}

/// A proxy, or none where the text is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaybeProxy(pub Option<Proxy>);

impl FromStr for MaybeProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Ok(Self(None)),
            text => text.parse().map(Some).map(Self),
        }
    }
}

/// The collectors' table, checked.
#[derive(Debug)]
pub struct Collect(pub CollectConfig);

impl<'de> Deserialize<'de> for Collect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let collect = CollectConfig::deserialize(deserializer)?;
        collect.check().map_err(D::Error::custom)?;
        Ok(Self(collect))
    }
}

/// A word of a closed set.
#[derive(Debug)]
pub struct Word<T>(pub T);

/// `true` or `false`, as a variable says it.
pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false")),
    }
}

/// Reads a text and parses it.
macro_rules! from_text {
    ($($name:ty $(, $parameter:ident)?;)*) => {$(
        impl<'de $(, $parameter: FromStr<Err = String>)?> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}
from_text! { HostName; MaybeProxy; Token; Word<T>, T; }

impl<T: FromStr<Err = String>> FromStr for Word<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self)
    }
}
