//! Second opinions on what Ferric reads: other readers of the same bytes, behind functions of one shape.
//!
//! `tests/qcow2.rs` asks qemu-img, imago and qcow2-rs what a guest would see on a qcow2 image; `tests/tables.rs` asks sfdisk and
//! sgdisk for partition tables, and `tests/file_systems.rs` asks blkid for file systems, on files and on loop devices. Where one of
//! them can not read an image at all, [`Opinion::Unable`] says why, so that what is not compared is counted.

pub mod device;
pub mod readers;
pub mod tools;

/// What a reader says.
#[derive(Debug)]
pub enum Opinion {
    /// The whole disk, as the guest sees it.
    Disk(Vec<u8>),
    /// It does not know this kind of image.
    Unable(String),
}
