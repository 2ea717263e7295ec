//! What is run in an image, and in which order, with programs and mounts played by fakes.

use std::sync::Arc;

use sys::Host;
use sys::fake::{FakeRunner, RecordingKernel};

use super::*;

const UUID: &str = "11111111-1111-1111-1111-111111111111";

/// A machine with a disk of 8 MiB: an MBR with one active partition from 1 MiB on, which holds an ext4 superblock.
fn machine(code: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let mut disk = vec![0; 8 << 20];
    disk[..code.len()].copy_from_slice(code);
    disk[446] = 0x80;
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&2048u32.to_le_bytes());
    disk[458..462].copy_from_slice(&8192u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[(1 << 20) + 1080..][..2].copy_from_slice(&[0x53, 0xef]);
    disk[(1 << 20) + 1120] = 0x40;
    disk[(1 << 20) + 1128..][..16].copy_from_slice(&[0x11; 16]);
    std::fs::create_dir_all(root.path().join("dev")).unwrap();
    std::fs::write(root.path().join("dev/sda"), disk).unwrap();
    let path = root.path().to_owned();
    (root, path)
}

fn request() -> InstallBootloader {
    InstallBootloader { root_uuid: Some(UUID.into()), ..InstallBootloader::default() }
}

fn run(root: &std::path::Path, request: &InstallBootloader) -> Result<(), Error> {
    let host = Host::new(root, Arc::new(FakeRunner::default()), Arc::new(RecordingKernel::default()));
    let cx = Context::new(host, events::Events::default());
    Job {
        cx: &cx,
        device: "/dev/sda",
        request,
        patience: disk::Patience::default(),
        boot_entries: &|| Ok(true),
        below: None,
    }
    .run()
}

#[test]
fn an_image_with_a_boot_sector_of_its_own_is_left_alone() {
    let (_keep, root) = machine(&[0xeb, 0x58, 0x90]);
    run(&root, &request()).unwrap();
}

#[test]
fn a_root_that_is_not_there_is_not_found() {
    let (_keep, root) = machine(&[]);
    let other = InstallBootloader { root_uuid: Some("elsewhere".into()), ..InstallBootloader::default() };
    let error = run(&root, &other).unwrap_err();
    assert!(
        matches!(error, Error::DeviceNotFound { .. }) && error.to_string().contains("elsewhere"),
        "{error}"
    );
}

/// An image as far as its programs go, and what is run in it.
fn image(programs: &[&str], runner: FakeRunner) -> (tempfile::TempDir, System) {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), Arc::new(runner), Arc::new(RecordingKernel::default()));
    let system = System::mount(&host, "/dev/sda1", "ext4", &[]).unwrap();
    for program in programs {
        let path = system.directory(program.rsplit_once('/').unwrap().0).unwrap();
        std::fs::write(path.join(program.rsplit_once('/').unwrap().1), "").unwrap();
    }
    (root, system)
}

#[test]
fn grub2_wins_where_both_names_are_there() {
    let (_root, system) = image(&["usr/sbin/grub-install", "usr/sbin/grub2-install"], FakeRunner::default());
    let grub = Grub::find(&system).unwrap();
    assert_eq!((grub.prefix, grub.install.as_str()), ("grub2", "/usr/sbin/grub2-install"));
    let error = grub.configure(&system, &CONFIGURE).unwrap_err();
    assert!(error.to_string().contains("no grub2-mkconfig"), "{error}");
}

#[test]
fn an_image_without_grub_is_refused_with_what_to_do() {
    let (_root, system) = image(&["usr/bin/sh"], FakeRunner::default());
    let error = install_bios(&system, &["/dev/sda"], &CONFIGURE).unwrap_err();
    assert!(
        matches!(error, Error::InvalidImage { .. }) && error.to_string().contains("whole-disk"),
        "{error}"
    );
}
