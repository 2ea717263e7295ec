//! A bootable container onto a loop device. Podman is played, by somebody who writes a disk; what Ferric does before and after
//! it is real.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that all of this is a test

mod support;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use disk::AllowList;
use events::Events;
use hardware_managers::{Deployment, InstallBootc, Settings};
use hwm::{Context, Error};
use serde_json::json;
use support::{DISK_BYTES, Loop, MIB, config_drive, image};
use sys::fake::RecordingKernel;
use sys::{CommandLine, Host, Output, RunError, Runner};
use wire::Secret;

/// Installs by writing these bytes to the device, and remembers what it was asked.
#[derive(Clone)]
struct Podman {
    installs: Vec<u8>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Runner for Podman {
    fn run(&self, command: &CommandLine) -> Result<Output, RunError> {
        let argv = &command.argv;
        if argv[0] != "/usr/bin/podman" {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(RunError::Start { command: command.to_string(), source });
        }
        self.asked.lock().unwrap().push(command.to_string());
        if argv.iter().any(|word| word == "bootc") {
            let mut disk = File::options().write(true).open(argv.last().unwrap()).unwrap();
            disk.write_all(&self.installs).unwrap();
            disk.sync_all().unwrap();
        }
        Ok(Output { stdout: Vec::new(), stderr: Vec::new() })
    }
}

/// What becomes of an installation that leaves `installs` at the start of the disk, and what podman was asked.
fn install(disk: &Loop, installs: &[u8]) -> (Result<String, Error>, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    for folder in ["sys", "proc", "dev"] {
        symlink(Path::new("/").join(folder), root.path().join(folder)).unwrap();
    }
    std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    std::fs::write(root.path().join("usr/bin/podman"), "").unwrap();
    let podman = Podman { installs: installs.to_vec(), asked: Arc::default() };
    let host = Host::new(root.path(), Arc::new(podman.clone()), Arc::new(RecordingKernel::default()));
    let node = json!({"instance_info": {"root_device": {"name": disk.name()}}});
    let cx = Context::new(host, Events::default()).with_node(node);
    let deployment = Deployment::new(Settings {
        allow: Some(AllowList::parse(disk.name()).unwrap()),
        disk_wait_attempts: 1,
        ..Settings::default()
    });
    let drive = base64::engine::general_purpose::STANDARD.encode(config_drive());
    let request = InstallBootc {
        image_source: "oci://registry.invalid/os:1".into(),
        instance_info: serde_json::Map::new(),
        pull_secret: None,
        configdrive: Some(Secret::new(drive)),
    };
    let result = deployment.install_bootc(&cx, &request);
    let asked = podman.asked.lock().unwrap().clone();
    (result, asked)
}

#[test]
fn loop_an_installed_container_is_looked_at_and_gets_its_config_drive() {
    let Some(disk) = Loop::of(1024 * MIB as u64, 512) else { return };
    let (result, asked) = install(&disk, &image());
    result.unwrap_or_else(|error| panic!("{}", hwm::chain(&error)));
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].contains(" pull ") && asked[0].ends_with("registry.invalid/os:1"), "{asked:?}");
    assert!(asked[1].contains("--root-size=256M") && asked[1].ends_with(disk.name()), "{asked:?}");
    let drive = disk.read(960 * MIB as u64, config_drive().len());
    assert_eq!(drive, config_drive(), "in a new partition over the last 64 MiB");
    assert_eq!(disk.read(446 + 16 + 4, 1), [0x0c], "the second entry of its MBR");
}

#[test]
fn loop_an_installation_that_leaves_no_partition_table_fails_and_gets_no_config_drive() {
    let Some(disk) = Loop::of(1024 * MIB as u64, 512) else { return };
    let (result, asked) = install(&disk, &vec![0; MIB]);
    let error = result.unwrap_err();
    assert!(matches!(error, Error::InvalidImage { .. }), "{error:?}");
    assert_eq!(asked.len(), 2, "{asked:?}");
    let drive = disk.read(960 * MIB as u64, config_drive().len());
    assert!(drive.iter().all(|byte| *byte == 0), "nothing was written there");
}

#[test]
fn loop_a_disk_without_room_for_a_container_is_left_alone() {
    let Some(disk) = Loop::of(DISK_BYTES, 512) else { return };
    let (result, asked) = install(&disk, &image());
    let error = result.unwrap_err();
    assert!(error.to_string().contains("too small"), "{error}");
    assert!(asked.is_empty() && disk.is_untouched(), "{asked:?}");
}
