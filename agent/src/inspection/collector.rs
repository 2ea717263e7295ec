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
    /// `data`.
    ExtraHardware,
}

impl Collector {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Default,
        Self::Logs,
        Self::PciDevices,
        Self::NumaTopology,
        Self::DmiDecode,
        Self::Lldp,
        Self::UsbDevices,
        Self::ExtraHardware,
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
            Self::ExtraHardware => "extra-hardware",
        }
    }

    /// The collector of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|collector| collector.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_collector_has_a_name_of_its_own() {
        for collector in Collector::ALL {
            assert_eq!(Collector::named(collector.name()), Some(collector));
        }
        let page = include_str!("../../../docs/inspection.md");
        assert!(Collector::ALL.iter().all(|collector| page.contains(&format!("| `{}` |", collector.name()))));
        assert_eq!(Collector::named("Default"), None);
    }
}
