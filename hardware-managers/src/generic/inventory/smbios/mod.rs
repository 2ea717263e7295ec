//! The firmware's SMBIOS tables: how much memory is plugged in ([`memory_mib`]), and bios, processors and memory in the words of
//! dmidecode ([`dmi`]). Source: DMTF DSP0134, 6.1 (structures) and 7. Every byte is distrusted.

mod describe;
mod structure;
mod words;

use hwm::Error;
use serde_json::Value;
use structure::{Structure, structures};
use sys::Host;

/// Where the kernel shows the table.
pub(crate) const TABLE: &str = "/sys/firmware/dmi/tables/DMI";

/// Bios, processors and memory as dmidecode describes them: `{"bios": {...}, "cpu": [{...}], "memory": {..., "devices": [...]}}`.
///
/// # Errors
/// When the firmware has no table, or the kernel does not show it.
pub fn dmi(host: &Host) -> Result<Value, Error> {
    let table = std::fs::read(host.path(TABLE));
    table
        .map(|table| describe::dmi(&table))
        .map_err(|error| Error::other(format!("reading the firmware's table {TABLE}"), error))
}

/// The sizes of all memory devices together, in MiB; `None` when the table names none.
///
/// As `lshw` counts it, which ironic-python-agent asks, but without chips that hold firmware or files.
pub(crate) fn memory_mib(table: &[u8]) -> Option<u64> {
    // An array whose use is not known counts, and so does a device whose array is not described.
    let others: Vec<u16> = structures(table)
        .filter(|array| {
            array.kind == 16 && array.byte(0x05).is_some_and(|usage| NOT_FOR_WORK.contains(&usage))
        })
        .filter_map(|array| array.handle())
        .collect();
    let devices = structures(table).filter(|device| device.kind == 17 && is_memory_to_work_in(device));
    let system = devices.filter(|device| device.word(0x04).is_none_or(|array| !others.contains(&array)));
    let sizes = system.filter_map(|device| memory_device_kib(device.data));
    let kib = sizes.fold(0u64, u64::saturating_add);
    (kib > 0).then_some(kib / 1024)
}

/// Uses of a memory array that are no main memory (7.17.2): video, flash, non-volatile, cache.
const NOT_FOR_WORK: std::ops::RangeInclusive<u8> = 4..=7;

/// Whether a memory device is one that programs run in. Firmware describes its own flash chip among the memory, even as a part of
/// the system's array. The form tells nothing: memory that is soldered to the board is a chip as well.
fn is_memory_to_work_in(device: &Structure<'_>) -> bool {
    let kind = device.byte(0x12);
    // 7.18.2: VRAM; ROM, FLASH, EEPROM, FEPROM, EPROM; a logical non-volatile device.
    let is_storage = matches!(kind, Some(0x05 | 0x08..=0x0c | 0x1f));
    // 7.18.6: NVDIMM-F, whose flash is reached as a disk.
    let is_flash_module = device.byte(0x28) == Some(0x05);
    !is_storage && !is_flash_module
}

/// What is in a slot for memory; `None` for what is unknown or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bank {
    pub(crate) bytes: Option<u64>,
    pub(crate) megahertz: Option<u16>,
    pub(crate) vendor: Option<String>,
    pub(crate) product: Option<String>,
    pub(crate) serial: Option<String>,
    /// The name on the board.
    pub(crate) slot: Option<String>,
}

/// Every slot, empty ones included.
pub(crate) fn banks(table: &[u8]) -> Vec<Bank> {
    let bank = |device: Structure<'_>| {
        let known = |text: &String| !["Not Specified", "<BAD INDEX>"].contains(&text.as_str());
        let text = |offset| device.string(offset).map(|text| text.trim().to_owned()).filter(known);
        Bank {
            bytes: memory_device_kib(device.data).map(|kib| kib.saturating_mul(1024)),
            megahertz: device.word(0x15).filter(|speed| !matches!(speed, 0 | 0xffff)),
            vendor: text(0x17),
            product: text(0x1a),
            serial: text(0x18),
            slot: text(0x10),
        }
    };
    structures(table).filter(|structure| structure.kind == 17).map(bank).collect()
}

/// The size of one memory device in KiB; `None` when the slot is empty or the size unknown.
fn memory_device_kib(data: &[u8]) -> Option<u64> {
    let size = u16::from_le_bytes([*data.get(0x0c)?, *data.get(0x0d)?]);
    match size {
        0 | 0xffff => None,
        // Since SMBIOS 2.7 the true size stands in a field of its own; in a shorter structure this is a size like any other.
        0x7fff => {
            let field = data.get(0x1c..0x20).and_then(|field| <[u8; 4]>::try_from(field).ok());
            let extended = field.map(|field| u64::from(u32::from_le_bytes(field) & 0x7fff_ffff));
            Some(extended.filter(|mib| *mib > 0).unwrap_or(0x7fff) * 1024)
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

    /// A memory device of this length, type and size in a table of an older version.
    fn older_device(length: u8, kind: u8, size: u16) -> Vec<u8> {
        let mut data = memory_device(size, 0);
        data.drain(usize::from(length)..0x22);
        data[1] = length;
        if length > 0x12 {
            data[0x12] = kind;
        }
        data
    }

    #[test]
    fn devices_of_older_tables_have_their_size_in_the_short_field() {
        for length in [0x15, 0x17, 0x1b, 0x1c, 0x1f] {
            let table = [older_device(length, 0x0f, 1000), older_device(length, 0x0f, 0x7fff)].concat();
            assert_eq!(memory_mib(&table), Some(1000 + 32767), "length {length:#x}");
        }
        assert_eq!(
            memory_mib(&memory_device(0x7fff, 0)),
            Some(32767),
            "a long structure that leaves the field empty"
        );
        assert_eq!(memory_mib(&older_device(0x15, 0x0f, 0xffff)), None, "unknown");
    }

    #[test]
    fn chips_of_firmware_and_of_files_are_no_memory() {
        let working = older_device(0x1b, 0x1a, 16384);
        for kind in [0x05, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x1f] {
            let table = [working.clone(), older_device(0x1b, kind, 16)].concat();
            assert_eq!(memory_mib(&table), Some(16384), "type {kind:#x}");
        }
        for kind in [0x01, 0x02, 0x03, 0x07, 0x0f, 0x12, 0x18, 0x20, 0x22, 0x23] {
            let table = [working.clone(), older_device(0x1b, kind, 16)].concat();
            assert_eq!(memory_mib(&table), Some(16400), "type {kind:#x}");
        }
    }

    #[test]
    fn arrays_for_other_uses_do_not_count_and_those_of_unknown_use_do() {
        for (usage, expected) in [(1, 1008), (2, 1008), (3, 1008), (4, 1000), (5, 1000), (6, 1000), (7, 1000)]
        {
            let mut array = vec![16, 0x0f, 0x30, 0, 3, usage];
            array.resize(0x0f, 0);
            array.extend([0, 0]);
            let mut device = older_device(0x1b, 0x1a, 8);
            device[4] = 0x30;
            let table = [array, device, older_device(0x1b, 0x1a, 1000)].concat();
            assert_eq!(memory_mib(&table), Some(expected), "use {usage}");
        }
    }

    #[test]
    fn banks_say_what_is_in_each_slot() {
        let mut table = memory_device(8192, 0);
        table[0x10] = 1;
        table[0x17] = 2;
        table.extend(memory_device(0, 0));
        let full = Bank {
            bytes: Some(8 << 30),
            slot: Some("DIMM 0".into()),
            vendor: Some("Samsung".into()),
            ..Bank::default()
        };
        assert_eq!(banks(&table), [full, Bank::default()]);
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
