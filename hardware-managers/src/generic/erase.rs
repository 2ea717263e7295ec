//! The step `erase_devices_metadata`: every disk loses its partition table and the signatures of what lay on it.
//!
//! It makes disks look empty; it does not make data unreadable. Source: data plane page, 8.3 to 8.6.

use std::time::Instant;

use disk::table::PartitionType;
use disk::{Policy, Refusal, Target};
use events::{EventKind, Phase};
use hwm::{Context, Error};
use wire::Disk;

use super::deploy::{announce, protected, reread};
use super::root_disk::{list_patiently, skip_list};
use crate::settings::Settings;

/// **Wipes partition tables and signatures from every disk** that is neither skipped, nor read-only, nor a member of an
/// array, nor outside the allow-list. All disks are checked before the first is wiped.
///
/// # Errors
/// `ProtectedDevice` when a disk is in use or holds a file system that other machines share: then nothing was wiped.
/// `BlockDevice` naming every disk that failed; the others are wiped.
pub(crate) fn metadata(cx: &Context, settings: &Settings) -> Result<(), Error> {
    let skip = skip_list(cx)?;
    let mut disks = list_patiently(cx, settings)?;
    if disks.is_empty() {
        tracing::warn!("there is no disk to erase");
    }
    disks.sort_by(|a, b| b.name.cmp(&a.name));
    let policy = Policy::detect(&cx.host, settings.allow.clone());
    let mut targets = Vec::new();
    for disk in &disks {
        let verdict = match skip.iter().find(|hints| hints.matches(disk)) {
            Some(hints) => Err(format!("properties.skip_block_devices says so ({hints})")),
            None => claim(cx, disk, &policy)?,
        };
        match verdict {
            Ok(target) => targets.push(target),
            Err(reason) => {
                tracing::warn!(device = disk.name, reason, "disk is not erased");
                cx.events
                    .emit(EventKind::Notice { message: format!("{} is not erased: {reason}", disk.name) });
            }
        }
    }

    let mut failures = Vec::new();
    for target in &targets {
        if cx.is_cancelled() {
            return Err(Error::Failed { message: "erasing was cancelled".into() });
        }
        if let Err(error) = wipe(cx, target) {
            failures.push(format!("{}: {}", target.disk().name, hwm::chain(&error)));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let message = format!("erasing metadata failed on {}", failures.join("; "));
    cx.events.emit(EventKind::Failed { phase: Phase::Erase, message: message.clone() });
    Err(Error::BlockDevice { message })
}

/// The disk as a target, or the reason to leave it alone.
fn claim(cx: &Context, disk: &Disk, policy: &Policy) -> Result<Result<Target, String>, Error> {
    match Target::claim(&cx.host, disk, policy) {
        Ok(target) => {
            refuse_shared_file_systems(&target)?;
            Ok(Ok(target))
        }
        Err(refusal @ (Refusal::NotAllowed { .. } | Refusal::ReadOnly { .. })) => {
            Ok(Err(refusal.to_string()))
        }
        // The array is a disk of its own and is wiped as such.
        Err(Refusal::Held { holder, .. }) if holder.starts_with("md") => {
            Ok(Err(format!("it is a member of the array {holder}")))
        }
        Err(refusal) => Err(protected(&refusal)),
    }
}

/// Partition types of cluster file systems, which other machines may be using right now: VMFS and GPFS.
const SHARED: [&str; 3] =
    ["aa31e02a-400f-11db-9590-000c2911d1b8", "37affc90-ef7d-4e96-91c3-2d7ae055b174", "0xfb"];

fn refuse_shared_file_systems(target: &Target) -> Result<(), Error> {
    let contents = target.contents();
    let shared_type = contents.partitions.iter().find(|part| {
        let kind = match part.partition.kind {
            PartitionType::Guid(guid) => guid.to_string(),
            PartitionType::Id(id) => format!("{id:#04x}"),
        };
        SHARED.contains(&kind.as_str())
    });
    let shared_type = shared_type.map(|part| format!("partition {}", part.partition.number));
    let file_systems = contents.partitions.iter().map(|part| &part.file_system).chain([&contents.whole]);
    let gfs2 =
        file_systems.flatten().any(|file_system| file_system.kind == "gfs2").then(|| "gfs2".to_owned());
    match shared_type.or(gfs2) {
        None => Ok(()),
        Some(what) => Err(Error::ProtectedDevice {
            message: format!(
                "{} holds a file system that other machines may share ({what}): name the disk in \
                 properties.skip_block_devices to leave it alone, or wipe it by hand",
                target.disk().name
            ),
        }),
    }
}

fn wipe(cx: &Context, target: &Target) -> Result<(), disk::Error> {
    let started = Instant::now();
    let subject = target.disk().name.clone();
    cx.events.emit(EventKind::PhaseStarted { phase: Phase::Erase, subject });
    announce(cx, target, "erasing partition tables and signatures");
    disk::wipe_metadata(target)?;
    reread(cx, target);
    cx.events.emit(EventKind::PhaseFinished {
        phase: Phase::Erase,
        seconds: started.elapsed().as_secs_f64(),
        bytes: None,
    });
    Ok(())
}
