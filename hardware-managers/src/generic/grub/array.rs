//! An image inside a software array, on a machine whose BIOS can not read it: which partition is the root, and grub onto each disk below.
//! Source: data plane page, 5.3 and 9.5.

use std::path::Path;

use disk::probe::probe;
use disk::table::{Partition, Table};
use disk::{Device, Region, partition_path};
use hwm::Error;
use sys::{MountRequest, Mounted};

use super::system::{System, program};
use super::{Grub, Job, Part, dracut, fstab, install_bios, mount_kind, mountable};
use crate::generic::raid::below::Below;

/// grub can not write to an array: to remember what was started would be an error at every start, and ten seconds for it to be read.
const CONFIGURE_IN_ARRAY: [(&str, &str); 2] =
    [("GRUB_DISABLE_OS_PROBER", "true"), ("GRUB_SAVEDEFAULT", "false")];

impl Job<'_> {
    /// Of what may be the root, the one that is. An image in an array may hold several systems or none that can be made bootable,
    /// and its disks must not be changed for nothing: so it is looked for the image's grub.
    pub(super) fn root<'p>(&self, roots: &'p [Part]) -> Result<&'p Part, Error> {
        if let ([root], None) = (roots, self.below) {
            return Ok(root);
        }
        let mut found = Vec::new();
        for part in roots {
            let (node, kind) = (Path::new(&part.node), mount_kind(part)?);
            let mounted =
                Mounted::temporary(&self.cx.host, node, kind, |request| request.read_only().guarded());
            let mounted = match mounted {
                Ok(mounted) => mounted,
                Err(error) if roots.len() > 1 => {
                    tracing::warn!(partition = part.node, %error, "not mounted, so not looked at for grub");
                    continue;
                }
                Err(error) => {
                    return Err(Error::other(format!("mounting {} to look for grub", part.node), error));
                }
            };
            let has = |prefix: &&str| program(mounted.path(), &format!("{prefix}-install")).is_some();
            if Grub::NAMES.iter().any(has) {
                found.push(part);
            }
            mounted.unmount().map_err(|error| Error::other(format!("unmounting {}", part.node), error))?;
        }
        match found[..] {
            [root] => Ok(root),
            [] => Err(no_grub_in(self.device, roots)),
            _ => Err(Error::InvalidImage {
                message: format!(
                    "several partitions of {} hold a system with grub ({}): say which one is the root, by the property rootfs_uuid of \
                     the image",
                    self.device,
                    nodes(found)
                ),
            }),
        }
    }

    /// The partitions that may hold a system.
    pub(super) fn mountable_parts(&self, device: &Device, table: &Table) -> Vec<Part> {
        let part = |partition: &Partition| {
            let found = probe(&Region::new(device, partition.start_byte, partition.size_byte))?;
            let kind = mountable(found.kind).filter(|kind| *kind != "vfat")?;
            let uuid = found.uuid.unwrap_or_default();
            let node = partition_path(self.device, partition.number);
            Some(Part { node, kind: Some(kind), key: format!("UUID={uuid}"), uuid })
        };
        table.partitions().iter().filter_map(part).collect()
    }

    /// Puts grub onto each disk below an array: any of them may fail, or be the one that the firmware starts.
    pub(super) fn install_below(
        &self,
        system: &mut System,
        table: &Table,
        below: &Below,
    ) -> Result<(), Error> {
        self.mount_boot(system, table)?;
        if system.program("dracut").is_some() {
            let defaults = system.directory("etc/default")?;
            dracut::add(&defaults, &below.arrays)
                .map_err(|error| Error::other("adding the arrays to the image's kernel parameters", error))?;
        }
        let disks: Vec<&str> = below.disks.iter().map(String::as_str).collect();
        install_bios(system, &disks, &CONFIGURE_IN_ARRAY)
    }

    /// A whole-disk image may have its kernels on a partition of their own, which only its `/etc/fstab` knows.
    fn mount_boot(&self, system: &mut System, table: &Table) -> Result<(), Error> {
        let Some(etc) = system.existing_directory("etc") else { return Ok(()) };
        let source = fstab::source_of(&etc, "/boot")
            .map_err(|error| Error::other("reading the image's /etc/fstab", error))?;
        let Some(source) = source else { return Ok(()) };
        let names = ["UUID=", "LABEL=", "PARTUUID="];
        let name =
            names.iter().find_map(|name| source.strip_prefix(name)).ok_or_else(|| Error::InvalidImage {
                message: format!(
                    "the image's /etc/fstab mounts {source} on /boot: name it by UUID, LABEL or PARTUUID"
                ),
            })?;
        let device = Device::open(&self.cx.host.path(self.device))
            .map_err(|error| Error::other(format!("reading {}", self.device), error))?;
        let boot = self.find(&device, table, name.trim_matches('"'))?;
        let kind = mount_kind(&boot)?;
        let source = self.cx.host.path(&boot.node);
        system.mount_at("boot", |target| MountRequest::new(source, target, kind).guarded())
    }
}

fn no_grub_in(array: &str, roots: &[Part]) -> Error {
    let looked_at = if roots.is_empty() { "none can be mounted".into() } else { nodes(roots) };
    Error::InvalidImage {
        message: format!(
            "no partition of {array} ({looked_at}) holds a system with grub-install or grub2-install: put grub into the image, or start \
             the node in UEFI mode"
        ),
    }
}

fn nodes<'p>(parts: impl IntoIterator<Item = &'p Part>) -> String {
    parts.into_iter().map(|part| part.node.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether this is how the conductor names a whole-disk image: by the signature of its MBR, or a GPT's lack of one.
pub(super) fn is_disk_signature(uuid: &str) -> bool {
    uuid.strip_prefix("0x")
        .is_some_and(|digits| digits.len() == 8 && digits.chars().all(|c| c.is_ascii_hexdigit()))
}
