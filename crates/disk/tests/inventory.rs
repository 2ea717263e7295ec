//! Disks as sysfs shows them: a small fixture tree for each kind of machine.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod tree;

use disk::{AllowList, Hints, Policy, Refusal, Target, list};
use tree::{Tree, page};
use wire::Disk;

#[test]
fn a_sata_disk_is_described_as_ironic_describes_it() {
    let tree = Tree::new();
    tree.device("pci0000:00/0000:00:1f.2", "pci");
    tree.put("sys/devices/pci0000:00/0000:00:1f.2/ata1/x", "");
    let device = tree.scsi("pci0000:00/0000:00:1f.2/ata1", "0:0:0:0", "sda");
    tree.put(&format!("sys/devices/{device}/model"), "QEMU HARDDISK   \n");
    tree.put(&format!("sys/devices/{device}/vendor"), "ATA     \n");
    tree.put(&format!("sys/devices/{device}/vpd_pg80"), page(0x80, b"  drive1"));
    let naa = [&[1u8, 3, 0, 8][..], &[0x50, 0, 0xc5, 0, 0x11, 0x22, 0x33, 0x44]].concat();
    tree.put(&format!("sys/devices/{device}/vpd_pg83"), page(0x83, &naa));
    tree.put("sys/class/scsi_host/host0/proc_name", "ahci\n");
    tree.put("sys/class/ata_port/ata1/port_no", "1\n");
    let expected = Disk {
        name: "/dev/sda".into(),
        model: Some("QEMU HARDDISK".into()),
        size: 10 << 30,
        rotational: false,
        wwn: Some("0x5000c50011223344".into()),
        serial: Some("drive1".into()),
        vendor: Some("ATA".into()),
        wwn_with_extension: Some("0x5000c50011223344".into()),
        wwn_vendor_extension: None,
        hctl: Some("0:0:0:0".into()),
        by_path: Some("/dev/disk/by-path/pci-0000:00:1f.2-ata-1.0".into()),
        logical_sectors: Some(512),
        physical_sectors: Some(4096),
        tran: Some("sata".into()),
    };
    assert_eq!(tree.only(), expected);
}

#[test]
fn nvme_and_virtio_disks_have_their_own_places_for_everything() {
    let tree = Tree::new();
    for directory in ["pci0000:00/0000:00:03.0", "pci0000:00/0000:00:03.0/0000:01:00.0"] {
        tree.device(directory, "pci");
    }
    let nvme = "pci0000:00/0000:00:03.0/0000:01:00.0/nvme/nvme0";
    tree.device(nvme, "nvme");
    tree.put(&format!("sys/devices/{nvme}/model"), "NVMe Ctrl \n");
    tree.put(&format!("sys/devices/{nvme}/serial"), "S123\n");
    // On real machines the namespace lies right below the controller; `block` puts one directory in between.
    tree.block(nvme, "nvme0n1", &[("nsid", "1"), ("wwid", "eui.0025385a01")]);
    let disk = tree.only();
    assert_eq!(disk.serial.as_deref(), Some("S123"));
    assert_eq!(disk.wwn.as_deref(), Some("eui.0025385a01"));
    assert_eq!(disk.by_path.as_deref(), Some("/dev/disk/by-path/pci-0000:01:00.0-nvme-1"));
    assert_eq!((disk.tran.as_deref(), disk.hctl, disk.vendor), (Some("nvme"), None, None));

    let tree = Tree::new();
    tree.device("pci0000:00/0000:00:05.0", "pci");
    tree.device("pci0000:00/0000:00:05.0/virtio1", "virtio");
    tree.put("sys/devices/pci0000:00/0000:00:05.0/virtio1/vendor", "0x1af4\n");
    tree.block("pci0000:00/0000:00:05.0/virtio1", "vda", &[("serial", "root")]);
    let disk = tree.only();
    assert_eq!(disk.serial.as_deref(), Some("root"));
    assert_eq!(disk.vendor.as_deref(), Some("0x1af4"));
    assert_eq!(disk.by_path.as_deref(), Some("/dev/disk/by-path/pci-0000:00:05.0"));
    assert_eq!(disk.tran.as_deref(), Some("virtio"));
}

/// A USB disk at 2:0:0:0: the attributes of the USB device, and the directory of the SCSI device.
fn usb_disk(descriptor: &[(&str, &str)]) -> (Tree, String) {
    let tree = Tree::new();
    let pci = "pci0000:00/0000:00:14.0";
    tree.device(pci, "pci");
    for directory in ["usb1", "usb1/1-4", "usb1/1-4/1-4:1.0"] {
        tree.device(&format!("{pci}/{directory}"), "usb");
    }
    // The root hub has a serial number of its own.
    tree.put(&format!("sys/devices/{pci}/usb1/serial"), "0000:00:14.0\n");
    tree.put(&format!("sys/devices/{pci}/usb1/idVendor"), "1d6b\n");
    for (file, text) in descriptor {
        tree.put(&format!("sys/devices/{pci}/usb1/1-4/{file}"), format!("{text}\n"));
    }
    let device = tree.scsi(&format!("{pci}/usb1/1-4/1-4:1.0"), "2:0:0:0", "sdb");
    tree.put(&format!("sys/devices/{device}/vendor"), "SanDisk \n");
    tree.put(&format!("sys/devices/{device}/model"), "Ultra Fit       \n");
    (tree, device)
}

#[test]
fn a_usb_disk_has_the_serial_number_of_its_usb_descriptor() {
    for (serial, expected) in [
        (Some("4C530001231120115142"), "4C530001231120115142"),
        (Some("  AB 12\u{3f}/3 "), "AB_12__3"),
        (Some("12,34"), "SanDisk_Ultra_Fit-0:0"),
        (Some("caf\u{e9}"), "SanDisk_Ultra_Fit-0:0"),
        (None, "SanDisk_Ultra_Fit-0:0"),
    ] {
        let mut descriptor = vec![("idVendor", "0781"), ("idProduct", "5583")];
        descriptor.extend(serial.map(|serial| ("serial", serial)));
        let (tree, device) = usb_disk(&descriptor);
        // What a bridge says on SCSI pages does not count.
        tree.put(&format!("sys/devices/{device}/vpd_pg80"), page(0x80, b"000000000001"));
        let naa = [&[1u8, 3, 0, 8][..], &[0x50, 0, 0, 0, 0, 0, 0, 1]].concat();
        tree.put(&format!("sys/devices/{device}/vpd_pg83"), page(0x83, &naa));
        let disk = tree.only();
        assert_eq!((disk.serial.as_deref(), disk.wwn.as_deref()), (Some(expected), None), "{serial:?}");
        assert_eq!(disk.tran.as_deref(), Some("usb"));
        let hints = |text: &str| Hints::parse(&serde_json::json!({"serial": text})).unwrap().matches(&disk);
        assert!(hints(expected) && !hints("000000000001"));
        assert!(
            serial != Some("4C530001231120115142") || hints("SanDisk_Ultra_Fit_4C530001231120115142-0:0")
        );
    }
}

#[test]
fn an_ata_disk_in_a_usb_enclosure_has_the_identity_of_the_ata_disk() {
    let (tree, device) = usb_disk(&[("idVendor", "152d"), ("serial", "DD56419883914")]);
    let mut information = vec![0_u8; 572];
    (information[1], information[2], information[3]) = (0x89, 0x02, 0x38);
    for (number, pair) in b"     WD-WX11D1234567".chunks(2).enumerate() {
        (information[60 + 20 + number * 2], information[60 + 21 + number * 2]) = (pair[1], pair[0]);
    }
    let mut word = |number: usize, value: u16| {
        information[60 + number * 2..62 + number * 2].copy_from_slice(&value.to_le_bytes());
    };
    for (number, value) in [(87, 0x4163), (108, 0x5001), (109, 0x4ee2), (110, 0xb1c3), (111, 0x9d21)] {
        word(number, value);
    }
    tree.put(&format!("sys/devices/{device}/vpd_pg89"), &information);
    let disk = tree.only();
    assert_eq!(disk.serial.as_deref(), Some("WD-WX11D1234567"));
    assert_eq!(disk.wwn.as_deref(), Some("0x50014ee2b1c39d21"));
    tree.put("sys/block/sdb/removable", "1\n");
    assert_eq!(tree.only().serial.as_deref(), Some("DD56419883914"), "udev asks no stick for ATA");
}

#[test]
fn mmc_xen_and_nameless_scsi_disks_have_what_udev_gives_them() {
    let tree = Tree::new();
    tree.device("platform/fe340000.mmc", "platform");
    tree.device("platform/fe340000.mmc/mmc_host/mmc0/mmc0:0001", "mmc");
    tree.put("sys/devices/platform/fe340000.mmc/mmc_host/mmc0/mmc0:0001/serial", "0x7c3ab2d1\n");
    tree.block("platform/fe340000.mmc/mmc_host/mmc0/mmc0:0001", "mmcblk0", &[]);
    let disk = tree.only();
    assert_eq!((disk.serial.as_deref(), disk.tran.as_deref()), (Some("0x7c3ab2d1"), Some("mmc")));
    assert_eq!(disk.by_path.as_deref(), Some("/dev/disk/by-path/platform-fe340000.mmc"));

    let tree = Tree::new();
    tree.device("vbd-51712", "xen");
    tree.block("vbd-51712", "xvda", &[]);
    let disk = tree.only();
    assert_eq!((disk.serial, disk.tran, disk.by_path), (None, None, None), "udev names no transport of Xen");

    let tree = Tree::new();
    tree.device("pci0000:00/0000:00:07.0", "pci");
    let device = tree.scsi("pci0000:00/0000:00:07.0", "0:0:1:0", "sda");
    let naa = [&[1u8, 3, 0, 8][..], &[0x50, 0, 0xc5, 0, 0x15, 0xea, 0x71, 0xa1]].concat();
    tree.put(&format!("sys/devices/{device}/vpd_pg83"), page(0x83, &naa));
    assert_eq!(
        tree.only().serial.as_deref(),
        Some("5000c50015ea71a1"),
        "no unit serial number: the identifier"
    );
}

#[test]
fn a_namespace_with_several_controllers_is_at_the_controller_of_its_number() {
    let tree = Tree::new();
    for (number, bus) in [(0, "0000:3c:00.0"), (1, "0000:3d:00.0")] {
        tree.device(&format!("pci0000:00/{bus}"), "pci");
        let controller = format!("pci0000:00/{bus}/nvme/nvme{number}");
        tree.device(&controller, "nvme");
        std::fs::create_dir_all(tree.path("sys/class/nvme")).unwrap();
        std::os::unix::fs::symlink(
            format!("../../devices/{controller}"),
            tree.path(&format!("sys/class/nvme/nvme{number}")),
        )
        .unwrap();
    }
    let subsystem = "virtual/nvme-subsystem/nvme-subsys0";
    tree.device(subsystem, "nvme-subsystem");
    tree.put(&format!("sys/devices/{subsystem}/serial"), "S5P2NG0R\n");
    tree.put(&format!("sys/devices/{subsystem}/model"), "PM1733\n");
    tree.block(subsystem, "nvme0n1", &[("nsid", "1"), ("wwid", "eui.002538b471a3c5d9")]);
    let disk = tree.only();
    assert_eq!(disk.by_path.as_deref(), Some("/dev/disk/by-path/pci-0000:3c:00.0-nvme-1"));
    assert_eq!((disk.serial.as_deref(), disk.model.as_deref()), (Some("S5P2NG0R"), Some("PM1733")));
    std::fs::remove_file(tree.path("sys/class/nvme/nvme0")).unwrap();
    assert_eq!(tree.only().by_path, None, "no controller has its number");
}

#[test]
fn scsi_disks_are_named_by_what_they_hang_on() {
    let pci = "pci0000:00/0000:00:07.0";
    for (middle, address, classes, expected, transport) in [
        ("/virtio4", "2:0:1:3", vec![], "pci-0000:00:07.0-scsi-0:0:1:3", None),
        (
            "/usb1/1-1/1-1.4/1-1.4:1.0",
            "3:0:0:0",
            vec![],
            "pci-0000:00:07.0-usb-0:1.4:1.0-scsi-0:0:0:0",
            Some("usb"),
        ),
        (
            "",
            "4:0:2:0",
            vec![("fc_transport/target4:0:2/port_name", "0x5006"), ("fc_host/host4/symbolic_name", "x")],
            "pci-0000:00:07.0-fc-0x5006-lun-0",
            Some("fc"),
        ),
    ] {
        let tree = Tree::new();
        tree.device(pci, "pci");
        if middle.starts_with("/virtio") {
            tree.device(&format!("{pci}{middle}"), "virtio");
        }
        if middle.starts_with("/usb") {
            for directory in ["/usb1", "/usb1/1-1", "/usb1/1-1/1-1.4", middle] {
                tree.device(&format!("{pci}{directory}"), "usb");
            }
        }
        for (file, content) in &classes {
            tree.put(&format!("sys/class/{file}"), content);
        }
        let bus = match transport {
            // rport directories stand between the host and the target on Fibre Channel.
            Some("fc") => {
                let device = format!("{pci}/host4/rport-4:0-0/target4:0:2/{address}");
                tree.device(&format!("{pci}/host4"), "scsi");
                tree.device(&format!("{pci}/host4/rport-4:0-0/target4:0:2"), "scsi");
                tree.device(&device, "scsi");
                tree.block(&device, "sdb", &[]);
                None
            }
            _ => Some(format!("{pci}{middle}")),
        };
        if let Some(bus) = bus {
            tree.scsi(&bus, address, "sdb");
        }
        let disk = tree.only();
        assert_eq!(disk.by_path, Some(format!("/dev/disk/by-path/{expected}")));
        assert_eq!(disk.tran.as_deref(), transport, "{expected}");
    }
}

#[test]
fn only_disks_are_listed_and_loops_only_by_name() {
    let tree = Tree::new();
    let plain = "virtual";
    for name in [
        "ram0",
        "zram0",
        "fd0",
        "sdc",
        "sdd",
        "loop0",
        "loop1",
        "md0",
        "md1",
        "md2",
        "md3",
        "dm-0",
        "dm-1",
        "dm-2",
        "nvme0c0n1",
    ] {
        let files: &[(&str, &str)] = match name {
            "sdc" => &[("size", "0")],
            // With a partition, as `lsblk` would show it with type `md`.
            "md0" => &[("md/level", "raid1"), ("md0p1/partition", "1"), ("md0p1/size", "2048")],
            "md1" => &[("md/level", "container")],
            "md2" => &[("md/level", "linear")],
            // Not started: the kernel knows no level.
            "md3" => &[],
            "dm-0" => &[("dm/uuid", "mpath-3600"), ("slaves/sde/x", "")],
            "dm-1" => &[("dm/uuid", "LVM-abc")],
            "dm-2" => &[("dm/uuid", "CRYPT-LUKS2-abc")],
            "nvme0c0n1" => &[("hidden", "1")],
            _ => &[],
        };
        tree.block(plain, name, files);
    }
    tree.device("pci0000:00/0000:00:01.0", "pci");
    tree.device("pci0000:00/0000:00:01.0/virtio0", "virtio");
    let optical = tree.scsi("pci0000:00/0000:00:01.0/virtio0", "0:0:0:0", "sr0");
    tree.put(&format!("sys/devices/{optical}/type"), "5\n");
    let path = tree.scsi("pci0000:00/0000:00:01.0/virtio0", "1:0:0:0", "sde");
    tree.put(&format!("sys/devices/{path}/block/sde/holders/dm-0/x"), "");
    tree.put(&format!("sys/devices/{path}/vpd_pg80"), page(0x80, b"BEHIND"));

    let names = |allow: Option<&str>| {
        let allow = allow.map(|text| AllowList::parse(text).unwrap());
        let disks = list(&tree.host(), allow.as_ref()).unwrap();
        disks.into_iter().map(|disk| disk.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None), ["/dev/dm-0", "/dev/md0", "/dev/sdd"]);
    assert_eq!(names(Some("loop1")), ["/dev/dm-0", "/dev/loop1", "/dev/md0", "/dev/sdd"]);
    assert_eq!(names(Some("serial:*")), ["/dev/dm-0", "/dev/md0", "/dev/sdd"]);
    let disks = list(&tree.host(), None).unwrap();
    assert_eq!(disks[0].serial.as_deref(), Some("BEHIND"), "a multipath device is the disk behind it");
    assert_eq!(list(&sys::fake::host(tempfile::tempdir().unwrap().path()), None).unwrap(), []);
}

/// What the claim says in a fixture, where it can never succeed: a fixture has no device nodes.
fn refusal(tree: &Tree, policy: &Policy) -> Refusal {
    let disk = list(&tree.host(), policy.allow.as_ref()).unwrap().remove(0);
    Target::claim(&tree.host(), &disk, policy).unwrap_err()
}

#[test]
fn each_reason_to_refuse_is_found_and_named() {
    let new = || {
        let tree = Tree::new();
        tree.block("virtual", "sda", &[("dev", "8:0"), ("sda1/partition", "1"), ("sda1/dev", "8:1")]);
        tree
    };
    let ramdisk = Policy { allow: None, in_ramdisk: true };
    let says = |refusal: Refusal, text: &str| {
        let words = refusal.to_string();
        assert!(words.contains(text) && words.contains("/dev/sda"), "{words}");
    };

    let tree = new();
    says(refusal(&tree, &Policy { allow: None, in_ramdisk: false }), "ferric-disks=");
    let allow = AllowList::parse("sdb").unwrap();
    says(
        refusal(&tree, &Policy { allow: Some(allow), in_ramdisk: true }),
        "not on the allow-list `/dev/sdb`",
    );
    assert!(matches!(refusal(&tree, &ramdisk), Refusal::WrongNode { .. }), "no node");
    tree.put("dev/sda", "an ordinary file");
    says(refusal(&tree, &ramdisk), "it is no block device");

    let tree = new();
    tree.put("sys/block/sda/ro", "1\n");
    says(refusal(&tree, &ramdisk), "read-only");

    let tree = new();
    tree.put("sys/block/sda/sda1/holders/dm-3/x", "");
    says(refusal(&tree, &ramdisk), "/dev/sda1 is part of dm-3");

    for line in
        ["30 1 8:1 / /mnt\\040x rw - ext4 /dev/root rw", "30 1 0:50 / /mnt\\040x rw - btrfs /dev/sda1 rw"]
    {
        let tree = new();
        tree.put("proc/self/mountinfo", format!("1 1 0:2 / / rw - rootfs rootfs rw\n{line}\n"));
        says(refusal(&tree, &ramdisk), "/dev/sda1 is mounted on /mnt x");
    }

    let tree = new();
    tree.put("proc/swaps", "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2\n");
    says(refusal(&tree, &ramdisk), "swapoff /dev/sda1");

    let tree = new();
    std::fs::remove_file(tree.path("proc/self/mountinfo")).unwrap();
    says(refusal(&tree, &ramdisk), "can not tell whether it is in use");

    let tree = new();
    let disk = list(&tree.host(), None).unwrap().remove(0);
    std::fs::remove_file(tree.path("sys/block/sda")).unwrap();
    says(Target::claim(&tree.host(), &disk, &ramdisk).unwrap_err(), "no such disk");
    let other = Disk { serial: Some("another disk".into()), ..disk };
    let tree = new();
    says(
        Target::claim(&tree.host(), &other, &ramdisk).unwrap_err(),
        "another disk than the one that was chosen",
    );
}

#[test]
fn a_disk_without_serial_is_told_from_its_successor_by_size_and_path() {
    let ramdisk = Policy { allow: None, in_ramdisk: true };
    let tree = Tree::new();
    tree.block("virtual", "vda", &[("dev", "252:0")]);
    let disk = list(&tree.host(), None).unwrap().remove(0);
    assert_eq!((&disk.serial, &disk.wwn), (&None, &None));
    for other in [
        Disk { size: disk.size + 512, ..disk.clone() },
        Disk { by_path: Some("/dev/disk/by-path/pci-0000:00:05.0".into()), ..disk.clone() },
    ] {
        let refusal = Target::claim(&tree.host(), &other, &ramdisk).unwrap_err();
        assert!(matches!(refusal, Refusal::Swapped { .. }), "{refusal}");
    }
}

#[test]
fn a_loop_device_is_refused_unless_the_allow_list_names_it() {
    let tree = Tree::new();
    tree.block("virtual", "loop7", &[("dev", "7:7")]);
    let allow = AllowList::parse("loop7").unwrap();
    let disk = list(&tree.host(), Some(&allow)).unwrap().remove(0);
    let claim = |allow: Option<AllowList>| {
        Target::claim(&tree.host(), &disk, &Policy { allow, in_ramdisk: true }).unwrap_err()
    };
    assert!(matches!(claim(None), Refusal::LoopNotNamed { .. }));
    assert!(matches!(claim(AllowList::parse("serial:*").ok()), Refusal::NotAllowed { .. }));
    assert!(matches!(claim(Some(allow)), Refusal::WrongNode { .. }), "a fixture has no nodes");
}
