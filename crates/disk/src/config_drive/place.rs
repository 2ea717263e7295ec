//! Putting a config drive at the end of a disk that holds an image (data plane page, 4.3).

use uuid::Uuid;

use super::LIMIT_BYTES;
use super::rebuild::{Rebuild, suited};
use crate::probe::probe;
use crate::table::{Gpt, LINUX_FILE_SYSTEM_TYPE, Mbr, MbrRecord, Partition, Table};
use crate::wipe::metadata_ranges;
use crate::{Device, Error, Region, Source, Target};

const MIB: u64 = 1 << 20;
/// What an MBR can address in sectors of 512 bytes, in MiB: config drives stay below it on any disk.
const MBR_LIMIT_MIB: u64 = 2_097_152;

/// Where the config drive went.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Its partition.
    pub partition: Partition,
    /// Whether the image brought that partition along.
    pub is_reused: bool,
}

/// **Writes** a decoded config drive onto a disk that holds an image: into the partition labelled `config-2` if there is
/// one, else into a new partition at the end of the disk. Ends with a flush and a re-read of the partition table.
///
/// The new partition has the place that Ironic's agent would give it: on GPT the last 64 MiB and up to a MiB more, type Linux
/// file system, no name; on MBR a primary partition of type 0x0c. Where less is free at the end, it takes what there is, if
/// the config drive fits. Where the disk's sectors are too large for the image's file system, its files are put into a FAT
/// file system made for them; `rebuild` may ask for that on any disk.
pub fn place(target: &Target, image: &[u8], rebuild: Rebuild) -> Result<Placed, Error> {
    let device = target.open()?;
    let image = &*suited(image, device.sector_bytes(), rebuild)?;
    let length = u64::try_from(image.len()).unwrap_or(u64::MAX);
    if length > LIMIT_BYTES || length == 0 {
        return Err(Error::config_drive(format!("{length} bytes are not between 1 and 64 MiB")));
    }
    let table = target.table()?;
    let placed = match existing(&device, &table)? {
        Some(partition) => Placed { partition, is_reused: true },
        None => Placed { partition: create(target, &device, table, length)?, is_reused: false },
    };
    let partition = &placed.partition;
    if length > partition.size_byte {
        return Err(Error::config_drive(format!(
            "its {length} bytes do not fit into partition {}, which the image brings for it and has {} bytes; make it larger \
             in the image, or leave it out: one is added then",
            partition.number, partition.size_byte
        )));
    }
    tracing::info!(
        device = %target.device().display(), partition = partition.number, start = partition.start_byte,
        bytes = length, reused = placed.is_reused, "writing the config drive"
    );
    clear_ends(&device, partition)?;
    device.write_at(partition.start_byte, &padded(image, device.sector_bytes()))?;
    device.flush()?;
    // The kernel does not look while somebody holds the disk for himself.
    drop(device);
    target.reread_partitions();
    Ok(placed)
}

/// **Zeroes the first and last MiB of a partition**: what an earlier owner of the place left there, an array's superblock for
/// one, must not be taken for what the partition is now.
fn clear_ends(device: &Device, partition: &Partition) -> Result<(), Error> {
    let range = std::iter::once((partition.start_byte, partition.size_byte));
    for (start, length) in metadata_ranges(range, device.size()) {
        device.write_at(start, &vec![0; usize::try_from(length).unwrap_or_default()])?;
    }
    Ok(())
}

/// Whole sectors, so that no stale bytes of the last one are read back first.
fn padded(image: &[u8], sector_bytes: u32) -> Vec<u8> {
    let sector = usize::try_from(sector_bytes).unwrap_or(512);
    let mut padded = image.to_vec();
    padded.resize(image.len().div_ceil(sector) * sector, 0);
    padded
}

/// The one partition whose file system is labelled `config-2`, in any case of letters.
fn existing(device: &Device, table: &Table) -> Result<Option<Partition>, Error> {
    let mut found = table.partitions().iter().filter(|partition| {
        let label = probe(&Region::new(device, partition.start_byte, partition.size_byte))
            .and_then(|file_system| file_system.label);
        label.is_some_and(|label| label.eq_ignore_ascii_case("config-2"))
    });
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(Error::config_drive(format!(
            "partitions {} and {} are both labelled config-2; the image may have one such partition at most",
            first.number, second.number
        ))),
        (first, _) => Ok(first.cloned()),
    }
}

fn create(target: &Target, device: &Device, table: Table, length: u64) -> Result<Partition, Error> {
    let fail = |reason: String| Error::Table { device: target.device().display().to_string(), reason };
    match table {
        Table::Gpt(gpt) => create_in_gpt(device, gpt, length).map_err(fail),
        Table::Mbr(mbr) => create_in_mbr(device, &mbr, length).map_err(fail),
        Table::None => Err(Error::config_drive("the disk has no partition table to put it into")),
    }
}

fn create_in_gpt(device: &Device, mut gpt: Gpt, length: u64) -> Result<Partition, String> {
    gpt.fit(device.size())?;
    let sector = u64::from(gpt.sector_bytes);
    let end = (gpt.last_usable_sector + 1) * sector;
    // As `sgdisk -n 0:-64MB:0`: 64 MiB before the last usable sector, then down to a whole MiB.
    let wanted = (gpt.last_usable_sector * sector).saturating_sub(LIMIT_BYTES) / MIB * MIB;
    let start = free_start(&gpt.partitions, wanted, end, length)
        .filter(|start| *start >= gpt.first_usable_sector * sector)
        .ok_or_else(|| no_room(length))?;
    let guid = Uuid::new_v4();
    let number = gpt.add(LINUX_FILE_SYSTEM_TYPE, guid, "", start / sector, gpt.last_usable_sector)?;
    tracing::info!(device = %device.path().display(), partition = number, "adding a partition for the config drive");
    gpt.write(device)?;
    gpt.partitions.into_iter().find(|p| p.number == number).ok_or_else(|| "the new partition is lost".into())
}

fn create_in_mbr(device: &Device, mbr: &Mbr, length: u64) -> Result<Partition, String> {
    let primary: Vec<_> = mbr.partitions.iter().filter(|partition| partition.number <= 4).collect();
    if primary.len() > 3 {
        return Err(
            "all four primary partitions of the MBR are in use: no room for a config drive; use an image with GPT or with \
             fewer partitions, or one that has a partition labelled config-2"
                .into(),
        );
    }
    let number = (1..=4).find(|number| primary.iter().all(|p| p.number != *number)).unwrap_or(4);
    let sector = u64::from(mbr.sector_bytes);
    let (wanted, end) = match device.size() / MIB {
        mib if mib > MBR_LIMIT_MIB => ((MBR_LIMIT_MIB - 65) * MIB, (MBR_LIMIT_MIB - 1) * MIB),
        _ => (device.size().saturating_sub(LIMIT_BYTES) / MIB * MIB, device.size() / sector * sector),
    };
    // Logical partitions lie inside the extended one, which is among the primary ones.
    let start = free_start(&mbr.partitions, wanted, end, length).ok_or_else(|| no_room(length))?;
    let narrow = |value: u64| u32::try_from(value / sector).map_err(|_| "the disk is too large for an MBR");
    let record = MbrRecord {
        status: 0,
        id: MbrRecord::FAT32_LBA,
        first: narrow(start)?,
        sectors: narrow(end - start)?,
    };
    tracing::info!(device = %device.path().display(), partition = number, "adding a partition for the config drive");
    let size = usize::try_from(mbr.sector_bytes).unwrap_or(512);
    let mut head = device.bytes(0, size).map_err(|error| format!("reading it: {error}"))?;
    let at = 446 + 16 * usize::try_from(number - 1).unwrap_or_default();
    for (slot, byte) in head.iter_mut().skip(at).zip(record.encode()) {
        *slot = byte;
    }
    device.write_at(0, &head).map_err(|error| error.to_string())?;
    let table = Table::read(device, mbr.sector_bytes).map_err(|error| error.to_string())?;
    table
        .partitions()
        .iter()
        .find(|partition| partition.number == number)
        .cloned()
        .ok_or_else(|| "the new partition is lost".into())
}

/// Where a partition that ends at `end` can start: at `wanted`, or at the first whole MiB after what is in use.
/// `None` when the config drive would not fit.
fn free_start(partitions: &[Partition], wanted: u64, end: u64, length: u64) -> Option<u64> {
    let used = partitions.iter().map(|p| p.start_byte.saturating_add(p.size_byte)).max().unwrap_or(0);
    let start = wanted.max(used.div_ceil(MIB) * MIB).max(MIB);
    (start.checked_add(length)? <= end).then_some(start)
}

fn no_room(length: u64) -> String {
    format!(
        "there is no room at the end of the disk for a config drive of {length} bytes: use an image whose last partition ends \
         at least 64 MiB before the end of this disk (its system may grow it later), one that has a partition labelled \
         config-2, or a larger disk"
    )
}
