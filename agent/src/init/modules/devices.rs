//! What the devices that are there ask for: the `modalias` of everything on a bus.

use std::collections::BTreeSet;

use sys::Host;

/// Devices looked at on one bus; a machine with more has its drivers for them by then.
const MOST_DEVICES: usize = 16_384;

/// Every alias, each once. The flat list of a bus spares a walk through all of `/sys/devices`.
pub(super) fn modaliases(host: &Host) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = host.attribute("/sys/class/dmi/id/modalias").into_iter().collect();
    for bus in names(host, "/sys/bus") {
        let folder = format!("/sys/bus/{bus}/devices");
        for device in names(host, &folder).into_iter().take(MOST_DEVICES) {
            found.extend(host.attribute(format!("{folder}/{device}/modalias")));
        }
    }
    found
}

fn names(host: &Host, folder: &str) -> Vec<String> {
    host.names(folder).unwrap_or_else(|error| {
        tracing::debug!(%error, folder, "a folder can not be listed");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_all_buses_are_found_and_those_without_alias_passed_over() {
        let root = tempfile::tempdir().unwrap();
        for (device, alias) in [("pci/devices/0000:00:01.0", "pci:v1"), ("usb/devices/1-1:1.0", "usb:v2")] {
            let folder = root.path().join("sys/bus").join(device);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("modalias"), format!("{alias}\n")).unwrap();
        }
        std::fs::create_dir_all(root.path().join("sys/bus/usb/devices/usb1")).unwrap();
        std::fs::create_dir_all(root.path().join("sys/bus/empty")).unwrap();
        let found = modaliases(&sys::fake::host(root.path()));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["pci:v1", "usb:v2"]);
    }
}
