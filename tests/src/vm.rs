//! A virtual machine under the test's own hand: QEMU, its disks, its serial console, its QMP socket.
//!
//! For what no controller is needed for: booting a disk that was written, booting the ramdisk by itself. Machines that a
//! controller deploys are started by the controller. The network is QEMU's user network: 10.0.2.2 is this host's loopback.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{Qmp, Serial, until};

pub(crate) const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The machine's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// OVMF, with its own copy of the variable store.
    Uefi,
    /// SeaBIOS.
    Bios,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk: `/dev/vda`.
    Virtio,
    /// NVMe: `/dev/nvme0n1`.
    Nvme,
    /// virtio-scsi: `/dev/sda`.
    Scsi,
}

/// One disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file behind it.
    pub path: PathBuf,
    /// QEMU's name of its format: `raw` or `qcow2`.
    pub format: &'static str,
    /// How it is attached.
    pub bus: Bus,
    /// Its serial number, up to 20 characters (the limit of virtio-blk).
    pub serial: String,
    /// Whether writes go to a temporary file and vanish with the machine.
    pub snapshot: bool,
    /// Offset in bytes of a sector that can not be written.
    pub bad: Option<u64>,
}

impl Disk {
    /// A raw disk on virtio whose writes stay.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: "raw",
            bus: Bus::Virtio,
            serial: "FERRIC0".into(),
            snapshot: false,
            bad: None,
        }
    }

    /// Makes a sparse file of `bytes` for it, **emptying an existing one**.
    ///
    /// # Errors
    /// The file can not be made.
    pub fn blank(path: impl Into<PathBuf>, bytes: u64) -> Result<Self> {
        let disk = Self::new(path);
        let file = File::create(&disk.path).with_context(|| format!("creating {}", disk.path.display()))?;
        file.set_len(bytes)?;
        Ok(disk)
    }
}

/// What the machine starts from.
#[derive(Clone, Debug)]
pub enum Boot {
    /// The first disk.
    Disk,
    /// A kernel that QEMU itself loads.
    Direct {
        /// The kernel.
        kernel: PathBuf,
        /// The initramfs.
        initramfs: PathBuf,
        /// The kernel's command line.
        command_line: String,
    },
    /// The network, with the NIC's own iPXE.
    Network {
        /// The folder that the built-in TFTP server serves.
        tftp: PathBuf,
        /// What DHCP names as the boot file, in that folder.
        file: String,
    },
}

/// The network card.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Its hardware address.
    pub mac: String,
    /// Ports of the guest that a free port of this host's loopback leads to.
    pub forward: Vec<u16>,
}

/// A machine before it is started.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// UEFI or BIOS.
    pub firmware: Firmware,
    /// Memory; 512 is what Ferric promises to do with.
    pub memory_mib: u32,
    /// The disks, in order.
    pub disks: Vec<Disk>,
    /// The network card, if it is to have one.
    pub nic: Option<Nic>,
    /// What it starts from.
    pub boot: Boot,
    /// The variable store of an earlier machine, for one that is to remember its boot entries; a fresh one without.
    pub variables: Option<PathBuf>,
    /// End QEMU instead of rebooting the machine.
    pub no_reboot: bool,
}

impl VmConfig {
    /// A machine with 512 MiB and no disk, no network card, that would start from its disk.
    pub fn new(firmware: Firmware) -> Self {
        Self {
            firmware,
            memory_mib: 512,
            disks: Vec::new(),
            nic: None,
            boot: Boot::Disk,
            variables: None,
            no_reboot: false,
        }
    }

    /// With one more disk.
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }
}

/// A running machine; dropping it ends it at once.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    /// Its serial console.
    pub serial: Serial,
    /// What SeaBIOS says on its debug port, and nowhere else that can be read; with UEFI nothing.
    pub bios: Serial,
    socket: PathBuf,
    forwarded: Vec<(u16, u16)>,
    log: PathBuf,
}

impl Vm {
    /// Starts the machine. Its files (console, QEMU's messages, variable store) go to `dir` under `name`.
    ///
    /// # Errors
    /// QEMU can not be started, or ends at once: its words are in the error.
    pub fn start(config: &VmConfig, dir: &Path, name: &str) -> Result<Self> {
        let serial_log = dir.join(format!("{name}.serial.log"));
        let log = dir.join(format!("{name}.qemu.log"));
        // A Unix socket's path has at most 107 bytes; the folder of a test may be deeper.
        let socket = std::env::temp_dir().join(format!("ferric-{}-{name}.qmp", std::process::id()));
        let accelerator =
            if std::env::var_os("FERRIC_TEST_KVM").is_some_and(|value| value == "1") { "kvm" } else { "tcg" };

        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.arg("-M").arg(format!("q35,accel={accelerator}"));
        qemu.args(["-nodefaults", "-display", "none", "-m"]).arg(config.memory_mib.to_string());
        qemu.arg("-serial").arg(format!("file:{}", escaped(&serial_log)));
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", escaped(&socket)));
        let bios_log = dir.join(format!("{name}.bios.log"));
        qemu.arg("-chardev").arg(format!("file,id=bios,path={}", escaped(&bios_log)));
        qemu.args(["-device", "isa-debugcon,iobase=0x402,chardev=bios"]);
        qemu.args(["-device", "virtio-rng-pci"]);
        if config.no_reboot {
            qemu.arg("-no-reboot");
        }
        if config.firmware == Firmware::Uefi {
            let vars = dir.join(format!("{name}.vars.fd"));
            let from = config.variables.as_deref().unwrap_or(Path::new(OVMF_VARS));
            std::fs::copy(from, &vars)
                .with_context(|| format!("copying {} (package ovmf)", from.display()))?;
            qemu.arg("-drive").arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"));
            qemu.arg("-drive").arg(format!("if=pflash,format=raw,unit=1,file={}", escaped(&vars)));
        }
        disks(&mut qemu, &config.disks);
        let forwarded = network(&mut qemu, config)?;
        if let Boot::Direct { kernel, initramfs, command_line } = &config.boot {
            qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).arg("-append").arg(command_line);
        }

        let messages = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        qemu.stdin(Stdio::null()).stdout(messages.try_clone()?).stderr(messages);
        let child = qemu.spawn().context("starting qemu-system-x86_64 (package qemu-system-x86)")?;
        let mut vm = Self {
            child,
            serial: Serial::follow(serial_log),
            bios: Serial::follow(bios_log),
            socket,
            forwarded,
            log,
        };
        until("QEMU's QMP socket", Duration::from_secs(20), || {
            vm.assert_running()?;
            Ok(vm.socket.exists().then_some(()))
        })?;
        Ok(vm)
    }

    fn assert_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let words = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("qemu ended at its start ({status}): {}", words.trim());
        }
        Ok(())
    }

    /// A fresh QMP connection.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn qmp(&self) -> Result<Qmp> {
        Qmp::connect(&self.socket)
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn reset(&self) -> Result<()> {
        self.qmp()?.execute("system_reset", json!({})).map(drop)
    }

    /// From the next reset on, the disks come before the network.
    ///
    /// # Errors
    /// The machine has ended, or has no network card.
    pub fn boot_from_disk(&self) -> Result<()> {
        let last = json!({"path": "/machine/peripheral/nic0", "property": "bootindex", "value": 99});
        self.qmp()?.execute("qom-set", last).map(drop)
    }

    /// Where on this host a forwarded port of the guest is.
    pub fn port(&self, guest: u16) -> Option<u16> {
        self.forwarded.iter().find(|(inside, _)| *inside == guest).map(|(_, outside)| *outside)
    }

    /// Waits until the machine has switched itself off (or, with `no_reboot`, has rebooted).
    ///
    /// # Errors
    /// It has not after `limit`; the error shows the end of its console.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        until("the machine to switch off", limit, || Ok(self.child.try_wait()?))
            .with_context(|| self.serial.tail())
            .map(drop)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill(); // already ended: nothing to do
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// TCG, unless `FERRIC_TEST_KVM=1`: that `/dev/kvm` is there does not mean that it works.
pub(crate) fn accelerator() -> &'static str {
    if std::env::var_os("FERRIC_TEST_KVM").is_some_and(|value| value == "1") { "kvm" } else { "tcg" }
}

fn disks(qemu: &mut Command, disks: &[Disk]) {
    if disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        qemu.args(["-device", "virtio-scsi-pci,id=scsi0"]);
    }
    for (number, disk) in disks.iter().enumerate() {
        let Disk { path, format, bus, serial, snapshot, bad } = disk;
        let snapshot = if *snapshot { "on" } else { "off" };
        let file = escaped(path);
        let file = match bad {
            None => format!("file={file},format={format}"),
            // Every write that touches the sector fails (EIO), and is reported to the guest.
            Some(offset) => format!(
                "driver={format},werror=report,rerror=report,file.driver=blkdebug,file.image.driver=file,\
                 file.image.filename={file},file.inject-error.0.event=none,file.inject-error.0.iotype=write,\
                 file.inject-error.0.errno=5,file.inject-error.0.sector={}",
                offset / 512
            ),
        };
        let drive = format!("if=none,id=d{number},{file},cache=unsafe,discard=unmap,snapshot={snapshot}");
        let device = match bus {
            Bus::Virtio => "virtio-blk-pci",
            Bus::Nvme => "nvme",
            Bus::Scsi => "scsi-hd,bus=scsi0.0",
        };
        qemu.arg("-drive").arg(drive);
        // Before the disks comes the network card, with 1.
        qemu.arg("-device").arg(format!(
            "{device},id=disk{number},drive=d{number},serial={serial},bootindex={}",
            number + 2
        ));
    }
}

fn network(qemu: &mut Command, config: &VmConfig) -> Result<Vec<(u16, u16)>> {
    let Some(nic) = &config.nic else {
        qemu.args(["-nic", "none"]);
        return Ok(Vec::new());
    };
    let mut netdev = String::from("user,id=n0");
    let mut index = "";
    if let Boot::Network { tftp, file } = &config.boot {
        netdev.push_str(&format!(",tftp={},bootfile={file}", escaped(tftp)));
        index = ",bootindex=1";
    }
    let mut forwarded = Vec::new();
    for guest in &nic.forward {
        let host = free_port()?;
        netdev.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
        forwarded.push((*guest, host));
    }
    qemu.arg("-netdev").arg(netdev);
    qemu.arg("-device").arg(format!("virtio-net-pci,id=nic0,netdev=n0,mac={}{index}", nic.mac));
    Ok(forwarded)
}

/// A port of the loopback that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A path within a QEMU option, where a comma is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
