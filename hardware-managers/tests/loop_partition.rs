//! Partition images on a loop device: through the step that a conductor sends, judged by the tools that a person would ask.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that all of this is a test

mod support;

use disk::table::Table;
use hwm::Error;
use serde_json::{Value, json};
use support::partition::{Machine, ROOT_UUID, disk, root_image};
use support::{MIB, config_drive, tool};

#[test]
fn loop_bios_deployment_has_swap_config_drive_and_root_where_ironic_looks_for_them() {
    let Some(disk) = disk(160, 512) else { return };
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new(&disk, "boot_mode:bios");
    let image = root_image(directory.path());
    let text = machine.deploy(&image, json!({}), Some(&config_drive())).unwrap();
    let name = disk.name();
    assert_eq!(
        text,
        format!("prepare_image: image (part.img) written to device {name} root_uuid={ROOT_UUID}")
    );
    assert_eq!(
        machine.deployment.partition_uuids(),
        json!({"partitions": {"swap": format!("{name}p1"), "configdrive": format!("{name}p2"), "root": format!("{name}p3")},
               "root uuid": ROOT_UUID, "efi system partition uuid": null})
    );
    assert_eq!((machine.blkid(1, "TYPE"), machine.blkid(1, "LABEL")), ("swap".into(), "swap1".into()));
    assert_eq!((machine.blkid(3, "TYPE"), machine.blkid(3, "UUID")), ("ext4".into(), ROOT_UUID.into()));
    let table = machine.table();
    assert_eq!(table.kind(), "dos");
    let drive = &table.partitions()[1];
    assert_eq!(drive.size_byte, MIB as u64);
    assert_eq!(disk.read(drive.start_byte, config_drive().len()), config_drive());
    let root = machine.copy(3, directory.path());
    tool("/usr/sbin/e2fsck", &["-fn", &root]);
    assert_eq!(tool("/usr/sbin/debugfs", &["-R", "cat /etc/release", &root]), "deployed");
    assert_eq!(std::fs::read(&root).unwrap()[..image.len()], image, "byte for byte");
}

#[test]
fn loop_uefi_deployment_of_a_qcow2_has_an_esp_and_an_ephemeral_file_system() {
    for sector in [512, 4096] {
        let Some(disk) = disk(800, sector) else { return };
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::new(&disk, "boot_mode:uefi");
        let raw = root_image(directory.path());
        let (from, to) = (directory.path().join("root.img"), directory.path().join("root.qcow2"));
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        tool("/usr/bin/qemu-img", &["convert", "-c", "-O", "qcow2", from, to]);
        let change =
            json!({"ephemeral_mb": 32, "ephemeral_format": "ext4", "swap_mb": 0, "deploy_boot_mode": "uefi"});
        let text = machine.deploy(&std::fs::read(to).unwrap(), change, None).unwrap();
        let uuids = machine.deployment.partition_uuids();
        let esp = uuids["efi system partition uuid"].as_str().unwrap();
        assert!(text.ends_with(&format!("root_uuid={ROOT_UUID} efi_system_partition_uuid={esp}")), "{text}");
        let name = disk.name();
        assert_eq!(
            uuids["partitions"],
            json!({"efi system partition": format!("{name}p1"), "ephemeral": format!("{name}p2"), "root": format!("{name}p3")})
        );
        assert_eq!((machine.blkid(1, "TYPE"), machine.blkid(1, "LABEL")), ("vfat".into(), "efi-part".into()));
        assert_eq!(machine.blkid(1, "UUID"), esp);
        assert_eq!(
            (machine.blkid(2, "TYPE"), machine.blkid(2, "LABEL")),
            ("ext4".into(), "ephemeral0".into())
        );
        tool("/usr/sbin/e2fsck", &["-fn", &machine.copy(2, directory.path())]);
        let root = machine.copy(3, directory.path());
        assert_eq!(std::fs::read(&root).unwrap()[..raw.len()], raw);
    }
}

#[test]
fn loop_a_rebuild_keeps_the_ephemeral_partition_and_refuses_when_it_can_not() {
    let Some(disk) = disk(200, 512) else { return };
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new(&disk, "boot_mode:bios");
    let image = root_image(directory.path());
    let first = json!({"ephemeral_mb": 32, "ephemeral_format": "ext4"});
    machine.deploy(&image, first.clone(), None).unwrap();
    // Somebody's data, and a label that a new file system would not have.
    let ephemeral = machine.table().partitions()[0].clone();
    let copy = machine.copy(1, directory.path());
    tool("/usr/sbin/debugfs", &["-w", "-R", &format!("write {copy} precious"), &copy]);
    let kept = std::fs::read(&copy).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::File::options().write(true).open(&disk.path).unwrap(),
        &kept,
        ephemeral.start_byte,
    )
    .unwrap();
    let before = machine.table();

    let mut other = image.clone();
    other.resize(44 * MIB, 7);
    let again = json!({"ephemeral_mb": 32, "ephemeral_format": "ext4", "preserve_ephemeral": true});
    machine.deploy(&other, again.clone(), None).unwrap();
    assert_eq!(machine.table(), before, "the table is the same, PARTUUIDs included");
    let length = usize::try_from(ephemeral.size_byte).unwrap();
    assert!(disk.read(ephemeral.start_byte, length) == kept, "not a byte of the data changed");
    let root = before.partitions()[2].clone();
    assert!(disk.read(root.start_byte, other.len()) == other);

    let mut larger = again;
    larger["ephemeral_mb"] = json!(33);
    let error = machine.deploy(&image, larger, None).unwrap_err().to_string();
    assert!(error.contains("nothing was written") && error.contains("ephemeral"), "{error}");
    assert!(disk.read(root.start_byte, other.len()) == other);
}

#[test]
fn loop_what_does_not_fit_is_refused_before_anything_is_written() {
    let Some(disk) = disk(160, 512) else { return };
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new(&disk, "boot_mode:bios");
    let image = root_image(directory.path());
    for (change, text) in [
        (json!({"root_mb": 39}), "does not fit into the root partition of 39 MiB"),
        (json!({"root_mb": 4096}), "the disk has 160 MiB"),
        (json!({"ephemeral_mb": 8, "ephemeral_format": "nofs"}), "no mkfs.nofs"),
        (json!({"preserve_ephemeral": true, "ephemeral_mb": 8}), "nothing was written"),
    ] {
        let error = machine.deploy(&image, change, None).unwrap_err();
        assert!(hwm::chain(&error).contains(text), "{text}: {error}");
        assert!(disk.is_untouched(), "{text}");
        assert_eq!(machine.deployment.partition_uuids(), json!({}));
    }
}

#[test]
fn loop_a_wrong_digest_leaves_no_table_and_no_root() {
    let Some(disk) = disk(160, 512) else { return };
    let directory = tempfile::tempdir().unwrap();
    let machine = Machine::new(&disk, "boot_mode:bios");
    let image = root_image(directory.path());
    let error = machine.deploy(&image, json!({"os_hash_value": "5".repeat(64)}), None).unwrap_err();
    assert!(matches!(error, Error::ImageChecksum { .. }), "{error:?}");
    assert!(disk.has_zeroed_head());
    assert_eq!(machine.table(), Table::None);
    // Swap comes first: the root starts at 9 MiB.
    assert!(disk.read(9 * MIB as u64, MIB).iter().all(|byte| *byte == 0), "its superblock is not there");
}

#[test]
fn loop_bios_with_gpt_has_room_for_grub_on_either_sector_size() {
    for sector in [512, 4096] {
        let Some(disk) = disk(160, sector) else { return };
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::new(&disk, "boot_mode:bios,disk_label:gpt");
        let image = root_image(directory.path());
        machine.deploy(&image, json!({}), Some(&config_drive())).unwrap();
        let name = disk.name();
        let uuids = machine.deployment.partition_uuids();
        assert_eq!(
            uuids["partitions"],
            json!({"BIOS Boot partition": format!("{name}p1"), "swap": format!("{name}p2"),
                   "configdrive": format!("{name}p3"), "root": format!("{name}p4")})
        );
        assert_eq!(
            (&uuids["root uuid"], &uuids["efi system partition uuid"]),
            (&json!(ROOT_UUID), &Value::Null)
        );
        assert_eq!(machine.table().kind(), "gpt");
        assert_eq!(machine.blkid(2, "LABEL"), "swap1");
        assert_eq!(machine.blkid(3, "LABEL"), "config-2");
        assert_eq!(std::fs::read(machine.copy(4, directory.path())).unwrap()[..image.len()], image);
    }
}

/// A file system as far as it is recognised: `magic` and `uuid` at their places.
fn superblock(magic: &[u8], at: usize, uuid_at: usize) -> Vec<u8> {
    let mut image = vec![0; MIB];
    image[at..at + magic.len()].copy_from_slice(magic);
    image[uuid_at..uuid_at + 16].copy_from_slice(&[0xab; 16]);
    image
}

#[test]
fn loop_a_root_is_known_by_its_file_system_or_else_by_its_partition() {
    let Some(disk) = disk(160, 512) else { return };
    let directory = tempfile::tempdir().unwrap();
    let fat = directory.path().join("fat");
    std::fs::write(&fat, vec![0; MIB]).unwrap();
    tool("/usr/sbin/mkfs.vfat", &["-i", "1234ABCD", fat.to_str().unwrap()]);
    let uuid = "abababab-abab-abab-abab-abababababab";
    for (image, expected) in [
        (superblock(b"XFSB", 0, 32), Some(uuid)),
        (superblock(b"_BHRfS_M", 65_600, 65_568), Some(uuid)),
        (std::fs::read(&fat).unwrap(), Some("1234-ABCD")),
        (vec![7; MIB], None),
    ] {
        let machine = Machine::new(&disk, "boot_mode:bios,disk_label:gpt");
        let text = machine.deploy(&image, json!({"swap_mb": 0}), None).unwrap();
        let root = machine.table().partitions()[1].uuid.clone();
        let expected = expected.unwrap_or(&root);
        assert_eq!(machine.deployment.partition_uuids()["root uuid"], expected);
        assert!(text.ends_with(&format!("root_uuid={expected}")), "{text}");
    }
}
