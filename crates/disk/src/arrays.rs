//! Software arrays and the disks they lie on, from sysfs and the members' superblocks. No `mdadm`.

use sys::Host;
use wire::Disk;

use crate::list::{kernel_name, parent_of};
use crate::{Contents, Device};

const MEMBER: &str = "linux_raid_member";

/// The running RAID arrays that a disk, or a partition of it, is part of: `/dev/md0`.
pub(crate) fn arrays_on(host: &Host, device: &str) -> Vec<String> {
    let disk = format!("/sys/block/{}", kernel_name(device));
    let names = host.names(&disk).unwrap_or_default();
    let partitions = names
        .into_iter()
        .map(|name| format!("{disk}/{name}"))
        .filter(|directory| host.path(format!("{directory}/partition")).exists());
    let mut arrays: Vec<String> = std::iter::once(disk.clone())
        .chain(partitions)
        .flat_map(|directory| host.names(format!("{directory}/holders")).unwrap_or_default())
        .filter(|holder| is_running(host, holder))
        .map(|holder| format!("/dev/{holder}"))
        .collect();
    arrays.sort();
    arrays.dedup();
    arrays
}

/// The whole disks that an array lies on.
pub(crate) fn disks_of(host: &Host, array: &str) -> Vec<String> {
    let members = host.names(format!("/sys/block/{}/slaves", kernel_name(array))).unwrap_or_default();
    let mut disks: Vec<String> =
        members.iter().map(|member| format!("/dev/{}", parent_of(host, member).replace('!', "/"))).collect();
    disks.sort();
    disks.dedup();
    disks
}

/// The names of the arrays that a disk holds members of, running or not; of an array itself, its own name. Without the host's
/// part, as `mdadm` shows it: `root` for `node-1:root`. **Opens the disk, reads only.**
pub(crate) fn volume_names(host: &Host, disk: &Disk) -> Vec<String> {
    let name = kernel_name(&disk.name);
    let mut labels = Vec::new();
    if name.starts_with("md") {
        for member in host.names(format!("/sys/block/{name}/slaves")).unwrap_or_default() {
            labels.extend(labels_on(host, &format!("/dev/{}", member.replace('!', "/"))));
        }
    } else {
        labels = labels_on(host, &disk.name);
    }
    let mut names: Vec<String> = labels
        .iter()
        .map(|label| label.split_once(':').map_or(label.as_str(), |(_, name)| name).into())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The labels of the members of arrays on a disk or partition.
fn labels_on(host: &Host, device: &str) -> Vec<String> {
    let contents = match Device::open(&host.path(device)) {
        Ok(device) => Contents::read(&device, device.sector_bytes()),
        Err(error) => {
            tracing::warn!(device, %error, "can not tell whether a disk is part of an array");
            return Vec::new();
        }
    };
    let parts = contents.partitions.into_iter().filter_map(|partition| partition.file_system);
    let found = contents.whole.into_iter().chain(parts);
    found.filter(|found| found.kind == MEMBER).filter_map(|found| found.label).collect()
}

fn is_running(host: &Host, name: &str) -> bool {
    host.attribute(format!("/sys/block/{name}/md/level")).is_some_and(|level| level.starts_with("raid"))
}
