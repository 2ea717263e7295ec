//! The whole tree of a config drive's ISO 9660 image, to copy it into a file system that suits the disk. Bounded.

use crate::fat::Stamp;
use crate::iso::{Entry, Iso};

/// A file, or a directory where there is no data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// From the root on.
    pub path: Vec<String>,
    /// A file's bytes.
    pub data: Option<Vec<u8>>,
    /// Attributes and times, where they are known in FAT's terms.
    pub stamp: Option<Stamp>,
}

const DEPTH_LIMIT: usize = 16;
const NODE_LIMIT: usize = 10_000;

/// Directories before what is in them.
pub(super) fn tree(image: &[u8]) -> Result<Vec<Node>, String> {
    let iso = Iso::open(image).map_err(reason)?;
    let mut nodes = Vec::new();
    let mut bytes_left = image.len();
    walk(&iso, iso.root(), &[], &mut nodes, &mut bytes_left)?;
    Ok(nodes)
}

fn walk(
    iso: &Iso<'_, [u8]>,
    directory: &Entry,
    path: &[String],
    nodes: &mut Vec<Node>,
    bytes_left: &mut usize,
) -> Result<(), String> {
    if path.len() > DEPTH_LIMIT {
        return Err("its directories are nested too deeply".into());
    }
    for entry in iso.directory(directory).map_err(reason)? {
        let path = [path, std::slice::from_ref(&entry.name)].concat();
        if nodes.len() >= NODE_LIMIT {
            return Err("it has too many files".into());
        }
        if entry.is_directory {
            nodes.push(Node { path: path.clone(), data: None, stamp: None });
            walk(iso, &entry, &path, nodes, bytes_left)?;
            continue;
        }
        // Files may share their bytes; together they may not exceed the image, or a small one could fill memory.
        let data = iso
            .file(&entry, *bytes_left)
            .map_err(|_| "its files are larger than itself or lie beyond its end")?;
        *bytes_left = bytes_left.saturating_sub(data.len());
        nodes.push(Node { path, data: Some(data), stamp: None });
    }
    Ok(())
}

fn reason(error: crate::Error) -> String {
    match error {
        crate::Error::Iso { reason } => reason,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iso::tests::image;

    #[test]
    fn files_and_directories_are_read_with_their_long_names() {
        let node = |path: &[&str], data: Option<&str>| Node {
            path: path.iter().map(ToString::to_string).collect(),
            data: data.map(|data| data.as_bytes().to_vec()),
            stamp: None,
        };
        let expected = [
            node(&["openstack"], None),
            node(&["openstack", "meta_data.json"], Some("hello")),
            node(&["a.txt"], Some("abc")),
        ];
        assert_eq!(tree(&image()).unwrap(), expected);
    }

    #[test]
    fn directories_in_a_circle_end() {
        let mut image = image();
        let at = image.windows(8).position(|window| window == b"OPENSTAC").unwrap();
        image[at - 33 + 2] = 20;
        assert!(tree(&image).unwrap_err().contains("nested"));
    }
}
