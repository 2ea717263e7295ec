//! Which files of this host a machine may be given. `driver_info` comes from the API, and whoever may use the API must not
//! thereby read or write every file of this host: disks and console logs lie in the folders that the command line of
//! `ferric serve` names, and block devices are those that it names.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Where distributions keep firmware.
const FIRMWARE: [&str; 4] = ["/usr/share/OVMF", "/usr/share/edk2", "/usr/share/qemu", "/usr/share/AAVMF"];

/// The places of machines' files. All paths are absolute and free of links.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Folders for disks and console logs.
    pub folders: Vec<PathBuf>,
    /// Block devices that machines may have.
    pub devices: Vec<PathBuf>,
    /// Folders that machines' files must not lie in, though a folder above may be allowed: the state directory, served images.
    pub closed: Vec<PathBuf>,
}

/// What a machine is given.
enum Kind {
    File,
    Device,
    Missing,
}

impl Places {
    /// Checks a disk: a regular file in one of the folders, or one of the block devices. One that is missing is made there.
    ///
    /// # Errors
    /// Why it is refused, and what to do.
    pub fn disk(&self, path: &Path) -> Result<(), String> {
        match self.look(path)? {
            (_, Kind::Missing) => Ok(()),
            (real, Kind::File) => self.inside(path, &real),
            (real, Kind::Device) if self.devices.contains(&real) => Ok(()),
            (_, Kind::Device) => Err(format!(
                "{} is a block device; start `ferric serve` with --disks {} to allow it",
                path.display(),
                path.display()
            )),
        }
    }

    /// Checks, right before a machine gets the disk, that this host does not use it. **Reads and writes nothing.**
    ///
    /// # Errors
    /// The block device is mounted, or part of an array or a volume.
    pub fn is_free(&self, path: &Path) -> Result<(), String> {
        self.disk(path)?;
        let (real, Kind::Device) = self.look(path)? else { return Ok(()) };
        // The kernel gives a block device exclusively only where nothing of this host holds it or a partition of it.
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_EXCL.bits()).open(&real);
        match opened {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "the block device {} is in use or cannot be opened: {error}; unmount it, or choose another one",
                path.display()
            )),
        }
    }

    /// Checks the file of a console log: a regular file in one of the folders, or nothing yet.
    ///
    /// # Errors
    /// Why it is refused, and what to do.
    pub fn log(&self, path: &Path) -> Result<(), String> {
        match self.look(path)? {
            (_, Kind::Missing) => Ok(()),
            (real, Kind::File) => self.inside(path, &real),
            (_, Kind::Device) => Err(format!("{} is a block device; give a file", path.display())),
        }
    }

    /// Checks a firmware file: in one of the folders, or where distributions keep firmware.
    ///
    /// # Errors
    /// Why it is refused, and what to do.
    pub fn firmware(&self, path: &Path) -> Result<(), String> {
        let real = path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?;
        if !real.is_file() {
            return Err(format!("{} is not a regular file", path.display()));
        }
        if FIRMWARE.iter().any(|folder| real.starts_with(folder)) {
            return Ok(());
        }
        self.inside(path, &real)
    }

    /// The path without links, and what is there.
    fn look(&self, path: &Path) -> Result<(PathBuf, Kind), String> {
        let shown = path.display();
        match fs::symlink_metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.place_of_missing(path).map(|real| (real, Kind::Missing));
            }
            Err(error) => return Err(format!("{shown}: {error}")),
        }
        let real = path.canonicalize().map_err(|e| format!("{shown}: {e}"))?;
        let kind = fs::metadata(&real).map_err(|e| format!("{shown}: {e}"))?.file_type();
        if kind.is_block_device() {
            Ok((real, Kind::Device))
        } else if kind.is_file() {
            Ok((real, Kind::File))
        } else {
            Err(format!("{shown} is neither a regular file nor a block device"))
        }
    }

    /// Where a file that is not there would be made: its deepest folder that is there decides.
    fn place_of_missing(&self, path: &Path) -> Result<PathBuf, String> {
        let mut folder = path;
        let mut names = Vec::new();
        let real = loop {
            let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
                return Err(format!("{} is not the path of a file", path.display()));
            };
            names.push(name.to_owned());
            folder = parent;
            match folder.canonicalize() {
                Ok(real) => break real,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{}: {error}", folder.display())),
            }
        };
        let real = names.iter().rev().fold(real, |path, name| path.join(name));
        self.inside(path, &real)?;
        Ok(real)
    }

    fn inside(&self, path: &Path, real: &Path) -> Result<(), String> {
        let deepest = |folders: &[PathBuf]| {
            folders.iter().filter(|folder| real.starts_with(folder)).map(|f| f.components().count()).max()
        };
        // The closer folder decides: STATE is closed, STATE/disks is open.
        let open = match (deepest(&self.folders), deepest(&self.closed)) {
            (Some(open), Some(closed)) => open > closed,
            (open, None) => open.is_some(),
            (None, Some(_)) => false,
        };
        if open {
            return Ok(());
        }
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        Err(format!(
            "{} lies outside of the folders for machines' files ({}); choose a path there, or start `ferric serve` with --disks FOLDER",
            path.display(),
            folders.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn machines_get_files_of_their_folders_and_no_others() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["vms/sub", "state/disks", "state/images", "vms/state", "other"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["vms/a.raw", "state/ferric.sqlite", "state/disks/b.raw", "other/c.raw", "vms/state/d"] {
            fs::write(root.join(file), "x").unwrap();
        }
        symlink(root.join("other/c.raw"), root.join("vms/link.raw")).unwrap();
        symlink(root.join("other"), root.join("vms/folder")).unwrap();
        symlink(root.join("nowhere"), root.join("vms/dangling")).unwrap();
        let places = Places {
            folders: vec![root.join("vms"), root.join("state/disks")],
            devices: vec![],
            closed: vec![root.join("state"), root.join("vms/state")],
        };
        for fine in ["vms/a.raw", "vms/new.raw", "vms/sub/deep/new.raw", "state/disks/b.raw"] {
            assert_eq!(places.disk(&root.join(fine)), Ok(()), "{fine}");
            assert_eq!(places.log(&root.join(fine)), Ok(()), "{fine}");
        }
        for bad in [
            "state/ferric.sqlite",
            "state/new",
            "other/c.raw",
            "other/new",
            "vms/../other/c.raw",
            "vms/../other/new",
            "vms/link.raw",
            "vms/folder/new",
            "vms/dangling",
            "vms/state/d",
            "vms",
        ] {
            assert!(places.disk(&root.join(bad)).is_err(), "{bad}");
            assert!(places.log(&root.join(bad)).is_err(), "{bad}");
        }
        for bad in ["/dev/null", "/etc/passwd", "/proc/self/mem"] {
            assert!(
                places.disk(Path::new(bad)).is_err() && places.firmware(Path::new(bad)).is_err(),
                "{bad}"
            );
        }
    }
}
