//! Maker, product and firmware, from `/sys/class/dmi/id`; empty strings where the machine does not say.

use sys::Host;
use wire::{Firmware, SystemVendor};

/// Reads the DMI attributes. The product carries the SKU in parentheses, as lshw prints it: inspection rules match on it.
pub(crate) fn read(host: &Host) -> SystemVendor {
    let text = |name: &str| host.attribute(format!("/sys/class/dmi/id/{name}")).unwrap_or_default();
    let (product, sku) = (text("product_name"), text("product_sku"));
    let product_name = if sku.is_empty() { product } else { format!("{product} ({sku})") };
    SystemVendor {
        product_name: product_name.trim().to_owned(),
        serial_number: text("product_serial"),
        manufacturer: text("sys_vendor"),
        firmware: Firmware {
            vendor: text("bios_vendor"),
            version: text("bios_version"),
            build_date: text("bios_date"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    #[test]
    fn product_carries_the_sku_in_parentheses() {
        let machine = Fixture::new()
            .file("/sys/class/dmi/id/product_name", "PowerEdge R640\n")
            .file("/sys/class/dmi/id/product_sku", "SKU=0716\n")
            .file("/sys/class/dmi/id/product_serial", "ABC123\n")
            .file("/sys/class/dmi/id/sys_vendor", "Dell Inc.\n")
            .file("/sys/class/dmi/id/bios_version", "2.19.1\n");
        let vendor = read(&machine.host());
        assert_eq!(vendor.product_name, "PowerEdge R640 (SKU=0716)");
        assert_eq!((vendor.serial_number.as_str(), vendor.manufacturer.as_str()), ("ABC123", "Dell Inc."));
        assert_eq!((vendor.firmware.version.as_str(), vendor.firmware.vendor.as_str()), ("2.19.1", ""));
    }

    #[test]
    fn a_machine_without_dmi_gives_empty_strings() {
        assert_eq!(read(&Fixture::new().host()), SystemVendor::default());
    }
}
