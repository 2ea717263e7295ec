//! The image that everything else deploys boots by itself, so that a deploy that does not boot is the deploy's fault.

use anyhow::Result;
use e2e::{Bus, Disk, Firmware, Scratch, Vm, VmConfig, debian_image, patient, skip_vm};

fn boots(name: &str, firmware: Firmware, bus: Bus, form: &str, format: &'static str) -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    let scratch = Scratch::new(name)?;
    let disk = Disk { format, bus, snapshot: true, ..Disk::new(debian_image()?.path(form)) };
    let vm = Vm::start(&VmConfig::new(firmware).disk(disk), scratch.path(), "debian")?;
    let line = vm.serial.wait_for("FERRIC-DEPLOYED", patient(240))?;
    assert_eq!(line.field("firmware"), Some(if firmware == Firmware::Uefi { "uefi" } else { "bios" }));
    assert_eq!(line.field("config-drive"), Some("none"));
    assert_eq!(line.field("root"), Some(if bus == Bus::Nvme { "/dev/nvme0n1p3" } else { "/dev/vda3" }));
    vm.serial.wait_for("unconfigured login:", patient(60))?;
    scratch.passed();
    Ok(())
}

#[test]
fn vm_debian_image_boots_on_uefi() -> Result<()> {
    boots("vm_debian_image_boots_on_uefi", Firmware::Uefi, Bus::Nvme, "disk-zlib.qcow2", "qcow2")
}

#[test]
fn vm_debian_image_boots_on_bios() -> Result<()> {
    boots("vm_debian_image_boots_on_bios", Firmware::Bios, Bus::Virtio, "disk.raw", "raw")
}
