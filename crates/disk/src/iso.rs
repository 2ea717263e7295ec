//! Reads files of an ISO 9660 file system (ECMA-119; Joliet; Rock Ridge names): config drives, virtual media. Never writes.
//!
//! Own reader because the bytes come from others and are read by the first process of the machine: every offset is checked,
//! directories are bounded, nothing is trusted.

use crate::{Error, Source};

const SECTOR: u64 = 2048;
/// The most bytes of one directory: some forty thousand files.
const DIRECTORY_LIMIT: u32 = 4 << 20;

/// An open file system.
pub struct Iso<'a, S: Source + ?Sized> {
    source: &'a S,
    names: Names,
    root: Entry,
}

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The original name where it is told (Joliet, Rock Ridge), else the ISO name in small letters without its version.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Bytes.
    pub size: u32,
    sector: u32,
}

/// What the names of a tree are written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Plain,
    Joliet,
}

fn fail(reason: impl Into<String>) -> Error {
    Error::Iso { reason: reason.into() }
}

impl<'a, S: Source + ?Sized> Iso<'a, S> {
    /// Reads the volume descriptors. The Joliet tree goes before the plain one: its names are the original ones.
    pub fn open(source: &'a S) -> Result<Self, Error> {
        let mut plain = None;
        for sector in 16..32 {
            let Ok(descriptor) = source.bytes(sector * SECTOR, 2048) else { break };
            if descriptor.get(1..6) != Some(b"CD001".as_slice()) {
                break;
            }
            let root =
                || descriptor.get(156..190).and_then(Record::parse).map(|root| root.entry(Names::Plain));
            match descriptor.first() {
                Some(1) => plain = plain.or_else(|| Some((Names::Plain, root()?))),
                Some(2) if descriptor.get(88..90) == Some(b"%/".as_slice()) => {
                    if let Some(root) = root() {
                        plain = Some((Names::Joliet, root));
                        break;
                    }
                }
                Some(255) | None => break,
                Some(_) => {}
            }
        }
        let (names, root) = plain.ok_or_else(|| fail("it has no volume descriptor"))?;
        Ok(Self { source, names, root })
    }

    /// The root directory.
    pub fn root(&self) -> &Entry {
        &self.root
    }

    /// The entries of a directory, in the order in which they lie there, without itself and its parent.
    pub fn directory(&self, directory: &Entry) -> Result<Vec<Entry>, Error> {
        if !directory.is_directory || directory.size > DIRECTORY_LIMIT {
            return Err(fail(format!("`{}` is no directory", directory.name)));
        }
        let data = self.bytes(directory).map_err(|_| fail("a directory lies beyond its end"))?;
        let mut entries = Vec::new();
        // A record never crosses a sector; zeroes fill the rest of one.
        for sector in data.chunks(2048) {
            let mut rest = sector;
            while let Some(length) =
                rest.first().map(|length| usize::from(*length)).filter(|length| *length > 0)
            {
                let record = rest
                    .get(..length)
                    .and_then(Record::parse)
                    .ok_or_else(|| fail("a directory is damaged"))?;
                rest = rest.get(length..).unwrap_or_default();
                // The directory itself and its parent are named 0 and 1.
                if matches!(record.name, [0 | 1]) {
                    continue;
                }
                let entry = record.entry(self.names);
                let name = entry.name.as_str();
                if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
                    return Err(fail(format!("it has a file with the impossible name `{name}`")));
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// A file's bytes; an error if there are more than `limit`.
    pub fn file(&self, file: &Entry, limit: usize) -> Result<Vec<u8>, Error> {
        if file.is_directory || usize::try_from(file.size).is_ok_and(|size| size > limit) {
            return Err(fail(format!("`{}` is no file of at most {limit} bytes", file.name)));
        }
        self.bytes(file).map_err(|_| fail("a file lies beyond its end"))
    }

    fn bytes(&self, entry: &Entry) -> std::io::Result<Vec<u8>> {
        let length = usize::try_from(entry.size).map_err(std::io::Error::other)?;
        self.source.bytes(u64::from(entry.sector) * SECTOR, length)
    }
}

/// A directory record.
#[derive(Clone, Copy)]
struct Record<'a> {
    sector: u32,
    length: u32,
    flags: u8,
    name: &'a [u8],
    system_use: &'a [u8],
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let le32 = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
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

    fn entry(&self, names: Names) -> Entry {
        let is_directory = self.flags & 2 != 0;
        Entry { name: self.name(names), is_directory, size: self.length, sector: self.sector }
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECTOR: usize = 2048;

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

    /// `openstack/meta_data.json` (`hello`) and `a.txt` (`abc`).
    pub(crate) fn image() -> Vec<u8> {
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
        let image = image();
        let iso = Iso::open(&image).unwrap();
        let root = iso.directory(iso.root()).unwrap();
        assert_eq!(root.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["openstack", "a.txt"]);
        assert_eq!(iso.file(&root[1], 3).unwrap(), b"abc");
        assert!(iso.file(&root[1], 2).is_err(), "larger than allowed");
        assert!(iso.file(&root[0], 9999).is_err(), "a directory");
        let inner = iso.directory(&root[0]).unwrap();
        assert_eq!((inner.len(), inner[0].name.as_str()), (1, "meta_data.json"));
    }

    #[test]
    fn lengths_beyond_the_end_are_errors_and_cost_no_memory() {
        let mut image = image();
        let at = image.windows(7).position(|window| window == b"A.TXT;1").unwrap() - 33;
        image[at + 10..at + 14].copy_from_slice(&[0xff; 4]);
        let iso = Iso::open(&image).unwrap();
        let root = iso.directory(iso.root()).unwrap();
        assert!(iso.file(&root[1], usize::MAX).is_err());
    }

    proptest! {
        #[test]
        fn junk_is_read_without_panic(patches in proptest::collection::vec((16 * SECTOR..22 * SECTOR, any::<u8>()), 0..60)) {
            let mut image = image();
            for (at, byte) in patches {
                image[at] = byte;
            }
            if let Ok(iso) = Iso::open(&image) {
                for entry in iso.directory(iso.root()).unwrap_or_default() {
                    let _ = (iso.directory(&entry), iso.file(&entry, 1 << 20));
                }
            }
        }
    }
}
