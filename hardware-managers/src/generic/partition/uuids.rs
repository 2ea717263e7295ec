//! What the conductor asks for after a partition image was written: where each partition is, and by what it is known.
//! Source: data plane page, 3.7. Read from the disk itself, never from udev.

use disk::layout::{Layout, Planned, Role};
use disk::probe::probe;
use disk::table::Table;
use disk::{Device, Region, Target, partition_path};
use serde_json::{Map, Value, json};

/// The answer of `get_partition_uuids` for a partition image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionUuids {
    /// UUID of the root file system; PARTUUID of its partition where it has none.
    pub root: String,
    /// UUID of the EFI system partition's file system.
    pub esp: Option<String>,
    /// The same for a POWER machine's boot partition.
    pub prep: Option<String>,
    /// What each partition is for, and its device path.
    pub paths: Vec<(Role, String)>,
}

impl PartitionUuids {
    pub(super) fn read(target: &Target, layout: &Layout, table: &Table) -> Result<Self, disk::Error> {
        let device = Device::open(target.device())?;
        let name = &target.disk().name;
        let uuid = |role: Role| layout.get(role).map(|planned| block_uuid(&device, planned, table));
        Ok(Self {
            root: uuid(Role::Root).unwrap_or_default(),
            esp: uuid(Role::Esp),
            prep: uuid(Role::Prep),
            paths: layout.partitions.iter().map(|p| (p.role, partition_path(name, p.number))).collect(),
        })
    }

    /// As the conductor reads it. The keys have spaces in them.
    pub(crate) fn to_json(&self) -> Value {
        let paths: Map<String, Value> =
            self.paths.iter().map(|(role, path)| (role.key().to_owned(), json!(path))).collect();
        let mut answer = json!({
            "partitions": paths,
            "root uuid": self.root,
            "efi system partition uuid": self.esp,
        });
        if let (Some(prep), Some(map)) = (&self.prep, answer.as_object_mut()) {
            map.insert("PReP Boot partition uuid".into(), json!(prep));
        }
        answer
    }
}

/// The UUID of a partition's file system, or that of the partition.
fn block_uuid(device: &Device, planned: &Planned, table: &Table) -> String {
    let found = probe(&Region::new(device, planned.start_byte, planned.size_byte));
    let partition = || table.partitions().iter().find(|partition| partition.number == planned.number);
    found
        .and_then(|file_system| file_system.uuid)
        .or_else(|| partition().map(|partition| partition.uuid.clone()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_exactly_the_keys_of_the_conductor() {
        let uuids = PartitionUuids {
            root: "r".into(),
            esp: None,
            prep: None,
            paths: vec![(Role::Swap, "/dev/sda1".into()), (Role::Root, "/dev/sda2".into())],
        };
        let expected = json!({
            "partitions": {"swap": "/dev/sda1", "root": "/dev/sda2"},
            "root uuid": "r", "efi system partition uuid": null,
        });
        assert_eq!(uuids.to_json(), expected);
        let power = PartitionUuids { prep: Some("p".into()), ..uuids };
        assert_eq!(power.to_json()["PReP Boot partition uuid"], "p");
    }
}
