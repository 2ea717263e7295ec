//! A hardware address, in the forms that boot loaders write it.

use std::fmt;
use std::str::FromStr;

/// Six bytes that name an Ethernet interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// This is no hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a MAC address; expected aa:bb:cc:dd:ee:ff, with - for : if you like, with or without a leading 01-"
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

    /// Takes `aa:bb:cc:dd:ee:ff` (iPXE), `01-aa-bb-cc-dd-ee-ff` (pxelinux: 01 is the hardware type) and what lies between.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let text = text.trim();
        // iPXE's `hexraw`: no separators at all.
        let raw: Vec<String> = if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            text.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect()
        } else {
            Vec::new()
        };
        let joined = raw.join(":");
        let text = if joined.is_empty() { text } else { &joined };
        let bytes: Vec<u8> = text
            .split(['-', ':'])
            .map(|part| {
                if part.len() == 2 && !part.starts_with('+') {
                    u8::from_str_radix(part, 16).ok()
                } else {
                    None
                }
            })
            .collect::<Option<_>>()
            .ok_or(NotAMac)?;
        let bytes = match bytes.as_slice() {
            [_hardware_type, rest @ ..] if rest.len() == 6 => rest,
            all => all,
        };
        bytes.try_into().map(Self).map_err(|_| NotAMac)
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
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "01",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:01:02",
            "g2:54:00:ab:cd:ef",
            "+1:54:00:ab:cd:ef",
            "52540:0:ab:cd:ef:1",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }
}
