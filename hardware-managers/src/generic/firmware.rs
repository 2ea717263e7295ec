//! Reaching what firmware stores: kernel modules and the file systems `pstore` and `efivarfs`. In the ramdisk process 1 mounts the
//! second; an agent that is an ordinary process, or a kernel that has them as modules, may find neither.

use std::io;

use sys::{CommandLine, Host, MountRequest, Mounted};

pub(super) const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// Loads a kernel module by `modprobe`, which is the agent itself in the ramdisk. Whether it had an effect is for the caller to see:
/// a module that is not there, or finds nothing to do, is only logged.
pub(super) fn load_module(host: &Host, name: &str) {
    let command = CommandLine::new(["/sbin/modprobe", "-q", "--", name]);
    if let Err(error) = host.runner().run(&command) {
        tracing::debug!(module = name, %error, "module not loaded");
    }
}

/// Makes the firmware's variables reachable: mounts efivarfs unless it is mounted. It is unmounted when the value is dropped.
///
/// # Errors
/// What the kernel says; a machine that UEFI did not start has no place to mount it at.
pub(super) fn variables(host: &Host) -> io::Result<Option<Mounted>> {
    if !host.names(VARIABLES).unwrap_or_default().is_empty() {
        return Ok(None);
    }
    mount(host, "efivarfs", "efivarfs", VARIABLES)
}

/// Mounts a file system of the kernel's at its own place, with its module. `None` where it is mounted already.
pub(super) fn mount(host: &Host, kind: &str, module: &str, place: &str) -> io::Result<Option<Mounted>> {
    if mount_point(host, kind)?.is_some() {
        return Ok(None);
    }
    if !is_known(host, kind) {
        load_module(host, module);
    }
    let target = host.path(place);
    if !target.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("the kernel has no {place}")));
    }
    Mounted::new(host, &MountRequest::new(kind, target, kind)).map(Some)
}

/// Returns where a file system of this type is mounted: `pstore /sys/fs/pstore pstore rw 0 0`.
pub(super) fn mount_point(host: &Host, kind: &str) -> io::Result<Option<String>> {
    let mounts = std::fs::read_to_string(host.path("/proc/mounts"))?;
    let found = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, directory, found) = (fields.next()?, fields.next()?, fields.next()?);
        (found == kind).then(|| directory.to_owned())
    });
    Ok(found)
}

/// Whether the kernel has a file system type at the moment.
fn is_known(host: &Host, kind: &str) -> bool {
    let types = std::fs::read_to_string(host.path("/proc/filesystems")).unwrap_or_default();
    types.lines().any(|line| line.split_whitespace().last() == Some(kind))
}
