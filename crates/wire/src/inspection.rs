//! What inspection finds beyond the inventory, one shape for each collector. Source: ironic-python-agent `inspector.py`,
//! `numa_inspector.py`; data plane page, 10.5. Numbers that a machine gives as hexadecimal text stay text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A type-length-value element of an LLDP frame: `[type, "hex"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tlv(pub u8, pub String);

/// What was heard on each interface, `{"eth0": [[1, "04..."], ...]}`; nothing heard is an empty list.
pub type LldpFrames = BTreeMap<String, Vec<Tlv>>;

/// The addresses of the management controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bmc {
    /// IPv4 address; `0.0.0.0` when it has none, `None` when there is no controller to ask.
    pub address: Option<String>,
    /// IPv6 address; `::/0` when it has none, `None` when there is no controller to ask.
    pub v6address: Option<String>,
    /// MAC of the first channel with an address.
    pub mac: Option<String>,
}

/// A function of a PCI device. Ids in hexadecimal without `0x`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciDevice {
    /// `8086`.
    pub vendor_id: String,
    /// `1572`.
    pub product_id: String,
    /// `020000`.
    pub class: String,
    /// `01`.
    pub revision: Option<String>,
    /// `0000:3b:00.0`.
    pub bus: String,
    /// Text of a number; `-1` where the firmware does not say.
    pub numa_node_id: Option<String>,
}

/// A USB device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbDevice {
    /// Product name; empty when it does not say.
    pub product: String,
    /// Vendor name; empty when it does not say.
    pub vendor: String,
    /// `USB:1:2`: bus and device number.
    pub handle: String,
}

/// Which memory, processors and network interfaces belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaTopology {
    /// One entry a node.
    pub ram: Vec<NumaMemory>,
    /// One entry a core.
    pub cpus: Vec<NumaCore>,
    /// One entry an interface that has a device.
    pub nics: Vec<NumaInterface>,
}

/// The memory of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaMemory {
    /// The node.
    pub numa_node: i64,
    /// KiB.
    pub size_kb: u64,
}

/// A core of a processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaCore {
    /// The core's id, unique within its node.
    pub cpu: i64,
    /// The node.
    pub numa_node: i64,
    /// The logical processors that share the core.
    pub thread_siblings: Vec<u32>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaInterface {
    /// Kernel name.
    pub name: String,
    /// The node; -1 where the firmware does not say.
    pub numa_node: i64,
}
