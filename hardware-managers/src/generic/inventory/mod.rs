//! What the machine is made of, piece by piece: pure readers of `/sys`, `/proc` and the firmware's tables over a
//! [`sys::Host`], so that a directory of fixtures can stand in for a machine. Nothing here writes or probes a disk.
//! Shapes and quirks follow ironic-python-agent (data plane page, 10), without lshw, lscpu or dmidecode.

pub(crate) mod boot;
pub(crate) mod cpu;
pub(crate) mod interfaces;
pub(crate) mod memory;
pub(crate) mod smbios;
pub(crate) mod vendor;
