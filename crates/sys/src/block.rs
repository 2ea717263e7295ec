//! A whole block device, opened for itself and written past the page cache.
//!
//! The mechanism only: sizes, aligned reads and writes, zero ranges, flush, re-reading the partition table. It does not
//! choose a device, does not know what an image is and makes no safety decision; `imaging::DeviceSink` and the `disk`
//! crate call it with a path that was chosen and checked above.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::busy::patiently;

/// Memory alignment that direct I/O accepts on every device seen so far: a page.
pub const DIRECT_ALIGNMENT: usize = 4096;

/// Largest range handed to the kernel in one zeroing call, so that a device without write-zeroes (where the kernel
/// writes zero pages) comes back to its caller every second or so.
const ZERO_STEP: u64 = 256 * 1024 * 1024;

/// Zeroes written per call where the kernel offers no way to zero a range.
const ZERO_WRITE_STEP: usize = 1024 * 1024;

/// Tries to re-read a partition table that something (a probing kernel thread, udev) holds busy.
const REREAD_ATTEMPTS: u32 = 20;
const REREAD_INTERVAL: Duration = Duration::from_millis(100);

mod ioctl {
    // linux/fs.h. The size comes back in bytes, whatever the type in the request number says.
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, 0x1268, nix::libc::c_int);
    nix::ioctl_none_bad!(blkrrpart, 0x125f);
    nix::ioctl_none_bad!(blkflsbuf, 0x1261);
}

/// A buffer whose memory starts on a page, as direct I/O needs. Starts as zeroes, and untouched pages cost no memory.
pub struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of `length` bytes.
    pub fn new(length: usize) -> Self {
        let memory = vec![0u8; length + DIRECT_ALIGNMENT];
        // The heap block never moves: the vector is neither grown nor handed out.
        let start = memory.as_ptr().align_offset(DIRECT_ALIGNMENT).min(DIRECT_ALIGNMENT);
        Self { memory, start, length }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.length).unwrap_or_default()
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.length).unwrap_or_default()
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.length)
    }
}

/// How this device zeroes a range; settled by trying, from the cheapest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroMethod {
    /// The device's own write-zeroes, allowed to unmap. The kernel guarantees that zeroes are read back.
    Punch,
    /// Write-zeroes without unmapping; where the device has none, the kernel writes zero pages.
    ZeroRange,
    /// Plain writes.
    Write,
}

/// A block device, open for reading and writing with `O_EXCL` and `O_DIRECT`.
///
/// Shared by threads, each call is the kernel's own and ranges that touch are for the callers to keep in order.
///
/// `O_EXCL` makes the kernel refuse (`EBUSY`) a device that is mounted, swapped on, or part of an array or mapping.
#[derive(Debug)]
pub struct BlockDevice {
    path: PathBuf,
    file: File,
    size: u64,
    logical_sector_size: u32,
    zero_method: Mutex<ZeroMethod>,
}

impl BlockDevice {
    /// Opens `path`. Changes nothing on the device.
    ///
    /// # Errors
    /// `EBUSY` when the device is in use for longer than a moment, `InvalidInput` when it is no block device, else what the kernel says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = nix::libc::O_EXCL | nix::libc::O_DIRECT | nix::libc::O_CLOEXEC;
        // Looked at before it is opened: opening a FIFO or a tape has effects of its own.
        if !std::fs::metadata(path)?.file_type().is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a block device"));
        }
        let file = patiently(|| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path))?;
        if !file.metadata()?.file_type().is_block_device() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a block device"));
        }
        let mut size = 0u64;
        let mut sector = 0i32;
        // SAFETY: the descriptor is open for the whole call and the pointer is to a live u64, which BLKGETSIZE64 fills.
        unsafe { ioctl::blkgetsize64(file.as_raw_fd(), &mut size) }?;
        // SAFETY: the descriptor is open for the whole call and the pointer is to a live c_int, which BLKSSZGET fills.
        unsafe { ioctl::blksszget(file.as_raw_fd(), &mut sector) }?;
        let logical_sector_size = u32::try_from(sector)
            .ok()
            .filter(|s| s.is_power_of_two() && *s >= 512)
            .ok_or_else(|| io::Error::other(format!("device reports a sector size of {sector}")))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            logical_sector_size,
            zero_method: Mutex::new(ZeroMethod::Punch),
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Logical sector size in bytes: offsets and lengths of reads and writes are multiples of it.
    pub fn logical_sector_size(&self) -> u32 {
        self.logical_sector_size
    }

    /// Whether `data` at `offset` can go to the device as it is (sector multiples, page-aligned memory).
    pub fn is_aligned(&self, offset: u64, data: &[u8]) -> bool {
        let sector = u64::from(self.logical_sector_size);
        // Memory needs no more than the sector's alignment: the block layer's dma_alignment is 511 at the most.
        offset.is_multiple_of(sector)
            && (data.len() as u64).is_multiple_of(sector)
            && usize::try_from(sector).is_ok_and(|s| data.as_ptr().align_offset(s.min(DIRECT_ALIGNMENT)) == 0)
    }

    /// Reads exactly `data.len()` bytes at `offset`; both aligned as [`BlockDevice::is_aligned`] says.
    pub fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(data, offset)
    }

    /// **Writes** all of `data` at `offset`; both aligned as [`BlockDevice::is_aligned`] says.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// **Zeroes** `length` bytes at `offset` (sector multiples): reads return zeroes afterwards. By the device's own
    /// write-zeroes where it has one, else by writing.
    pub fn zero_range(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "range to zero ends beyond the device")
        })?;
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZERO_STEP);
            self.zero_step(at, step)?;
            at += step;
        }
        Ok(())
    }

    fn zero_step(&self, offset: u64, length: u64) -> io::Result<()> {
        loop {
            let method = *self.zero_method();
            let (mode, next) = match method {
                ZeroMethod::Punch => (
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
                    ZeroMethod::ZeroRange,
                ),
                ZeroMethod::ZeroRange => (FallocateFlags::FALLOC_FL_ZERO_RANGE, ZeroMethod::Write),
                ZeroMethod::Write => return self.write_zeroes(offset, length),
            };
            let from = i64::try_from(offset).map_err(io::Error::other)?;
            let count = i64::try_from(length).map_err(io::Error::other)?;
            match fallocate(&self.file, mode, from, count) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) if is_unsupported(errno) => {
                    tracing::debug!(device = %self.path.display(), ?method, %errno, "no such way to zero");
                    *self.zero_method() = next;
                }
                // Bridges announce write-zeroes and then fail them. Where the medium itself is bad, the plain write says so.
                Err(errno) => {
                    tracing::warn!(device = %self.path.display(), ?method, %errno, offset, "zeroing failed, writing zeroes");
                    *self.zero_method() = ZeroMethod::Write;
                }
            }
        }
    }

    fn zero_method(&self) -> MutexGuard<'_, ZeroMethod> {
        self.zero_method.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        let zeroes = AlignedBuffer::new(ZERO_WRITE_STEP);
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let step = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZERO_WRITE_STEP);
            self.file.write_all_at(zeroes.get(..step).unwrap_or_default(), at)?;
            at += step as u64;
        }
        Ok(())
    }

    /// Waits until all that was written is on stable storage.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Drops what the kernel caches of the device (BLKFLSBUF), so that the next buffered reader sees what direct I/O wrote.
    pub fn drop_cache(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open for the whole call; BLKFLSBUF takes no argument.
        unsafe { ioctl::blkflsbuf(self.file.as_raw_fd()) }?;
        Ok(())
    }

    /// Makes the kernel read the partition table anew (BLKRRPART), trying for two seconds while something holds it busy.
    ///
    /// # Errors
    /// `EINVAL` where the kernel keeps no partitions for this device (a loop device without `-P`, a kernel without
    /// partition support): callers usually log that and go on.
    pub fn reread_partitions(&self) -> io::Result<()> {
        let mut attempt = 1;
        loop {
            // SAFETY: the descriptor is open for the whole call; BLKRRPART takes no argument.
            match unsafe { ioctl::blkrrpart(self.file.as_raw_fd()) } {
                Ok(_) => return Ok(()),
                Err(Errno::EBUSY) if attempt < REREAD_ATTEMPTS => {
                    attempt += 1;
                    sleep(REREAD_INTERVAL);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Whether the device or its driver has no such way to zero.
fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV | Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_to_zero_a_range_is_written_with_zeroes() {
        // A descriptor that is open for reading fails every way to zero with EBADF, the plain write last.
        let file = tempfile::NamedTempFile::new().unwrap();
        let device = BlockDevice {
            path: file.path().into(),
            file: File::open(file.path()).unwrap(),
            size: 4096,
            logical_sector_size: 512,
            zero_method: Mutex::new(ZeroMethod::Punch),
        };
        let error = device.zero_range(0, 4096).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EBADF as i32), "what the plain write said");
        assert_eq!(*device.zero_method(), ZeroMethod::Write);
    }

    #[test]
    fn aligned_buffers_start_on_a_page_and_are_zero() {
        for length in [1, 511, 4096, 1 << 20] {
            let buffer = AlignedBuffer::new(length);
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.as_ptr().align_offset(DIRECT_ALIGNMENT), 0);
            assert!(buffer.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn what_is_no_block_device_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(BlockDevice::open(file.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            BlockDevice::open(Path::new("/dev/null")).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(
            BlockDevice::open(Path::new("/nonexistent/disk")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
