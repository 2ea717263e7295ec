//! Firmware boot entries for an image that has been written to a disk.
//!
//! [`install_efi_entries`] finds the EFI system partitions, looks for boot loaders in them ([`loaders`]) that the [`Firmware`] can
//! start, and has [`make_entries`]
//! write `Boot####` and `BootOrder` through efivarfs ([`efivars`]); where the partition is mirrored on several disks, the caller
//! names every [`Place`]. The codecs of boot entries ([`LoadOption`]) and device paths
//! ([`device_path`]) are pure. Nothing is mounted and no program is run; mounting efivarfs is the business of whoever
//! starts the system. Installing a boot loader for BIOS (running the image's own grub) is refused by design, above.

pub mod device_path;
pub mod efivars;
mod error;
mod firmware;
mod install;
mod load_option;
pub mod loaders;

pub use efivars::{BootEntry, current_entries, delete_entry};
pub use error::Error;
pub use firmware::Firmware;
pub use install::{Made, MadeEntry, Outcome, Place, install_efi_entries, make_entries};
pub use load_option::LoadOption;
