//! Config drives on loop devices, with sectors of 512 and 4096 bytes, judged by the tools that a person would ask. Needs root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::fs::File;
use std::os::unix::fs::FileExt;

use disk::config_drive::{self, Rebuild, place};
use disk::table::Table;
use disk::{Policy, Target, list};

mod support;
mod tree;

use support::{LOSETUP, Loop, MIB, SGDISK, able, gpt_image_on_larger_disk, is_clean, run, try_run};

const SFDISK: &str = "/usr/sbin/sfdisk";
const BLKID: &str = "/usr/sbin/blkid";

/// An ISO 9660 image as far as anybody here looks: magic, label, recognisable content.
fn image_of(mebibytes: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..mebibytes << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    image[0x8000..0x9000].fill(0);
    image[0x8001..0x8006].copy_from_slice(b"CD001");
    image[0x8028..0x8030].copy_from_slice(b"config-2");
    image[..0x8000].fill(0);
    image
}

/// Makes an MBR: `sfdisk`'s script.
fn mbr(device: &Loop, script: &str) {
    let script = format!("label: dos\nlabel-id: 0x1a2b3c4d\n{script}");
    try_run(&[SFDISK, "-q", "--no-reread", "--no-tell-kernel", &device.node], &script).unwrap();
}

/// What blkid finds on a partition, all superblocks of it considered.
fn blkid(device: &Loop, partition: &disk::table::Partition, key: &str) -> String {
    let (offset, size) = (partition.start_byte.to_string(), partition.size_byte.to_string());
    run(&[BLKID, "-p", "-o", "value", "-s", key, "-O", &offset, "-S", &size, &device.node]).trim().to_owned()
}

const GENISOIMAGE: &str = "/usr/bin/genisoimage";

/// A real one, as short as can be.
fn small_iso() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let (tree, iso) = (directory.path().join("tree"), directory.path().join("iso"));
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("meta_data.json"), "{}").unwrap();
    let (tree, iso_path) = (tree.to_str().unwrap(), iso.to_str().unwrap());
    run(&[GENISOIMAGE, "-quiet", "-no-pad", "-R", "-V", "config-2", "-o", iso_path, tree]);
    std::fs::read(iso).unwrap()
}

fn refused(device: &Loop, image: &[u8]) -> String {
    place(&device.claim().unwrap(), image, Rebuild::WhenNeeded).unwrap_err().to_string()
}

#[test]
fn loop_config_drive_goes_to_the_end_of_a_gpt_disk_and_is_found_again() {
    if !able(&[LOSETUP, SGDISK]) {
        return;
    }
    let image = image_of(3);
    // The places sgdisk gives with `-n 0:-64MB:0`; the first is the measured one of the data plane page.
    for (mebibytes, sector) in [(1024, 512), (300, 4096)] {
        let device = Loop::new(mebibytes, sector);
        run(&[SGDISK, "-n", "1:1M:+16M", "-n", "3:20M:+1M", &device.node]);
        let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap();
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
        let places = |table: &Table| {
            table
                .partitions()
                .iter()
                .map(|p| (p.number, p.start_byte, p.size_byte, p.kind))
                .collect::<Vec<_>>()
        };
        assert_eq!(places(&device.table()), places(&twin.table()), "sector {sector}");
        assert_eq!(device.read(placed.partition.start_byte, image.len()), image);

        let second = image_of(2);
        let again = place(&device.claim().unwrap(), &second, Rebuild::WhenNeeded).unwrap();
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
        let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap();
        let copy = directory.path().join("copy");
        let length = usize::try_from(placed.partition.size_byte).unwrap();
        std::fs::write(&copy, device.read(placed.partition.start_byte, length)).unwrap();
        let copy = copy.to_str().unwrap();
        run(&["/usr/sbin/fsck.vfat", "-n", copy]);
        let text = run(&["/usr/bin/mtype", "-i", copy, "::openstack/latest/meta_data.json"]);
        assert_eq!(text, "{\"uuid\": \"x\"}", "{options:?}");
        assert!(
            place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap().is_reused,
            "found by its new label"
        );
        // Sectors of 512 bytes carry the image as it is.
        let device = Loop::new(200, 512);
        run(&[SGDISK, "-n", "1:1M:+16M", &device.node]);
        let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap();
        assert_eq!(device.read(placed.partition.start_byte, image.len()), image);
    }
}

#[test]
fn loop_config_drive_moves_the_backup_table_first_and_takes_what_is_free() {
    if !able(&[LOSETUP, SGDISK]) {
        return;
    }
    let device = gpt_image_on_larger_disk(512);
    let placed = place(&device.claim().unwrap(), &image_of(1), Rebuild::WhenNeeded).unwrap();
    assert_eq!(placed.partition.start_byte, 31 * MIB);
    is_clean(&device);

    let tight = Loop::new(64, 512);
    run(&[SGDISK, "-n", "1:1M:+59M", &tight.node]);
    let target = tight.claim().unwrap();
    let error = place(&target, &image_of(8), Rebuild::WhenNeeded).unwrap_err().to_string();
    assert!(error.contains("no room"), "{error}");
    let placed = place(&target, &image_of(2), Rebuild::WhenNeeded).unwrap();
    assert_eq!(placed.partition.start_byte, 60 * MIB);
    is_clean(&tight);
    let error = place(&target, &image_of(8), Rebuild::WhenNeeded).unwrap_err().to_string();
    assert!(error.contains("do not fit into partition 2"), "{error}");
}

/// `sgdisk` and `sfdisk` judge tables whose entries were all in use.
#[test]
fn loop_full_gpt_grows_for_the_config_drive() {
    if !able(&[LOSETUP, SGDISK, SFDISK]) {
        return;
    }
    // As few as the tool makes: a sector of them.
    for (entries, sector) in [(4u32, 512), (8, 512), (32, 4096), (128, 512)] {
        let device = Loop::new(256, sector);
        run(&[SGDISK, &format!("--resize-table={entries}"), &device.node]);
        let places = (1..=entries).map(|number| {
            let (first, last) = (MIB + u64::from(number) * 65_536, MIB + u64::from(number + 1) * 65_536 - 1);
            format!("--new={number}:{}:{}", first / u64::from(sector), last / u64::from(sector))
        });
        let places: Vec<String> = places.collect();
        let places = places.iter().map(String::as_str);
        run(&[SGDISK, "-a", "1"].into_iter().chain(places).chain([device.node.as_str()]).collect::<Vec<_>>());
        let before = device.table().partitions().to_vec();
        assert_eq!(before.len(), usize::try_from(entries).unwrap());
        let image = image_of(1);
        let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap();
        assert_eq!(placed.partition.number, entries + 1, "{entries} entries, sectors of {sector}");
        is_clean(&device);
        let after = device.table();
        assert_eq!(after.partitions()[..before.len()], before, "the others are what they were");
        assert_eq!(device.read(placed.partition.start_byte, image.len()), image);
        let listed = run(&[SGDISK, "-p", &device.node]);
        let expected = if entries == 128 { "up to 132 entries" } else { "up to 128 entries" };
        assert!(listed.contains(expected), "{listed}");
        let check = run(&[SFDISK, "--verify", &device.node]);
        assert!(check.contains("No errors"), "{check}");
    }
}

#[test]
fn loop_config_drive_becomes_a_primary_partition_of_an_mbr() {
    if !able(&[LOSETUP, "/usr/sbin/sfdisk"]) {
        return;
    }
    let device = Loop::new(256, 512);
    let script = "label: dos\nlabel-id: 0x1a2b3c4d\nstart=2048, size=16M, type=83, bootable\n";
    try_run(&["/usr/sbin/sfdisk", "-q", "--no-reread", "--no-tell-kernel", &device.node], script).unwrap();
    let image = image_of(1);
    let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap();
    assert_eq!((placed.partition.start_byte, placed.partition.size_byte), (192 * MIB, 64 * MIB));
    assert_eq!(device.read(192 * MIB, image.len()), image);
    let dump = run(&["/usr/sbin/sfdisk", "-d", &device.node]);
    assert!(dump.contains("start=      393216, size=      131072, type=c"), "{dump}");
    assert!(dump.contains("label-id: 0x1a2b3c4d") && dump.contains("type=83, bootable"), "{dump}");
    assert_eq!(device.table().disk_signature(), "0x1a2b3c4d");
    assert!(place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap().is_reused);

    let full = Loop::new(128, 512);
    let script = "label: dos\nsize=1M\nsize=1M\nsize=1M\nsize=1M\n";
    try_run(&["/usr/sbin/sfdisk", "-q", "--no-reread", "--no-tell-kernel", &full.node], script).unwrap();
    let error = place(&full.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap_err().to_string();
    assert!(error.contains("four primary partitions"), "{error}");

    let blank = Loop::new(8, 512);
    let error = place(&blank.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap_err().to_string();
    assert!(error.contains("no partition table"), "{error}");
}

/// The kernel's name for the disk, and that it shows no partitions of it, are a fixture; the node leads to a loop device.
#[test]
fn loop_an_mbr_behind_device_mapper_takes_a_drive_without_any_partition_node() {
    const MKNOD: &str = "/usr/bin/mknod";
    if !able(&[LOSETUP, SFDISK, MKNOD]) {
        return;
    }
    let device = Loop::new(256, 512);
    mbr(&device, "start=2048, size=16M, type=83\n");
    let minor = device.node.trim_start_matches("/dev/loop");
    let tree = tree::Tree::new();
    let (number, sectors) = (format!("7:{minor}"), (256 * MIB / 512).to_string());
    let files = [("dm/uuid", "mpath-3600"), ("dev", number.as_str()), ("size", sectors.as_str())];
    tree.block("virtual", "dm-0", &files);
    run(&[MKNOD, tree.path("dev/dm-0").to_str().unwrap(), "b", "7", minor]);
    let disk = list(&tree.host(), None).unwrap().remove(0);
    assert_eq!(disk.name, "/dev/dm-0");
    let target = Target::claim(&tree.host(), &disk, &Policy { allow: None, in_ramdisk: true }).unwrap();

    let image = image_of(1);
    let placed = place(&target, &image, Rebuild::WhenNeeded).unwrap();
    assert_eq!((placed.partition.number, placed.partition.start_byte), (2, 192 * MIB));
    assert_eq!(device.read(192 * MIB, image.len()), image);
    assert!(place(&target, &image, Rebuild::WhenNeeded).unwrap().is_reused);
    let check = run(&[SFDISK, "--verify", &device.node]);
    assert!(check.contains("No errors"), "{check}");
}

#[test]
fn loop_logical_partitions_leave_room_for_a_primary_one_behind_them() {
    if !able(&[LOSETUP, SFDISK]) {
        return;
    }
    let image = image_of(1);
    let device = Loop::new(256, 512);
    mbr(
        &device,
        "start=2048, size=16M, type=83\nstart=65536, size=64M, type=5\nstart=67584, size=8M\nstart=90112, size=8M\n",
    );
    let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap();
    assert_eq!((placed.partition.number, placed.partition.start_byte), (3, 192 * MIB));
    let numbers: Vec<_> = device.table().partitions().iter().map(|partition| partition.number).collect();
    assert_eq!(numbers, [1, 2, 3, 5, 6]);
    let check = run(&[SFDISK, "--verify", &device.node]);
    assert!(check.contains("No errors"), "{check}");
    // An extended partition up to the end leaves none, whatever is free inside it.
    let full = Loop::new(256, 512);
    mbr(&full, "start=2048, size=16M, type=83\nstart=65536, type=5\nstart=67584, size=8M\n");
    assert!(refused(&full, &image).contains("no room at the end"), "{}", refused(&full, &image));
    // Three primary partitions and the extended one are four.
    let four = Loop::new(256, 512);
    mbr(&four, "size=1M\nsize=1M\nsize=1M\nstart=65536, size=16M, type=5\nstart=67584, size=8M\n");
    assert!(refused(&four, &image).contains("four primary partitions"));
}

#[test]
fn loop_mbr_place_is_that_of_parted_down_to_a_whole_mib() {
    if !able(&[LOSETUP, SFDISK, "/usr/sbin/parted"]) {
        return;
    }
    for extra in [0, 512, 524_288, 1_048_064] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk");
        File::create(&file).unwrap().set_len(256 * MIB + extra).unwrap();
        let device = Loop::attach(&file, 512, &[]);
        mbr(&device, "start=2048, size=16M, type=83\n");
        let twin = directory.path().join("twin");
        std::fs::copy(&file, &twin).unwrap();
        let parted = ["/usr/sbin/parted", "-a", "optimal", "-s", "--", twin.to_str().unwrap()];
        run(&[&parted[..], &["mkpart", "primary", "fat32", "-64MiB", "-0"]].concat());
        let theirs = Table::read_device(&twin).unwrap().partitions()[1].clone();
        let ours = place(&device.claim().unwrap(), &image_of(1), Rebuild::WhenNeeded).unwrap().partition;
        assert_eq!((ours.number, ours.kind), (theirs.number, theirs.kind), "{extra}");
        assert_eq!(ours.start_byte, theirs.start_byte / MIB * MIB, "{extra}");
        assert_eq!(ours.start_byte + ours.size_byte, theirs.start_byte + theirs.size_byte, "{extra}");
    }
}

#[test]
fn loop_on_an_mbr_beyond_two_tebibytes_the_drive_stays_below_them() {
    if !able(&[LOSETUP, SFDISK]) {
        return;
    }
    let tebibyte_mib = 1 << 20;
    for (sector, gibibytes) in [(512, 2560), (4096, 2560)] {
        let device = Loop::new(gibibytes << 10, sector);
        let sectors = 16 * MIB / u64::from(sector);
        mbr(&device, &format!("start={}, size={sectors}, type=83\n", MIB / u64::from(sector)));
        let image = image_of(1);
        let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap().partition;
        assert_eq!(placed.start_byte, (2 * tebibyte_mib - 65) * MIB, "sectors of {sector}");
        assert_eq!(placed.size_byte, 64 * MIB);
        let dump = run(&[SFDISK, "-d", &device.node]);
        let start = placed.start_byte / u64::from(sector);
        assert!(dump.contains(&start.to_string()) && dump.contains("type=c"), "{dump}");
    }
}

#[test]
fn loop_partition_labelled_in_any_case_is_reused_and_two_are_an_error() {
    if !able(&[LOSETUP, SGDISK, BLKID, GENISOIMAGE, "/usr/sbin/mkfs.ext4", "/usr/sbin/mkfs.vfat"]) {
        return;
    }
    let device = Loop::new(200, 512);
    run(&[SGDISK, "-n", "1:1M:+16M", "-n", "2:20M:+4M", "-n", "3:30M:+8M", &device.node]);
    let table = device.table();
    let directory = tempfile::tempdir().unwrap();
    let fill = |number: usize, argv: &[&str]| {
        let partition = &table.partitions()[number - 1];
        let file = directory.path().join(number.to_string());
        File::create(&file).unwrap().set_len(partition.size_byte).unwrap();
        run(&[argv, &[file.to_str().unwrap()]].concat());
        let node = File::options().write(true).open(&device.node).unwrap();
        node.write_all_at(&std::fs::read(&file).unwrap(), partition.start_byte).unwrap();
        node.sync_all().unwrap();
    };
    fill(1, &["/usr/sbin/mkfs.ext4", "-q", "-L", "root"]);
    fill(3, &["/usr/sbin/mkfs.ext4", "-q", "-L", "Config-2"]);
    let image = small_iso();
    let placed = place(&device.claim().unwrap(), &image, Rebuild::WhenNeeded).unwrap();
    assert!(placed.is_reused);
    assert_eq!(placed.partition, table.partitions()[2]);
    assert_eq!(device.table().partitions(), table.partitions(), "nothing was added");
    assert_eq!(blkid(&device, &placed.partition, "TYPE"), "iso9660", "nothing is left of what was there");
    let large = refused(&device, &image_of(9));
    assert!(large.contains("do not fit into partition 3") && large.contains("make it larger"), "{large}");

    fill(2, &["/usr/sbin/mkfs.vfat", "-n", "CONFIG-2"]);
    let twice = refused(&device, &image);
    assert!(twice.contains("partitions 2 and 3 are both labelled config-2"), "{twice}");
}

#[test]
fn loop_what_an_earlier_owner_left_in_the_place_is_not_taken_for_the_drive() {
    if !able(&[LOSETUP, SGDISK, BLKID, GENISOIMAGE]) {
        return;
    }
    let device = Loop::new(200, 512);
    run(&[SGDISK, "-n", "1:1M:+16M", &device.node]);
    // The superblock of an array's member, in metadata of version 1.0: 8 KiB before the end of what will be the partition.
    let Table::Gpt(gpt) = device.table() else { panic!("no GPT") };
    let end = (gpt.last_usable_sector + 1) * 512;
    let start = (gpt.last_usable_sector * 512 - 64 * MIB) / MIB * MIB;
    let superblock = start + (((end - start) / 512 - 16) & !7) * 512;
    let node = File::options().write(true).open(&device.node).unwrap();
    let mut stale = vec![0; 256];
    stale[..5].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1]);
    stale[144..152].copy_from_slice(&((superblock - start) / 512).to_le_bytes()[..8]);
    node.write_all_at(&stale, superblock).unwrap();
    let earlier = device.table().partitions()[0].clone();
    let earlier = disk::table::Partition { start_byte: start, size_byte: end - start, ..earlier };
    node.sync_all().unwrap();
    assert_eq!(blkid(&device, &earlier, "TYPE"), "linux_raid_member", "what it was would be seen");
    node.write_all_at(b"_BHRfS_M", start + 0x10040).unwrap();
    node.sync_all().unwrap();
    drop(node);
    let small = small_iso();
    assert!(small.len() < 0x10040, "shorter than the old magic is far");
    let placed = place(&device.claim().unwrap(), &small, Rebuild::WhenNeeded).unwrap().partition;
    assert_eq!((placed.start_byte, placed.size_byte), (start, end - start));
    assert_eq!(blkid(&device, &placed, "TYPE"), "iso9660");
    assert_eq!(device.read(superblock, 256), vec![0; 256]);
    assert_eq!(blkid(&device, &placed, "LABEL"), "config-2");
}

#[test]
fn loop_vfat_made_for_small_sectors_is_rebuilt_for_large_ones_and_everything_where_wanted() {
    let tools =
        [LOSETUP, SGDISK, "/usr/sbin/mkfs.vfat", "/usr/sbin/fsck.vfat", "/usr/bin/mcopy", "/usr/bin/mtype"];
    if !able(&tools) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vfat");
    File::create(&file).unwrap().set_len(4 * MIB).unwrap();
    let file = file.to_str().unwrap();
    run(&["/usr/sbin/mkfs.vfat", "-n", "config-2", file]);
    let data = directory.path().join("data");
    std::fs::write(&data, "{\"uuid\": \"y\"}").unwrap();
    run(&["/usr/bin/mmd", "-i", file, "::openstack", "::openstack/latest"]);
    run(&["/usr/bin/mcopy", "-i", file, data.to_str().unwrap(), "::openstack/latest/meta_data.json"]);
    let image = config_drive::decode(std::fs::read(file).unwrap()).unwrap();

    let cases = [
        (512, Rebuild::WhenNeeded, false),
        (512, Rebuild::Always, true),
        (4096, Rebuild::WhenNeeded, true),
        (4096, Rebuild::Always, true),
    ];
    for (sector, rebuild, is_new) in cases {
        let device = Loop::new(200, sector);
        run(&[SGDISK, "-n", "1:1M:+16M", &device.node]);
        let placed = place(&device.claim().unwrap(), &image, rebuild).unwrap().partition;
        let written = device.read(placed.start_byte, image.len());
        assert_eq!(written != image, is_new, "{sector} {rebuild:?}");
        let copy = directory.path().join("copy");
        std::fs::write(&copy, device.read(placed.start_byte, usize::try_from(placed.size_byte).unwrap()))
            .unwrap();
        let copy = copy.to_str().unwrap();
        run(&["/usr/sbin/fsck.vfat", "-n", copy]);
        let text = run(&["/usr/bin/mtype", "-i", copy, "::openstack/latest/meta_data.json"]);
        assert_eq!(text, "{\"uuid\": \"y\"}", "{sector} {rebuild:?}");
        if is_new {
            assert_eq!(u32::from(u16::from_le_bytes([written[11], written[12]])), sector, "{rebuild:?}");
            assert_eq!(blkid(&device, &placed, "LABEL"), "CONFIG-2");
        }
    }
}

#[test]
fn loop_a_drive_that_can_not_be_read_is_written_as_it_is() {
    if !able(&[LOSETUP, SGDISK]) {
        return;
    }
    let junk: Vec<u8> = (0..100_000u32).map(|at| u8::try_from(at % 253).unwrap()).collect();
    for (sector, rebuild) in [(512, Rebuild::WhenNeeded), (512, Rebuild::Always), (4096, Rebuild::WhenNeeded)]
    {
        let device = Loop::new(200, sector);
        run(&[SGDISK, "-n", "1:1M:+16M", &device.node]);
        let placed = place(&device.claim().unwrap(), &junk, rebuild).unwrap();
        assert_eq!(device.read(placed.partition.start_byte, junk.len()), junk, "{sector} {rebuild:?}");
    }
}

#[test]
fn loop_without_room_the_error_says_what_to_do() {
    if !able(&[LOSETUP, SGDISK, SFDISK]) {
        return;
    }
    let image = image_of(1);
    let gpt = Loop::new(100, 512);
    run(&[SGDISK, "-n", "1:1M:0", &gpt.node]);
    let dos = Loop::new(100, 512);
    mbr(&dos, "start=2048, type=83\n");
    for device in [&gpt, &dos] {
        let before = device.table();
        let error = refused(device, &image);
        for part in ["no room at the end of the disk", "labelled config-2", "larger disk"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(device.table(), before, "the table stays as it was");
    }
    let blank = Loop::new(8, 512);
    assert!(refused(&blank, &image).contains("no partition table"));
}
