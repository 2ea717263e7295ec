//! UDP over IPv4 by hand, for the time before the interface has an address (RFC 768, RFC 791).

use std::net::Ipv4Addr;

const UDP: u8 = 17;
const HEADERS: usize = 28;

/// Where a datagram comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub source: Ipv4Addr,
    pub source_port: u16,
    pub target: Ipv4Addr,
    pub target_port: u16,
}

/// An IP packet with one datagram. `None` when the payload does not fit into one.
pub(super) fn encode(route: Route, payload: &[u8]) -> Option<Vec<u8>> {
    let total = u16::try_from(payload.len().checked_add(HEADERS)?).ok()?;
    let udp_length = total.checked_sub(20)?;

    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, UDP, 0, 0]); // id, fragment, time to live, protocol, checksum to come
    ip.extend(route.source.octets());
    ip.extend(route.target.octets());
    let sum = checksum(&[&ip]);
    patch(&mut ip, 10, sum);

    let mut udp = Vec::with_capacity(payload.len() + 8);
    udp.extend(route.source_port.to_be_bytes());
    udp.extend(route.target_port.to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let [high, low] = udp_length.to_be_bytes();
    let sum = checksum(&[&route.source.octets(), &route.target.octets(), &[0, UDP, high, low], &udp]);
    patch(&mut udp, 6, if sum == 0 { 0xffff } else { sum }); // 0 would say that there is none

    ip.extend(udp);
    Some(ip)
}

/// The datagram in an IP packet; `None` when it is none, is a fragment, or is cut short.
///
/// The UDP checksum is not looked at: a packet from a neighbouring virtual machine may not have one yet, as its sender leaves
/// it to hardware that does not exist. What is damaged fails the transaction id or the cookie.
pub(super) fn decode(packet: &[u8]) -> Option<(Route, &[u8])> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 || checksum(&[packet.get(..header)?]) != 0 || *packet.get(9)? != UDP {
        return None;
    }
    let number =
        |at: usize| -> Option<u16> { Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?)) };
    let address =
        |at: usize| -> Option<Ipv4Addr> { Some(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into()) };
    if number(6)? & 0x3fff != 0 {
        return None; // a fragment
    }
    let route = Route {
        source: address(12)?,
        target: address(16)?,
        source_port: number(header)?,
        target_port: number(header + 2)?,
    };
    let length = usize::from(number(header + 4)?);
    Some((route, packet.get(header + 8..header + length)?))
}

/// The Internet checksum (RFC 1071) of pieces, of which only the last may have an odd length.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for piece in pieces {
        for pair in piece.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair.first().copied().unwrap_or(0), low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX) // folded above
}

fn patch(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROUTE: Route = Route {
        source: Ipv4Addr::UNSPECIFIED,
        source_port: 68,
        target: Ipv4Addr::BROADCAST,
        target_port: 67,
    };

    #[test]
    fn a_datagram_has_these_bytes() {
        // By hand: 4500 + 0021 + 4011 + ffff + ffff, carries added, is 8532; its complement is 7acd.
        let packet = encode(ROUTE, b"hello").unwrap();
        assert_eq!(packet[..4], [0x45, 0, 0, 33]);
        assert_eq!(packet[10..12], 0x7acd_u16.to_be_bytes());
        assert_eq!(packet[20..26], [0, 68, 0, 67, 0, 13]);
        assert_eq!(decode(&packet), Some((ROUTE, &b"hello"[..])));
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The worked example of RFC 1071, section 3: the sum is ddf2.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    #[test]
    fn damaged_headers_fragments_and_other_protocols_are_refused() {
        let good = encode(ROUTE, b"hello").unwrap();
        for (at, value) in [(0, 0x46), (3, 34), (9, 6), (6, 0x20), (12, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(decode(&bad), None, "byte {at}");
        }
        assert_eq!(decode(&good[..good.len() - 1]), None);
    }

    proptest! {
        #[test]
        fn any_payload_passes_through(payload in prop::collection::vec(any::<u8>(), 0..1400)) {
            let packet = encode(ROUTE, &payload).unwrap();
            prop_assert_eq!(checksum(&[&packet[..20]]), 0);
            let udp = &packet[20..];
            let length = u16::try_from(udp.len()).unwrap().to_be_bytes();
            prop_assert_eq!(checksum(&[&packet[12..20], &[0, UDP, length[0], length[1]], udp]), 0);
            prop_assert_eq!(decode(&packet), Some((ROUTE, payload.as_slice())));
        }

        #[test]
        fn any_packet_is_survived(packet in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&packet);
        }
    }
}
