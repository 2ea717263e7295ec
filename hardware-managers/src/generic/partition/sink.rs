//! The root partition as a place for an image: a range of the disk, written through the disk as a whole.

use std::io;

use disk::Target;
use disk::layout::{Layout, Role};
use imaging::{BlockSink, DeviceSink, Slice};

use super::{MIB, PartitionImage};

/// The part of the first sector that is code, before the disk signature.
const BOOT_CODE: u64 = 440;

/// A range of a disk that is opened for nobody else. **What is written here is on the disk at once.**
pub(super) struct RootSink {
    disk: DeviceSink,
    start: u64,
    length: u64,
    clear: Vec<(u64, u64)>,
}

impl RootSink {
    /// Opens the disk. Changes nothing yet.
    pub(super) fn open(
        target: &Target,
        layout: &Layout,
        wanted: &PartitionImage,
    ) -> Result<Self, imaging::Error> {
        let disk = DeviceSink::open(target.device())?;
        let root = layout.get(Role::Root);
        let start = root.map_or(0, |root| root.start_byte);
        // A root partition that has grown does not make room for a larger image than was asked for.
        let length = root.map_or(0, |root| root.size_byte).min(wanted.root_mib.saturating_mul(MIB));
        let clear = to_clear(target, layout, wanted.preserve_ephemeral);
        Ok(Self { disk, start, length, clear })
    }
}

/// What must be zero before the image comes: everything by which the old partitions, or stale bytes where the new ones will
/// lie, could be recognised. Where the ephemeral partition is kept, neither it nor the table is touched.
fn to_clear(target: &Target, layout: &Layout, preserve: bool) -> Vec<(u64, u64)> {
    let size = target.size_bytes();
    let new: Vec<(u64, u64)> = layout
        .partitions
        .iter()
        .filter(|partition| !(preserve && partition.role == Role::Ephemeral))
        .map(|partition| (partition.start_byte, partition.size_byte))
        .collect();
    let new = disk::metadata_of_parts(target, &new);
    if preserve {
        // Boot code would look for the system that is about to go.
        return disk::metadata_ranges([(0, BOOT_CODE)].into_iter(), size).into_iter().chain(new).collect();
    }
    // The table first: without it the rest is not looked at.
    let table = disk::metadata_ranges([(0, size)].into_iter(), size);
    [table, new, disk::old_metadata(target)].concat()
}

impl BlockSink for RootSink {
    fn size(&self) -> u64 {
        self.length
    }

    fn logical_sector_size(&self) -> u32 {
        self.disk.logical_sector_size()
    }

    fn prepare(&mut self) -> io::Result<()> {
        for (start, length) in &self.clear {
            self.disk.zero_range(*start, *length)?;
        }
        self.disk.flush()
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.place(offset, u64::try_from(data.len()).unwrap_or(u64::MAX))?;
        self.disk.write_at(at, data)
    }

    fn submit(&mut self, offset: u64, data: Slice) -> io::Result<()> {
        let at = self.place(offset, u64::try_from(data.len()).unwrap_or(u64::MAX))?;
        self.disk.submit(at, data)
    }

    fn zero_range(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let at = self.place(offset, length)?;
        self.disk.zero_range(at, length)
    }

    fn read_at(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        let at = self.place(offset, u64::try_from(space.len()).unwrap_or(u64::MAX))?;
        self.disk.read_at(at, space)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

impl RootSink {
    /// Where a range of the partition lies on the disk; an error if it would reach beyond the partition.
    fn place(&self, offset: u64, length: u64) -> io::Result<u64> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(self.start + offset),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "range ends beyond the root partition")),
        }
    }
}
