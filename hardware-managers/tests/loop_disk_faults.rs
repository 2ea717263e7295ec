//! Disks that can not take an image, and what a failed deployment leaves of the old system: on loop devices.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that all of this is a test
#![allow(clippy::disallowed_methods)] // blockdev and blkid are run by the test itself

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use disk::AllowList;
use events::{EventKind, Events, Phase};
use hardware_managers::{Deployment, Settings, Signatures};
use hwm::{Context, Error};
use imaging::{Transport, TrustedKeys};
use serde_json::{Value, json};
use support::{DISK_BYTES, Loop, MIB, image, registry, serve, sha256, tool};
use sys::Host;

const KEY: &str = include_str!("../../crates/imaging/tests/signatures/key.pub");

struct Machine {
    deployment: Arc<Deployment>,
    cx: Context,
}

impl Machine {
    fn new(disk: &Loop, signatures: Signatures) -> Self {
        let deployment = Deployment::new(Settings {
            allow: Some(AllowList::parse(disk.name()).unwrap()),
            transport: Transport { attempts: 1, ..Transport::default() },
            disk_wait_attempts: 1,
            signatures,
            ..Settings::default()
        });
        let node = json!({"instance_info": {"root_device": {"name": disk.name()}}});
        Self { deployment, cx: Context::new(Host::real(), Events::default()).with_node(node) }
    }

    fn deploy(&self, info: Value) -> Result<String, Error> {
        self.deployment.prepare_image(&self.cx, serde_json::from_value(info).unwrap(), None)
    }
}

fn info(url: &str, digest: &str) -> Value {
    json!({"id": "test.raw", "urls": [format!("{url}/test.raw")], "disk_format": "raw",
           "os_hash_algo": "sha256", "os_hash_value": digest})
}

#[test]
fn loop_read_only_disk_is_refused_by_name() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    tool("/usr/sbin/blockdev", &["--setro", disk.name()]);
    let machine = Machine::new(&disk, Signatures::default());
    let error = machine.deploy(info(&url, &sha256(&image))).unwrap_err();
    tool("/usr/sbin/blockdev", &["--setrw", disk.name()]);
    let text = error.to_string();
    assert!(text.contains(disk.name()) && text.contains("read-only"), "{text}");
    assert!(disk.is_untouched());
    machine.deploy(info(&url, &sha256(&image))).map_err(|error| hwm::chain(&error)).unwrap();
}

#[test]
fn loop_disk_that_is_too_small_is_named_and_not_touched() {
    let image = image();
    let Some(disk) = Loop::of(image.len() as u64 - 4096, 512) else { return };
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = Machine::new(&disk, Signatures::default());
    let error = machine.deploy(info(&url, &sha256(&image))).unwrap_err();
    assert!(matches!(error, Error::ImageWrite { .. }), "{error:?}");
    let sizes = [image.len().to_string(), (image.len() - 4096).to_string()];
    for word in [disk.name(), &sizes[0], &sizes[1]] {
        assert!(error.to_string().contains(word), "no {word} in {error}");
    }
    assert!(disk.is_untouched());
}

/// What util-linux recognises in a range of the disk.
fn recognised(disk: &Loop, offset: usize, length: usize) -> String {
    let range = [format!("--offset={offset}"), format!("--size={length}")];
    let mut blkid = Command::new("/usr/sbin/blkid");
    blkid.args(["-p", "-o", "export"]).args(range).arg(disk.name()).env("LC_ALL", "C");
    String::from_utf8(blkid.output().unwrap().stdout).unwrap()
}

#[test]
fn loop_failed_deploy_leaves_nothing_of_the_old_system_and_the_next_succeeds() {
    let Some(disk) = Loop::new() else { return };
    // Two old partitions, both beyond the end of the new image: a file system, and a member of an array (md 1.0: the
    // superblock lies at the end).
    let (first, second, length) = (16 * MIB, 64 * MIB, 32 * MIB);
    let partitions = ["-n", "1:16M:+32M", "-n", "2:64M:+32M", "-n", "3:100M:+40M", disk.name()];
    tool("/usr/sbin/sgdisk", &partitions);
    let device = File::options().write(true).open(&disk.path).unwrap();
    let offset = format!("offset={first}");
    tool("/usr/sbin/mkfs.ext4", &["-q", "-F", "-E", &offset, disk.name(), "32768k"]);
    device.write_all_at(&md_member(), (second + length - 8192) as u64).unwrap();
    // A third, with what lies between its ends: the header of a VMFS volume, and the second header of LUKS2.
    let deep = [(101 * MIB, vec![0x0d, 0xd0, 0x01, 0xc0]), (104 * MIB, luks2_header(4 * MIB))];
    for (at, bytes) in &deep {
        device.write_all_at(bytes, *at as u64).unwrap();
    }
    assert!(recognised(&disk, first, length).contains("ext4"));
    assert!(recognised(&disk, second, length).contains("linux_raid_member"));
    assert!(recognised(&disk, 0, DISK_BYTES.try_into().unwrap()).contains("gpt"));

    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let machine = Machine::new(&disk, Signatures::default());
    let error = machine.deploy(info(&url, &"5".repeat(64))).unwrap_err();
    assert!(matches!(error, Error::ImageChecksum { .. }), "{error:?}");
    for (what, offset, length) in [
        ("disk", 0, DISK_BYTES.try_into().unwrap()),
        ("file system", first, length),
        ("array", second, length),
    ] {
        assert_eq!(recognised(&disk, offset, length), "", "{what}");
    }
    for (at, bytes) in &deep {
        assert!(disk.read(*at as u64, bytes.len()).iter().all(|byte| *byte == 0), "at {at}");
    }
    let tail = disk.read(DISK_BYTES - MIB as u64, MIB);
    assert!(disk.has_zeroed_head() && tail.iter().all(|byte| *byte == 0), "an end was left");

    machine.deploy(info(&url, &sha256(&image))).map_err(|error| hwm::chain(&error)).unwrap();
    assert_eq!(disk.read(0, image.len()), image);
}

/// The second header of LUKS2, as far as it is looked at, where the first is of this size.
fn luks2_header(size: usize) -> Vec<u8> {
    [b"SKUL\xba\xbe\0\x02".as_slice(), &(size as u64).to_be_bytes()].concat()
}

/// The superblock of a member of an array, as far as it is looked at (md(4), version 1.0 at 8 KiB before the end).
fn md_member() -> Vec<u8> {
    let mut block = vec![0; 4096];
    block[0..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
    block[4..8].copy_from_slice(&1_u32.to_le_bytes());
    block[16..32].fill(7);
    block[144..152].copy_from_slice(&((32 * MIB as u64 - 8192) / 512).to_le_bytes());
    let sum: u64 = block[..256].chunks(4).map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap()))).sum();
    let folded = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    block[216..220].copy_from_slice(&folded.to_le_bytes());
    block
}

#[test]
fn loop_image_that_asks_to_be_verified_is_read_back() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    for verify in [false, true] {
        let machine = Machine::new(&disk, Signatures::default());
        let mut info = info(&url, &sha256(&image));
        info["verify"] = verify.into();
        machine.deploy(info).map_err(|error| hwm::chain(&error)).unwrap();
        let length = image.len() as u64;
        let read = machine.cx.events.after(0, 1000).events.into_iter().any(|event| {
            matches!(event.kind, EventKind::Progress { phase: Phase::Verify, done, .. } if done == length)
        });
        assert_eq!(read, verify);
    }
}

#[test]
fn loop_unsigned_image_of_either_kind_is_refused_where_signatures_are_required() {
    let Some(disk) = Loop::new() else { return };
    let image = image();
    let url = serve(vec![("test.raw", image.clone())]);
    let keys = TrustedKeys(vec![KEY.parse().unwrap()]);
    let machine = Machine::new(&disk, Signatures { require: true, keys });
    let whole = info(&url, &sha256(&image));
    let mut partition = whole.clone();
    partition.as_object_mut().unwrap().extend(
        json!({"image_type": "partition", "root_mb": 64, "swap_mb": 0, "ephemeral_mb": 0,
               "ephemeral_format": null, "preserve_ephemeral": false})
        .as_object()
        .unwrap()
        .clone(),
    );
    let reference = format!("oci://{}:v1", registry(&image));
    let in_registry = json!({"id": "test.raw", "urls": [reference], "disk_format": "raw"});
    for (info, what_to_give) in
        [(whole, "test.raw.minisig"), (partition, "test.raw.minisig"), (in_registry, "signature_url")]
    {
        let error = machine.deploy(info).unwrap_err().to_string();
        assert!(error.contains("must be signed") && error.contains(what_to_give), "{error}");
        assert!(disk.is_untouched());
    }
}
