//! `--add SOURCE:DESTINATION[:MODE]`: a user's own files, from the building machine into the ramdisk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::tree::{Entry, Node, Tree};
use crate::{Error, Result};

/// The part of the report that added files count towards.
pub const PART: &str = "added files";

/// One request to add a file or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// File or folder on this machine.
    pub source: PathBuf,
    /// Absolute path in the ramdisk.
    pub destination: String,
    /// Permission bits of the file, or of every file in the folder; `None` keeps whether it is executable.
    pub mode: Option<u32>,
}

impl FromStr for Addition {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Addition, String> {
        let wrong = || {
            format!(
                "{text:?}: give SOURCE:/ABSOLUTE/DESTINATION or SOURCE:/ABSOLUTE/DESTINATION:MODE (octal, as 0755)"
            )
        };
        let (source, rest) = text.split_once(":/").ok_or_else(wrong)?;
        let (destination, mode) = match rest.rsplit_once(':') {
            Some((destination, mode)) => {
                let mode =
                    u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(wrong)?;
                (destination, Some(mode))
            }
            None => (rest, None),
        };
        if source.is_empty() || destination.is_empty() {
            return Err(wrong());
        }
        Ok(Addition { source: source.into(), destination: format!("/{destination}"), mode })
    }
}

impl Addition {
    /// Puts the file, or all that is below the folder, into `tree`. Returns the paths of files that were there before and are replaced.
    pub fn put_into(&self, tree: &mut Tree) -> Result<Vec<String>> {
        let mut replaced = Vec::new();
        self.copy(tree, &self.source, &self.destination, true, &mut replaced)?;
        Ok(replaced)
    }

    fn copy(
        &self,
        tree: &mut Tree,
        source: &Path,
        destination: &str,
        follow: bool,
        replaced: &mut Vec<String>,
    ) -> Result<()> {
        let metadata = if follow { fs::metadata(source) } else { fs::symlink_metadata(source) };
        let metadata = metadata.map_err(Error::file("adding", source))?;
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let (node, mode) = if metadata.is_dir() {
            (Node::Folder, 0o755)
        } else if metadata.is_symlink() {
            let target = fs::read_link(source).map_err(Error::file("reading the link", source))?;
            let target = target
                .into_os_string()
                .into_string()
                .map_err(|_| Error::bad(source, "the link's target is not UTF-8"))?;
            (Node::Link(target), 0o777)
        } else if metadata.is_file() {
            let bytes = fs::read(source).map_err(Error::file("adding", source))?;
            (Node::File(bytes), self.mode.unwrap_or(if executable { 0o755 } else { 0o644 }))
        } else {
            return Err(Error::bad(source, "neither file, folder nor link; only those can be added"));
        };
        let is_folder = node == Node::Folder;
        let refused = |problem| {
            Error::Request(format!("--add {}:{}: {problem}", self.source.display(), self.destination))
        };
        if tree.put(destination, Entry { mode, node, part: PART }).map_err(refused)? {
            replaced.push(destination.to_owned());
        }
        if is_folder {
            let mut names = Vec::new();
            for entry in fs::read_dir(source).map_err(Error::file("reading", source))? {
                let name = entry.map_err(Error::file("reading", source))?.file_name();
                names.push(
                    name.into_string()
                        .map_err(|_| Error::bad(source, "holds a file name that is not UTF-8"))?,
                );
            }
            for name in names {
                self.copy(tree, &source.join(&name), &format!("{destination}/{name}"), false, replaced)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_destination_and_mode_are_told_apart() {
        let full: Addition = "a:b/c:/etc/x:0600".parse().unwrap();
        assert_eq!(
            full,
            Addition { source: "a:b/c".into(), destination: "/etc/x".into(), mode: Some(0o600) }
        );
        assert_eq!("f:/x".parse::<Addition>().unwrap().mode, None);
        for wrong in ["f", "f:x", ":/x", "f:/", "f:/x:rwx", "f:/x:99999"] {
            assert!(wrong.parse::<Addition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_comes_with_all_below_it_and_replacing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/tool"), b"#!").unwrap();
        fs::set_permissions(folder.path().join("sub/tool"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("sub/tool", folder.path().join("link")).unwrap();
        let mut tree = Tree::default();
        let addition = Addition { source: folder.path().into(), destination: "/opt".into(), mode: None };
        assert_eq!(addition.put_into(&mut tree).unwrap(), Vec::<String>::new());
        assert_eq!(tree.get("opt/link").unwrap().node, Node::Link("sub/tool".into()));
        assert_eq!(tree.get("opt/sub/tool").unwrap().mode, 0o755);
        assert_eq!(addition.put_into(&mut tree).unwrap().len(), 2);
    }
}
