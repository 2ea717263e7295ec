//! The one deployment of this boot: the settings, and what was written where.
//!
//! A handle that the generic manager (step `write_image`), the agent's commands (`standby.*`, `image.*`) and its offline
//! subcommands share, so that each way of asking runs the same path. Methods block, and must not be called from async code.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::{Policy, Selection};
use hwm::{Context, Error};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{ImageInfo, Secret};

use crate::generic::image::{self, Image};
use crate::generic::partition::PartitionUuids;
use crate::generic::{bootloader, deploy, root_disk};
use crate::settings::Settings;

/// Settings, and the memory of what was written.
#[derive(Default)]
pub struct Deployment {
    settings: Mutex<Settings>,
    deployed: Mutex<Option<Deployed>>,
}

/// An image that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployed {
    /// The disk.
    pub disk: wire::Disk,
    /// The disk signature of the MBR as `0x%08x` (`0x00000000` on most GPT disks); the UUID of the root file system for a
    /// partition image.
    pub root_uuid: String,
    /// How many partitions the image brought, or were made for it.
    pub partitions: usize,
    /// What was made for a partition image; `None` for a whole-disk image.
    pub partition_uuids: Option<PartitionUuids>,
    /// Whether a config drive was written.
    pub config_drive: bool,
    /// What the image write did.
    pub written: imaging::Written,
}

/// Which disk an image goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one that the node's root device hints name; without hints the smallest that is large enough.
    Hints,
    /// This one, and no other.
    Device(PathBuf),
}

/// A config drive, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigDrive {
    /// As the conductor sends it: an http(s) URL, or base64 of gzip of a file system image.
    Text(Secret),
    /// The bytes of a file: a file system image, its gzip, or base64 of that.
    Bytes(Vec<u8>),
}

/// The parameters of `image.install_bootloader`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct InstallBootloader {
    /// Root file system of a partition image, or the disk signature of a whole-disk image.
    #[serde(default)]
    pub root_uuid: Option<String>,
    /// EFI system partition; null for whole-disk images.
    #[serde(default)]
    pub efi_system_part_uuid: Option<String>,
    /// PReP partition; ppc64 only.
    #[serde(default)]
    pub prep_boot_part_uuid: Option<String>,
    /// `uefi` or `bios`; only compared with how the ramdisk was booted.
    #[serde(default)]
    pub target_boot_mode: Option<String>,
    /// Whether a failure counts as success; the settings decide when unset.
    #[serde(default)]
    pub ignore_bootloader_failure: Option<bool>,
}

impl Deployment {
    /// A deployment that has written nothing yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings: Mutex::new(settings), deployed: Mutex::default() })
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Changes settings: lookup overrides some of them. Work that runs keeps those it started with.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.settings));
    }

    /// Checks `image_info` without fetching or touching anything: what a command must know before it is accepted.
    pub fn check_image(&self, info: &ImageInfo) -> Result<(), Error> {
        image::check(info, &self.settings()).map(drop)
    }

    /// **Writes an image, and its config drive, to the disk that the node's hints name.** Returns the text for the wire:
    /// `image (ID) written to device DEV root_uuid=U`, and ` efi_system_partition_uuid=E` for a partition image on UEFI.
    pub fn prepare_image(
        &self,
        cx: &Context,
        info: ImageInfo,
        configdrive: Option<Secret>,
    ) -> Result<String, Error> {
        let image = image::check(&info, &self.settings())?;
        let drive = configdrive.or(info.configdrive).filter(|text| !text.expose().is_empty());
        let deployed = self.write(cx, &image, drive.map(ConfigDrive::Text), &Choice::Hints)?;
        let mut text = format!(
            "image ({}) written to device {} root_uuid={}",
            image.label, deployed.disk.name, deployed.root_uuid
        );
        if info.deploy_boot_mode.as_deref() == Some("uefi")
            && let Some(esp) = deployed.partition_uuids.as_ref().and_then(|uuids| uuids.esp.as_ref())
        {
            text.push_str(&format!(" efi_system_partition_uuid={esp}"));
        }
        Ok(text)
    }

    /// **Writes an image, and a config drive if there is one, to a disk.** What it wrote is remembered for
    /// [`Deployment::partition_uuids`].
    ///
    /// # Errors
    /// `DeviceNotFound` and `ProtectedDevice` before anything is written; `ImageDownload`, `ImageChecksum`, `InvalidImage`,
    /// `ImageWrite` and `BlockDevice` say in their text whether the disk was touched. `Failed` when cancelled.
    pub fn write(
        &self,
        cx: &Context,
        image: &Image,
        config_drive: Option<ConfigDrive>,
        choice: &Choice,
    ) -> Result<Deployed, Error> {
        *lock(&self.deployed) = None; // whatever was there is about to go
        let deployed = deploy::run(cx, &self.settings(), image, config_drive, choice)?;
        *lock(&self.deployed) = Some(deployed.clone());
        Ok(deployed)
    }

    /// What `get_partition_uuids` answers; an empty object before anything was written.
    pub fn partition_uuids(&self) -> Value {
        match lock(&self.deployed).as_ref() {
            Some(Deployed { partition_uuids: Some(uuids), .. }) => uuids.to_json(),
            Some(deployed) => json!({ "root uuid": deployed.root_uuid }),
            None => json!({}),
        }
    }

    /// Makes the written disk bootable: **changes firmware boot entries** on UEFI; nothing is left to do on BIOS.
    pub fn install_bootloader(&self, cx: &Context, request: &InstallBootloader) -> Result<(), Error> {
        let deployed = lock(&self.deployed).clone();
        bootloader::install(cx, &self.settings(), deployed.as_ref(), request)
    }

    /// Flushes every disk and drops the kernel's caches.
    pub fn sync(&self, cx: &Context) -> Result<(), Error> {
        deploy::sync(cx, &self.settings())
    }

    /// Which disk an image would go to now, and why. Touches nothing.
    pub fn select(&self, cx: &Context) -> Result<Selection, Error> {
        root_disk::select(cx, &self.settings())
    }

    /// The rule under which disks may be destroyed here.
    pub fn policy(&self, cx: &Context) -> Policy {
        Policy::detect(&cx.host, self.settings().allow)
    }
}

/// The data under these locks is valid at every step, so a panic elsewhere must not spread.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
