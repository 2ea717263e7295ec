//! Making a new partition table.

use uuid::Uuid;

use super::{Gpt, MbrRecord, PartitionType, Table};
use crate::layout::{Label, Layout};
use crate::{Device, Error, Source, Target};

/// The name that every partition gets in a GPT, as from Ironic's agent.
const NAME: &str = "primary";

/// **Writes a new partition table.** What the disk held before is out of reach afterwards; between the tables nothing is
/// touched. The sector that makes the table count is written last, so an interruption leaves none.
pub fn write_table(target: &Target, layout: &Layout) -> Result<Table, Error> {
    let device = target.open()?;
    let name = target.device().display().to_string();
    let fail = |reason: String| Error::Table { device: name.clone(), reason };
    tracing::info!(device = %name, label = ?layout.label, partitions = layout.partitions.len(), "writing a new partition table");
    let sector = match layout.label {
        Label::Gpt => {
            gpt(layout, device.size(), device.sector_bytes())
                .and_then(|gpt| gpt.write(&device))
                .map_err(fail)?;
            device.flush()?;
            protective_sector(device.size() / u64::from(device.sector_bytes()))
        }
        Label::Mbr => mbr_sector(layout, device.sector_bytes()).map_err(fail)?,
    };
    write_first_sector(&device, &sector)?;
    device.flush()?;
    let table = Table::read(&device, device.sector_bytes())?;
    table.validate(&name, device.size())?;
    Ok(table)
}

/// Keeps what a sector of 4 KiB has after its first 512 bytes at zero.
fn write_first_sector(device: &Device, head: &[u8; 512]) -> Result<(), Error> {
    let mut sector = head.to_vec();
    sector.resize(usize::try_from(device.sector_bytes()).unwrap_or(512), 0);
    device.write_at(0, &sector)
}

fn gpt(layout: &Layout, size_bytes: u64, sector_bytes: u32) -> Result<Gpt, String> {
    let sector = u64::from(sector_bytes);
    let mut gpt = Gpt::empty(Uuid::new_v4(), size_bytes, sector_bytes)?;
    for partition in &layout.partitions {
        let PartitionType::Guid(kind) = partition.kind else {
            return Err(format!("partition {} has no GPT type", partition.number));
        };
        let (first, last) =
            (partition.start_byte / sector, (partition.end_byte() / sector).saturating_sub(1));
        gpt.add(kind, Uuid::new_v4(), NAME, first, last)?;
    }
    gpt.fit(size_bytes)?;
    Ok(gpt)
}

/// The MBR that tells others that the disk is in use (UEFI specification 2.10, 5.2.3).
fn protective_sector(sectors: u64) -> [u8; 512] {
    let size = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    let mut record = MbrRecord { status: 0, id: 0xee, first: 1, sectors: size }.encode();
    record[1..4].copy_from_slice(&[0x00, 0x02, 0x00]);
    record[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    sector(&[(1, record)])
}

fn mbr_sector(layout: &Layout, sector_bytes: u32) -> Result<[u8; 512], String> {
    let narrow = |bytes: u64| {
        u32::try_from(bytes / u64::from(sector_bytes))
            .map_err(|_| "the disk is too large for an MBR".to_owned())
    };
    let mut records = Vec::new();
    for partition in &layout.partitions {
        let PartitionType::Id(id) = partition.kind else {
            return Err(format!("partition {} has no MBR type", partition.number));
        };
        let status = if partition.is_active { 0x80 } else { 0 };
        let record = MbrRecord {
            status,
            id,
            first: narrow(partition.start_byte)?,
            sectors: narrow(partition.size_byte)?,
        };
        records.push((partition.number, record.encode()));
    }
    let mut sector = sector(&records);
    let (signature, _, _, _) = Uuid::new_v4().as_fields();
    sector[440..444].copy_from_slice(&signature.to_le_bytes());
    Ok(sector)
}

/// A sector with these records and the mark that makes it an MBR.
fn sector(records: &[(u32, [u8; 16])]) -> [u8; 512] {
    let mut sector = [0; 512];
    for (slot, number) in sector[446..510].chunks_exact_mut(16).zip(1u32..) {
        if let Some((_, record)) = records.iter().find(|(wanted, _)| *wanted == number) {
            slot.copy_from_slice(record);
        }
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Wishes;
    use proptest::prelude::*;

    fn wishes(label: Label, is_uefi: bool) -> Wishes {
        Wishes {
            label,
            is_uefi,
            is_power: false,
            esp_mib: 550,
            bios_boot_mib: 1,
            root_mib: 3,
            swap_mib: 2,
            ephemeral_mib: 1,
            config_drive_mib: 1,
        }
    }

    #[test]
    fn an_mbr_reads_back_with_types_places_and_the_active_root() {
        let layout = Layout::plan(&wishes(Label::Mbr, false), 16 << 20, 512).unwrap();
        let mut disk = vec![0; 16 << 20];
        disk[..512].copy_from_slice(&mbr_sector(&layout, 512).unwrap());
        let table = Table::read(&disk, 512).unwrap();
        assert_ne!(table.disk_signature(), "0x00000000");
        for (planned, found) in layout.partitions.iter().zip(table.partitions()) {
            assert_eq!((planned.number, planned.kind), (found.number, found.kind));
            assert_eq!((planned.start_byte, planned.size_byte), (found.start_byte, found.size_byte));
            assert_eq!(found.bootable, planned.number == 4);
        }
        assert_eq!(table.partitions().len(), 4);
    }

    proptest! {
        #[test]
        fn a_gpt_has_every_partition_where_it_was_planned(large: bool, extra in 0..64u64, uefi: bool) {
            let (sector, size) = (if large { 4096 } else { 512 }, (600 + extra) << 20);
            let layout = Layout::plan(&wishes(Label::Gpt, uefi), size, sector).unwrap();
            let gpt = gpt(&layout, size, sector).unwrap();
            prop_assert_eq!(gpt.first_usable_sector, if large { 6 } else { 34 });
            for (planned, found) in layout.partitions.iter().zip(&gpt.partitions) {
                prop_assert_eq!((planned.start_byte, planned.size_byte), (found.start_byte, found.size_byte));
                prop_assert_eq!((planned.number, planned.kind, "primary"), (found.number, found.kind, &*found.name));
            }
            prop_assert_eq!(gpt.partitions.len(), layout.partitions.len());
        }
    }
}
