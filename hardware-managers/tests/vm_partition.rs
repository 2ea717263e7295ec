//! A partition image that really boots: a Debian root file system is deployed onto a loop device, its own grub is installed,
//! and a virtual machine starts from the result.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // clippy does not see that all of this is a test
#![allow(clippy::disallowed_methods)] // QEMU and the image's build script are run by the test itself

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use disk::AllowList;
use disk::table::Table;
use events::Events;
use hardware_managers::{Deployment, InstallBootloader, Settings};
use hwm::Context;
use imaging::Transport;
use serde_json::json;
use support::{Loop, MIB, serve, sha256};
use sys::Host;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// On a machine that does much else, with every instruction emulated.
const PATIENCE: Duration = Duration::from_secs(240);

/// The root file system of `tests/images`, built where it is not there yet.
fn root_image() -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/build-debian-image.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the image could not be built");
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    std::fs::read(folder.join("root.qcow2")).unwrap()
}

/// Starts a machine with BIOS from a disk, and gives the line that its system prints when it is up.
fn boot(disk: &Path, folder: &Path) -> String {
    let console = folder.join("console");
    let drive = format!("file={},format=raw,if=virtio,snapshot=on", disk.display());
    let serial = format!("file:{}", console.display());
    let mut machine = Command::new(QEMU)
        .args(["-machine", "q35,accel=tcg", "-m", "512", "-display", "none", "-no-reboot", "-nic", "none"])
        .args(["-drive", &drive, "-serial", &serial])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let text = loop {
        let text = String::from_utf8_lossy(&std::fs::read(&console).unwrap_or_default()).into_owned();
        let is_up = text.lines().any(|line| line.contains("FERRIC-DEPLOYED ") && line.contains("uptime="));
        if is_up || started.elapsed() > PATIENCE || machine.try_wait().unwrap().is_some() {
            break text;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    let _ = machine.kill();
    let _ = machine.wait();
    let line = text.lines().find(|line| line.contains("FERRIC-DEPLOYED "));
    line.unwrap_or_else(|| panic!("it did not come up: {text}")).to_owned()
}

#[test]
fn vm_partition_image_boots_on_bios_by_the_grub_it_brings() {
    let host = Host::real();
    if !Path::new(QEMU).exists() || host.is_uefi() {
        let text = "SKIPPED: a partition image is made to boot with BIOS where QEMU is and this machine has no UEFI\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()); // past cargo's capture: it counts
        return;
    }
    let Some(disk) = Loop::of((1024 * MIB) as u64, 512) else { return };
    let image = root_image();
    let digest = sha256(&image);
    let url = serve(vec![("root.qcow2", image)]);
    let deployment = Deployment::new(Settings {
        allow: Some(AllowList::parse(disk.name()).unwrap()),
        transport: Transport { attempts: 1, ..Transport::default() },
        disk_wait_attempts: 1,
        enable_bios_bootloader_install: true,
        ..Settings::default()
    });
    let node = json!({"instance_info": {"root_device": {"name": disk.name()}},
                      "properties": {"capabilities": "boot_mode:bios"}});
    let cx = Context::new(host.clone(), Events::default()).with_node(node);
    let info = json!({
        "id": "root.qcow2", "urls": [format!("{url}/root.qcow2")], "disk_format": "qcow2", "os_hash_algo": "sha256",
        "os_hash_value": digest, "root_mb": 700, "swap_mb": 64, "ephemeral_mb": 0, "ephemeral_format": null,
        "preserve_ephemeral": false, "image_type": "partition", "deploy_boot_mode": "bios",
    });
    let show = |error: hwm::Error| hwm::chain(&error);
    deployment.prepare_image(&cx, serde_json::from_value(info).unwrap(), None).map_err(show).unwrap();
    let root = deployment.partition_uuids()["root uuid"].as_str().unwrap().to_owned();
    let request = InstallBootloader { root_uuid: Some(root), ..InstallBootloader::default() };
    deployment.install_bootloader(&cx, &request).map_err(show).unwrap();

    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(disk.name()), "nothing of the image stays mounted");
    disk::show_partitions(&host, disk.name(), &Table::None, disk::Patience::default()).unwrap();
    let kernel_name = disk.path.file_name().unwrap().to_str().unwrap();
    let file = std::fs::read_to_string(format!("/sys/block/{kernel_name}/loop/backing_file")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let line = boot(Path::new(file.trim()), folder.path());
    assert!(line.contains("firmware=bios") && line.contains("root=/dev/vda2"), "{line}");
}
