//! Making what the agent's own partitions hold: swap space, EFI system partitions, ext4, the bytes of a config drive.
//!
//! Every function takes the disk as a whole and the place of the partition: no device node is waited for. Other file systems
//! are made by their own tools, above.

mod esp;
mod ext4;
mod refit;
mod swap;
pub(crate) mod volume;

pub use esp::{make_esp, make_esp_like};
pub use ext4::make_ext4;
pub use refit::{REFIT_LIMIT, refit};
pub use swap::make_swap;

use crate::layout::Planned;
use crate::{Device, Error, Source, Target};

/// **Writes** these bytes to the start of a partition, in whole sectors.
pub fn write_partition(target: &Target, partition: &Planned, bytes: &[u8]) -> Result<(), Error> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > partition.size_byte {
        return Err(Error::Table {
            device: target.device().display().to_string(),
            reason: format!(
                "{length} bytes do not fit into partition {} of {} bytes",
                partition.number, partition.size_byte
            ),
        });
    }
    let device = target.open()?;
    let sector = usize::try_from(device.sector_bytes()).unwrap_or(512);
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().div_ceil(sector) * sector, 0);
    device.write_at(partition.start_byte, &padded)?;
    device.flush()
}

/// Zeroes written at once.
const ZERO_STEP: u64 = 1 << 20;

fn zero(device: &Device, start: u64, length: u64) -> Result<(), Error> {
    let end = start.saturating_add(length);
    let mut at = start;
    while at < end {
        let step = (end - at).min(ZERO_STEP);
        device.write_at(at, &vec![0; usize::try_from(step).unwrap_or_default()])?;
        at += step;
    }
    Ok(())
}

/// A partition that is written and read like a file.
struct Window<'a> {
    device: &'a Device,
    start: u64,
    size: u64,
    position: u64,
}

impl<'a> Window<'a> {
    fn new(device: &'a Device, partition: &Planned) -> Self {
        Self { device, start: partition.start_byte, size: partition.size_byte, position: 0 }
    }

    /// How much of `length` bytes can be moved at the position, and where that is on the disk.
    fn room(&self, length: usize) -> (u64, usize) {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        (self.start + self.position, length.min(left))
    }

    fn advance(&mut self, length: usize) {
        self.position = self.position.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

impl std::io::Read for Window<'_> {
    fn read(&mut self, data: &mut [u8]) -> std::io::Result<usize> {
        let (at, length) = self.room(data.len());
        self.device.read_at(at, data.get_mut(..length).unwrap_or_default())?;
        self.advance(length);
        Ok(length)
    }
}

impl std::io::Write for Window<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let (at, length) = self.room(data.len());
        self.device.write_at(at, data.get(..length).unwrap_or_default()).map_err(std::io::Error::other)?;
        self.advance(length);
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for Window<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        let target = match to {
            std::io::SeekFrom::Start(at) => Some(at),
            std::io::SeekFrom::End(by) => self.size.checked_add_signed(by),
            std::io::SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = target.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
