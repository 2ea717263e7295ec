//! Router advertisements (RFC 4861, section 4.2; options of RFC 8106). Pure; the bytes are anybody's.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::super::names;

const ADVERTISEMENT: u8 = 134;
const HEADER: usize = 16;
const NAME_SERVERS: u8 = 25;
const SEARCH_DOMAINS: u8 = 31;
/// More name servers or domains than this nobody asks.
const MOST: usize = 8;

/// What a router says of its link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Advertisement {
    /// Addresses are given out by DHCPv6.
    pub managed: bool,
    /// Other things than addresses are told by DHCPv6.
    pub other: bool,
    /// How long it is a way out, if at all.
    pub router_lifetime: Duration,
    /// Name servers; none of zero lifetime.
    pub name_servers: Vec<Ipv6Addr>,
    /// Domains in which short names are looked up; none of zero lifetime.
    pub search: Vec<String>,
}

impl Advertisement {
    /// Reads an ICMPv6 message. `None` when it is no advertisement, or a damaged one.
    pub(in crate::init::network) fn decode(bytes: &[u8]) -> Option<Self> {
        let [kind, 0, _, _, _hops, flags, lifetime_high, lifetime_low, ..] = *bytes else { return None };
        if kind != ADVERTISEMENT {
            return None;
        }
        let mut read = Self {
            managed: flags & 0x80 != 0,
            other: flags & 0x40 != 0,
            router_lifetime: Duration::from_secs(u16::from_be_bytes([lifetime_high, lifetime_low]).into()),
            ..Self::default()
        };
        let mut rest = bytes.get(HEADER..)?;
        while let [kind, units, ..] = *rest {
            // An option of no length means that the whole message is not to be believed.
            let option = rest.get(..usize::from(units) * 8).filter(|option| !option.is_empty())?;
            rest = rest.get(option.len()..)?;
            let lifetime = option.get(4..8).filter(|lifetime| **lifetime != [0; 4]);
            match kind {
                NAME_SERVERS if lifetime.is_some() => {
                    let servers =
                        option.get(8..)?.as_chunks::<16>().0.iter().map(|octets| Ipv6Addr::from(*octets));
                    read.name_servers.extend(servers);
                }
                SEARCH_DOMAINS if lifetime.is_some() => {
                    read.search.extend(names::decode_list(option.get(8..)?))
                }
                _ => {}
            }
        }
        read.name_servers.truncate(MOST);
        read.search.truncate(MOST);
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(flags: u8, options: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![134, 0, 0, 0, 64, flags, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend(options.concat());
        message
    }

    fn servers(lifetime: u32) -> Vec<u8> {
        let mut option = vec![25, 3, 0, 0];
        option.extend(lifetime.to_be_bytes());
        option.extend("2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
        option
    }

    #[test]
    fn flags_name_servers_and_domains_are_read() {
        let domains = b"\x1f\x03\0\0\0\0\0\x3c\x07example\x03org\0\0\0\0\0";
        let read = Advertisement::decode(&message(0xc0, &[&servers(60), domains, &[1, 1, 0, 0, 0, 0, 0, 0]]))
            .unwrap();
        assert!(read.managed && read.other);
        assert_eq!(read.router_lifetime, Duration::from_secs(1800));
        assert_eq!(read.name_servers, ["2001:db8::53".parse::<Ipv6Addr>().unwrap()]);
        assert_eq!(read.search, ["example.org"]);
        let plain = Advertisement::decode(&message(0, &[&servers(0)])).unwrap();
        assert!(!plain.managed && !plain.other && plain.name_servers.is_empty());
    }

    #[test]
    fn damaged_messages_are_no_advertisements() {
        for bytes in [
            &[][..],
            &[134],
            &[133; 16],
            &message(0, &[&[25, 0, 0, 0, 0, 0, 0, 0]]),
            &message(0, &[&[25, 9]]),
        ] {
            assert_eq!(Advertisement::decode(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Advertisement::decode(&[message(0, &[]), bytes].concat());
        }
    }
}
