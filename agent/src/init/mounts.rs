//! The file systems that the kernel makes out of nothing. Mounts no disk.

use std::collections::BTreeSet;
use std::io;

use sys::{Host, MountRequest};

use super::Error;

/// Type, where, options, and whether the agent can not live without it.
const BASICS: [(&str, &str, &str, bool); 7] = [
    ("proc", "/proc", "", true),
    ("sysfs", "/sys", "", true),
    ("devtmpfs", "/dev", "mode=0755", true),
    ("devpts", "/dev/pts", "mode=0620,gid=5,ptmxmode=0666", false),
    ("tmpfs", "/dev/shm", "mode=1777", false),
    ("tmpfs", "/run", "mode=0755", true),
    ("tmpfs", "/tmp", "mode=1777", true),
];
const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// Mounts what is not mounted yet.
pub(super) fn mount_basics(host: &Host) -> Result<(), Error> {
    for (filesystem, target, options, needed) in BASICS {
        match mount(host, filesystem, target, options) {
            Err(error) if needed => return Err(error),
            Err(error) => tracing::warn!(%error, "going on without a file system"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Mounts the firmware's variables where the machine was started by UEFI. After the drivers: efivarfs may be a module.
pub(super) fn mount_efivars(host: &Host) {
    if !host.path(EFIVARS).is_dir() {
        return; // BIOS, or a kernel whose firmware offers no variables at run time
    }
    if let Err(error) = mount(host, "efivarfs", EFIVARS, "") {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, source, "no access to UEFI boot entries");
    }
}

fn mount(host: &Host, filesystem: &str, target: &str, options: &str) -> Result<(), Error> {
    if mounted(host).contains(target) {
        return Ok(());
    }
    let path = host.path(target);
    let failed = |source| Error::Mount { filesystem: filesystem.into(), target: target.into(), source };
    // sysfs refuses new directories, and has those we need.
    if !path.is_dir() {
        std::fs::create_dir_all(&path).map_err(failed)?;
    }
    match host.kernel().mount(&MountRequest::new(filesystem, &path, filesystem).options(options)) {
        Err(error) if error.kind() != io::ErrorKind::ResourceBusy => Err(failed(error)),
        _ => Ok(()), // busy: the same is mounted there already, which only /proc can not tell
    }
}

/// Where something is mounted. Empty before `/proc` is.
fn mounted(host: &Host) -> BTreeSet<String> {
    let table = std::fs::read_to_string(host.path("/proc/self/mounts")).unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use sys::fake::{Call, FakeRunner, RecordingKernel};

    fn mount_calls(mounts: &str) -> Vec<(String, String)> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        std::fs::write(root.path().join("proc/self/mounts"), mounts).unwrap();
        let kernel = Arc::new(RecordingKernel::default());
        let host = Host::new(root.path(), Arc::new(FakeRunner::default()), kernel.clone());
        mount_basics(&host).unwrap();
        kernel
            .calls()
            .into_iter()
            .map(|call| match call {
                Call::Mount(request) => {
                    let target = request.target.strip_prefix(root.path()).unwrap().display().to_string();
                    (request.filesystem, target)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn everything_is_mounted_on_an_empty_ramdisk() {
        let calls = mount_calls("");
        assert_eq!(calls.len(), BASICS.len());
        assert_eq!(calls.first(), Some(&("proc".into(), "proc".into())));
    }

    #[test]
    fn what_is_mounted_is_left_alone() {
        let calls = mount_calls("proc /proc proc rw 0 0\ndev /dev devtmpfs rw 0 0\nrun /run tmpfs rw 0 0\n");
        let targets: Vec<_> = calls.iter().map(|(_, target)| target.as_str()).collect();
        assert_eq!(targets, ["sys", "dev/pts", "dev/shm", "tmp"]);
    }
}
