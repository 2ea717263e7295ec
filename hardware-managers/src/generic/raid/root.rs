//! Which array the node's root volume is, and which are none. Source: data plane page, 2.2.4.
//!
//! The flags are those of the node's `raid_config`, which the conductor keeps; so they also hold after a reboot.

use disk::md;
use hwm::{Context, Error};
use serde_json::Value;

use super::wrapped;
use crate::generic::partition::boot_mode::is_true;
use crate::settings::RootVolumes;

/// The arrays that a configuration flags as the root volume, or as none, by device; those that are not there are left out.
pub(crate) fn root_volumes(cx: &Context, config: Option<&Value>) -> Result<RootVolumes, Error> {
    let arrays = md::arrays(&cx.host).map_err(|error| wrapped(&error))?;
    let device =
        |volume: &str| Some(arrays.iter().find(|array| array.volume() == Some(volume))?.device.clone());
    Ok(flags(config).into_iter().filter_map(|(volume, is_root)| Some((device(&volume)?, is_root))).collect())
}

/// The volumes with a flag; those without a name have the one that they were made with.
fn flags(config: Option<&Value>) -> Vec<(String, bool)> {
    let listed = config.and_then(|config| config.get("logical_disks")).and_then(Value::as_array);
    let mut disks: Vec<&Value> = listed.into_iter().flatten().collect();
    disks.sort_by_key(|disk| disk.get("size_gb").and_then(Value::as_str) == Some("MAX"));
    let flag = |(index, disk): (usize, &&Value)| {
        let is_root = is_true(disk.get("is_root_volume").filter(|flag| !flag.is_null())?);
        let name = disk.get("volume_name").and_then(Value::as_str);
        Some((name.map_or_else(|| format!("md{index}"), str::to_owned), is_root))
    };
    disks.iter().enumerate().filter_map(flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use serde_json::json;

    fn superblock(name: &str, id: u8) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        bytes[4096..4100].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        bytes[4100] = 1;
        bytes[4112..4128].copy_from_slice(&[id; 16]);
        bytes[4128..4128 + name.len()].copy_from_slice(name.as_bytes());
        bytes
    }

    /// `md0` is the volume root on sda1 and sdb1, `md1` the volume data on sda2 and sdb2.
    fn machine() -> Fixture {
        let mut machine = Fixture::new().disk("sda", 20 << 30).disk("sdb", 20 << 30);
        for (array, volume, number) in [("md0", "root", 1u8), ("md1", "data", 2)] {
            for disk in ["sda", "sdb"] {
                let member = format!("{disk}{number}");
                machine = machine
                    .file(&format!("/sys/block/{disk}/{member}/partition"), &format!("{number}\n"))
                    .file(&format!("/sys/block/{array}/slaves/{member}"), "")
                    .bytes(&format!("/dev/{member}"), &superblock(volume, number));
            }
            machine = machine
                .file(&format!("/sys/block/{array}/md/level"), "raid1\n")
                .file(&format!("/sys/block/{array}/size"), "20971520\n");
        }
        machine
    }

    #[test]
    fn the_flags_of_a_configuration_are_those_of_the_arrays_of_that_name() {
        let machine = machine();
        let cx = Context::new(machine.host(), events::Events::default());
        let config = json!({"logical_disks": [
            {"volume_name": "root", "is_root_volume": true},
            {"volume_name": "data", "is_root_volume": false},
            {"volume_name": "gone", "is_root_volume": false},
        ]});
        let found = root_volumes(&cx, Some(&config)).unwrap();
        assert_eq!(found, RootVolumes::from([("/dev/md0".to_owned(), true), ("/dev/md1".to_owned(), false)]));
        assert!(root_volumes(&cx, Some(&json!({}))).unwrap().is_empty());
        assert!(root_volumes(&cx, None).unwrap().is_empty());
    }

    #[test]
    fn volumes_without_a_name_have_that_of_their_making() {
        let config = json!({"logical_disks": [{"size_gb": "MAX", "is_root_volume": "false"},
                                              {"size_gb": 10, "is_root_volume": true}]});
        assert_eq!(flags(Some(&config)), [("md0".to_owned(), true), ("md1".to_owned(), false)]);
    }
}
