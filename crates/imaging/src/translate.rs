//! The seam to whoever knows partition tables and file systems: this crate knows neither.

use std::fmt::Debug;
use std::panic::RefUnwindSafe;

use crate::sink::BlockSink;

/// Rewrites what an image says in sectors of one size for a disk with sectors of another.
pub trait Translate: Debug + RefUnwindSafe + Send + Sync {
    /// Whether the table at the start of the disk image, made for sectors of `table` bytes, can be rewritten for a disk of
    /// `disk` bytes. Asked before anything is written.
    ///
    /// # Errors
    /// Why not.
    fn judge(&self, head: &[u8], table: u32, disk: u64) -> Result<(), String>;

    /// **Rewrites it.** Called once the digest of the image matched. `disk` holds all of the image; what is written to its
    /// ends goes to the disk with the commit. `image` is the size of the disk image in bytes.
    ///
    /// # Errors
    /// Why it can not be done. Then the image is not committed.
    fn rewrite(&self, disk: &mut dyn BlockSink, table: u32, image: u64) -> Result<(), String>;
}
