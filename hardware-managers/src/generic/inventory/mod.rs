//! What the machine is made of, piece by piece: readers of `/sys`, `/proc`, the firmware's tables and the kernel over a
//! [`sys::Host`], so that a directory of fixtures can stand in for a machine. Nothing here writes or probes a disk.
//! Shapes and quirks follow ironic-python-agent (data plane page, 10), without lshw, lscpu, dmidecode or ipmitool.

pub(crate) mod bmc;
pub(crate) mod boot;
pub(crate) mod cpu;
pub(crate) mod extra;
mod infiniband;
pub(crate) mod interfaces;
mod link_modes;
pub(crate) mod lldp;
pub(crate) mod memory;
pub(crate) mod numa;
pub(crate) mod pci;
pub(crate) mod smbios;
pub(crate) mod usb;
pub(crate) mod vendor;
