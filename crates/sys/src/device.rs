//! Block device nodes: which device a node stands for, and opening one.
//!
//! The mechanism only. Which device may be written is decided in the `disk` crate, the one caller of [`open_exclusive`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::busy::patiently;

mod ioctl {
    // linux/fs.h
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
}

/// Major and minor number of the block device a path stands for (links are followed); `None` when it is something else.
pub fn block_device_number(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.file_type().is_block_device() {
        return Ok(None);
    }
    Ok(Some(split_device_number(metadata.rdev())))
}

/// The bits of a device number as Linux packs them in user space.
fn split_device_number(number: u64) -> (u32, u32) {
    let low = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default(); // masked: always fits
    let major = ((number >> 8) & 0xfff) | ((number >> 32) & 0xffff_f000);
    let minor = (number & 0xff) | ((number >> 12) & 0xffff_ff00);
    (low(major), low(minor))
}

/// Opens a device, or an image file, for reading.
pub fn open_read(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path)
}

/// Opens a block device for reading and **writing** with `O_EXCL`: the kernel refuses (`EBUSY`) a device that is
/// mounted, swapped on, or part of an array or mapping, in whatever mount namespace.
///
/// # Errors
/// `InvalidInput` when it is no block device, else what the kernel says.
pub fn open_exclusive(path: &Path) -> io::Result<File> {
    open_write(path, libc::O_EXCL)
}

/// As [`open_exclusive`] for a device that others hold parts of, which they go on to use: whoever calls it **writes only where
/// they do not**.
pub fn open_shared(path: &Path) -> io::Result<File> {
    open_write(path, 0)
}

fn open_write(path: &Path, flags: libc::c_int) -> io::Result<File> {
    // Without this look a wrong path would be opened first: opening a FIFO or a tape has effects of its own.
    if block_device_number(path)?.is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a block device"));
    }
    let flags = flags | libc::O_CLOEXEC;
    let file = patiently(|| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path))?;
    if !file.metadata()?.file_type().is_block_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a block device"));
    }
    Ok(file)
}

/// Logical sector size of an open block device in bytes; 512 for an image file.
pub fn logical_sector_bytes(file: &File) -> io::Result<u32> {
    if !file.metadata()?.file_type().is_block_device() {
        return Ok(512);
    }
    let mut sector: libc::c_int = 0;
    // SAFETY: the descriptor is open for the whole call and the pointer is to a live c_int, which BLKSSZGET fills.
    unsafe { ioctl::blksszget(file.as_raw_fd(), &mut sector) }?;
    u32::try_from(sector)
        .ok()
        .filter(|size| size.is_power_of_two() && (512..=65536).contains(size))
        .ok_or_else(|| io::Error::other(format!("the device reports a sector size of {sector}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_split_as_the_kernel_packs_them() {
        assert_eq!(split_device_number(0x0801), (8, 1));
        assert_eq!(split_device_number(libc::makedev(259, 70_000)), (259, 70_000));
        assert_eq!(split_device_number(libc::makedev(0xabcde, 0x12345)), (0xabcde, 0x12345));
    }

    #[test]
    fn what_is_no_block_device_is_never_opened_for_writing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(block_device_number(file.path()).unwrap(), None);
        assert_eq!(open_exclusive(file.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(open_exclusive(Path::new("/dev/null")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(logical_sector_bytes(&File::open(file.path()).unwrap()).unwrap(), 512);
    }
}
