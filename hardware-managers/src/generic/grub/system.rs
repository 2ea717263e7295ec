//! The deployed system, mounted so that its own programs can run in it.
//!
//! What is mounted is a tenant's file system: no link in it is followed from outside, for it could lead into the ramdisk. Its
//! programs run apart from everything of the ramdisk (`sys::CommandLine::inside`), with no device but those of their own disk.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hwm::Error;
use sys::{CommandLine, Host, MountRequest, Mounted};

/// How long one program of the image may take.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// Where programs lie in an image, in the order of its `PATH`.
const DIRECTORIES: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];
/// Devices that every program may count on; the rest of `/dev` is the disk's.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Links in `/dev` that shells count on.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A root file system with everything mounted in it. Unmounts all of it when dropped, last things first.
pub(super) struct System {
    host: Host,
    /// The root file system first.
    mounts: Vec<Mounted>,
}

impl System {
    /// Mounts the root file system of `kind` from a device, and what its programs need below it: of all devices only `disks`,
    /// given by their nodes. Its own `/proc` each program gets when it starts.
    pub(super) fn mount(host: &Host, device: &str, kind: &str, disks: &[String]) -> Result<Self, Error> {
        // Guarded: a node in the image could be that of any disk.
        let root =
            Mounted::temporary(host, Path::new(device), kind, MountRequest::guarded).map_err(|error| {
                Error::other(format!("mounting the root file system {device} as {kind}"), error)
            })?;
        let mut system = Self { host: host.clone(), mounts: vec![root] };
        system.directory("proc")?;
        let memory = |target| MountRequest::new("ferric", target, "tmpfs").options("mode=755").guarded();
        system.mount_at("dev", memory)?;
        for node in DEVICES.into_iter().chain(disks.iter().map(String::as_str)) {
            system.show_device(node)?;
        }
        for (name, target) in LINKS {
            system.link(&format!("dev/{name}"), target)?;
        }
        system.mount_at("run", memory)?;
        system.mount_at("sys", |target| MountRequest::new("sysfs", target, "sysfs").guarded().read_only())?;
        Ok(system)
    }

    /// Makes a device of this system visible under the same name, if it is there.
    fn show_device(&mut self, node: &str) -> Result<(), Error> {
        let source = self.host.path(node);
        if !source.exists() {
            return Ok(());
        }
        let place = node.trim_start_matches('/');
        let (directory, name) = place.rsplit_once('/').unwrap_or(("", place));
        let target = self.directory(directory)?.join(name);
        let fail = |error| Error::other(format!("showing {node} to the image's programs"), error);
        File::create(&target).map_err(fail)?;
        self.mounts.push(Mounted::new(&self.host, &MountRequest::bind(source, target)).map_err(fail)?);
        Ok(())
    }

    /// Makes the link by which a file system is found by its UUID. Without it grub's menu names the root by its device node, which
    /// may be another one in the machine that starts from it (`10_linux` of grub looks whether the link exists).
    pub(super) fn name_by_uuid(&self, node: &str, uuid: &str) -> Result<(), Error> {
        if uuid.is_empty() || uuid.contains('/') {
            return Ok(());
        }
        self.link(&format!("dev/disk/by-uuid/{uuid}"), &format!("../../{}", node.trim_start_matches("/dev/")))
    }

    fn link(&self, place: &str, target: &str) -> Result<(), Error> {
        let (directory, name) = place.rsplit_once('/').unwrap_or(("", place));
        symlink(target, self.directory(directory)?.join(name))
            .map_err(|error| Error::other(format!("linking /{place} in the image"), error))
    }

    /// The root file system's directory.
    fn root(&self) -> &Path {
        self.mounts.first().map_or(Path::new("/nonexistent"), Mounted::path)
    }

    /// Mounts something at a place of the image, below what is mounted there already.
    pub(super) fn mount_at(
        &mut self,
        place: &str,
        request: impl FnOnce(PathBuf) -> MountRequest,
    ) -> Result<(), Error> {
        let target = self.directory(place)?;
        let mounted = Mounted::new(&self.host, &request(target))
            .map_err(|error| Error::other(format!("mounting /{place} in the image"), error))?;
        self.mounts.push(mounted);
        Ok(())
    }

    /// Undoes the latest [`System::mount_at`].
    pub(super) fn unmount_last(&mut self) -> Result<(), Error> {
        self.mounts.pop().map_or(Ok(()), |mounted| {
            mounted.unmount().map_err(|error| Error::other("unmounting in the image", error))
        })
    }

    /// Unmounts everything, which writes out all that was changed.
    ///
    /// # Errors
    /// The first thing that was still in use; the rest is unmounted all the same.
    pub(super) fn unmount(mut self) -> Result<(), Error> {
        let mut result = Ok(());
        while !self.mounts.is_empty() {
            result = result.and(self.unmount_last());
        }
        result
    }

    /// A directory of the image, made where it is missing. None of its parts may be a link.
    pub(super) fn directory(&self, place: &str) -> Result<PathBuf, Error> {
        let mut path = self.root().to_owned();
        for part in place.split('/') {
            path.push(part);
            match std::fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => {
                    return Err(Error::InvalidImage {
                        message: format!(
                            "/{place} of the image is no directory of its own: links are not followed"
                        ),
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir(&path)
                    .map_err(|error| Error::other(format!("making /{place} in the image"), error))?,
                Err(error) => return Err(Error::other(format!("looking at /{place} in the image"), error)),
            }
        }
        Ok(path)
    }

    /// A directory of the image, if it is there and no part of it is a link.
    pub(super) fn existing_directory(&self, place: &str) -> Option<PathBuf> {
        let mut path = self.root().to_owned();
        for part in place.split('/') {
            path.push(part);
            std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_dir)?;
        }
        Some(path)
    }

    /// Where a program lies, as its own system names it.
    pub(super) fn program(&self, name: &str) -> Option<String> {
        program(self.root(), name)
    }

    /// **Runs a program of the image** in the image.
    pub(super) fn run(&self, argv: &[&str], variables: &[(&str, &str)]) -> Result<(), sys::RunError> {
        let mut command = CommandLine::new(argv.iter().copied()).inside(self.root()).limit(LIMIT);
        for (name, value) in variables {
            command = command.variable(name, value);
        }
        tracing::info!(command = argv.join(" "), "running a program of the image");
        self.host.runner().run(&command).map(drop)
    }
}

/// Where a program of the system below `root` lies, as that system names it. A link counts: it is followed inside.
pub(super) fn program(root: &Path, name: &str) -> Option<String> {
    let place = DIRECTORIES
        .iter()
        .map(|directory| format!("{directory}/{name}"))
        .find(|place| std::fs::symlink_metadata(root.join(place)).is_ok())?;
    Some(format!("/{place}"))
}

impl Drop for System {
    fn drop(&mut self) {
        // Fields of a vector are dropped first to last: what is mounted inside has to go first.
        while self.mounts.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use sys::fake::{Call, FakeRunner, RecordingKernel};

    #[test]
    fn everything_is_unmounted_in_reverse_whatever_happens() {
        let root = tempfile::tempdir().unwrap();
        let kernel = Arc::new(RecordingKernel::default());
        let host = Host::new(root.path(), Arc::new(FakeRunner::default()), Arc::clone(&kernel) as _);
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        for name in ["null", "sda", "sda3", "sdb"] {
            std::fs::write(root.path().join("dev").join(name), "").unwrap();
        }
        let disks = ["/dev/sda", "/dev/sda3", "/dev/sda4"].map(str::to_owned);
        let mut system = System::mount(&host, "/dev/sda3", "ext4", &disks).unwrap();
        system.name_by_uuid("/dev/sda3", "abcd").unwrap();
        let link = std::fs::read_link(system.root().join("dev/disk/by-uuid/abcd")).unwrap();
        assert_eq!(link.to_str(), Some("../../sda3"));
        let inside = system.root().to_owned();
        let esp = root.path().join("dev/sda1");
        system.mount_at("boot/efi", |target| MountRequest::new(esp, target, "vfat")).unwrap();
        drop(system);
        let targets = |wanted: fn(&Call) -> Option<PathBuf>| -> Vec<PathBuf> {
            kernel.calls().iter().filter_map(wanted).collect()
        };
        let mounted = targets(|call| match call {
            Call::Mount(request) => Some(request.target.clone()),
            _ => None,
        });
        let mut unmounted = targets(|call| match call {
            Call::Unmount(target) => Some(target.clone()),
            _ => None,
        });
        unmounted.reverse();
        let places: Vec<_> = mounted.iter().map(|target| target.strip_prefix(&inside).unwrap()).collect();
        let expected =
            ["", "dev", "dev/null", "dev/sda", "dev/sda3", "run", "sys", "boot/efi"].map(Path::new);
        assert_eq!(places, expected, "of the devices only those of this disk");
        assert_eq!(mounted, unmounted);
        for call in kernel.calls() {
            if let Call::Mount(request) = call
                && !request.is_bind
                && request.filesystem != "vfat"
            {
                assert!(request.is_guarded, "{request:?}");
            }
        }
    }

    #[test]
    fn links_of_the_image_lead_nowhere() {
        let root = tempfile::tempdir().unwrap();
        let host = sys::fake::host(root.path());
        let system = System::mount(&host, "/dev/sda3", "ext4", &[]).unwrap();
        symlink("/etc", system.root().join("boot")).unwrap();
        assert!(matches!(system.directory("boot/efi"), Err(Error::InvalidImage { .. })));
        assert_eq!(system.existing_directory("boot/efi"), None);
        assert_eq!(system.program("grub-install"), None);
        std::fs::create_dir_all(system.root().join("usr/sbin")).unwrap();
        symlink("/nowhere", system.root().join("usr/sbin/grub-install")).unwrap();
        assert_eq!(system.program("grub-install").as_deref(), Some("/usr/sbin/grub-install"));
    }
}
