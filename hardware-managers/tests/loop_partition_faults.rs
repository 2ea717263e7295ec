//! A disk that fails at each operation of a partition image's deployment. The operations are the system calls of a real process on a real
//! loop device: strace has one of them fail.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that all of this is a test

mod support;

use std::io::Write;
use std::path::Path;

use disk::table::Table;
use serde_json::json;
use support::partition::{Machine, disk, root_image_of};
use support::{Loop, MIB, config_drive};

const STRACE: &str = "/usr/bin/strace";
/// Names the disk, in the process whose system calls fail.
const CHILD: &str = "FERRIC_TEST_FAULTY_DISK";

/// Deploys in a process of its own, whose operation number `fault` on the disk fails with EIO; counted in each thread. What it says.
#[allow(clippy::disallowed_methods)] // the test itself runs strace
fn deploy_faulty(disk: &Loop, directory: &Path, name: &str, capabilities: &str, fault: u32) -> String {
    const CALLS: &str = "pwrite64,fallocate,fsync,fdatasync";
    let output = std::process::Command::new(STRACE)
        .args(["-f", "-qq", "-o", "/dev/null", "-P", disk.name(), "-e", &format!("trace={CALLS}")])
        .args(["-e", &format!("inject={CALLS}:error=EIO:when={fault}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, disk.name())
        .env("FERRIC_TEST_FOLDER", directory)
        .env("FERRIC_TEST_CAPABILITIES", capabilities)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcome = words.lines().find_map(|line| line.split_once("OUTCOME ")).map(|(_, rest)| rest.to_owned());
    outcome.unwrap_or_else(|| panic!("no outcome: {output:?}"))
}

#[test]
fn loop_a_disk_that_fails_at_any_operation_is_left_without_a_system_and_takes_the_next_image() {
    let small = || json!({"root_mb": 8, "swap_mb": 1});
    if let Some(path) = std::env::var_os(CHILD) {
        let disk = Loop::of_parent(path.into());
        let folder = std::path::PathBuf::from(std::env::var_os("FERRIC_TEST_FOLDER").unwrap());
        let capabilities = std::env::var_os("FERRIC_TEST_CAPABILITIES").unwrap().into_string().unwrap();
        let machine = Machine::new(&disk, &capabilities);
        let result =
            machine.deploy(&std::fs::read(folder.join("root.img")).unwrap(), small(), Some(&config_drive()));
        let text = result
            .map_or_else(|error| format!("failed: {}", hwm::chain(&error)), |text| format!("done: {text}"));
        println!("OUTCOME {}", text.replace('\n', " "));
        return;
    }
    if !Path::new(STRACE).exists() {
        let _ = Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: needs {STRACE}\n"));
        return;
    }
    let name = "loop_a_disk_that_fails_at_any_operation_is_left_without_a_system_and_takes_the_next_image";
    for capabilities in ["boot_mode:bios", "boot_mode:bios,disk_label:gpt"] {
        let Some(disk) = disk(32, 512) else { return };
        let directory = tempfile::tempdir().unwrap();
        let image = root_image_of(directory.path(), "3m");
        let machine = Machine::new(&disk, capabilities);
        let (mut failures, mut is_cleared) = (0, false);
        for fault in 1.. {
            let outcome = deploy_faulty(&disk, directory.path(), name, capabilities, fault);
            if outcome.starts_with("done") {
                break;
            }
            failures += 1;
            let says = |words: &str| outcome.contains(words);
            assert!(says(disk.name()) && says("os error 5"), "{fault}: {outcome}");
            let head = disk.read(0, MIB);
            let has_table = head[510..512] == [0x55, 0xaa];
            if says("may still boot the old system") {
                assert!(!is_cleared, "{fault}: {outcome}");
            } else {
                is_cleared = true;
                assert!(head[..440].iter().all(|byte| *byte == 0), "{fault}: boot code");
                // Once the sector that makes the table count is written, everything else is on the disk.
                let root =
                    |table: &Table| table.partitions().last().map_or(0, |partition| partition.start_byte);
                let whole = || disk.read(root(&machine.table()), image.len()) == image;
                assert!(!has_table || whole(), "{fault}: a table without a system: {outcome}");
            }
            machine.deploy(&image, small(), Some(&config_drive())).unwrap();
            let root = machine.table().partitions().last().unwrap().start_byte;
            assert_eq!(disk.read(root, image.len()), image);
        }
        println!("{capabilities}: {failures} operations failed in turn");
        assert!(failures >= 10, "{capabilities}: {failures}");
    }
}
