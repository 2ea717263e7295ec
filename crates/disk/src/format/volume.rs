//! FAT volumes with files in them: what is in one, the shape of a new one, and how files get into it with their times.

use std::io::{self, Read, Seek, SeekFrom, Write};

use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter, FormatParams, SectorSize};
use hadris_fat::raw::DirEntryAttrFlags;
use hadris_fat::{FatDateTime, FatDir, FatType, FatVolume, FatVolumeWriteExt};

use crate::fat::{Entry, Fat, Labels, Stamp};
use crate::{Error, Source};

const DEPTH_LIMIT: usize = 16;
const ENTRIES_LIMIT: usize = 10_000;
/// The most bytes of paths, together.
const PATHS_LIMIT: usize = 4 << 20;

/// What is best for an EFI system partition: FAT32 is what firmware expects, and needs 65525 clusters.
pub(crate) const FOR_FIRMWARE: &[FatTypeSelection] =
    &[FatTypeSelection::Fat32, FatTypeSelection::Fat16, FatTypeSelection::Fat12];
/// What leaves the most room in a small volume.
pub(crate) const SMALL: &[FatTypeSelection] = &[FatTypeSelection::Fat16, FatTypeSelection::Fat12];

/// The smallest clusters that a volume of this size can have, and of those the first of `kinds`: the count of clusters decides what kind
/// of FAT it is, and not every combination is one.
pub(crate) fn shape(size: u64, sector: SectorSize, kinds: &[FatTypeSelection]) -> Option<FatFormatOptions> {
    let shapes = [1u8, 2].into_iter().flat_map(|sectors| kinds.iter().map(move |kind| (sectors, *kind)));
    let options = |(sectors, kind)| {
        FatFormatOptions::new(size).sector_size(sector).sectors_per_cluster(sectors).fat_type(kind)
    };
    let is_valid = |options: &FatFormatOptions| FatVolumeFormatter::calculate_params(options).is_ok();
    shapes.map(options).find(is_valid)
}

/// A file or directory of a volume.
#[derive(Debug)]
pub(crate) struct Item {
    /// From the root on.
    pub(crate) path: Vec<String>,
    pub(crate) entry: Entry,
}

/// What lists of files may take of memory, of all volumes together.
#[derive(Debug)]
pub(crate) struct Room {
    entries: usize,
    path_bytes: usize,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { entries: ENTRIES_LIMIT, path_bytes: PATHS_LIMIT }
    }

    fn take(&mut self, entries: usize, path: &[String]) -> Result<(), Error> {
        let path_bytes = path.iter().map(|part| part.len() + size_of::<String>()).sum();
        match (self.entries.checked_sub(entries), self.path_bytes.checked_sub(path_bytes)) {
            (Some(entries), Some(path_bytes)) => *self = Self { entries, path_bytes },
            (None, _) => return refuse("it has too many files"),
            (_, None) => return refuse("the names of its files are too long"),
        }
        Ok(())
    }
}

fn refuse(reason: &str) -> Result<(), Error> {
    Err(Error::Fat { reason: reason.into() })
}

/// All files and directories, each directory before what is in it.
///
/// # Errors
/// What can not be read; more than there is room for.
pub(crate) fn tree<S: Source + ?Sized>(fat: &Fat<'_, S>, room: &mut Room) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    walk(fat, fat.root()?, &[], room, &mut items)?;
    Ok(items)
}

fn walk<S: Source + ?Sized>(
    fat: &Fat<'_, S>,
    entries: Vec<Entry>,
    parent: &[String],
    room: &mut Room,
    items: &mut Vec<Item>,
) -> Result<(), Error> {
    // At once: what is not walked yet takes memory as well.
    room.take(entries.len(), &[])?;
    if parent.len() >= DEPTH_LIMIT && !entries.is_empty() {
        return refuse("its directories are nested too deeply");
    }
    for entry in entries {
        let path = [parent, std::slice::from_ref(&entry.name)].concat();
        room.take(0, &path)?;
        let inside = entry.is_directory.then(|| fat.directory(&entry)).transpose()?;
        items.push(Item { path: path.clone(), entry });
        if let Some(inside) = inside {
            walk(fat, inside, &path, room, items)?;
        }
    }
    Ok(())
}

/// Puts a file, or a directory where there is no `data`, into a volume. Directories come before what is in them.
pub(crate) fn put<T: Read + Write + Seek>(
    volume: &FatVolume<T>,
    path: &[String],
    stamp: Option<&Stamp>,
    data: Option<&mut dyn Iterator<Item = Result<Vec<u8>, Error>>>,
) -> Result<(), Error> {
    let Some((name, parents)) = path.split_last() else { return Ok(()) };
    let fail = |error: hadris_fat::Error| Error::Fat {
        reason: format!("copying `{}` into it: {error}", path.join("/")),
    };
    let mut directory = volume.root_dir();
    for parent in parents {
        directory = directory.open_dir(parent).map_err(fail)?;
    }
    match data {
        None => {
            volume.create_dir(&directory, name).map_err(fail)?;
        }
        Some(pieces) => {
            let file = volume.create_file(&directory, name).map_err(fail)?;
            let mut writer = volume.write_file(&file).map_err(fail)?;
            for piece in pieces {
                let piece = piece?;
                let mut rest = piece.as_slice();
                while !rest.is_empty() {
                    let written = writer.write(rest).map_err(fail)?;
                    rest = rest.get(written..).unwrap_or_default();
                }
            }
            writer.finish().map_err(fail)?;
        }
    }
    match stamp {
        Some(stamp) => mark(volume, &directory, name, stamp).map_err(fail),
        None => Ok(()),
    }
}

fn mark<T: Read + Write + Seek>(
    volume: &FatVolume<T>,
    directory: &FatDir<'_, T>,
    name: &str,
    stamp: &Stamp,
) -> Result<(), hadris_fat::Error> {
    let entry = directory.find(name)?.ok_or(hadris_fat::Error::EntryNotFound)?;
    volume.set_attributes(&entry, DirEntryAttrFlags::from_bits_retain(stamp.attributes))?;
    let (date, time, hundredths) = stamp.created;
    let created = FatDateTime::from_raw(date, time, hundredths);
    let modified = FatDateTime::from_raw(stamp.modified.0, stamp.modified.1, 0);
    volume.set_times(&entry, Some(modified), Some(stamp.accessed), Some(created))
}

/// Where a volume has its label: in its boot sectors, and as the first entry of its root directory. Offsets in bytes.
pub(crate) struct LabelPlaces {
    pub(crate) boot: Vec<u64>,
    pub(crate) root: u64,
}

pub(crate) fn label_places(parameters: &FormatParams) -> LabelPlaces {
    /// The sector with the copy of a FAT32 boot sector.
    const BOOT_COPY: u64 = 6;
    let sector = u64::try_from(parameters.sector_size).unwrap_or(u64::MAX);
    let tables = u64::from(parameters.fat_count).saturating_mul(parameters.sectors_per_fat.into());
    let root = u64::from(parameters.reserved_sectors).saturating_add(tables).saturating_mul(sector);
    let boot = match parameters.fat_type {
        FatType::Fat12 | FatType::Fat16 => vec![43],
        FatType::Fat32 => vec![71, BOOT_COPY * sector + 71],
    };
    LabelPlaces { boot, root }
}

/// Writes the labels as another volume has them: to the letter, where the formatter knows capitals alone, and with the time of the entry.
/// The volume was made with some label if `labels` has one in the root directory.
pub(crate) fn relabel(
    place: &mut (impl Write + Seek),
    places: &LabelPlaces,
    labels: &Labels,
) -> io::Result<()> {
    for offset in &places.boot {
        place.seek(SeekFrom::Start(*offset))?;
        place.write_all(&labels.boot)?;
    }
    if let Some(record) = &labels.record {
        place.seek(SeekFrom::Start(places.root))?;
        place.write_all(record)?;
    }
    Ok(())
}
