//! Where clients reach this server: what a join token names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use vitals_wire::token::MAX_ADDRESSES;

/// What is known of the machine that the server runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Addresses from which it reaches others.
    pub addresses: Vec<IpAddr>,
    /// Its name with a domain.
    pub name: Option<String>,
    /// It is a container, whose addresses and name mean nothing outside.
    pub is_container: bool,
}

impl Machine {
    /// The one that this runs on. Nothing is sent.
    pub fn this() -> Self {
        // The system says which address it would use; nobody has to be there.
        let outward = |own: IpAddr, other: IpAddr| {
            let socket = UdpSocket::bind((own, 0)).ok()?;
            socket.connect((other, 9)).ok()?;
            Some(socket.local_addr().ok()?.ip())
        };
        let addresses = [
            outward(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
            outward(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
        ];
        let uname = rustix::system::uname();
        let name = uname.nodename().to_string_lossy().into_owned();
        Self {
            addresses: addresses.into_iter().flatten().collect(),
            name: Some(name).filter(|name| name.contains('.')),
            is_container: ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists())
                || std::env::var_os("container").is_some()
                || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        }
    }
}

/// The addresses for a token, and a word for whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// `host:port` each.
    pub addresses: Vec<String>,
    /// What to mind.
    pub note: Option<&'static str>,
}

/// Why no token can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not known how others reach this server.
    #[error(
        "it is not known under which address clients reach this server: say it with --address HOST[:PORT], or set \
         public_address (VITALS_PUBLIC_ADDR)"
    )]
    Unknown,
    /// Something that is no address.
    #[error(
        "{0:?} is no address: write a name or an address, with a port where it is another than the server's"
    )]
    Wrong(String),
    /// The port is not known before the server runs.
    #[error(
        "the clients' port is chosen when the server starts: start it first, or say the port with --address HOST:PORT"
    )]
    NoPort,
    /// More than a token holds.
    #[error("{0} addresses; a token holds at most {MAX_ADDRESSES}")]
    TooMany(usize),
}

/// Chooses the addresses: those asked for, else the configured, else where the page was opened, else what the listener
/// tells.
///
/// # Errors
/// None is known, or one is wrong.
pub fn reached(
    asked: &[String],
    configured: &[String],
    opened_under: Option<&str>,
    listen: SocketAddr,
    machine: impl FnOnce() -> Machine,
) -> Result<Reached, AddressError> {
    let said = if asked.is_empty() { configured } else { asked };
    let plain = |addresses: Vec<String>| Reached { addresses, note: None };
    if !said.is_empty() {
        if said.len() > MAX_ADDRESSES {
            return Err(AddressError::TooMany(said.len()));
        }
        return said.iter().map(|one| with_port(one, listen.port())).collect::<Result<_, _>>().map(plain);
    }
    let ip = listen.ip().to_canonical();
    if ip.is_loopback() {
        let addresses = vec![with_port(&ip.to_string(), listen.port())?];
        let note = "the server listens on loopback: only clients on this machine reach it";
        return Ok(Reached { addresses, note: Some(note) });
    }
    // Of the page's address the host alone: the port is the page's.
    if let Some((host, _)) = opened_under.and_then(|authority| split(authority).ok())
        && !is_local(&host)
    {
        return Ok(plain(vec![with_port(&host, listen.port())?]));
    }
    if !ip.is_unspecified() {
        return Ok(plain(vec![with_port(&ip.to_string(), listen.port())?]));
    }
    let machine = machine();
    if machine.is_container {
        return Err(AddressError::Unknown);
    }
    let is_fit = |address: &&IpAddr| {
        let address = address.to_canonical();
        // An IPv6 address of the link alone needs a zone, which means nothing elsewhere.
        let is_of_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !address.is_loopback() && !is_of_link && (address.is_ipv4() || ip.is_ipv6())
    };
    let addresses = machine.addresses.iter().filter(is_fit).map(ToString::to_string);
    let addresses = addresses.chain(machine.name).map(|host| with_port(&host, listen.port()));
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() {
        return Err(AddressError::Unknown);
    }
    let note = "these are this machine's own addresses: where clients reach it under another, say --address";
    Ok(Reached { addresses, note: Some(note) })
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback() || ip.is_unspecified())
}

fn with_port(address: &str, port: u16) -> Result<String, AddressError> {
    let (host, own) = split(address)?;
    let port = own.unwrap_or(port);
    if port == 0 {
        return Err(AddressError::NoPort);
    }
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Host, without brackets, and port.
fn split(address: &str) -> Result<(String, Option<u16>), AddressError> {
    let wrong = || AddressError::Wrong(address.to_owned());
    let address = address.trim();
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Ok((ip.to_string(), None));
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().map_err(|_| wrong())?)),
        None => (address, None),
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']').ok_or_else(wrong)?;
            inner.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string()
        }
        None if address.starts_with('[') => return Err(wrong()),
        None => host.to_owned(),
    };
    let is_name = |host: &str| {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        !host.is_empty() && host.len() <= 253 && host.chars().all(is_fit)
    };
    if !host.contains(':') && !is_name(&host) {
        return Err(wrong());
    }
    // A bare port is none either.
    (port != Some(0)).then_some((host, port)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn on(listen: &str, machine: Machine) -> Result<Vec<String>, AddressError> {
        reached(&[], &[], None, listen.parse().unwrap(), || machine).map(|reached| reached.addresses)
    }

    #[test]
    fn what_is_asked_for_wins_over_what_is_configured_and_gets_the_servers_port() {
        let listen = "0.0.0.0:7400".parse().unwrap();
        let asked = texts(&["vitals.example.org", "192.0.2.7:7401", "2001:db8::1", "[2001:db8::2]:1"]);
        let got = reached(&asked, &texts(&["x"]), None, listen, Machine::default).unwrap();
        let wanted = ["vitals.example.org:7400", "192.0.2.7:7401", "[2001:db8::1]:7400", "[2001:db8::2]:1"];
        assert_eq!((got.addresses, got.note), (texts(&wanted), None));
        let got = reached(&[], &texts(&["x"]), Some("page:443"), listen, Machine::default).unwrap();
        assert_eq!(got.addresses, ["x:7400"]);
        for wrong in ["", "a b", "a:b", "[::1", "http://a", "a:0", "[a]:1", "a:99999"] {
            let got = reached(&texts(&[wrong]), &[], None, listen, Machine::default);
            assert_eq!(got, Err(AddressError::Wrong(wrong.to_owned())), "{wrong}");
        }
        let many = vec!["a".to_owned(); MAX_ADDRESSES + 1];
        assert_eq!(reached(&many, &[], None, listen, Machine::default), Err(AddressError::TooMany(9)));
    }

    #[test]
    fn where_the_page_was_opened_counts_unless_that_is_this_machine() {
        let listen = "0.0.0.0:7400".parse().unwrap();
        let machine = || Machine { addresses: vec!["192.0.2.9".parse().unwrap()], ..Machine::default() };
        let got = |under: &str| reached(&[], &[], Some(under), listen, machine).unwrap().addresses;
        assert_eq!(got("vitals.example.org:7480"), ["vitals.example.org:7400"]);
        assert_eq!(got("localhost:7480"), ["192.0.2.9:7400"]);
        assert_eq!(got("[::1]:7480"), ["192.0.2.9:7400"]);
    }

    #[test]
    fn a_listener_on_loopback_is_for_this_machine_and_says_so() {
        let got = reached(&[], &[], None, "127.0.0.1:7400".parse().unwrap(), Machine::default).unwrap();
        assert_eq!(got.addresses, ["127.0.0.1:7400"]);
        assert!(got.note.unwrap().contains("this machine"));
        assert_eq!(on("192.0.2.3:7400", Machine::default()).unwrap(), ["192.0.2.3:7400"]);
        assert_eq!(on("127.0.0.1:0", Machine::default()), Err(AddressError::NoPort));
    }

    #[test]
    fn on_all_addresses_the_machines_own_are_named_but_not_those_of_a_container() {
        let machine = Machine {
            addresses: ["192.0.2.9", "fe80::1", "2001:db8::9"].map(|ip| ip.parse().unwrap()).into(),
            name: Some("a.example.org".to_owned()),
            is_container: false,
        };
        let v4 = ["192.0.2.9:7400", "a.example.org:7400"];
        assert_eq!(on("0.0.0.0:7400", machine.clone()).unwrap(), v4);
        let both = ["192.0.2.9:7400", "[2001:db8::9]:7400", "a.example.org:7400"];
        assert_eq!(on("[::]:7400", machine.clone()).unwrap(), both);
        let container = Machine { is_container: true, ..machine };
        assert_eq!(on("0.0.0.0:7400", container), Err(AddressError::Unknown));
        let alone = Machine { addresses: vec!["127.0.0.1".parse().unwrap()], ..Machine::default() };
        assert_eq!(on("0.0.0.0:7400", alone), Err(AddressError::Unknown));
    }
}
