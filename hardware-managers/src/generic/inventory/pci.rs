//! The functions of PCI devices, from `/sys/bus/pci/devices`.

use hwm::Error;
use sys::Host;
use wire::PciDevice;

const DEVICES: &str = "/sys/bus/pci/devices";

/// Every function, sorted by address. One whose ids can not be read is left out with a warning.
///
/// # Errors
/// When the kernel shows no PCI bus at all.
pub fn pci_devices(host: &Host) -> Result<Vec<PciDevice>, Error> {
    let failed = |error| Error::other(format!("listing the PCI devices in {DEVICES}"), error);
    if !host.path(DEVICES).is_dir() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::NotFound)));
    }
    let names = host.names(DEVICES).map_err(failed)?;
    Ok(names.into_iter().filter_map(|name| device(host, name)).collect())
}

fn device(host: &Host, bus: String) -> Option<PciDevice> {
    let attribute = |name: &str| host.attribute(format!("{DEVICES}/{bus}/{name}"));
    let id = |name: &str| attribute(name)?.strip_prefix("0x").map(str::to_owned);
    let (Some(vendor_id), Some(product_id), Some(class)) = (id("vendor"), id("device"), id("class")) else {
        tracing::warn!(bus, "a PCI device without readable ids is left out");
        return None;
    };
    Some(PciDevice {
        vendor_id,
        product_id,
        class,
        revision: id("revision"),
        numa_node_id: attribute("numa_node"),
        bus,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    #[test]
    fn ids_lose_their_prefix_and_what_is_unknown_is_null() {
        let at = |name: &str| format!("/sys/bus/pci/devices/0000:3b:00.0/{name}");
        let machine = Fixture::new()
            .file(&at("vendor"), "0x8086\n")
            .file(&at("device"), "0x1572\n")
            .file(&at("class"), "0x020000\n")
            .file("/sys/bus/pci/devices/0000:00:00.0/vendor", "0x8086\n")
            .file("/sys/bus/pci/devices/0000:00:01.0/vendor", "nonsense\n");
        let expected = PciDevice {
            vendor_id: "8086".into(),
            product_id: "1572".into(),
            class: "020000".into(),
            bus: "0000:3b:00.0".into(),
            ..PciDevice::default()
        };
        assert_eq!(pci_devices(&machine.host()).unwrap(), std::slice::from_ref(&expected));
        let machine = machine.file(&at("revision"), "0x02\n").file(&at("numa_node"), "-1\n");
        let expected = PciDevice { revision: Some("02".into()), numa_node_id: Some("-1".into()), ..expected };
        assert_eq!(pci_devices(&machine.host()).unwrap(), [expected]);
    }

    #[test]
    fn a_machine_without_pci_is_an_error_that_names_the_directory() {
        let error = pci_devices(&Fixture::new().host()).unwrap_err();
        assert!(hwm::chain(&error).contains(DEVICES), "{error}");
    }
}
