//! What commands ask of the one deployment of this boot: the seam to `hardware_managers`, and where tests stand in.

use hardware_managers::{InstallBootc, InstallBootloader, NodeSource};
use hwm::{Context, Error};
use serde_json::Value;
use wire::{ImageInfo, Secret};

use crate::config::Config;

/// The deployment of this boot: it remembers what was written where. Methods block.
pub trait Deployment: Send + Sync {
    /// Takes the configuration as lookup left it.
    fn configure(&self, config: &Config);

    /// Lets it ask for the node anew before it chooses a disk without hints.
    fn refresh_nodes_by(&self, _source: NodeSource) {}

    /// Checks an image's description, without fetching or touching anything.
    fn check_image(&self, image: &ImageInfo) -> Result<(), Error>;

    /// **Writes an image, and its config drive, to the disk that the node's hints name.** Returns the text for the wire:
    /// `image (ID) written to device DEV root_uuid=U`.
    fn prepare_image(
        &self,
        cx: &Context,
        image: ImageInfo,
        configdrive: Option<Secret>,
    ) -> Result<String, Error>;

    /// **Installs a bootable container to the disk that the node's hints name.** Returns the text for the wire.
    fn install_bootc(&self, cx: &Context, request: &InstallBootc) -> Result<String, Error>;

    /// What `get_partition_uuids` answers; an empty object before anything was written.
    fn partition_uuids(&self) -> Value;

    /// Makes the written disk bootable: **changes firmware boot entries.**
    fn install_bootloader(&self, cx: &Context, request: &InstallBootloader) -> Result<(), Error>;

    /// Flushes every disk.
    fn sync(&self, cx: &Context) -> Result<(), Error>;
}

impl Deployment for hardware_managers::Deployment {
    fn configure(&self, config: &Config) {
        self.configure(|settings| *settings = config.hardware_settings());
    }

    fn refresh_nodes_by(&self, source: NodeSource) {
        self.refresh_nodes_by(source);
    }

    fn check_image(&self, image: &ImageInfo) -> Result<(), Error> {
        self.check_image(image)
    }

    fn prepare_image(
        &self,
        cx: &Context,
        image: ImageInfo,
        configdrive: Option<Secret>,
    ) -> Result<String, Error> {
        self.prepare_image(cx, image, configdrive.as_ref().map(Secret::expose))
    }

    fn install_bootc(&self, cx: &Context, request: &InstallBootc) -> Result<String, Error> {
        self.install_bootc(cx, request)
    }

    fn partition_uuids(&self) -> Value {
        self.partition_uuids()
    }

    fn install_bootloader(&self, cx: &Context, request: &InstallBootloader) -> Result<(), Error> {
        self.install_bootloader(cx, request)
    }

    fn sync(&self, cx: &Context) -> Result<(), Error> {
        self.sync(cx)
    }
}
