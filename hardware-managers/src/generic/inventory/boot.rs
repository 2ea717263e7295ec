//! How this boot came about: firmware kind and the interface that the network boot used.

use sys::Host;
use wire::BootInfo;

/// Boot mode by what the kernel exposes of the firmware; `BOOTIF` verbatim from the kernel command line.
pub(crate) fn read(host: &Host) -> BootInfo {
    let mode = if host.is_uefi() { "uefi" } else { "bios" };
    let cmdline = host.attribute("/proc/cmdline").unwrap_or_default();
    let bootif = cmdline.split_whitespace().filter_map(|word| word.strip_prefix("BOOTIF=")).next_back();
    BootInfo {
        current_boot_mode: mode.into(),
        pxe_interface: bootif.filter(|value| !value.is_empty()).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    #[test]
    fn firmware_directory_means_uefi_and_bootif_is_verbatim() {
        let machine =
            Fixture::new().file("/proc/cmdline", "quiet BOOTIF=01-aa BOOTIF=01-52-54-00-00-00-01 x=y\n");
        assert_eq!(read(&machine.host()).current_boot_mode, "bios");
        let machine = machine.directory("/sys/firmware/efi");
        let info = read(&machine.host());
        assert_eq!(info.current_boot_mode, "uefi");
        assert_eq!(info.pxe_interface.as_deref(), Some("01-52-54-00-00-00-01"));
        assert_eq!(read(&Fixture::new().host()).pxe_interface, None);
    }
}
