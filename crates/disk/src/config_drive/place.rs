//! Putting a config drive at the end of a disk that holds an image (data plane page, 4.3).

use super::LIMIT_BYTES;
use super::plan::{Plan, is_labelled, too_small, two_labelled};
use super::rebuild::{Rebuild, suited};
use crate::table::{Partition, Table};
use crate::wipe::metadata_ranges;
use crate::{Device, Error, Region, Source, Target};

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
        return Err(too_small(partition, length));
    }
    tracing::info!(
        device = %target.device().display(), partition = partition.number, start = partition.start_byte,
        bytes = length, reused = placed.is_reused, "writing the config drive"
    );
    clear_ends(&device, partition)?;
    write_padded(&device, partition.start_byte, image)?;
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

/// **Writes** whole sectors, so that no stale bytes of the last one are read back first.
fn write_padded(device: &Device, offset: u64, image: &[u8]) -> Result<(), Error> {
    let sector = usize::try_from(device.sector_bytes()).unwrap_or(512).max(1);
    let (whole, rest) = image.split_at(image.len() / sector * sector);
    device.write_at(offset, whole)?;
    if rest.is_empty() {
        return Ok(());
    }
    let mut last = rest.to_vec();
    last.resize(sector, 0);
    device.write_at(offset.saturating_add(u64::try_from(whole.len()).unwrap_or(u64::MAX)), &last)
}

/// The one partition whose file system is labelled `config-2`, in any case of letters.
fn existing(device: &Device, table: &Table) -> Result<Option<Partition>, Error> {
    let mut found = table
        .partitions()
        .iter()
        .filter(|partition| is_labelled(&Region::new(device, partition.start_byte, partition.size_byte)));
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(two_labelled(first, second)),
        (first, _) => Ok(first.cloned()),
    }
}

fn create(target: &Target, device: &Device, table: Table, length: u64) -> Result<Partition, Error> {
    let fail = |reason: String| Error::Table { device: target.device().display().to_string(), reason };
    let plan = Plan::make(device, table, device.size(), length)?.map_err(fail)?;
    let number = plan.number();
    tracing::info!(device = %device.path().display(), partition = number, "adding a partition for the config drive");
    plan.write(device).map_err(fail)?;
    let table = Table::read(device, device.sector_bytes())?;
    let added = table.partitions().iter().find(|partition| partition.number == number);
    added.cloned().ok_or_else(|| fail("the new partition is lost".into()))
}
