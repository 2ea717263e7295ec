//! Small files by path from FAT or ISO 9660, whichever it is: virtual media. No mount, so nothing to unmount.

use crate::fat::{self, Fat};
use crate::iso::{self, Iso};
use crate::{Error, Source};

/// A file system whose files can be read by path. Names are compared without regard to case, as FAT does.
pub enum Files<'a, S: Source + ?Sized> {
    /// FAT.
    Fat(Fat<'a, S>),
    /// ISO 9660.
    Iso(Iso<'a, S>),
}

enum Entry {
    Fat(fat::Entry),
    Iso(iso::Entry),
}

impl Entry {
    fn name(&self) -> &str {
        match self {
            Entry::Fat(entry) => &entry.name,
            Entry::Iso(entry) => &entry.name,
        }
    }

    fn is_directory(&self) -> bool {
        match self {
            Entry::Fat(entry) => entry.is_directory,
            Entry::Iso(entry) => entry.is_directory,
        }
    }
}

impl<'a, S: Source + ?Sized> Files<'a, S> {
    /// Opens whichever of the two it is.
    pub fn open(source: &'a S) -> Result<Self, Error> {
        match Iso::open(source) {
            Ok(iso) => Ok(Self::Iso(iso)),
            Err(_) => Fat::open(source).map(Self::Fat), // FAT has no magic number, and says better what it misses
        }
    }

    /// The names of the plain files in a directory; `None` where there is no such directory.
    pub fn names(&self, path: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(entries) = self.directory(path)? else { return Ok(None) };
        let files = entries.iter().filter(|entry| !entry.is_directory());
        Ok(Some(files.map(|entry| entry.name().to_owned()).collect()))
    }

    /// A file's bytes; `None` where there is no such file. An error if there are more than `limit`.
    pub fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let entry = self.directory(folder)?.and_then(|entries| find(entries, name));
        match (self, entry.filter(|entry| !entry.is_directory())) {
            (Self::Fat(fat), Some(Entry::Fat(entry))) => fat.file(&entry, limit).map(Some),
            (Self::Iso(iso), Some(Entry::Iso(entry))) => iso.file(&entry, limit).map(Some),
            (Self::Fat(_) | Self::Iso(_), _) => Ok(None),
        }
    }

    fn directory(&self, path: &str) -> Result<Option<Vec<Entry>>, Error> {
        let mut entries = match self {
            Self::Fat(fat) => fat.root()?.into_iter().map(Entry::Fat).collect(),
            Self::Iso(iso) => iso.directory(iso.root())?.into_iter().map(Entry::Iso).collect(),
        };
        for part in path.split('/').filter(|part| !part.is_empty()) {
            entries = match (self, find(entries, part).filter(Entry::is_directory)) {
                (Self::Fat(fat), Some(Entry::Fat(entry))) => {
                    fat.directory(&entry)?.into_iter().map(Entry::Fat).collect()
                }
                (Self::Iso(iso), Some(Entry::Iso(entry))) => {
                    iso.directory(&entry)?.into_iter().map(Entry::Iso).collect()
                }
                (Self::Fat(_) | Self::Iso(_), _) => return Ok(None),
            };
        }
        Ok(Some(entries))
    }
}

fn find(entries: Vec<Entry>, name: &str) -> Option<Entry> {
    entries.into_iter().find(|entry| entry.name().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_path_whatever_their_case() {
        let image = iso::tests::image();
        let files = Files::open(&image).unwrap();
        assert_eq!(
            files.read("openstack/Meta_Data.json", 100).unwrap().as_deref(),
            Some(b"hello".as_slice())
        );
        assert_eq!(files.names("").unwrap().unwrap(), ["a.txt"]);
        assert_eq!(files.names("/openstack/").unwrap().unwrap(), ["meta_data.json"]);
        for absent in ["nothing", "openstack", "openstack/latest/x", "a.txt/b"] {
            assert_eq!(files.read(absent, 100).unwrap(), None, "{absent}");
        }
        assert_eq!(files.names("etc").unwrap(), None);
        assert!(Files::open(&vec![0_u8; 1 << 16]).is_err());
    }
}
