//! Second opinions on what Ferric reads: other readers of the same bytes, behind functions of one shape.
//!
//! `tests/qcow2.rs` asks qemu-img, imago and qcow2-rs what a guest would see on a qcow2 image; `tests/tables.rs` asks sfdisk and
//! sgdisk for partition tables, and `tests/file_systems.rs` asks blkid for file systems, on files and on loop devices.

pub mod device;
pub mod readers;
pub mod tools;
