//! The one seam between Ferric and the machine it runs on.
//!
//! This is the only crate with `unsafe`, processes, mounts, ioctls, raw devices and reboot. Everything above asks a [`Host`]:
//! files below a root directory, programs through a [`Runner`], system calls through a [`Kernel`]. The [`fake`] module
//! stands in for all three, so that every decision can be tested without root.

#![allow(unsafe_code)] // the only crate that may; every block says why it is sound

mod ata;
mod available;
mod block;
mod busy;
mod cell;
pub mod children;
pub mod confined;
pub mod console;
mod copy;
pub mod device;
mod ethtool;
pub mod fake;
mod host;
mod interfaces;
mod ipmi;
mod kernel;
mod linux;
pub mod memory;
mod mounted;
pub mod net;
mod nvme;
mod partition;
pub mod pid1;
mod rtc;
mod runner;

pub use ata::{ATA_SECTOR, AtaCommand, AtaTransfer};
pub use block::{AlignedBuffer, BlockDevice, DIRECT_ALIGNMENT};
pub use copy::copy_for_another_core;
pub use host::Host;
pub use ipmi::IpmiRequest;
pub use kernel::{Kernel, MountRequest, Power};
pub use mounted::Mounted;
pub use nvme::NvmeCommand;
pub use runner::{CommandLine, Output, RunError, Runner, SystemRunner};
