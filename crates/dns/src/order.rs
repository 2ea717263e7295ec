//! Which address to try first: a short form of RFC 6724, and both families by turns as RFC 8305 (4) wants.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// Whether this machine has a route to an address. Sends nothing.
pub(crate) fn has_route(address: IpAddr) -> bool {
    source(address).is_some()
}

/// The address that packets to this one would come from.
fn source(address: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, 9)).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

/// Sorts addresses: those with a route before those without; IPv6 before IPv4, unless it would leave from an address that does
/// not reach as far; then the families by turns. What is equal keeps its order.
pub(crate) fn best_first(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut ranked: Vec<(u8, IpAddr)> =
        addresses.into_iter().map(|address| (rank(address, source(address)), address)).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let with_route = ranked.iter().take_while(|(rank, _)| *rank < NO_ROUTE).count();
    let without = ranked.split_off(with_route);
    let mut sorted = by_turns(ranked);
    sorted.extend(without.into_iter().map(|(_, address)| address));
    sorted
}

const NO_ROUTE: u8 = 3;

/// The lower the better.
fn rank(address: IpAddr, source: Option<IpAddr>) -> u8 {
    match (address, source) {
        (_, None) => NO_ROUTE,
        (IpAddr::V6(to), Some(IpAddr::V6(from))) if reach(from) >= reach(to) => 0,
        (IpAddr::V4(_), Some(_)) => 1,
        (IpAddr::V6(_), Some(_)) => 2,
    }
}

/// How far an address reaches: the link, the site, everywhere.
fn reach(address: Ipv6Addr) -> u8 {
    if address.is_loopback() || address.is_unicast_link_local() {
        0
    } else if address.is_unique_local() {
        1
    } else {
        2
    }
}

fn by_turns(ranked: Vec<(u8, IpAddr)>) -> Vec<IpAddr> {
    let first_is_v4 = ranked.first().is_some_and(|(_, address)| address.is_ipv4());
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        ranked.into_iter().map(|(_, address)| address).partition(|address| address.is_ipv4() == first_is_v4);
    first.reverse();
    second.reverse();
    let mut sorted = Vec::new();
    while !(first.is_empty() && second.is_empty()) {
        sorted.extend(first.pop());
        sorted.extend(second.pop());
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_reached_comes_last_and_ipv6_first_only_where_it_reaches() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (global, local) = (ip("2001:db8::1"), ip("fd00::1"));
        assert!(rank(global, Some(ip("2001:db8:9::7"))) < rank(ip("192.0.2.1"), Some(ip("192.0.2.7"))));
        assert!(rank(global, Some(ip("fd00::7"))) > rank(ip("192.0.2.1"), Some(ip("192.0.2.7"))));
        assert!(rank(local, Some(ip("fd00::7"))) < rank(ip("192.0.2.1"), Some(ip("192.0.2.7"))));
        assert!(rank(global, None) > rank(ip("192.0.2.1"), Some(ip("192.0.2.7"))));
    }

    #[test]
    fn families_take_turns() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let ranked = ["::1", "::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| (0, ip(text)));
        let shown: Vec<_> = by_turns(ranked.into()).iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["::1", "192.0.2.1", "::2", "192.0.2.2", "192.0.2.3"]);
    }
}
