//! DHCPv6 messages (RFC 8415, sections 8 and 21), as far as a client needs them. Pure; the bytes are anybody's.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::super::mac::Mac;
use super::super::names;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    InformationRequest = 11,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Solicit,
            Self::Advertise,
            Self::Request,
            Self::Renew,
            Self::Rebind,
            Self::Reply,
            Self::InformationRequest,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

pub(super) mod option {
    pub(in super::super) const CLIENT_ID: u16 = 1;
    pub(in super::super) const SERVER_ID: u16 = 2;
    pub(in super::super) const IA_NA: u16 = 3;
    pub(in super::super) const IA_ADDRESS: u16 = 5;
    pub(in super::super) const REQUESTED: u16 = 6;
    pub(in super::super) const ELAPSED: u16 = 8;
    pub(in super::super) const STATUS: u16 = 13;
    pub(in super::super) const RAPID_COMMIT: u16 = 14;
    pub(in super::super) const DNS: u16 = 23;
    pub(in super::super) const SEARCH: u16 = 24;
    pub(in super::super) const SNTP: u16 = 31;
    pub(in super::super) const NTP: u16 = 56;
}

/// What stands for "for ever".
const INFINITE: u32 = u32::MAX;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: Kind,
    /// 24 bits.
    pub transaction: u32,
    pub options: Vec<(u16, Vec<u8>)>,
}

/// An address that a server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Granted {
    pub address: Ipv6Addr,
    /// How long it may be used; `None` for ever.
    pub valid: Option<Duration>,
}

/// The addresses of one message, and when to renew them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Association {
    pub renew: Option<Duration>,
    pub rebind: Option<Duration>,
    pub addresses: Vec<Granted>,
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let [_, a, b, c] = self.transaction.to_be_bytes();
        let mut bytes = vec![self.kind as u8, a, b, c];
        for (code, value) in &self.options {
            put(&mut bytes, *code, value);
        }
        bytes
    }

    /// `None` when it is damaged, or of a kind that is none of a client's business.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [kind, a, b, c, ref options @ ..] = *bytes else { return None };
        let transaction = u32::from_be_bytes([0, a, b, c]);
        Some(Self { kind: Kind::of(kind)?, transaction, options: split(options)? })
    }

    pub(super) fn get(&self, code: u16) -> Option<&[u8]> {
        find(&self.options, code)
    }

    /// Whether the server says that it could do it.
    pub(super) fn succeeded(&self) -> bool {
        self.get(option::STATUS).is_none_or(|status| status.starts_with(&[0, 0]))
    }

    /// Name servers.
    pub(super) fn name_servers(&self) -> Vec<Ipv6Addr> {
        self.get(option::DNS).map(addresses).unwrap_or_default()
    }

    /// Domains in which short names are looked up.
    pub(super) fn search(&self) -> Vec<String> {
        self.get(option::SEARCH).map(names::decode_list).unwrap_or_default()
    }

    /// Time servers: those of the newer option that are unicast addresses, else those of the older one.
    pub(super) fn time_servers(&self) -> Vec<Ipv6Addr> {
        const SERVER_ADDRESS: u16 = 1;
        let newer: Vec<_> = self
            .options
            .iter()
            .filter(|(code, _)| *code == option::NTP)
            .filter_map(|(_, value)| find(&split(value)?, SERVER_ADDRESS).map(addresses))
            .flatten()
            .collect();
        if newer.is_empty() { self.get(option::SNTP).map(addresses).unwrap_or_default() } else { newer }
    }

    /// The addresses for this client, if there are any that may be used.
    pub(super) fn association(&self, id: [u8; 4]) -> Option<Association> {
        let ours = |(code, value): &&(u16, Vec<u8>)| *code == option::IA_NA && value.starts_with(&id);
        let (_, value) = self.options.iter().find(ours)?;
        let inner = split(value.get(12..)?)?;
        if find(&inner, option::STATUS).is_some_and(|status| !status.starts_with(&[0, 0])) {
            return None;
        }
        let granted =
            inner.iter().filter(|(code, _)| *code == option::IA_ADDRESS).filter_map(|(_, value)| {
                let address: [u8; 16] = value.get(..16)?.try_into().ok()?;
                let valid = seconds(value, 20)?;
                let usable = valid != 0;
                usable.then_some(Granted { address: address.into(), valid: lifetime(valid) })
            });
        let addresses: Vec<_> = granted.collect();
        let when = |at: usize| seconds(value, at).filter(|seconds| *seconds != 0).and_then(lifetime);
        (!addresses.is_empty()).then(|| Association { renew: when(4), rebind: when(8), addresses })
    }
}

/// The client's name: its hardware address (RFC 8415, 11.4), as boot loaders and OpenStack's networking expect it.
pub(super) fn client_id(mac: Mac) -> Vec<u8> {
    [&[0, 3, 0, 1], mac.0.as_slice()].concat()
}

/// The value of an `IA_NA` option that asks for `addresses`, or for any.
pub(super) fn identity_association(id: [u8; 4], wanted: &[Granted]) -> Vec<u8> {
    let mut value = [id.as_slice(), &[0; 8]].concat();
    for granted in wanted {
        let body = [granted.address.octets().as_slice(), &[0; 8]].concat(); // how long is the server's to say
        put(&mut value, option::IA_ADDRESS, &body);
    }
    value
}

fn put(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    bytes.extend(code.to_be_bytes());
    bytes.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes()); // ours are short
    bytes.extend(value);
}

fn split(mut bytes: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let [a, b, c, d, ref rest @ ..] = *bytes else { return None };
        let length = usize::from(u16::from_be_bytes([c, d]));
        options.push((u16::from_be_bytes([a, b]), rest.get(..length)?.to_vec()));
        bytes = rest.get(length..)?;
    }
    Some(options)
}

fn find(options: &[(u16, Vec<u8>)], code: u16) -> Option<&[u8]> {
    options.iter().find(|(found, _)| *found == code).map(|(_, value)| value.as_slice())
}

fn addresses(value: &[u8]) -> Vec<Ipv6Addr> {
    value
        .as_chunks::<16>()
        .0
        .iter()
        .map(|octets| Ipv6Addr::from(*octets))
        .filter(|ip| !ip.is_multicast())
        .collect()
}

fn seconds(value: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(at..at + 4)?.try_into().ok()?))
}

fn lifetime(seconds: u32) -> Option<Duration> {
    (seconds != INFINITE).then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::{Decodable, Encodable, v6};
    use proptest::prelude::*;

    const ID: [u8; 4] = [0, 1, 2, 3];
    const MAC: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);

    #[test]
    fn another_codec_reads_what_is_written() {
        let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let options = vec![
            (option::CLIENT_ID, client_id(MAC)),
            (option::IA_NA, identity_association(ID, &[Granted { address, valid: None }])),
            (option::REQUESTED, vec![0, 23]),
        ];
        let bytes = Message { kind: Kind::Request, transaction: 0x0a_0b_0c, options }.encode();
        let read = v6::Message::from_bytes(&bytes).unwrap();
        assert_eq!((read.msg_type(), read.xid()), (v6::MessageType::Request, [10, 11, 12]));
        let Some(v6::DhcpOption::IANA(association)) = read.opts().get(v6::OptionCode::IANA) else {
            panic!("{read:?}")
        };
        let Some(v6::DhcpOption::IAAddr(inner)) = association.opts.get(v6::OptionCode::IAAddr) else {
            panic!("{read:?}")
        };
        assert_eq!((association.id, inner.addr), (0x00_01_02_03, address));
    }

    #[test]
    fn what_another_codec_writes_is_read() {
        let mut message = v6::Message::new_with_id(v6::MessageType::Reply, [10, 11, 12]);
        let options = message.opts_mut();
        let mut inner = v6::DhcpOptions::new();
        inner.insert(v6::DhcpOption::IAAddr(v6::IAAddr {
            addr: "2001:db8::9".parse().unwrap(),
            preferred_life: 60,
            valid_life: 120,
            opts: v6::DhcpOptions::new(),
        }));
        options.insert(v6::DhcpOption::IANA(v6::IANA { id: 0x00_01_02_03, t1: 30, t2: 0, opts: inner }));
        options.insert(v6::DhcpOption::DomainNameServers(vec!["2001:db8::53".parse().unwrap()]));
        let read = Message::decode(&message.to_vec().unwrap()).unwrap();
        assert_eq!((read.kind, read.transaction), (Kind::Reply, 0x0a_0b_0c));
        let association = read.association(ID).unwrap();
        assert_eq!((association.renew, association.rebind), (Some(Duration::from_secs(30)), None));
        assert_eq!(association.addresses[0].valid, Some(Duration::from_secs(120)));
        assert_eq!(read.name_servers().len(), 1);
        assert!(read.succeeded());
        assert_eq!(read.association([9; 4]), None, "another client's");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(kind in 0_u8..14, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(message) = Message::decode(&[vec![kind, 0, 0, 0], bytes].concat()) {
                let _ = (message.association(ID), message.name_servers(), message.search(), message.time_servers());
                prop_assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }
    }
}
