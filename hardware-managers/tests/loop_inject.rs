//! The step `inject_files` on a loop device with real file systems; what it wrote is read with debugfs. Needs root.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use disk::AllowList;
use events::Events;
use hardware_managers::{Deployment, Settings, builtin};
use hwm::{Context, Error, Registry, StepCall};
use imaging::Transport;
use serde_json::{Value, json};
use support::{Loop, MIB, serve, tool};
use sys::Host;
use wire::StepKind;

const MKFS_EXT4: &str = "/usr/sbin/mkfs.ext4";
const DEBUGFS: &str = "/usr/sbin/debugfs";

/// A loop device with an MBR: partition 1 without a file system, 2 ext4 labelled `boot` with `/grub`, 3 ext4 labelled `root`
/// with `/etc` and links that lead out of it.
struct System {
    disk: Loop,
    image: Vec<u8>,
}

const PARTITIONS: [(usize, usize); 3] = [(1, 2), (8, 16), (32, 32)]; // start and size in MiB

impl System {
    fn new() -> Option<Self> {
        let disk = Loop::new()?;
        if !Path::new(MKFS_EXT4).exists() || !Path::new(DEBUGFS).exists() {
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: needs mkfs.ext4 and debugfs\n");
            return None;
        }
        let mut image = vec![0u8; 72 * MIB];
        for (index, (start, size)) in PARTITIONS.iter().enumerate() {
            let entry = 446 + index * 16;
            image[entry + 4] = 0x83;
            let sectors = |mib: usize| u32::try_from(mib * 2048).unwrap().to_le_bytes();
            image[entry + 8..entry + 12].copy_from_slice(&sectors(*start));
            image[entry + 12..entry + 16].copy_from_slice(&sectors(*size));
        }
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        let directory = tempfile::tempdir().unwrap();
        for (number, label, fill) in [(2, "boot", fill_boot as fn(&Path)), (3, "root", fill_root)] {
            let tree = directory.path().join(label);
            fs::create_dir(&tree).unwrap();
            fill(&tree);
            let (start, size) = PARTITIONS[number - 1];
            let file = directory.path().join(format!("{label}.ext4"));
            fs::File::create(&file).unwrap().set_len((size * MIB) as u64).unwrap();
            tool(MKFS_EXT4, &["-q", "-L", label, "-d", tree.to_str().unwrap(), file.to_str().unwrap()]);
            image[start * MIB..(start + size) * MIB].copy_from_slice(&fs::read(&file).unwrap());
        }
        let system = Self { disk, image };
        // Onto the disk at once: its partitions have caches of their own, which do not see what is in the disk's.
        let mut device = fs::File::options().write(true).open(&system.disk.path).unwrap();
        device.write_all(&system.image).unwrap();
        device.sync_all().unwrap();
        Some(system)
    }

    fn inject(&self, arguments: Value) -> Result<Value, Error> {
        self.inject_on(json!({}), arguments)
    }

    fn inject_on(&self, properties: Value, arguments: Value) -> Result<Value, Error> {
        let deployment = Deployment::new(Settings {
            allow: Some(AllowList::parse(self.disk.name()).unwrap()),
            transport: Transport { attempts: 1, ..Transport::default() },
            disk_wait_attempts: 1,
            ..Settings::default()
        });
        let host = Host::real();
        let registry = Registry::probe(&host, builtin(&deployment));
        let mut properties = properties;
        properties["root_device"] = json!({"name": self.disk.name()});
        let cx =
            Context::new(host, Events::default()).with_node(json!({"uuid": "n-1", "properties": properties}));
        let call = StepCall {
            kind: StepKind::Deploy,
            step: "inject_files".into(),
            arguments: arguments.as_object().unwrap().clone(),
            ports: json!([{"address": "52:54:00:00:00:01"}]),
        };
        registry.run_step(&call, &cx)
    }

    /// What debugfs says of a partition, after it was checked for damage.
    fn debugfs(&self, number: usize, command: &str) -> String {
        let (start, size) = PARTITIONS[number - 1];
        Host::real().kernel().flush_buffers(&self.disk.path).unwrap();
        let bytes = self.disk.read((start * MIB) as u64, size * MIB);
        let directory = tempfile::tempdir().unwrap();
        let file = support::file(directory.path(), "part", &bytes);
        tool("/usr/sbin/e2fsck", &["-f", "-n", file.to_str().unwrap()]);
        tool(DEBUGFS, &["-R", command, file.to_str().unwrap()])
    }
}

fn fill_boot(tree: &Path) {
    fs::create_dir(tree.join("grub")).unwrap();
}

fn fill_root(tree: &Path) {
    fs::create_dir_all(tree.join("etc/ssh")).unwrap();
    fs::write(tree.join("etc/motd"), "a long message of the day").unwrap();
    std::os::unix::fs::symlink("/tmp", tree.join("etc/escape")).unwrap();
}

#[test]
fn loop_files_reach_the_partition_that_has_their_directory() {
    let Some(system) = System::new() else { return };
    let url = serve(vec![("n-1.conf", b"from a server".to_vec())]);
    let result = system.inject_on(
        json!({"inject_files": [{"path": "/etc/motd", "content": "c2hvcnQ="}]}),
        json!({"files": [
            {"path": "/etc/ssh/keys/root", "content": "a2V5", "mode": 0o600, "dirmode": 0o700, "owner": 7, "group": 8},
            {"path": "/grub/custom.cfg", "content": format!("{url}/{{node[uuid]}}.conf")},
        ]}),
    );
    assert_eq!(result.unwrap(), Value::Null);
    assert_eq!(system.debugfs(3, "cat /etc/motd"), "short");
    assert_eq!(system.debugfs(3, "cat /etc/ssh/keys/root"), "key");
    let stat = system.debugfs(3, "stat /etc/ssh/keys/root");
    assert!(stat.contains("Mode:  0600") && stat.contains("User:     7   Group:     8"), "{stat}");
    assert!(system.debugfs(3, "stat /etc/ssh/keys").contains("Mode:  0700"));
    assert!(system.debugfs(3, "stat /etc/ssh").contains("Mode:  0755"), "directories above keep their mode");
    assert_eq!(system.debugfs(2, "cat /grub/custom.cfg"), "from a server");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(system.disk.name()), "nothing stays mounted");
}

#[test]
fn loop_partitions_are_named_by_number_device_and_label() {
    let Some(system) = System::new() else { return };
    let node = format!("{}p3", system.disk.name());
    system
        .inject(json!({"files": [
            {"path": "/by-number", "content": "MQ==", "partition": 3},
            {"path": "/by-node", "content": "Mg==", "partition": node},
            {"path": "/by-label", "content": "Mw==", "partition": "LABEL=boot"},
            {"path": "/etc/motd", "deleted": true},
            {"path": "/etc/nothing", "deleted": true},
        ]}))
        .unwrap();
    assert_eq!(
        (system.debugfs(3, "cat /by-number"), system.debugfs(3, "cat /by-node")),
        ("1".into(), "2".into())
    );
    assert_eq!(system.debugfs(2, "cat /by-label"), "3");
    assert!(!system.debugfs(3, "ls -p /etc").contains("motd"));
}

#[test]
fn loop_links_of_the_image_do_not_lead_into_the_ramdisk() {
    let Some(system) = System::new() else { return };
    let name = format!("ferric-escape-{}", std::process::id());
    let error = system
        .inject(json!({"files": [{"path": format!("/etc/escape/{name}"), "content": "QQ=="}]}))
        .unwrap_err();
    assert!(matches!(&error, Error::Execution { message } if message.contains(&name)), "{error:?}");
    assert!(!Path::new("/tmp").join(&name).exists());
}

#[test]
fn loop_what_has_no_place_is_not_found_and_changes_nothing() {
    let Some(system) = System::new() else { return };
    for (entry, word) in [
        (json!({"path": "/opt/x", "content": "QQ=="}), "no partition of"),
        (json!({"path": "/x", "content": "QQ==", "partition": 9}), "no partition 9"),
        (json!({"path": "/x", "content": "QQ==", "partition": "LABEL=nobody"}), "LABEL=nobody"),
    ] {
        let error = system.inject(json!({"files": [entry]})).unwrap_err();
        assert!(matches!(error, Error::DeviceNotFound { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let error =
        system.inject(json!({"files": [{"path": "/x", "content": "QQ==", "partition": 1}]})).unwrap_err();
    assert!(
        matches!(&error, Error::BlockDevice { message } if message.contains("unknown content")),
        "{error:?}"
    );
    assert!(
        system.inject(json!({"files": [{"path": "/etc/x", "content": "QQ==", "mode": "0644"}]})).is_err()
    );
    assert_eq!(system.debugfs(3, "cat /etc/motd"), "a long message of the day");
}

#[test]
fn loop_content_that_can_not_be_fetched_names_its_file() {
    let Some(system) = System::new() else { return };
    let url = serve(vec![]);
    let error = system
        .inject(json!({"files": [{"path": "/etc/x", "content": format!("{url}/missing")}]}))
        .unwrap_err();
    assert!(matches!(&error, Error::Execution { message } if message.contains("etc/x")), "{error:?}");
}
