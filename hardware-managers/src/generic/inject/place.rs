//! Where a file goes: finds the partition and mounts it.
//!
//! Partitions of a disk are mounted only after the disk was claimed as for writing: it is on the allow-list, and nobody
//! uses it. Device nodes and set-user-id bits of what is mounted count for nothing.

use std::collections::BTreeMap;
use std::path::Path;

use disk::probe::{FileSystem, probe};
use disk::table::Table;
use disk::{Device, Policy, Region, Target, partition_path};
use hwm::{Context, Error};
use sys::confined::Confined;
use sys::{MountRequest, Mounted};
use wire::Disk;

use super::request::{File, Where};
use crate::generic::deploy::protected;
use crate::generic::root_disk;
use crate::settings::Settings;

/// File systems that files are injected into.
const MOUNTABLE: [&str; 6] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "vfat"];

/// The partitions that files can go to, each mounted when the first file needs it, until the end of the step.
pub(super) struct Partitions<'a> {
    cx: &'a Context,
    settings: &'a Settings,
    root: Disk,
    /// Of every disk that was claimed.
    known: BTreeMap<String, Vec<Place>>,
    /// By device node.
    mounted: BTreeMap<String, Mounted>,
}

/// A partition, or a whole disk that holds a file system.
#[derive(Clone, Debug)]
struct Place {
    /// 0 is the whole disk.
    number: u32,
    node: String,
    /// PARTUUID, and the partition's name.
    uuid: String,
    name: String,
    file_system: Option<FileSystem>,
}

impl<'a> Partitions<'a> {
    /// Finds the root disk by the node's hints. Mounts nothing yet.
    pub(super) fn find(cx: &'a Context, settings: &'a Settings) -> Result<Self, Error> {
        let root = root_disk::wait(cx, settings)?;
        Ok(Self { cx, settings, root, known: BTreeMap::new(), mounted: BTreeMap::new() })
    }

    /// Where the partition for a file is mounted.
    pub(super) fn mount(&mut self, file: &File) -> Result<&Path, Error> {
        let node = match &file.partition {
            Where::Number(number) => self.numbered(*number)?,
            Where::Named(name) => self.named(name)?,
            Where::Directory(directory) => self.with_directory(directory)?,
        };
        self.mounted
            .get(&node)
            .map(Mounted::path)
            .ok_or_else(|| Error::DeviceNotFound { message: format!("{node} is not mounted") })
    }

    /// Unmounts everything, which writes it out.
    pub(super) fn unmount(self) -> Result<(), Error> {
        for (node, mounted) in self.mounted {
            mounted.unmount().map_err(|error| Error::other(format!("unmounting {node}"), error))?;
        }
        Ok(())
    }

    fn numbered(&mut self, number: u32) -> Result<String, Error> {
        let root = self.root.clone();
        let place = self.places(&root)?.into_iter().find(|place| place.number == number);
        let place = place.ok_or_else(|| Error::DeviceNotFound {
            message: format!("the root disk {} has no partition {number}", root.name),
        })?;
        self.mount_place(&place)
    }

    /// The root disk is looked at first; other disks only if need be.
    fn named(&mut self, name: &str) -> Result<String, Error> {
        let name = Name::parse(self.cx, name);
        let mut disks = root_disk::list(self.cx, self.settings)?;
        disks.retain(|disk| disk.name != self.root.name);
        disks.insert(0, self.root.clone());
        let mut refused = Vec::new();
        for disk in disks {
            let found = match self.places(&disk) {
                Ok(places) => places.into_iter().find(|place| name.is(place)),
                Err(error) => {
                    refused.push(hwm::chain(&error));
                    continue;
                }
            };
            if let Some(place) = found {
                return self.mount_place(&place);
            }
        }
        let refused = if refused.is_empty() { String::new() } else { format!(" ({})", refused.join("; ")) };
        Err(Error::DeviceNotFound { message: format!("there is no partition {name}{refused}") })
    }

    fn with_directory(&mut self, directory: &str) -> Result<String, Error> {
        let root = self.root.clone();
        let mut scanned = Vec::new();
        for place in self.places(&root)? {
            let kind = place.file_system.as_ref().map_or("unknown content", |found| found.kind);
            scanned.push(format!("{} ({kind})", place.node));
            if !MOUNTABLE.contains(&kind) {
                continue;
            }
            let node = match self.mount_place(&place) {
                Ok(node) => node,
                Err(error) => {
                    tracing::warn!(error = hwm::chain(&error), "a partition can not be looked at");
                    continue;
                }
            };
            let Some(mounted) = self.mounted.get(&node) else { continue };
            if Confined::open(mounted.path()).is_ok_and(|root| root.is_directory(Path::new(directory))) {
                return Ok(node);
            }
        }
        let scanned = if scanned.is_empty() { "it has none".into() } else { scanned.join(", ") };
        Err(Error::DeviceNotFound {
            message: format!("no partition of {} has a directory {directory}: {scanned}", root.name),
        })
    }

    /// What a disk holds, once it was claimed.
    fn places(&mut self, disk: &Disk) -> Result<Vec<Place>, Error> {
        if let Some(places) = self.known.get(&disk.name) {
            return Ok(places.clone());
        }
        let policy = Policy::detect(&self.cx.host, self.settings.allow.clone());
        let target = Target::claim(&self.cx.host, disk, &policy).map_err(|refusal| protected(&refusal))?;
        let table = target.table().map_err(|error| Error::BlockDevice { message: hwm::chain(&error) })?;
        let device = Device::open(target.device())
            .map_err(|error| Error::BlockDevice { message: hwm::chain(&error) })?;
        let mut places: Vec<Place> = table
            .partitions()
            .iter()
            .map(|partition| Place {
                number: partition.number,
                node: partition_path(&disk.name, partition.number),
                uuid: partition.uuid.clone(),
                name: partition.name.clone(),
                file_system: probe(&Region::new(&device, partition.start_byte, partition.size_byte)),
            })
            .collect();
        if places.is_empty() && table == Table::None {
            let (node, file_system) = (disk.name.clone(), probe(&device));
            places.push(Place { number: 0, node, uuid: String::new(), name: String::new(), file_system });
        }
        drop(device);
        disk::show_partitions(&self.cx.host, &disk.name, &table, disk::Patience::default())
            .map_err(|error| Error::BlockDevice { message: hwm::chain(&error) })?;
        self.known.insert(disk.name.clone(), places.clone());
        Ok(places)
    }

    fn mount_place(&mut self, place: &Place) -> Result<String, Error> {
        if self.mounted.contains_key(&place.node) {
            return Ok(place.node.clone());
        }
        let kind = place.file_system.as_ref().map_or("unknown content", |found| found.kind);
        if !MOUNTABLE.contains(&kind) {
            return Err(Error::BlockDevice {
                message: format!(
                    "{} holds {kind}; files can be injected into {}",
                    place.node,
                    MOUNTABLE.join(", ")
                ),
            });
        }
        let mounted = Mounted::temporary(&self.cx.host, Path::new(&place.node), kind, MountRequest::guarded)
            .map_err(|error| Error::other(format!("mounting {} as {kind}", place.node), error))?;
        self.mounted.insert(place.node.clone(), mounted);
        Ok(place.node.clone())
    }
}

/// A partition as people name it.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Node(String),
    Label(String),
    Uuid(String),
    PartitionLabel(String),
    PartitionUuid(String),
}

impl Name {
    /// A device path (links are followed), `LABEL=...` and its like as in fstab(5), or the place below `/dev/disk` where
    /// udev would have made a link.
    fn parse(cx: &Context, text: &str) -> Self {
        type Make = fn(String) -> Name;
        const WAYS: [(&str, &str, Make); 4] = [
            ("LABEL=", "/dev/disk/by-label/", Name::Label),
            ("UUID=", "/dev/disk/by-uuid/", Name::Uuid),
            ("PARTLABEL=", "/dev/disk/by-partlabel/", Name::PartitionLabel),
            ("PARTUUID=", "/dev/disk/by-partuuid/", Name::PartitionUuid),
        ];
        for (tag, directory, make) in WAYS {
            if let Some(name) = text.strip_prefix(tag).or_else(|| text.strip_prefix(directory)) {
                return make(name.trim_matches('"').replace("\\x20", " "));
            }
        }
        let resolved = std::fs::canonicalize(cx.host.path(text)).ok();
        let resolved = resolved.as_deref().and_then(Path::to_str).filter(|path| path.starts_with("/dev/"));
        Self::Node(resolved.unwrap_or(text).to_owned())
    }

    fn is(&self, place: &Place) -> bool {
        let file_system = place.file_system.as_ref();
        match self {
            Self::Node(node) => *node == place.node,
            Self::Label(label) => file_system.and_then(|found| found.label.as_ref()) == Some(label),
            Self::Uuid(uuid) => file_system
                .and_then(|found| found.uuid.as_ref())
                .is_some_and(|found| found.eq_ignore_ascii_case(uuid)),
            Self::PartitionLabel(name) => *name == place.name && !name.is_empty(),
            Self::PartitionUuid(uuid) => uuid.eq_ignore_ascii_case(&place.uuid) && !uuid.is_empty(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(node) => f.write_str(node),
            Self::Label(name) => write!(f, "LABEL={name}"),
            Self::Uuid(name) => write!(f, "UUID={name}"),
            Self::PartitionLabel(name) => write!(f, "PARTLABEL={name}"),
            Self::PartitionUuid(name) => write!(f, "PARTUUID={name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;

    #[test]
    fn partitions_go_by_every_name_that_mount_knows() {
        let cx = Context::new(Fixture::new().host(), events::Events::default());
        let place = Place {
            number: 2,
            node: "/dev/sda2".into(),
            uuid: "0a1b".into(),
            name: "root part".into(),
            file_system: Some(FileSystem {
                kind: "ext4",
                label: Some("root".into()),
                uuid: Some("c0de".into()),
            }),
        };
        for (text, is_it) in [
            ("/dev/sda2", true),
            ("/dev/sda", false),
            ("LABEL=root", true),
            ("/dev/disk/by-label/root", true),
            ("LABEL=ROOT", false),
            ("UUID=C0DE", true),
            ("UUID=0a1b", false),
            ("PARTUUID=0A1B", true),
            ("PARTUUID=", false),
            ("PARTLABEL=\"root part\"", true),
            ("/dev/disk/by-partlabel/root\\x20part", true),
            ("root", false),
        ] {
            assert_eq!(Name::parse(&cx, text).is(&place), is_it, "{text}");
        }
    }
}
