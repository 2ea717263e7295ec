//! World-wide names: which of them can name one disk and no other.
//!
//! USB bridges, cheap disks and test setups carry names that nobody registered. Such a name stays in the inventory and in hints,
//! as udev shows it, but it is no proof that two devices are one disk.

/// Names whose vendor part is below this were counted up by hand.
const LEAST_VENDOR_PART: u32 = 0x100;

/// Returns whether a name follows the rules of its kind closely enough to be unique: a registered kind (NAA 2, 5 or 6, EUI-64,
/// NGUID, UUID), a possible OUI, and a vendor part that is not zero, a small number, one digit repeated or a count of digits.
pub(crate) fn is_unique(name: &str) -> bool {
    let name = name.trim().to_ascii_lowercase();
    if let Some(hex) = name.strip_prefix("0x").or_else(|| name.strip_prefix("naa.")) {
        return is_unique_naa(hex);
    }
    if let Some(hex) = name.strip_prefix("eui.") {
        return match hex.len() {
            16 => is_unique_number(hex, 0),
            32 => is_unique_number(hex, 16),
            _ => false,
        };
    }
    if let Some(uuid) = name.strip_prefix("uuid.") {
        let hex: String = uuid.chars().filter(|c| *c != '-').collect();
        return hex.len() == 32 && is_hex(&hex) && !is_made_up(&hex);
    }
    // The kernel's substitute for a namespace without a name: vendor, serial number, model and number of the namespace.
    name.strip_prefix("nvme.").is_some_and(|rest| rest.split('-').all(|part| !part.is_empty()))
}

/// NAA (SPC-5, 7.7.6.6): 2 has twelve vendor bits before the OUI, 5 and 6 have it at once. 3 is assigned locally.
fn is_unique_naa(hex: &str) -> bool {
    match hex.chars().next() {
        Some('2') if hex.len() == 16 => is_unique_number(hex, 4),
        Some('5' | '6') if matches!(hex.len(), 16 | 32) => is_unique_number(hex, 1),
        Some(_) | None => false,
    }
}

/// Checks a number whose OUI stands at the digit `oui`.
fn is_unique_number(hex: &str, oui: usize) -> bool {
    let parts = (hex.get(..oui), hex.get(oui..oui + 6), hex.get(oui + 6..));
    let (Some(before), Some(organisation), Some(after)) = parts else { return false };
    // NAA: the first digit is the kind. EUI: there is nothing before, NGUID: the vendor's.
    let before = if oui == 1 || oui == 4 { before.get(1..).unwrap_or_default() } else { before };
    let vendor = format!("{before}{after}");
    is_hex(hex) && is_possible_oui(organisation) && !is_made_up(hex) && !is_made_up(&vendor)
}

/// 000000 belongs to a maker of no disks, and the lowest bit of the first byte marks groups (IEEE 802, 8.2).
fn is_possible_oui(organisation: &str) -> bool {
    let number = u32::from_str_radix(organisation, 16).unwrap_or_default();
    number != 0 && number & 0x01_0000 == 0
}

/// Returns whether digits are one digit repeated, a small number, or hold eight digits that count up or down.
fn is_made_up(hex: &str) -> bool {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let all_equal = digits.windows(2).all(|pair| matches!(pair, [a, b] if a == b));
    let small = u128::from_str_radix(hex, 16).is_ok_and(|number| number < u128::from(LEAST_VENDOR_PART));
    let counts = digits.windows(8).any(|run| {
        let steps = |up: bool| {
            run.windows(2).all(|pair| matches!(pair, [a, b] if if up { a + 1 == *b } else { *a == b + 1 }))
        };
        steps(true) || steps(false)
    });
    all_equal || small || counts
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn registered_names_are_unique() {
        for name in [
            "0x5000c50015ea71ac",
            "0x500A07510F1E2D3C",
            "0x55cd2e414d6a5b92",
            "0x6000c29001a3b4c5d6e7f80910213243",
            "0x200000304859a1b2",
            "naa.60014051f2e3d4c5b6a7988776655443",
            "eui.002538b471a3c5d9",
            "eui.36344630529001340025385800000001",
            "uuid.2f1c9a3e-5b7d-4e60-8f21-a3b4c5d6e7f8",
            "nvme.8086-4254-494e-00000001",
        ] {
            assert!(is_unique(name), "{name}");
        }
    }

    #[test]
    fn made_up_names_are_not_unique() {
        for name in [
            "",
            "0x",
            "0x0000000000000000",
            "0x5000000000000001",
            "0x5000000000000000",
            "0x50000000abcd1234",
            "0x5000c50000000000",
            "0x5000c50000000001",
            "0x5000c50fffffffff",
            "0xffffffffffffffff",
            "0x5555555555555555",
            "0x0123456789abcdef",
            "0x5123456789abcdef",
            "0x5000c50012345678",
            "0x5000c50876543210",
            "0x3333333000007d00",
            "0x60000000000000000000000000000001",
            "0x60014050000000000000000000000000",
            "0x6123",
            "0x5000c5001234567g",
            "eui.0000000000000000",
            "eui.0100000000000000",
            "eui.00000000000000000000000000000001",
            "eui.0025385a01",
            "uuid.00000000-0000-0000-0000-000000000000",
            "nvme.8086--494e-00000001",
            "t10.ATA",
        ] {
            assert!(!is_unique(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(name in "(0x|eui\\.|uuid\\.|naa\\.)?\\PC{0,40}") {
            let _ = is_unique(&name);
        }
    }
}
