//! Making what was on a disk unreadable: by the disk's own firmware, or by writing over every sector.
//!
//! Each way takes a [`Target`], holds the disk for itself while it works, and says plainly when the disk knows no such
//! way ([`Outcome::Unsupported`]). Which way is tried when is decided by who calls (`hardware-managers`).

mod ata;
pub(crate) mod careful;
pub(crate) mod damage;
pub(crate) mod medium;
mod nvme;
mod overwrite;
pub(crate) mod watch;

pub use overwrite::{Finished, Overwrite};
pub use watch::STALL_LIMIT;

use std::ops::ControlFlow;
use std::time::Duration;

use crate::{Error, Target};
use careful::Care;
use watch::Left;

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

/// **Writes over every sector of a disk.** `report` gets how many bytes were done (written and read back) since its last
/// call, a few times a second, and can end the work.
///
/// # Errors
/// [`Error::Erase`] with every range that could not be written, could not be read back, or did not read back as zeroes: the rest was
/// written over. [`Error::Stalled`] when no request ended within `stall_limit`: **a thread that hangs in the kernel is
/// left behind**, and its write may still happen.
pub fn overwrite(
    target: &Target,
    how: &Overwrite,
    stall_limit: Duration,
    report: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Finished, Error> {
    if target.is_stalled() {
        return Err(stalled(target, stall_limit, 0));
    }
    let (opener, how, name) = (target.opener(), *how, target.disk().name.clone());
    let ended = watch::watched(stall_limit, report, move |pulse| {
        let device = opener.open()?;
        let mut outcome = overwrite::Outcome::default();
        let ended = overwrite::run(&device, &how, Care::default(), &mut outcome, pulse);
        outcome.log(&name);
        match (ended, outcome.text()) {
            (ControlFlow::Break(()), _) => Ok(Finished::Stopped),
            (ControlFlow::Continue(()), None) => Ok(Finished::Completely),
            (ControlFlow::Continue(()), Some(reason)) => Err(Error::Erase { device: name, reason }),
        }
    });
    match ended {
        Ok(result) => result,
        Err(Left::Stopped) => Ok(Finished::Stopped),
        Err(Left::Hung { at }) => Err(stalled(target, stall_limit, at)),
    }
}

/// The error for a disk that did not answer.
pub(crate) fn stalled(target: &Target, limit: Duration, at: u64) -> Error {
    Error::Stalled { device: target.disk().name.clone(), seconds: limit.as_secs(), at }
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
