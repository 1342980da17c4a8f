//! What counts as one address where strangers are counted.

use std::net::IpAddr;

/// One address of IPv4, a /64 of IPv6, since whoever has one of those has all of it. An IPv4 address in IPv6's clothes is
/// the former.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}
