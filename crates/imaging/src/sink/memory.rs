//! Sinks without a disk: for tests here and in the crates above, and for measuring.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::BlockSink;

/// A disk in memory. Clones share it, so a test keeps one and hands the other out.
#[derive(Clone)]
pub struct MemorySink(Arc<Mutex<Disk>>);

struct Disk {
    bytes: Vec<u8>,
    sector: u32,
    writes: u64,
    committed: bool,
    fail_at: Option<u64>,
    damage: Vec<(usize, u8)>,
}

impl MemorySink {
    /// A disk of `size` bytes, each of them `fill`: anything but zero shows zeroes that were skipped.
    pub fn new(size: usize, fill: u8) -> Self {
        Self::with_sectors(size, fill, 512)
    }

    /// The same, saying that its sectors have `sector` bytes. It takes any part of one.
    pub fn with_sectors(size: usize, fill: u8, sector: u32) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            bytes: vec![fill; size],
            sector,
            writes: 0,
            committed: false,
            fail_at: None,
            damage: Vec::new(),
        })))
    }

    /// A copy of the contents.
    pub fn contents(&self) -> Vec<u8> {
        self.disk().bytes.clone()
    }

    /// How many writes and zero ranges have come.
    pub fn writes(&self) -> u64 {
        self.disk().writes
    }

    /// Whether an image was committed.
    pub fn is_committed(&self) -> bool {
        self.disk().committed
    }

    /// Makes every write that touches this offset fail.
    pub fn fail_at(&self, offset: u64) {
        self.disk().fail_at = Some(offset);
    }

    /// Makes this offset read back with these bits inverted, whatever is written there: a disk that lies.
    pub fn damage_at(&self, offset: usize, bits: u8) {
        self.disk().damage.push((offset, bits));
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn range(&mut self, offset: u64, length: u64) -> io::Result<&mut [u8]> {
        self.writes += 1;
        if self.fail_at.is_some_and(|at| (offset..offset.saturating_add(length)).contains(&at)) {
            return Err(io::Error::other("medium error"));
        }
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        start
            .checked_add(length)
            .and_then(|end| self.bytes.get_mut(start..end))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "range ends beyond the disk"))
    }
}

impl BlockSink for MemorySink {
    fn size(&self) -> u64 {
        self.disk().bytes.len() as u64
    }

    fn logical_sector_size(&self) -> u32 {
        self.disk().sector
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk().range(offset, data.len() as u64)?.copy_from_slice(data);
        Ok(())
    }

    fn zero_range(&mut self, offset: u64, length: u64) -> io::Result<()> {
        self.disk().range(offset, length)?.fill(0);
        Ok(())
    }

    fn read_at(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(space.len()).ok_or(io::ErrorKind::InvalidInput)?;
        space.copy_from_slice(disk.bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        for (at, mask) in disk.damage.iter().filter(|(at, _)| (start..end).contains(at)) {
            if let Some(byte) = space.get_mut(at - start) {
                *byte ^= mask;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn committed(&mut self) {
        self.disk().committed = true;
    }
}

/// A disk that forgets: for measuring everything but the disk.
#[derive(Clone, Copy, Debug)]
pub struct NullSink {
    size: u64,
}

impl NullSink {
    /// A disk that claims `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { size }
    }
}

impl BlockSink for NullSink {
    fn size(&self) -> u64 {
        self.size
    }

    fn logical_sector_size(&self) -> u32 {
        512
    }

    fn write_at(&mut self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn zero_range(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
