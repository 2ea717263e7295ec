//! Domain names on the wire (RFC 1035, 3.1), uncompressed and one after the other: search lists of routers and of DHCPv6.

use super::dhcp::is_name;

/// The names that are well-formed host names; reading ends at the first damaged one, and at padding.
pub(super) fn decode_list(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while let Some((name, rest)) = decode(bytes).filter(|(name, _)| !name.is_empty()) {
        if is_name(&name) {
            names.push(name);
        }
        bytes = rest;
    }
    names
}

/// One name and what follows it.
fn decode(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut labels = Vec::new();
    loop {
        let (&length, rest) = bytes.split_first()?;
        if length == 0 {
            return Some((labels.join("."), rest));
        }
        // From 64 on it would be a pointer, which has no place here.
        let label = rest.get(..usize::from(length)).filter(|_| length < 64)?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        bytes = rest.get(usize::from(length)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_up_to_damage_or_padding() {
        assert_eq!(decode_list(b"\x01a\x07example\0\x01b\0\0\0\0"), ["a.example", "b"]);
        assert_eq!(decode_list(b"\x01a\0\x09short"), ["a"]);
        assert_eq!(decode_list(b"\x03a b\0\x01c\0"), ["c"], "what is no host name is left out");
        assert!(decode_list(b"\xc0\x0c").is_empty());
    }
}
