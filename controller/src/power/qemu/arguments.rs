//! QEMU's command line, as a pure function of what is wanted. Facts about boot orders and user networking were measured
//! with QEMU 7.2, SeaBIOS and OVMF.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::AGENT_PORT;
use super::settings::{Bus, RamdiskBoot, Settings};
use crate::power::Machine;
use crate::record::BootDevice;

/// The iPXE script in the TFTP directory.
pub const BOOT_FILE: &str = "boot.ipxe";

/// UEFI firmware.
#[derive(Debug)]
pub struct Firmware {
    /// The code, shared and read-only.
    pub code: PathBuf,
    /// The variables of this machine.
    pub variables: PathBuf,
}

/// Everything the command line depends on.
pub struct Plan<'a> {
    /// What is configured.
    pub settings: &'a Settings,
    /// The machine.
    pub machine: &'a Machine,
    /// What it boots from.
    pub device: BootDevice,
    /// UEFI firmware; `None` is SeaBIOS.
    pub firmware: Option<&'a Firmware>,
    /// The QMP socket.
    pub socket: &'a Path,
    /// Where QEMU writes its process id.
    pub pid_file: &'a Path,
    /// Where the serial console goes.
    pub serial: &'a Path,
    /// The TFTP root.
    pub tftp: &'a Path,
    /// The port of this host that leads to the agent.
    pub agent_port: u16,
    /// What the machine reaches.
    pub reach: &'a Reach,
    /// More arguments, from the command line of `ferric serve`.
    pub more: &'a [String],
}

/// What a machine reaches through QEMU's user network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: it boots from its own disk.
    Nothing,
    /// The controller's open routes, by a program that QEMU starts for each connection.
    Controller(Way),
    /// Everything that this host reaches, and the services of this host.
    Everything,
}

/// The way to the controller's open routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The address of the controller in the machine's network.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// `ferric`.
    pub program: PathBuf,
    /// The socket of the open routes.
    pub socket: PathBuf,
}

/// The arguments, without the program. The error says what is missing.
pub fn build(plan: &Plan<'_>) -> Result<Vec<String>, String> {
    let Plan { settings, machine, .. } = plan;
    let mut argv: Vec<String> = Vec::new();
    let mut add = |args: &[&str]| argv.extend(args.iter().map(|arg| (*arg).to_owned()));
    let node = machine.uuid.to_string();
    add(&["-name", &format!("ferric-{node}"), "-uuid", &node]);
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-vga", "std", "-monitor", "none"]);
    add(&["-machine", &format!("q35,accel={}", settings.accel)]);
    match &settings.cpu {
        Some(cpu) => add(&["-cpu", cpu]),
        None if settings.accel == "kvm" => add(&["-cpu", "host"]),
        None => {}
    }
    add(&["-smp", &settings.cpus.to_string(), "-m", &settings.memory_mb.to_string()]);
    // Newer OVMF refuses to use the network without a random number generator.
    add(&["-device", "virtio-rng-pci"]);
    if let Some(firmware) = plan.firmware {
        let code = format!("if=pflash,unit=0,format=raw,readonly=on,file={}", text(&firmware.code)?);
        let vars = format!("if=pflash,unit=1,format=raw,file={}", text(&firmware.variables)?);
        add(&["-drive", &code, "-drive", &vars]);
    }
    let direct = plan.device == BootDevice::Pxe && settings.boot == RamdiskBoot::Direct;
    for (at, mac) in machine.macs.iter().enumerate() {
        let mut netdev = format!("user,id=net{at}");
        match plan.reach {
            Reach::Nothing => netdev += ",restrict=on",
            Reach::Controller(way) if at == 0 => netdev += &format!(",restrict=on,{}", leading(way)?),
            Reach::Controller(_) => netdev += ",restrict=on",
            Reach::Everything => {}
        }
        // Only the ramdisk has a boot script to fetch and an agent to be reached.
        if at == 0 && plan.device == BootDevice::Pxe {
            netdev += &format!(
                ",tftp={},bootfile={BOOT_FILE},hostfwd=tcp:127.0.0.1:{}-:{AGENT_PORT}",
                text(plan.tftp)?,
                plan.agent_port
            );
        }
        let mut nic = format!("{},id=nic{at},netdev=net{at},mac={mac}", settings.nic_model);
        // Without a place in the boot order the firmware does not try the network at all.
        if at == 0 && plan.device == BootDevice::Pxe && !direct {
            nic += ",bootindex=1";
        }
        add(&["-netdev", &netdev, "-device", &nic]);
    }
    if settings.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        add(&["-device", "virtio-scsi-pci,id=scsi0"]);
    }
    for (at, disk) in settings.disks.iter().enumerate() {
        let drive = format!(
            "if=none,id=disk{at},file={},format={},cache={},discard=unmap,detect-zeroes=off",
            text(&disk.path)?,
            disk.format,
            settings.disk_cache
        );
        let device = match disk.bus {
            Bus::Virtio => "virtio-blk-pci".to_owned(),
            Bus::Nvme => "nvme".to_owned(),
            Bus::Scsi => "scsi-hd,bus=scsi0.0".to_owned(),
            Bus::Sata => format!("ide-hd,bus=ide.{at}"),
        };
        // After the network, so that a machine whose boot script says "your disk" gets there.
        let order = at + 2;
        let mut device = format!("{device},drive=disk{at},serial={},bootindex={order}", disk.serial);
        if let Some(bytes) = settings.sector_size {
            device += &format!(",logical_block_size={bytes},physical_block_size={bytes}");
        }
        add(&["-drive", &drive, "-device", &device]);
    }
    if direct {
        let missing = "qemu_boot is direct, but the controller has no ramdisk: start it with --ramdisk DIR";
        let kernel = machine.netboot.kernel.as_deref().ok_or(missing)?;
        let initramfs = machine.netboot.initramfs.as_deref().ok_or(missing)?;
        add(&["-kernel", &text(kernel)?, "-initrd", &text(initramfs)?]);
        add(&["-append", &machine.netboot.command_line]);
    }
    let serial = format!("file,id=serial0,path={},append=on", text(plan.serial)?);
    add(&["-chardev", &serial, "-serial", "chardev:serial0"]);
    add(&["-qmp", &format!("unix:{},server=on,wait=off", text(plan.socket)?)]);
    add(&["-pidfile", &text(plan.pid_file)?, "-daemonize"]);
    argv.extend(plan.more.iter().cloned());
    Ok(argv)
}

/// The options of a network in which the controller has its own address. The other addresses of that network are QEMU's.
fn leading(way: &Way) -> Result<String, String> {
    let Way { address, port, program, socket } = way;
    let [a, b, c, own] = address.octets();
    // QEMU's own address (gateway, TFTP, DHCP), its name server, and the first address that it gives out.
    let mut free = [254_u8, 253, 252, 251].into_iter().filter(|last| *last != own);
    let mut next = || free.next().map_or(*address, |last| Ipv4Addr::new(a, b, c, last));
    let (host, dns) = (next(), next());
    let first = if (15..=30).contains(&own) { 31 } else { 15 };
    let [program, socket] = [program, socket].map(|path| match text(path) {
        // QEMU splits the command line as a shell does.
        Ok(text) if !text.contains(['\'', '"', '\\', ' ', '$', '`']) => Ok(text),
        _ => Err(format!(
            "the path {} cannot be given to QEMU; choose one without spaces and quotes",
            path.display()
        )),
    });
    let (program, socket) = (program?, socket?);
    Ok(format!(
        "net={a}.{b}.{c}.0/24,host={host},dns={dns},dhcpstart={a}.{b}.{c}.{first},\
         guestfwd=tcp:{address}:{port}-cmd:{program} forward {socket}"
    ))
}

/// A path inside one of QEMU's comma-separated options.
fn text(path: &Path) -> Result<String, String> {
    match path.to_str() {
        Some(text) if !text.contains(',') => Ok(text.to_owned()),
        _ => Err(format!("the path {} can not be given to QEMU: no comma, UTF-8 only", path.display())),
    }
}
