//! What commands ask of the one deployment of this boot: the seam to `hardware_managers`, and where tests stand in.

use hwm::Context;
use serde::Deserialize;
use serde_json::Value;
use wire::{ImageInfo, Secret};

use crate::config::Config;

/// The parameters of `image.install_bootloader`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct InstallBootloader {
    /// Root file system, or the disk signature of a whole-disk image.
    pub root_uuid: Option<String>,
    /// EFI system partition; null for whole-disk images.
    pub efi_system_part_uuid: Option<String>,
    /// PReP partition; ppc64 only.
    pub prep_boot_part_uuid: Option<String>,
    /// `uefi` or `bios`.
    pub target_boot_mode: String,
    /// Whether a failure counts as success; the configuration decides when unset.
    pub ignore_bootloader_failure: Option<bool>,
}

/// The deployment of this boot: it remembers what was written where. Methods block.
pub trait Deployment: Send + Sync {
    /// Takes the configuration as lookup left it.
    fn configure(&self, config: &Config) -> Result<(), hwm::Error>;

    /// **Writes an image, and its config drive, to the disk that the node's hints name.** Returns the text for the wire:
    /// `image (ID) written to device DEV root_uuid=U`.
    fn prepare_image(
        &self,
        cx: &Context,
        image: ImageInfo,
        configdrive: Option<Secret>,
    ) -> Result<String, hwm::Error>;

    /// What `get_partition_uuids` answers; an empty object before anything was written.
    fn partition_uuids(&self) -> Value;

    /// Makes the written disk bootable: **changes firmware boot entries.**
    fn install_bootloader(&self, cx: &Context, request: &InstallBootloader) -> Result<(), hwm::Error>;

    /// Flushes every disk.
    fn sync(&self, cx: &Context) -> Result<(), hwm::Error>;
}
