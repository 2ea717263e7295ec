//! The ramdisk's files before they are an archive. Sorted by path, so that a folder comes before what is in it and the
//! same files give the same archive.

use std::collections::BTreeMap;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A regular file with its bytes.
    File(Vec<u8>),
    /// A symbolic link to this target.
    Link(String),
    /// A character device.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One path of the ramdisk. Owner and group are always root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub node: Node,
    /// The part of the report it counts towards: `agent`, `modules: network`.
    pub part: &'static str,
}

/// All paths, without leading slash.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Puts `entry` at `path` and makes the folders above it. Returns true when it replaces a file.
    /// Refused, with the reason, when the path or one above it is already something that it can not be.
    pub fn put(&mut self, path: &str, entry: Entry) -> Result<bool, String> {
        let path = path.trim_matches('/');
        if path.is_empty()
            || path.split('/').any(|part| part.is_empty() || part == "." || part == "..")
            || path.contains('\0')
        {
            return Err(format!("/{path} is not a plain absolute path"));
        }
        for (end, _) in path.match_indices('/') {
            let above = path.get(..end).unwrap_or_default();
            match self.entries.get(above).map(|entry| &entry.node) {
                Some(Node::Folder) => {}
                Some(_) => return Err(format!("/{above} is not a folder, so /{path} can not be in it")),
                None => {
                    self.entries.insert(
                        above.to_owned(),
                        Entry { mode: 0o755, node: Node::Folder, part: entry.part },
                    );
                }
            }
        }
        match (self.entries.get(path).map(|old| &old.node), &entry.node) {
            (Some(Node::Folder), Node::Folder) => Ok(false),
            (Some(Node::Folder), _) => Err(format!("/{path} is a folder; give a file name in it")),
            (Some(_), Node::Folder) => Err(format!("/{path} is a file, so it can not become a folder")),
            (old, _) => {
                let replaces = old.is_some();
                self.entries.insert(path.to_owned(), entry);
                Ok(replaces)
            }
        }
    }

    /// Path and entry, folders before their content.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The entry at `path` (without leading slash).
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Entry {
        Entry { mode: 0o644, node: Node::File(text.into()), part: "test" }
    }

    #[test]
    fn folders_appear_by_themselves_and_before_their_content() {
        let mut tree = Tree::default();
        assert_eq!(tree.put("/usr/share/x", file("")), Ok(false));
        assert_eq!(tree.put("usr-local", file("")), Ok(false));
        let paths: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["usr", "usr-local", "usr/share", "usr/share/x"]);
    }

    #[test]
    fn a_second_file_replaces_the_first_and_says_so() {
        let mut tree = Tree::default();
        tree.put("/a", file("1")).unwrap();
        assert_eq!(tree.put("/a", file("2")), Ok(true));
        assert_eq!(tree.get("a"), Some(&file("2")));
    }

    #[test]
    fn paths_that_lead_elsewhere_or_through_files_are_refused() {
        let mut tree = Tree::default();
        tree.put("/init", file("")).unwrap();
        for path in ["/", "", "/a/../b", "/a//b", "/init/x"] {
            assert!(tree.put(path, file("")).is_err(), "{path}");
        }
        tree.put("/etc/x", file("")).unwrap();
        assert!(tree.put("/etc", file("")).is_err());
    }
}
