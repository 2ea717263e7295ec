//! The image's own grub, run inside the image: for partition images, and on BIOS for whole-disk images inside a software array.
//! Source: data plane page, 5.3.
//!
//! **This runs programs of a tenant's image** beside the ramdisk's secrets, which is why it happens only where the conductor
//! enables it, and apart from everything but the image and its disk (`system`). Everything is mounted for as long as it takes
//! and unmounted whatever happens.

mod array;
mod assets;
mod dracut;
mod fstab;
mod system;

use disk::probe::probe;
use disk::table::{Partition, Table};
use disk::{Device, Region, Source, partition_path};
use hwm::{Context, Error};
use sys::{MountRequest, Mounted};

use self::array::is_disk_signature;
use self::system::System;
use super::raid::below::Below;
use crate::deployment::InstallBootloader;

/// Code in a boot sector, as far as upstream looks at it.
const BOOT_CODE: usize = 218;
/// What keeps grub's configuration from looking into other disks, where it may hang, and from writing to itself.
const CONFIGURE: [(&str, &str); 2] = [("GRUB_DISABLE_OS_PROBER", "true"), ("GRUB_SAVEDEFAULT", "true")];

/// What is to be made bootable.
pub(super) struct Job<'a> {
    pub cx: &'a Context,
    /// `/dev/sda`.
    pub device: &'a str,
    pub request: &'a InstallBootloader,
    /// How long to wait for partition nodes.
    pub patience: disk::Patience,
    /// Makes firmware boot entries for what the EFI system partition holds; false where it holds no boot loader.
    pub boot_entries: &'a dyn Fn() -> Result<bool, Error>,
    /// Where the device is an array that the firmware can not read: makes room on the disks below it, each of which gets grub.
    pub below: Option<&'a dyn Fn() -> Result<Below, Error>>,
}

/// A partition that matters, and what is on it.
#[derive(Clone, Debug)]
struct Part {
    node: String,
    /// As mount(2) calls it.
    kind: Option<&'static str>,
    /// What `/etc/fstab` calls it.
    key: String,
    /// UUID of the file system; empty where it has none.
    uuid: String,
}

/// The partitions that matter.
struct Parts {
    table: Table,
    /// What may be the root: the one that was named, else whatever can be mounted.
    roots: Vec<Part>,
    esp: Option<Part>,
    prep: Option<Part>,
}

impl Job<'_> {
    /// **Mounts the image and runs its grub**, which writes to the disk and to the image.
    pub(super) fn run(&self) -> Result<(), Error> {
        let Some(parts) = self.parts()? else {
            tracing::info!(device = self.device, "the image brings its own boot sector: nothing to install");
            return Ok(());
        };
        disk::show_partitions(&self.cx.host, self.device, &parts.table, self.patience)
            .map_err(|error| Error::other(format!("waiting for the partitions of {}", self.device), error))?;
        self.install(&parts)
    }

    /// What is to be worked on; `None` where there is nothing to do. Whoever has the disk open keeps the kernel from reading its
    /// table: nobody has, once this has returned.
    fn parts(&self) -> Result<Option<Parts>, Error> {
        let path = self.cx.host.path(self.device);
        let reading = |error| Error::other(format!("reading the partition table of {}", self.device), error);
        let device = Device::open(&path).map_err(reading)?;
        let table = Table::read_device(&path).map_err(reading)?;
        let find = |uuid: &Option<String>| {
            let uuid = uuid.as_deref().filter(|uuid| !uuid.is_empty());
            uuid.map(|uuid| self.find(&device, &table, uuid)).transpose()
        };
        if self.below.is_some() {
            // Neither is of use inside an array, and no boot sector in there is ever run.
            let named = self.request.root_uuid.clone().filter(|uuid| !is_disk_signature(uuid));
            let roots = match find(&named)? {
                Some(root) => vec![root],
                None => self.mountable_parts(&device, &table),
            };
            return Ok(Some(Parts { table, roots, esp: None, prep: None }));
        }
        let root = find(&self.request.root_uuid)?.ok_or_else(|| Error::DeviceNotFound {
            message: format!("no root partition was named for {}", self.device),
        })?;
        let (esp, prep) =
            (find(&self.request.efi_system_part_uuid)?, find(&self.request.prep_boot_part_uuid)?);
        if esp.is_none() && prep.is_none() && has_boot_sector(&device, &table) {
            return Ok(None);
        }
        Ok(Some(Parts { table, roots: vec![root], esp, prep }))
    }

    fn install(&self, parts: &Parts) -> Result<(), Error> {
        let Parts { table, roots, esp, prep } = parts;
        let root = self.root(roots)?;
        let kind = mount_kind(root)?;
        let below = self.below.map(|make_room| make_room()).transpose()?;
        let partitions = table.partitions().iter().map(|found| partition_path(self.device, found.number));
        let mut shown: Vec<String> = std::iter::once(self.device.to_owned()).chain(partitions).collect();
        if let Some(Below { disks, nodes, .. }) = &below {
            shown.extend(disks.iter().chain(nodes).cloned());
        }
        let mut system = System::mount(&self.cx.host, &root.node, kind, &shown)?;
        let result = system.name_by_uuid(&root.node, &root.uuid).and_then(|()| match (esp, &below) {
            (_, Some(below)) => self.install_below(&mut system, table, below).map(|()| Vec::new()),
            (Some(esp), None) => self.install_efi(&mut system, esp),
            (None, None) => {
                let place = prep.as_ref().map_or(self.device, |prep| &prep.node);
                install_bios(&system, &[place], &CONFIGURE).map(|()| Vec::new())
            }
        });
        let unmounted = system.unmount();
        self.cx.host.kernel().sync();
        let complaints = result?;
        unmounted?;
        match esp {
            Some(_) => self.need_boot_entries(&complaints),
            None => Ok(()),
        }
    }

    /// The partition with this PARTUUID or label, or with a file system of this UUID.
    fn find(&self, device: &Device, table: &Table, wanted: &str) -> Result<Part, Error> {
        let same = |found: &str| found.eq_ignore_ascii_case(wanted);
        let part = |partition: &Partition| {
            let found = probe(&Region::new(device, partition.start_byte, partition.size_byte));
            let uuid = found.as_ref().and_then(|found| found.uuid.clone()).unwrap_or_default();
            let label = found.as_ref().and_then(|found| found.label.as_deref()).unwrap_or_default();
            let key = match () {
                () if same(&uuid) || same(label) => format!("UUID={uuid}"),
                () if same(&partition.uuid) => format!("PARTUUID={}", partition.uuid),
                () => return None,
            };
            let node = partition_path(self.device, partition.number);
            Some(Part { node, kind: found.and_then(|found| mountable(found.kind)), key, uuid })
        };
        table.partitions().iter().find_map(part).ok_or_else(|| Error::DeviceNotFound {
            message: format!("no partition of {} has the UUID {wanted}", self.device),
        })
    }

    /// Puts a boot loader onto the EFI system partition: the one that the image carries, else what its grub makes. Gives what
    /// grub had to complain of.
    fn install_efi(&self, system: &mut System, esp: &Part) -> Result<Vec<String>, Error> {
        let host = &self.cx.host;
        let mut complaints = Vec::new();
        if let Some(carried) = system.existing_directory("boot/efi/EFI") {
            tracing::info!(esp = esp.node, "copying the boot loaders that the image carries");
            if let Some(grub) = Grub::find(system) {
                grub.configure(system, &CONFIGURE)?;
            }
            let mounted =
                Mounted::temporary(host, std::path::Path::new(&esp.node), "vfat", |request| request)
                    .map_err(|error| {
                        Error::other(format!("mounting the EFI system partition {}", esp.node), error)
                    })?;
            let grub = system.existing_directory("boot/grub2");
            assets::copy(&carried, &mounted.path().join("EFI"), grub.as_deref())
                .map_err(|error| Error::other("copying the image's boot loaders", error))?;
            mounted.unmount().map_err(|error| Error::other(format!("unmounting {}", esp.node), error))?;
        }
        if system.existing_directory("boot/efi/EFI").is_none() || !self.makes_boot_entries()? {
            let grub = Grub::find(system).ok_or_else(no_grub)?;
            let source = host.path(&esp.node);
            system.mount_at("boot/efi", |target| MountRequest::new(source, target, "vfat"))?;
            // Either may fail where the other does it: without variables of the firmware, or on systems that refuse one.
            for options in [&[][..], &["--removable"]] {
                if let Err(error) = grub.install(system, options) {
                    let error = hwm::chain(&error);
                    tracing::warn!(error, ?options, "the image's grub did not install itself");
                    complaints.push(error);
                }
            }
            let configured = grub.configure(system, &CONFIGURE);
            system.unmount_last()?;
            configured?;
        }
        if let Some(etc) = system.existing_directory("etc")
            && let Err(error) = fstab::add_esp(&etc, &esp.key)
        {
            tracing::warn!(%error, "the image's /etc/fstab did not get the EFI system partition");
        }
        Ok(complaints)
    }

    /// Whether the EFI system partition holds a boot loader now, to which boot entries were made.
    fn makes_boot_entries(&self) -> Result<bool, Error> {
        // What was written through the partition's node must be seen through the disk's.
        if let Err(error) = self.cx.host.kernel().flush_buffers(&self.cx.host.path(self.device)) {
            tracing::debug!(%error, "buffers not flushed");
        }
        (self.boot_entries)()
    }

    fn need_boot_entries(&self, complaints: &[String]) -> Result<(), Error> {
        if self.makes_boot_entries()? {
            return Ok(());
        }
        let reason = match complaints {
            [] => "does the image hold grub for UEFI (grub-efi)?".to_owned(),
            complaints => complaints.join("; "),
        };
        Err(Error::InvalidImage {
            message: format!(
                "the image's grub left no boot loader on the EFI system partition of {}: {reason}",
                self.device
            ),
        })
    }
}

/// Puts grub onto disks, or onto a POWER machine's boot partition.
fn install_bios(system: &System, devices: &[&str], variables: &[(&str, &str)]) -> Result<(), Error> {
    let grub = Grub::find(system).ok_or_else(no_grub)?;
    for device in devices {
        grub.install(system, &[device])
            .map_err(|error| Error::other(format!("installing the image's grub on {device}"), error))?;
    }
    grub.configure(system, variables)
}

/// The image's grub. Some systems call it `grub2`.
struct Grub {
    prefix: &'static str,
    install: String,
}

impl Grub {
    const NAMES: [&str; 2] = ["grub2", "grub"];

    fn find(system: &System) -> Option<Self> {
        Self::NAMES.into_iter().find_map(|prefix| {
            let install = system.program(&format!("{prefix}-install"))?;
            Some(Self { prefix, install })
        })
    }

    fn install(&self, system: &System, arguments: &[&str]) -> Result<(), sys::RunError> {
        system.run(&[&[self.install.as_str()], arguments].concat(), &[])
    }

    /// Makes the menu.
    fn configure(&self, system: &System, variables: &[(&str, &str)]) -> Result<(), Error> {
        let name = format!("{}-mkconfig", self.prefix);
        let program = system.program(&name).ok_or_else(|| Error::InvalidImage {
            message: format!("the image has {} but no {name}", self.install),
        })?;
        let menu = format!("/boot/{}/grub.cfg", self.prefix);
        system
            .run(&[&program, "-o", &menu], variables)
            .map_err(|error| Error::other("making the menu of the image's grub", error))
    }
}

fn no_grub() -> Error {
    Error::InvalidImage {
        message: "the image has neither grub-install nor grub2-install: put grub into the image, or deploy a whole-disk image"
            .into(),
    }
}

fn mount_kind(root: &Part) -> Result<&'static str, Error> {
    root.kind.ok_or_else(|| Error::InvalidImage {
        message: format!(
            "{} holds no file system that can be mounted: is the image a root file system?",
            root.node
        ),
    })
}

/// The name under which the kernel mounts what was recognised.
fn mountable(kind: &str) -> Option<&'static str> {
    match kind {
        // One driver for all three.
        "ext2" | "ext3" | "ext4" => Some("ext4"),
        "xfs" => Some("xfs"),
        "btrfs" => Some("btrfs"),
        "vfat" => Some("vfat"),
        _ => None,
    }
}

/// Whether the disk, or its active partition, starts with code of a boot loader.
fn has_boot_sector(device: &Device, table: &Table) -> bool {
    let active = table.partitions().iter().find(|partition| partition.bootable);
    let has_code = |at: u64| {
        device.bytes(at, 512).is_ok_and(|sector| {
            // A jump, or code that starts by turning interrupts off.
            let starts = matches!(sector.first(), Some(0xeb | 0xe9 | 0xfa | 0x31 | 0x33));
            let has_mark = sector.get(510..) == Some(&[0x55, 0xaa]);
            starts && has_mark && sector.iter().take(BOOT_CODE).any(|byte| *byte != 0)
        })
    };
    active.is_some_and(|active| has_code(0) || has_code(active.start_byte))
}

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod tests;
