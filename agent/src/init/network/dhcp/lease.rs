//! What a server grants: the address and all that comes with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Message, is_name, option};
use crate::init::network::plan::prefix_of;

/// A lease that says less is renewed no more often than this.
const SHORTEST: Duration = Duration::from_secs(30);
/// RFC 2132: 0xffffffff is for ever.
const FOR_EVER: u32 = u32::MAX;
/// A lease without a time: RFC 2131 demands one, so it is a guess that only decides when to ask again.
const DEFAULT_SECONDS: u32 = 3600;
/// Smallest and largest packet that a server may set: the least that IPv4 demands with room to work, and jumbo frames.
const MTU: std::ops::RangeInclusive<u16> = 576..=9216;

/// Most search domains that are kept.
const MOST_DOMAINS: usize = 16;

/// A route that comes with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::init::network) struct LeasedRoute {
    pub network: Ipv4Addr,
    pub prefix: u8,
    /// The unspecified address is the link itself.
    pub router: Ipv4Addr,
}

/// A granted lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::init::network) struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub server: Ipv4Addr,
    /// The station that its packets came from: the server, or the relay or router before it.
    pub station: [u8; 6],
    pub routes: Vec<LeasedRoute>,
    pub name_servers: Vec<Ipv4Addr>,
    pub search: Vec<String>,
    pub ntp: Vec<Ipv4Addr>,
    pub host_name: Option<String>,
    pub mtu: Option<u16>,
    pub times: Option<Times>,
}

/// When to ask again, counted from the acknowledgement. None of them is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::init::network) struct Times {
    /// Ask the server that gave it (T1).
    pub renew: Duration,
    /// Ask any server (T2).
    pub rebind: Duration,
    /// It is over.
    pub expire: Duration,
}

impl Lease {
    /// Reads an acknowledgement. `None` when it grants no usable address.
    pub(super) fn from_ack(ack: &Message, station: [u8; 6]) -> Option<Self> {
        let address = ack.yours;
        if address.is_unspecified()
            || address.is_broadcast()
            || address.is_multicast()
            || address.is_loopback()
        {
            return None;
        }
        // A server that names no mask leaves a client that can reach only its router.
        let prefix = ack.address(option::MASK).and_then(prefix_of).unwrap_or(32);
        let routes =
            ack.options.get(&option::ROUTES).map(|value| classless_routes(value)).unwrap_or_default();
        // RFC 3442: with classless routes the router option must be ignored.
        let routes = if routes.is_empty() {
            let default = |router| LeasedRoute { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router };
            ack.address(option::ROUTER).map(default).into_iter().collect()
        } else {
            routes
        };
        // The list first; the domain of the network is looked in as well, as resolv.conf(5) has it.
        let mut search = ack.options.get(&option::SEARCH).map(|value| search_list(value)).unwrap_or_default();
        for domain in ack.names(option::DOMAIN) {
            if search.len() < MOST_DOMAINS && !search.contains(&domain) {
                search.push(domain);
            }
        }
        let mtu = ack.options.get(&option::MTU).and_then(|value| <[u8; 2]>::try_from(value.as_slice()).ok());
        Some(Self {
            address,
            prefix,
            server: ack.address(option::SERVER).unwrap_or(Ipv4Addr::BROADCAST),
            station,
            routes,
            name_servers: ack.addresses(option::DNS).take(8).collect(),
            search,
            ntp: ack.addresses(option::NTP).take(8).collect(),
            host_name: ack.name(option::HOST_NAME).filter(|name| name.len() <= 64),
            mtu: mtu.map(u16::from_be_bytes).filter(|mtu| MTU.contains(mtu)),
            times: Times::from_ack(ack),
        })
    }

    /// The router for everything that no other route covers.
    pub(in crate::init::network) fn gateway(&self) -> Option<Ipv4Addr> {
        self.routes.iter().find(|route| route.prefix == 0).map(|route| route.router)
    }
}

impl Times {
    fn from_ack(ack: &Message) -> Option<Self> {
        let seconds = ack.number(option::LEASE_TIME).unwrap_or(DEFAULT_SECONDS);
        if seconds == FOR_EVER {
            return None;
        }
        let expire = Duration::from_secs(seconds.into()).max(SHORTEST * 2);
        let given = |number| ack.number(number).map(|seconds| Duration::from_secs(seconds.into()));
        let rebind = given(option::T2).filter(|time| *time < expire).unwrap_or(expire * 7 / 8);
        let renew = given(option::T1).filter(|time| *time < rebind).unwrap_or(expire / 2).max(SHORTEST);
        Some(Self { renew, rebind: rebind.max(renew), expire })
    }
}

/// Option 121 (RFC 3442): prefix length, as many bytes of the network as it needs, router. Stops at what is cut short.
fn classless_routes(mut bytes: &[u8]) -> Vec<LeasedRoute> {
    let mut routes = Vec::new();
    while let [prefix @ 0..=32, rest @ ..] = bytes {
        let significant = usize::from(prefix.div_ceil(8));
        let Some((network, rest)) = rest.split_at_checked(significant) else { break };
        let Some((router, rest)) = rest.split_at_checked(4) else { break };
        let mut octets = [0; 4];
        for (to, from) in octets.iter_mut().zip(network) {
            *to = *from;
        }
        // The kernel refuses a network with bits beyond its prefix.
        let mask = u32::MAX.checked_shl(32 - u32::from(*prefix)).unwrap_or(0);
        let network = Ipv4Addr::from(u32::from_be_bytes(octets) & mask);
        let router = <[u8; 4]>::try_from(router).map(Ipv4Addr::from).unwrap_or(Ipv4Addr::UNSPECIFIED);
        routes.push(LeasedRoute { network, prefix: *prefix, router });
        bytes = rest;
    }
    routes
}

/// Option 119 (RFC 3397): domain names in DNS form, compressed by pointers into the option itself.
fn search_list(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some((name, after)) = domain_name(bytes, at).filter(|_| names.len() < MOST_DOMAINS) {
        if is_name(&name) {
            names.push(name);
        }
        at = after;
    }
    names
}

/// The name at a place, and the place after it.
fn domain_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = start;
    let mut after = None;
    // Pointers may form a circle; no name has more than 127 labels.
    for _ in 0..256 {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((labels.join("."), after.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                labels.push(String::from_utf8(label.to_vec()).ok()?);
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                after = after.or(Some(at + 2));
                at = usize::from(u16::from_be_bytes([length & 0x3f, *bytes.get(at + 1)?]));
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::network::mac::Mac;
    use proptest::prelude::*;

    fn ack(options: &[(u8, &[u8])]) -> Message {
        Message {
            is_reply: true,
            transaction: 1,
            seconds: 0,
            broadcast: false,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::new(10, 0, 2, 15),
            mac: Mac([2; 6]),
            options: options.iter().map(|(number, value)| (*number, value.to_vec())).collect(),
        }
    }

    fn lease(options: &[(u8, &[u8])]) -> Lease {
        Lease::from_ack(&ack(options), [9; 6]).unwrap()
    }

    #[test]
    fn a_usual_lease_is_read() {
        let lease = lease(&[
            (1, &[255, 255, 255, 0]),
            (3, &[10, 0, 2, 2]),
            (6, &[10, 0, 2, 3, 1, 1, 1, 1]),
            (12, b"node-7"),
            (15, b"example.org"),
            (26, &[0x05, 0xaa]),
            (42, &[10, 0, 2, 4]),
            (51, &[0, 1, 0x51, 0x80]),
            (54, &[10, 0, 2, 2]),
        ]);
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 2, 15), 24));
        assert_eq!(lease.gateway(), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(lease.name_servers.len(), 2);
        assert_eq!(lease.search, ["example.org"]);
        assert_eq!(lease.host_name.as_deref(), Some("node-7"));
        assert_eq!(lease.mtu, Some(1450));
        let times = lease.times.unwrap();
        assert_eq!(
            (times.renew.as_secs(), times.rebind.as_secs(), times.expire.as_secs()),
            (43200, 75600, 86400)
        );
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let lease = lease(&[
            (3, &[10, 0, 2, 99]),
            (121, &[0, 10, 0, 2, 1, 24, 192, 0, 2, 0, 0, 0, 0, 12, 172, 31, 10, 0, 2, 7]),
        ]);
        assert_eq!(lease.gateway(), Some(Ipv4Addr::new(10, 0, 2, 1)));
        let networks: Vec<_> =
            lease.routes.iter().map(|route| (route.network.to_string(), route.prefix)).collect();
        assert_eq!(networks, [("0.0.0.0".into(), 0), ("192.0.2.0".into(), 24), ("172.16.0.0".into(), 12)]);
    }

    #[test]
    fn search_lists_with_pointers_are_read_and_circles_end() {
        let bytes = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
        assert_eq!(search_list(bytes), ["eng.apple.com", "marketing.apple.com"]);
        assert_eq!(search_list(b"\xc0\x00"), Vec::<String>::new());
    }

    #[test]
    fn domains_come_from_both_options_in_every_combination() {
        let list = b"\x03eng\x03lab\x00\x05sales\xc0\x04\x03eng\x03lab\x00".as_slice();
        for (options, expected) in [
            (vec![], vec![]),
            (vec![(15, b"example.org".as_slice())], vec!["example.org"]),
            (vec![(15, b"example.org. lab.example\0")], vec!["example.org", "lab.example"]),
            (vec![(15, b"a.example, b.example")], vec!["a.example", "b.example"]),
            (vec![(119, list)], vec!["eng.lab", "sales.lab", "eng.lab"]),
            (
                vec![(119, list), (15, b"eng.lab other.lab")],
                vec!["eng.lab", "sales.lab", "eng.lab", "other.lab"],
            ),
            (vec![(119, b"\x09short"), (15, b"lab")], vec!["lab"]),
        ] {
            assert_eq!(lease(&options).search, expected, "{options:?}");
        }
    }

    #[test]
    fn nonsense_from_a_server_is_left_out() {
        let lease = lease(&[
            (1, &[255, 0, 255, 0]),
            (12, b"a b\n"),
            (26, &[0, 10]),
            (51, &[0, 0, 0, 1]),
            (15, b"x;y -z $(reboot)"),
        ]);
        assert_eq!((lease.prefix, lease.host_name.clone(), lease.mtu), (32, None, None));
        assert!(lease.search.is_empty());
        assert_eq!(lease.times.unwrap().renew, SHORTEST);
        let mut refused = ack(&[]);
        refused.yours = Ipv4Addr::UNSPECIFIED;
        assert_eq!(Lease::from_ack(&refused, [0; 6]), None);
    }

    #[test]
    fn a_lease_for_ever_is_never_renewed() {
        assert_eq!(lease(&[(51, &[255; 4])]).times, None);
    }

    proptest! {
        #[test]
        fn any_option_values_are_survived(options in prop::collection::btree_map(any::<u8>(), prop::collection::vec(any::<u8>(), 0..64), 0..20)) {
            let mut ack = ack(&[]);
            ack.options = options;
            if let Some(Lease { times: Some(times), .. }) = Lease::from_ack(&ack, [0; 6]) {
                prop_assert!(times.renew <= times.rebind && times.rebind <= times.expire);
            }
        }

        #[test]
        fn any_route_and_search_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..255)) {
            classless_routes(&bytes);
            search_list(&bytes);
        }
    }
}
