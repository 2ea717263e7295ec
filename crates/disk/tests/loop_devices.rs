//! Claiming, repairing and extending real block devices: loop devices over files this test makes. Needs root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use disk::table::Table;
use disk::{AllowList, GptFix, Policy, Refusal, Target, config_drive, fix_gpt, list};
use sys::{Host, MountRequest};

mod support;

use support::{LOSETUP, Loop, MIB, SGDISK, able, run, try_run};

/// An ISO 9660 image as far as anybody here looks: magic, label, recognisable content.
fn config_drive_image(mebibytes: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..mebibytes << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    image[0x8000..0x9000].fill(0);
    image[0x8001..0x8006].copy_from_slice(b"CD001");
    image[0x8028..0x8030].copy_from_slice(b"config-2");
    image[..0x8000].fill(0);
    image
}

#[test]
fn loop_claims_are_refused_unless_allowed_and_free() {
    if !able(&[LOSETUP, "/usr/sbin/mkfs.ext4"]) {
        return;
    }
    let device = Loop::new(32, 512);
    let host = Host::real();
    let target = device.claim().unwrap();
    assert_eq!((target.size_bytes(), target.logical_sector_bytes()), (32 * MIB, 512));
    assert!(target.contents().is_empty());
    let disk = target.disk().clone();
    drop(target);

    for (policy, expected) in [
        (Policy { allow: None, in_ramdisk: false }, "must be named"),
        (Policy { allow: Some(AllowList::parse("sda").unwrap()), in_ramdisk: true }, "not on the allow-list"),
    ] {
        let refusal = Target::claim(&host, &disk, &policy).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    assert!(
        list(&host, None).unwrap().iter().all(|disk| disk.name != device.node),
        "a loop is no disk by itself"
    );

    let held = sys::device::open_exclusive(Path::new(&device.node)).unwrap();
    assert!(matches!(device.claim(), Err(Refusal::Busy { .. })), "{:?}", device.claim());
    drop(held);

    run(&["/usr/sbin/mkfs.ext4", "-q", "-L", "data", &device.node]);
    let contents = device.claim().unwrap().contents();
    assert_eq!(contents.to_string(), "ext4 `data` on the whole disk");
    let mount_point = tempfile::tempdir().unwrap();
    host.kernel().mount(&MountRequest::new(&device.node, mount_point.path(), "ext4")).unwrap();
    let refusal = device.claim();
    host.kernel().unmount(mount_point.path()).unwrap();
    assert!(matches!(&refusal, Err(Refusal::Mounted { .. })), "{refusal:?}");
    device.claim().unwrap();

    let read_only = Loop::attach(&device.file, 512, &["--read-only"]);
    assert!(matches!(read_only.claim(), Err(Refusal::ReadOnly { .. })));
}

/// An image of 32 MiB with Ubuntu's partition numbers, on a disk of 96 MiB.
fn gpt_image_on_larger_disk(sector: u32) -> Loop {
    let small = Loop::new(32, sector);
    run(&[
        SGDISK,
        "-n",
        "14:1M:+1M",
        "-t",
        "14:ef02",
        "-n",
        "15:2M:+4M",
        "-t",
        "15:ef00",
        "-n",
        "1:8M:+16M",
        "-c",
        "1:root",
        &small.node,
    ]);
    let mut image = Vec::new();
    File::open(&small.node).unwrap().read_to_end(&mut image).unwrap();
    assert_eq!(image.len(), 32 << 20);
    let large = Loop::new(96, sector);
    let mut node = File::options().write(true).open(&large.node).unwrap();
    node.write_all(&image).unwrap();
    node.sync_all().unwrap();
    large
}

fn is_clean(device: &Loop) {
    let report = run(&[SGDISK, "-v", &device.node]);
    assert!(report.contains("No problems found"), "{report}");
}

#[test]
fn loop_backup_table_moves_to_the_end_and_numbers_stay() {
    if !able(&[LOSETUP, SGDISK]) {
        return;
    }
    for sector in [512, 4096] {
        let device = gpt_image_on_larger_disk(sector);
        let before = device.table();
        assert!(!run(&[SGDISK, "-v", &device.node]).contains("No problems found"));
        let target = device.claim().unwrap();
        assert_eq!(fix_gpt(&target).unwrap(), GptFix::Moved);
        is_clean(&device);
        assert_eq!(fix_gpt(&target).unwrap(), GptFix::Correct);
        assert_eq!(device.table().partitions(), before.partitions());
        let numbers: Vec<_> = before.partitions().iter().map(|p| p.number).collect();
        assert_eq!(numbers, [1, 14, 15], "sector {sector}");
        assert_eq!(before.esp().map(|esp| esp.number), Some(15));
        before.validate(&device.node, 96 * MIB).unwrap();
        // A damaged first copy is restored from the backup.
        let mut node = File::options().write(true).open(&device.node).unwrap();
        node.seek(SeekFrom::Start(u64::from(sector))).unwrap();
        node.write_all(&[0; 512]).unwrap();
        drop(node);
        assert_eq!(fix_gpt(&device.claim().unwrap()).unwrap(), GptFix::Moved);
        is_clean(&device);
        assert_eq!(device.table().partitions(), before.partitions());
    }
}

#[test]
fn loop_config_drive_goes_to_the_end_of_a_gpt_disk_and_is_found_again() {
    if !able(&[LOSETUP, SGDISK]) {
        return;
    }
    let image = config_drive_image(3);
    // The places sgdisk gives with `-n 0:-64MB:0`; the first is the measured one of the data plane page.
    for (mebibytes, sector) in [(1024, 512), (300, 4096)] {
        let device = Loop::new(mebibytes, sector);
        run(&[SGDISK, "-n", "1:1M:+16M", "-n", "3:20M:+1M", &device.node]);
        let placed = config_drive::place(&device.claim().unwrap(), &image).unwrap();
        assert!(!placed.is_reused);
        assert_eq!(placed.partition.number, 2);
        is_clean(&device);
        let info = run(&[SGDISK, "-i", "2", &device.node]);
        assert!(info.contains("(Linux filesystem)") && info.contains("Partition name: ''"), "{info}");
        if sector == 512 {
            assert!(
                info.contains("First sector: 1964032") && info.contains("Last sector: 2097118"),
                "{info}"
            );
        }
        // What the tool itself would have made.
        let twin = Loop::new(mebibytes, sector);
        run(&[SGDISK, "-n", "1:1M:+16M", "-n", "3:20M:+1M", "-n", "0:-64MB:0", &twin.node]);
        let place = |table: &Table| {
            table
                .partitions()
                .iter()
                .map(|p| (p.number, p.start_byte, p.size_byte, p.kind))
                .collect::<Vec<_>>()
        };
        assert_eq!(place(&device.table()), place(&twin.table()), "sector {sector}");
        assert_eq!(device.read(placed.partition.start_byte, image.len()), image);

        let second = config_drive_image(2);
        let again = config_drive::place(&device.claim().unwrap(), &second).unwrap();
        assert!(again.is_reused);
        assert_eq!(again.partition, placed.partition);
        assert_eq!(device.read(placed.partition.start_byte, second.len()), second);
    }
}

#[test]
fn loop_iso_config_drive_is_rebuilt_for_large_sectors() {
    let tools = [LOSETUP, SGDISK, "/usr/bin/genisoimage", "/usr/sbin/fsck.vfat", "/usr/bin/mtype"];
    if !able(&tools) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let latest = directory.path().join("drive/openstack/latest");
    std::fs::create_dir_all(&latest).unwrap();
    std::fs::write(latest.join("meta_data.json"), "{\"uuid\": \"x\"}").unwrap();
    let (drive, iso) = (directory.path().join("drive"), directory.path().join("iso"));
    for options in [&["-J", "-r"][..], &["-r"], &["-J"]] {
        let (drive, iso) = (drive.to_str().unwrap(), iso.to_str().unwrap());
        run(&[&["/usr/bin/genisoimage", "-quiet", "-V", "config-2", "-o", iso], options, &[drive]].concat());
        let image = config_drive::decode(std::fs::read(iso).unwrap()).unwrap();
        let device = Loop::new(200, 4096);
        run(&[SGDISK, "-n", "1:1M:+16M", &device.node]);
        let placed = config_drive::place(&device.claim().unwrap(), &image).unwrap();
        let copy = directory.path().join("copy");
        let length = usize::try_from(placed.partition.size_byte).unwrap();
        std::fs::write(&copy, device.read(placed.partition.start_byte, length)).unwrap();
        let copy = copy.to_str().unwrap();
        run(&["/usr/sbin/fsck.vfat", "-n", copy]);
        let text = run(&["/usr/bin/mtype", "-i", copy, "::openstack/latest/meta_data.json"]);
        assert_eq!(text, "{\"uuid\": \"x\"}", "{options:?}");
        assert!(
            config_drive::place(&device.claim().unwrap(), &image).unwrap().is_reused,
            "found by its new label"
        );
        // Sectors of 512 bytes carry the image as it is.
        let device = Loop::new(200, 512);
        run(&[SGDISK, "-n", "1:1M:+16M", &device.node]);
        let placed = config_drive::place(&device.claim().unwrap(), &image).unwrap();
        assert_eq!(device.read(placed.partition.start_byte, image.len()), image);
    }
}

#[test]
fn loop_config_drive_moves_the_backup_table_first_and_takes_what_is_free() {
    if !able(&[LOSETUP, SGDISK]) {
        return;
    }
    let device = gpt_image_on_larger_disk(512);
    let placed = config_drive::place(&device.claim().unwrap(), &config_drive_image(1)).unwrap();
    assert_eq!(placed.partition.start_byte, 31 * MIB);
    is_clean(&device);

    let tight = Loop::new(64, 512);
    run(&[SGDISK, "-n", "1:1M:+59M", &tight.node]);
    let target = tight.claim().unwrap();
    let error = config_drive::place(&target, &config_drive_image(8)).unwrap_err().to_string();
    assert!(error.contains("no room"), "{error}");
    let placed = config_drive::place(&target, &config_drive_image(2)).unwrap();
    assert_eq!(placed.partition.start_byte, 60 * MIB);
    is_clean(&tight);
    let error = config_drive::place(&target, &config_drive_image(8)).unwrap_err().to_string();
    assert!(error.contains("do not fit into partition 2"), "{error}");
}

#[test]
fn loop_config_drive_becomes_a_primary_partition_of_an_mbr() {
    if !able(&[LOSETUP, "/usr/sbin/sfdisk"]) {
        return;
    }
    let device = Loop::new(256, 512);
    let script = "label: dos\nlabel-id: 0x1a2b3c4d\nstart=2048, size=16M, type=83, bootable\n";
    try_run(&["/usr/sbin/sfdisk", "-q", "--no-reread", "--no-tell-kernel", &device.node], script).unwrap();
    let image = config_drive_image(1);
    let placed = config_drive::place(&device.claim().unwrap(), &image).unwrap();
    assert_eq!((placed.partition.start_byte, placed.partition.size_byte), (192 * MIB, 64 * MIB));
    assert_eq!(device.read(192 * MIB, image.len()), image);
    let dump = run(&["/usr/sbin/sfdisk", "-d", &device.node]);
    assert!(dump.contains("start=      393216, size=      131072, type=c"), "{dump}");
    assert!(dump.contains("label-id: 0x1a2b3c4d") && dump.contains("type=83, bootable"), "{dump}");
    assert_eq!(device.table().disk_signature(), "0x1a2b3c4d");
    assert!(config_drive::place(&device.claim().unwrap(), &image).unwrap().is_reused);

    let full = Loop::new(128, 512);
    let script = "label: dos\nsize=1M\nsize=1M\nsize=1M\nsize=1M\n";
    try_run(&["/usr/sbin/sfdisk", "-q", "--no-reread", "--no-tell-kernel", &full.node], script).unwrap();
    let error = config_drive::place(&full.claim().unwrap(), &image).unwrap_err().to_string();
    assert!(error.contains("four primary partitions"), "{error}");

    let blank = Loop::new(8, 512);
    let error = config_drive::place(&blank.claim().unwrap(), &image).unwrap_err().to_string();
    assert!(error.contains("no partition table"), "{error}");
}

#[test]
fn loop_a_claimed_disk_that_was_swapped_is_not_written() {
    if !able(&[LOSETUP]) {
        return;
    }
    let device = Loop::new(8, 512);
    let target = device.claim().unwrap();
    target.confirm().unwrap();
    // The same name, another disk: the file behind the device grows.
    File::options().write(true).open(&device.file).unwrap().set_len(9 * MIB).unwrap();
    run(&[LOSETUP, "--set-capacity", &device.node]);
    assert!(matches!(target.confirm(), Err(Refusal::Swapped { .. })), "{:?}", target.confirm());
    assert!(disk::wipe_metadata(&target).is_err());
}
