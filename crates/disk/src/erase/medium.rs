//! Where the bytes of an erasure go: a device, or a fake in tests.

use std::io;

use sys::BlockDevice;

/// A disk as the code that writes over it needs it. Offsets and lengths are multiples of the sector size.
pub(crate) trait Medium {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Logical sector size in bytes.
    fn sector_bytes(&self) -> u64;
    /// **Writes** all of `data` at `offset`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Fills `data` from `offset` on.
    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()>;
    /// Waits until all that was written is on stable storage.
    fn flush(&self) -> io::Result<()>;
}

impl Medium for BlockDevice {
    fn size(&self) -> u64 {
        BlockDevice::size(self)
    }

    fn sector_bytes(&self) -> u64 {
        u64::from(self.logical_sector_size())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        BlockDevice::write_at(self, offset, data)
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        BlockDevice::read_at(self, offset, data)
    }

    fn flush(&self) -> io::Result<()> {
        BlockDevice::flush(self)
    }
}
