//! Patterns of `modules.alias`, matched as fnmatch(3) would without flags: `*`, `?`, `[a-f]`, `[!x]`.
//!
//! `-` and `_` are the same outside brackets, as in kmod's `alias_normalize`.

/// Whether the pattern covers the whole text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    // Where to go on after the last star: the place behind it, and the text it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() || at < pattern.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, read));
            continue;
        }
        if let (Some(byte), Some(after)) =
            (text.get(read), text.get(read).and_then(|b| step(pattern, at, *b)))
        {
            let _ = byte;
            (at, read) = (after, read + 1);
            continue;
        }
        match star {
            Some((behind, swallowed)) if swallowed < text.len() => {
                star = Some((behind, swallowed + 1));
                (at, read) = (behind, swallowed + 1);
            }
            _ => return false,
        }
    }
    true
}

/// The place in the pattern after one element that covers `byte`, if it does.
fn step(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => set(pattern, at + 1, byte),
        b'\\' => (same(*pattern.get(at + 1)?, byte)).then_some(at + 2),
        literal => same(literal, byte).then_some(at + 1),
    }
}

/// As [`step`] for what follows a `[`. A set that never closes covers nothing.
fn set(pattern: &[u8], start: usize, byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(start), Some(b'!' | b'^'));
    let first = if negated { start + 1 } else { start };
    let mut at = first;
    let mut covered = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return (covered != negated).then_some(at + 1);
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(high)) if *high != b']' => {
                covered |= (low..=*high).contains(&byte);
                at += 3;
            }
            _ => {
                covered |= low == byte;
                at += 1;
            }
        }
    }
}

fn same(a: u8, b: u8) -> bool {
    let fold = |byte| if byte == b'-' { b'_' } else { byte };
    fold(a) == fold(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        let virtio = "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00";
        for (pattern, text, expected) in [
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", virtio, true),
            ("pci:v00001AF5d*sv*sd*bc*sc*i*", virtio, false),
            ("pci:v*d*sv*sd*bc01sc06i01*", virtio, false),
            ("pci:v*d*sv*sd*bc02sc00i*", virtio, true),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*",
                "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00",
                true,
            ),
            ("usb:v0ACEp1602d01[0-9]*dc*", "usb:v0ACEp1602d0157dc00", true),
            ("usb:v0ACEp1602d01[!0-4]*dc*", "usb:v0ACEp1602d0157dc00", true),
            ("usb:v0ACEp1602d01[6-9]*dc*", "usb:v0ACEp1602d0157dc00", false),
            ("acpi*:PNP0303:*", "acpi:PNP0303:", true),
            ("acpi*:PNP0303:*", "acpi:PNP0A08:PNP0303:", true),
            ("acpi*:IPI0*:*", "acpi:IPI0001:", true),
            ("dmi*:[bs]vnLENOVO*:", "dmi:bvnLENOVO:x:", true),
            ("fs-vfat", "fs_vfat", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("[]x]", "]", true),
            ("[x", "x", false),
            ("[a-]", "-", true),
            ("[^a]", "a", false),
            ("a\\*", "a*", true),
            ("a\\", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends_without_panic(pattern in "[a*?!\\[\\]\\\\-]{0,24}", text in "[ab\\]-]{0,24}") {
            matches(&pattern, &text);
        }

        #[test]
        fn a_text_with_pieces_replaced_by_stars_still_matches(pieces in prop::collection::vec(("[a-z0-9:]{0,6}", any::<bool>()), 0..8)) {
            let text: String = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
            let pattern: String = pieces.iter().map(|(piece, star)| if *star { "*" } else { piece.as_str() }).collect();
            prop_assert!(matches(&pattern, &text));
        }
    }
}
