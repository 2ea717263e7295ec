//! `image.install_bootloader` for whole-disk images: firmware boot entries on UEFI, nothing on BIOS.
//!
//! Source: data plane page, 5.1. What upstream does in a chroot with the image's own grub is refused, as upstream does by
//! default.

use hwm::{Context, Error};

use super::root_disk;
use crate::deployment::{Deployed, InstallBootloader};
use crate::settings::Settings;

/// **Changes firmware boot entries** so that the written disk boots next.
pub(crate) fn install(
    cx: &Context,
    settings: &Settings,
    deployed: Option<&Deployed>,
    request: &InstallBootloader,
) -> Result<(), Error> {
    let ignore = request.ignore_bootloader_failure.unwrap_or(settings.ignore_bootloader_failure);
    let booted = if cx.host.is_uefi() { "uefi" } else { "bios" };
    if let Some(wanted) = request.target_boot_mode.as_deref()
        && wanted != booted
    {
        tracing::warn!(wanted, booted, "the boot mode asked for is not the one this ramdisk was started in");
    }
    match attempt(cx, settings, deployed, request) {
        Err(error) if ignore => {
            tracing::warn!(error = hwm::chain(&error), "no boot entry was made; failures are to be ignored");
            Ok(())
        }
        result => result,
    }
}

fn attempt(
    cx: &Context,
    settings: &Settings,
    deployed: Option<&Deployed>,
    request: &InstallBootloader,
) -> Result<(), Error> {
    if cx.host.is_uefi() {
        let disk = match deployed {
            Some(deployed) => deployed.disk.clone(),
            None => root_disk::wait(cx, settings)?,
        };
        return boot_entries(cx, &disk);
    }
    let is_whole_disk = matches!(request.root_uuid.as_deref(), None | Some("" | "0x00000000"));
    if is_whole_disk || deployed.is_some() {
        tracing::info!("a whole-disk image brings its own boot loader for BIOS: nothing to do");
        return Ok(());
    }
    Err(Error::InvalidImage {
        message: "installing a boot loader for BIOS into a partition image is disabled: deploy a whole-disk image, or boot \
                  the node in UEFI mode"
            .into(),
    })
}

/// No entries are made yet: firmware starts the image by its removable-media path (`\EFI\BOOT\BOOTX64.EFI`).
fn boot_entries(_: &Context, disk: &wire::Disk) -> Result<(), Error> {
    tracing::warn!(device = disk.name, "no firmware boot entry is made; the removable-media path must do");
    Ok(())
}
