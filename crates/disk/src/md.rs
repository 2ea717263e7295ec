//! Linux software arrays: which the kernel runs, of what they are made, and what the superblocks of their members say.
//!
//! From sysfs and from the superblocks themselves; no tool's text is read. Nothing is written here.

use sys::Host;
use uuid::Uuid;
use wire::Disk;

use crate::list::{disk_of, kernel_name, parent_of};
use crate::{Contents, Device, Error, Source};

/// What [`Contents`] calls a member's superblock.
const MEMBER: &str = "linux_raid_member";

/// The name of the array that mirrors the EFI system partitions of a system inside an array.
pub const ESP_VOLUME: &str = "esp";

/// First word of every superblock.
const MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
/// Length of the name in a superblock of version 1.
const NAME: usize = 32;

/// What the superblock of a member says of its array (version 1, `struct mdp_superblock_1` of `linux/raid/md_p.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Identifies the array.
    pub uuid: Uuid,
    /// The array's name as its maker gave it, without the host that it may belong to; `None` for one without a name, as all
    /// of version 0.90 are.
    pub volume: Option<String>,
    /// How many members the array has when it is whole.
    pub members: u32,
}

impl Superblock {
    /// Looks for a superblock of any version: 1.2 at 4 KiB, 1.1 at the start, 1.0 and 0.90 near the end.
    pub fn read<S: Source + ?Sized>(source: &S) -> Option<Self> {
        let near_end = (source.size() / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
        let version_1 = [Some(4096), Some(0), near_end].into_iter().flatten();
        let found =
            version_1.map(|offset| source.bytes(offset, 256)).find_map(|block| Self::parse(&block.ok()?));
        found.or_else(|| {
            Self::parse_old(&source.bytes((source.size() & !0xffff).checked_sub(0x10000)?, 256).ok()?)
        })
    }

    fn parse(block: &[u8]) -> Option<Self> {
        if block.get(..4)? != MAGIC || le32(block, 4)? != 1 {
            return None;
        }
        let name = block.get(32..32 + NAME)?;
        let name = String::from_utf8_lossy(name.split(|byte| *byte == 0).next()?).into_owned();
        let uuid = Uuid::from_slice(block.get(16..32)?).ok()?;
        Some(Self { uuid, volume: volume_of(&name), members: le32(block, 92)? })
    }

    /// Version 0.90, in the byte order of this machine: the identifier is in four words.
    fn parse_old(block: &[u8]) -> Option<Self> {
        if block.get(..4)? != MAGIC || le32(block, 4)? != 0 {
            return None;
        }
        let words = [le32(block, 20)?, le32(block, 52)?, le32(block, 56)?, le32(block, 60)?];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        Some(Self { uuid: Uuid::from_slice(&bytes).ok()?, volume: None, members: le32(block, 40)? })
    }
}

/// `host:name` and `name` are the same volume; what follows a blank is not part of it.
fn volume_of(name: &str) -> Option<String> {
    let plain = name.split_once(':').map_or(name, |(_, plain)| plain);
    plain.split(' ').next().filter(|name| !name.is_empty()).map(Into::into)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// An array that the kernel has, running or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Its node: `/dev/md0`.
    pub device: String,
    /// `raid0`, `raid1`, `raid10`, ...; `None` while it is not running.
    pub level: Option<String>,
    /// Size in bytes; 0 while it is not running.
    pub size_bytes: u64,
    /// The nodes of its members, sorted: `/dev/sda1`.
    pub members: Vec<String>,
    /// What the first readable member's superblock says.
    pub superblock: Option<Superblock>,
}

impl Array {
    /// The name that its maker gave it.
    pub fn volume(&self) -> Option<&str> {
        self.superblock.as_ref()?.volume.as_deref()
    }

    /// The whole disks that its members lie on, sorted.
    pub fn holders(&self, host: &Host) -> Vec<String> {
        whole_disks(host, self.members.iter().map(|member| kernel_name(member)))
    }
}

/// Every array that the kernel has, by number. A node that is left of an array that was stopped is none.
pub fn arrays(host: &Host) -> Result<Vec<Array>, Error> {
    let names = host.names("/sys/block").map_err(Error::io("reading /sys/block"))?;
    let mut arrays = Vec::new();
    for name in names.iter().filter(|name| host.path(format!("/sys/block/{name}/md")).is_dir()) {
        let directory = format!("/sys/block/{name}");
        let mut members: Vec<String> = host
            .names(format!("{directory}/slaves"))
            .map_err(Error::io(format!("reading the members of {name}")))?
            .iter()
            .map(|member| node_of(member))
            .collect();
        members.sort();
        if members.is_empty() {
            continue;
        }
        let sectors: u64 = host.number(format!("{directory}/size")).unwrap_or(0);
        arrays.push(Array {
            device: node_of(name),
            level: host.attribute(format!("{directory}/md/level")),
            size_bytes: sectors.saturating_mul(512), // sysfs counts in 512 bytes whatever the sector size is
            superblock: members.iter().find_map(|member| superblock(host, member)),
            members,
        });
    }
    arrays.sort_by_key(|array| (array.device.len(), array.device.clone()));
    Ok(arrays)
}

/// The superblock on a disk or partition; `None` also where it can not be read.
pub fn superblock(host: &Host, device: &str) -> Option<Superblock> {
    Superblock::read(&Device::open(&host.path(device)).ok()?)
}

/// Every disk and partition below `disks` (`/dev/sda`) that has a superblock, whether its array runs or not: partitions
/// after each other, the disk itself after its partitions.
pub fn members(host: &Host, disks: &[String]) -> Vec<(String, Superblock)> {
    let with_partitions = disks.iter().flat_map(|disk| {
        let mut devices = partitions(host, disk);
        devices.push(disk.clone());
        devices
    });
    with_partitions.filter_map(|device| Some((device.clone(), superblock(host, &device)?))).collect()
}

/// The running RAID arrays that a disk (`/dev/sda`), or a partition of it, is part of, sorted: `/dev/md0`.
pub(crate) fn running_on(host: &Host, disk: &str) -> Vec<String> {
    let directory = format!("/sys/block/{}", kernel_name(disk));
    let parts = partitions(host, disk).into_iter().map(|part| format!("{directory}/{}", kernel_name(&part)));
    let holders = std::iter::once(directory.clone())
        .chain(parts)
        .flat_map(|directory| host.names(format!("{directory}/holders")).unwrap_or_default());
    let mut arrays: Vec<String> =
        holders.filter(|name| is_running(host, name)).map(|name| node_of(&name)).collect();
    arrays.sort();
    arrays.dedup();
    arrays
}

fn is_running(host: &Host, name: &str) -> bool {
    host.attribute(format!("/sys/block/{name}/md/level")).is_some_and(|level| level.starts_with("raid"))
}

/// Whether this is an array (`/dev/md0`).
pub(crate) fn is_array(host: &Host, device: &str) -> bool {
    host.path(format!("/sys/block/{}/md", kernel_name(device))).is_dir()
}

/// The whole disks that an array (`/dev/md0`) lies on, sorted.
pub(crate) fn disks_of(host: &Host, array: &str) -> Vec<String> {
    let members = host.names(format!("/sys/block/{}/slaves", kernel_name(array))).unwrap_or_default();
    whole_disks(host, members)
}

/// The names of the arrays that a disk holds members of, running or not, sorted; of an array itself, its own name. By the disk's
/// own partition table, for the kernel may show no partitions. **Opens the disk, reads only.**
pub(crate) fn volumes_on(host: &Host, disk: &Disk) -> Vec<String> {
    let name = kernel_name(&disk.name);
    let labels = if name.starts_with("md") {
        let members = host.names(format!("/sys/block/{name}/slaves")).unwrap_or_default();
        members.iter().flat_map(|member| labels_on(host, &node_of(member))).collect()
    } else {
        labels_on(host, &disk.name)
    };
    let mut names: Vec<String> = labels.iter().filter_map(|label| volume_of(label)).collect();
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

/// The disks below disks and partitions that are given by their names in sysfs, sorted.
fn whole_disks(host: &Host, names: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let mut disks: Vec<String> =
        names.into_iter().map(|name| node_of(&parent_of(host, name.as_ref()))).collect();
    disks.sort();
    disks.dedup();
    disks
}

/// The node of what sysfs calls so: `/dev/cciss/c0d0` for `cciss!c0d0`.
fn node_of(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

/// The nodes of a disk's partitions, as the kernel shows them, by number.
pub fn partitions(host: &Host, disk: &str) -> Vec<String> {
    let directory = format!("/sys/block/{}", kernel_name(disk));
    let names = host.names(&directory).unwrap_or_default();
    let mut numbered: Vec<(u32, String)> = names
        .into_iter()
        .filter_map(|name| {
            let number = host.number(format!("{directory}/{name}/partition"))?;
            Some((number, node_of(&name)))
        })
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, device)| device).collect()
}

/// The number of a partition's node, as the kernel says.
pub fn partition_number(host: &Host, partition: &str) -> Option<u32> {
    let disk = whole_disk(host, partition)?;
    host.number(format!("/sys/block/{}/{}/partition", kernel_name(&disk), kernel_name(partition)))
}

/// The disk that a partition lies on; a disk is its own. By sysfs: what the name looks like decides nothing.
pub fn whole_disk(host: &Host, device: &str) -> Option<String> {
    disk_of(host, &kernel_name(device)).map(|disk| node_of(&disk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn superblock(name: &str) -> Vec<u8> {
        let mut block = vec![0; 256];
        block[..4].copy_from_slice(&MAGIC);
        block[4] = 1;
        block[16..32].copy_from_slice(&[7; 16]);
        block[32..32 + name.len()].copy_from_slice(name.as_bytes());
        block[92] = 2;
        block
    }

    fn holding(block: &[u8], offset: usize) -> Vec<u8> {
        let mut disk = vec![0; 1 << 20];
        disk[offset..offset + block.len()].copy_from_slice(block);
        disk
    }

    #[test]
    fn superblocks_of_each_version_are_found_where_they_lie() {
        let end = 1 << 20;
        for offset in [0, 4096, end - 8192] {
            let found = Superblock::read(&holding(&superblock("root"), offset)).unwrap();
            assert_eq!((found.volume.as_deref(), found.members), (Some("root"), 2), "{offset}");
            assert_eq!(found.uuid, Uuid::from_bytes([7; 16]));
        }
        let mut old = superblock("");
        old[4] = 0;
        old[40] = 3;
        let found = Superblock::read(&holding(&old, end - 65536)).unwrap();
        assert_eq!((found.volume, found.members), (None, 3));
        assert_eq!(Superblock::read(&vec![0; 1 << 20]), None);
        assert_eq!(Superblock::read(&vec![0; 100]), None, "too short for any");
        assert_eq!(Superblock::read(&holding(&superblock("x"), 8192)), None, "in a wrong place");
    }

    #[test]
    fn a_volumes_name_is_without_its_host_and_ends_at_a_blank() {
        for (name, volume) in [
            ("root", Some("root")),
            ("node-1:root", Some("root")),
            ("data (local to host x)", Some("data")),
            ("h:", None),
            ("", None),
        ] {
            assert_eq!(volume_of(name).as_deref(), volume, "{name}");
        }
    }

    /// Two disks with a partition each; `md0` over both partitions, `md5` stopped.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for disk in ["sda", "sdb"] {
            put(&format!("sys/block/{disk}/{disk}1/partition"), b"1\n");
            put(&format!("sys/block/{disk}/size"), b"4096\n");
            put(&format!("dev/{disk}"), &vec![0; 1 << 20]);
            put(&format!("dev/{disk}1"), &holding(&superblock("host:root"), 4096));
        }
        put("sys/block/md0/md/level", b"raid1\n");
        put("sys/block/md0/size", b"2048\n");
        put("sys/block/md0/slaves/sdb1", b"");
        put("sys/block/md0/slaves/sda1", b"");
        put("sys/block/md5/md/level", b"\n");
        fs::create_dir_all(root.path().join("sys/block/md5/slaves")).unwrap();
        root
    }

    #[test]
    fn arrays_come_with_level_members_holders_and_name() {
        let root = machine();
        let host = sys::fake::host(root.path());
        let arrays = arrays(&host).unwrap();
        let [array] = arrays.as_slice() else { panic!("{arrays:?}") };
        assert_eq!((array.device.as_str(), array.level.as_deref()), ("/dev/md0", Some("raid1")));
        assert_eq!(array.members, ["/dev/sda1", "/dev/sdb1"]);
        assert_eq!(array.holders(&host), ["/dev/sda", "/dev/sdb"]);
        assert_eq!((array.volume(), array.size_bytes), (Some("root"), 1 << 20));
    }

    #[test]
    fn members_are_found_by_their_superblocks_whether_an_array_runs_or_not() {
        let root = machine();
        let host = sys::fake::host(root.path());
        fs::write(root.path().join("dev/sdb"), holding(&superblock("whole"), 4096)).unwrap();
        let found = members(&host, &["/dev/sda".into(), "/dev/sdb".into()]);
        let names: Vec<_> =
            found.iter().map(|(device, block)| (&**device, block.volume.as_deref().unwrap())).collect();
        assert_eq!(names, [("/dev/sda1", "root"), ("/dev/sdb1", "root"), ("/dev/sdb", "whole")]);
    }

    #[test]
    fn a_partitions_disk_is_known_from_sysfs_not_from_its_name() {
        let root = machine();
        fs::create_dir_all(root.path().join("sys/block/nvme0n1/nvme0n1p2")).unwrap();
        fs::write(root.path().join("sys/block/nvme0n1/nvme0n1p2/partition"), "2\n").unwrap();
        let host = sys::fake::host(root.path());
        for (device, disk, number) in [
            ("/dev/sda1", Some("/dev/sda"), Some(1)),
            ("/dev/nvme0n1p2", Some("/dev/nvme0n1"), Some(2)),
            ("/dev/nvme0n1", Some("/dev/nvme0n1"), None),
            ("/dev/md0", Some("/dev/md0"), None),
            ("/dev/sdz1", None, None),
        ] {
            assert_eq!(whole_disk(&host, device).as_deref(), disk, "{device}");
            assert_eq!(partition_number(&host, device), number, "{device}");
        }
    }
}
