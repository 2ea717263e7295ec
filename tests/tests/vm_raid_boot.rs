//! A Debian that is deployed to software RAID 1 starts from it, and starts again after one of its disks is gone. With UEFI the
//! firmware boots from the mirrored EFI system partition beside the array; with BIOS from the image's own grub, which was put onto
//! each disk. Grub and the system find the rest inside of the array.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod guest;

use anyhow::{Result, ensure};
use e2e::{Boot, Disk, Firmware, Scratch, Vm, VmConfig, debian_image, patient, skip_vm};

const DISK_BYTES: u64 = 2 << 30;
/// On the kernel's command line of the deploying machine: the disks get a GPT, and BIOS a partition of its own. Such a machine is
/// started without its first disk alone.
const GPT: &str = "guest.gpt";

#[test]
fn vm_debian_starts_from_a_mirror_on_uefi() -> Result<()> {
    starts_from_a_mirror("raid-boot-uefi", Firmware::Uefi, "")
}

#[test]
fn vm_debian_starts_from_a_mirror_on_bios() -> Result<()> {
    starts_from_a_mirror("raid-boot-bios", Firmware::Bios, "")
}

#[test]
fn vm_debian_starts_from_a_mirror_on_bios_with_gpt() -> Result<()> {
    starts_from_a_mirror("raid-boot-bios-gpt", Firmware::Bios, GPT)
}

fn starts_from_a_mirror(name: &str, firmware: Firmware, parameter: &str) -> Result<()> {
    if guest::is_here() {
        inside::run();
    }
    if skip_vm()? {
        return Ok(());
    }
    let scratch = Scratch::new(name)?;
    let debian = debian_image()?;
    let mut config = VmConfig::new(firmware);
    for name in ["first", "second"] {
        let disk = Disk::blank(scratch.join(format!("{name}.raw")), DISK_BYTES)?;
        config = config.disk(Disk { serial: name.into(), ..disk });
    }
    config.memory_mib = 1024;
    config.no_reboot = true;
    let image = format!("{}:/image.qcow2", debian.path("disk-zstd.qcow2").display());
    let sums = format!("{}:/SHA256SUMS", debian.path("SHA256SUMS").display());
    config.boot = guest::boot(&scratch, &["--with", "mdadm", "--add", &image, "--add", &sums])?;
    if let Boot::Direct { command_line, .. } = &mut config.boot {
        // A busy host emulates the timer too late for the kernel's check of it.
        // grub's scripts start hundreds of processes. QEMU 7 translates a library anew for each address that it is mapped to, and then
        // takes minutes to forget all of that when the image is unmounted and the library's memory is used for something else.
        command_line.push_str(&format!(" no_timer_check norandmaps {parameter}"));
    }
    let mut vm = Vm::start(&config, scratch.path(), "deploy")?;
    vm.serial.wait_for(guest::DONE, patient(600))?;
    vm.wait_off(patient(60))?;

    config.boot = Boot::Disk;
    config.memory_mib = 512;
    config.variables = Some(scratch.join("deploy.vars.fd"));
    if parameter.is_empty() {
        starts(&config, &scratch, "start")?;
    }
    // The one that the firmware has tried first so far.
    config.disks.remove(0);
    starts(&config, &scratch, "degraded")?;
    scratch.passed();
    Ok(())
}

/// Starts the machine from its disks, and switches it off.
fn starts(config: &VmConfig, scratch: &Scratch, name: &str) -> Result<()> {
    let vm = Vm::start(config, scratch.path(), name)?;
    let line = vm.serial.wait_for("FERRIC-DEPLOYED", patient(300))?;
    let console = std::fs::read(vm.serial.path())?;
    let console = String::from_utf8_lossy(&console);
    let firmware = match config.firmware {
        Firmware::Uefi => {
            ensure!(console.contains("(RAID, part"), "not by an entry of ours: {console}");
            "uefi"
        }
        Firmware::Bios => {
            // grub's menu says so, and waits, where it is to remember what it started.
            ensure!(!console.contains("writes are not supported"), "{console}");
            "bios"
        }
    };
    ensure!(line.field("firmware") == Some(firmware), "{}", line.text);
    ensure!(line.field("root").is_some_and(|root| root.starts_with("/dev/md")), "{}", line.text);
    Ok(())
}

/// What happens inside the machine.
mod inside {
    use disk::md;
    use disk::table::Table;
    use hardware_managers::{Checksum, Choice, Deployment, Image, InstallBootloader, Settings, builtin};
    use hwm::{Context, Error, Registry, StepCall};
    use imaging::{ExpectedDigest, Format};
    use serde_json::json;
    use sys::{Host, MountRequest};
    use wire::StepKind;

    use super::guest::{end, prepare, say};

    const MODULES: [&str; 12] = [
        "virtio",
        "md_mod",
        "raid1",
        "crc",
        "libcrc32c",
        "fat",
        "vfat",
        "nls",
        "efivarfs",
        "ext4",
        "jbd2",
        "mbcache",
    ];

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
        let show = |error: Error| hwm::chain(&error);
        let deployment = Deployment::new(Settings::default());
        let registry = Registry::probe(host, builtin(&deployment));
        let words = std::fs::read_to_string("/proc/cmdline").map_err(|error| error.to_string())?;
        let label = if words.contains(super::GPT) { "gpt" } else { "msdos" };
        let disks = json!([{"controller": "software", "raid_level": "1", "size_gb": "MAX", "volume_name": "root",
                            "is_root_volume": true}]);
        let node = json!({
            "uuid": "u",
            "properties": {
                "capabilities": format!("disk_label:{label}"),
                "skip_block_devices": [{"volume_name": "root"}],
            },
            "target_raid_config": {"logical_disks": disks},
        });
        let keeping = Context::new(host.clone(), events::Events::default()).with_node(node.clone());
        let mut node = node;
        node["properties"]["skip_block_devices"] = json!([]);
        let cx = Context::new(host.clone(), events::Events::default()).with_node(node);
        let run = |step: &str, cx: &Context| {
            let call = StepCall {
                kind: StepKind::Clean,
                step: step.into(),
                arguments: Default::default(),
                ports: json!([]),
            };
            registry.run_step(&call, cx).map_err(show)
        };
        run("create_configuration", &cx)?;
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
            allow_no_partition_table: false,
            partition: None,
        };
        let deployed = deployment.write(&cx, &image, None, &Choice::Hints).map_err(show)?;
        say(&format!("GUEST wrote to {}", deployed.disk.name));
        if !host.is_uefi() {
            match deployment.install_bootloader(&cx, &InstallBootloader::default()) {
                Err(Error::InvalidImage { message })
                    if message.contains("enable_bios_bootloader_install") => {}
                other => return Err(format!("a program of the image was run, or not asked for: {other:?}")),
            }
            deployment.configure(|settings| settings.enable_bios_bootloader_install = true);
        }
        // Twice: the second time finds what the first one made. In the gap behind an MBR there is nothing to be found.
        for _ in 0..if host.is_uefi() || label == "gpt" { 2 } else { 1 } {
            deployment.install_bootloader(&cx, &InstallBootloader::default()).map_err(show)?;
        }
        for array in md::arrays(host).map_err(|error| error.to_string())? {
            say(&format!("GUEST has {array:?}"));
        }
        if label == "gpt" && !host.is_uefi() {
            for disk in ["/dev/vda", "/dev/vdb"] {
                let table = Table::read_device(&host.path(disk)).map_err(|error| error.to_string())?;
                let kinds: Vec<bool> = table.partitions().iter().map(|found| found.is_bios_boot()).collect();
                if kinds != [false, true] {
                    return Err(format!("{disk}: {table:?}"));
                }
            }
        }
        // What is kept is kept with all that it starts from.
        for step in ["erase_devices_metadata", "erase_devices"] {
            run(step, &keeping)?;
        }
        Ok(())
    }
}
