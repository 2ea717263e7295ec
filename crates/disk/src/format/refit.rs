//! File systems of an image on a disk with larger sectors than they were made for.
//!
//! Linux mounts none whose own unit is smaller than the disk's sector: FAT ("logical sector size too small for device"), XFS with
//! sectors of 512 bytes, ext with blocks of 1 or 2 KiB. A FAT volume, which every UEFI image has, is made anew with the
//! same files; the others hold owners, links and the like, and are refused.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom, Write};

use hadris_fat::format::{FatVolumeFormatter, SectorSize};

use super::volume::{FOR_FIRMWARE, Item, Room, label_places, put, relabel, shape, tree};
use crate::fat::Fat;
use crate::probe::probe;
use crate::table::Partition;
use crate::{Error, Region, Source, Store};

/// The most bytes of files in volumes that are made anew: what is new is kept in memory until all of it is known.
pub const REFIT_LIMIT: u64 = 16 << 20;

/// **Makes the file systems of these partitions usable** on sectors of `sector_bytes` bytes: FAT volumes with smaller ones are
/// made anew in `store` with the files that they have in `image`, their attributes and times, label and serial number. Gives
/// their partitions' numbers. `image` must stay as it is meanwhile.
///
/// # Errors
/// A file system that can not be used on such a disk, with what to do; a volume that can not be read; more than [`REFIT_LIMIT`] bytes of
/// files. Then `store` may hold half a volume.
pub fn refit(
    image: &(impl Source + ?Sized),
    store: &(impl Store + ?Sized),
    partitions: &[Partition],
    sector_bytes: u32,
) -> Result<Vec<u32>, String> {
    let mut regions = Vec::new();
    for partition in partitions {
        let region = Region::new(image, partition.start_byte, partition.size_byte);
        let number = partition.number;
        let Some(unit) = unit(&region) else { continue };
        if unit.bytes >= sector_bytes {
            continue;
        }
        if unit.kind != "vfat" {
            return Err(format!(
                "partition {number} holds {} with {} of {} bytes, which Linux does not mount on sectors of {sector_bytes} \
                 bytes: make the image with {}",
                unit.kind, unit.what, unit.bytes, unit.advice
            ));
        }
        regions.push((partition, region));
    }
    let mut volumes = Vec::new();
    let mut held = 0u64;
    let mut room = Room::new();
    for (partition, region) in &regions {
        let volume = Volume::read(region, &mut room).map_err(|error| named(partition.number, &error))?;
        held = volume.items.iter().fold(held, |sum, item| sum.saturating_add(item.entry.size.into()));
        if held > REFIT_LIMIT {
            return Err(format!(
                "its FAT partitions hold more than {REFIT_LIMIT} bytes of files, and no more can be copied for sectors of \
                 {sector_bytes} bytes: publish an image for such disks"
            ));
        }
        volumes.push((*partition, volume));
    }
    for (partition, volume) in &volumes {
        tracing::info!(
            partition = partition.number,
            files = volume.items.len(),
            sector_bytes,
            "making a FAT volume anew"
        );
        volume.write(store, partition, sector_bytes).map_err(|error| named(partition.number, &error))?;
    }
    Ok(volumes.iter().map(|(partition, _)| partition.number).collect())
}

fn named(number: u32, error: &Error) -> String {
    let mut text = format!("partition {number}: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        text.push_str(&format!(": {cause}"));
    }
    text
}

/// The smallest unit in which a file system reads and writes.
struct Unit {
    kind: &'static str,
    what: &'static str,
    bytes: u32,
    advice: &'static str,
}

fn unit(region: &impl Source) -> Option<Unit> {
    let bytes = |offset: u64, length: usize| region.bytes(offset, length).unwrap_or_default();
    match probe(region)?.kind {
        "vfat" => {
            let low_high: [u8; 2] = bytes(11, 2).try_into().ok()?;
            Some(Unit {
                kind: "vfat",
                what: "sectors",
                bytes: u16::from_le_bytes(low_high).into(),
                advice: "",
            })
        }
        "xfs" => {
            let sector: [u8; 2] = bytes(102, 2).try_into().ok()?;
            let bytes = u16::from_be_bytes(sector).into();
            Some(Unit { kind: "xfs", what: "sectors", bytes, advice: "mkfs.xfs -s size=4096" })
        }
        kind @ ("ext2" | "ext3" | "ext4") => {
            let exponent: [u8; 4] = bytes(1024 + 24, 4).try_into().ok()?;
            let bytes = 1024u32.checked_shl(u32::from_le_bytes(exponent))?;
            Some(Unit { kind, what: "blocks", bytes, advice: "mkfs.ext4 -b 4096" })
        }
        _ => None,
    }
}

/// A FAT volume, and all that is in it.
struct Volume<'r, S: Source + ?Sized> {
    fat: Fat<'r, S>,
    items: Vec<Item>,
}

impl<'r, S: Source + ?Sized> Volume<'r, S> {
    fn read(region: &'r S, room: &mut Room) -> Result<Self, Error> {
        let fat = Fat::open(region)?;
        let items = tree(&fat, room)?;
        Ok(Self { fat, items })
    }

    fn write(
        &self,
        store: &(impl Store + ?Sized),
        partition: &Partition,
        sector_bytes: u32,
    ) -> Result<(), Error> {
        let fail = |error: hadris_fat::Error| Error::Fat { reason: format!("making it anew: {error}") };
        let sector = usize::try_from(sector_bytes).ok().and_then(|bytes| SectorSize::try_from(bytes).ok());
        let sector = sector.ok_or_else(|| Error::Fat {
            reason: format!("there is none with sectors of {sector_bytes} bytes"),
        })?;
        let first_sector = partition.start_byte / u64::from(sector_bytes);
        let labels = self.fat.labels()?;
        let mut options = shape(partition.size_byte, sector, FOR_FIRMWARE)
            .ok_or_else(|| Error::Fat {
                reason: format!(
                    "{} bytes are no room for one with sectors of {sector_bytes} bytes",
                    partition.size_byte
                ),
            })?
            .volume_id(self.fat.volume_id())
            .hidden_sectors(u32::try_from(first_sector).unwrap_or_default());
        if labels.record.is_some() {
            // Makes the entry; what it says comes at the end.
            options = options.volume_label("LABEL");
        }
        let places = label_places(&FatVolumeFormatter::calculate_params(&options).map_err(fail)?);
        let place = Place { store, start: partition.start_byte, size: partition.size_byte, at: Cell::new(0) };
        let volume = FatVolumeFormatter::format(place, options).map_err(fail)?;
        for Item { path, entry } in &self.items {
            let mut pieces = self.fat.pieces(entry);
            let data: Option<&mut dyn Iterator<Item = _>> = match entry.is_directory {
                true => None,
                false => Some(&mut pieces),
            };
            put(&volume, path, Some(&entry.stamp), data)?;
        }
        relabel(&mut volume.into_inner(), &places, &labels).map_err(Error::io("labelling it"))
    }
}

/// A partition that is read and written like a file.
struct Place<'a, S: Store + ?Sized> {
    store: &'a S,
    start: u64,
    size: u64,
    at: Cell<u64>,
}

impl<S: Store + ?Sized> Place<'_, S> {
    /// Where on the disk to move how many of `length` bytes; the position goes on.
    fn step(&self, length: usize) -> (u64, usize) {
        let at = self.at.get();
        let left = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let length = length.min(left);
        self.at.set(at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX)));
        (self.start.saturating_add(at), length)
    }
}

impl<S: Store + ?Sized> Read for Place<'_, S> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let (at, length) = self.step(data.len());
        self.store.read_at(at, data.get_mut(..length).unwrap_or_default())?;
        Ok(length)
    }
}

impl<S: Store + ?Sized> Write for Place<'_, S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (at, length) = self.step(data.len());
        self.store.write_at(at, data.get(..length).unwrap_or_default())?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Store + ?Sized> Seek for Place<'_, S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.get().checked_add_signed(by),
        };
        self.at.set(target.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(self.at.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fat::Stamp;
    use crate::source::tests::Memory;
    use crate::table::PartitionType;

    const START: usize = 8 * 4096;

    /// A disk with one partition of so many bytes, and a FAT volume with sectors of 512 bytes in it.
    fn disk(bytes: usize, files: &[File]) -> (Memory, Partition) {
        let memory = Memory::new(vec![0xa5; START + bytes]);
        let partition = Partition {
            number: 15,
            start_byte: START as u64,
            size_byte: bytes as u64,
            kind: PartitionType::Id(0xef),
            name: String::new(),
            uuid: String::new(),
            bootable: false,
        };
        let place = Place { store: &memory, start: START as u64, size: bytes as u64, at: Cell::new(0) };
        let options = shape(bytes as u64, SectorSize::S512, FOR_FIRMWARE).unwrap();
        let options = options.volume_label("EFI").volume_id(0x1234_abcd);
        let volume = FatVolumeFormatter::format(place, options).unwrap();
        for File { path, data, stamp } in files {
            let mut pieces = data.iter().map(|length| Ok(vec![7u8; *length]));
            let data: Option<&mut dyn Iterator<Item = _>> = data.is_some().then_some(&mut pieces as _);
            put(&volume, path, Some(stamp), data).unwrap();
        }
        volume.into_inner();
        (memory, partition)
    }

    /// A file of so many bytes, or a directory.
    #[derive(Clone, Debug, PartialEq)]
    struct File {
        path: Vec<String>,
        data: Option<usize>,
        stamp: Stamp,
    }

    fn file(path: &[&str], data: impl Into<Option<usize>>, stamp: Stamp) -> File {
        File { path: path.iter().map(ToString::to_string).collect(), data: data.into(), stamp }
    }

    const FILE: Stamp = Stamp {
        attributes: 0x20,
        created: (0x5a21, 0x6c2b, 117),
        accessed: 0x5a22,
        modified: (0x4c33, 0x1234),
    };
    /// Hidden, read-only, a system's, and without some of the times.
    const ODD: Stamp =
        Stamp { attributes: 0x07, created: (0, 0, 0), accessed: 0, modified: (0x0021, 0xbf7d) };
    const FOLDER: Stamp = Stamp {
        attributes: 0x10,
        created: (0x4a41, 0x0001, 3),
        accessed: 0x4b61,
        modified: (0x4a42, 0x7f7d),
    };

    fn refit_here(memory: &Memory, partition: &Partition) -> Result<Vec<u32>, String> {
        let image = memory.bytes_now().clone();
        refit(&image, memory, std::slice::from_ref(partition), 4096)
    }

    #[test]
    fn a_volume_of_any_size_has_the_same_files_label_and_number_in_larger_sectors() {
        let files = [
            file(&["EFI"], None, FOLDER),
            file(&["EFI", "a long name of a loader.efi"], 300_000, FILE),
            file(&["EFI", "below"], None, Stamp { attributes: 0x12, ..FOLDER }),
            file(&["EFI", "below", "hidden.cfg"], 1, ODD),
            file(&["grub.cfg"], 0, FILE),
        ];
        for mib in [4, 16, 17, 33, 260, 300] {
            let (memory, partition) = disk(mib << 20, &files);
            let image = memory.bytes_now().clone();
            assert_eq!(
                refit(&image, &memory, std::slice::from_ref(&partition), 512),
                Ok(vec![]),
                "nothing to do"
            );
            assert_eq!(
                refit(&image, &memory, std::slice::from_ref(&partition), 4096),
                Ok(vec![15]),
                "{mib} MiB"
            );
            let region = Region::new(&memory, partition.start_byte, partition.size_byte);
            assert_eq!(unit(&region).unwrap().bytes, 4096);
            // Without a fixed root directory it is FAT32, which needs as many clusters; here each is a sector.
            let boot = region.bytes(0, 64).unwrap();
            let sectors = u32::from_le_bytes(boot[32..36].try_into().unwrap());
            assert_eq!(boot[17..19] == [0, 0], mib >= 260, "{mib} MiB");
            assert!(boot[17..19] != [0, 0] || (sectors > 65_525 && boot[13] == 1), "{mib} MiB: {sectors}");
            let volume = Volume::read(&region, &mut Room::new()).unwrap();
            let before = Region::new(&image, partition.start_byte, partition.size_byte);
            let before = Volume::read(&before, &mut Room::new()).unwrap();
            assert_eq!(volume.fat.labels().unwrap(), before.fat.labels().unwrap());
            assert_eq!(volume.fat.volume_label().unwrap().as_deref(), Some("EFI"));
            assert_eq!(volume.fat.serial(), "1234-ABCD");
            let found = volume.items.iter().map(|Item { path, entry }| {
                let data = (!entry.is_directory).then(|| volume.fat.file(entry, 1 << 20).unwrap());
                assert!(data.iter().flatten().all(|byte| *byte == 7));
                File { path: path.clone(), data: data.map(|data| data.len()), stamp: entry.stamp }
            });
            let mut found: Vec<_> = found.collect();
            found.sort_by(|a, b| a.path.cmp(&b.path));
            assert_eq!(found, files, "{mib} MiB");
            assert!(memory.bytes_now()[..START].iter().all(|byte| *byte == 0xa5), "nothing beside it");
            assert_eq!(refit_here(&memory, &partition), Ok(vec![]), "and no second time");
        }
    }

    #[test]
    fn labels_stay_to_the_letter_where_they_are() {
        let entry =
            |memory: &Memory| memory.bytes_now().windows(11).position(|bytes| bytes == b"EFI        ");
        for (boot, root) in [
            (b"boot Label ", Some(b"root Label ")),
            (b"NO NAME    ", Some(b"my disk    ")),
            (b"alone      ", None),
        ] {
            let (memory, partition) = disk(4 << 20, &[file(&["a"], 1, FILE)]);
            memory.write_at((START + 43) as u64, boot).unwrap();
            let at = entry(&memory).unwrap() as u64;
            memory.write_at(at, root.unwrap_or(b"\xe5          ")).unwrap();
            memory.write_at(at + 22, &[1, 2, 3, 4]).unwrap();
            let labels = |memory: &Memory| {
                let region = Region::new(memory, partition.start_byte, partition.size_byte);
                Fat::open(&region).unwrap().labels().unwrap()
            };
            let before = labels(&memory);
            assert_eq!(
                (&before.boot, before.record.map(|record| record[..11] == root.unwrap()[..])),
                (boot, root.map(|_| true))
            );
            assert_eq!(refit_here(&memory, &partition), Ok(vec![15]));
            assert_eq!(labels(&memory), before);
        }
    }

    #[test]
    fn more_files_than_may_be_held_are_refused_and_left_alone() {
        let half = (REFIT_LIMIT / 2) as usize;
        let (memory, first) = disk(64 << 20, &[file(&["a"], half, FILE), file(&["b"], half, FILE)]);
        assert_eq!(refit_here(&memory, &first), Ok(vec![15]));
        // The limit is for all volumes: a second one with a single byte is too much.
        let (memory, first) = disk(64 << 20, &[file(&["a"], half, FILE), file(&["b"], half, FILE)]);
        let (other, _) = disk(8 << 20, &[file(&["c"], 1, FILE)]);
        let mut bytes = memory.into_inner();
        let second =
            Partition { number: 16, start_byte: bytes.len() as u64, size_byte: 8 << 20, ..first.clone() };
        bytes.extend(&other.into_inner()[START..]);
        let memory = Memory::new(bytes.clone());
        let error = refit(&bytes, &memory, &[first, second], 4096).unwrap_err();
        assert!(error.contains("publish an image for such disks"), "{error}");
        assert!(memory.into_inner() == bytes);
    }

    #[test]
    fn lists_of_files_that_would_fill_memory_are_refused() {
        let long = "n".repeat(250);
        let mut files = vec![];
        let mut path: Vec<&str> = vec![];
        for _ in 0..15 {
            path.push(&long);
            files.push(file(&path, None, FOLDER));
        }
        let leaves: Vec<String> = (0..60).map(|n| format!("{n}{}", &long[..200])).collect();
        files.extend(leaves.iter().map(|leaf| file(&[&path[..], &[leaf]].concat(), 0, FILE)));
        let (memory, partition) = disk(8 << 20, &files);
        assert_eq!(refit_here(&memory, &partition), Ok(vec![15]));
        // Directories that lead to the same list of files take as much memory as if each had its own.
        let region = Region::new(&memory, partition.start_byte, partition.size_byte);
        let fat = Fat::open(&region).unwrap();
        let mut room = Room::new();
        let error = (0..200).find_map(|_| tree(&fat, &mut room).err()).unwrap();
        assert!(error.to_string().contains("too long"), "{error}");
        let mut room = Room::new();
        let (memory, partition) = disk(8 << 20, &[file(&["a"], 0, FILE), file(&["b"], 0, FILE)]);
        let region = Region::new(&memory, partition.start_byte, partition.size_byte);
        let fat = Fat::open(&region).unwrap();
        let error = (0..5001).find_map(|_| tree(&fat, &mut room).err()).unwrap();
        assert!(error.to_string().contains("too many"), "{error}");
    }

    #[test]
    fn file_systems_with_smaller_units_are_refused_by_partition_and_remedy() {
        let (memory, partition) = disk(64 << 20, &[]);
        let put = |offset: usize, bytes: &[u8]| memory.write_at((START + offset) as u64, bytes).unwrap();
        put(0, &[0; 4096]);
        put(0, b"XFSB");
        put(102, &512u16.to_be_bytes());
        let reason = refit_here(&memory, &partition).unwrap_err();
        assert!(reason.contains("partition 15") && reason.contains("mkfs.xfs -s size=4096"), "{reason}");
        put(102, &4096u16.to_be_bytes());
        assert_eq!(refit_here(&memory, &partition), Ok(vec![]));
        put(0, &[0; 4096]);
        put(1080, &[0x53, 0xef]);
        put(1024 + 24, &0u32.to_le_bytes());
        let reason = refit_here(&memory, &partition).unwrap_err();
        assert!(reason.contains("1024") && reason.contains("mkfs.ext4 -b 4096"), "{reason}");
        put(1024 + 24, &2u32.to_le_bytes());
        assert_eq!(refit_here(&memory, &partition), Ok(vec![]));
    }
}
