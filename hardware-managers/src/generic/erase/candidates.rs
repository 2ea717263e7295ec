//! Which disks an erase step works on. Every one is checked before the first is touched.

use disk::probe::FileSystem;
use disk::table::PartitionType;
use disk::{Contents, Policy, Refusal, Target};
use events::EventKind;
use hwm::{Context, Error};
use wire::Disk;

use super::options::EraseOptions;
use crate::generic::deploy::protected;
use crate::generic::root_disk::{list_patiently, skip_list};
use crate::settings::Settings;

/// What becomes of a disk that can only be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOnly {
    /// It is left alone.
    Leave,
    /// The step fails, unless the conductor says that it be left alone.
    Fail,
}

/// The disks to erase, and the names of those that are passed over as upstream passes over them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) targets: Vec<Target>,
    pub(super) passed_over: Vec<String>,
}

/// Claims every disk that is to be erased, in the order of the list.
///
/// # Errors
/// `ProtectedDevice` when a disk is in use or holds a file system that other machines share; `BlockDeviceErase` when one
/// can only be read and that is not permitted.
pub(super) fn collect(
    cx: &Context,
    settings: &Settings,
    options: &EraseOptions,
    read_only: ReadOnly,
) -> Result<Candidates, Error> {
    let skip = skip_list(cx)?;
    let disks = list_patiently(cx, settings)?;
    if disks.is_empty() {
        tracing::warn!("there is no disk to erase");
    }
    let policy = Policy::detect(&cx.host, settings.allow.clone());
    let several = disk::paths(&cx.host, &disks);
    let kept = disk::kept(&cx.host, &disks, &skip, &several);
    let mut candidates = Candidates::default();
    for disk in &disks {
        let first_path = several.iter().find(|paths| paths.devices.contains(&disk.name));
        let first_path =
            first_path.and_then(|paths| paths.devices.first()).filter(|first| **first != disk.name);
        let verdict = if let Some(reason) = kept.get(&disk.name) {
            Verdict::Kept(format!("properties.skip_block_devices says so: it {reason}"))
        } else if let Some(first) = first_path {
            Verdict::PassedOver(format!("it is another path to the same disk as {first}"))
        } else {
            judge(cx, disk, &policy, options, read_only)?
        };
        let reason = match verdict {
            Verdict::Erase(target) => {
                candidates.targets.push(*target);
                continue;
            }
            Verdict::PassedOver(reason) => {
                candidates.passed_over.push(disk.name.clone());
                reason
            }
            Verdict::Kept(reason) => reason,
        };
        tracing::warn!(device = disk.name, reason, "disk is not erased");
        cx.events.emit(EventKind::Notice { message: format!("{} is not erased: {reason}", disk.name) });
    }
    Ok(candidates)
}

enum Verdict {
    Erase(Box<Target>),
    /// Left alone, and still named in the result of `erase_devices`.
    PassedOver(String),
    /// Left alone because the operator said so.
    Kept(String),
}

fn judge(
    cx: &Context,
    disk: &Disk,
    policy: &Policy,
    options: &EraseOptions,
    read_only: ReadOnly,
) -> Result<Verdict, Error> {
    let target = match Target::claim(&cx.host, disk, policy) {
        Ok(target) => target,
        Err(refusal @ Refusal::NotAllowed { .. }) => return Ok(Verdict::Kept(refusal.to_string())),
        // The array is a disk of its own and is erased as such.
        Err(Refusal::Held { holder, .. }) if holder.starts_with("md") => {
            return Ok(Verdict::PassedOver(format!("it is a member of the array {holder}")));
        }
        Err(Refusal::ReadOnly { device }) => return read_only_verdict(&device, options, read_only),
        Err(refusal) => return Err(protected(&refusal)),
    };
    let contents = target.contents_within(options.stall_limit);
    if options.guard
        && let Some(what) = shared_file_system(&contents)
    {
        return Err(Error::ProtectedDevice {
            message: format!(
                "{} holds a file system that other machines may share ({what}): name the disk in \
                 properties.skip_block_devices to leave it alone, wipe it by hand, or switch the check off \
                 (ipa-guard-special-filesystems=false)",
                disk.name
            ),
        });
    }
    Ok(match reason_to_pass_over(&contents) {
        Some(reason) => Verdict::PassedOver(reason.into()),
        None => Verdict::Erase(Box::new(target)),
    })
}

fn read_only_verdict(device: &str, options: &EraseOptions, read_only: ReadOnly) -> Result<Verdict, Error> {
    if read_only == ReadOnly::Leave || options.skip_read_only {
        return Ok(Verdict::PassedOver("it can only be read".into()));
    }
    Err(Error::BlockDeviceErase {
        message: format!(
            "{device} can not be erased: it can only be read. Name it in properties.skip_block_devices, or let the conductor \
             permit it ([deploy]erase_skip_read_only)"
        ),
    })
}

/// Label of the medium through which a BMC hands data to the machine.
const VIRTUAL_MEDIA: &str = "ir-vfd-dev";

fn file_systems(contents: &Contents) -> impl Iterator<Item = &FileSystem> {
    let parts = contents.partitions.iter().filter_map(|part| part.file_system.as_ref());
    contents.whole.iter().chain(parts)
}

fn reason_to_pass_over(contents: &Contents) -> Option<&'static str> {
    file_systems(contents).find_map(|found| match (found.kind, found.label.as_deref()) {
        (_, Some(VIRTUAL_MEDIA)) => Some("it is virtual media"),
        ("linux_raid_member", _) => Some("it is a member of an array that is not running"),
        _ => None,
    })
}

/// Partition types of cluster file systems, which other machines may be using right now: VMFS (GPT, MBR) and GPFS.
const SHARED: [&str; 3] =
    ["aa31e02a-400f-11db-9590-000c2911d1b8", "37affc90-ef7d-4e96-91c3-2d7ae055b174", "0xfb"];

fn shared_file_system(contents: &Contents) -> Option<String> {
    let by_type = contents.partitions.iter().find(|part| {
        let kind = match part.partition.kind {
            PartitionType::Guid(guid) => guid.to_string(),
            PartitionType::Id(id) => format!("{id:#04x}"),
        };
        SHARED.contains(&kind.as_str())
    });
    let by_type = by_type.map(|part| format!("partition {}", part.partition.number));
    by_type.or_else(|| file_systems(contents).any(|found| found.kind == "gfs2").then(|| "gfs2".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use serde_json::json;

    /// A disk image of 1 MiB with an MBR partition of this type from 64 KiB on, and bytes at offsets.
    fn contents(kind: u8, bytes: &[(usize, &[u8])]) -> Contents {
        let mut image = vec![0u8; 1 << 20];
        if kind != 0 {
            image[450] = kind;
            image[454] = 128;
            image[458..460].copy_from_slice(&1024u16.to_le_bytes());
            image[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        for (offset, bytes) in bytes {
            image[*offset..*offset + bytes.len()].copy_from_slice(bytes);
        }
        Contents::read(&image, 512)
    }

    const RAID_MAGIC: [u8; 5] = [0xfc, 0x4e, 0x2b, 0xa9, 1];
    const GFS2_MAGIC: [u8; 4] = [1, 0x16, 0x19, 0x70];

    #[test]
    fn members_of_arrays_and_virtual_media_are_passed_over_wherever_the_mark_lies() {
        assert_eq!(reason_to_pass_over(&contents(0, &[])), None);
        assert_eq!(reason_to_pass_over(&contents(0x83, &[])), None);
        for (kind, offset) in [(0, 4096), (0xfd, 65536 + 4096)] {
            let found = contents(kind, &[(offset, &RAID_MAGIC)]);
            assert!(reason_to_pass_over(&found).unwrap().contains("array"), "{found}");
        }
        let media = contents(0, &[(1080, &[0x53, 0xef]), (1144, b"ir-vfd-dev")]);
        assert!(reason_to_pass_over(&media).unwrap().contains("virtual media"));
    }

    #[test]
    fn file_systems_of_several_machines_are_seen_on_partitions_and_whole_disks() {
        assert_eq!(shared_file_system(&contents(0x83, &[])), None);
        assert_eq!(shared_file_system(&contents(0xfb, &[])).as_deref(), Some("partition 1"));
        assert_eq!(shared_file_system(&contents(0, &[(65536, &GFS2_MAGIC)])).as_deref(), Some("gfs2"));
        assert_eq!(shared_file_system(&contents(0x83, &[(131_072, &GFS2_MAGIC)])).as_deref(), Some("gfs2"));
    }

    fn options(info: serde_json::Value) -> EraseOptions {
        let cx = Context::new(Fixture::new().host(), events::Events::default())
            .with_node(json!({"uuid": "u", "driver_internal_info": info}));
        EraseOptions::read(&cx, &Settings::default()).unwrap()
    }

    #[test]
    fn a_disk_that_can_only_be_read_fails_erase_devices_unless_it_may_be_left() {
        let strict = options(json!({}));
        let lenient = options(json!({"agent_erase_skip_read_only": true}));
        let passed = |options, rule| {
            matches!(read_only_verdict("/dev/sda", options, rule), Ok(Verdict::PassedOver(_)))
        };
        assert!(passed(&strict, ReadOnly::Leave) && passed(&lenient, ReadOnly::Fail));
        let error = read_only_verdict("/dev/sda", &strict, ReadOnly::Fail).err().unwrap();
        assert!(
            matches!(&error, Error::BlockDeviceErase { message } if message.contains("/dev/sda")),
            "{error:?}"
        );
    }
}
