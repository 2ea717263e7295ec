//! Which files of an EFI system partition the firmware should start (data plane page, 5.2.1).
//!
//! A distribution says it itself in a CSV file next to its loader (as shim's fallback program reads it); without one,
//! the files with the well-known names count. A loader counts only where its file is there and the firmware can start it: an
//! entry for any other would let the deployment succeed and the machine stay down.

mod csv;

use disk::Source;
use disk::fat::{Entry, Fat};

use crate::Firmware;
use csv::Line;

/// Suffixes of `bootSUFFIX.efi` that count, in lower case.
const REMOVABLE: [&str; 8] = ["ia32", "x64", "ia64", "arm", "aa64", "riscv32", "riscv64", "riscv128"];
/// Suffixes of `bootSUFFIX.csv` that count; `boot.csv` is for every architecture.
const CSV: [&str; 3] = ["x64", "aa64", "ia32"];
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

/// What an EFI system partition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The first loader that is there, of those that CSV files name.
    pub named: Option<Loader>,
    /// Loaders with well-known names that this firmware can start.
    pub unnamed: Vec<Loader>,
    /// Whether there is a CSV file for this firmware.
    pub has_csv: bool,
}

impl Found {
    /// The loaders to make entries for: the named one alone, else all others.
    pub fn into_loaders(self) -> Vec<Loader> {
        self.named.map_or(self.unnamed, |loader| vec![loader])
    }
}

/// Searches the whole partition: files of a directory before its subdirectories, in the order in which they lie there. Of a CSV
/// file, the first line whose loader is there counts; of several CSV files, the first with such a line. A directory or CSV file
/// that cannot be read is passed over with a warning.
///
/// # Errors
/// There is no FAT file system, or its root directory cannot be read.
pub fn find<S: Source + ?Sized>(source: &S, firmware: Firmware) -> Result<Found, disk::Error> {
    let fat = Fat::open(source)?;
    let mut search = Search { fat: &fat, firmware, found: Found::default(), directories: 0 };
    search.found.named = search.walk(fat.root()?, "", 0);
    Ok(search.found)
}

/// What a file is, by its name.
enum Kind {
    Csv,
    Loader,
}

impl Kind {
    /// `None` for a file that does not count, or is made for other firmware.
    fn of(name: &str, firmware: Firmware) -> Option<Self> {
        let name = name.to_lowercase();
        let suffix = |extension: &str| name.strip_prefix("boot")?.strip_suffix(extension);
        let is_for = |suffix: &str, known: &[&str]| known.contains(&suffix) && firmware.starts(suffix);
        match (suffix(".csv"), suffix(".efi"), name.as_str()) {
            (Some(""), _, _) => Some(Self::Csv),
            // Upstream leaves bootia32.csv out: beside another loader it is that of a medium for both kinds of firmware.
            (Some("ia32"), _, _) if firmware != Firmware::Ia32 => None,
            (Some(suffix), _, _) => is_for(suffix, &CSV).then_some(Self::Csv),
            (_, Some(suffix), _) => is_for(suffix, &REMOVABLE).then_some(Self::Loader),
            (_, _, "grubaa64.efi") => firmware.starts("aa64").then_some(Self::Loader),
            (_, _, "winload.efi") => Some(Self::Loader),
            _ => None,
        }
    }
}

struct Search<'a, 'f, S: Source + ?Sized> {
    fat: &'a Fat<'f, S>,
    firmware: Firmware,
    found: Found,
    directories: usize,
}

impl<S: Source + ?Sized> Search<'_, '_, S> {
    /// The first loader that is there, of those that CSV files name.
    fn walk(&mut self, entries: Vec<Entry>, path: &str, depth: usize) -> Option<Loader> {
        for entry in entries.iter().filter(|entry| !entry.is_directory) {
            match Kind::of(&entry.name, self.firmware) {
                Some(Kind::Loader) if entry.size > 0 => {
                    let path = format!("{path}\\{}", entry.name);
                    self.found.unnamed.push(Loader { label: None, path });
                }
                Some(Kind::Loader) => tracing::warn!(path, file = %entry.name, "boot loader is empty"),
                Some(Kind::Csv) => {
                    self.found.has_csv = true;
                    if let Some(loader) = self.named_in(entry, &entries, path) {
                        return Some(loader);
                    }
                }
                None => {}
            }
        }
        for entry in entries.iter().filter(|entry| entry.is_directory) {
            self.directories += 1;
            if depth >= DEPTH_LIMIT || self.directories > DIRECTORY_LIMIT {
                tracing::warn!(
                    path,
                    "the EFI system partition has very many directories; not looking further"
                );
                return None;
            }
            let path = format!("{path}\\{}", entry.name);
            match self.fat.directory(entry) {
                Ok(below) => {
                    if let Some(decided) = self.walk(below, &path, depth + 1) {
                        return Some(decided);
                    }
                }
                Err(error) => {
                    tracing::warn!(path, %error, "a directory of the EFI system partition cannot be read")
                }
            }
        }
        None
    }

    /// The first loader of a CSV file that is there.
    fn named_in(&self, csv: &Entry, beside: &[Entry], path: &str) -> Option<Loader> {
        let bytes = match self.fat.file(csv, CSV_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(csv = %csv.name, path, %error, "CSV file of the image cannot be read; ignoring it");
                return None;
            }
        };
        for Line { file, label } in csv::lines(&bytes) {
            for name in [file.as_str(), file.trim()] {
                if let Some(found) = self.resolve(name, beside, path) {
                    return Some(Loader { label, path: found });
                }
            }
            tracing::warn!(csv = %csv.name, path, %file, "the loader that the image's CSV file names is missing");
        }
        tracing::warn!(csv = %csv.name, path, "CSV file of the image names no loader that is there; ignoring it");
        None
    }

    /// The path of a file from the root of the partition, if there is such a file. `name` is relative to `path`, whose entries
    /// are `beside`; with a leading slash or backslash it starts at the root.
    fn resolve(&self, name: &str, beside: &[Entry], path: &str) -> Option<String> {
        let separators = ['/', '\\'];
        let parts: Vec<&str> = name.split(separators).filter(|part| !part.is_empty()).collect();
        let (file, directories) = parts.split_last()?;
        let is_absolute = name.starts_with(separators);
        let mut found = if is_absolute { String::new() } else { path.to_owned() };
        let mut entries = if is_absolute { self.fat.root().ok()? } else { beside.to_vec() };
        for directory in directories {
            let entry = named(&entries, directory).find(|entry| entry.is_directory)?;
            found = format!("{found}\\{directory}");
            entries = self.fat.directory(entry).ok()?;
        }
        let is_there = named(&entries, file).any(|entry| !entry.is_directory && entry.size > 0);
        is_there.then(|| format!("{found}\\{file}"))
    }
}

/// Entries of this name: FAT does not tell cases apart.
fn named<'e>(entries: &'e [Entry], name: &str) -> impl Iterator<Item = &'e Entry> {
    let wanted = name.to_lowercase();
    entries.iter().filter(move |entry| entry.name.to_lowercase() == wanted)
}
