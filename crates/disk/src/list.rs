//! The disks of a machine, read from sysfs alone: no udev database, no `lsblk`, no device opened.
//!
//! Which devices count follows the enumeration of ironic-python-agent (data plane page, 2.1): whole disks, RAID arrays and
//! multipath devices; never floppies, RAM disks, optical drives, empty drives, or the paths behind a multipath device.

use sys::Host;
use wire::Disk;

use crate::bus_path;
use crate::identity::Identity;
use crate::{AllowList, Error};

/// Returns every disk an image could go to, by device number: the order of `lsblk`, which decides in ironic-python-agent
/// which of several disks that fit the hints is taken (data plane page, 2.2).
///
/// Loop devices are listed only when the allow-list names them. Nothing else is left out for the allow-list's sake: an
/// inventory shows all disks, [`crate::select`] and [`crate::Target::claim`] are where it counts.
pub fn list(host: &Host, allow: Option<&AllowList>) -> Result<Vec<Disk>, Error> {
    let mut names = host.names("/sys/block").map_err(Error::io("reading /sys/block"))?;
    // Stable: devices without a number, which only fixtures have, stay in the order of their names.
    names.sort_by_cached_key(|name| place(host, name));
    let mut disks = Vec::new();
    for name in names {
        let Some(kind) = Kind::of(host, &name) else { continue };
        if is_path_of_multipath(host, &name) {
            continue;
        }
        let disk = describe(host, &name);
        if disk.size == 0 || (kind == Kind::Loop && !allow.is_some_and(|allow| allow.permits(&disk))) {
            continue;
        }
        disks.push(disk);
    }
    Ok(disks)
}

/// The device node of a partition: `/dev/sda1`, `/dev/nvme0n1p1`.
pub fn partition_path(device: &str, number: u32) -> String {
    let separator = if device.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{device}{separator}{number}")
}

/// The name below `/sys/block` of a device path. The kernel writes `!` where the node has a slash.
pub(crate) fn kernel_name(device: &str) -> String {
    device.strip_prefix("/dev/").unwrap_or(device).replace('/', "!")
}

/// The disk that a partition lies on, and a disk itself, by their names in sysfs: `nvme0n1` for `nvme0n1p2`, told by the
/// kernel and not by the name. `None` for what the kernel does not know.
pub(crate) fn disk_of(host: &Host, name: &str) -> Option<String> {
    if host.path(format!("/sys/block/{name}")).exists() {
        return Some(name.to_owned());
    }
    let disks = host.names("/sys/block").unwrap_or_default();
    disks.into_iter().find(|disk| host.path(format!("/sys/block/{disk}/{name}/partition")).exists())
}

/// The same, where what the kernel does not know stands for itself.
pub(crate) fn parent_of(host: &Host, name: &str) -> String {
    disk_of(host, name).unwrap_or_else(|| name.to_owned())
}

/// What kind of disk a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Disk,
    Array,
    Multipath,
    Loop,
}

impl Kind {
    /// `None` for what is no disk.
    fn of(host: &Host, name: &str) -> Option<Self> {
        let attribute = |path: &str| host.attribute(format!("/sys/block/{name}/{path}"));
        if attribute("hidden").is_some_and(|hidden| hidden != "0") {
            return None; // a single path of an NVMe multipath device: it has no node
        }
        if name.starts_with("loop") {
            return Some(Self::Loop);
        }
        if name.starts_with("dm-") {
            return attribute("dm/uuid")?.starts_with("mpath-").then_some(Self::Multipath);
        }
        if name.starts_with("md") {
            return attribute("md/level")?.starts_with("raid").then_some(Self::Array);
        }
        // zd: volumes of a pool, as zram and ram never hardware. mmcblk0boot0: the boot loader of a board, no disk.
        let none = ["ram", "zram", "fd", "sr", "nbd", "zd", "mtdblock"];
        if none.iter().any(|prefix| name.starts_with(prefix))
            || (name.starts_with("mmcblk") && name.contains("boot"))
        {
            return None;
        }
        // Peripheral device types of SCSI: 0 is a disk, 14 a simplified one, 20 zoned. 5 is an optical drive.
        match attribute("device/type").and_then(|kind| kind.parse::<u8>().ok()) {
            Some(0 | 14 | 20) | None => Some(Self::Disk),
            Some(_) => None,
        }
    }
}

fn is_path_of_multipath(host: &Host, name: &str) -> bool {
    let holders = host.names(format!("/sys/block/{name}/holders")).unwrap_or_default();
    holders.iter().any(|holder| Kind::of(host, holder) == Some(Kind::Multipath))
}

/// What a multipath device is made of: one of its paths. Anything else stands for itself.
pub(crate) fn behind(host: &Host, name: &str) -> String {
    let paths = match name.starts_with("dm-") {
        true => host.names(format!("/sys/block/{name}/slaves")).unwrap_or_default(),
        false => Vec::new(),
    };
    paths.into_iter().find(|path| !path.starts_with("dm-")).unwrap_or_else(|| name.to_owned())
}

/// What sysfs says of a block device, by its name there. No judgement whether it is a disk.
pub fn describe(host: &Host, name: &str) -> Disk {
    let attribute = |path: &str| host.attribute(format!("/sys/block/{name}/{path}"));
    let number = |path: &str| host.number::<u32>(format!("/sys/block/{name}/{path}"));
    let sectors: u64 = host.number(format!("/sys/block/{name}/size")).unwrap_or(0);
    let hctl = host.names(format!("/sys/block/{name}/device/scsi_device")).unwrap_or_default();
    let identity = Identity::read(host, name);
    let hardware = behind(host, name);
    let of_hardware = |path: &str| host.attribute(format!("/sys/block/{hardware}/device/{path}"));
    Disk {
        name: format!("/dev/{}", name.replace('!', "/")),
        model: of_hardware("model"),
        size: sectors.saturating_mul(512), // sysfs counts in 512 bytes whatever the sector size is
        rotational: attribute("queue/rotational").is_some_and(|value| value != "0"),
        wwn: identity.wwn,
        serial: identity.serial,
        vendor: of_hardware("vendor"),
        wwn_with_extension: identity.wwn_with_extension,
        wwn_vendor_extension: identity.wwn_vendor_extension,
        hctl: hctl.into_iter().next(),
        by_path: bus_path::by_path(host, name).map(|path| format!("/dev/disk/by-path/{path}")),
        logical_sectors: number("queue/logical_block_size"),
        physical_sectors: number("queue/physical_block_size"),
        tran: bus_path::transport(host, name),
    }
}

/// Returns a device's number as `lsblk` sorts by it: packed as `makedev(3)` does, where high bits of the minor number stand
/// above the major number. Devices without one come last.
fn place(host: &Host, name: &str) -> u64 {
    let number = host.attribute(format!("/sys/block/{name}/dev"));
    let parsed = number.as_deref().and_then(|number| {
        let (major, minor) = number.split_once(':')?;
        Some((u64::from(major.parse::<u32>().ok()?), u64::from(minor.parse::<u32>().ok()?)))
    });
    let Some((major, minor)) = parsed else { return u64::MAX };
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_listed_by_device_number() {
        let root = tempfile::tempdir().unwrap();
        let numbers = [
            ("nvme0n1", "259:3"),
            ("nvme1n1", "259:0"),
            ("sda", "8:16"),
            ("sdb", "8:0"),
            ("sdq", "65:0"),
            ("sdiw", "8:256"),
            ("vda", "254:0"),
            ("zzz", "none"),
        ];
        for (name, number) in numbers {
            let directory = root.path().join("sys/block").join(name);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("dev"), number).unwrap();
            std::fs::write(directory.join("size"), "2048").unwrap();
        }
        let disks = list(&sys::fake::host(root.path()), None).unwrap();
        let names: Vec<&str> = disks.iter().filter_map(|disk| disk.name.strip_prefix("/dev/")).collect();
        assert_eq!(names, ["sdb", "sda", "sdq", "vda", "nvme1n1", "nvme0n1", "sdiw", "zzz"]);
    }

    #[test]
    fn partitions_of_devices_ending_in_a_digit_get_a_p() {
        assert_eq!(partition_path("/dev/sda", 1), "/dev/sda1");
        assert_eq!(partition_path("/dev/nvme0n1", 2), "/dev/nvme0n1p2");
        assert_eq!(partition_path("/dev/md0", 1), "/dev/md0p1");
        assert_eq!(partition_path("/dev/mapper/mpatha", 3), "/dev/mapper/mpatha3");
    }

    #[test]
    fn the_disk_of_a_partition_is_told_by_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        for file in ["sda/size", "nvme0n1/nvme0n1p2/partition", "cciss!c0d0/cciss!c0d0p1/partition"] {
            let path = root.path().join("sys/block").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "2").unwrap();
        }
        let host = sys::fake::host(root.path());
        for (name, disk) in [
            ("sda", "sda"),
            ("nvme0n1", "nvme0n1"),
            ("nvme0n1p2", "nvme0n1"),
            ("cciss!c0d0p1", "cciss!c0d0"),
            ("vdz", "vdz"),
        ] {
            assert_eq!(parent_of(&host, name), disk);
        }
    }
}
