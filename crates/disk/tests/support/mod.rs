//! What tests of real block devices share: loop devices over files that the test makes, and tools to compare with.

#![allow(dead_code)] // each test binary uses its part
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use disk::table::Table;
use disk::{AllowList, Policy, Refusal, Target, list};
use sys::{CommandLine, Host, Runner, SystemRunner};

pub const MIB: u64 = 1 << 20;

/// Runs a tool; `None` when it is not installed.
pub fn try_run(argv: &[&str], stdin: &str) -> Option<String> {
    let command = CommandLine::new(argv.iter().copied()).stdin(stdin);
    match SystemRunner.run(&command) {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(sys::RunError::Start { .. }) => None,
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

pub fn run(argv: &[&str]) -> String {
    try_run(argv, "").unwrap_or_else(|| panic!("{} is not installed", argv[0]))
}

/// Whether this machine can run these tests; says why not.
pub fn able(tools: &[&str]) -> bool {
    let is_root =
        std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap_or(1) == 0;
    let missing = tools.iter().find(|tool| !Path::new(tool).exists());
    if !is_root || !Path::new("/dev/loop-control").exists() || missing.is_some() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: needs root, loop devices and {tools:?}\n"),
        ); // past cargo's capture: it counts
        return false;
    }
    true
}

pub const LOSETUP: &str = "/usr/sbin/losetup";
pub const SGDISK: &str = "/usr/sbin/sgdisk";

/// A loop device over a file; detached when dropped.
pub struct Loop {
    pub node: String,
    pub file: PathBuf,
    /// Keeps the file of a device that made its own.
    directory: Option<tempfile::TempDir>,
}

impl Loop {
    pub fn new(mebibytes: u64, sector: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk");
        File::create(&file).unwrap().set_len(mebibytes * MIB).unwrap();
        let mut device = Self::attach(&file, sector, &[]);
        device.directory = Some(directory);
        device
    }

    pub fn attach(file: &Path, sector: u32, options: &[&str]) -> Self {
        let sector = sector.to_string();
        let mut argv = vec![LOSETUP, "--find", "--show", "--sector-size", sector.as_str()];
        argv.extend(options);
        argv.push(file.to_str().unwrap());
        let node = run(&argv).trim().to_owned();
        assert!(node.starts_with("/dev/loop"), "{node}");
        Self { node, file: file.into(), directory: None }
    }

    pub fn policy(&self) -> Policy {
        Policy { allow: Some(AllowList::parse(&self.node).unwrap()), in_ramdisk: false }
    }

    pub fn claim(&self) -> Result<Target, Refusal> {
        let (host, policy) = (Host::real(), self.policy());
        let disk =
            list(&host, policy.allow.as_ref()).unwrap().into_iter().find(|disk| disk.name == self.node);
        Target::claim(&host, &disk.unwrap(), &policy)
    }

    pub fn table(&self) -> Table {
        Table::read_device(Path::new(&self.node)).unwrap()
    }

    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        File::open(&self.node).unwrap().read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        try_run(&[LOSETUP, "--detach", &self.node], "");
    }
}

/// An image of 32 MiB with Ubuntu's partition numbers, on a disk of 96 MiB.
pub fn gpt_image_on_larger_disk(sector: u32) -> Loop {
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

/// What sgdisk thinks of the table.
pub fn is_clean(device: &Loop) {
    let report = run(&[SGDISK, "-v", &device.node]);
    assert!(report.contains("No problems found"), "{report}");
}
