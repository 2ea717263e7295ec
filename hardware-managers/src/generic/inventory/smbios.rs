//! A reader of the firmware's SMBIOS structure table, as far as the inventory needs it: memory devices (type 17).
//! Source: DMTF DSP0134, 6.1 (structure layout) and 7.18 (memory device). Every byte is distrusted.

/// One structure: its type and its formatted area, header included.
struct Structure<'a> {
    kind: u8,
    data: &'a [u8],
}

/// The structures of a table, up to the end marker or the first that makes no sense.
fn structures(table: &[u8]) -> impl Iterator<Item = Structure<'_>> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let (&kind, &length) = (rest.first()?, rest.get(1)?);
        let length = usize::from(length);
        if length < 4 || kind == 127 {
            return None;
        }
        let data = rest.get(..length)?;
        // The strings follow, ended by two zero bytes.
        let strings = rest.get(length..)?;
        let end = strings.windows(2).position(|pair| pair == [0, 0])?;
        rest = strings.get(end.checked_add(2)?..)?;
        Some(Structure { kind, data })
    })
}

/// The sizes of all memory devices together, in MiB; `None` when the table names none.
pub(crate) fn memory_mib(table: &[u8]) -> Option<u64> {
    let sizes = structures(table).filter(|s| s.kind == 17).filter_map(|s| memory_device_kib(s.data));
    let kib = sizes.fold(0u64, u64::saturating_add);
    (kib > 0).then_some(kib / 1024)
}

/// The size of one memory device in KiB; `None` when the slot is empty or the size unknown.
fn memory_device_kib(data: &[u8]) -> Option<u64> {
    let size = u16::from_le_bytes([*data.get(0x0c)?, *data.get(0x0d)?]);
    match size {
        0 | 0xffff => None,
        0x7fff => {
            let extended = data.get(0x1c..0x20)?.try_into().ok()?;
            Some(u64::from(u32::from_le_bytes(extended) & 0x7fff_ffff) * 1024)
        }
        kib if kib & 0x8000 != 0 => Some(u64::from(kib & 0x7fff)),
        mib => Some(u64::from(mib) * 1024),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A memory device structure of SMBIOS 2.7 and later.
    pub(crate) fn memory_device(size: u16, extended_mib: u32) -> Vec<u8> {
        let mut data = vec![0u8; 0x22];
        data[0] = 17;
        data[1] = 0x22;
        data[0x0c..0x0e].copy_from_slice(&size.to_le_bytes());
        data[0x1c..0x20].copy_from_slice(&extended_mib.to_le_bytes());
        data.extend(b"DIMM 0\0Samsung\0\0");
        data
    }

    #[test]
    fn sizes_in_all_three_units_add_up_and_empty_slots_do_not() {
        let mut table = vec![1, 4, 0, 0, 0, 0]; // a structure without strings
        table.extend(memory_device(8192, 0));
        table.extend(memory_device(0, 0));
        table.extend(memory_device(0xffff, 0));
        table.extend(memory_device(0x7fff, 65536));
        table.extend(memory_device(0x8000 | 2048, 0));
        table.extend([127, 4, 0, 0, 0, 0]);
        table.extend(memory_device(1, 0)); // behind the end marker
        assert_eq!(memory_mib(&table), Some(8192 + 65536 + 2));
        assert_eq!(memory_mib(&[]), None);
    }

    #[test]
    fn a_cut_table_counts_what_is_whole() {
        let mut table = memory_device(1024, 0);
        table.extend(&memory_device(2048, 0)[..20]);
        assert_eq!(memory_mib(&table), Some(1024));
    }

    proptest! {
        #[test]
        fn no_table_makes_the_reader_panic_or_loop(table in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = memory_mib(&table);
        }
    }
}
