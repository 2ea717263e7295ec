//! What becomes of the arrays that exist, where the operator wants some volumes to be kept. Source: data plane page, 9.6.

use std::collections::{BTreeMap, BTreeSet};

use disk::md::ESP_VOLUME;
use hwm::{Context, Error};

use crate::generic::root_disk::skip_list;

/// What the deletion does with an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as it is.
    Keep,
    /// It stays, and loses what it holds: a kept one lies on the same disks.
    Wipe,
    /// It goes, and the tables of its disks with it.
    Delete,
}

/// The volumes that `properties.skip_block_devices` names.
pub(super) fn kept_volumes(cx: &Context) -> Result<BTreeSet<String>, Error> {
    Ok(skip_list(cx)?.volumes().iter().cloned().collect())
}

/// One array, as far as its fate depends on it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// What tells it from others.
    pub(super) id: String,
    pub(super) volume: Option<String>,
    /// The disks that its members lie on.
    pub(super) disks: BTreeSet<String>,
    /// Whether a member lies on a disk that may not be touched.
    pub(super) is_protected: bool,
}

/// The fate of each array, by its id. The order of the arrays is of no matter.
pub(super) fn fates(arrays: &[Known], kept: &BTreeSet<String>) -> BTreeMap<String, Fate> {
    let is_kept = |array: &Known| {
        array.is_protected || array.volume.as_ref().is_some_and(|volume| kept.contains(volume))
    };
    let kept_disks: BTreeSet<&String> =
        arrays.iter().filter(|array| is_kept(array)).flat_map(|array| &array.disks).collect();
    let fate = |array: &Known| {
        if is_kept(array) {
            Fate::Keep
        } else if array.disks.iter().any(|disk| kept_disks.contains(disk)) {
            // What boots the kept ones stays with them.
            if array.volume.as_deref() == Some(ESP_VOLUME) { Fate::Keep } else { Fate::Wipe }
        } else {
            Fate::Delete
        }
    };
    arrays.iter().map(|array| (array.id.clone(), fate(array))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known(id: &str, volume: &str, disks: &[&str]) -> Known {
        let volume = Some(volume.to_owned()).filter(|volume| !volume.is_empty());
        Known {
            id: id.into(),
            volume,
            disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
            is_protected: false,
        }
    }

    #[test]
    fn volumes_are_kept_wiped_or_deleted_in_any_order() {
        use Fate::{Delete, Keep, Wipe};
        let mut arrays = vec![
            known("0", "root", &["sda", "sdb"]),
            known("1", "data", &["sda", "sdb"]),
            known("2", "scratch", &["sdc", "sdd"]),
            known("3", "esp", &["sda", "sdb"]),
            known("4", "", &["sdb", "sde"]),
        ];
        let kept = BTreeSet::from(["data".to_owned()]);
        for _ in 0..arrays.len() {
            let fates = fates(&arrays, &kept);
            for (id, fate) in [("0", Wipe), ("1", Keep), ("2", Delete), ("3", Keep), ("4", Wipe)] {
                assert_eq!(fates[id], fate, "{id} of {arrays:?}");
            }
            arrays.rotate_left(1);
        }
        assert!(fates(&arrays, &BTreeSet::new()).values().all(|fate| *fate == Delete));
    }

    #[test]
    fn an_array_with_a_member_on_a_protected_disk_is_kept() {
        let arrays = [
            Known { is_protected: true, ..known("0", "a", &["sda", "sdb"]) },
            known("1", "b", &["sdb", "sdc"]),
            known("2", "c", &["sdd", "sde"]),
        ];
        let fates = fates(&arrays, &BTreeSet::new());
        assert_eq!([fates["0"], fates["1"], fates["2"]], [Fate::Keep, Fate::Wipe, Fate::Delete]);
    }

    #[test]
    fn the_volumes_of_the_skip_list_are_kept() {
        let listed = json!([{"volume_name": "data"}, {"name": "/dev/sda"}]);
        let cx = Context::new(sys::fake::host("/nonexistent"), events::Events::default())
            .with_node(json!({"properties": {"skip_block_devices": listed}}));
        assert_eq!(kept_volumes(&cx).unwrap(), BTreeSet::from(["data".to_owned()]));
    }
}
