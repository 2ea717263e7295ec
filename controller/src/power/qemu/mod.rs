//! The `qemu` driver: a node is a virtual machine on this host. It starts QEMU as a daemon of its own, so that machines
//! outlive the controller, and finds a running one again by its QMP socket. All it keeps is in `STATE/vms/UUID/`.

mod arguments;
mod places;
mod process;
mod qmp;
mod settings;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value};
use wire::PowerState;

use self::arguments::{Firmware, Reach, Way};
use self::qmp::Qmp;
use self::settings::Settings;
use super::{BootMode, Machine, PowerDriver, PowerError};
use crate::record::BootDevice;

pub use places::Places;

/// The port on which agents listen inside their machine.
const AGENT_PORT: u16 = 9999;

/// `sun_path` of Linux, without its final zero.
const SOCKET_PATH_LIMIT: usize = 107;

/// Where distributions keep OVMF: code and the template of its variables.
const OVMF: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

/// What the command line of `ferric serve` says of machines.
#[derive(Clone, Debug)]
pub struct QemuOptions {
    /// Where machines' own files are kept (absolute).
    pub directory: PathBuf,
    /// The program; the distribution's without.
    pub binary: Option<PathBuf>,
    /// More arguments for every machine.
    pub more: Vec<String>,
    /// Where disks and console logs may lie.
    pub places: Places,
    /// Which machines reach other hosts, and the services of this one.
    pub outgoing: Outgoing,
    /// The controller as machines reach it.
    pub advertise: String,
    /// This program, which joins a machine's connection with `socket`.
    pub program: PathBuf,
    /// The socket of the routes that are open to machines.
    pub socket: PathBuf,
}

/// Which machines reach other hosts, and the services of this one, through QEMU's user network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Outgoing {
    /// None: the ramdisk reaches the controller's open routes, a deployed system nothing
    Never,
    /// Those that boot the ramdisk; a deployed system reaches nothing
    Ramdisk,
    /// All
    Always,
}

/// Starts, stops and resets virtual machines on this host.
pub struct QemuDriver {
    options: QemuOptions,
}

impl QemuDriver {
    /// A driver with these options.
    pub fn new(options: QemuOptions) -> Self {
        Self { options }
    }

    /// What the machine reaches when it boots from `device`.
    fn reach(&self, device: BootDevice) -> Result<Reach, String> {
        match (self.options.outgoing, device) {
            (Outgoing::Always, _) | (Outgoing::Ramdisk, BootDevice::Pxe) => Ok(Reach::Everything),
            (Outgoing::Ramdisk | Outgoing::Never, BootDevice::Disk) => Ok(Reach::Nothing),
            (Outgoing::Never, BootDevice::Pxe) => {
                let url = &self.options.advertise;
                let (address, port) = way_in(url).ok_or_else(|| {
                    format!(
                        "machines cannot reach {url} through a network that is cut off: start `ferric serve` with an --advertise of \
                         http://IPV4:PORT, or with --qemu-outgoing ramdisk"
                    )
                })?;
                let program = self.options.program.clone();
                Ok(Reach::Controller(Way { address, port, program, socket: self.options.socket.clone() }))
            }
        }
    }

    fn files(&self, machine: &Machine) -> Files {
        Files(self.options.directory.join(machine.uuid.to_string()))
    }

    fn settings(&self, machine: &Machine) -> Result<Settings, PowerError> {
        Settings::parse(&machine.driver_info)
            .map_err(|problem| PowerError::Settings { node: machine.label.clone(), problem })
    }

    /// The port of this host that leads to the machine's agent. Chosen when a machine that is off is about to need it.
    fn agent_port(&self, machine: &Machine) -> io::Result<u16> {
        let files = self.files(machine);
        let known = fs::read_to_string(files.agent_port()).ok().and_then(|text| text.trim().parse().ok());
        let running = Qmp::connect(&files.socket()).is_ok();
        if let Some(port) = known
            && (running || TcpListener::bind(("127.0.0.1", port)).is_ok())
        {
            return Ok(port);
        }
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        fs::create_dir_all(&files.0)?;
        fs::write(files.agent_port(), port.to_string())?;
        Ok(port)
    }

    fn start(&self, machine: &Machine) -> Result<(), String> {
        let settings = Settings::parse(&machine.driver_info)?;
        settings.check(&self.options.places)?;
        let files = self.files(machine);
        let context = |what: &str, path: &Path, e: &io::Error| format!("{what} {}: {e}", path.display());
        if files.socket().as_os_str().len() > SOCKET_PATH_LIMIT {
            return Err(format!(
                "the path {} is too long for a socket: start the controller with a shorter --state",
                files.socket().display()
            ));
        }
        fs::create_dir_all(files.tftp()).map_err(|e| context("making", &files.tftp(), &e))?;
        for disk in &settings.disks {
            if let Some(size) = settings.create_disk
                && !disk.path.exists()
            {
                create_sparse(&disk.path, size).map_err(|e| context("making the disk", &disk.path, &e))?;
            }
            if !disk.path.exists() {
                return Err(format!(
                    "the disk {} does not exist: make it, or set driver_info/qemu_create_disk to a size",
                    disk.path.display()
                ));
            }
            self.options.places.is_free(&disk.path)?;
        }
        let firmware = match settings.firmware {
            BootMode::Bios => None,
            BootMode::Uefi => Some(self.firmware(&settings, &files)?),
        };
        let serial = settings.serial_log.clone().unwrap_or_else(|| files.0.join("serial.log"));
        if let Some(parent) = serial.parent() {
            fs::create_dir_all(parent).map_err(|e| context("making", parent, &e))?;
        }
        let script = format!("#!ipxe\nchain --autofree {} || shell\n", machine.netboot.script_url);
        fs::write(files.tftp().join(arguments::BOOT_FILE), script)
            .map_err(|e| context("writing", &files.tftp(), &e))?;
        let port = self.agent_port(machine).map_err(|e| format!("choosing a port for the agent: {e}"))?;
        let device = self.boot_device(machine);
        let reach = self.reach(device)?;
        let argv = arguments::build(&arguments::Plan {
            settings: &settings,
            machine,
            device,
            firmware: firmware.as_ref(),
            socket: &files.socket(),
            pid_file: &files.pid(),
            serial: &serial,
            tftp: &files.tftp(),
            agent_port: port,
            reach: &reach,
            more: &self.options.more,
        })?;
        let binary = match &self.options.binary {
            Some(path) => path.clone(),
            None => process::find_qemu().ok_or(
                "qemu-system-x86_64 is not installed: apt-get install qemu-system-x86, or start `ferric serve` with --qemu-binary",
            )?,
        };
        // A socket or pid file left behind by a machine that was killed would be in the way.
        for stale in [files.socket(), files.pid()] {
            match fs::remove_file(&stale) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(context("removing", &stale, &e)),
                Ok(()) | Err(_) => {}
            }
        }
        process::start(&binary, &argv)?;
        fs::write(files.booted(), device_name(device)).map_err(|e| context("writing", &files.booted(), &e))
    }

    fn firmware(&self, settings: &Settings, files: &Files) -> Result<Firmware, String> {
        let chosen = settings.ovmf.clone().or_else(|| {
            let there = OVMF.iter().find(|(code, vars)| Path::new(code).exists() && Path::new(vars).exists());
            there.map(|(code, vars)| (PathBuf::from(code), PathBuf::from(vars)))
        });
        let (code, template) = chosen.ok_or(
            "no UEFI firmware found: apt-get install ovmf, or set driver_info/qemu_ovmf_code and qemu_ovmf_vars",
        )?;
        let variables = files.0.join("efi-vars.fd");
        // The variables outlive power cycles: the boot entries that a deployment makes are in there.
        if !variables.exists() {
            fs::copy(&template, &variables)
                .map_err(|e| format!("copying {} to {}: {e}", template.display(), variables.display()))?;
        }
        Ok(Firmware { code, variables })
    }

    fn boot_device(&self, machine: &Machine) -> BootDevice {
        match fs::read_to_string(self.files(machine).boot_device()) {
            Ok(text) if text.trim() == device_name(BootDevice::Pxe) => BootDevice::Pxe,
            Ok(_) | Err(_) => BootDevice::Disk,
        }
    }

    fn stop(&self, machine: &Machine) -> Result<(), String> {
        let files = self.files(machine);
        let pid = process::read_pid(&files.pid());
        match Qmp::connect(&files.socket()) {
            Ok(mut qmp) => qmp.quit().map_err(|e| format!("asking QEMU to quit: {e}"))?,
            Err(e) if is_off(&e) => return Ok(()),
            Err(e) => {
                return Err(format!(
                    "QEMU{} does not answer on {}: {e}; end it by hand",
                    pid.map_or_else(String::new, |pid| format!(" (process {pid})")),
                    files.socket().display()
                ));
            }
        }
        process::wait_gone(&files.socket(), pid)
    }
}

fn failed(machine: &Machine, action: &'static str, problem: impl Into<String>) -> PowerError {
    PowerError::Failed { node: machine.label.clone(), action, problem: problem.into() }
}

/// Whether connecting to a QMP socket failed because nothing listens: the machine is off.
fn is_off(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

const fn device_name(device: BootDevice) -> &'static str {
    match device {
        BootDevice::Pxe => "pxe",
        BootDevice::Disk => "disk",
    }
}

/// The address and port of `http://IPV4:PORT`: what a network that is cut off can lead to.
fn way_in(url: &str) -> Option<(Ipv4Addr, u16)> {
    let (host, port) =
        url.strip_prefix("http://")?.split_once(':').unwrap_or((url.strip_prefix("http://")?, "80"));
    Some((host.parse().ok()?, port.parse().ok()?))
}

/// Makes a disk file of `size` bytes that takes no space yet. **Fails if anything is there.**
fn create_sparse(path: &Path, size: u64) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new().write(true).create_new(true).open(path)?.set_len(size)
}

impl PowerDriver for QemuDriver {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn check(&self, driver_info: &Map<String, Value>) -> Result<(), String> {
        settings::check(driver_info, &self.options.places)
    }

    fn unreachable(&self, url: &str, advertise: &str) -> Option<String> {
        let reached = self.options.outgoing != Outgoing::Never
            || url.strip_prefix(advertise).is_some_and(|rest| rest.starts_with('/'));
        (!reached).then(|| {
            format!(
                "machines of the qemu driver do not reach {url}: deploy a local file, or start `ferric serve` with --qemu-outgoing ramdisk"
            )
        })
    }

    fn validate(&self, machine: &Machine) -> Result<(), PowerError> {
        let settings = self.settings(machine)?;
        settings
            .check(&self.options.places)
            .map_err(|problem| PowerError::Settings { node: machine.label.clone(), problem })?;
        if machine.macs.is_empty() {
            let problem = format!("it has no port: add one with `ferric port create {} MAC`", machine.label);
            return Err(PowerError::Settings { node: machine.label.clone(), problem });
        }
        for disk in &settings.disks {
            if !disk.path.exists() && settings.create_disk.is_none() {
                let problem = format!(
                    "the disk {} does not exist: make it, or set qemu_create_disk to a size",
                    disk.path.display()
                );
                return Err(PowerError::Settings { node: machine.label.clone(), problem });
            }
        }
        Ok(())
    }

    fn power_state(&self, machine: &Machine) -> Result<PowerState, PowerError> {
        let socket = self.files(machine).socket();
        let deadline = Instant::now() + process::STOP_LIMIT;
        loop {
            match Qmp::connect(&socket) {
                Ok(_) => return Ok(PowerState::On),
                Err(e) if is_off(&e) => return Ok(PowerState::Off),
                // It is about to end, or has ended while it greeted us.
                Err(e) if qmp::hung_up(&e) && Instant::now() < deadline => std::thread::sleep(process::TICK),
                Err(e) => return Err(failed(machine, "reading the power state", e.to_string())),
            }
        }
    }

    fn power_on(&self, machine: &Machine) -> Result<(), PowerError> {
        match self.power_state(machine)? {
            PowerState::On => Ok(()),
            PowerState::Off | PowerState::Error => {
                self.start(machine).map_err(|problem| failed(machine, "power on", problem))
            }
        }
    }

    fn power_off(&self, machine: &Machine) -> Result<(), PowerError> {
        self.stop(machine).map_err(|problem| failed(machine, "power off", problem))
    }

    fn reset(&self, machine: &Machine) -> Result<(), PowerError> {
        let files = self.files(machine);
        let booted = fs::read_to_string(files.booted()).unwrap_or_default();
        // The boot order is given on QEMU's command line: another device needs another process.
        if booted.trim() == device_name(self.boot_device(machine))
            && let Ok(mut qmp) = Qmp::connect(&files.socket())
        {
            return qmp.reset().map_err(|e| failed(machine, "reset", e.to_string()));
        }
        self.power_off(machine)?;
        self.power_on(machine)
    }

    fn set_boot_device(&self, machine: &Machine, device: BootDevice) -> Result<(), PowerError> {
        let files = self.files(machine);
        let write = || {
            fs::create_dir_all(&files.0)?;
            fs::write(files.boot_device(), device_name(device))
        };
        write().map_err(|e: io::Error| failed(machine, "choosing the boot device", e.to_string()))
    }

    fn boot_mode(&self, machine: &Machine) -> Option<BootMode> {
        self.settings(machine).ok().map(|settings| settings.firmware)
    }

    fn kernel_parameters(&self, machine: &Machine) -> Result<Vec<String>, PowerError> {
        // Every such machine has the same address, 10.0.2.15, behind its own address translation: its agent is reached
        // through a port of ours.
        let port = self.agent_port(machine).map_err(|e| failed(machine, "choosing a port", e.to_string()))?;
        Ok(vec![
            "ipa-advertise-host=127.0.0.1".into(),
            format!("ipa-advertise-port={port}"),
            format!("ipa-listen-port={AGENT_PORT}"),
        ])
    }

    fn forget(&self, machine: &Machine) -> Result<(), PowerError> {
        self.power_off(machine)?;
        match fs::remove_dir_all(&self.files(machine).0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(failed(machine, "removing its files", e.to_string()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The files of one machine.
struct Files(PathBuf);

impl Files {
    fn socket(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }

    fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }

    fn tftp(&self) -> PathBuf {
        self.0.join("tftp")
    }

    fn agent_port(&self) -> PathBuf {
        self.0.join("agent-port")
    }

    fn boot_device(&self) -> PathBuf {
        self.0.join("boot-device")
    }

    fn booted(&self) -> PathBuf {
        self.0.join("booted-from")
    }
}

#[cfg(test)]
mod tests;
