//! Where the partition of a config drive goes, found out before anything is written: by the table of the disk, or by the first
//! bytes of the image that is about to be written (data plane page, 4.3).

use std::io;

use uuid::Uuid;

use super::LIMIT_BYTES;
use crate::probe::probe;
use crate::table::{
    Gpt, LINUX_FILE_SYSTEM_TYPE, Mbr, MbrRecord, Partition, Table, Translation, free_record, records_end,
};
use crate::{Device, Error, Source};

const MIB: u64 = 1 << 20;
/// What an MBR can address in sectors of 512 bytes, in MiB: config drives stay below it on any disk.
const MBR_LIMIT_MIB: u64 = 2_097_152;
/// As much of a partition's start as tells the label of its file system: btrfs has it last.
const START: usize = 68 << 10;

/// A table with one more partition, not written yet.
#[derive(Debug)]
pub(super) enum Plan {
    /// The whole table.
    Gpt { gpt: Box<Gpt>, number: u32 },
    /// One record of it.
    Mbr { sector_bytes: u32, number: u32, record: MbrRecord },
}

impl Plan {
    /// Plans a partition for `length` bytes at the end of a disk of `size` bytes. `source` is the disk, or the start of the
    /// image that it will hold. The inner error says why there is no place.
    pub(super) fn make<S: Source + ?Sized>(
        source: &S,
        table: Table,
        size: u64,
        length: u64,
    ) -> Result<Result<Self, String>, Error> {
        match table {
            Table::Gpt(gpt) => Ok(in_gpt(source, gpt, size, length)),
            Table::Mbr(mbr) => Ok(in_mbr(source, &mbr, size, length)),
            Table::None => Err(Error::config_drive("the disk has no partition table to put it into")),
        }
    }

    /// The number that the partition will have.
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::Gpt { number, .. } | Self::Mbr { number, .. } => *number,
        }
    }

    /// **Writes** the table.
    pub(super) fn write(&self, device: &Device) -> Result<(), String> {
        match self {
            Self::Gpt { gpt, .. } => gpt.write(device),
            Self::Mbr { sector_bytes, number, record } => {
                let size = usize::try_from(*sector_bytes).unwrap_or(512);
                let mut head = device.bytes(0, size).map_err(|error| format!("reading it: {error}"))?;
                let at = 446 + 16 * usize::try_from(number.saturating_sub(1)).unwrap_or_default();
                for (slot, byte) in head.iter_mut().skip(at).zip(record.encode()) {
                    *slot = byte;
                }
                device.write_at(0, &head).map_err(|error| error.to_string())
            }
        }
    }
}

fn in_gpt<S: Source + ?Sized>(source: &S, mut gpt: Gpt, size: u64, length: u64) -> Result<Plan, String> {
    gpt.fit(size)?;
    gpt.make_room(source, size)?;
    let sector = u64::from(gpt.sector_bytes);
    let end = (gpt.last_usable_sector + 1) * sector;
    // As `sgdisk -n 0:-64MB:0`: 64 MiB before the last usable sector, then down to a whole MiB.
    let wanted = (gpt.last_usable_sector * sector).saturating_sub(LIMIT_BYTES) / MIB * MIB;
    let used = used_end(&gpt.partitions);
    let start = free_start(used, wanted, end, length)
        .filter(|start| *start >= gpt.first_usable_sector * sector)
        .ok_or_else(|| no_room(length))?;
    let guid = Uuid::new_v4();
    let number = gpt.add(LINUX_FILE_SYSTEM_TYPE, guid, "", start / sector, gpt.last_usable_sector)?;
    Ok(Plan::Gpt { gpt: Box::new(gpt), number })
}

fn in_mbr<S: Source + ?Sized>(source: &S, mbr: &Mbr, size: u64, length: u64) -> Result<Plan, String> {
    let head = source.bytes(0, 512).map_err(|error| format!("reading it: {error}"))?;
    let number = free_record(&head).ok_or(
        "all four primary partitions of the MBR are in use (a record of type 0 that is not empty is in use too): no room for \
         a config drive; use an image with GPT or with fewer partitions, or one that has a partition labelled config-2",
    )?;
    let sector = u64::from(mbr.sector_bytes);
    let (wanted, end) = match size / MIB {
        mib if mib > MBR_LIMIT_MIB => ((MBR_LIMIT_MIB - 65) * MIB, (MBR_LIMIT_MIB - 1) * MIB),
        _ => (size.saturating_sub(LIMIT_BYTES) / MIB * MIB, size / sector * sector),
    };
    // Logical partitions lie inside the extended one, which is among the records.
    let used = used_end(&mbr.partitions).max(records_end(&head).saturating_mul(sector));
    let start = free_start(used, wanted, end, length).ok_or_else(|| no_room(length))?;
    let narrow = |value: u64| u32::try_from(value / sector).map_err(|_| "the disk is too large for an MBR");
    let record = MbrRecord {
        status: 0,
        id: MbrRecord::FAT32_LBA,
        first: narrow(start)?,
        sectors: narrow(end - start)?,
    };
    Ok(Plan::Mbr { sector_bytes: mbr.sector_bytes, number, record })
}

fn used_end(partitions: &[Partition]) -> u64 {
    partitions.iter().map(|p| p.start_byte.saturating_add(p.size_byte)).max().unwrap_or(0)
}

/// Where a partition that ends at `end` can start: at `wanted`, or at the first whole MiB after what is in use.
/// `None` when the config drive would not fit.
fn free_start(used: u64, wanted: u64, end: u64, length: u64) -> Option<u64> {
    let start = wanted.max(used.div_ceil(MIB).checked_mul(MIB)?).max(MIB);
    (start.checked_add(length)? <= end).then_some(start)
}

fn no_room(length: u64) -> String {
    format!(
        "there is no room at the end of the disk for a config drive of {length} bytes: use an image whose last partition ends \
         at least 64 MiB before the end of this disk (its system may grow it later), one that has a partition labelled \
         config-2, or a larger disk"
    )
}

/// Whether a partition holds a file system labelled `config-2`, in any case of letters.
pub(super) fn is_labelled<S: Source + ?Sized>(partition: &S) -> bool {
    let label = probe(partition).and_then(|file_system| file_system.label);
    label.is_some_and(|label| label.eq_ignore_ascii_case("config-2"))
}

pub(super) fn too_small(partition: &Partition, length: u64) -> Error {
    Error::config_drive(format!(
        "its {length} bytes do not fit into partition {}, which the image brings for it and has {} bytes; make it larger \
         in the image, or leave it out: one is added then",
        partition.number, partition.size_byte
    ))
}

pub(super) fn two_labelled(first: &Partition, second: &Partition) -> Error {
    Error::config_drive(format!(
        "partitions {} and {} are both labelled config-2; the image may have one such partition at most",
        first.number, second.number
    ))
}

/// A disk image that is not written yet.
pub trait ImageBytes {
    /// Returns up to `length` bytes of the disk image at `offset`, `None` where they cannot be read yet.
    fn read(&mut self, offset: u64, length: usize) -> Option<Vec<u8>>;
}

/// The disk that an image is about to be written to, and the config drive that will go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the disk's logical sectors.
    pub sector_bytes: u32,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// Size of the config drive in bytes, in the form in which it will be written.
    pub length: u64,
    /// Whether a GPT that was made for other sectors is rewritten for the disk.
    pub translates: bool,
}

impl Room {
    /// Checks, before anything is written, that there will be a place for the config drive beside this image: by `head`, the
    /// first bytes of the disk image, 64 KiB or more. `image` is asked only where the place depends on a partition that may be
    /// labelled `config-2`.
    ///
    /// What the bytes at hand do not tell counts as a place: [`super::place`] judges again.
    ///
    /// # Errors
    /// Why there will be no place, and what to do.
    pub fn check(&self, head: &[u8], image: &mut dyn ImageBytes) -> Result<(), Error> {
        let source = Head { bytes: head, size: self.disk_bytes };
        let Some(table) = self.table(&source) else { return Ok(()) };
        let partitions = table.partitions().to_vec();
        let planned = Plan::make(&source, table, self.disk_bytes, self.length)?;
        // Where a partition can be added, only a labelled one that is too small for the drive would be in the way.
        let concerned = |partition: &&Partition| {
            planned.is_err()
                || partition.size_byte < self.length && !partition.is_esp() && !partition.is_bios_boot()
        };
        let mut labelled = Vec::new();
        let mut is_certain = true;
        for partition in partitions.iter().filter(concerned) {
            let length = usize::try_from(partition.size_byte).unwrap_or(START).min(START);
            match image.read(partition.start_byte, length) {
                Some(bytes) if is_labelled(&bytes) => labelled.push(partition),
                Some(_) => {}
                None => is_certain = false,
            }
        }
        match (labelled.as_slice(), planned) {
            ([first, second, ..], _) => Err(two_labelled(first, second)),
            ([partition], _) if self.length > partition.size_byte => Err(too_small(partition, self.length)),
            ([_], _) | ([], Ok(_)) => Ok(()),
            ([], Err(reason)) if is_certain => Err(Error::Table { device: "the image".into(), reason }),
            ([], Err(reason)) => {
                tracing::warn!(
                    reason,
                    "no partition can be added for the config drive, and the image cannot be searched for one beforehand"
                );
                Ok(())
            }
        }
    }

    /// The table that the disk will have, as far as the head tells.
    fn table(&self, head: &Head<'_>) -> Option<Table> {
        match Table::read(head, self.sector_bytes) {
            Ok(table) => Some(table),
            Err(_) if self.translates => {
                let from = if self.sector_bytes == 512 { 4096 } else { 512 };
                let translation =
                    Translation::plan(head.bytes, from, self.sector_bytes, self.disk_bytes).ok()?;
                Some(Table::Gpt(translation.into_table()))
            }
            Err(_) => None,
        }
    }
}

/// The first bytes of a disk; what lies behind them cannot be read.
struct Head<'a> {
    bytes: &'a [u8],
    size: u64,
}

impl Source for Head<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(offset, data)
    }
}

#[cfg(test)]
mod tests;
