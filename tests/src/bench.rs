//! A whole deployment on a bench: a controller, blank machines, a config drive. The `vm_*` tests and the demo stand on it.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::vm::Firmware;
use crate::{Controller, Scratch, Serial};

/// What a machine is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// UEFI or BIOS.
    pub firmware: Firmware,
    /// How its disk is attached, in the words of the controller's `qemu` driver: `virtio`, `nvme`, `scsi`.
    pub bus: &'static str,
    /// How the ramdisk gets in: `pxe`, or `direct`, which is quicker where the network boot is not the point.
    pub boot: &'static str,
    /// Size of its blank disk.
    pub disk_gib: u32,
    /// Bytes of a sector of its disk: 512, or 4096 on NVMe.
    pub sector: u32,
    /// More words for the command line of its ramdisk's kernel, options of the agent among them.
    pub parameters: &'static str,
}

impl Shape {
    /// UEFI, virtio, the ramdisk loaded by QEMU itself, and the smallest disk that is taken without a hint.
    pub const QUICK: Self = Self {
        firmware: Firmware::Uefi,
        bus: "virtio",
        boot: "direct",
        disk_gib: 4,
        sector: 512,
        parameters: "",
    };
    /// The same with BIOS, for an image of noise: on UEFI one without an ESP is refused.
    pub const NOISE: Self = Self { firmware: Firmware::Bios, ..Self::QUICK };
}

/// A node and its machine.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The file that is its disk.
    pub disk: PathBuf,
    /// Its console, over all of its boots.
    pub serial: Serial,
}

/// A controller in a folder of its own.
#[derive(Debug)]
pub struct Bench {
    // Dropped first: it switches the machines off while their files are still there.
    /// The controller.
    pub controller: Controller,
    /// The folder.
    pub scratch: Scratch,
}

impl Bench {
    /// Starts a controller with further arguments of `ferric serve`.
    ///
    /// # Errors
    /// `dist/` is not built, or the controller does not start.
    pub fn start(scratch: Scratch, more: &[&str]) -> Result<Self> {
        let controller = Controller::start(scratch.path(), more)?;
        Ok(Self { controller, scratch })
    }

    /// Creates a node with a blank disk and makes it available.
    ///
    /// # Errors
    /// The controller refuses it.
    pub fn node(&self, name: &str, mac: &str, shape: Shape) -> Result<Node> {
        let disk = self.scratch.join(format!("{name}.disk"));
        let serial = self.scratch.join(format!("{name}.serial.log"));
        let firmware = if shape.firmware == Firmware::Uefi { "uefi" } else { "bios" };
        let mut driver_info = vec![
            format!("qemu_disk={}", disk.display()),
            format!("qemu_create_disk={}G", shape.disk_gib),
            format!("qemu_disk_bus={}", shape.bus),
            format!("qemu_firmware={firmware}"),
            format!("qemu_boot={}", shape.boot),
            format!("qemu_serial_log={}", serial.display()),
            format!("qemu_accel={}", crate::vm::accelerator()),
        ];
        if !shape.parameters.is_empty() {
            driver_info.push(format!("kernel_append_params={}", shape.parameters));
        }
        if shape.sector != 512 {
            driver_info.push(format!("qemu_sector_size={}", shape.sector));
        }
        self.controller.add_node(name, mac, &driver_info)?;
        Ok(Node { name: name.to_owned(), disk, serial: Serial::follow(serial) })
    }

    /// The folder of a config drive that names the host and says something.
    ///
    /// # Errors
    /// It can not be written.
    pub fn config_drive(&self, hostname: &str, message: &str) -> Result<PathBuf> {
        let metadata = json!({
            "uuid": "0ddba11e-0000-4000-8000-00000000beef", "name": hostname, "hostname": hostname, "meta": {"message": message},
        });
        self.scratch.write("config/openstack/latest/meta_data.json", &metadata.to_string())?;
        Ok(self.scratch.join("config"))
    }

    /// Switches off and forgets: the test has succeeded.
    pub fn passed(self) {
        let Self { controller, scratch } = self;
        drop(controller);
        scratch.passed();
    }
}

/// Fails unless the first `expected.len()` bytes of `disk` are those of the file `expected`, compared piece by piece.
///
/// # Errors
/// A file can not be read, or there is a difference: the error names the first differing MiB.
pub fn same_content(disk: &std::path::Path, expected: &std::path::Path) -> Result<()> {
    use std::io::Read;
    let mut left = File::open(disk).with_context(|| format!("opening {}", disk.display()))?;
    let mut right = File::open(expected).with_context(|| format!("opening {}", expected.display()))?;
    for mib in 0_u64.. {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        right.by_ref().take(1 << 20).read_to_end(&mut b)?;
        if b.is_empty() {
            break;
        }
        left.by_ref().take(b.len() as u64).read_to_end(&mut a)?;
        ensure!(a == b, "{} differs from {} in MiB {mib}", disk.display(), expected.display());
    }
    Ok(())
}

/// Fails unless the first MiB is zeros (so that nothing can boot from it).
///
/// # Errors
/// The file can not be read, or there is something.
pub fn head_is_zero(disk: &std::path::Path) -> Result<()> {
    use std::io::Read;
    let mut head = Vec::new();
    File::open(disk)?.take(1 << 20).read_to_end(&mut head)?;
    ensure!(head.len() == 1 << 20, "{} is shorter than a MiB", disk.display());
    ensure!(head.iter().all(|byte| *byte == 0), "the first MiB of {} was written", disk.display());
    Ok(())
}
