//! `driver_info` of a `qemu` node, parsed once.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::places::Places;
use crate::power::BootMode;

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// An NVMe controller of its own.
    Nvme,
    /// virtio-scsi.
    Scsi,
    /// AHCI.
    Sata,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// `raw` or `qcow2`: never guessed, a guest could write a qcow2 header into a raw disk.
    pub format: String,
    /// How it is attached.
    pub bus: Bus,
    /// Its serial number.
    pub serial: String,
}

/// How the ramdisk gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RamdiskBoot {
    /// The firmware's network boot.
    Pxe,
    /// QEMU's own loader.
    Direct,
}

/// What is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one.
    pub disks: Vec<Disk>,
    /// Size in bytes of disk files to be made.
    pub create_disk: Option<u64>,
    /// QEMU's cache mode of every disk.
    pub disk_cache: String,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Processors.
    pub cpus: u64,
    /// Processor model.
    pub cpu: Option<String>,
    /// Firmware.
    pub firmware: BootMode,
    /// UEFI code and variable template, when not the distribution's.
    pub ovmf: Option<(PathBuf, PathBuf)>,
    /// Model of every NIC.
    pub nic_model: String,
    /// How the ramdisk gets in.
    pub boot: RamdiskBoot,
    /// Where the serial console goes.
    pub serial_log: Option<PathBuf>,
    /// `tcg` or `kvm`.
    pub accel: String,
    /// Bytes of a sector of every disk.
    pub sector_size: Option<u64>,
}

/// Refuses what no client may set. Incomplete settings pass.
pub fn check(info: &Map<String, Value>, places: &Places) -> Result<(), String> {
    for (key, option) in SERVER_ONLY {
        if info.contains_key(key) {
            return Err(format!(
                "{key} names a program or raw arguments, which only the command line of `ferric serve` may: remove it, and start the \
                 controller with {option}"
            ));
        }
    }
    if !info.get("qemu_disk").is_none_or(Value::is_null) {
        Settings::parse(info)?.check(places)?;
    }
    for (key, may) in [("qemu_serial_log", true), ("qemu_ovmf_code", false), ("qemu_ovmf_vars", false)] {
        if let Some(path) = path(info, key)? {
            let checked = if may { places.log(&path) } else { places.firmware(&path) };
            checked.map_err(|problem| format!("{key}: {problem}"))?;
        }
    }
    Ok(())
}

/// What only the command line of `ferric serve` may say: they are programs that this host runs.
const SERVER_ONLY: [(&str, &str); 2] = [("qemu_binary", "--qemu-binary"), ("qemu_extra_args", "--qemu-arg")];

const KNOWN: [&str; 18] = [
    "qemu_disk",
    "qemu_create_disk",
    "qemu_disk_format",
    "qemu_disk_bus",
    "qemu_disk_cache",
    "qemu_memory_mb",
    "qemu_cpus",
    "qemu_cpu",
    "qemu_firmware",
    "qemu_ovmf_code",
    "qemu_ovmf_vars",
    "qemu_nic_model",
    "qemu_boot",
    "qemu_serial_log",
    "qemu_accel",
    "qemu_sector_size",
    "kernel_append_params",
    "agent_verify_ca",
];

impl Settings {
    /// Reads `driver_info`. The error says what to set.
    pub fn parse(info: &Map<String, Value>) -> Result<Self, String> {
        let server_only = |key: &str| SERVER_ONLY.iter().any(|(known, _)| *known == key);
        for key in info.keys().filter(|key| server_only(key)) {
            // Of a node that an earlier version made.
            tracing::warn!(key, "ignoring a setting that only the command line of `ferric serve` may make");
        }
        let unknown = |k: &&String| k.starts_with("qemu_") && !KNOWN.contains(&k.as_str()) && !server_only(k);
        if let Some(key) = info.keys().find(unknown) {
            return Err(format!("{key} is no setting of the qemu driver; there are: {}", KNOWN.join(", ")));
        }
        let bus = match text(info, "qemu_disk_bus")? {
            Some(bus) => parse_bus(&bus)?,
            None => Bus::Virtio,
        };
        let format = text(info, "qemu_disk_format")?.unwrap_or_else(|| "raw".into());
        let mut disks = Vec::new();
        let listed = match info.get("qemu_disk") {
            None | Some(Value::Null) => {
                return Err("qemu_disk is missing: set it to the path of the machine's disk file".into());
            }
            Some(Value::Array(list)) => list.clone(),
            Some(one) => vec![one.clone()],
        };
        for (at, entry) in listed.iter().enumerate() {
            disks.push(parse_disk(entry, at, &format, bus)?);
        }
        if disks.is_empty() {
            return Err("qemu_disk is an empty list: a machine needs a disk".into());
        }
        let ovmf = match (path(info, "qemu_ovmf_code")?, path(info, "qemu_ovmf_vars")?) {
            (Some(code), Some(vars)) => Some((code, vars)),
            (None, None) => None,
            _ => return Err("qemu_ovmf_code and qemu_ovmf_vars go together".into()),
        };
        Ok(Self {
            disks,
            create_disk: info.get("qemu_create_disk").map(parse_size).transpose()?,
            disk_cache: choice(
                info,
                "qemu_disk_cache",
                &["unsafe", "none", "writeback", "writethrough", "directsync"],
            )?,
            memory_mb: number(info, "qemu_memory_mb")?.unwrap_or(512),
            cpus: number(info, "qemu_cpus")?.unwrap_or(1),
            cpu: plain(info, "qemu_cpu", "+-_.=,")?,
            firmware: match choice(info, "qemu_firmware", &["uefi", "bios"])?.as_str() {
                "bios" => BootMode::Bios,
                _ => BootMode::Uefi,
            },
            ovmf,
            nic_model: plain(info, "qemu_nic_model", "-_.")?.unwrap_or_else(|| "virtio-net-pci".into()),
            boot: match choice(info, "qemu_boot", &["pxe", "direct"])?.as_str() {
                "direct" => RamdiskBoot::Direct,
                _ => RamdiskBoot::Pxe,
            },
            serial_log: path(info, "qemu_serial_log")?,
            accel: choice(info, "qemu_accel", &["tcg", "kvm"])?,
            sector_size: match number(info, "qemu_sector_size")? {
                None => None,
                Some(size @ (512 | 4096)) => Some(size),
                Some(size) => return Err(format!("qemu_sector_size is {size}: it must be 512 or 4096")),
            },
        })
    }

    /// Checks where its files lie.
    pub fn check(&self, places: &Places) -> Result<(), String> {
        for disk in &self.disks {
            places.disk(&disk.path).map_err(|problem| format!("qemu_disk: {problem}"))?;
        }
        if let Some(path) = &self.serial_log {
            places.log(path).map_err(|problem| format!("qemu_serial_log: {problem}"))?;
        }
        if let Some((code, variables)) = &self.ovmf {
            for (key, path) in [("qemu_ovmf_code", code), ("qemu_ovmf_vars", variables)] {
                places.firmware(path).map_err(|problem| format!("{key}: {problem}"))?;
            }
        }
        Ok(())
    }
}

fn parse_disk(entry: &Value, at: usize, format: &str, bus: Bus) -> Result<Disk, String> {
    let empty = Map::new();
    let object = match entry {
        Value::Object(object) => object,
        Value::String(_) => &empty,
        _ => return Err("qemu_disk must be a path, or a list of paths or of objects with a path".into()),
    };
    let file = match entry {
        Value::String(path) => path.clone(),
        _ => text(object, "path")?.ok_or("a disk in qemu_disk has no path")?,
    };
    let file = absolute("qemu_disk", file)?;
    let format = text(object, "format")?.unwrap_or_else(|| format.to_owned());
    if format != "raw" && format != "qcow2" {
        return Err(format!("the format of {} is \"{format}\": it must be raw or qcow2", file.display()));
    }
    Ok(Disk {
        path: file,
        format,
        bus: text(object, "bus")?.map_or(Ok(bus), |name| parse_bus(&name))?,
        serial: plain(object, "serial", "-_.")?.unwrap_or_else(|| format!("ferric-disk{at}")),
    })
}

fn parse_bus(name: &str) -> Result<Bus, String> {
    match name {
        "virtio" => Ok(Bus::Virtio),
        "nvme" => Ok(Bus::Nvme),
        "scsi" => Ok(Bus::Scsi),
        "sata" => Ok(Bus::Sata),
        other => Err(format!("qemu_disk_bus is \"{other}\": it must be virtio, nvme, scsi or sata")),
    }
}

/// Bytes: a number, or a text such as `4G`, `2048M`, `512KiB`.
pub fn parse_size(value: &Value) -> Result<u64, String> {
    let wrong =
        || format!("qemu_create_disk is {value}: it must be a size such as 4G, 2048M or a number of bytes");
    if let Some(bytes) = value.as_u64() {
        return Ok(bytes);
    }
    let text = value.as_str().ok_or_else(wrong)?.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).filter(|n| *n > 0).ok_or_else(wrong)
}

fn text(info: &Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match info.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(format!("{key} must be a text")),
    }
}

/// A text of letters, digits and some signs: with a comma it would set more properties of the device.
fn plain(info: &Map<String, Value>, key: &str, signs: &str) -> Result<Option<String>, String> {
    let text = text(info, key)?;
    match &text {
        Some(text) if !text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c)) => {
            Err(format!("{key} is {text:?}: only letters, digits and any of {signs} are allowed"))
        }
        Some(_) | None => Ok(text),
    }
}

fn number(info: &Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    let wrong = || format!("{key} must be a whole number above 0");
    let value = match info.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_u64(),
    };
    value.filter(|n| *n > 0).map(Some).ok_or_else(wrong)
}

/// One of `allowed`, the first when the key is missing.
fn choice(info: &Map<String, Value>, key: &str, allowed: &[&str]) -> Result<String, String> {
    match text(info, key)? {
        None => Ok(allowed.first().copied().unwrap_or_default().to_owned()),
        Some(value) if allowed.contains(&value.as_str()) => Ok(value),
        Some(value) => Err(format!("{key} is \"{value}\": it must be one of {}", allowed.join(", "))),
    }
}

fn path(info: &Map<String, Value>, key: &str) -> Result<Option<PathBuf>, String> {
    text(info, key)?.map(|file| absolute(key, file)).transpose()
}

/// The controller's working directory is not the caller's, and QEMU's is neither.
fn absolute(key: &str, file: String) -> Result<PathBuf, String> {
    if file.contains(',') {
        return Err(format!("{key} is {file}: paths with a comma do not work with QEMU"));
    }
    let path = PathBuf::from(file);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("{key} is {}: the path must be absolute", path.display()))
    }
}
