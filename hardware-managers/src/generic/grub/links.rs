//! The link by which a file system is found by its UUID, for systems whose `/dev` nobody but the kernel fills.

use std::path::PathBuf;

use sys::Host;

/// `/dev/disk/by-uuid/...` for as long as this lives. Without it grub's menu names the root by its device node, which may be
/// another one in the machine that starts from it (`10_linux` of grub looks whether the link exists).
pub(super) struct Link(Option<PathBuf>);

impl Link {
    /// Makes the link, unless somebody else has. A failure is logged: the menu is then less robust, not wrong.
    pub(super) fn make(host: &Host, node: &str, uuid: &str) -> Self {
        let path = host.path(format!("/dev/disk/by-uuid/{uuid}"));
        if uuid.is_empty() || uuid.contains('/') || std::fs::symlink_metadata(&path).is_ok() {
            return Self(None);
        }
        let target = format!("../../{}", node.trim_start_matches("/dev/"));
        let made = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::os::unix::fs::symlink(target, &path));
        match made {
            Ok(()) => Self(Some(path)),
            Err(error) => {
                tracing::warn!(link = %path.display(), %error, "no link by UUID was made for grub");
                Self(None)
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(link = %path.display(), %error, "link not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_lives_as_long_as_it_is_needed_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let host = sys::fake::host(root.path());
        let path = root.path().join("dev/disk/by-uuid/abcd");
        let link = Link::make(&host, "/dev/sda3", "abcd");
        assert_eq!(std::fs::read_link(&path).unwrap().to_str(), Some("../../sda3"));
        drop(Link::make(&host, "/dev/sdb1", "abcd"));
        assert!(std::fs::symlink_metadata(&path).is_ok(), "not ours to remove");
        drop(link);
        assert!(std::fs::symlink_metadata(&path).is_err());
        assert!(Link::make(&host, "/dev/sda3", "../x").0.is_none());
    }
}
