//! Which disks each array takes, and where its members lie on them. Pure.
//!
//! Source: data plane page, 9.3. The first member starts behind room for what the firmware boots from; the sizes are
//! positions on the disk, so the first array is smaller by that room.

use disk::layout::{Label, Layout, Planned, Role};
use hwm::Error;
use wire::Disk;

use super::config::{Level, LogicalDisk, Size};
use super::failed;
use crate::generic::partition::boot_mode::BootMode;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Left free at the end of each disk: the copy of a GPT, and what tools align to.
const TAIL: u64 = MIB;

/// A member of an array: a partition that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// `/dev/sda`
    pub(super) disk: String,
    pub(super) partition: u32,
}

/// An array that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewArray {
    /// Its place in the order of making.
    pub(super) index: usize,
    /// The name in its superblocks.
    pub(super) name: String,
    pub(super) level: Level,
    pub(super) members: Vec<Member>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// The new partition table of each disk, in the order of the disks.
    pub(super) tables: Vec<(Disk, Layout)>,
    pub(super) arrays: Vec<NewArray>,
}

/// The room before the first member, in bytes.
fn reserved(mode: BootMode, label: Label) -> u64 {
    match (mode, label) {
        // An EFI system partition of 550 MiB behind the table.
        (BootMode::Uefi, _) => 551 * MIB,
        // A BIOS boot partition.
        (BootMode::Bios, Label::Gpt) => 8 * MIB,
        (BootMode::Bios, Label::Mbr) => MIB,
    }
}

impl Plan {
    /// Chooses among `disks`, in their order, and lays the arrays out. `wanted` carries the index of each array.
    ///
    /// # Errors
    /// `SoftwareRaid` with all that does not fit.
    pub(super) fn make(
        wanted: &[(usize, LogicalDisk)],
        disks: &[Disk],
        mode: BootMode,
        label: Label,
    ) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let mut tables: Vec<(Disk, Layout)> = Vec::new();
        let mut arrays = Vec::new();
        for (index, logical) in wanted {
            let name = logical.volume.clone().unwrap_or_else(|| format!("md{index}"));
            let chosen = match choose(logical, disks) {
                Ok(chosen) => chosen,
                Err(problem) => {
                    problems.push(format!("volume {name}: {problem}"));
                    continue;
                }
            };
            if chosen.len() < logical.level.fewest_members() {
                problems.push(format!(
                    "volume {name}: RAID {} needs {} disks, and there are {}",
                    logical.level.argument(),
                    logical.level.fewest_members(),
                    chosen.len()
                ));
            }
            let mut members = Vec::new();
            for disk in chosen {
                let Some(layout) = layout_of(&mut tables, disk, label) else { continue };
                match place(layout, disk, logical.size, mode) {
                    Ok(planned) => {
                        members.push(Member { disk: disk.name.clone(), partition: planned.number });
                        layout.partitions.push(planned);
                    }
                    Err(problem) => problems.push(format!("volume {name}: {problem}")),
                }
            }
            arrays.push(NewArray { index: *index, name, level: logical.level, members });
        }
        if problems.is_empty() {
            Ok(Self { tables, arrays })
        } else {
            Err(failed(format!("the RAID configuration does not fit this machine: {}", problems.join("; "))))
        }
    }
}

/// For each hint the first disk that satisfies it and has no part in this array yet; without hints all.
fn choose<'d>(logical: &LogicalDisk, disks: &'d [Disk]) -> Result<Vec<&'d Disk>, String> {
    let Some(hints) = &logical.physical_disks else { return Ok(disks.iter().collect()) };
    let mut chosen: Vec<&Disk> = Vec::new();
    for hint in hints {
        let is_free = |disk: &&Disk| chosen.iter().all(|taken| taken.name != disk.name) && hint.matches(disk);
        let Some(disk) = disks.iter().find(is_free) else {
            let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
            return Err(format!("no disk that is free satisfies {hint} (there are {})", names.join(", ")));
        };
        chosen.push(disk);
    }
    Ok(chosen)
}

/// The layout of a disk, which is empty where it has no part in an array yet.
fn layout_of<'t>(tables: &'t mut Vec<(Disk, Layout)>, disk: &Disk, label: Label) -> Option<&'t mut Layout> {
    if tables.iter().all(|(known, _)| known.name != disk.name) {
        tables.push((disk.clone(), Layout { label, partitions: Vec::new() }));
    }
    tables.iter_mut().find(|(known, _)| known.name == disk.name).map(|(_, layout)| layout)
}

/// Where the next member lies on a disk.
fn place(layout: &Layout, disk: &Disk, size: Size, mode: BootMode) -> Result<Planned, String> {
    let last = layout.partitions.last();
    let start = last.map_or_else(|| reserved(mode, layout.label), Planned::end_byte);
    let end_of_disk = disk.size.saturating_sub(TAIL) / MIB * MIB;
    let end = match size {
        // From the start of the disk, where it is the first; else from the end of the one before.
        Size::Gib(gib) => {
            gib.checked_mul(GIB).and_then(|bytes| bytes.checked_add(last.map_or(0, Planned::end_byte)))
        }
        Size::Max => Some(end_of_disk),
    };
    let end = end.filter(|end| *end <= end_of_disk && *end > start).ok_or_else(|| {
        format!("{} of {} MiB has no room for it from {} MiB on", disk.name, disk.size / MIB, start / MIB)
    })?;
    let sector = u64::from(disk.logical_sectors.unwrap_or(512)).max(512);
    if layout.label == Label::Mbr && end / sector > u64::from(u32::MAX) {
        return Err(format!(
            "{} is larger than an MBR can address: set the capability disk_label to gpt",
            disk.name
        ));
    }
    let number = u32::try_from(layout.partitions.len()).unwrap_or(u32::MAX).saturating_add(1);
    Ok(Planned::new(Role::ArrayMember, layout.label, number, start, end - start))
}

#[cfg(test)]
mod tests {
    use super::super::config;
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn disk(name: &str, gib: u64) -> Disk {
        let value =
            json!({"name": format!("/dev/{name}"), "size": gib * GIB, "rotational": false, "serial": name});
        serde_json::from_value(value).unwrap()
    }

    fn plan(disks: &[Disk], logical: Value, mode: BootMode, label: Label) -> Result<Plan, Error> {
        let config = json!({"logical_disks": logical});
        let wanted = config::parse(&config, &BTreeSet::new())?.unwrap();
        let wanted: Vec<_> = wanted.into_iter().enumerate().collect();
        Plan::make(&wanted, disks, mode, label)
    }

    fn one(size: Value) -> Value {
        json!({"controller": "software", "raid_level": "1", "size_gb": size})
    }

    fn two(level: &str, size: Value) -> Value {
        json!({"controller": "software", "raid_level": level, "size_gb": size, "volume_name": "data"})
    }

    /// Start and end of each member in MiB.
    fn places(layout: &Layout) -> Vec<(u64, u64)> {
        layout.partitions.iter().map(|part| (part.start_byte / MIB, part.end_byte() / MIB)).collect()
    }

    #[test]
    fn boundaries_are_those_of_upstream() {
        let disks = [disk("sda", 400), disk("sdb", 400)];
        let end = 400 * 1024 - 1;
        use BootMode::{Bios, Uefi};
        for (logical, mode, label, expected) in [
            (json!([one(json!(100))]), Uefi, Label::Gpt, vec![(551, 102_400)]),
            (json!([one(json!("MAX"))]), Uefi, Label::Gpt, vec![(551, end)]),
            (
                json!([one(json!(100)), two("0", json!(100))]),
                Uefi,
                Label::Gpt,
                vec![(551, 102_400), (102_400, 204_800)],
            ),
            (
                json!([one(json!("MAX")), two("0", json!(200))]),
                Uefi,
                Label::Gpt,
                vec![(551, 204_800), (204_800, end)],
            ),
            (json!([one(json!(100))]), Bios, Label::Gpt, vec![(8, 102_400)]),
            (json!([one(json!(100))]), Bios, Label::Mbr, vec![(1, 102_400)]),
        ] {
            let plan = plan(&disks, logical.clone(), mode, label).unwrap();
            assert_eq!(plan.tables.len(), 2);
            for (_, layout) in &plan.tables {
                assert_eq!((places(layout), layout.label), (expected.clone(), label), "{logical}");
            }
        }
    }

    #[test]
    fn members_are_counted_for_each_disk_and_names_are_given() {
        let disks = [disk("sda", 100), disk("sdb", 100), disk("nvme0n1", 100)];
        let mirror = json!({"controller": "software", "raid_level": "1", "size_gb": 50,
                            "physical_disks": [{"name": "/dev/nvme0n1"}, {"name": "/dev/sda"}]});
        let plan = plan(&disks, json!([mirror, two("0", json!("MAX"))]), BootMode::Uefi, Label::Gpt).unwrap();
        let members = |array: &NewArray| -> Vec<(String, u32)> {
            array.members.iter().map(|member| (member.disk.clone(), member.partition)).collect()
        };
        let name = |name: &str, number| (format!("/dev/{name}"), number);
        assert_eq!(members(&plan.arrays[0]), [name("nvme0n1", 1), name("sda", 1)]);
        assert_eq!(members(&plan.arrays[1]), [name("sda", 2), name("sdb", 1), name("nvme0n1", 2)]);
        assert_eq!((plan.arrays[0].name.as_str(), plan.arrays[1].name.as_str()), ("md0", "data"));
        assert_eq!(places(&plan.tables[2].1), [(551, 100 * 1024 - 1)], "sdb has no part in the first array");
    }

    #[test]
    fn a_hint_takes_the_first_disk_that_has_no_part_yet() {
        let disks = [disk("sda", 100), disk("sdb", 100), disk("sdc", 100)];
        let large = json!({"size": ">= 50"});
        let with = |hints: Value| json!([{"controller": "software", "raid_level": "1", "size_gb": "MAX", "physical_disks": hints}]);
        let plan_of = |hints| plan(&disks, with(hints), BootMode::Bios, Label::Mbr);
        let made = plan_of(json!([large, large])).unwrap();
        let names: Vec<_> = made.arrays[0].members.iter().map(|member| member.disk.as_str()).collect();
        assert_eq!(names, ["/dev/sda", "/dev/sdb"]);
        let error = plan_of(json!([{"name": "/dev/sda"}, {"name": "/dev/sda"}])).unwrap_err();
        assert!(matches!(error, Error::SoftwareRaid { .. }));
        assert!(error.to_string().contains("/dev/sda, /dev/sdb, /dev/sdc"), "{error}");
    }

    #[test]
    fn all_that_does_not_fit_is_in_one_error() {
        let disks = [disk("sda", 100), disk("sdb", 10)];
        let text = plan(&disks, json!([one(json!(50)), two("5", json!("MAX"))]), BootMode::Uefi, Label::Gpt)
            .unwrap_err()
            .to_string();
        for words in
            ["volume md0: /dev/sdb of 10240 MiB", "volume data: RAID 5 needs 3 disks, and there are 2"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        let huge = [disk("sda", 4096), disk("sdb", 4096)];
        let text =
            plan(&huge, json!([one(json!("MAX"))]), BootMode::Bios, Label::Mbr).unwrap_err().to_string();
        assert!(text.contains("disk_label"), "{text}");
        assert!(plan(&[disk("sda", 100)], json!([one(json!("MAX"))]), BootMode::Uefi, Label::Gpt).is_err());
    }
}
