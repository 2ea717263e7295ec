//! The story "this disk shall boot" for UEFI (data plane page, 5.1 and 5.2).

use std::path::Path;

use disk::table::{Partition, PartitionType, Table};
use disk::{Device, Region};
use sys::Host;
use uuid::Uuid;

use crate::device_path::{self, HardDrive, Signature};
use crate::efivars::{add_entry, current_entries, delete_entry};
use crate::loaders::{self, Loader};
use crate::{Error, LoadOption};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Entries were made, in this order; the last one is first in `BootOrder`.
    Installed {
        /// Number of the EFI system partition.
        partition: u32,
        /// The entries.
        entries: Vec<MadeEntry>,
        /// Numbers of older entries of the same name, which were deleted.
        removed: Vec<u16>,
    },
    /// This machine was not started by UEFI: there is nothing to do.
    NotUefi,
    /// The disk has no EFI system partition: the image can not boot with UEFI.
    NoEsp,
    /// The EFI system partition holds no known boot loader.
    NoLoader {
        /// Number of the EFI system partition.
        partition: u32,
    },
}

/// An entry that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeEntry {
    /// `Boot####`.
    pub number: u16,
    /// What the menu shows.
    pub label: String,
    /// The loader.
    pub path: String,
}

/// Makes firmware boot entries for the image on a disk. **Writes EFI variables**; the disk itself is only read.
///
/// The EFI system partition is the one the table marks, else the one with the partition or file system UUID `esp_uuid`.
/// Entries with the same label are replaced. `BootNext` is left alone.
pub fn install_efi_entries(
    host: &Host,
    target_device: &Path,
    table: &Table,
    esp_uuid: Option<&str>,
) -> Result<Outcome, Error> {
    if !host.is_uefi() {
        return Ok(Outcome::NotUefi);
    }
    let esp_error = |partition: u32| {
        move |source| Error::Esp { device: target_device.display().to_string(), partition, source }
    };
    let device = Device::open(target_device).map_err(esp_error(0))?;
    let Some(esp) = table.esp().or_else(|| by_uuid(&device, table, esp_uuid?)) else {
        return Ok(Outcome::NoEsp);
    };
    let region = Region::new(&device, esp.start_byte, esp.size_byte);
    let found = loaders::find(&region).map_err(esp_error(esp.number))?;
    if found.is_empty() {
        return Ok(Outcome::NoLoader { partition: esp.number });
    }
    let drive = hard_drive(table, esp);
    let (mut entries, mut removed) = (Vec::new(), Vec::new());
    for (index, Loader { label, path }) in (1..).zip(found) {
        let label = label.unwrap_or_else(|| format!("ironic{index}"));
        let too_long = || Error::TooLong { label: label.clone() };
        let option = LoadOption::new(&label, device_path::to_file(&drive, &path).ok_or_else(too_long)?);
        for old in current_entries(host)?.into_iter().filter(|old| old.is_bootable) {
            if old.option.description == label {
                tracing::info!(number = old.number, %label, path = %old.path_text, "deleting an older boot entry");
                delete_entry(host, old.number)?;
                removed.push(old.number);
            }
        }
        tracing::info!(%label, %path, partition = esp.number, "adding a boot entry");
        let number = add_entry(host, &option)?;
        entries.push(MadeEntry { number, label, path });
    }
    Ok(Outcome::Installed { partition: esp.number, entries, removed })
}

/// The partition with this PARTUUID, or with a file system of this UUID.
fn by_uuid<'t>(device: &Device, table: &'t Table, uuid: &str) -> Option<&'t Partition> {
    let same = |found: &str| found.eq_ignore_ascii_case(uuid);
    table.partitions().iter().find(|partition| {
        let file_system =
            || disk::probe::probe(&Region::new(device, partition.start_byte, partition.size_byte));
        same(&partition.uuid) || file_system().and_then(|found| found.uuid).is_some_and(|found| same(&found))
    })
}

fn hard_drive(table: &Table, esp: &Partition) -> HardDrive {
    let sector = u64::from(table.sector_bytes()).max(1);
    let signature = match (table, esp.kind) {
        (Table::Mbr(mbr), _) => Signature::Mbr(mbr.signature),
        (Table::Gpt(_) | Table::None, PartitionType::Guid(_) | PartitionType::Id(_)) => {
            Signature::Gpt(esp.uuid.parse().unwrap_or(Uuid::nil()))
        }
    };
    HardDrive {
        number: esp.number,
        first_sector: esp.start_byte / sector,
        sectors: esp.size_byte / sector,
        signature,
    }
}
