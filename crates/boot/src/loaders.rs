//! Which files of an EFI system partition the firmware should start (data plane page, 5.2.1).
//!
//! A distribution says it itself in a CSV file next to its loader (as shim's fallback program reads it); without one,
//! the files with the well-known names count.

use disk::Source;
use disk::fat::{Entry, Fat};

/// File names that count, in lower case.
const NAMES: [&str; 13] = [
    "bootx64.csv",
    "bootaa64.csv",
    "boot.csv",
    "bootia32.efi",
    "bootx64.efi",
    "bootia64.efi",
    "bootarm.efi",
    "bootaa64.efi",
    "bootriscv32.efi",
    "bootriscv64.efi",
    "bootriscv128.efi",
    "grubaa64.efi",
    "winload.efi",
];
/// Directories below each other, directories in all, bytes of a CSV file: far above what any image has.
const DEPTH_LIMIT: usize = 8;
const DIRECTORY_LIMIT: usize = 500;
const CSV_LIMIT: usize = 64 * 1024;

/// A boot entry to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loader {
    /// What the menu shows; `None` for a loader that nobody named.
    pub label: Option<String>,
    /// With backslashes, from the root of the partition.
    pub path: String,
}

/// Searches the whole partition: files of a directory before its subdirectories, in the order in which they lie there. The
/// first readable CSV file decides alone; otherwise all loaders count.
pub fn find<S: Source + ?Sized>(source: &S) -> Result<Vec<Loader>, disk::Error> {
    let fat = Fat::open(source)?;
    let mut search = Search { fat: &fat, found: Vec::new(), directories: 0 };
    let decided = search.walk(fat.root()?, "", 0)?;
    Ok(decided.map_or(search.found, |loader| vec![loader]))
}

struct Search<'a, 'f, S: Source + ?Sized> {
    fat: &'a Fat<'f, S>,
    found: Vec<Loader>,
    directories: usize,
}

impl<S: Source + ?Sized> Search<'_, '_, S> {
    /// The loader that a CSV file names, if there is such a file.
    fn walk(&mut self, entries: Vec<Entry>, path: &str, depth: usize) -> Result<Option<Loader>, disk::Error> {
        for entry in entries.iter().filter(|entry| !entry.is_directory) {
            let name = entry.name.to_lowercase();
            if !NAMES.contains(&name.as_str()) {
                continue;
            }
            if !name.ends_with(".csv") {
                self.found.push(Loader { label: None, path: format!("{path}\\{}", entry.name) });
                continue;
            }
            match parse_csv(&self.fat.file(entry, CSV_LIMIT)?) {
                Some((file, label)) => {
                    if !entries.iter().any(|entry| entry.name.eq_ignore_ascii_case(&file)) {
                        tracing::warn!(csv = %entry.name, %file, "the loader that the image's CSV file names is missing");
                    }
                    return Ok(Some(Loader { label: Some(label), path: format!("{path}\\{file}") }));
                }
                None => {
                    tracing::warn!(csv = %entry.name, path, "CSV file of the image names no loader; ignoring it")
                }
            }
        }
        for entry in entries.iter().filter(|entry| entry.is_directory) {
            self.directories += 1;
            if depth >= DEPTH_LIMIT || self.directories > DIRECTORY_LIMIT {
                tracing::warn!(
                    path,
                    "the EFI system partition has very many directories; not looking further"
                );
                return Ok(None);
            }
            let below = self.fat.directory(entry)?;
            if let Some(decided) = self.walk(below, &format!("{path}\\{}", entry.name), depth + 1)? {
                return Ok(Some(decided));
            }
        }
        Ok(None)
    }
}

/// File name and label of the first line: `shimx64.efi,debian,,This is the boot entry for debian`. UTF-16, little endian
/// unless a mark says otherwise. Blanks belong to the fields.
fn parse_csv(bytes: &[u8]) -> Option<(String, String)> {
    let (body, is_big_endian) = match bytes {
        [0xff, 0xfe, body @ ..] => (body, false),
        [0xfe, 0xff, body @ ..] => (body, true),
        body => (body, false),
    };
    let unit =
        |pair: [u8; 2]| if is_big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
    let units: Vec<u16> = body.chunks_exact(2).filter_map(|pair| Some(unit(pair.try_into().ok()?))).collect();
    let text = String::from_utf16(&units).ok()?;
    let mut fields = text.lines().next()?.splitn(4, ',');
    let (file, label) = (fields.next()?, fields.next()?);
    // A file next to the CSV: a path would reach elsewhere, and a NUL would end the name early.
    let is_plain = |text: &str| !text.is_empty() && !text.contains('\0');
    if !is_plain(file) || !is_plain(label) || file.contains(['/', '\\']) {
        return None;
    }
    Some((file.to_owned(), label.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn csv_files_are_read_in_every_byte_order() {
        let line = "shimx64.efi,debian,,This is, the boot entry\r\nsecond.efi,x\r\n";
        let expected = Some(("shimx64.efi".to_owned(), "debian".to_owned()));
        assert_eq!(parse_csv(&utf16(line, u16::to_le_bytes)), expected);
        assert_eq!(parse_csv(&utf16(&format!("\u{feff}{line}"), u16::to_le_bytes)), expected);
        assert_eq!(parse_csv(&utf16(&format!("\u{feff}{line}"), u16::to_be_bytes)), expected);
        let blank = parse_csv(&utf16("a.efi, Label ,x", u16::to_le_bytes));
        assert_eq!(blank, Some(("a.efi".into(), " Label ".into())));
        for bad in ["", "nocomma", ",label", "file,", "..\\x.efi,l", "a/b,l", "a\0b,l"] {
            assert_eq!(parse_csv(&utf16(bad, u16::to_le_bytes)), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn junk_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_csv(&bytes);
        }
    }
}
