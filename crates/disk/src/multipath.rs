//! Disks that are reached over several paths while no multipath device stands for them.
//!
//! Where dm-multipath has put the paths together, [`crate::list`] hides them behind their device. Without `multipathd` in the
//! ramdisk the kernel shows each path as a disk of its own; writing through one of them is fine, as long as nobody takes them
//! for different disks.

use std::cmp::Reverse;

use sys::Host;
use wire::Disk;

use crate::list::kernel_name;
use crate::world_wide_name::is_unique;

/// One disk that several devices lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What they have in common, in words.
    pub identity: String,
    /// The devices (`/dev/sda`), the best to write through first: active before standby, preferred before others, then in the
    /// order of the list.
    pub devices: Vec<String>,
}

/// Returns the disks among `disks` with more than one path.
///
/// Two devices are one disk where world-wide name, serial number, size, vendor and model are all there and agree, the name is one
/// that can be unique, and the transport is one that knows several paths. One of them alone is no proof: many bridges and cheap
/// disks share a made-up name or serial number, and a disk that is taken for a path to another one is not erased.
pub fn paths(host: &Host, disks: &[Disk]) -> Vec<Paths> {
    let mut found: Vec<(Evidence, Vec<&Disk>)> = Vec::new();
    for disk in disks {
        let Some(evidence) = Evidence::of(host, disk) else { continue };
        match found.iter_mut().find(|(known, _)| *known == evidence) {
            Some((_, devices)) => devices.push(disk),
            None => found.push((evidence, vec![disk])),
        }
    }
    let several = found.into_iter().filter(|(_, devices)| devices.len() > 1);
    several
        .map(|(evidence, mut devices)| {
            devices.sort_by_key(|disk| Reverse(quality(host, &disk.name)));
            Paths {
                identity: format!("WWN {}, serial number {}", evidence.wwn, evidence.serial),
                devices: devices.into_iter().map(|disk| disk.name.clone()).collect(),
            }
        })
        .collect()
}

/// What two devices must have in common to be one disk.
#[derive(Debug, PartialEq, Eq)]
struct Evidence {
    wwn: String,
    serial: String,
    size: u64,
    vendor: Option<String>,
    model: Option<String>,
    /// Of NVMe disks: controllers that lead to the same namespaces are of one subsystem.
    subsystem: Option<String>,
}

impl Evidence {
    /// `None` for a disk that is never one of several paths.
    fn of(host: &Host, disk: &Disk) -> Option<Self> {
        let name = kernel_name(&disk.name);
        if ["loop", "md", "dm-"].iter().any(|prefix| name.starts_with(prefix)) {
            return None;
        }
        // These attach each disk to one port.
        if matches!(disk.tran.as_deref(), Some("usb" | "sata" | "ata" | "mmc" | "virtio")) {
            return None;
        }
        let wwn = disk.wwn.clone().filter(|wwn| is_unique(wwn))?;
        // Without a unit serial number the identifier stands for it, and proves nothing beside itself.
        let is_substitute = |serial: &str| wwn.strip_prefix("0x") == Some(serial);
        let serial =
            disk.serial.clone().filter(|serial| tells_disks_apart(serial) && !is_substitute(serial))?;
        if disk.size == 0 {
            return None;
        }
        let subsystem = host.attribute(format!("/sys/block/{name}/device/subsysnqn"));
        let (vendor, model) = (disk.vendor.clone(), disk.model.clone());
        Some(Self { wwn, serial, size: disk.size, vendor, model, subsystem })
    }
}

/// Returns whether a serial number is more than a filler such as `0000000000`.
fn tells_disks_apart(serial: &str) -> bool {
    let mut characters = serial.trim().chars();
    characters.next().is_some_and(|first| characters.any(|other| other != first))
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
