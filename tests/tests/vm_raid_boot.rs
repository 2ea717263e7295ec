//! A Debian that is deployed to software RAID 1 starts with UEFI: the firmware boots from the mirrored EFI system partition beside
//! the array, grub and the system find the rest inside of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod guest;

use anyhow::{Result, ensure};
use e2e::{Boot, Disk, Firmware, Scratch, Vm, VmConfig, debian_image, patient, skip_vm};

const DISK_BYTES: u64 = 2 << 30;

#[test]
fn vm_debian_starts_from_a_mirror_on_uefi() -> Result<()> {
    if guest::is_here() {
        inside::run();
    }
    if skip_vm()? {
        return Ok(());
    }
    let scratch = Scratch::new("raid-boot")?;
    let debian = debian_image()?;
    let mut config = VmConfig::new(Firmware::Uefi);
    for name in ["first", "second"] {
        let disk = Disk::blank(scratch.join(format!("{name}.raw")), DISK_BYTES)?;
        config = config.disk(Disk { serial: name.into(), ..disk });
    }
    config.memory_mib = 1024;
    config.no_reboot = true;
    let image = format!("{}:/image.qcow2", debian.path("disk-zstd.qcow2").display());
    let sums = format!("{}:/SHA256SUMS", debian.path("SHA256SUMS").display());
    config.boot = guest::boot(&scratch, &["--with", "mdadm", "--add", &image, "--add", &sums])?;
    let mut vm = Vm::start(&config, scratch.path(), "deploy")?;
    vm.serial.wait_for(guest::DONE, patient(300))?;
    vm.wait_off(patient(60))?;

    config.boot = Boot::Disk;
    config.memory_mib = 512;
    config.variables = Some(scratch.join("deploy.vars.fd"));
    let vm = Vm::start(&config, scratch.path(), "start")?;
    let line = vm.serial.wait_for("FERRIC-DEPLOYED", patient(300))?;
    let console = std::fs::read(vm.serial.path())?;
    let console = String::from_utf8_lossy(&console);
    ensure!(console.contains("(RAID, part"), "not by an entry of ours: {console}");
    let line = line.text;
    ensure!(line.contains("firmware=uefi") && line.contains("root=/dev/md"), "{line}");
    scratch.passed();
    Ok(())
}

/// What happens inside the machine.
mod inside {
    use hardware_managers::{Checksum, Choice, Deployment, Image, InstallBootloader, Settings, builtin};
    use hwm::{Context, Registry, StepCall};
    use imaging::{ExpectedDigest, Format};
    use serde_json::json;
    use sys::{Host, MountRequest};
    use wire::StepKind;

    use super::guest::{end, prepare, say};

    const MODULES: [&str; 8] = ["virtio", "md_mod", "raid1", "crc", "fat", "vfat", "nls", "efivarfs"];

    pub fn run() -> ! {
        let host = Host::real();
        prepare(&host, &MODULES, 2);
        let variables = "/sys/firmware/efi/efivars";
        let _ = host.kernel().mount(&MountRequest::new("efivarfs", variables, "efivarfs")); // said by what follows
        let outcome =
            std::panic::catch_unwind(|| story(&Host::real())).unwrap_or_else(|_| Err("a panic".into()));
        end(&host, outcome)
    }

    fn story(host: &Host) -> Result<(), String> {
        let show = |error: hwm::Error| hwm::chain(&error);
        let deployment = Deployment::new(Settings::default());
        let registry = Registry::probe(host, builtin(&deployment));
        let disks = json!([{"controller": "software", "raid_level": "1", "size_gb": "MAX", "volume_name": "root",
                            "is_root_volume": true}]);
        let node = json!({"uuid": "u", "target_raid_config": {"logical_disks": disks}});
        let cx = Context::new(host.clone(), events::Events::default()).with_node(node);
        let call = StepCall {
            kind: StepKind::Clean,
            step: "create_configuration".into(),
            arguments: Default::default(),
            ports: json!([]),
        };
        registry.run_step(&call, &cx).map_err(show)?;
        let sums = std::fs::read_to_string("/SHA256SUMS").map_err(|error| error.to_string())?;
        let sum =
            sums.lines().find(|line| line.ends_with("disk-zstd.qcow2")).unwrap().split(' ').next().unwrap();
        let image = Image {
            label: "disk".into(),
            sources: vec!["file:///image.qcow2".into()],
            checksum: Checksum::Digest(ExpectedDigest::from_hex(sum).unwrap()),
            format: Format::Qcow2,
            authorization: None,
            proxies: Default::default(),
            signature: Default::default(),
            verify: false,
            translate_sector_size: Default::default(),
            partition: None,
        };
        let deployed = deployment.write(&cx, &image, None, &Choice::Hints).map_err(show)?;
        say(&format!("GUEST wrote to {}", deployed.disk.name));
        // Twice: the second time finds the mirror, and the entries are replaced.
        for _ in 0..2 {
            deployment.install_bootloader(&cx, &InstallBootloader::default()).map_err(show)?;
        }
        for array in disk::md::arrays(host).map_err(|error| error.to_string())? {
            say(&format!("GUEST has {array:?}"));
        }
        Ok(())
    }
}
