//! A mount that ends with the value that stands for it, whatever happens in between.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::busy::patiently;
use crate::{Host, MountRequest};

/// Where temporary mount points are made.
const TEMPORARY: &str = "/run/ferric";

/// Something that is mounted. Unmounts when dropped; [`Mounted::unmount`] also says whether that worked.
pub struct Mounted {
    host: Host,
    target: PathBuf,
    made_directory: bool,
    is_mounted: bool,
}

impl Mounted {
    /// Mounts; makes the directory to mount on where nothing is there (and then removes it at the end).
    pub fn new(host: &Host, request: &MountRequest) -> io::Result<Self> {
        let made_directory = !request.target.exists();
        if made_directory {
            std::fs::create_dir_all(&request.target)?;
        }
        let mut mounted =
            Self { host: host.clone(), target: request.target.clone(), made_directory, is_mounted: false };
        patiently(|| host.kernel().mount(request))?;
        mounted.is_mounted = true;
        Ok(mounted)
    }

    /// Mounts a device, given by its path on the machine, on a new directory below `/run/ferric`. `shape` may ask for more
    /// (`MountRequest::read_only`, `MountRequest::guarded`).
    pub fn temporary(
        host: &Host,
        device: &Path,
        filesystem: &str,
        shape: impl FnOnce(MountRequest) -> MountRequest,
    ) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let target = host.path(format!("{TEMPORARY}/mount-{}-{number}", std::process::id()));
        Self::new(host, &shape(MountRequest::new(host.path(device), target, filesystem)))
    }

    /// Where it is mounted, as a path that can be opened.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts, which writes out everything.
    ///
    /// # Errors
    /// Somebody still used it after two seconds: then it is out of the tree, but lives on until he stops.
    pub fn unmount(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_mounted) {
            return Ok(());
        }
        let result = patiently(|| self.host.kernel().unmount(&self.target));
        if result.is_err() {
            self.host.kernel().detach(&self.target)?;
        }
        if self.made_directory
            && let Err(error) = std::fs::remove_dir(&self.target)
        {
            tracing::debug!(directory = %self.target.display(), %error, "mount point not removed");
        }
        result
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(directory = %self.target.display(), %error, "unmounting failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Call, FakeRunner, RecordingKernel};
    use std::sync::Arc;

    fn machine(kernel: RecordingKernel) -> (tempfile::TempDir, Arc<RecordingKernel>, Host) {
        let root = tempfile::tempdir().unwrap();
        let kernel = Arc::new(kernel);
        let host = Host::new(root.path(), Arc::new(FakeRunner::default()), Arc::clone(&kernel) as _);
        (root, kernel, host)
    }

    #[test]
    fn what_is_mounted_is_unmounted_when_dropped_and_leaves_no_directory() {
        let (root, kernel, host) = machine(RecordingKernel::default());
        let mounted =
            Mounted::temporary(&host, Path::new("/dev/sda1"), "ext4", MountRequest::guarded).unwrap();
        let target = mounted.path().to_owned();
        assert!(target.starts_with(root.path().join("run/ferric")) && target.is_dir());
        drop(mounted);
        assert!(!target.exists());
        let request = MountRequest::new(root.path().join("dev/sda1"), &target, "ext4").guarded();
        assert_eq!(kernel.calls(), [Call::Mount(request), Call::Unmount(target)]);
    }

    #[test]
    fn what_can_not_be_unmounted_is_taken_out_of_the_tree_and_said() {
        let mut kernel = RecordingKernel::default();
        kernel.unmount_fails = Some(io::ErrorKind::PermissionDenied);
        let (root, kernel, host) = machine(kernel);
        let target = root.path().join("mnt");
        std::fs::create_dir(&target).unwrap();
        let mounted = Mounted::new(&host, &MountRequest::bind("/dev", &target)).unwrap();
        assert_eq!(mounted.unmount().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(target.exists(), "a directory that was there stays");
        assert_eq!(kernel.calls()[1..], [Call::Unmount(target.clone()), Call::Detach(target)]);
    }
}
