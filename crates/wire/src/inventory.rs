//! The hardware inventory: `poll.get_hardware_info`, inspection. Every key is always there, null when unknown, except
//! `bmc_mac`, which is absent. Source: ironic-python-agent `hardware.py`; data plane page, 10.1.

use serde::{Deserialize, Serialize};

use crate::Tlv;

/// What a machine is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Network interfaces with a MAC address.
    pub interfaces: Vec<Interface>,
    /// Processors.
    pub cpu: Cpu,
    /// Disks an image could go to.
    pub disks: Vec<Disk>,
    /// Memory.
    pub memory: Memory,
    /// IPv4 address of the BMC; `0.0.0.0` when it has none.
    pub bmc_address: Option<String>,
    /// IPv6 address of the BMC; `::/0` when it has none.
    pub bmc_v6address: Option<String>,
    /// MAC of the BMC; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_mac: Option<String>,
    /// Maker, product, firmware.
    pub system_vendor: SystemVendor,
    /// How this boot came about.
    pub boot: BootInfo,
    /// Host name of the ramdisk.
    pub hostname: String,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Kernel name.
    pub name: String,
    /// Permanent MAC address, lower case.
    pub mac_address: String,
    /// First IPv4 address.
    pub ipv4_address: Option<String>,
    /// First IPv6 address; link-local ones carry `%name`.
    pub ipv6_address: Option<String>,
    /// Whether a cable is in.
    pub has_carrier: bool,
    /// What its switch announced, with the deprecated `collect_lldp` only.
    pub lldp: Option<Vec<Tlv>>,
    /// PCI vendor, `0x1af4`.
    pub vendor: Option<String>,
    /// PCI device, `0x1000`.
    pub product: Option<String>,
    /// InfiniBand client id.
    pub client_id: Option<String>,
    /// BIOS name.
    pub biosdevname: Option<String>,
    /// Greatest speed in Mbit/s.
    pub speed_mbps: Option<u64>,
    /// Bus address.
    pub pci_address: Option<String>,
    /// Kernel driver.
    pub driver: Option<String>,
}

/// The processors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Model text.
    pub model_name: Option<String>,
    /// MHz, as text; empty when unknown.
    pub frequency: String,
    /// Logical processors.
    pub count: u32,
    /// `x86_64`.
    pub architecture: String,
    /// Feature flags.
    pub flags: Vec<String>,
    /// Sockets.
    pub socket_count: Option<u32>,
}

/// A disk. Also what root device hints are matched against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Device path, `/dev/sda`.
    pub name: String,
    /// Model text.
    pub model: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Whether it spins, as the kernel believes.
    pub rotational: bool,
    /// World-wide name.
    pub wwn: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Vendor text.
    pub vendor: Option<String>,
    /// WWN with the vendor extension.
    pub wwn_with_extension: Option<String>,
    /// The vendor extension alone.
    pub wwn_vendor_extension: Option<String>,
    /// SCSI address `host:channel:target:lun`.
    pub hctl: Option<String>,
    /// `/dev/disk/by-path/...`.
    pub by_path: Option<String>,
    /// Logical sector size in bytes.
    pub logical_sectors: Option<u32>,
    /// Physical sector size in bytes.
    pub physical_sectors: Option<u32>,
    /// Transport: `sata`, `nvme`, `sas`, `usb`.
    pub tran: Option<String>,
}

/// The memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// What the kernel can use, in bytes.
    pub total: Option<u64>,
    /// What is plugged in, in MiB.
    pub physical_mb: Option<u64>,
}

/// Maker and product; empty strings when unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemVendor {
    /// Product, with the SKU in parentheses where there is one.
    pub product_name: String,
    /// Serial number.
    pub serial_number: String,
    /// Maker.
    pub manufacturer: String,
    /// Firmware.
    pub firmware: Firmware,
}

/// The firmware; empty strings when unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Firmware {
    /// Maker.
    pub vendor: String,
    /// Version.
    pub version: String,
    /// Build date.
    pub build_date: String,
}

/// How the machine was booted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BootInfo {
    /// `uefi` or `bios`.
    pub current_boot_mode: String,
    /// `BOOTIF` as the boot loader gave it.
    pub pxe_interface: Option<String>,
}
