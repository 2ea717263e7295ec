//! Under which rule disks may be destroyed here.

use sys::Host;

use crate::AllowList;
use crate::target::mounts;

/// What the operator allows, and where we are running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The only disks that may be written; none means every disk, which is accepted in a ramdisk only.
    pub allow: Option<AllowList>,
    /// Whether this system runs from memory, so that its disks hold nothing it needs.
    pub in_ramdisk: bool,
}

impl Policy {
    /// Looks whether `/` lives in memory (`rootfs`, `tmpfs`, `ramfs`). What can not be read counts as "no ramdisk".
    pub fn detect(host: &Host, allow: Option<AllowList>) -> Self {
        // The last mount on `/` hides the earlier ones.
        let root = mounts(host).ok().and_then(|mounts| mounts.into_iter().rfind(|mount| mount.target == "/"));
        let in_ramdisk =
            root.is_some_and(|root| matches!(root.file_system.as_str(), "rootfs" | "tmpfs" | "ramfs"));
        Self { allow, in_ramdisk }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramdisk_is_known_by_the_file_system_that_is_seen_at_the_root() {
        for (lines, expected) in [
            ("1 1 0:2 / / rw - rootfs rootfs rw\n", true),
            ("1 1 0:2 / / rw shared:1 - tmpfs none rw\n", true),
            ("1 1 0:2 / / rw - rootfs rootfs rw\n20 1 8:1 / / rw - ext4 /dev/sda1 rw\n", false),
            ("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n21 20 0:9 / /tmp rw - tmpfs tmpfs rw\n", false),
            ("20 1 0:30 / / rw - overlay overlay rw\n", false),
            ("nonsense\n", false),
            ("", false),
        ] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
            std::fs::write(root.path().join("proc/self/mountinfo"), lines).unwrap();
            let policy = Policy::detect(&sys::fake::host(root.path()), None);
            assert_eq!(policy.in_ramdisk, expected, "{lines}");
        }
        let root = tempfile::tempdir().unwrap();
        assert!(!Policy::detect(&sys::fake::host(root.path()), None).in_ramdisk);
    }
}
