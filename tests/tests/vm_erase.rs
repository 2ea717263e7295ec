//! The step `erase_devices` on disks of a virtual machine: an NVMe disk formats itself, a disk that can not erase itself is
//! written over, a namespace that is to be kept is.
//!
//! The guest is this very program. What it did is read from the disks' files, on the host.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

mod guest;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Result, ensure};
use e2e::{Bus, Disk, Firmware, Scratch, Vm, VmConfig, patient, skip_vm};

const MIB: usize = 1 << 20;
const DISK_BYTES: u64 = 32 << 20;
/// What the host writes to every disk before.
const OLD: u8 = 0xa5;

#[test]
fn vm_disks_erase_themselves_where_they_can_and_are_written_over_where_not() -> Result<()> {
    if guest::is_here() {
        inside::run();
    }
    if skip_vm()? {
        return Ok(());
    }
    let scratch = Scratch::new("erase")?;
    let mut config = VmConfig::new(Firmware::Bios);
    for (name, bus) in [("nvme", Bus::Nvme), ("scsi", Bus::Scsi), ("kept", Bus::Nvme)] {
        let path = scratch.join(format!("{name}.raw"));
        fs::write(&path, vec![OLD; usize::try_from(DISK_BYTES)?])?;
        config = config.disk(Disk { bus, serial: name.into(), ..Disk::new(path) });
    }
    config.memory_mib = 1024;
    config.no_reboot = true;
    config.boot = guest::boot(&scratch, &[])?;
    let mut vm = Vm::start(&config, scratch.path(), "erase")?;
    vm.serial.wait_for(guest::DONE, patient(240))?;
    vm.wait_off(patient(60))?;

    // No pass of zeroes was asked for: zeroes are the disk's own work, noise is ours.
    for (name, offset, expected) in [
        ("nvme", 0, Found::Zeroes),
        ("nvme", 16 << 20, Found::Zeroes),
        ("scsi", 0, Found::Noise),
        ("scsi", DISK_BYTES - MIB as u64, Found::Noise),
        ("kept", 0, Found::Old),
    ] {
        let found = Found::read(&scratch.join(format!("{name}.raw")), offset)?;
        ensure!(found == expected, "{name} at {offset}: {found:?}, not {expected:?}: {}", vm.serial.tail());
    }
    scratch.passed();
    Ok(())
}

/// What a MiB of a disk holds.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Zeroes,
    Noise,
    Old,
}

impl Found {
    fn read(disk: &Path, offset: u64) -> Result<Self> {
        let mut bytes = vec![1; MIB];
        File::open(disk)?.read_exact_at(&mut bytes, offset)?;
        Ok(match bytes.first() {
            Some(first) if bytes.iter().all(|byte| byte == first) => {
                if *first == 0 {
                    Self::Zeroes
                } else {
                    Self::Old
                }
            }
            _ => Self::Noise,
        })
    }
}

/// What happens inside the machine.
mod inside {
    use hardware_managers::{Deployment, Settings, builtin};
    use hwm::{Context, Registry, StepCall};
    use serde_json::json;
    use sys::Host;
    use wire::StepKind;

    use super::guest::{end, prepare, say};

    /// Drivers of the disks, and what they need.
    const MODULES: [&str; 6] = ["nvme", "virtio", "scsi", "sd_mod", "crc", "t10"];

    /// Erases all disks but the one with the serial number `kept`, and switches the machine off.
    pub fn run() -> ! {
        let host = Host::real();
        prepare(&host, &MODULES, 3);
        let node = json!({"uuid": "u", "properties": {"skip_block_devices": [{"serial": "kept"}]},
                          "driver_internal_info": {"agent_erase_devices_zeroize": false, "disk_erasure_concurrency": 4}});
        let deployment = Deployment::new(Settings::default());
        let registry = Registry::probe(&host, builtin(&deployment));
        let cx = Context::new(host.clone(), events::Events::default()).with_node(node);
        let call = StepCall {
            kind: StepKind::Clean,
            step: "erase_devices".into(),
            arguments: Default::default(),
            ports: json!([]),
        };
        let result = registry.run_step(&call, &cx);
        say(&format!("GUEST {result:?}"));
        end(&host, result.map(drop).map_err(|error| hwm::chain(&error)))
    }
}
