//! The manager that every machine has: inventory from the kernel, image deployment, erasing, boot entries.

pub(crate) mod bootloader;
mod checksum_file;
pub(crate) mod deploy;
mod erase;
#[cfg(test)]
mod fixture;
pub(crate) mod image;
mod inventory;
mod manager;
pub(crate) mod root_disk;
mod steps;

pub use manager::GenericHardwareManager;
