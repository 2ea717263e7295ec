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
pub(crate) fn memory_mib(table: &[u8]) -> Option<u64> {
    // An array of flash or cache is no memory to work in; a device whose array is not described counts.
    let others: Vec<u16> = structures(table)
        .filter(|array| array.kind == 16 && !matches!(array.byte(0x05), None | Some(3)))
        .filter_map(|array| array.handle())
        .collect();
    let devices = structures(table).filter(|device| device.kind == 17);
    let system = devices.filter(|device| device.word(0x04).is_none_or(|array| !others.contains(&array)));
    let sizes = system.filter_map(|device| memory_device_kib(device.data));
    let kib = sizes.fold(0u64, u64::saturating_add);
    (kib > 0).then_some(kib / 1024)
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
