//! Files below a directory that somebody else filled: no link in it leads out.
//!
//! A tenant's file system may hold links to anywhere, and the agent would follow them as root. Paths are resolved by the
//! kernel as if the directory were `/` (`openat2` with `RESOLVE_IN_ROOT`): `/run` in a link means the directory's own `run`.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// A directory that paths can not leave. Paths are relative to it; a leading slash means the same.
pub struct Confined {
    directory: File,
}

impl Confined {
    /// Takes a directory, such as the place where something is mounted.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let directory = File::open(directory)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { directory })
    }

    /// Whether a path leads to a directory; what can not be followed does not.
    pub fn is_directory(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).is_ok()
    }

    /// Makes a directory and those above it, where they are missing. Returns whether the last one is new.
    pub fn create_directories(&self, path: &Path) -> io::Result<bool> {
        let mut reached = PathBuf::new();
        let mut is_new = false;
        for component in path.components() {
            let Component::Normal(name) = component else {
                reached.push(component);
                continue;
            };
            let parent = self.resolve(&reached, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
            is_new = match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(errno.into()),
            };
            reached.push(name);
        }
        if !self.is_directory(path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(is_new)
    }

    /// Sets the permission bits of a directory, whatever the umask.
    pub fn set_directory_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let directory = self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
        directory.set_permissions(Permissions::from_mode(mode))
    }

    /// Opens a file for writing, empty; makes it where it is missing. A link is followed, inside.
    ///
    /// # Errors
    /// `InvalidInput` for what is no regular file.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        // Not O_TRUNC at once: what is no regular file stays as it is. O_NONBLOCK: a FIFO does not hold us.
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = self.resolve(path, flags, Mode::from_bits_truncate(0o644))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        file.set_len(0)?;
        Ok(file)
    }

    /// Removes a file, or a link without following it. One that is not there is as good as removed.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let parent = match self.resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()) {
            Ok(parent) => parent,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlag, mode: Mode) -> io::Result<File> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve =
            ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
        loop {
            match openat2(self.directory.as_fd(), path, how) {
                Ok(descriptor) => return Ok(File::from(descriptor)),
                Err(Errno::EINTR | Errno::EAGAIN) => {} // something was renamed meanwhile: the kernel asks to try again
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Sets owner and group of an open file; `None` leaves one as it is.
pub fn set_owner(file: &File, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
    fchown(file, owner, group)
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
    Ok((path.parent().ok_or_else(invalid)?, path.file_name().ok_or_else(invalid)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    /// A directory `inside` with links that try to leave it, beside a file that must not change.
    fn world() -> (tempfile::TempDir, Confined) {
        let outer = tempfile::tempdir().unwrap();
        let inside = outer.path().join("inside");
        fs::create_dir_all(inside.join("etc")).unwrap();
        fs::create_dir_all(inside.join("run")).unwrap();
        fs::write(outer.path().join("secret"), "untouched").unwrap();
        symlink("../../../../../../secret", inside.join("etc/up")).unwrap();
        symlink(outer.path().join("secret"), inside.join("etc/absolute")).unwrap();
        symlink("/run", inside.join("etc/runtime")).unwrap();
        symlink("/proc/self/root", inside.join("etc/magic")).unwrap();
        let confined = Confined::open(&inside).unwrap();
        (outer, confined)
    }

    fn write(confined: &Confined, path: &str, text: &str) -> io::Result<()> {
        confined.create(Path::new(path))?.write_all(text.as_bytes())
    }

    #[test]
    fn links_and_dots_end_inside() {
        let (outer, confined) = world();
        let inside = outer.path().join("inside");
        write(&confined, "etc/up", "x").unwrap();
        assert_eq!(
            fs::read_to_string(inside.join("secret")).unwrap(),
            "x",
            "the link's target, seen from inside"
        );
        assert!(write(&confined, "etc/absolute", "x").is_err(), "its directory does not exist inside");
        write(&confined, "/etc/runtime/y", "y").unwrap();
        assert_eq!(fs::read_to_string(inside.join("run/y")).unwrap(), "y");
        write(&confined, "../../../../z", "z").unwrap();
        assert_eq!(fs::read_to_string(inside.join("z")).unwrap(), "z");
        assert!(!confined.is_directory(Path::new("etc/magic")));
        assert_eq!(fs::read_to_string(outer.path().join("secret")).unwrap(), "untouched");
        assert!(!outer.path().join("z").exists());
    }

    #[test]
    fn directories_are_made_and_only_the_last_one_is_told_of() {
        let (outer, confined) = world();
        assert!(confined.create_directories(Path::new("/etc/a/b")).unwrap());
        assert!(!confined.create_directories(Path::new("etc/a/b")).unwrap());
        confined.set_directory_mode(Path::new("etc/a/b"), 0o700).unwrap();
        let mode = fs::metadata(outer.path().join("inside/etc/a/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        assert!(confined.create_directories(Path::new("etc/runtime/deep")).unwrap());
        assert!(outer.path().join("inside/run/deep").is_dir());
        write(&confined, "etc/file", "x").unwrap();
        assert!(confined.create_directories(Path::new("etc/file")).is_err());
        assert!(confined.create_directories(Path::new("etc/up/x")).is_err(), "a link that leads nowhere");
    }

    #[test]
    fn files_are_emptied_and_links_removed_without_being_followed() {
        let (outer, confined) = world();
        write(&confined, "etc/motd", "long text").unwrap();
        write(&confined, "etc/motd", "x").unwrap();
        assert_eq!(fs::read_to_string(outer.path().join("inside/etc/motd")).unwrap(), "x");
        confined.remove(Path::new("etc/absolute")).unwrap();
        assert!(fs::symlink_metadata(outer.path().join("inside/etc/absolute")).is_err());
        assert_eq!(fs::read_to_string(outer.path().join("secret")).unwrap(), "untouched");
        confined.remove(Path::new("no/such/file")).unwrap();
        assert!(confined.remove(Path::new("etc")).is_err(), "directories stay");
        assert!(confined.remove(Path::new("/")).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let (outer, confined) = world();
        let fifo = outer.path().join("inside/etc/fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(write(&confined, "etc/fifo", "x").is_err());
        assert!(write(&confined, "etc", "x").is_err());
    }
}
