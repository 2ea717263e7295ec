//! `EFI_LOAD_OPTION` (UEFI specification 2.10, 3.1.3): the data of a `Boot####` variable.

/// The firmware tries this entry.
const ACTIVE: u32 = 1;

/// A boot entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOption {
    /// Attribute bits; 1 is "active".
    pub attributes: u32,
    /// What the firmware's menu shows.
    pub description: String,
    /// Where to boot from, see [`crate::device_path`].
    pub path: Vec<u8>,
    /// Data for the loader.
    pub optional_data: Vec<u8>,
}

impl LoadOption {
    /// An active entry without data.
    pub fn new(description: &str, path: Vec<u8>) -> Self {
        Self { attributes: ACTIVE, description: description.into(), path, optional_data: Vec::new() }
    }

    /// Whether the firmware tries it.
    pub fn is_active(&self) -> bool {
        self.attributes & ACTIVE != 0
    }

    /// Reads the data of a variable, without the attribute word of efivarfs. `None` when it is damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, d, low, high, ref rest @ ..] = bytes else { return None };
        let mut units = Vec::new();
        let mut after = rest;
        loop {
            let &[low, high, ref tail @ ..] = after else { return None };
            after = tail;
            match u16::from_le_bytes([low, high]) {
                0 => break,
                unit => units.push(unit),
            }
        }
        let length = usize::from(u16::from_le_bytes([low, high]));
        Some(Self {
            attributes: u32::from_le_bytes([a, b, c, d]),
            description: String::from_utf16_lossy(&units),
            path: after.get(..length)?.to_vec(),
            optional_data: after.get(length..)?.to_vec(),
        })
    }

    /// The data of a variable. `None` when the path is too long. A NUL in the description ends it.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = self.attributes.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(self.path.len()).ok()?.to_le_bytes());
        let units = self.description.encode_utf16().take_while(|unit| *unit != 0).chain([0]);
        bytes.extend(units.flat_map(u16::to_le_bytes));
        bytes.extend(&self.path);
        bytes.extend(&self.optional_data);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_path::{HardDrive, Signature, to_file};
    use proptest::prelude::*;
    use uuid::uuid;

    /// Laid out by hand from the UEFI specification, tables 3.1.3, 10.3.5.1 and 10.3.5.4.
    #[test]
    fn bytes_are_those_of_the_specification() {
        let drive = HardDrive {
            number: 2,
            first_sector: 2048,
            sectors: 409_600,
            signature: Signature::Gpt(uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")),
        };
        let option = LoadOption::new("ab", to_file(&drive, "\\a.efi").unwrap());
        #[rustfmt::skip]
        let expected = [
            1, 0, 0, 0, // active
            64, 0, // length of the path list: 42 + 18 + 4
            b'a', 0, b'b', 0, 0, 0,
            4, 1, 42, 0, // media, hard drive
            2, 0, 0, 0,
            0, 8, 0, 0, 0, 0, 0, 0,
            0, 0x40, 6, 0, 0, 0, 0, 0,
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
            2, 2, // GPT, GUID
            4, 4, 18, 0, // media, file path
            b'\\', 0, b'a', 0, b'.', 0, b'e', 0, b'f', 0, b'i', 0, 0, 0,
            0x7f, 0xff, 4, 0,
        ];
        assert_eq!(option.encode().unwrap(), expected);
        assert!(option.is_active());
    }

    proptest! {
        #[test]
        fn entries_read_back(
            attributes: u32, description in "[^\0]{0,20}",
            path in proptest::collection::vec(any::<u8>(), 0..60), optional_data in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let option = LoadOption { attributes, description, path, optional_data };
            prop_assert_eq!(LoadOption::parse(&option.encode().unwrap()), Some(option));
        }

        #[test]
        fn junk_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = LoadOption::parse(&bytes);
        }
    }
}
