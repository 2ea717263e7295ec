//! Small words of kernel parameters: fields parted by colons, masks, prefixes. Pure.

use std::net::{IpAddr, Ipv4Addr};

/// Splits at colons outside brackets, and takes the brackets off.
pub(super) fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => fields.push(String::new()),
            other => {
                if let Some(field) = fields.last_mut() {
                    field.push(other);
                }
            }
        }
    }
    fields
}

/// A mask as its prefix length: `24`, or `255.255.255.0` for IPv4.
pub(super) fn mask_of(mask: &str, address: IpAddr) -> Option<u8> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match (mask.parse::<u8>(), mask.parse::<IpAddr>()) {
        (Ok(prefix), _) => Some(prefix).filter(|prefix| *prefix <= longest),
        (_, Ok(IpAddr::V4(mask))) if address.is_ipv4() => prefix_of(mask),
        _ => None,
    }
}

/// The prefix length of a mask, if its ones are all on the left.
pub(in super::super) fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones).then(|| u8::try_from(ones).unwrap_or(32))
}

/// Without a mask the kernel takes that of the address's class.
pub(super) fn prefix_of_class(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0..=127, ..] => 8,
            [128..=191, ..] => 16,
            _ => 24,
        },
        IpAddr::V6(_) => 64,
    }
}

/// Whether an address lies in a network.
pub(in super::super) fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            u32::from(a) & mask == u32::from(b) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            u128::from(a) & mask == u128::from(b) & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_alone() {
        let within = |address: &str, network: &str, prefix| {
            is_within(address.parse().unwrap(), network.parse().unwrap(), prefix)
        };
        assert!(within("10.0.0.9", "10.0.0.1", 24) && !within("10.0.1.9", "10.0.0.1", 24));
        assert!(within("192.0.2.1", "0.0.0.0", 0) && !within("192.0.2.1", "::", 0));
        assert!(within("fd00::9", "fd00::1", 64) && !within("fd00:0:0:1::9", "fd00::1", 64));
        assert!(within("fd00::9", "fd00::9", 128));
    }
}
