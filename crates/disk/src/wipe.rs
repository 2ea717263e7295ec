//! Making a disk look empty: partition tables and the signatures of file systems, arrays and volume groups.

use crate::table::Table;
use crate::{Device, Error, Source, Target};

/// How much is zeroed at each end. Every signature that is looked for when a disk is probed lies within: partition tables,
/// file system superblocks up to 64 KiB, LVM labels and metadata, md superblocks at either end, ZFS labels.
const END_BYTES: u64 = 1 << 20;

/// **Zeroes the first and last MiB of every partition, then of the disk itself**, and flushes. What lies between stays
/// readable for whoever looks for it: this is no erasure of data. The kernel still has the old partitions afterwards, until
/// the caller makes it read the table again.
pub fn wipe_metadata(target: &Target) -> Result<(), Error> {
    // A damaged table names no partitions that could be trusted.
    let table = target.table().unwrap_or(Table::None);
    let device = target.open()?;
    let partitions = table.partitions().iter().map(|partition| (partition.start_byte, partition.size_byte));
    for (start, length) in metadata_ranges(partitions.chain([(0, device.size())]), device.size()) {
        zero(&device, start, length)?;
    }
    device.flush()
}

/// **Zeroes the first and last MiB of each of these parts** (start and length in bytes), and flushes: so that a new partition
/// shows nothing of what lay there before.
pub fn wipe_parts(target: &Target, parts: &[(u64, u64)]) -> Result<(), Error> {
    let device = target.open()?;
    for (start, length) in metadata_ranges(parts.iter().copied(), device.size()) {
        zero(&device, start, length)?;
    }
    device.flush()
}

/// What must be zero for nothing to be recognised: both ends of each of these ranges (start and length in bytes), cut at the
/// end of the disk. Empty ranges are left out.
pub fn metadata_ranges(parts: impl Iterator<Item = (u64, u64)>, size_bytes: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    for (start, length) in parts {
        let length = length.min(size_bytes.saturating_sub(start));
        let (head, tail) = ends(length);
        ranges.push((start, head));
        ranges.push((start + (length - tail), tail));
    }
    ranges.retain(|(_, length)| *length > 0);
    ranges
}

/// How long the first and the last part of a range of this length are; together never more than it.
fn ends(length: u64) -> (u64, u64) {
    let head = length.min(END_BYTES);
    (head, (length - head).min(END_BYTES))
}

fn zero(device: &Device, start: u64, length: u64) -> Result<(), Error> {
    let length = usize::try_from(length).unwrap_or(usize::MAX); // at most END_BYTES
    if length == 0 { Ok(()) } else { device.write_at(start, &vec![0; length]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_covered_and_never_more_than_there_is() {
        let mib = END_BYTES;
        for (length, head, tail) in
            [(0, 0, 0), (512, 512, 0), (mib, mib, 0), (mib + 512, mib, 512), (5 * mib, mib, mib)]
        {
            assert_eq!(ends(length), (head, tail), "{length}");
        }
    }
}
