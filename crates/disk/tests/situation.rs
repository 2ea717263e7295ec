//! What speaks against a disk: arrays, several paths, the skip list; on a fixture tree.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod tree;

use std::collections::BTreeMap;

use disk::{Paths, Rules, Situation, SkipList, list, paths, select};
use serde_json::{Value, json};
use tree::{Tree, page};

/// A name that a maker registered, as designator of VPD page 0x83.
const NAA: [u8; 12] = [1, 3, 0, 8, 0x50, 0, 0xc5, 0, 0x15, 0xea, 0x71, 0xa1];

fn look(tree: &Tree, skip: Value, root_volumes: &[(&str, bool)]) -> Situation {
    let host = tree.host();
    let disks = list(&host, None).unwrap();
    let volumes: BTreeMap<String, bool> =
        root_volumes.iter().map(|(name, root)| ((*name).into(), *root)).collect();
    Situation::look(&host, &disks, &SkipList::parse(&skip).unwrap(), &volumes)
}

/// Arrays md0 on sda1 and sdb, md1 on sdc; LVM on sdd; sde is free. sdf is part of a container, which is no disk.
fn raided() -> Tree {
    let tree = Tree::new();
    let holders: [(&str, &[(&str, &str)]); 9] = [
        ("md0", &[("md/level", "raid1"), ("slaves/sda1/x", ""), ("slaves/sdb/x", "")]),
        ("md1", &[("md/level", "raid0"), ("slaves/sdc/x", "")]),
        ("md127", &[("md/level", "container"), ("slaves/sdf/x", "")]),
        ("sda", &[("sda1/partition", "1"), ("sda1/holders/md0/x", "")]),
        ("sdb", &[("holders/md0/x", "")]),
        ("sdc", &[("holders/md1/x", "")]),
        ("sdd", &[("holders/dm-3/x", "")]),
        ("sde", &[]),
        ("sdf", &[("holders/md127/x", "")]),
    ];
    for (name, files) in holders {
        tree.block("virtual", name, files);
    }
    tree
}

fn ruled_out(situation: &Situation) -> Vec<&str> {
    situation.ruled_out.keys().map(String::as_str).collect()
}

#[test]
fn an_array_stands_for_the_disks_it_lies_on() {
    let tree = raided();
    let situation = look(&tree, json!(null), &[]);
    assert_eq!(ruled_out(&situation), ["/dev/sda", "/dev/sdb", "/dev/sdc"]);
    assert_eq!(situation.ruled_out["/dev/sda"], "is part of the array /dev/md0");
    // The array is larger than its members here, and taken all the same.
    for name in ["md0", "md1", "sdd", "sde", "sdf"] {
        tree.put(&format!("sys/block/{name}/size"), "41943040\n");
    }
    let disks = list(&tree.host(), None).unwrap();
    let chosen = select(&disks, &Rules { situation: Some(&situation), ..Rules::default() }).chosen.unwrap();
    assert_eq!(chosen.name, "/dev/md0");
}

#[test]
fn an_array_that_is_not_to_be_the_root_volume_is_ruled_out_with_its_disks() {
    let tree = raided();
    let situation = look(&tree, json!(null), &[("/dev/md0", false), ("/dev/md1", true)]);
    assert_eq!(ruled_out(&situation), ["/dev/md0", "/dev/sda", "/dev/sdb", "/dev/sdc"]);
    assert!(situation.ruled_out["/dev/md0"].contains("configured not to be the root volume"));
    assert!(situation.ruled_out["/dev/sda"].contains("/dev/md0 is configured not to be"));
}

/// A member of the array `name`, in metadata of version 1.2.
fn member(name: &str) -> Vec<u8> {
    let mut image = vec![0; 1 << 20];
    image[4096..4101].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1]);
    image[4096 + 32..4096 + 32 + name.len()].copy_from_slice(name.as_bytes());
    image
}

#[test]
fn arrays_of_the_skip_list_are_kept_with_their_disks_running_or_not() {
    let tree = raided();
    tree.put("dev/sda1", member("node-1:large"));
    tree.put("dev/sda", vec![0; 4096]);
    tree.put("dev/sdb", member("node-1:large"));
    tree.put("dev/sdc", member("small"));
    tree.put("dev/sde", member("node-1:large"));
    let skip = json!([{"volume_name": "large"}, {"volume_name": "node-1"}]);
    let situation = look(&tree, skip, &[]);
    assert_eq!(ruled_out(&situation), ["/dev/md0", "/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/sde"]);
    assert_eq!(situation.ruled_out["/dev/md0"], "holds the array `large`, which is to be skipped");
    assert_eq!(situation.ruled_out["/dev/sde"], "holds the array `large`, which is to be skipped");
    assert_eq!(situation.ruled_out["/dev/sdc"], "is part of the array /dev/md1", "for that reason alone");
}

/// Arrays md0 `root`, md1 `data` and md2 `esp` on sda and sdb; md3 `esp` on sdc and sdd; md4 `other` on sdd and sde.
fn mirrored() -> Tree {
    let tree = Tree::new();
    for disk in ["sda", "sdb", "sdc", "sdd", "sde"] {
        tree.block("virtual", disk, &[]);
        tree.put(&format!("dev/{disk}"), vec![0; 4096]);
    }
    let arrays = [
        ("md0", "root", ["sda1", "sdb1"]),
        ("md1", "data", ["sda2", "sdb2"]),
        ("md2", "esp", ["sda3", "sdb3"]),
        ("md3", "esp", ["sdc1", "sdd1"]),
        ("md4", "other", ["sdd2", "sde2"]),
    ];
    for (array, name, members) in arrays {
        let [one, two] = members.map(|member| format!("slaves/{member}/x"));
        tree.block("virtual", array, &[("md/level", "raid1"), (&one, ""), (&two, "")]);
        for node in members {
            tree.put(&format!("dev/{node}"), member(name));
            let (disk, number) = node.split_at(3);
            tree.put(&format!("sys/block/{disk}/{node}/partition"), number);
            tree.put(&format!("sys/block/{disk}/{node}/holders/{array}/x"), "");
        }
    }
    tree
}

fn kept_by(tree: &Tree, skip: Value) -> BTreeMap<String, String> {
    let host = tree.host();
    disk::kept(&host, &list(&host, None).unwrap(), &SkipList::parse(&skip).unwrap(), &[])
}

#[test]
fn the_mirror_that_boots_a_kept_volume_is_kept_with_it_and_no_other_is() {
    let tree = mirrored();
    let kept = kept_by(&tree, json!([{"volume_name": "data"}]));
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["/dev/md1", "/dev/md2"]);
    assert_eq!(kept["/dev/md2"], "boots what is kept on /dev/sda");
    assert_eq!(kept_by(&tree, json!([{"volume_name": "nobody"}])), BTreeMap::new());
    assert_eq!(kept_by(&tree, json!([])), BTreeMap::new());
}

#[test]
fn an_array_with_a_part_on_a_skipped_disk_is_kept_and_what_boots_it() {
    let tree = mirrored();
    let kept = kept_by(&tree, json!([{"name": "/dev/sde"}]));
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["/dev/md3", "/dev/md4", "/dev/sde"]);
    assert_eq!(kept["/dev/md4"], "has a part on /dev/sde, which is to be skipped");
    assert_eq!(kept["/dev/md3"], "boots what is kept on /dev/sdd", "it lies beside md4");
}

/// Three paths to one disk of 10 GiB, sda to sdc, and another disk, sdd.
fn multipath() -> Tree {
    let tree = Tree::new();
    tree.device("pci0000:00/0000:00:01.0", "pci");
    for (host, name) in ["sda", "sdb", "sdc", "sdd"].into_iter().enumerate() {
        let device = tree.scsi("pci0000:00/0000:00:01.0", &format!("{host}:0:0:0"), name);
        let mut naa = NAA.to_vec();
        if name == "sdd" {
            naa[11] = 5;
        }
        tree.put(&format!("sys/devices/{device}/vpd_pg83"), page(0x83, &naa));
        tree.put(&format!("sys/devices/{device}/vpd_pg80"), page(0x80, b"80aXYZ"));
        tree.put(&format!("sys/devices/{device}/vendor"), "NETAPP  \n");
    }
    tree
}

/// Two disks behind one adapter, with this name and these serial numbers.
fn twins(naa: &[u8], serials: [&str; 2]) -> Tree {
    let tree = Tree::new();
    tree.device("pci0000:00/0000:00:01.0", "pci");
    for (host, (name, serial)) in ["sda", "sdb"].into_iter().zip(serials).enumerate() {
        let device = tree.scsi("pci0000:00/0000:00:01.0", &format!("{host}:0:0:0"), name);
        tree.put(&format!("sys/devices/{device}/vpd_pg83"), page(0x83, naa));
        if !serial.is_empty() {
            tree.put(&format!("sys/devices/{device}/vpd_pg80"), page(0x80, serial.as_bytes()));
        }
    }
    tree
}

#[test]
fn disks_with_one_wwn_are_two_disks_unless_all_that_tells_disks_apart_agrees() {
    let made_up = [1, 3, 0, 8, 0x50, 0, 0, 0, 0, 0, 0, 1];
    let zero = [1, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    for (naa, serials) in [
        (&made_up, ["WX1", "WX2"]),
        (&made_up, ["WX1", "WX1"]),
        (&zero, ["WX1", "WX1"]),
        (&NAA, ["WX1", "WX2"]),
        (&NAA, ["WX1", ""]),
        (&NAA, ["", ""]),
        (&NAA, ["0000", "0000"]),
    ] {
        let tree = twins(naa, serials);
        let situation = look(&tree, json!([{"name": "/dev/sda"}]), &[]);
        assert_eq!(situation.paths, [], "{naa:x?} {serials:?}");
        assert_eq!(ruled_out(&situation), ["/dev/sda"], "skipping one leaves the other");
    }
    let tree = twins(&NAA, ["WX1", "WX1"]);
    assert_eq!(look(&tree, json!(null), &[]).paths.len(), 1);
    tree.put("sys/block/sdb/device/model", "another\n");
    assert_eq!(look(&tree, json!(null), &[]).paths, [], "another model is another disk");
}

#[test]
fn disks_behind_usb_or_sata_are_never_paths_to_one_disk() {
    for class in ["ahci", "usb"] {
        let tree = twins(&NAA, ["WX1", "WX1"]);
        match class {
            "usb" => tree.device("pci0000:00", "usb"),
            driver => {
                for host in ["host0", "host1"] {
                    tree.put(&format!("sys/class/scsi_host/{host}/proc_name"), format!("{driver}\n"));
                }
            }
        }
        assert_eq!(look(&tree, json!(null), &[]).paths, [], "{class}");
    }
}

#[test]
fn nvme_controllers_of_one_subsystem_lead_to_one_disk_and_others_do_not() {
    let tree = Tree::new();
    for (number, subsystem) in [(0, "a"), (1, "a"), (2, "b")] {
        let parent = format!("pci0000:00/nvme/nvme{number}");
        tree.device(&parent, "nvme");
        tree.put(&format!("sys/devices/{parent}/serial"), "S5P2NG0R\n");
        tree.put(&format!("sys/devices/{parent}/subsysnqn"), format!("nqn.2014.{subsystem}\n"));
        let files = [("wwid", "eui.002538b471a3c5d9"), ("nsid", "1")];
        tree.block(&parent, &format!("nvme{number}n1"), &files);
    }
    let found = look(&tree, json!(null), &[]).paths;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].devices, ["/dev/nvme0n1", "/dev/nvme1n1"]);
}

#[test]
fn paths_to_one_disk_are_told_by_its_name_and_the_best_comes_first() {
    let tree = multipath();
    let found = |tree: &Tree| paths(&tree.host(), &list(&tree.host(), None).unwrap());
    let expected = |devices: [&str; 3]| {
        [Paths {
            identity: "WWN 0x5000c50015ea71a1, serial number 80aXYZ".into(),
            devices: devices.map(|name| format!("/dev/{name}")).into(),
        }]
    };
    assert_eq!(found(&tree), expected(["sda", "sdb", "sdc"]));
    tree.put("sys/block/sda/device/access_state", "standby\n");
    tree.put("sys/block/sdb/device/access_state", "active/non-optimized\n");
    tree.put("sys/block/sdc/device/access_state", "active/optimized\n");
    assert_eq!(found(&tree), expected(["sdc", "sdb", "sda"]));
    tree.put("sys/block/sdc/device/state", "offline\n");
    assert_eq!(found(&tree), expected(["sdb", "sda", "sdc"]));
    tree.put("sys/block/sdb/size", "20971528\n");
    assert_eq!(found(&tree)[0].devices, ["/dev/sda", "/dev/sdc"], "another size is another disk");
    // Virtual disks often have no name at all, or share one serial number.
    let plain = Tree::new();
    for name in ["vda", "vdb"] {
        plain.block("virtual", name, &[("serial", "0123456789")]);
    }
    assert_eq!(found(&plain), []);
}

#[test]
fn what_is_skipped_through_one_path_is_skipped_through_all() {
    let tree = multipath();
    let situation = look(&tree, json!([{"hctl": "1:0:0:0"}]), &[]);
    assert_eq!(ruled_out(&situation), ["/dev/sda", "/dev/sdb", "/dev/sdc"]);
    let other = &situation.ruled_out["/dev/sda"];
    assert_eq!(other, "is another path to the same disk as /dev/sdb, which is to be skipped");
}

#[test]
fn paths_that_the_kernel_has_put_together_are_one_device() {
    let tree = multipath();
    let slaves =
        [("dm/uuid", "mpath-36000c290"), ("slaves/sda/x", ""), ("slaves/sdb/x", ""), ("slaves/sdc/x", "")];
    tree.block("virtual", "dm-0", &slaves);
    tree.block("virtual", "dm-1", &[("dm/uuid", "part1-mpath-36000c290")]);
    tree.block("virtual", "dm-2", &[("dm/uuid", "CRYPT-LUKS2-abc")]);
    for path in ["sda", "sdb", "sdc"] {
        tree.put(&format!("sys/block/{path}/holders/dm-0/x"), "");
    }
    let disks = list(&tree.host(), None).unwrap();
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["/dev/dm-0", "/dev/sdd"]);
    assert_eq!(disks[0].wwn.as_deref(), Some("0x5000c50015ea71a1"));
    assert_eq!(disks[0].vendor.as_deref(), Some("NETAPP"), "hints for the disk work for the device");
    assert_eq!(look(&tree, json!(null), &[]), Situation::default());
}
