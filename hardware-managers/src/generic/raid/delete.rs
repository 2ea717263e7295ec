//! Deleting arrays, and emptying the disks that they lay on. Source: data plane page, 9.4 and 9.6.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::Duration;

use disk::{Policy, Target, md};
use hwm::{Context, Error};
use wire::Disk;

use super::create::physical_disks;
use super::fate::{Fate, Known, fates, kept_volumes};
use super::{array_target, failed, mdadm, wrapped};
use crate::generic::deploy::{announce, protected};
use crate::settings::Settings;

/// An array below another goes in the second pass.
const PASSES: u32 = 2;
/// How often an array is stopped that somebody still looks at, and the time between two tries.
const STOP_ATTEMPTS: u32 = 5;
const STOP_INTERVAL: Duration = Duration::from_secs(1);

/// **Deletes every array and empties its disks**, but for what the node keeps.
///
/// # Errors
/// `ProtectedDevice`, before anything is touched, where an array is mounted or otherwise in use; `SoftwareRaid` where an array
/// or a superblock is left at the end.
pub(super) fn run(cx: &Context, settings: &Settings) -> Result<(), Error> {
    let kept = kept_volumes(cx)?;
    let mut emptied = BTreeSet::new();
    let mut left = Vec::new();
    for pass in 1..=PASSES {
        let disks = physical_disks(cx, settings)?; // starts what does not run, so that its contents can go, too
        let survey = Survey::make(cx, &disks, &kept)?;
        let doomed: Vec<&md::Array> =
            survey.arrays.iter().filter(|array| survey.fate_of(array) == Fate::Delete).collect();
        for array in &survey.arrays {
            match survey.fate_of(array) {
                Fate::Keep => {
                    tracing::warn!(device = array.device, volume = array.volume(), "an array is kept")
                }
                // What it holds goes once, not again for the sake of another pass.
                Fate::Wipe if pass == 1 => wipe(cx, array)?,
                Fate::Wipe | Fate::Delete => {}
            }
        }
        // All are looked at before the first goes.
        let targets = doomed.iter().map(|array| array_target(cx, array)).collect::<Result<Vec<_>, _>>()?;
        for (array, target) in doomed.iter().zip(targets) {
            delete(cx, array, target);
        }
        for (member, superblock) in
            survey.members.iter().filter(|(_, block)| survey.fate(&block.uuid.to_string()) == Fate::Delete)
        {
            if md::superblock(&cx.host, member).is_some_and(|found| found.uuid == superblock.uuid) {
                logged(mdadm::zero_superblock(cx, member), member);
            }
            emptied.extend(md::whole_disk(&cx.host, member));
        }
        let survey = Survey::make(cx, &disks, &kept)?;
        left = survey.left();
        if left.is_empty() {
            return empty(cx, settings, &disks, &emptied);
        }
    }
    Err(failed(format!("these arrays could not be deleted: {}", left.join(", "))))
}

/// What is there, and what becomes of it.
struct Survey {
    arrays: Vec<md::Array>,
    members: Vec<(String, md::Superblock)>,
    fates: BTreeMap<String, Fate>,
}

impl Survey {
    fn make(cx: &Context, disks: &[Disk], kept: &BTreeSet<String>) -> Result<Self, Error> {
        let arrays = md::arrays(&cx.host).map_err(|error| wrapped(&error))?;
        let names: Vec<String> = disks.iter().map(|disk| disk.name.clone()).collect();
        let members = md::members(&cx.host, &names);
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        let running = arrays
            .iter()
            .map(|array| (id(array), array.volume().map(str::to_owned), array.holders(&cx.host)));
        let found = members.iter().map(|(member, block)| {
            let disk = md::whole_disk(&cx.host, member).unwrap_or_else(|| member.clone());
            (block.uuid.to_string(), block.volume.clone(), vec![disk])
        });
        for (id, volume, disks) in running.chain(found) {
            let entry = known.entry(id.clone()).or_insert(Known {
                id,
                volume,
                disks: BTreeSet::new(),
                is_protected: false,
            });
            // Arrays of arrays lie on the disks below; their own name is no disk of the list and protects nothing.
            entry.is_protected |= disks.iter().any(|disk| !names.contains(disk) && !is_array(&arrays, disk));
            entry.disks.extend(disks);
        }
        let known: Vec<Known> = known.into_values().collect();
        let fates = fates(&known, kept);
        Ok(Self { arrays, members, fates })
    }

    fn fate(&self, id: &str) -> Fate {
        self.fates.get(id).copied().unwrap_or(Fate::Keep)
    }

    fn fate_of(&self, array: &md::Array) -> Fate {
        self.fate(&id(array))
    }

    /// What should be gone and is not.
    fn left(&self) -> Vec<String> {
        let arrays = self.arrays.iter().filter(|array| self.fate_of(array) == Fate::Delete);
        let members =
            self.members.iter().filter(|(_, block)| self.fate(&block.uuid.to_string()) == Fate::Delete);
        arrays.map(|array| array.device.clone()).chain(members.map(|(member, _)| member.clone())).collect()
    }
}

/// What tells an array from others: the identifier in its superblocks.
fn id(array: &md::Array) -> String {
    array.superblock.as_ref().map_or_else(|| array.device.clone(), |block| block.uuid.to_string())
}

fn is_array(arrays: &[md::Array], device: &str) -> bool {
    arrays.iter().any(|array| array.device == device)
}

fn wipe(cx: &Context, array: &md::Array) -> Result<(), Error> {
    let Some(target) = array_target(cx, array)? else { return Ok(()) };
    announce(cx, &target, "wiping a volume");
    disk::wipe_metadata(&target).map_err(|error| wrapped(&error))?;
    target.reread_partitions();
    Ok(())
}

fn delete(cx: &Context, array: &md::Array, target: Option<Target>) {
    if let Some(target) = target {
        announce(cx, &target, "deleting an array");
        if let Err(error) = disk::wipe_metadata(&target) {
            tracing::warn!(device = array.device, error = hwm::chain(&error), "an array was not wiped");
        }
        target.reread_partitions();
    }
    for attempt in 1..=STOP_ATTEMPTS {
        match mdadm::stop(cx, &array.device) {
            Ok(()) => break,
            Err(error) => {
                tracing::warn!(
                    device = array.device,
                    attempt,
                    error = hwm::chain(&error),
                    "an array was not stopped"
                );
                sleep(STOP_INTERVAL);
            }
        }
    }
    for member in &array.members {
        logged(mdadm::zero_superblock(cx, member), member);
    }
}

/// What is left of a superblock is found by the survey that follows.
fn logged(result: Result<(), Error>, member: &str) {
    if let Err(error) = result {
        tracing::warn!(member, error = hwm::chain(&error), "a superblock was not removed");
    }
}

/// **Removes the tables of the disks that the members lay on.**
fn empty(cx: &Context, settings: &Settings, disks: &[Disk], names: &BTreeSet<String>) -> Result<(), Error> {
    let policy = Policy::detect(&cx.host, settings.allow.clone());
    for disk in disks.iter().filter(|disk| names.contains(&disk.name)) {
        let target = Target::claim(&cx.host, disk, &policy).map_err(|refusal| protected(&refusal))?;
        announce(cx, &target, "removing the partitions of a disk of arrays");
        disk::wipe_metadata(&target).map_err(|error| wrapped(&error))?;
        target.reread_partitions();
    }
    Ok(())
}
