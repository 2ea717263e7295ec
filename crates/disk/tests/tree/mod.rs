//! A small fixture tree that stands for `/sys`, `/proc` and `/dev` of a machine.

#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use disk::list;
use sys::Host;
use wire::Disk;

/// A `/sys`, `/proc` and `/dev` in a directory.
pub struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["sys/block", "sys/devices", "sys/bus", "dev", "proc/self"] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::fs::write(root.path().join("proc/self/mountinfo"), "1 1 0:2 / / rw - rootfs rootfs rw\n")
            .unwrap();
        Self { root }
    }

    pub fn host(&self) -> Host {
        sys::fake::host(self.root.path())
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub fn put(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// A device directory below `sys/devices` with its subsystem.
    pub fn device(&self, directory: &str, subsystem: &str) {
        let directory = self.path(&format!("sys/devices/{directory}"));
        std::fs::create_dir_all(&directory).unwrap();
        symlink(Path::new("/sys/bus").join(subsystem), directory.join("subsystem")).unwrap();
    }

    /// A block device in a device directory, linked from `sys/block`. 10 GiB, 512-byte sectors.
    pub fn block(&self, parent: &str, name: &str, files: &[(&str, &str)]) {
        let directory = format!("sys/devices/{parent}/block/{name}");
        self.device(&format!("{parent}/block/{name}"), "block");
        for (file, content) in [
            ("size", "20971520"),
            ("dev", "8:0"),
            ("ro", "0"),
            ("queue/rotational", "0"),
            ("queue/logical_block_size", "512"),
            ("queue/physical_block_size", "4096"),
        ] {
            self.put(&format!("{directory}/{file}"), format!("{content}\n"));
        }
        for (file, content) in files {
            self.put(&format!("{directory}/{file}"), format!("{content}\n"));
        }
        if self.path(&format!("sys/devices/{parent}/subsystem")).symlink_metadata().is_ok() {
            symlink("../..", self.path(&format!("{directory}/device"))).unwrap();
        }
        symlink(format!("../devices/{parent}/block/{name}"), self.path(&format!("sys/block/{name}")))
            .unwrap();
    }

    /// A SCSI disk: host, target, device and its VPD pages.
    pub fn scsi(&self, bus: &str, address: &str, name: &str) -> String {
        let mut numbers = address.split(':');
        let host = numbers.next().unwrap();
        let target = address.rsplit_once(':').unwrap().0;
        let directory = format!("{bus}/host{host}/target{target}/{address}");
        self.device(&format!("{bus}/host{host}"), "scsi");
        self.device(&format!("{bus}/host{host}/target{target}"), "scsi");
        self.device(&directory, "scsi");
        self.put(&format!("sys/devices/{directory}/type"), "0\n");
        self.put(&format!("sys/devices/{directory}/scsi_device/{address}/x"), "");
        self.block(&directory, name, &[]);
        directory
    }

    pub fn only(&self) -> Disk {
        let disks = list(&self.host(), None).unwrap();
        assert_eq!(disks.len(), 1, "{disks:?}");
        disks[0].clone()
    }
}

/// A page of vital product data, as sysfs shows it.
pub fn page(code: u8, body: &[u8]) -> Vec<u8> {
    [&[0, code, 0, u8::try_from(body.len()).unwrap()], body].concat()
}
