//! What speaks against a disk beyond its own description: it is part of an array, another path to a disk, or kept.

use std::collections::{BTreeMap, BTreeSet};

use sys::Host;
use wire::Disk;

use crate::multipath::{Paths, paths};
use crate::{SkipList, md};

/// What the machine says about its disks, seen together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Situation {
    /// Why a disk (`/dev/sda`) is not to be chosen, in words.
    pub ruled_out: BTreeMap<String, String>,
    /// Disks with several paths that no multipath device stands for.
    pub paths: Vec<Paths>,
}

impl Situation {
    /// Looks. Opens disks, for reading, only where the skip list names arrays.
    ///
    /// `root_volumes` is what RAID configuration said in this boot: the arrays that are the root volume, or are not to be. Of
    /// the latter, the array and the disks it lies on are ruled out (data plane page, 2.2).
    pub fn look(host: &Host, disks: &[Disk], skip: &SkipList, root_volumes: &BTreeMap<String, bool>) -> Self {
        let mut ruled_out = BTreeMap::new();
        for disk in disks {
            if let Some(array) = md::running_on(host, &disk.name).first() {
                // As a multipath device for its paths, the array stands for its members.
                ruled_out.insert(disk.name.clone(), format!("is part of the array {array}"));
            }
        }
        for (array, _) in root_volumes.iter().filter(|(_, is_root)| !**is_root) {
            let reason = format!("{array} is configured not to be the root volume");
            for member in md::disks_of(host, array) {
                ruled_out.insert(member, format!("is part of an array, and {reason}"));
            }
            ruled_out.insert(array.clone(), reason);
        }
        let paths = paths(host, disks);
        ruled_out.extend(kept(host, disks, skip, &paths));
        Self { ruled_out, paths }
    }
}

/// The disks that a skip list keeps, each with the reason in words: those that satisfy its hints, through whichever path; those
/// that hold an array it names, or are it; and with them arrays that have a part on a disk of its hints, and the mirrored EFI system
/// partition of what is kept. Running or not: a ramdisk without `mdadm` starts no array, and what is to be kept must be kept
/// there as well. Opens disks, for reading, only where the list names arrays or an array runs on a disk that is kept.
pub fn kept(host: &Host, disks: &[Disk], skip: &SkipList, paths: &[Paths]) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    let mut skipped = BTreeSet::new();
    for disk in disks {
        if let Some(hints) = skip.hints_for(disk) {
            kept.insert(disk.name.clone(), format!("is to be skipped ({hints})"));
            skipped.insert(disk.name.clone());
        } else if let Some(volume) = kept_volume(host, disk, skip) {
            kept.insert(disk.name.clone(), format!("holds the array `{volume}`, which is to be skipped"));
        }
    }
    for paths in paths {
        let Some(first) = paths.devices.iter().find(|device| kept.contains_key(*device)).cloned() else {
            continue;
        };
        for device in &paths.devices {
            let reason = || format!("is another path to the same disk as {first}, which is to be skipped");
            kept.entry(device.clone()).or_insert_with(reason);
            skipped.extend(skipped.contains(&first).then(|| device.clone()));
        }
    }
    if !kept.is_empty() {
        keep_arrays(host, disks, &skipped, &mut kept);
    }
    kept
}

/// What `delete_configuration` keeps for the sake of others is kept here as well: to write to an array is to write to its disks,
/// and a volume without what boots it is of little use. Source: data plane page, 9.6.
fn keep_arrays(host: &Host, disks: &[Disk], skipped: &BTreeSet<String>, kept: &mut BTreeMap<String, String>) {
    let arrays: Vec<(&Disk, Vec<String>)> = disks
        .iter()
        .map(|disk| (disk, md::disks_of(host, &disk.name)))
        .filter(|(disk, _)| md::is_array(host, &disk.name))
        .collect();
    for (array, below) in &arrays {
        if let Some(disk) = below.iter().find(|disk| skipped.contains(*disk)) {
            let reason = || format!("has a part on {disk}, which is to be skipped");
            kept.entry(array.name.clone()).or_insert_with(reason);
        }
    }
    let of_kept: BTreeSet<String> = arrays
        .iter()
        .filter(|(array, _)| kept.contains_key(&array.name))
        .flat_map(|(_, below)| below.clone())
        .chain(kept.keys().cloned())
        .collect();
    for (array, below) in &arrays {
        let Some(disk) = below.iter().find(|disk| of_kept.contains(*disk)) else { continue };
        if md::volumes_on(host, array).iter().any(|name| name == md::ESP_VOLUME) {
            let reason = || format!("boots what is kept on {disk}");
            kept.entry(array.name.clone()).or_insert_with(reason);
        }
    }
}

fn kept_volume(host: &Host, disk: &Disk, skip: &SkipList) -> Option<String> {
    let names = if skip.volumes().is_empty() { Vec::new() } else { md::volumes_on(host, disk) };
    names.into_iter().find(|name| skip.volumes().contains(name))
}
