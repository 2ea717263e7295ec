//! How this boot came about: firmware kind and the interface that the network boot used.

use sys::Host;
use wire::BootInfo;

/// Boot mode by what the kernel exposes of the firmware; the interface verbatim as the boot loader gave it (`BOOTIF`).
pub(crate) fn read(host: &Host, boot_interface: Option<&str>) -> BootInfo {
    BootInfo {
        current_boot_mode: if host.is_uefi() { "uefi" } else { "bios" }.into(),
        pxe_interface: boot_interface.filter(|value| !value.is_empty()).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    #[test]
    fn firmware_directory_means_uefi_and_bootif_is_verbatim() {
        let machine = Fixture::new();
        assert_eq!(read(&machine.host(), None).current_boot_mode, "bios");
        let machine = machine.directory("/sys/firmware/efi");
        let info = read(&machine.host(), Some("01-52-54-00-00-00-01"));
        assert_eq!(info.current_boot_mode, "uefi");
        assert_eq!(info.pxe_interface.as_deref(), Some("01-52-54-00-00-00-01"));
        assert_eq!(read(&machine.host(), Some("")).pxe_interface, None);
    }
}
