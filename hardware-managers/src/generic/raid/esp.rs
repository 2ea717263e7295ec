//! What the firmware boots from, where the system lies inside an array that it can not read: an EFI system partition on each
//! of the array's disks, mirrored. Source: data plane page, 9.5.

use std::fs;
use std::path::Path;

use disk::fat::Fat;
use disk::layout::{Label, Planned, Role};
use disk::md::ESP_VOLUME;
use disk::table::{Partition, Table};
use disk::{Device, Holder, Policy, Region, Target, md, partition_path};
use hwm::{Context, Error};
use sys::Mounted;

use super::create::complete;
use super::{array_of, array_target, failed, mdadm, wrapped};
use crate::generic::deploy::announce;
use crate::settings::Settings;

/// Size of each partition.
const SIZE: u64 = 550 << 20;
/// How the file system is called where the image's has no label.
const LABEL: &str = "esp";

/// The mirrored EFI system partition.
pub(crate) struct MirroredEsp {
    /// The array: `/dev/md127`.
    pub(crate) device: String,
    /// Its members: the table of each disk, and the partition in it.
    pub(crate) members: Vec<(Table, Partition)>,
}

/// **Puts an EFI system partition on each disk of an array** and moves there what the image has in its own; one that an earlier
/// deployment made is used again.
///
/// The file system gets the UUID and the label of the image's, so that the deployed system mounts it as it would have
/// mounted that; that of the image is wiped.
pub(crate) fn mirror(
    cx: &Context,
    settings: &Settings,
    array: &md::Array,
    source: &Partition,
) -> Result<MirroredEsp, Error> {
    let holders = array.holders(&cx.host);
    let existing = existing(cx, &holders)?;
    let Some(identity) = Identity::read(cx, array, source)? else {
        // Done already: the image's own is gone.
        let esp = existing.ok_or_else(|| {
            failed(format!("the EFI system partition of {} holds no FAT file system", array.device))
        })?;
        return describe(cx, esp);
    };
    let esp = match existing {
        Some(esp) => esp,
        None => make(cx, settings, &holders)?,
    };
    fill(cx, settings, array, source, &esp, &identity)?;
    describe(cx, esp)
}

/// The mirror that an earlier deployment made on these disks.
fn existing(cx: &Context, holders: &[String]) -> Result<Option<md::Array>, Error> {
    let arrays = md::arrays(&cx.host).map_err(|error| wrapped(&error))?;
    Ok(arrays.into_iter().find(|array| {
        array.level.as_deref() == Some("raid1")
            && array.volume() == Some(ESP_VOLUME)
            && array.holders(&cx.host) == holders
    }))
}

/// What tells the image's file system from others.
struct Identity {
    serial: u32,
    label: String,
}

impl Identity {
    /// `None` where there is no FAT any more.
    fn read(cx: &Context, array: &md::Array, source: &Partition) -> Result<Option<Self>, Error> {
        let device = Device::open(&cx.host.path(&array.device)).map_err(|error| wrapped(&error))?;
        let region = Region::new(&device, source.start_byte, source.size_byte);
        let Ok(fat) = Fat::open(&region) else { return Ok(None) };
        let serial = u32::from_str_radix(&fat.serial().replace('-', ""), 16)
            .map_err(|_| failed(format!("the file system's UUID `{}` is none of FAT", fat.serial())))?;
        let label = fat.volume_label().map_err(|error| wrapped(&error))?;
        Ok(Some(Self { serial, label: label.unwrap_or_else(|| LABEL.into()) }))
    }
}

/// **Adds a partition to each disk** and makes an array of them, with its metadata at the end: each member alone looks like the
/// file system.
fn make(cx: &Context, settings: &Settings, holders: &[String]) -> Result<md::Array, Error> {
    let policy = Policy::detect(&cx.host, settings.allow.clone());
    let mut claimed = Vec::new();
    for name in holders {
        let disk = disk::describe(&cx.host, &name.trim_start_matches("/dev/").replace('/', "!"));
        claimed.push(
            Holder::claim(&cx.host, &disk, &policy)
                .map_err(|refusal| crate::generic::deploy::protected(&refusal))?,
        );
    }
    let mut members = Vec::new();
    for (index, (holder, name)) in claimed.iter().zip(holders).enumerate() {
        let added = holder
            .add_partition(Role::Esp, &format!("uefi-holder-{index}"), SIZE, settings.partitioning.patience())
            .map_err(|error| wrapped(&error))?;
        members.push(partition_path(name, added.number));
    }
    let device = mdadm::free_device(&cx.host).ok_or_else(|| failed("no number is left for another array"))?;
    mdadm::create(cx, &device, ESP_VOLUME, "1", "1.0", &members)?;
    complete(cx, &device, &members)?;
    array_of(cx, &device)?.ok_or_else(|| failed(format!("{device} was made and is not there")))
}

/// **Formats the mirror**, copies the image's files into it, and wipes the image's own file system.
fn fill(
    cx: &Context,
    settings: &Settings,
    array: &md::Array,
    source: &Partition,
    esp: &md::Array,
    identity: &Identity,
) -> Result<(), Error> {
    let target =
        array_target(cx, esp)?.ok_or_else(|| failed(format!("{} can not be written", esp.device)))?;
    announce(cx, &target, "mirroring an EFI system partition");
    let whole = Planned::new(Role::Esp, Label::Gpt, 1, 0, target.size_bytes());
    disk::format::make_esp_like(&target, &whole, &identity.label, identity.serial)
        .map_err(|error| wrapped(&error))?;
    drop(target);
    let table = Table::read_device(&cx.host.path(&array.device)).map_err(|error| wrapped(&error))?;
    disk::show_partitions(&cx.host, &array.device, &table, settings.partitioning.patience())
        .map_err(|error| wrapped(&error))?;
    let from = partition_path(&array.device, source.number);
    let mounting = |device: &str| {
        let action = format!("mounting the EFI system partition {device}");
        move |error| Error::other(action, error)
    };
    let files =
        Mounted::temporary(&cx.host, Path::new(&from), "vfat", |request| request.read_only().guarded())
            .map_err(mounting(&from))?;
    let copy = Mounted::temporary(&cx.host, Path::new(&esp.device), "vfat", |request| request.guarded())
        .map_err(mounting(&esp.device))?;
    let copied = copy_tree(files.path(), copy.path());
    let unmounting = |error| Error::other("unmounting an EFI system partition", error);
    files.unmount().map_err(unmounting)?;
    copy.unmount().map_err(unmounting)?;
    copied.map_err(|error| failed(format!("copying {from} to {}: {error}", esp.device)))?;
    let target =
        array_target(cx, array)?.ok_or_else(|| failed(format!("{} can not be written", array.device)))?;
    wipe(&target, source)
}

/// The file system's UUID must be there only once.
fn wipe(target: &Target, source: &Partition) -> Result<(), Error> {
    disk::wipe_parts(target, &[(source.start_byte, source.size_byte)]).map_err(|error| wrapped(&error))
}

/// Folders and files with their contents; FAT knows no more.
fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            match fs::create_dir(&place) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                _ => copy_tree(&entry.path(), &place)?,
            }
        } else {
            fs::copy(entry.path(), &place)?;
        }
    }
    Ok(())
}

fn describe(cx: &Context, esp: md::Array) -> Result<MirroredEsp, Error> {
    let mut members = Vec::new();
    for member in &esp.members {
        let disk = md::whole_disk(&cx.host, member);
        let number = md::partition_number(&cx.host, member);
        let (Some(disk), Some(number)) = (disk, number) else {
            return Err(failed(format!(
                "{member} is no partition of a disk: the firmware can not boot from it"
            )));
        };
        let table = Table::read_device(&cx.host.path(&disk)).map_err(|error| wrapped(&error))?;
        let found = table.partitions().iter().find(|partition| partition.number == number).cloned();
        members
            .push((table, found.ok_or_else(|| failed(format!("{member} is not in the table of {disk}")))?));
    }
    Ok(MirroredEsp { device: esp.device, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_copied_with_all_that_is_in_them_and_again_over_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("EFI/debian")).unwrap();
        fs::create_dir(&to).unwrap();
        for content in ["old", "newer"] {
            fs::write(from.join("EFI/debian/grub.cfg"), content).unwrap();
            fs::write(from.join("startup.nsh"), "x").unwrap();
            copy_tree(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(to.join("EFI/debian/grub.cfg")).unwrap(), content);
        }
        assert!(to.join("startup.nsh").exists());
    }
}
