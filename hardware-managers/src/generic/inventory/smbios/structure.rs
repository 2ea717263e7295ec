//! The structures of a table: numbers at offsets, and strings behind them.

/// One structure.
pub(super) struct Structure<'a> {
    pub(super) kind: u8,
    /// The formatted area, header included.
    pub(super) data: &'a [u8],
    /// What follows it: zero-terminated strings.
    strings: &'a [u8],
}

/// The structures of a table, up to the end marker or the first that makes no sense.
pub(super) fn structures(table: &[u8]) -> impl Iterator<Item = Structure<'_>> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let (&kind, &length) = (rest.first()?, rest.get(1)?);
        let length = usize::from(length);
        if length < 4 || kind == 127 {
            return None;
        }
        let data = rest.get(..length)?;
        // The strings end with two zero bytes.
        let after = rest.get(length..)?;
        let end = after.windows(2).position(|pair| pair == [0, 0])?;
        let strings = after.get(..=end)?;
        rest = after.get(end.checked_add(2)?..)?;
        Some(Structure { kind, data, strings })
    })
}

/// Numbers are little-endian; what lies beyond the structure's end is `None`, as in tables of older versions.
impl Structure<'_> {
    pub(super) fn byte(&self, offset: usize) -> Option<u8> {
        self.data.get(offset).copied()
    }

    pub(super) fn word(&self, offset: usize) -> Option<u16> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    pub(super) fn double(&self, offset: usize) -> Option<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    pub(super) fn quad(&self, offset: usize) -> Option<u64> {
        self.bytes(offset).map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.data.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    /// The number by which other structures name this one.
    pub(super) fn handle(&self) -> Option<u16> {
        self.word(2)
    }

    /// The string whose number stands at an offset, in dmidecode's words where there is none.
    pub(super) fn string(&self, offset: usize) -> Option<String> {
        let number = self.byte(offset)?;
        let Some(index) = number.checked_sub(1) else { return Some("Not Specified".into()) };
        let found = self.strings.split(|byte| *byte == 0).nth(usize::from(index));
        let Some(bytes) = found.filter(|bytes| !bytes.is_empty()) else { return Some("<BAD INDEX>".into()) };
        let shown = |byte: &u8| if (32..127).contains(byte) { char::from(*byte) } else { '.' };
        Some(bytes.iter().map(shown).collect())
    }
}
