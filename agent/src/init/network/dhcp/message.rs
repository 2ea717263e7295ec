//! DHCPv4 messages on the wire: RFC 2131 for the fixed part, RFC 2132 for options, RFC 3396 for long ones.
//!
//! By hand rather than with a codec crate: a client needs one message form and a dozen options, and the crate at hand brings a whole
//! DNS library. It stays as the other opinion in the tests.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::mac::Mac;

/// Length of the fixed part with its magic cookie.
const FIXED: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Some relays drop what is shorter than a BOOTP message.
const SHORTEST: usize = 300;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const BROADCAST_FLAG: u16 = 0x8000;

/// Numbers of the options that are used.
pub(super) mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const NTP: u8 = 42;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const LARGEST: u8 = 57;
    pub const T1: u8 = 58;
    pub const T2: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const SEARCH: u8 = 119;
    pub const ROUTES: u8 = 121;
}

/// What a message is (option 53). Others are of no use to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// One message, without the fields that nobody here reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub is_reply: bool,
    pub transaction: u32,
    pub seconds: u16,
    pub broadcast: bool,
    /// The client's address, once it has one.
    pub client: Ipv4Addr,
    /// The address that the server gives.
    pub yours: Ipv4Addr,
    pub mac: Mac,
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl Message {
    pub(super) fn kind(&self) -> Option<Kind> {
        match self.options.get(&option::TYPE)?.as_slice() {
            [1] => Some(Kind::Discover),
            [2] => Some(Kind::Offer),
            [3] => Some(Kind::Request),
            [5] => Some(Kind::Ack),
            [6] => Some(Kind::Nak),
            _ => None,
        }
    }

    /// The bytes of a UDP datagram.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![if self.is_reply { REPLY } else { REQUEST }, 1, 6, 0];
        bytes.extend(self.transaction.to_be_bytes());
        bytes.extend(self.seconds.to_be_bytes());
        bytes.extend(if self.broadcast { BROADCAST_FLAG } else { 0 }.to_be_bytes());
        bytes.extend(self.client.octets());
        bytes.extend(self.yours.octets());
        bytes.extend([0; 8]); // next server, relay
        bytes.extend(self.mac.0);
        bytes.resize(FIXED - COOKIE.len(), 0); // rest of the hardware address, server name, boot file
        bytes.extend(COOKIE);
        // The type first: some servers look for it there.
        let first = self.options.get_key_value(&option::TYPE);
        let rest = self.options.iter().filter(|(number, _)| **number != option::TYPE);
        for (number, value) in first.into_iter().chain(rest) {
            for piece in value.chunks(255) {
                bytes.push(*number);
                bytes.push(u8::try_from(piece.len()).unwrap_or(u8::MAX)); // pieces have 255 bytes at the most
                bytes.extend(piece);
            }
        }
        bytes.push(255);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }

    /// Reads a datagram; `None` for what is no DHCP over Ethernet.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..FIXED)?;
        let (kind, hardware) = (*fixed.first()?, fixed.get(1..3)?);
        if !matches!(kind, REQUEST | REPLY) || hardware != [1, 6] || fixed.get(FIXED - 4..)? != COOKIE {
            return None;
        }
        let mut options = BTreeMap::new();
        read_options(bytes.get(FIXED..)?, &mut options);
        // Server name and boot file may hold more options.
        let overload =
            options.get(&option::OVERLOAD).and_then(|value: &Vec<u8>| value.first().copied()).unwrap_or(0);
        if overload & 1 != 0 {
            read_options(fixed.get(108..236)?, &mut options);
        }
        if overload & 2 != 0 {
            read_options(fixed.get(44..108)?, &mut options);
        }
        Some(Self {
            is_reply: kind == REPLY,
            transaction: u32::from_be_bytes(fixed.get(4..8)?.try_into().ok()?),
            seconds: u16::from_be_bytes(fixed.get(8..10)?.try_into().ok()?),
            broadcast: u16::from_be_bytes(fixed.get(10..12)?.try_into().ok()?) & BROADCAST_FLAG != 0,
            client: address(fixed.get(12..16)?)?,
            yours: address(fixed.get(16..20)?)?,
            mac: Mac(fixed.get(28..34)?.try_into().ok()?),
            options,
        })
    }

    /// The first address of an option.
    pub(super) fn address(&self, number: u8) -> Option<Ipv4Addr> {
        self.addresses(number).next()
    }

    /// The addresses of an option.
    pub(super) fn addresses(&self, number: u8) -> impl Iterator<Item = Ipv4Addr> {
        self.options.get(&number).into_iter().flat_map(|value| value.chunks_exact(4)).filter_map(address)
    }

    /// A time in seconds, or another 32-bit number.
    pub(super) fn number(&self, number: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.options.get(&number)?.as_slice().try_into().ok()?))
    }

    /// A text, if it is one a host or domain name may consist of.
    pub(super) fn name(&self, number: u8) -> Option<String> {
        let text = String::from_utf8(self.options.get(&number)?.clone()).ok()?;
        let text = text.trim_end_matches(['\0', '.']);
        is_name(text).then(|| text.to_owned())
    }

    /// The names of an option that holds one, or (against the standard, and often done) several with space or commas between.
    pub(super) fn names(&self, number: u8) -> Vec<String> {
        let bytes = self.options.get(&number).map(Vec::as_slice).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '\0'));
        words.map(|word| word.trim_end_matches('.')).filter(|word| is_name(word)).map(str::to_owned).collect()
    }
}

/// Whether a text is safe to write into `resolv.conf` and to set as a host name: a server's word is not to be trusted.
pub(in crate::init::network) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        && !text.starts_with(['-', '.'])
}

/// Adds the options in `bytes`. One that comes several times is one long value in pieces. Stops at what is cut short.
fn read_options(mut bytes: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) {
    while let [number, rest @ ..] = bytes {
        match number {
            0 => bytes = rest,
            255 => return,
            number => {
                let Some((length, rest)) = rest.split_first() else { return };
                let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                options.entry(*number).or_default().extend(value);
                bytes = rest;
            }
        }
    }
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::{Decodable, Encodable};
    use proptest::prelude::*;

    fn discover() -> Message {
        let options = BTreeMap::from([
            (option::TYPE, vec![1]),
            (option::CLIENT_ID, vec![1, 0x52, 0x54, 0, 1, 2, 3]),
            (option::PARAMETERS, vec![1, 3, 6]),
        ]);
        Message {
            is_reply: false,
            transaction: 0x0102_0304,
            seconds: 5,
            broadcast: true,
            client: Ipv4Addr::UNSPECIFIED,
            yours: Ipv4Addr::UNSPECIFIED,
            mac: Mac([0x52, 0x54, 0, 1, 2, 3]),
            options,
        }
    }

    #[test]
    fn a_discover_has_these_bytes() {
        let bytes = discover().encode();
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0x80, 0]);
        assert_eq!(bytes[28..34], [0x52, 0x54, 0, 1, 2, 3]);
        assert_eq!(bytes[236..243], [99, 130, 83, 99, 53, 1, 1]);
        assert_eq!(bytes[243..258], [55, 3, 1, 3, 6, 61, 7, 1, 0x52, 0x54, 0, 1, 2, 3, 255]);
        assert_eq!(Message::decode(&bytes), Some(discover()));
    }

    #[test]
    fn another_codec_reads_what_is_written_and_the_other_way_round() {
        use dhcproto::v4;
        let bytes = discover().encode();
        let theirs = v4::Message::decode(&mut v4::Decoder::new(&bytes)).unwrap();
        assert_eq!(theirs.xid(), 0x0102_0304);
        assert_eq!(theirs.opts().msg_type(), Some(v4::MessageType::Discover));

        let mut offer = v4::Message::new_with_id(
            7,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(10, 0, 2, 15),
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            &[0x52, 0x54, 0, 1, 2, 3],
        );
        offer.set_opcode(v4::Opcode::BootReply);
        offer.opts_mut().insert(v4::DhcpOption::MessageType(v4::MessageType::Offer));
        offer.opts_mut().insert(v4::DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
        offer.opts_mut().insert(v4::DhcpOption::Router(vec![Ipv4Addr::new(10, 0, 2, 2)]));
        offer.opts_mut().insert(v4::DhcpOption::Hostname("a".repeat(300)));
        let mut bytes = Vec::new();
        offer.encode(&mut v4::Encoder::new(&mut bytes)).unwrap();
        let ours = Message::decode(&bytes).unwrap();
        assert_eq!(ours.kind(), Some(Kind::Offer));
        assert_eq!(ours.yours, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(ours.address(option::ROUTER), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(ours.options.get(&option::HOST_NAME).map(Vec::len), Some(300));
    }

    #[test]
    fn options_go_on_in_the_boot_file_and_server_name_fields() {
        let mut bytes = discover().encode();
        bytes[108..113].copy_from_slice(&[12, 3, b'a', b'b', b'c']);
        bytes[113] = 255;
        bytes[44..50].copy_from_slice(&[3, 4, 10, 0, 0, 1]);
        bytes[50] = 255;
        bytes[240..243].copy_from_slice(&[52, 1, 3]);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.name(option::HOST_NAME).as_deref(), Some("abc"));
        assert_eq!(message.address(option::ROUTER), Some(Ipv4Addr::new(10, 0, 0, 1)));
    }

    #[test]
    fn names_that_would_break_out_of_a_file_are_refused() {
        for (text, good) in [
            ("host.example", true),
            ("a\nnameserver 6.6.6.6", false),
            ("", false),
            ("-x", false),
            ("a b", false),
        ] {
            assert_eq!(is_name(text), good, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn any_options_after_a_good_header_are_survived(tail in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut bytes = discover().encode();
            bytes.truncate(FIXED);
            bytes.extend(tail);
            let message = Message::decode(&bytes).unwrap();
            let _ = message.kind();
        }

        #[test]
        fn what_is_written_reads_the_same(
            transaction: u32, seconds: u16, broadcast: bool, client: [u8; 4], yours: [u8; 4], mac: [u8; 6],
            options in prop::collection::btree_map((1_u8..=254).prop_filter("overload", |n| *n != 52), prop::collection::vec(any::<u8>(), 1..600), 0..8),
        ) {
            let message = Message { is_reply: true, transaction, seconds, broadcast, client: client.into(), yours: yours.into(), mac: Mac(mac), options };
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }
}
