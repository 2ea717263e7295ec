//! USB devices that are no hub, keyboard, disk, printer or other common kind: licence dongles, sensors, and the like.
//!
//! The kinds follow lshw, which ironic-python-agent asks: what lshw calls `generic` is listed.

use hwm::Error;
use sys::Host;
use wire::UsbDevice;

const DEVICES: &str = "/sys/bus/usb/devices";

/// Classes that have a name of their own: audio, communication, input, printer, storage, hub, communication data, smart
/// card, video, wireless. Source: USB-IF, Defined Class Codes.
const COMMON: [&str; 10] = ["01", "02", "03", "07", "08", "09", "0a", "0b", "0e", "e0"];

/// The devices, sorted by name; none where there is no USB.
pub(crate) fn read(host: &Host) -> Result<Vec<UsbDevice>, Error> {
    let names = host.names(DEVICES).map_err(|error| Error::other(format!("listing {DEVICES}"), error))?;
    Ok(names.iter().filter_map(|name| device(host, name, &names)).collect())
}

fn device(host: &Host, name: &str, all: &[String]) -> Option<UsbDevice> {
    let attribute = |name: &str, part: &str| host.attribute(format!("{DEVICES}/{name}/{part}"));
    // Interfaces (`1-2:1.0`) have no device number, and root hubs (`usb1`) are hubs.
    let (bus, number) = (attribute(name, "busnum")?, attribute(name, "devnum")?);
    let mut class = attribute(name, "bDeviceClass")?;
    if class == "00" {
        // Each interface says for itself: the first one decides.
        let mut interfaces = all.iter().filter(|other| other.starts_with(&format!("{name}:")));
        class = interfaces.find_map(|other| attribute(other, "bInterfaceClass")).unwrap_or(class);
    }
    if COMMON.contains(&class.as_str()) {
        return None;
    }
    Some(UsbDevice {
        product: attribute(name, "product").unwrap_or_default(),
        vendor: attribute(name, "manufacturer").unwrap_or_default(),
        handle: format!("USB:{bus}:{number}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    fn plugged(machine: Fixture, name: &str, number: u32, class: &str, interface: &str) -> Fixture {
        let at = format!("{DEVICES}/{name}");
        machine
            .file(&format!("{at}/busnum"), "1\n")
            .file(&format!("{at}/devnum"), &format!("{number}\n"))
            .file(&format!("{at}/bDeviceClass"), &format!("{class}\n"))
            .file(&format!("{at}:1.0/bInterfaceClass"), &format!("{interface}\n"))
    }

    #[test]
    fn hubs_keyboards_and_disks_are_left_out_by_device_or_interface_class() {
        let machine = plugged(Fixture::new(), "usb1", 1, "09", "09");
        let machine = plugged(machine, "1-1", 2, "00", "03");
        let machine = plugged(machine, "1-2", 3, "00", "08");
        let machine =
            plugged(machine, "1-3", 4, "ff", "ff").file("/sys/bus/usb/devices/1-3/product", "HASP 3.25\n");
        let machine =
            plugged(machine, "1-4", 5, "00", "ff").file("/sys/bus/usb/devices/1-4/manufacturer", "ACME\n");
        let device = |product: &str, vendor: &str, handle: &str| UsbDevice {
            product: product.into(),
            vendor: vendor.into(),
            handle: handle.into(),
        };
        let expected = [device("HASP 3.25", "", "USB:1:4"), device("", "ACME", "USB:1:5")];
        assert_eq!(read(&machine.host()).unwrap(), expected);
        assert_eq!(read(&Fixture::new().host()).unwrap(), []);
    }
}
