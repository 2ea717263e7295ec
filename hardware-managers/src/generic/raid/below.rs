//! What lies below an array that BIOS can not read: the disks, each of which gets a boot loader. Source: data plane page, 9.5.

use disk::layout::Role;
use disk::table::Table;
use disk::{Holder, Policy, md, partition_path};
use hwm::{Context, Error};

use super::{failed, wrapped};
use crate::generic::deploy::protected;
use crate::settings::Settings;

/// Size of a BIOS boot partition.
const SIZE: u64 = 2 << 20;

/// What a boot loader for BIOS needs to know of an array.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    /// The whole disks that it lies on: `/dev/sda`.
    pub(crate) disks: Vec<String>,
    /// Further device nodes that a boot loader's programs look at: the array's members, and the room that was made for it.
    pub(crate) nodes: Vec<String>,
    /// The UUIDs of all arrays of this machine.
    pub(crate) arrays: Vec<String>,
}

/// **Adds a BIOS boot partition to each disk of an array that has a GPT and none yet.** With an MBR a boot loader lies before the
/// first partition. Every disk is looked at before the first is changed.
///
/// # Errors
/// `ProtectedDevice` where a disk may not be written; `SoftwareRaid` where it has no room.
pub(crate) fn make_room(cx: &Context, settings: &Settings, array: &md::Array) -> Result<Below, Error> {
    let arrays = md::arrays(&cx.host).map_err(|error| wrapped(&error))?;
    let names: Vec<String> = array.holders(&cx.host);
    if let Some(whole) =
        names.iter().find(|name| array.members.contains(*name) || arrays.iter().any(|a| a.device == **name))
    {
        return Err(failed(format!(
            "{whole} is a member of {} as a whole, which leaves BIOS no room for a boot loader: make the array of partitions, as \
             create_configuration does",
            array.device
        )));
    }
    let policy = Policy::detect(&cx.host, settings.allow.clone());
    let mut claimed = Vec::new();
    for name in &names {
        let disk = disk::describe(&cx.host, &name.trim_start_matches("/dev/").replace('/', "!"));
        let holder = Holder::claim(&cx.host, &disk, &policy).map_err(|refusal| protected(&refusal))?;
        let table = holder.table().map_err(|error| wrapped(&error))?;
        if table.partitions().is_empty() {
            return Err(failed(format!("{name} has lost its partition table")));
        }
        claimed.push((holder, table));
    }
    let mut nodes = array.members.clone();
    for (index, (name, (holder, table))) in names.iter().zip(&claimed).enumerate() {
        let number = match table {
            Table::Mbr(_) | Table::None => continue,
            Table::Gpt(_) => match table.partitions().iter().find(|partition| partition.is_bios_boot()) {
                Some(existing) => existing.number,
                None => add(holder, index, settings)?,
            },
        };
        nodes.push(partition_path(name, number));
    }
    let arrays = arrays.into_iter().filter_map(|array| Some(array.superblock?.uuid.to_string())).collect();
    Ok(Below { disks: names, nodes, arrays })
}

fn add(holder: &Holder, index: usize, settings: &Settings) -> Result<u32, Error> {
    let patience = settings.partitioning.patience();
    holder
        .add_partition(Role::BiosBoot, &format!("bios-boot-part-{index}"), SIZE, patience)
        .map(|added| added.number)
        .map_err(|error| wrapped(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use disk::AllowList;

    /// `md0` on these members of `sda` and `sdb`, which have an MBR with one partition.
    fn machine(members: [&str; 2]) -> Fixture {
        let mut disk = vec![0; 1 << 20];
        disk[450] = 0xfd;
        disk[454] = 8; // start
        disk[458] = 8; // sectors
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut machine = Fixture::new().disk("sda", 8 << 30).disk("sdb", 8 << 30).disk("md0", 8 << 30);
        machine = machine
            .file("/sys/block/md0/md/level", "raid1\n")
            .file("/proc/self/mountinfo", "1 1 0:2 / / rw - rootfs rootfs rw\n");
        for (name, member) in ["sda", "sdb"].into_iter().zip(members) {
            machine = machine
                .bytes(&format!("/dev/{name}"), &disk)
                .directory(&format!("/sys/block/md0/slaves/{member}"))
                .file(&format!("/sys/block/{name}/{name}1/partition"), "1\n")
                .directory(&format!("/sys/block/{name}/{name}1/holders/md0"));
        }
        machine
    }

    fn room(machine: &Fixture, allow: &str) -> Result<Below, Error> {
        let cx = Context::new(machine.host(), events::Events::default());
        let settings = Settings { allow: Some(AllowList::parse(allow).unwrap()), ..Settings::default() };
        make_room(&cx, &settings, &md::arrays(&cx.host).unwrap()[0])
    }

    #[test]
    fn the_disks_below_must_be_permitted_not_the_array_alone() {
        let refused = room(&machine(["sda1", "sdb1"]), "md0");
        let Err(Error::ProtectedDevice { message }) = refused else { panic!("{refused:?}") };
        assert!(message.contains("/dev/sda") && message.contains("allow-list"), "{message}");
    }

    #[test]
    fn an_array_of_whole_disks_has_no_room() {
        let refused = room(&machine(["sda", "sdb"]), "sda,sdb,md0");
        let Err(Error::SoftwareRaid { message }) = refused else { panic!("{refused:?}") };
        assert!(message.contains("/dev/sda is a member of /dev/md0 as a whole"), "{message}");
    }
}
