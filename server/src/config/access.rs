//! Who may reach what: accounts, limits of hosts, networks.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::values::{Masked, duration};

/// Addresses of a network, such as `192.0.2.0/24` or `2001:db8::/32`; an address alone is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address in IPv6's clothes counts as the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                (u64::from(u32::from(net)) >> shift) == (u64::from(u32::from(address)) >> shift)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                u128::from(net).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network such as 192.0.2.0/24, 2001:db8::/32 or 192.0.2.7");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(prefix) => prefix.trim().parse().ok().filter(|prefix| *prefix <= most).ok_or_else(wrong)?,
        };
        Ok(Self { address: address.to_canonical(), prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// People.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// The first administrator's password; better in `admin_password_file`. Empty: a random one is made.
    pub admin_password: Masked,
    /// A file that holds it.
    pub admin_password_file: Option<PathBuf>,
    /// Time without a request after which a login ends.
    #[serde(with = "duration")]
    pub session_idle: Duration,
    /// Time after which a login ends in any case.
    #[serde(with = "duration")]
    pub session_lifetime: Duration,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            admin_password: Masked::default(),
            admin_password_file: None,
            session_idle: Duration::from_secs(24 * 3600),
            session_lifetime: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Accounts {
    /// A file of a password wins over one that stands beside it in the configuration.
    pub(super) fn read_password(&mut self) -> Result<(), ConfigError> {
        if let Some(file) = &self.admin_password_file {
            let text = std::fs::read_to_string(file)
                .map_err(|error| ConfigError::Unreadable { file: file.clone(), error })?;
            self.admin_password = Masked(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        Ok(())
    }
}

/// What one host may send. More slows its backlog or is dropped and counted, and never ends its connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostLimits {
    /// Samples in a second, averaged over a minute: live ones beyond are dropped, backlog waits.
    pub samples_per_second: u32,
    /// Bytes in a second, averaged over a minute.
    pub bytes_per_second: ByteSize,
    /// Distinct series in 24 h; names of processes are two fifths of them at most.
    pub series: u32,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self { samples_per_second: 20, bytes_per_second: ByteSize::kib(512), series: 500 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("192.0.2.0/24", "192.0.2.255") && !holds("192.0.2.0/24", "192.0.3.0"));
        assert!(holds("192.0.2.7", "::ffff:192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1"));
        for wrong in ["", "x", "192.0.2.0/33", "192.0.2.0/", "2001:db8::/129", "192.0.2.0/-1"] {
            assert!(wrong.parse::<Network>().unwrap_err().contains("no network"), "{wrong}");
        }
    }
}
