//! The collectors there are, by the names of ironic-python-agent.

/// One collector: each adds its keys to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collector {
    /// `inventory`, `root_disk`, `boot_interface`, `configuration`.
    Default,
    /// `logs`: what the agent has logged so far, so it stands last as a rule.
    Logs,
    /// `pci_devices`.
    PciDevices,
    /// `numa_topology`.
    NumaTopology,
    /// `dmi`.
    DmiDecode,
    /// `lldp_raw`.
    Lldp,
    /// `usb_devices`.
    UsbDevices,
}

impl Collector {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Default,
        Self::Logs,
        Self::PciDevices,
        Self::NumaTopology,
        Self::DmiDecode,
        Self::Lldp,
        Self::UsbDevices,
    ];

    /// The name in `inspection_collectors`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Logs => "logs",
            Self::PciDevices => "pci-devices",
            Self::NumaTopology => "numa-topology",
            Self::DmiDecode => "dmi-decode",
            Self::Lldp => "lldp",
            Self::UsbDevices => "usb-devices",
        }
    }

    /// The collector of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|collector| collector.name() == name)
    }
}
