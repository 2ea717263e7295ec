//! The one deployment of this boot: the settings, and what was written where.
//!
//! A handle that the generic manager (step `write_image`), the agent's commands (`standby.*`, `image.*`) and its offline
//! subcommands share, so that each way of asking runs the same path. Methods block, and must not be called from async code.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk::{Policy, Selection};
use hwm::{Context, Error};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::{ImageInfo, Secret};

use crate::generic::image::{self, Image};
use crate::generic::partition::PartitionUuids;
use crate::generic::{bootc, bootloader, deploy, root_disk};
use crate::settings::{RootVolumes, Settings};

/// Settings, and the memory of what was written.
#[derive(Default)]
pub struct Deployment {
    settings: Mutex<Settings>,
    deployed: Mutex<Option<Deployed>>,
    root_volumes: Mutex<RootVolumes>,
    node_source: Mutex<Option<NodeSource>>,
}

/// Asks the conductor for the node of this id as it is now; none when it does not answer. May block for a minute.
pub type NodeSource = Arc<dyn Fn(&str) -> Option<Value> + Send + Sync>;

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

/// A config drive, as it was given. Its text is not copied: it may be large.
#[derive(Clone, PartialEq, Eq)]
pub enum ConfigDrive<'a> {
    /// As the conductor sends it: an http(s) URL, or base64 of gzip of a file system image. Secret.
    Text(&'a str),
    /// The bytes of a file: a file system image, its gzip, or base64 of that.
    Bytes(Vec<u8>),
}

impl fmt::Debug for ConfigDrive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(<...>)",
            Self::Bytes(_) => "Bytes(<...>)",
        })
    }
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

/// The parameters of `standby.execute_bootc_install`.
#[derive(Clone, Debug)]
pub struct InstallBootc {
    /// `oci://registry/path:tag`.
    pub image_source: String,
    /// Of the node: `bootc_authorized_keys` (text), `bootc_tpm2_luks` (true or false).
    pub instance_info: serde_json::Map<String, Value>,
    /// Base64 of `user:password` for the registry, as its `auth` entry wants it.
    pub pull_secret: Option<Secret>,
    /// URL, or base64 of a gzipped file system image.
    pub configdrive: Option<Secret>,
}

impl Deployment {
    /// A deployment that has written nothing yet.
    pub fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self { settings: Mutex::new(settings), ..Self::default() })
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Settings {
        Settings { root_volumes: lock(&self.root_volumes).clone(), ..lock(&self.settings).clone() }
    }

    /// Changes settings: lookup overrides some of them. Work that runs keeps those it started with.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.settings));
    }

    /// Remembers, for this boot, which volumes RAID configuration made the root volume or excluded from it, in place of what was
    /// remembered before. The root volume goes before root device hints. Source: data plane page, 2.2.
    pub fn remember_root_volumes(&self, volumes: RootVolumes) {
        *lock(&self.root_volumes) = volumes;
    }

    /// Lets a deployment ask for the node anew where it is told no root device hints: they may have been set since. Source:
    /// data plane page, 2.2.
    pub fn refresh_nodes_by(&self, source: NodeSource) {
        *lock(&self.node_source) = Some(source);
    }

    /// The context with hints, if the node has any by now.
    fn with_fresh_hints(&self, cx: &Context) -> Context {
        let source = lock(&self.node_source).clone();
        let uuid = cx.node_field("/uuid").and_then(Value::as_str);
        match (source, uuid) {
            (Some(source), Some(uuid)) if !root_disk::has_hints(cx) => match source(uuid) {
                Some(fresh) => root_disk::with_hints_of(cx, &fresh),
                None => cx.clone(),
            },
            _ => cx.clone(),
        }
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
        mut info: ImageInfo,
        configdrive: Option<&str>,
    ) -> Result<String, Error> {
        image::complete(&mut info, cx.node_field("/instance_info"));
        let image = image::check(&info, &self.settings())?;
        let legacy = info.configdrive.take();
        let drive = configdrive.or(legacy.as_ref().map(Secret::expose)).filter(|text| !text.is_empty());
        let cx = self.with_fresh_hints(cx);
        let deployed = self.write(&cx, &image, drive.map(ConfigDrive::Text), &Choice::Hints)?;
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
        config_drive: Option<ConfigDrive<'_>>,
        choice: &Choice,
    ) -> Result<Deployed, Error> {
        *lock(&self.deployed) = None; // whatever was there is about to go
        let deployed = deploy::run(cx, &self.settings(), image, config_drive, choice)?;
        *lock(&self.deployed) = Some(deployed.clone());
        Ok(deployed)
    }

    /// **Installs a bootable container to the disk that the node's hints name.** Returns the text for the wire:
    /// `Container image (URL) written to device DEV`.
    ///
    /// # Errors
    /// `Execution` where that is switched off or the ramdisk has no podman; `ImageDownload`, `ImageWrite`, `InvalidImage`.
    pub fn install_bootc(&self, cx: &Context, request: &InstallBootc) -> Result<String, Error> {
        *lock(&self.deployed) = None; // whatever was there is about to go
        let disk = bootc::install(&self.with_fresh_hints(cx), &self.settings(), request)?;
        Ok(format!("Container image ({}) written to device {}", request.image_source, disk.name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_raid_configuration_said_outlives_a_change_of_the_settings() {
        let deployment = Deployment::new(Settings::default());
        let volumes = RootVolumes::from([("/dev/md0".to_owned(), true)]);
        deployment.remember_root_volumes(volumes.clone());
        deployment.configure(|settings| *settings = Settings::default());
        assert_eq!(deployment.settings().root_volumes, volumes);
    }

    #[test]
    fn the_node_is_asked_for_only_where_it_has_no_hints() {
        let deployment = Deployment::new(Settings::default());
        let context =
            |node| Context::new(sys::fake::host("/nonexistent"), events::Events::default()).with_node(node);
        let hinted = json!({"uuid": "u", "properties": {"root_device": {"name": "/dev/sda"}}});
        let bare = context(json!({"uuid": "u"}));
        assert_eq!(deployment.with_fresh_hints(&bare).node, bare.node, "nobody to ask");
        let answer = hinted.clone();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        deployment.refresh_nodes_by(Arc::new(move |uuid| {
            lock(&seen).push(uuid.to_owned());
            Some(answer.clone())
        }));
        assert!(root_disk::has_hints(&deployment.with_fresh_hints(&bare)));
        deployment.with_fresh_hints(&context(hinted));
        deployment.with_fresh_hints(&context(json!({})));
        assert_eq!(*lock(&asked), ["u"]);
    }
}
