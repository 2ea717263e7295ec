//! Making the arrays of a configuration. Source: data plane page, 9.3 and 9.6.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use disk::md::ESP_VOLUME;
use disk::table::write_table;
use disk::{Policy, Target, md, partition_path};
use hwm::{Context, Error};
use serde_json::{Value, json};
use wire::Disk;

use super::config::{self, LogicalDisk};
use super::fate::kept_volumes;
use super::plan::{NewArray, Plan};
use super::{failed, mdadm, wrapped};
use crate::generic::deploy::{announce, protected};
use crate::generic::partition::boot_mode;
use crate::generic::root_disk::{list_patiently, skip_list};
use crate::settings::Settings;

/// How often a member that an array lacks is added, and the time between two tries.
const ATTEMPTS: u32 = 3;
const INTERVAL: Duration = Duration::from_secs(1);

/// **Makes the arrays that are wanted and not there**, on disks without partitions. Returns the configuration as it was given;
/// an empty one where none of it is for software.
pub(super) fn run(cx: &Context, settings: &Settings, config: &Value) -> Result<Value, Error> {
    let kept = kept_volumes(cx)?;
    let Some(wanted) = config::parse(config, &kept)? else {
        tracing::info!(
            "the RAID configuration has no logical disk of the controller `software`: nothing to do"
        );
        return Ok(json!({}));
    };
    let disks = physical_disks(cx, settings)?;
    let existing = md::arrays(&cx.host).map_err(|error| wrapped(&error))?;
    let missing = missing(wanted, &existing, &kept)?;
    if missing.is_empty() {
        tracing::info!("every volume of the RAID configuration is there already");
        return Ok(config.clone());
    }
    let taken: BTreeSet<String> = existing.iter().flat_map(|array| array.holders(&cx.host)).collect();
    let free: Vec<Disk> = disks.into_iter().filter(|disk| !taken.contains(&disk.name)).collect();
    let (mode, label) = boot_mode::of_node(cx);
    let plan = Plan::make(&missing, &free, mode, label)?;
    let targets = claim(cx, settings, &plan)?;
    for (target, (_, layout)) in targets.iter().zip(&plan.tables) {
        announce(cx, target, "making software RAID");
        let parts: Vec<(u64, u64)> =
            layout.partitions.iter().map(|part| (part.start_byte, part.size_byte)).collect();
        disk::wipe_metadata(target).map_err(|error| wrapped(&error))?;
        disk::wipe_parts(target, &parts).map_err(|error| wrapped(&error))?;
        let table = write_table(target, layout).map_err(|error| wrapped(&error))?;
        disk::show_partitions(&cx.host, &target.disk().name, &table, settings.partitioning.patience())
            .map_err(|error| wrapped(&error))?;
    }
    drop(targets);
    for array in &plan.arrays {
        make(cx, array)?;
    }
    Ok(config.clone())
}

/// The disks that members can lie on: no arrays, none that the operator keeps out.
pub(super) fn physical_disks(cx: &Context, settings: &Settings) -> Result<Vec<Disk>, Error> {
    let skip = skip_list(cx)?;
    let is_array = |disk: &Disk| {
        let name = disk.name.trim_start_matches("/dev/");
        cx.host.path(format!("/sys/block/{name}/md")).exists()
    };
    let mut disks = list_patiently(cx, settings)?;
    disks.retain(|disk| {
        !is_array(disk)
            && skip.hints_for(disk).is_none()
            && settings.allow.as_ref().is_none_or(|allow| allow.permits(disk))
    });
    Ok(disks)
}

/// What is to be made, each with its number. An array that exists and is to be kept is used as it is; any other is in the way.
fn missing(
    wanted: Vec<LogicalDisk>,
    existing: &[md::Array],
    kept: &BTreeSet<String>,
) -> Result<Vec<(usize, LogicalDisk)>, Error> {
    let is_wanted = |name: &str| wanted.iter().any(|disk| disk.volume.as_deref() == Some(name));
    let may_stay = |array: &md::Array| match array.volume() {
        _ if kept.is_empty() => false,
        Some(name) => kept.contains(name) || name == ESP_VOLUME || is_wanted(name),
        None => false,
    };
    let in_the_way: Vec<String> = existing
        .iter()
        .filter(|array| !may_stay(array))
        .map(|array| format!("{} ({})", array.device, array.volume().unwrap_or("without a name")))
        .collect();
    if !in_the_way.is_empty() {
        return Err(failed(format!(
            "there are arrays already: {}; run the step delete_configuration first",
            in_the_way.join(", ")
        )));
    }
    let exists = |disk: &LogicalDisk| {
        disk.volume.is_some() && existing.iter().any(|array| array.volume() == disk.volume.as_deref())
    };
    Ok(wanted.into_iter().enumerate().filter(|(_, disk)| !exists(disk)).collect())
}

/// Claims every disk of the plan before any is touched.
fn claim(cx: &Context, settings: &Settings, plan: &Plan) -> Result<Vec<Target>, Error> {
    let policy = Policy::detect(&cx.host, settings.allow.clone());
    let mut targets = Vec::new();
    let mut partitioned = Vec::new();
    for (disk, _) in &plan.tables {
        let target = Target::claim(&cx.host, disk, &policy).map_err(|refusal| protected(&refusal))?;
        match target.table() {
            Ok(table) if table.partitions().is_empty() => {}
            Ok(table) => partitioned.push(format!("{} ({})", disk.name, table.partitions().len())),
            Err(error) => partitioned.push(hwm::chain(&error)),
        }
        targets.push(target);
    }
    if partitioned.is_empty() {
        return Ok(targets);
    }
    Err(failed(format!(
        "there are partitions on disks that arrays are to be made of: {}; run delete_configuration or \
         erase_devices_metadata first",
        partitioned.join(", ")
    )))
}

fn make(cx: &Context, array: &NewArray) -> Result<(), Error> {
    let members: Vec<String> =
        array.members.iter().map(|member| partition_path(&member.disk, member.partition)).collect();
    let usual = format!("/dev/md{}", array.index);
    let is_free =
        cx.host.names(format!("/sys/block/md{}/slaves", array.index)).unwrap_or_default().is_empty();
    let device = if is_free { Some(usual) } else { mdadm::free_device(&cx.host) };
    let device = device.ok_or_else(|| failed("no number is left for another array"))?;
    mdadm::create(cx, &device, &array.name, array.level.argument(), "1", &members)?;
    complete(cx, &device, &members)
}

/// Sees to it that an array has all its members: one that was busy for a moment may be missing.
pub(crate) fn complete(cx: &Context, device: &str, members: &[String]) -> Result<(), Error> {
    for attempt in 1..=ATTEMPTS {
        let arrays = md::arrays(&cx.host).map_err(|error| wrapped(&error))?;
        let array = arrays.iter().find(|array| array.device == device);
        let array = array.ok_or_else(|| failed(format!("{device} was made and is not there")))?;
        let lacking: Vec<&String> = members.iter().filter(|member| !array.members.contains(member)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        for member in lacking {
            tracing::warn!(device, member, attempt, "an array lacks a member: adding it");
            if let Err(error) = mdadm::add(cx, device, member) {
                tracing::warn!(device, member, error = hwm::chain(&error), "the member was not added");
            }
        }
        sleep(INTERVAL);
    }
    Err(failed(format!("{device} does not have all its members: {}", members.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(device: &str, volume: &str) -> md::Array {
        let superblock = md::Superblock {
            uuid: Default::default(),
            volume: Some(volume.to_owned()).filter(|volume| !volume.is_empty()),
            members: 2,
        };
        md::Array {
            device: device.into(),
            level: Some("raid1".into()),
            size_bytes: 1 << 30,
            members: vec!["/dev/sda1".into(), "/dev/sdb1".into()],
            superblock: Some(superblock),
        }
    }

    fn wanted(names: &[&str]) -> Vec<LogicalDisk> {
        let disks: Vec<Value> = names
            .iter()
            .map(|name| json!({"controller": "software", "raid_level": "1", "size_gb": 1, "volume_name": name}))
            .collect();
        config::parse(&json!({"logical_disks": disks}), &BTreeSet::new()).unwrap().unwrap()
    }

    fn names(missing: &[(usize, LogicalDisk)]) -> Vec<(usize, &str)> {
        missing.iter().map(|(index, disk)| (*index, disk.volume.as_deref().unwrap())).collect()
    }

    #[test]
    fn volumes_that_stay_are_not_made_again() {
        let kept = BTreeSet::from(["data".to_owned()]);
        let existing = [array("/dev/md0", "root"), array("/dev/md1", "data"), array("/dev/md2", "esp")];
        assert!(missing(wanted(&["root", "data"]), &existing, &kept).unwrap().is_empty());
        let existing = [array("/dev/md1", "data")];
        assert_eq!(names(&missing(wanted(&["root", "data"]), &existing, &kept).unwrap()), [(0, "root")]);
    }

    #[test]
    fn an_array_that_nobody_keeps_is_in_the_way() {
        let kept = BTreeSet::from(["data".to_owned()]);
        for (existing, kept) in [
            (array("/dev/md0", "root"), BTreeSet::new()),
            (array("/dev/md0", "other"), kept.clone()),
            (array("/dev/md0", ""), kept),
        ] {
            let error = missing(wanted(&["root", "data"]), &[existing], &kept).unwrap_err();
            assert!(matches!(error, Error::SoftwareRaid { .. }));
            let text = error.to_string();
            assert!(text.contains("/dev/md0") && text.contains("delete_configuration"), "{text}");
        }
    }
}
