//! A hardware address, in the forms that boot loaders write it.

use std::fmt;
use std::str::FromStr;

/// Six bytes that name an Ethernet interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// This is no hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a MAC address; expected aa:bb:cc:dd:ee:ff, with - or : between the bytes, with or without a leading 01- (20- and 20 \
     bytes for InfiniBand)"
)]
pub struct NotAMac;

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = NotAMac;

    /// Takes `aa:bb:cc:dd:ee:ff` (iPXE), `01-aa-bb-cc-dd-ee-ff` (pxelinux: 01 is the hardware type) and what lies between, in
    /// either case. Of an InfiniBand address (20 bytes, or the 8 of its GUID, with or without a leading `20-`) it takes the six
    /// bytes that stand for it: the GUID without the two bytes in its middle.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let text = text.trim();
        let is_raw = text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parts: Vec<&[u8]> = if is_raw {
            text.as_bytes().chunks(2).collect() // iPXE's `hexraw`: no separators at all
        } else {
            text.split(['-', ':']).map(str::as_bytes).collect()
        };
        let byte = |part: &&[u8]| {
            let part =
                std::str::from_utf8(part).ok().filter(|part| part.len() == 2 && !part.starts_with('+'));
            u8::from_str_radix(part?, 16).ok()
        };
        let bytes: Vec<u8> = parts.iter().map(byte).collect::<Option<_>>().ok_or(NotAMac)?;
        let six = match bytes.len() {
            6 => bytes.as_slice(),
            7 => bytes.get(1..).unwrap_or_default(), // a hardware type before it
            8 | 9 | 20 | 21 => {
                let guid = bytes.get(bytes.len().saturating_sub(8)..).unwrap_or_default();
                let [a, b, c, _, _, d, e, f] = *guid else { return Err(NotAMac) };
                return Ok(Self([a, b, c, d, e, f]));
            }
            _ => return Err(NotAMac),
        };
        six.try_into().map(Self).map_err(|_| NotAMac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_a_boot_loader_writes_is_understood() {
        let expected = Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        for text in [
            "52:54:00:ab:cd:ef",
            "52-54-00-ab-cd-ef",
            "01-52-54-00-ab-cd-ef",
            "01:52:54:00:AB:CD:EF",
            "01-52-54-00-AB-CD-EF",
            "01-52:54:00:ab:cd:ef", // GRUB: 01-$net_default_mac
            "525400ABCDEF",
            " 52:54:00:ab:cd:ef\n",
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert_eq!(expected.to_string(), "52:54:00:ab:cd:ef");
    }

    #[test]
    fn an_infiniband_address_stands_for_six_bytes_of_its_guid() {
        let expected = Mac([0x7c, 0xfe, 0x90, 0x29, 0x26, 0x52]);
        let address = "a0:00:00:27:fe:80:00:00:00:00:00:00:7c:fe:90:03:00:29:26:52";
        for text in [
            address,
            &format!("20-{}", address.replace(':', "-")),
            &format!("20:{}", address.to_ascii_uppercase()),
            &address.replace(':', ""),
            "20-7c-fe-90-03-00-29-26-52",
            "7c:fe:90:03:00:29:26:52",
            "20-7c-fe-90-29-26-52",
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "01",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:01:02:03:04",
            "52540:0abcdef",
            "g2:54:00:ab:cd:ef",
            "+1:54:00:ab:cd:ef",
            "52540:0:ab:cd:ef:1",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }
}
