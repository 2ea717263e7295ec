//! The step `erase_devices_express`: NVMe disks format themselves, which takes seconds; all others, and those that fail, lose
//! their metadata only. Source: data plane page, 8.3.

use disk::Target;
use disk::erase::Outcome;
use hwm::{Context, Error};

use super::candidates::{Candidates, ReadOnly, collect};
use super::means::is_nvme;
use super::metadata::wipe;
use super::options::EraseOptions;
use super::{cancelled, collected, in_phase};
use crate::generic::deploy::{announce, reread};
use crate::settings::Settings;

/// **Erases every disk in its quickest way**, with the exceptions of `erase_devices_metadata`.
///
/// # Errors
/// As `erase_devices_metadata`.
pub(crate) fn run(cx: &Context, settings: &Settings) -> Result<(), Error> {
    let options = EraseOptions::read(cx, settings)?;
    let Candidates { mut targets, .. } = collect(cx, settings, &options, ReadOnly::Leave)?;
    targets.sort_by(|a, b| b.disk().name.cmp(&a.disk().name));
    let names: Vec<String> = targets.iter().map(|target| target.disk().name.clone()).collect();
    let mut failures = Vec::new();
    for target in &targets {
        if cx.is_cancelled() {
            return Err(cancelled());
        }
        let device = &target.disk().name;
        let formatted = match options.nvme && is_nvme(device) {
            true => format(cx, target, &names),
            false => Err(None),
        };
        let Err(not_formatted) = formatted else { continue };
        if let Some(error) = &not_formatted {
            tracing::warn!(device, error, "the disk did not format itself; erasing its metadata instead");
        }
        if let Err(error) = wipe(cx, target, options.stall_limit) {
            let first = not_formatted.map_or_else(String::new, |error| format!("{error}; then "));
            failures.push((device.clone(), format!("{first}{}", hwm::chain(&error))));
        }
    }
    collected("express erasing", &failures)
}

/// **Formats an NVMe disk.** The error is the reason, where there is more to say than "not this way".
fn format(cx: &Context, target: &Target, names: &[String]) -> Result<(), Option<String>> {
    let formatted = in_phase(cx, &target.disk().name, || {
        announce(cx, target, "formatting");
        disk::erase::nvme_format(target, names)
            .map_err(|error| Error::BlockDeviceErase { message: hwm::chain(&error) })
    });
    match formatted {
        Ok(Outcome::Erased(way)) => {
            tracing::info!(device = target.disk().name, way, "disk erased");
            reread(cx, target);
            Ok(())
        }
        Ok(Outcome::Unsupported(_)) => Err(None),
        Err(error) => Err(Some(error.to_string())),
    }
}
