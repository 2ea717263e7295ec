//! Where a disk image goes: the one trait between this crate and a disk.

mod device;
mod frail;
mod located;
mod memory;
mod writers;

use std::io;

pub use crate::buffer::Slice;
pub use device::DeviceSink;
pub use frail::{FrailSink, Trouble};
pub(crate) use located::Located;
pub use memory::{MemorySink, NullSink};

/// Something with the shape of a disk.
///
/// Offsets and lengths are in bytes, need no alignment, and lie below [`BlockSink::size`]. Calls come from one thread, in any
/// order of offsets.
pub trait BlockSink: Send {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Logical sector size in bytes.
    fn logical_sector_size(&self) -> u32;

    /// Called before the first write of each pass, when all that can be refused has been refused: the place to clear away what
    /// lies around the image. Does nothing unless overridden.
    fn prepare(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// **Writes** all of `data` at `offset`.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// **Writes** all of `data` at `offset`, perhaps later: the disk may have several such writes under way. Other calls see what was
    /// handed over before them, as if it had been written at once.
    ///
    /// # Errors
    /// Of this write or of an earlier one, which then any later call may tell. Writes at once unless overridden.
    fn submit(&mut self, offset: u64, data: Slice) -> io::Result<()> {
        self.write_at(offset, &data)
    }

    /// **Zeroes** a range: reads return zeroes afterwards, whatever was there before.
    fn zero_range(&mut self, offset: u64, length: u64) -> io::Result<()>;

    /// Reads into all of `space`, from the disk and not from a cache.
    ///
    /// # Errors
    /// `Unsupported` unless overridden: then what was written can not be read back.
    fn read_at(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        let _ = (offset, space);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns once everything written and handed over is on stable storage.
    fn flush(&mut self) -> io::Result<()>;

    /// Called once after the whole image, head included, is written and flushed: the place to have the kernel read the new
    /// partition table. Does nothing unless overridden; what fails here is logged there, for the image is in place.
    fn committed(&mut self) {}
}
