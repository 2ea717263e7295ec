//! Reads the files of an ISO 9660 image, to copy them into a file system that suits the disk (ECMA-119; Joliet; Rock Ridge
//! names). Every offset is checked, and the tree is bounded.

/// A file, or a directory where there is no data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// From the root on.
    pub path: Vec<String>,
    /// A file's bytes.
    pub data: Option<Vec<u8>>,
}

const SECTOR: usize = 2048;
const DEPTH_LIMIT: usize = 16;
const NODE_LIMIT: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Plain,
    Joliet,
}

/// Directories before what is in them.
pub(super) fn tree(image: &[u8]) -> Result<Vec<Node>, String> {
    let (names, root) = root(image).ok_or("it has no volume descriptor")?;
    let mut nodes = Vec::new();
    let mut bytes_left = image.len();
    walk(image, names, root, &[], &mut nodes, &mut bytes_left)?;
    Ok(nodes)
}

/// The root of the Joliet tree, whose names are the original ones, or of the plain tree.
fn root(image: &[u8]) -> Option<(Names, Record<'_>)> {
    let mut plain = None;
    for sector in 16..32 {
        let descriptor = image.get(sector * SECTOR..(sector + 1) * SECTOR)?;
        if descriptor.get(1..6)? != b"CD001" {
            break;
        }
        let root = || Record::parse(descriptor.get(156..190)?);
        match descriptor.first()? {
            1 => plain = plain.or_else(|| Some((Names::Plain, root()?))),
            2 if descriptor.get(88..90)? == b"%/" => return Some((Names::Joliet, root()?)),
            255 => break,
            _ => {}
        }
    }
    plain
}

/// A directory record.
#[derive(Clone, Copy)]
struct Record<'a> {
    sector: usize,
    length: usize,
    flags: u8,
    name: &'a [u8],
    system_use: &'a [u8],
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let le32 = |at: usize| -> Option<usize> {
            usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
        };
        let name_length = usize::from(*bytes.get(32)?);
        let after = 33 + name_length + usize::from(name_length.is_multiple_of(2));
        Some(Self {
            sector: le32(2)?,
            length: le32(10)?,
            flags: *bytes.get(25)?,
            name: bytes.get(33..33 + name_length)?,
            system_use: bytes.get(after..).unwrap_or_default(),
        })
    }

    fn data<'i>(&self, image: &'i [u8]) -> Option<&'i [u8]> {
        let start = self.sector.checked_mul(SECTOR)?;
        image.get(start..start.checked_add(self.length)?)
    }

    fn is_directory(&self) -> bool {
        self.flags & 2 != 0
    }

    fn name(&self, names: Names) -> String {
        let plain = match names {
            Names::Joliet => {
                let units: Vec<u16> = self
                    .name
                    .chunks_exact(2)
                    .filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)))
                    .collect();
                String::from_utf16_lossy(&units)
            }
            Names::Plain => match self.rock_ridge_name() {
                Some(name) => return name,
                None => String::from_utf8_lossy(self.name).to_lowercase(),
            },
        };
        let plain = plain.split(';').next().unwrap_or_default();
        plain.strip_suffix('.').unwrap_or(plain).to_owned()
    }

    /// The `NM` entries of the system use area (Rock Ridge 4.1.4).
    fn rock_ridge_name(&self) -> Option<String> {
        let mut name = Vec::new();
        let mut rest = self.system_use;
        while let [a, b, length, _, ..] = rest {
            let entry = rest.get(..usize::from(*length)).filter(|entry| entry.len() >= 4)?;
            if (*a, *b) == (b'N', b'M') {
                name.extend(entry.get(5..)?);
            }
            rest = rest.get(entry.len()..)?;
            if rest.iter().all(|byte| *byte == 0) {
                break;
            }
        }
        (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
    }
}

fn walk(
    image: &[u8],
    names: Names,
    directory: Record<'_>,
    path: &[String],
    nodes: &mut Vec<Node>,
    bytes_left: &mut usize,
) -> Result<(), String> {
    if path.len() > DEPTH_LIMIT {
        return Err("its directories are nested too deeply".into());
    }
    let data = directory.data(image).ok_or("a directory lies beyond its end")?;
    // A record never crosses a sector; zeroes fill the rest of one.
    for sector in data.chunks(SECTOR) {
        let mut rest = sector;
        while let Some(length) = rest.first().map(|length| usize::from(*length)).filter(|length| *length > 0)
        {
            let record = rest.get(..length).and_then(Record::parse).ok_or("a directory is damaged")?;
            rest = rest.get(length..).unwrap_or_default();
            // The directory itself and its parent are named 0 and 1.
            if matches!(record.name, [0 | 1]) {
                continue;
            }
            let name = record.name(names);
            if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
                return Err(format!("it has a file with the impossible name `{name}`"));
            }
            let path = [path, &[name]].concat();
            if nodes.len() >= NODE_LIMIT {
                return Err("it has too many files".into());
            }
            if record.is_directory() {
                nodes.push(Node { path: path.clone(), data: None });
                walk(image, names, record, &path, nodes, bytes_left)?;
                continue;
            }
            let data = record.data(image).ok_or("a file lies beyond its end")?;
            // Files may share their bytes; together they may not exceed the image, or a small one could fill memory.
            *bytes_left = bytes_left.checked_sub(data.len()).ok_or("its files are larger than itself")?;
            nodes.push(Node { path, data: Some(data.to_vec()) });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record with a name, and `NM` where it has a longer one.
    fn record(sector: u8, length: u16, flags: u8, name: &[u8], long: &str) -> Vec<u8> {
        let mut record = vec![0u8; 33];
        record[2] = sector;
        record[10..12].copy_from_slice(&length.to_le_bytes());
        record[25] = flags;
        record[32] = u8::try_from(name.len()).unwrap();
        record.extend(name);
        if name.len().is_multiple_of(2) {
            record.push(0);
        }
        if !long.is_empty() {
            record.extend([b'N', b'M', u8::try_from(long.len() + 5).unwrap(), 1, 0]);
            record.extend(long.as_bytes());
        }
        record.resize(record.len().next_multiple_of(2), 0);
        record[0] = u8::try_from(record.len()).unwrap();
        record
    }

    fn image() -> Vec<u8> {
        let mut image = vec![0u8; 24 * SECTOR];
        let mut put = |sector: usize, offset: usize, bytes: &[u8]| {
            image[sector * SECTOR + offset..][..bytes.len()].copy_from_slice(bytes);
        };
        put(16, 0, b"\x01CD001");
        put(16, 156, &record(20, 2048, 2, &[0], ""));
        put(17, 0, b"\xffCD001");
        let dots = [record(20, 2048, 2, &[0], ""), record(20, 2048, 2, &[1], "")].concat();
        put(
            20,
            0,
            &[dots.clone(), record(21, 2048, 2, b"OPENSTAC", "openstack"), record(22, 3, 0, b"A.TXT;1", "")]
                .concat(),
        );
        put(21, 0, &[dots, record(23, 5, 0, b"META_DAT.JSO;1", "meta_data.json")].concat());
        put(22, 0, b"abc");
        put(23, 0, b"hello");
        image
    }

    #[test]
    fn files_and_directories_are_read_with_their_long_names() {
        let node = |path: &[&str], data: Option<&str>| Node {
            path: path.iter().map(ToString::to_string).collect(),
            data: data.map(|data| data.as_bytes().to_vec()),
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

    proptest! {
        #[test]
        fn junk_is_read_without_panic(patches in proptest::collection::vec((16 * SECTOR..22 * SECTOR, any::<u8>()), 0..60)) {
            let mut image = image();
            for (at, byte) in patches {
                image[at] = byte;
            }
            let _ = tree(&image);
        }
    }
}
