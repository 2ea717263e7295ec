//! What the switches announce about themselves: LLDP frames taken apart, not understood. A conductor reads them.
//!
//! Source: IEEE 802.1AB (a type of seven bits, a length of nine, the value); ironic-python-agent `netutils.py` for what becomes
//! of damaged frames: whatever is there is passed on.

use std::time::Duration;

use sys::Host;
use wire::{LldpFrames, Tlv};

use super::interfaces;

/// The Ethernet type of LLDP.
const LLDP: u16 = 0x88cc;
/// Two addresses and the type.
const HEADER: usize = 14;

/// Listens on these interfaces, all at once, until each has heard a frame or none has come anywhere for `silence`. An interface
/// that heard nothing, or can not be listened to, has an empty list.
pub(crate) fn listen(host: &Host, interfaces: &[String], silence: Duration) -> LldpFrames {
    if interfaces.is_empty() {
        return LldpFrames::new();
    }
    tracing::info!(interfaces = interfaces.join(", "), seconds = silence.as_secs(), "listening for LLDP");
    let heard = host.kernel().capture_frames(interfaces, LLDP, silence);
    let parsed = interfaces.iter().zip(heard).map(|(interface, answer)| {
        let tlvs = match answer {
            Ok(Some(frame)) => parse(&frame),
            Ok(None) => Vec::new(),
            Err(error) => {
                tracing::warn!(interface, %error, "listening for LLDP failed");
                Vec::new()
            }
        };
        (interface.clone(), tlvs)
    });
    parsed.collect()
}

/// Every interface that may have a switch at its other end.
pub(crate) fn interfaces(host: &Host) -> Vec<String> {
    let names = host.names(interfaces::NET).unwrap_or_default();
    names.into_iter().filter(|name| interfaces::counts(host, name)).collect()
}

/// The elements of a frame. A value that is cut short is kept as far as it goes; what follows the last element (padding)
/// becomes elements of type 0.
pub fn parse(frame: &[u8]) -> Vec<Tlv> {
    let mut tlvs = Vec::new();
    let mut rest = frame.get(HEADER..).unwrap_or_default();
    while let [high, low, after @ ..] = rest {
        let length = usize::from(high & 1) << 8 | usize::from(*low);
        let (value, next) = after.split_at(length.min(after.len()));
        tlvs.push(Tlv(high >> 1, hex(value)));
        rest = next;
    }
    tlvs
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use proptest::prelude::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&[0x01, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc], payload].concat()
    }

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = value.len();
        let head = [kind << 1 | u8::from(length > 255), u8::try_from(length & 255).unwrap()];
        [head.as_slice(), value].concat()
    }

    #[test]
    fn elements_become_type_and_hex_and_the_end_and_padding_are_kept() {
        let payload = [tlv(1, &[4, 0xaa, 0xbb]), tlv(127, &[7; 300]), tlv(0, &[]), vec![0, 0, 0]].concat();
        let expected = [
            Tlv(1, "04aabb".into()),
            Tlv(127, "07".repeat(300)),
            Tlv(0, String::new()),
            Tlv(0, String::new()), // padding; the last byte alone is nothing
        ];
        assert_eq!(parse(&frame(&payload)), expected);
    }

    #[test]
    fn a_value_that_is_cut_short_is_kept_as_far_as_it_goes() {
        assert_eq!(parse(&frame(&[2 << 1, 200, 1, 2])), [Tlv(2, "0102".into())]);
        assert_eq!(parse(&[0; 13]), []);
        assert_eq!(parse(&frame(&[])), []);
    }

    #[test]
    fn every_interface_has_an_entry_whatever_was_heard() {
        let machine = Fixture::new()
            .file("/sys/class/net/lo/address", "00:00:00:00:00:00\n")
            .file("/sys/class/net/eth0/device/vendor", "0x1af4\n")
            .file("/sys/class/net/eth1/device/vendor", "0x1af4\n")
            .hears("eth1", &frame(&tlv(2, b"p")));
        let host = machine.host();
        let names = interfaces(&host);
        assert_eq!(names, ["eth0", "eth1"]);
        let heard = listen(&host, &names, Duration::from_secs(1));
        let expected = serde_json::json!({"eth0": [], "eth1": [[2, "70"]]});
        assert_eq!(serde_json::to_value(heard).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_parser_panic_or_lose_a_byte(frame in prop::collection::vec(any::<u8>(), 0..2048)) {
            let tlvs = parse(&frame);
            let bytes: usize = tlvs.iter().map(|Tlv(_, hex)| 2 + hex.len() / 2).sum();
            let given = frame.len().saturating_sub(HEADER);
            prop_assert!(bytes == given || bytes + 1 == given);
        }

        #[test]
        fn what_was_put_together_comes_apart_again(
            tlvs in prop::collection::vec((0_u8..128, prop::collection::vec(any::<u8>(), 0..512)), 0..8),
        ) {
            let payload: Vec<u8> = tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
            let expected: Vec<_> = tlvs.iter().map(|(kind, value)| Tlv(*kind, hex(value))).collect();
            prop_assert_eq!(parse(&frame(&payload)), expected);
        }
    }
}
