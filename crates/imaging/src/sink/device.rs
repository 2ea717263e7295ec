//! A block device as a sink: direct I/O for what is aligned, several writes at a time; read-modify-write of single sectors for
//! what is not.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sys::{AlignedBuffer, BlockDevice};

use super::writers::{ALL, Writers};
use super::{BlockSink, Located, Slice};
use crate::error::Error;

/// Memory for data that can not go to the device from where it lies.
const BOUNCE: usize = 256 * 1024;

/// A disk, opened exclusively. **What is written here is on the disk at once**, but for what is handed over
/// ([`BlockSink::submit`]): that is on the disk before anything else touches it. Errors carry their place.
#[derive(Debug)]
pub struct DeviceSink {
    device: Arc<BlockDevice>,
    /// Started by the first write that is handed over.
    writers: Option<Writers>,
    bounce: Option<AlignedBuffer>,
    /// Zeroed before the first byte: start and length in bytes.
    clear: Vec<(u64, u64)>,
}

impl DeviceSink {
    /// Opens a block device for itself. Changes nothing yet. The caller has checked that this disk may be written.
    ///
    /// # Errors
    /// [`Error::OpenDisk`]: no block device, or in use (mounted, swapped on, part of an array).
    pub fn open(path: &Path) -> Result<Self, Error> {
        BlockDevice::open(path)
            .map(|device| Self { device: Arc::new(device), writers: None, bounce: None, clear: Vec::new() })
            .map_err(|source| Error::OpenDisk { path: path.to_owned(), source })
    }

    /// Has these ranges (start and length in bytes) **zeroed** before the first byte is written, besides both ends of the disk: where old
    /// file systems and arrays could still be recognised.
    #[must_use]
    pub fn clearing(self, ranges: Vec<(u64, u64)>) -> Self {
        Self { clear: ranges, ..self }
    }

    fn sector(&self) -> u64 {
        u64::from(self.device.logical_sector_size())
    }

    /// Waits for what was handed over in the sectors of `length` bytes at `offset`.
    fn wait(&self, offset: u64, length: u64) -> io::Result<()> {
        let sector = self.sector();
        let end = offset.saturating_add(length).checked_next_multiple_of(sector).unwrap_or(u64::MAX);
        self.wait_for(&(offset - offset % sector..end))
    }

    fn wait_for(&self, range: &Range<u64>) -> io::Result<()> {
        self.writers.as_ref().map_or(Ok(()), |writers| writers.wait(range))
    }

    /// Writes `data`, which lies inside one sector, by reading that sector first.
    fn patch(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let sector = self.sector();
        let within = usize::try_from(offset % sector).map_err(io::Error::other)?;
        let mut buffer = AlignedBuffer::new(usize::try_from(sector).map_err(io::Error::other)?);
        let start = offset - offset % sector;
        self.read(start, &mut buffer)?;
        buffer.get_mut(within..within + data.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(data);
        self.write(start, &buffer)
    }

    /// Writes whole sectors, through aligned memory where `data` is not aligned itself.
    fn write_sectors(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.device.is_aligned(offset, data) {
            return self.write(offset, data);
        }
        let mut bounce = self.bounce.take().unwrap_or_else(|| AlignedBuffer::new(BOUNCE));
        let mut at = offset;
        let result = data.chunks(BOUNCE).try_for_each(|part| {
            let space = bounce.get_mut(..part.len()).ok_or(io::ErrorKind::InvalidInput)?;
            space.copy_from_slice(part);
            self.write(at, space)?;
            at += part.len() as u64;
            Ok(())
        });
        self.bounce = Some(bounce);
        result
    }

    /// Writes what is aligned.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let located = |error| Located::new("writing", offset, data.len() as u64, error);
        self.device.write_at(offset, data).map_err(|error| located(error).into())
    }

    /// Reads what is aligned.
    fn read(&self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        let length = space.len() as u64;
        let located = |error| Located::new("reading", offset, length, error);
        self.device.read_at(offset, space).map_err(|error| located(error).into())
    }
}

/// Splits a range into the part before the first whole sector, the whole sectors, and what remains.
fn split(offset: u64, length: u64, sector: u64) -> (u64, u64, u64) {
    let to_boundary = (sector - offset % sector) % sector;
    let before = to_boundary.min(length);
    let whole = (length - before) / sector * sector;
    (before, whole, length - before - whole)
}

impl BlockSink for DeviceSink {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn logical_sector_size(&self) -> u32 {
        self.device.logical_sector_size()
    }

    fn prepare(&mut self) -> io::Result<()> {
        for (start, length) in std::mem::take(&mut self.clear) {
            self.zero_range(start, length)?;
        }
        self.flush()
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.wait(offset, data.len() as u64)?;
        let (before, whole, after) = split(offset, data.len() as u64, self.sector());
        // Each part is no longer than `data`, so it fits a usize.
        let (first, rest) = data.split_at(usize::try_from(before).map_err(io::Error::other)?);
        let (middle, last) = rest.split_at(usize::try_from(whole).map_err(io::Error::other)?);
        if before > 0 {
            self.patch(offset, first)?;
        }
        if whole > 0 {
            self.write_sectors(offset + before, middle)?;
        }
        if after > 0 {
            self.patch(offset + before + whole, last)?;
        }
        Ok(())
    }

    fn submit(&mut self, offset: u64, data: Slice) -> io::Result<()> {
        if !self.device.is_aligned(offset, &data) {
            return self.write_at(offset, &data);
        }
        let writers = match self.writers.take() {
            Some(writers) => writers,
            None => Writers::start(&self.device)?,
        };
        self.writers.insert(writers).submit(offset, data)
    }

    fn zero_range(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.wait(offset, length)?;
        let (before, whole, after) = split(offset, length, self.sector());
        if before > 0 {
            self.patch(offset, &vec![0; usize::try_from(before).map_err(io::Error::other)?])?;
        }
        if whole > 0 {
            let located = |error| Located::new("zeroing", offset + before, whole, error);
            self.device.zero_range(offset + before, whole).map_err(located)?;
        }
        if after > 0 {
            self.patch(offset + before + whole, &vec![0; usize::try_from(after).map_err(io::Error::other)?])?;
        }
        Ok(())
    }

    fn read_at(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        self.wait(offset, space.len() as u64)?;
        if self.device.is_aligned(offset, space) {
            return self.read(offset, space);
        }
        let sector = self.sector();
        let mut bounce = self.bounce.take().unwrap_or_else(|| AlignedBuffer::new(BOUNCE));
        let mut at = offset;
        let mut left = space;
        let result = loop {
            if left.is_empty() {
                break Ok(());
            }
            // Whole sectors around what is wanted, as far as the memory reaches.
            let within = usize::try_from(at % sector).map_err(io::Error::other)?;
            let sector = usize::try_from(sector).map_err(io::Error::other)?;
            let length = (within + left.len()).next_multiple_of(sector).min(BOUNCE);
            let count = left.len().min(length - within);
            let (now, later) = left.split_at_mut(count);
            let Some(whole) = bounce.get_mut(..length) else { break Err(io::ErrorKind::InvalidInput.into()) };
            if let Err(error) = self.read(at - within as u64, whole) {
                break Err(error);
            }
            now.copy_from_slice(whole.get(within..within + count).unwrap_or_default());
            at += count as u64;
            left = later;
        };
        self.bounce = Some(bounce);
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_for(&ALL)?;
        self.device.flush()
    }

    fn committed(&mut self) {
        let device = self.device.path().display();
        if let Err(error) = self.device.drop_cache() {
            tracing::warn!(%device, %error, "dropping the disk's cache failed");
        }
        match self.device.reread_partitions() {
            Ok(()) => tracing::info!(%device, "partition table re-read"),
            // A loop device, or a kernel without partition support: nothing to re-read.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tracing::info!(%device, "the kernel keeps no partitions for this disk");
            }
            Err(error) => tracing::warn!(%device, %error, "re-reading the partition table failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_split_at_sector_boundaries() {
        assert_eq!(split(0, 4096, 4096), (0, 4096, 0));
        assert_eq!(split(512, 4096, 4096), (3584, 0, 512));
        assert_eq!(split(1, 2, 4096), (2, 0, 0));
        assert_eq!(split(4096, 5000, 4096), (0, 4096, 904));
        assert_eq!(split(100, 0, 512), (0, 0, 0));
    }
}
