//! `ferric-image inspect`: what is in an initramfs.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::ramdisk::{compress, cpio, tree::Node};
use crate::report::size;
use crate::{Error, Result};

/// Lists the initramfs at `path` as text, one path a line, with a sum at the end.
pub fn list(path: &Path) -> Result<String> {
    let length = path.metadata().map_err(Error::file("reading", path))?.len();
    let mut head = Vec::new();
    let mut file = File::open(path).map_err(Error::file("opening", path))?;
    file.by_ref().take(6).read_to_end(&mut head).map_err(Error::file("reading", path))?;
    let bad = |error: std::io::Error| {
        Error::bad(path, format!("reading the archive ({error}); give an initramfs made by ferric-image"))
    };
    let whole = std::io::Cursor::new(head.clone()).chain(BufReader::new(file));
    let (compression, reader) = compress::decompress(&head, whole).map_err(bad)?;
    let mut reader = BufReader::new(reader);
    let mut out = String::new();
    let (mut files, mut raw) = (0u64, 0u64);
    // Writing to a String can not fail, so the results of `writeln!` are of no use here.
    while let Some(found) = cpio::read_next(&mut reader).map_err(bad)? {
        files = files.saturating_add(1);
        let (kind, size, more) = match &found.node {
            Node::Folder => ('d', String::new(), "/".to_owned()),
            Node::File(bytes) => {
                raw = raw.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                ('-', bytes.len().to_string(), String::new())
            }
            Node::Link(target) => ('l', String::new(), format!(" -> {target}")),
            Node::CharacterDevice { major, minor } => ('c', format!("{major},{minor}"), String::new()),
        };
        let _ = writeln!(out, "{kind}{:04o} {size:>10} /{}{more}", found.mode, found.path);
    }
    let _ =
        writeln!(out, "{files} entries, {} in files, {} compressed ({compression})", size(raw), size(length));
    Ok(out)
}
