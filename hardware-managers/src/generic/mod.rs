//! The manager that every machine has: inventory from the kernel, image deployment, erasing, boot entries.

pub(crate) mod arguments;
pub(crate) mod bootc;
pub(crate) mod bootloader;
mod checksum_file;
mod config_drive_room;
pub(crate) mod deploy;
mod erase;
mod firmware;
#[cfg(test)]
mod fixture;
mod grub;
pub(crate) mod image;
mod inject;
mod inventory;
mod manager;
mod nvram;
pub(crate) mod partition;
mod pstore;
mod published;
mod raid;
pub(crate) mod root_disk;
mod sectors;
pub(crate) mod signature;
mod steps;

pub use checksum_file::find_digest;
pub use inventory::extra::{Row, extra_hardware};
pub use inventory::lldp::parse as lldp_elements;
pub use inventory::numa::numa_topology;
pub use inventory::pci::pci_devices;
pub use inventory::smbios::dmi;
pub use manager::GenericHardwareManager;
