//! Disks that are reached over several paths while no multipath device stands for them.
//!
//! Where dm-multipath has put the paths together, [`crate::list`] hides them behind their device. Without `multipathd` in the
//! ramdisk the kernel shows each path as a disk of its own; writing through one of them is fine, as long as nobody takes them
//! for different disks.

use std::cmp::Reverse;

use sys::Host;
use wire::Disk;

use crate::list::kernel_name;

/// One disk that several devices lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What they have in common, in words.
    pub identity: String,
    /// The devices (`/dev/sda`), the best to write through first: active before standby, preferred before others, then in the
    /// order of the list.
    pub devices: Vec<String>,
}

/// The disks among `disks` with more than one path.
///
/// Two devices are one disk when they have the same size and the same world-wide name; without such a name, when vendor, model
/// and serial number are the same on a transport that knows paths. A serial number alone is no proof: cheap ones share theirs.
pub fn paths(host: &Host, disks: &[Disk]) -> Vec<Paths> {
    let mut found: Vec<(String, u64, Vec<&Disk>)> = Vec::new();
    for disk in disks {
        let Some(identity) = identity(disk) else { continue };
        match found.iter_mut().find(|(known, size, _)| *known == identity && *size == disk.size) {
            Some((_, _, devices)) => devices.push(disk),
            None => found.push((identity, disk.size, vec![disk])),
        }
    }
    let several = found.into_iter().filter(|(_, _, devices)| devices.len() > 1);
    several
        .map(|(identity, _, mut devices)| {
            devices.sort_by_key(|disk| Reverse(quality(host, &disk.name)));
            Paths { identity, devices: devices.into_iter().map(|disk| disk.name.clone()).collect() }
        })
        .collect()
}

fn identity(disk: &Disk) -> Option<String> {
    let name = kernel_name(&disk.name);
    if ["loop", "md", "dm-"].iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    if let Some(wwn) = &disk.wwn {
        return Some(format!("WWN {wwn}"));
    }
    let knows_paths = matches!(disk.tran.as_deref(), Some("fc" | "fcoe" | "iscsi" | "sas"));
    match (&disk.vendor, &disk.model, &disk.serial) {
        (Some(vendor), Some(model), Some(serial)) if knows_paths => {
            Some(format!("{vendor} {model}, serial {serial}"))
        }
        _ => None,
    }
}

/// How well a path serves: what the target port group says (SPC-4, 5.15), where the kernel asks it.
fn quality(host: &Host, device: &str) -> (bool, u8, bool) {
    let attribute = |name: &str| host.attribute(format!("/sys/block/{}/device/{name}", kernel_name(device)));
    let is_running = attribute("state").is_none_or(|state| state == "running" || state == "live");
    let access = match attribute("access_state").as_deref() {
        Some("active/optimized") => 4,
        None | Some("") => 3, // no such groups: every path is active
        Some("active/non-optimized") => 2,
        Some("lba-dependent" | "transitioning") => 1,
        Some(_) => 0, // standby, unavailable, offline
    };
    (is_running, access, attribute("preferred_path").is_some_and(|value| value == "1"))
}
