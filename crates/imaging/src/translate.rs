//! The seam to whoever knows partition tables and file systems: this crate knows neither.

use std::fmt::Debug;
use std::io;
use std::panic::RefUnwindSafe;

/// Rewrites what an image says in sectors of one size for a disk with sectors of another.
pub trait Translate: Debug + RefUnwindSafe + Send + Sync {
    /// Whether the table at the start of the disk image, made for sectors of `table` bytes, can be rewritten for a disk of
    /// `disk` bytes. Asked before anything is written.
    ///
    /// # Errors
    /// Why not.
    fn judge(&self, head: &[u8], table: u32, disk: u64) -> Result<(), String>;

    /// Rewrites it, in a draft. Called once the digest of the image matched. `image` is the size of the disk image in bytes.
    ///
    /// # Errors
    /// Why it can not be done. Then the image is not committed.
    fn rewrite(&self, disk: &mut dyn Draft, table: u32, image: u64) -> Result<(), String>;
}

/// A disk with an image that is verified and does not boot yet. What is written here stays in memory, to the byte and in pages of 4 KiB
/// (pages of zeroes take none), and goes to the disk once all of it is there.
pub trait Draft {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Reads into all of `space`: what was written here, and the image where nothing was.
    ///
    /// # Errors
    /// What the disk says. Then nothing of the draft goes to the disk, whatever becomes of this error.
    fn read_at(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()>;

    /// The same without what was written here: the image as it is on the disk.
    ///
    /// # Errors
    /// As [`Draft::read_at`].
    fn read_image(&mut self, offset: u64, space: &mut [u8]) -> io::Result<()>;

    /// Remembers to write all of `data` at `offset`.
    ///
    /// # Errors
    /// The range ends beyond the disk; or part of a page is written, and the disk does not give out the rest of it.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
}
