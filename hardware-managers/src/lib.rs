//! The hardware managers that Ferric brings along, and the story of a deployment.
//!
//! - [`builtin`] is the one explicit list of managers; a vendor's own binary adds to it.
//! - [`Deployment`] is the handle through which an image is written, whoever asks: the step `write_image`, the command
//!   `standby.prepare_image`, or a person with `ferric-agent write`. **It destroys what is on the chosen disk.**
//! - [`pci_devices`], [`numa_topology`], [`dmi`] and [`extra_hardware`] are what inspection reports beyond the inventory.
//! - [`Settings`] is what the agent's configuration says.
//!
//! The generic manager reads `/sys` and `/proc` itself and runs no programs, but for what partition images need: the tool
//! that makes an ephemeral file system, and the image's own grub; and for software RAID, mdadm.
//! The manager of container steps is there only where the ramdisk has podman or docker.

mod container;
mod deployment;
mod generic;
mod settings;

use std::sync::Arc;

pub use container::ContainerHardwareManager;
pub use deployment::{
    Choice, ConfigDrive, Deployed, Deployment, InstallBootc, InstallBootloader, NodeSource,
};
pub use generic::GenericHardwareManager;
pub use generic::image::{Checksum, Image};
pub use generic::partition::{PartitionImage, PartitionUuids};
pub use generic::signature::ImageSignature;
pub use generic::{Row, dmi, extra_hardware, find_digest, lldp_elements, numa_topology, pci_devices};
use hwm::HardwareManager;
pub use settings::{Containers, Credentials, IMAGE_KEYS, Partitioning, RootVolumes, Settings, Signatures};

/// Every built-in manager, in the order in which equals are asked.
pub fn builtin(deployment: &Arc<Deployment>) -> Vec<Box<dyn HardwareManager>> {
    vec![
        Box::new(ContainerHardwareManager::new(Arc::clone(deployment))),
        Box::new(GenericHardwareManager::new(Arc::clone(deployment))),
    ]
}
