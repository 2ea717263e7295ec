//! The step `erase_devices_metadata`: every disk loses its partition table and the signatures of what lay on it.
//!
//! It makes disks look empty; it does not make data unreadable. Source: data plane page, 8.3 and 8.4.

use std::time::Duration;

use disk::Target;
use hwm::{Context, Error};

use super::candidates::{Candidates, ReadOnly, collect};
use super::options::EraseOptions;
use super::{cancelled, collected, in_phase};
use crate::generic::deploy::{announce, reread};
use crate::settings::Settings;

/// **Wipes partition tables and signatures from every disk** that is neither skipped, nor read-only, nor a member of an
/// array, nor outside the allow-list. All disks are checked before the first is wiped.
///
/// # Errors
/// `ProtectedDevice` when a disk is in use or holds a file system that other machines share: then nothing was wiped.
/// `BlockDeviceErase` naming every disk that failed; the others are wiped.
pub(crate) fn run(cx: &Context, settings: &Settings) -> Result<(), Error> {
    let options = EraseOptions::read(cx, settings)?;
    let Candidates { mut targets, .. } = collect(cx, settings, &options, ReadOnly::Leave)?;
    targets.sort_by(|a, b| b.disk().name.cmp(&a.disk().name));
    let mut failures = Vec::new();
    for target in &targets {
        if cx.is_cancelled() {
            return Err(cancelled());
        }
        if let Err(error) = wipe(cx, target, options.stall_limit) {
            failures.push((target.disk().name.clone(), hwm::chain(&error)));
        }
    }
    collected("erasing metadata", &failures)
}

/// **Wipes one disk**, between the events of its phase.
pub(super) fn wipe(cx: &Context, target: &Target, stall_limit: Duration) -> Result<(), Error> {
    in_phase(cx, &target.disk().name, || {
        announce(cx, target, "erasing partition tables and signatures");
        let wiped = disk::wipe_metadata_within(target, stall_limit);
        // Every request to a disk that does not answer would hang.
        if !matches!(wiped, Err(disk::Error::Stalled { .. })) {
            reread(cx, target);
        }
        wiped.map_err(|error| Error::BlockDeviceErase { message: hwm::chain(&error) })
    })
}
