//! Where systems keep the trust anchors of their TLS clients.

use std::path::{Path, PathBuf};

/// The usual places, in the order in which they are looked for: Debian, Ubuntu, Arch and our own ramdisk; Fedora and CentOS
/// before and after 2024; SUSE; Alpine and BSD.
pub const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The system's bundle below `root` (`/` but in tests), the first of [`SYSTEM_BUNDLES`] that is a file with something in it.
pub fn system_bundle(root: &Path) -> Option<PathBuf> {
    let place = |path: &&str| root.join(path.trim_start_matches('/'));
    let filled =
        |path: &PathBuf| std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() > 0);
    SYSTEM_BUNDLES.iter().map(place).find(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bundle_with_something_in_it_is_taken() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(system_bundle(root.path()), None);
        for (path, text) in [("etc/ssl/certs/ca-certificates.crt", ""), ("etc/ssl/ca-bundle.pem", "x")] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(system_bundle(root.path()), Some(root.path().join("etc/ssl/ca-bundle.pem")));
    }
}
