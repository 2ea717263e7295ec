//! The archive form the kernel unpacks: cpio "newc" (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The writer is deterministic: times are zero, owners are root, inode numbers count up from one. The reader serves
//! `inspect` and the tests.

use std::io::{self, Read, Write};

use super::tree::{Entry, Node};

const MAGIC: &[u8; 6] = b"070701";
const HEADER_LENGTH: usize = 110;
const TRAILER: &str = "TRAILER!!!";

const TYPE_MASK: u32 = 0o170_000;
const TYPE_FOLDER: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;
const TYPE_CHARACTER: u32 = 0o020_000;

/// Writes an archive.
pub struct Writer<W> {
    output: W,
    inode: u32,
}

impl<W: Write> Writer<W> {
    /// Starts an archive on `output`.
    pub fn new(output: W) -> Writer<W> {
        Writer { output, inode: 0 }
    }

    /// Adds one path (without leading slash). Fails when a file is 4 GiB or longer, which the format can not say.
    pub fn append(&mut self, path: &str, entry: &Entry) -> io::Result<()> {
        let (kind, data, device, links): (u32, &[u8], (u32, u32), u32) = match &entry.node {
            Node::Folder => (TYPE_FOLDER, &[], (0, 0), 2),
            Node::File(bytes) => (TYPE_FILE, bytes, (0, 0), 1),
            Node::Link(target) => (TYPE_LINK, target.as_bytes(), (0, 0), 1),
            Node::CharacterDevice { major, minor } => (TYPE_CHARACTER, &[], (*major, *minor), 1),
        };
        self.inode = self.inode.wrapping_add(1);
        self.record(path, kind | (entry.mode & 0o7777), links, data, device)
    }

    /// Ends the archive and gives the output back.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.record(TRAILER, 0, 1, &[], (0, 0))?;
        Ok(self.output)
    }

    /// The output, to look at or to flush between entries.
    pub fn output(&mut self) -> &mut W {
        &mut self.output
    }

    fn record(
        &mut self,
        path: &str,
        mode: u32,
        links: u32,
        data: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        let too_long =
            |_| io::Error::new(io::ErrorKind::InvalidInput, format!("/{path} is too long for an initramfs"));
        let data_length = u32::try_from(data.len()).map_err(too_long)?;
        let name_length = u32::try_from(path.len().saturating_add(1)).map_err(too_long)?;
        let fields =
            [self.inode, mode, 0, 0, links, 0, data_length, 0, 0, device.0, device.1, name_length, 0];
        self.output.write_all(MAGIC)?;
        for field in fields {
            write!(self.output, "{field:08x}")?;
        }
        self.output.write_all(path.as_bytes())?;
        self.output.write_all(&[0])?;
        self.pad(HEADER_LENGTH.saturating_add(path.len()).saturating_add(1))?;
        self.output.write_all(data)?;
        self.pad(data.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.output.write_all([0u8; 3].get(..padding(length)).unwrap_or_default())
    }
}

/// The length of the archive of these entries, in bytes.
pub fn length<'a>(entries: impl Iterator<Item = (&'a str, &'a Entry)>) -> u64 {
    let record = |name: usize, data: usize| {
        let head = HEADER_LENGTH.saturating_add(name).saturating_add(1);
        let sum = [head, padding(head), data, padding(data)]
            .iter()
            .fold(0usize, |sum, part| sum.saturating_add(*part));
        u64::try_from(sum).unwrap_or(u64::MAX)
    };
    let data_length = |node: &Node| match node {
        Node::File(bytes) => bytes.len(),
        Node::Link(target) => target.len(),
        Node::Folder | Node::CharacterDevice { .. } => 0,
    };
    let records = entries.map(|(path, entry)| record(path.len(), data_length(&entry.node)));
    records.fold(record(TRAILER.len(), 0), u64::saturating_add)
}

fn padding(length: usize) -> usize {
    (4 - length % 4) % 4
}

/// One path read from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path as it stands in the archive.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub node: Node,
    /// Modification time, seconds.
    pub modified: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// No entry of an initramfs is longer than this; a header that says so is damaged.
const LONGEST_ENTRY: u32 = 1 << 30;
const LONGEST_NAME: u32 = 4096;

/// Reads the next path; `None` at the end of the archive. Kinds that a ramdisk has no use for (block devices, pipes, sockets) are an error.
pub fn read_next(input: &mut impl Read) -> io::Result<Option<Found>> {
    let mut header = [0u8; HEADER_LENGTH];
    input.read_exact(&mut header)?;
    if header.get(..6) != Some(MAGIC) {
        return Err(invalid("no cpio \"newc\" archive, or damaged"));
    }
    let field = |number: usize| -> io::Result<u32> {
        let from = number.saturating_mul(8).saturating_add(6);
        let digits = header
            .get(from..from.saturating_add(8))
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let text = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        text.and_then(|text| u32::from_str_radix(text, 16).ok()).ok_or_else(|| invalid("damaged cpio header"))
    };
    let (mode, data_length, name_length) = (field(1)?, field(6)?, field(11)?);
    if data_length > LONGEST_ENTRY || name_length > LONGEST_NAME || name_length == 0 {
        return Err(invalid("cpio header with an impossible length"));
    }
    let name = read_padded(input, name_length, HEADER_LENGTH)?;
    let path = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(&name)).into_owned();
    let data = read_padded(input, data_length, 0)?;
    if path == TRAILER {
        return Ok(None);
    }
    let node = match mode & TYPE_MASK {
        TYPE_FOLDER => Node::Folder,
        TYPE_FILE => Node::File(data),
        TYPE_LINK => Node::Link(String::from_utf8_lossy(&data).into_owned()),
        TYPE_CHARACTER => Node::CharacterDevice { major: field(9)?, minor: field(10)? },
        _ => return Err(invalid("cpio entry of an unexpected kind")),
    };
    Ok(Some(Found { path, mode: mode & 0o7777, node, modified: field(5)?, owner: (field(2)?, field(3)?) }))
}

fn read_padded(input: &mut impl Read, length: u32, before: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let count = input.by_ref().take(u64::from(length)).read_to_end(&mut bytes)?;
    if u32::try_from(count) != Ok(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut pad = [0u8; 3];
    input.read_exact(pad.get_mut(..padding(before.saturating_add(count))).unwrap_or_default())?;
    Ok(bytes)
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::*;
    use proptest::prelude::*;

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, entry) in tree.iter() {
            writer.append(path, entry).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read_all(mut bytes: &[u8]) -> Vec<Found> {
        std::iter::from_fn(|| read_next(&mut bytes).unwrap()).collect()
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let node = prop_oneof![
            Just(Node::Folder),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Node::File),
            "[a-z/]{1,20}".prop_map(Node::Link),
            (0u32..5000, 0u32..5000).prop_map(|(major, minor)| Node::CharacterDevice { major, minor }),
        ];
        (node, 0u32..0o10000).prop_map(|(node, mode)| Entry { mode, node, part: "test" })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_with_no_time_and_no_owner(entries in proptest::collection::vec(("[a-z]{1,9}", entry()), 0..12)) {
            let mut tree = Tree::default();
            for (path, entry) in entries {
                let _ = tree.put(&path, entry);
            }
            let bytes = archive(&tree);
            prop_assert_eq!(u64::try_from(bytes.len()).unwrap(), length(tree.iter()));
            let found = read_all(&bytes);
            prop_assert_eq!(found.len(), tree.iter().count());
            for (found, (path, entry)) in found.iter().zip(tree.iter()) {
                prop_assert_eq!((found.path.as_str(), found.mode, &found.node), (path, entry.mode, &entry.node));
                prop_assert_eq!((found.modified, found.owner), (0, (0, 0)));
            }
        }

        #[test]
        fn junk_never_panics(mut junk in proptest::collection::vec(any::<u8>(), 0..400), hex: bool) {
            if hex {
                junk.iter_mut().for_each(|byte| *byte = b"0123456789abcdef"[usize::from(*byte % 16)]);
            }
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&junk);
            let mut rest = &bytes[..];
            while let Ok(Some(_)) = read_next(&mut rest) {}
        }
    }
}
