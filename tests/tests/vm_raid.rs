//! Software RAID in a virtual machine: arrays are made, found again after they were stopped, kept, and deleted, with the
//! ramdisk's own mdadm. What is on the disks afterwards is read from their files, on the host.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod guest;

use std::fs;

use anyhow::{Result, ensure};
use e2e::{Disk, Firmware, Scratch, Vm, VmConfig, patient, skip_vm};

const DISK_BYTES: u64 = 3 << 30;
/// What the host writes to the disk that is to be left alone.
const OLD: u8 = 0xa5;

#[test]
fn vm_arrays_are_made_found_again_kept_and_deleted() -> Result<()> {
    if guest::is_here() {
        inside::run();
    }
    if skip_vm()? {
        return Ok(());
    }
    let scratch = Scratch::new("raid")?;
    let mut config = VmConfig::new(Firmware::Bios);
    for name in ["first", "second"] {
        let disk = Disk::blank(scratch.join(format!("{name}.raw")), DISK_BYTES)?;
        config = config.disk(Disk { serial: name.into(), ..disk });
    }
    let kept = scratch.join("kept.raw");
    fs::write(&kept, vec![OLD; 32 << 20])?;
    config = config.disk(Disk { serial: "kept".into(), ..Disk::new(&kept) });
    config.memory_mib = 1024;
    config.no_reboot = true;
    config.boot = guest::boot(&scratch, &["--with", "mdadm"])?;
    let mut vm = Vm::start(&config, scratch.path(), "raid")?;
    vm.serial.wait_for(guest::DONE, patient(240))?;
    vm.wait_off(patient(60))?;

    ensure!(fs::read(&kept)?.iter().all(|byte| *byte == OLD), "the disk of the skip list was written");
    for name in ["first", "second"] {
        let head = head_of(&scratch.join(format!("{name}.raw")))?;
        ensure!(head.iter().all(|byte| *byte == 0), "{name} still has a partition table");
    }
    scratch.passed();
    Ok(())
}

/// The first MiB of a file.
fn head_of(path: &std::path::Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = vec![1; 1 << 20];
    fs::File::open(path)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What happens inside the machine.
mod inside {
    use disk::md;
    use hardware_managers::{Deployment, Settings, builtin};
    use hwm::{Context, Error, Registry, StepCall};
    use serde_json::{Value, json};
    use sys::{CommandLine, Host};
    use wire::StepKind;

    use super::guest::{end, prepare, say};

    const MODULES: [&str; 8] = ["virtio", "md_mod", "raid0", "raid1", "crc", "libcrc32c", "t10", "xor"];

    pub fn run() -> ! {
        let host = Host::real();
        prepare(&host, &MODULES, 3);
        let outcome =
            std::panic::catch_unwind(|| story(&Host::real())).unwrap_or_else(|_| Err("a panic".into()));
        end(&host, outcome)
    }

    fn node(kept: &[&str]) -> Value {
        let mut skip = vec![json!({"serial": "kept"})];
        skip.extend(kept.iter().map(|volume| json!({"volume_name": volume})));
        json!({
            "uuid": "u",
            "properties": {"skip_block_devices": skip, "capabilities": "boot_mode:bios"},
            "target_raid_config": {"logical_disks": [
                {"controller": "software", "raid_level": "1", "size_gb": 1, "volume_name": "root", "is_root_volume": true},
                {"controller": "software", "raid_level": "0", "size_gb": "MAX", "volume_name": "data"},
            ]},
        })
    }

    fn story(host: &Host) -> Result<(), String> {
        let deployment = Deployment::new(Settings::default());
        let registry = Registry::probe(host, builtin(&deployment));
        let run = |step: &str, kept: &[&str]| {
            let cx = Context::new(host.clone(), events::Events::default()).with_node(node(kept));
            let call = StepCall {
                kind: StepKind::Clean,
                step: step.into(),
                arguments: Default::default(),
                ports: json!([]),
            };
            let result = registry.run_step(&call, &cx);
            say(&format!(
                "GUEST {step} keeping {kept:?}: {:?}",
                result.as_ref().map_err(|error| hwm::chain(error))
            ));
            result
        };
        let made = run("create_configuration", &[]).map_err(|error| hwm::chain(&error))?;
        expect("the configuration", &made, &node(&[])["target_raid_config"])?;
        both_are_there(host)?;

        // Again: they are in the way, and stay.
        match run("create_configuration", &[]) {
            Err(Error::SoftwareRaid { message }) if message.contains("delete_configuration") => {}
            other => return Err(format!("made twice: {other:?}")),
        }
        both_are_there(host)?;

        // As after a reboot: the arrays do not run until somebody looks for disks.
        for device in ["/dev/md0", "/dev/md1"] {
            host.runner()
                .run(&CommandLine::new(["/usr/sbin/mdadm", "--stop", device]))
                .map_err(|e| e.to_string())?;
        }
        expect("running arrays", &md::arrays(host).unwrap().len(), &0)?;
        let cx = Context::new(host.clone(), events::Events::default()).with_node(node(&[]));
        let selection = deployment.select(&cx).map_err(|error| hwm::chain(&error))?;
        let chosen = selection.chosen.map(|disk| disk.name);
        expect("the root volume", &chosen.as_deref(), &Some("/dev/md0"))?;
        both_are_there(host)?;

        run("delete_configuration", &["data"]).map_err(|error| hwm::chain(&error))?;
        both_are_there(host)?;
        run("create_configuration", &["data"]).map_err(|error| hwm::chain(&error))?;
        both_are_there(host)?;

        run("delete_configuration", &[]).map_err(|error| hwm::chain(&error))?;
        expect("arrays that are left", &md::arrays(host).unwrap().len(), &0)?;
        let disks = ["/dev/vda".to_owned(), "/dev/vdb".to_owned()];
        expect("superblocks that are left", &md::members(host, &disks).len(), &0)?;
        for disk in &disks {
            expect("partitions that are left", &md::partitions(host, disk).len(), &0)?;
        }
        Ok(())
    }

    fn both_are_there(host: &Host) -> Result<(), String> {
        let arrays = md::arrays(host).unwrap();
        let seen: Vec<_> = arrays
            .iter()
            .map(|array| {
                (array.device.as_str(), array.level.as_deref(), array.volume(), array.members.join(" "))
            })
            .collect();
        let expected = [
            ("/dev/md0", Some("raid1"), Some("root"), "/dev/vda1 /dev/vdb1".to_owned()),
            ("/dev/md1", Some("raid0"), Some("data"), "/dev/vda2 /dev/vdb2".to_owned()),
        ];
        expect("arrays", &seen.as_slice(), &expected.as_slice())?;
        let listed = disk::list(host, None).unwrap();
        for (name, least) in [("/dev/md0", 1000 << 20), ("/dev/md1", 4000 << 20)] {
            let found =
                listed.iter().find(|disk| disk.name == name).ok_or(format!("{name} is not listed"))?;
            if found.size < least || found.size > least + (200 << 20) {
                return Err(format!("{name} has {} bytes", found.size));
            }
        }
        Ok(())
    }

    fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
        if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?}, not {wanted:?}")) }
    }
}
