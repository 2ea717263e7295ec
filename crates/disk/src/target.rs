//! The gate before every destructive function: proof that a disk may be destroyed.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sys::Host;
use wire::Disk;

use crate::erase::stalled;
use crate::erase::watch::{STALL_LIMIT, watched};
use crate::list::{describe, kernel_name};
use crate::{Contents, Device, Error, Policy};

const REREAD_ATTEMPTS: u32 = 20;
const REREAD_INTERVAL: Duration = Duration::from_millis(100);

/// A disk that may be destroyed. Only [`Target::claim`] makes one.
///
/// Not `Clone`, not `Deserialize`: who has one got it from a claim.
pub struct Target {
    host: Host,
    host_path: PathBuf,
    disk: Disk,
    number: (u32, u32),
    sector_bytes: u32,
    size_bytes: u64,
    /// Whether a request was not answered in time: every further one would hang as well.
    is_stalled: AtomicBool,
}

/// Why a disk may not be destroyed. Each text names the rule, and what would allow it where something would.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields are the operands that the text names
pub enum Refusal {
    #[error(
        "refusing to destroy {device}: this system does not run from a ramdisk, so the disks that may be written must be \
         named (kernel parameter `ferric-disks=` or option `--disks`)"
    )]
    NoAllowList { device: String },
    #[error(
        "refusing to destroy {device}: it is not on the allow-list `{allow}` (kernel parameter `ferric-disks=` or option \
         `--disks`); add it there to allow it"
    )]
    NotAllowed { device: String, allow: String },
    #[error(
        "refusing to destroy {device}: a loop device counts only where the allow-list names it (kernel parameter \
         `ferric-disks=` or option `--disks`); add it there to allow it"
    )]
    LoopNotNamed { device: String },
    #[error("refusing to destroy {device}: there is no such disk (any more)")]
    Gone { device: String },
    #[error(
        "refusing to destroy {device}: it is another disk than the one that was chosen (serial number, WWN, size or \
         path differ)"
    )]
    Swapped { device: String },
    #[error("refusing to destroy {device}: the disk is read-only")]
    ReadOnly { device: String },
    #[error("refusing to destroy {device}: {part} is mounted on {mount_point}; unmount it to allow it")]
    Mounted { device: String, part: String, mount_point: String },
    #[error("refusing to destroy {device}: {part} is used as swap; run `swapoff {part}` to allow it")]
    Swap { device: String, part: String },
    #[error(
        "refusing to destroy {device}: {part} is part of {holder} (RAID, LVM, encryption or multipath); stop {holder} to \
         allow it"
    )]
    Held { device: String, part: String, holder: String },
    #[error("refusing to destroy {device}: the node {node} is not that disk: {found}")]
    WrongNode { device: String, node: String, found: String },
    #[error(
        "refusing to destroy {device}: the kernel says it is in use (by another process or mount namespace)"
    )]
    Busy {
        device: String,
        #[source]
        source: io::Error,
    },
    #[error("refusing to destroy {device}: can not tell whether it is in use: {action} failed")]
    Unknown {
        device: String,
        action: String,
        #[source]
        source: io::Error,
    },
}

impl Target {
    /// Checks that a disk may be destroyed: it is on the allow-list (mandatory outside a ramdisk), present and writable;
    /// neither it nor a partition of it is mounted, swapped on or held by an array or mapping; the device node is that
    /// disk; nobody holds it exclusively. Changes nothing.
    pub fn claim(host: &Host, disk: &Disk, policy: &Policy) -> Result<Self, Refusal> {
        check_permission(disk, policy)?;
        let device = disk.name.clone();
        let name = kernel_name(&disk.name);
        let directory = format!("/sys/block/{name}");
        let number = number_of_same(host, disk)?;
        if host.attribute(format!("{directory}/ro")).is_some_and(|value| value != "0") {
            return Err(Refusal::ReadOnly { device });
        }

        let parts = parts(host, &name).map_err(unknown(&device, "reading sysfs"))?;
        refuse_holders(host, &device, &parts)?;
        refuse_mounts(host, &device, &parts)?;
        refuse_swap(host, &device, &parts)?;

        let host_path = host.path(&disk.name);
        refuse_wrong_node(host, disk, number)?;
        let opened = Device::open_exclusive(&host_path).map_err(|error| refusal_of(&device, error))?;
        let size_bytes = crate::Source::size(&opened);
        tracing::debug!(device = %device, size = size_bytes, "disk claimed");
        Ok(Self {
            host: host.clone(),
            host_path,
            disk: disk.clone(),
            number,
            sector_bytes: opened.sector_bytes(),
            size_bytes,
            is_stalled: AtomicBool::new(false),
        })
    }

    /// Checks that this is still the disk that was claimed. Whoever opens [`Target::device`] himself calls it **after opening
    /// and before the first write**: while a device is open, its number goes to no other, so the answer stays true.
    pub fn confirm(&self) -> Result<(), Refusal> {
        confirm(&self.host, &self.disk, self.number)
    }

    /// Returns whether a request was not answered in time; every further one would hang as well.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::Relaxed)
    }

    /// Returns what opens the disk for writing past the page cache, from any thread.
    pub(crate) fn opener(&self) -> Opener {
        Opener {
            host: self.host.clone(),
            host_path: self.host_path.clone(),
            disk: self.disk.clone(),
            number: self.number,
        }
    }

    /// The device node, on the machine (below the fixture directory in tests).
    pub fn device(&self) -> &Path {
        &self.host_path
    }

    /// The machine.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Size in bytes, as the device itself says.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Logical sector size in bytes.
    pub fn logical_sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// The disk as it was listed.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Returns what writing to this disk would destroy. Reads only. A disk that does not answer within ten minutes has contents that
    /// say so.
    pub fn contents(&self) -> Contents {
        self.contents_within(STALL_LIMIT)
    }

    /// As [`Target::contents`], with another limit. A disk that did not answer once is not asked again.
    pub fn contents_within(&self, limit: Duration) -> Contents {
        if self.is_stalled.load(Ordering::Relaxed) {
            return Contents::unreadable(&stalled(self, limit, 0));
        }
        let opener = self.opener();
        let read = watched(limit, &mut |_| ControlFlow::Continue(()), move |_| match opener.read() {
            Ok(device) => Contents::read(&device, device.sector_bytes()),
            Err(error) => Contents::unreadable(&error),
        });
        read.unwrap_or_else(|_| {
            self.is_stalled.store(true, Ordering::Relaxed);
            Contents::unreadable(&stalled(self, limit, 0))
        })
    }

    /// The partition table as it is now.
    pub fn table(&self) -> Result<crate::table::Table, Error> {
        crate::table::Table::read_device(&self.host_path)
    }

    /// Makes the kernel read the partition table again. Somebody who still has the disk open is waited for, two seconds.
    ///
    /// Kernels and loop devices without partition support can not, and a failure leaves what is on the disk as it is: it is
    /// logged, and nothing above depends on partition nodes.
    pub fn reread_partitions(&self) {
        for attempt in 1..=REREAD_ATTEMPTS {
            match self.host.kernel().reread_partition_table(&self.host_path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < REREAD_ATTEMPTS => {
                    std::thread::sleep(REREAD_INTERVAL);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    tracing::debug!(device = %self.disk.name, "the kernel keeps no partitions for this device");
                    return;
                }
                Err(error) => {
                    tracing::warn!(device = %self.disk.name, %error, "the kernel did not re-read the partition table");
                    return;
                }
            }
        }
    }

    /// Opens the disk for writing, for this process alone. Whoever looks at a disk that has just changed (`multipathd`, `mdadm`)
    /// holds it for a moment, and is waited for, two seconds.
    pub(crate) fn open(&self) -> Result<Device, Error> {
        let is_busy = |error: &Error| matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy);
        let mut attempt = 1;
        let device = loop {
            match Device::open_exclusive(&self.host_path) {
                Err(error) if is_busy(&error) && attempt < REREAD_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(REREAD_INTERVAL);
                }
                opened => break opened?,
            }
        };
        self.confirm().map_err(|refusal| Error::Io {
            action: format!("opening {} for writing", self.disk.name),
            source: io::Error::other(refusal),
        })?;
        Ok(device)
    }
}

/// Opens a claimed disk for writing. Work that may hang takes it to its own thread.
pub(crate) struct Opener {
    host: Host,
    host_path: PathBuf,
    disk: Disk,
    number: (u32, u32),
}

impl Opener {
    /// Opens the disk for this process alone and confirms that it is the one that was claimed.
    pub(crate) fn open(&self) -> Result<sys::BlockDevice, Error> {
        let action = || format!("opening {} for writing", self.disk.name);
        let device = sys::BlockDevice::open(&self.host_path).map_err(Error::io(action()))?;
        confirm(&self.host, &self.disk, self.number)
            .map_err(|refusal| Error::Io { action: action(), source: io::Error::other(refusal) })?;
        Ok(device)
    }

    /// Opens the disk for reading.
    pub(crate) fn read(&self) -> Result<Device, Error> {
        Device::open(&self.host_path)
    }

    /// The machine.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// The disk's path: `/dev/sda`.
    pub(crate) fn name(&self) -> &str {
        &self.disk.name
    }
}

fn confirm(host: &Host, disk: &Disk, claimed: (u32, u32)) -> Result<(), Refusal> {
    let number = number_of_same(host, disk)?;
    if number != claimed {
        return Err(Refusal::Swapped { device: disk.name.clone() });
    }
    refuse_wrong_node(host, disk, number)
}

/// Whether the policy lets this disk be written.
pub(crate) fn check_permission(disk: &Disk, policy: &Policy) -> Result<(), Refusal> {
    let device = disk.name.clone();
    match &policy.allow {
        None if !policy.in_ramdisk => Err(Refusal::NoAllowList { device }),
        Some(allow) if !allow.permits(disk) => Err(Refusal::NotAllowed { device, allow: allow.to_string() }),
        None if kernel_name(&disk.name).starts_with("loop") => Err(Refusal::LoopNotNamed { device }),
        None | Some(_) => Ok(()),
    }
}

/// Whether this is still that disk, writable, and used by nobody but running arrays.
pub(crate) fn check_in_use_by_arrays_alone(host: &Host, disk: &Disk) -> Result<(), Refusal> {
    let name = kernel_name(&disk.name);
    let number = number_of_same(host, disk)?;
    if host.attribute(format!("/sys/block/{name}/ro")).is_some_and(|value| value != "0") {
        return Err(Refusal::ReadOnly { device: disk.name.clone() });
    }
    let parts = parts(host, &name).map_err(unknown(&disk.name, "reading sysfs"))?;
    for part in &parts {
        let holders = host
            .names(format!("{}/holders", part.directory))
            .map_err(unknown(&disk.name, "reading the holders in sysfs"))?;
        let is_array = |holder: &String| host.path(format!("/sys/block/{holder}/md")).is_dir();
        if let Some(holder) = holders.into_iter().find(|holder| !is_array(holder)) {
            return Err(Refusal::Held { device: disk.name.clone(), part: part.node.clone(), holder });
        }
    }
    refuse_mounts(host, &disk.name, &parts)?;
    refuse_swap(host, &disk.name, &parts)?;
    refuse_wrong_node(host, disk, number)
}

/// The number of the device that bears the disk's name now, if it is the same disk. Names are given anew when disks come
/// and go; what tells a disk from another is not. Many virtual disks have no serial number: size and path must do.
fn number_of_same(host: &Host, disk: &Disk) -> Result<(u32, u32), Refusal> {
    let name = kernel_name(&disk.name);
    let device = || disk.name.clone();
    let Some(number) = device_number(host, &format!("/sys/block/{name}")) else {
        return Err(Refusal::Gone { device: device() });
    };
    let found = describe(host, &name);
    let is_same = found.serial == disk.serial
        && found.wwn == disk.wwn
        && found.size == disk.size
        && found.by_path == disk.by_path;
    if is_same { Ok(number) } else { Err(Refusal::Swapped { device: device() }) }
}

fn refuse_wrong_node(host: &Host, disk: &Disk, number: (u32, u32)) -> Result<(), Refusal> {
    let wrong = |found: String| {
        let device = disk.name.clone();
        Err(Refusal::WrongNode { node: device.clone(), device, found })
    };
    match sys::device::block_device_number(&host.path(&disk.name)) {
        Ok(Some(found)) if found == number => Ok(()),
        Ok(Some((major, minor))) => {
            wrong(format!("it is {major}:{minor}, the disk is {}:{}", number.0, number.1))
        }
        Ok(None) => wrong("it is no block device".into()),
        Err(source) => wrong(source.to_string()),
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}, {} bytes)", self.disk.name, self.size_bytes)
    }
}

/// A mount, as `/proc/self/mountinfo` tells.
pub(crate) struct Mount {
    number: Option<(u32, u32)>,
    pub(crate) target: String,
    pub(crate) file_system: String,
    source: String,
}

/// All mounts of this mount namespace, in order. Lines that can not be read are left out.
pub(crate) fn mounts(host: &Host) -> io::Result<Vec<Mount>> {
    let text = std::fs::read(host.path("/proc/self/mountinfo"))?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse_mount).collect())
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw` (proc_pid_mountinfo(5)).
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ');
    let number = fields.nth(2).and_then(parse_number);
    let target = unescape(fields.nth(1)?);
    let mut fields = right.split(' ');
    Some(Mount { number, target, file_system: fields.next()?.into(), source: unescape(fields.next()?) })
}

/// The kernel writes blanks in paths as `\040`.
fn unescape(text: &str) -> String {
    let mut plain = text.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escape, character);
    }
    plain
}

/// The disk itself, and each of its partitions.
struct Part {
    /// Path of the node.
    node: String,
    /// Below `/sys`.
    directory: String,
    number: Option<(u32, u32)>,
}

fn parts(host: &Host, name: &str) -> io::Result<Vec<Part>> {
    let part = |name: &str, directory: String| {
        let number = device_number(host, &directory);
        Part { node: format!("/dev/{}", name.replace('!', "/")), directory, number }
    };
    let disk = format!("/sys/block/{name}");
    let mut parts = vec![part(name, disk.clone())];
    for child in host.names(&disk)? {
        let directory = format!("{disk}/{child}");
        if host.path(format!("{directory}/partition")).exists() {
            parts.push(part(&child, directory));
        }
    }
    Ok(parts)
}

fn device_number(host: &Host, directory: &str) -> Option<(u32, u32)> {
    parse_number(&host.attribute(format!("{directory}/dev"))?)
}

fn parse_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn refuse_holders(host: &Host, device: &str, parts: &[Part]) -> Result<(), Refusal> {
    for part in parts {
        let holders = host
            .names(format!("{}/holders", part.directory))
            .map_err(unknown(device, "reading the holders in sysfs"))?;
        if let Some(holder) = holders.into_iter().next() {
            return Err(Refusal::Held { device: device.into(), part: part.node.clone(), holder });
        }
    }
    Ok(())
}

fn refuse_mounts(host: &Host, device: &str, parts: &[Part]) -> Result<(), Refusal> {
    for mount in mounts(host).map_err(unknown(device, "reading /proc/self/mountinfo"))? {
        let source = node_number(host, &mount.source);
        let used = parts.iter().find(|part| {
            // By number, by the number of the node it was mounted from (btrfs shows a number of its own), by name.
            let same = |number: Option<(u32, u32)>| number.is_some() && number == part.number;
            same(mount.number) || same(source) || mount.source == part.node
        });
        if let Some(part) = used {
            let part = part.node.clone();
            return Err(Refusal::Mounted { device: device.into(), part, mount_point: mount.target });
        }
    }
    Ok(())
}

fn refuse_swap(host: &Host, device: &str, parts: &[Part]) -> Result<(), Refusal> {
    let text = match std::fs::read_to_string(host.path("/proc/swaps")) {
        Ok(text) => text,
        // A kernel without swap has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unknown(device, "reading /proc/swaps")(error)),
    };
    for path in text.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        let path = unescape(path);
        let number = node_number(host, &path);
        if let Some(part) =
            parts.iter().find(|part| part.node == path || (number.is_some() && number == part.number))
        {
            return Err(Refusal::Swap { device: device.into(), part: part.node.clone() });
        }
    }
    Ok(())
}

fn node_number(host: &Host, path: &str) -> Option<(u32, u32)> {
    if !path.starts_with('/') {
        return None;
    }
    sys::device::block_device_number(&host.path(path)).ok().flatten()
}

fn unknown(device: &str, action: &str) -> impl FnOnce(io::Error) -> Refusal {
    let (device, action) = (device.to_owned(), action.to_owned());
    move |source| Refusal::Unknown { device, action, source }
}

fn refusal_of(device: &str, error: Error) -> Refusal {
    let device = device.to_owned();
    match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
            Refusal::Busy { device, source }
        }
        Error::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Refusal::ReadOnly { device }
        }
        Error::Io { action, source } => Refusal::Unknown { device, action, source },
        other => Refusal::Unknown { device, action: other.to_string(), source: io::ErrorKind::Other.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // mkfifo is run by the test itself
    fn a_disk_that_does_not_answer_is_asked_once_and_its_contents_say_so() {
        let root = tempfile::tempdir().unwrap();
        let pipe = root.path().join("disk");
        // Opening a pipe hangs until another process opens its other end.
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let target = Target {
            host: sys::fake::host(root.path()),
            host_path: pipe.clone(),
            disk: Disk { name: "/dev/sdx".into(), ..Disk::default() },
            number: (8, 0),
            sector_bytes: 512,
            size_bytes: 1 << 20,
            is_stalled: AtomicBool::new(false),
        };
        let started = std::time::Instant::now();
        let contents = target.contents_within(Duration::from_millis(300));
        assert!(contents.table.contains("/dev/sdx does not answer"), "{}", contents.table);
        assert!(target.contents().table.contains("does not answer"), "not asked again");
        let plan = crate::erase::Overwrite { random_passes: 1, zero_pass: false, verify: false };
        let overwritten =
            crate::erase::overwrite(&target, &plan, STALL_LIMIT, &mut |_| ControlFlow::Continue(()));
        for result in [overwritten.map(|_| ()), crate::wipe_metadata(&target)] {
            assert!(matches!(result, Err(Error::Stalled { .. })), "{result:?}");
        }
        assert!(started.elapsed() < Duration::from_secs(30));
        drop(std::fs::File::options().write(true).open(pipe)); // lets the thread that was left behind go
    }
}
