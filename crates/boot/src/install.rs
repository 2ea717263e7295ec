//! The story "this disk shall boot" for UEFI (data plane page, 5.1 and 5.2).

use std::path::Path;

use disk::table::{Partition, PartitionType, Table};
use disk::{Device, Region};
use sys::Host;
use uuid::Uuid;

use crate::device_path::{self, HardDrive, Signature};
use crate::efivars::{add_entry, current_entries, delete_entry};
use crate::loaders::{self, Found, Loader};
use crate::{Error, Firmware, LoadOption};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Entries were made.
    Installed {
        /// Number of the EFI system partition.
        partition: u32,
        /// Which.
        made: Made,
    },
    /// This machine was not started by UEFI: there is nothing to do.
    NotUefi,
    /// The disk has no EFI system partition: the image can not boot with UEFI.
    NoEsp,
    /// No EFI system partition holds a boot loader that is known and that this machine's firmware can start.
    NoLoader {
        /// What was found in each partition instead.
        reasons: Vec<String>,
    },
}

/// What was changed among the firmware's boot entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The new entries, in the order in which they were made; the last one is first in `BootOrder`.
    pub entries: Vec<MadeEntry>,
    /// Numbers of older entries of the same name, which were deleted.
    pub removed: Vec<u16>,
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

/// A partition from which the firmware is to start boot loaders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    drive: HardDrive,
    suffix: Option<String>,
}

impl Place {
    /// The one EFI system partition of a disk with this table.
    pub fn only(table: &Table, esp: &Partition) -> Self {
        Self { drive: hard_drive(table, esp), suffix: None }
    }

    /// Member number `index` (from 0) of a mirrored EFI system partition; `table` is that of the member's own disk. Its entries
    /// say so in their labels, ` (RAID, part0)`, and so do not replace each other.
    pub fn mirror(table: &Table, member: &Partition, index: usize) -> Self {
        Self { drive: hard_drive(table, member), suffix: Some(format!(" (RAID, part{index})")) }
    }
}

/// Makes firmware boot entries for the image on a disk. **Writes EFI variables**; the disk itself is only read.
///
/// EFI system partitions are those that the table marks, else the one with the partition UUID, file system UUID or label
/// `esp_uuid`. The first with a loader counts: one that a CSV file names and that is there, or, without any CSV file, those with
/// well-known names. Where CSV files name only loaders that are missing, the next partition is looked at before those with
/// well-known names count. `BootNext` is left alone.
pub fn install_efi_entries(
    host: &Host,
    target_device: &Path,
    table: &Table,
    esp_uuid: Option<&str>,
) -> Result<Outcome, Error> {
    if !host.is_uefi() {
        return Ok(Outcome::NotUefi);
    }
    let device = Device::open(target_device).map_err(|source| Error::Esp {
        device: target_device.display().to_string(),
        partition: 0,
        source,
    })?;
    let partitions = system_partitions(&device, table, esp_uuid);
    if partitions.is_empty() {
        return Ok(Outcome::NoEsp);
    }
    let firmware = Firmware::detect(host);
    let mut searched = Vec::new();
    let mut reasons = Vec::new();
    for esp in partitions {
        let region = Region::new(&device, esp.start_byte, esp.size_byte);
        match loaders::find(&region, firmware) {
            Ok(found) => searched.push((esp, found)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                let reason = format!("partition {}: {error}{}", esp.number, cause.unwrap_or_default());
                tracing::warn!(reason, "an EFI system partition cannot be read");
                reasons.push(reason);
            }
        }
    }
    let Some((esp, found)) = best(&searched) else {
        reasons.extend(searched.iter().map(|(esp, found)| {
            let number = esp.number;
            match found.has_csv {
                true => format!("partition {number}: the loaders that its CSV files name are missing"),
                false => format!("partition {number}: it holds no known boot loader"),
            }
        }));
        return Ok(Outcome::NoLoader { reasons });
    };
    let made = make_entries(host, &found.clone().into_loaders(), &[Place::only(table, esp)])?;
    Ok(Outcome::Installed { partition: esp.number, made })
}

/// The partition to boot from: see [`install_efi_entries`].
fn best<'s, 't>(searched: &'s [(&'t Partition, Found)]) -> Option<&'s (&'t Partition, Found)> {
    let is_clear = |found: &Found| found.named.is_some() || !found.has_csv && !found.unnamed.is_empty();
    let clear = searched.iter().find(|(_, found)| is_clear(found));
    clear.or_else(|| searched.iter().find(|(_, found)| !found.unnamed.is_empty()))
}

/// The EFI system partitions in the order of the table; see [`install_efi_entries`].
fn system_partitions<'t>(device: &Device, table: &'t Table, esp_uuid: Option<&str>) -> Vec<&'t Partition> {
    let marked: Vec<&Partition> = table.partitions().iter().filter(|partition| partition.is_esp()).collect();
    if !marked.is_empty() {
        return marked;
    }
    let other = table.esp().or_else(|| by_uuid(device, table, esp_uuid?));
    other.into_iter().collect()
}

/// Makes an entry for each of these loaders at each of these places, replacing older ones with exactly the same label. **Writes
/// EFI variables.** Loaders that nobody named are called `ironic1`, `ironic2` and so on.
pub fn make_entries(host: &Host, loaders: &[Loader], places: &[Place]) -> Result<Made, Error> {
    let mut made = Made::default();
    for place in places {
        for (index, Loader { label, path }) in (1..).zip(loaders) {
            let name = label.clone().unwrap_or_else(|| format!("ironic{index}"));
            let label = name + place.suffix.as_deref().unwrap_or_default();
            let too_long = || Error::TooLong { label: label.clone() };
            let option =
                LoadOption::new(&label, device_path::to_file(&place.drive, path).ok_or_else(too_long)?);
            made.removed.extend(delete_namesakes(host, &label)?);
            tracing::info!(%label, %path, partition = place.drive.number, "adding a boot entry");
            let number = add_entry(host, &option)?;
            made.entries.push(MadeEntry { number, label, path: path.clone() });
        }
    }
    Ok(made)
}

fn delete_namesakes(host: &Host, label: &str) -> Result<Vec<u16>, Error> {
    let mut removed = Vec::new();
    for old in current_entries(host)?.into_iter().filter(|old| old.is_bootable) {
        if old.option.description == label {
            tracing::info!(number = old.number, %label, path = %old.path_text, "deleting an older boot entry");
            delete_entry(host, old.number)?;
            removed.push(old.number);
        }
    }
    Ok(removed)
}

/// The partition with this PARTUUID, or with a file system of this UUID or label.
fn by_uuid<'t>(device: &Device, table: &'t Table, wanted: &str) -> Option<&'t Partition> {
    let same = |found: &str| found.eq_ignore_ascii_case(wanted);
    table.partitions().iter().find(|partition| {
        let file_system = disk::probe::probe(&Region::new(device, partition.start_byte, partition.size_byte));
        let names = file_system.map(|found| [found.uuid, found.label]).unwrap_or_default();
        same(&partition.uuid) || names.into_iter().flatten().any(|name| same(&name))
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
