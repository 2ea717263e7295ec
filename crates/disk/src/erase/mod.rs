//! Making what was on a disk unreadable: by the disk's own firmware, or by writing over every sector.
//!
//! Each way takes a [`Target`], holds the disk for itself while it works, and says plainly when the disk knows no such
//! way ([`Outcome::Unsupported`]). Which way is tried when is decided by who calls (`hardware-managers`).

mod ata;
mod nvme;
mod overwrite;

pub use overwrite::{Finished, Overwrite};

use std::ops::ControlFlow;

use crate::{Error, Target};

/// What came of asking a disk to erase itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did, in this way.
    Erased(String),
    /// It can not; nothing was changed. Why not.
    Unsupported(String),
}

/// **Erases an ATA disk by its own security feature set** (`SECURITY ERASE UNIT`, enhanced where it has that). Takes up to
/// hours, can not be interrupted, and goes on after a power failure as soon as the disk has power again.
///
/// # Errors
/// The disk knows the feature set, but is frozen or locked, refuses, or is not free of its password afterwards.
pub fn ata_secure_erase(target: &Target) -> Result<Outcome, Error> {
    let _held = target.open()?;
    let kernel = target.host().kernel();
    let mut send = |command: &sys::AtaCommand, data: &mut [u8]| kernel.ata(target.device(), command, data);
    let outcome =
        ata::secure_erase(&mut send, target.size_bytes()).map_err(|reason| error(target, reason))?;
    forget_cache(target);
    Ok(outcome)
}

/// **Erases an NVMe namespace by formatting it**: cryptographically where the controller can, else by erasing user data.
/// Its sector format stays. Where the controller says that this erases all its namespaces, `others` must hold the device
/// paths of all of them (`/dev/nvme0n2`): whoever calls has made sure that they may be erased too.
///
/// # Errors
/// The controller can not format, or failed, or would erase a namespace that is not among `others`.
pub fn nvme_format(target: &Target, others: &[String]) -> Result<Outcome, Error> {
    let _held = target.open()?;
    let device = target.device();
    let kernel = target.host().kernel();
    let names = target.host().names("/sys/block").map_err(Error::io("reading /sys/block"))?;
    let siblings = nvme::siblings(&target.disk().name, &names);
    let spared = siblings.into_iter().find(|name| !others.contains(name));
    let namespace = kernel
        .nvme_namespace(device)
        .map_err(|cause| error(target, format!("it is no NVMe namespace: {cause}")))?;
    let mut send = |command: &sys::NvmeCommand, data: &mut [u8]| kernel.nvme_admin(device, command, data);
    let outcome =
        nvme::format(&mut send, namespace, spared.as_deref()).map_err(|reason| error(target, reason))?;
    forget_cache(target);
    Ok(outcome)
}

/// **Writes over every sector of a disk.** `report` hears how many bytes were done (written and read back) since it last
/// did, a few times a second, and can end it.
///
/// # Errors
/// The disk refused a write, with its offset; or did not read back as zeroes.
pub fn overwrite(
    target: &Target,
    how: &Overwrite,
    report: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Finished, Error> {
    let device = sys::BlockDevice::open(target.device())
        .map_err(Error::io(format!("opening {} for writing", target.disk().name)))?;
    target.confirm().map_err(|refusal| error(target, refusal.to_string()))?;
    overwrite::run(&device, how, report)
        .map_err(|(action, cause)| Error::io(format!("{action} of {}", target.disk().name))(cause))
}

fn error(target: &Target, reason: String) -> Error {
    Error::Erase { device: target.disk().name.clone(), reason }
}

/// What the kernel still remembers of the disk is not there any more.
fn forget_cache(target: &Target) {
    if let Err(error) = target.host().kernel().flush_buffers(target.device()) {
        tracing::debug!(device = target.disk().name, %error, "the kernel keeps its buffers");
    }
}
