//! File systems of an image on a disk with larger sectors than they were made for.
//!
//! Linux mounts none whose own unit is smaller than the disk's sector: FAT ("logical sector size too small for device"), XFS with
//! sectors of 512 bytes, ext with blocks of 1 or 2 KiB. A FAT volume, which every UEFI image has, is made anew with the
//! same files; the others hold owners, links and the like, and are refused.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom, Write};

use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter, SectorSize};

use crate::config_drive::{Node, copy};
use crate::fat::{Entry, Fat};
use crate::probe::probe;
use crate::table::Partition;
use crate::{Error, Region, Source, Store};

/// The most bytes of files that are kept in memory while their volume is made anew.
pub const REFIT_LIMIT: usize = 16 << 20;
const DEPTH_LIMIT: usize = 16;
const NODES_LIMIT: usize = 10_000;

/// **Makes the file systems of these partitions usable** on sectors of `sector_bytes` bytes: FAT volumes with smaller ones are
/// made anew with the same files, label and serial number. Gives their partitions' numbers.
///
/// # Errors
/// A file system that can not be used on such a disk, with what to do; a volume that can not be read or holds more than
/// [`REFIT_LIMIT`] bytes of files. FAT volumes are looked at first: an error leaves every partition as it was, unless
/// it is the disk's.
pub fn refit(
    store: &(impl Store + ?Sized),
    partitions: &[Partition],
    sector_bytes: u32,
) -> Result<Vec<u32>, String> {
    let mut volumes = Vec::new();
    for partition in partitions {
        let region = Region::new(store, partition.start_byte, partition.size_byte);
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
        volumes.push((number, partition, Volume::read(&region).map_err(|error| named(number, &error))?));
    }
    let held: usize = volumes.iter().map(|(_, _, volume)| volume.bytes).sum();
    if held > REFIT_LIMIT {
        return Err(format!(
            "its FAT partitions hold {held} bytes of files, and at most {REFIT_LIMIT} can be copied for sectors of \
             {sector_bytes} bytes: publish an image for such disks"
        ));
    }
    let mut numbers = Vec::new();
    for (number, partition, volume) in volumes {
        tracing::info!(
            partition = number,
            files = volume.nodes.len(),
            sector_bytes,
            "making a FAT volume anew"
        );
        volume.write(store, partition, sector_bytes).map_err(|error| named(number, &error))?;
        numbers.push(number);
    }
    Ok(numbers)
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

/// What a volume may be, the best first, with its sectors in a cluster: FAT32 is what firmware expects, and needs 65525 clusters.
const SHAPES: &[(FatTypeSelection, u8)] = &[
    (FatTypeSelection::Fat32, 1),
    (FatTypeSelection::Fat16, 1),
    (FatTypeSelection::Fat16, 2),
    (FatTypeSelection::Fat12, 1),
];

/// What a FAT volume holds.
struct Volume {
    nodes: Vec<Node>,
    bytes: usize,
    label: String,
    serial: u32,
}

impl Volume {
    fn read(region: &impl Source) -> Result<Self, Error> {
        let fat = Fat::open(region)?;
        let serial = u32::from_str_radix(&fat.serial().replace('-', ""), 16).unwrap_or_default();
        let label =
            fat.volume_label()?.or_else(|| fat.boot_sector_label()).unwrap_or_else(|| "NO NAME".into());
        let mut volume = Self { nodes: Vec::new(), bytes: 0, label, serial };
        volume.add(&fat, fat.root()?, &[])?;
        Ok(volume)
    }

    fn add<S: Source + ?Sized>(
        &mut self,
        fat: &Fat<'_, S>,
        entries: Vec<Entry>,
        path: &[String],
    ) -> Result<(), Error> {
        for entry in entries {
            let path = [path, std::slice::from_ref(&entry.name)].concat();
            if path.len() > DEPTH_LIMIT || self.nodes.len() > NODES_LIMIT {
                return Err(Error::Fat { reason: "its directories are nested too deeply".into() });
            }
            if entry.is_directory {
                self.nodes.push(Node { path: path.clone(), data: None });
                self.add(fat, fat.directory(&entry)?, &path)?;
                continue;
            }
            let size = usize::try_from(entry.size).unwrap_or(usize::MAX);
            self.bytes = self.bytes.saturating_add(size);
            if self.bytes > REFIT_LIMIT {
                let reason = format!(
                    "it holds more than {REFIT_LIMIT} bytes of files, and no more can be copied for a disk with larger \
                     sectors: publish an image for such disks"
                );
                return Err(Error::Fat { reason });
            }
            self.nodes.push(Node { path, data: Some(fat.file(&entry, REFIT_LIMIT)?) });
        }
        Ok(())
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
        let options = |(kind, cluster): (FatTypeSelection, u8)| {
            FatFormatOptions::new(partition.size_byte)
                .volume_label(&self.label)
                .volume_id(self.serial)
                .sector_size(sector)
                .sectors_per_cluster(cluster)
                .fat_type(kind)
                .hidden_sectors(u32::try_from(first_sector).unwrap_or_default())
        };
        let fits =
            |shape: &(FatTypeSelection, u8)| FatVolumeFormatter::calculate_params(&options(*shape)).is_ok();
        let shape = SHAPES.iter().copied().find(fits).ok_or_else(|| Error::Fat {
            reason: format!(
                "{} bytes are no room for one with sectors of {sector_bytes} bytes",
                partition.size_byte
            ),
        })?;
        let options = options(shape);
        let place = Place { store, start: partition.start_byte, size: partition.size_byte, at: Cell::new(0) };
        let volume = FatVolumeFormatter::format(place, options).map_err(fail)?;
        for node in &self.nodes {
            copy(&volume, node).map_err(|error| Error::Fat {
                reason: format!("copying `{}` into it: {error}", node.path.join("/")),
            })?;
        }
        volume.into_inner();
        Ok(())
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
    use crate::source::tests::Memory;
    use crate::table::PartitionType;

    const START: usize = 8 * 4096;

    /// A disk with one partition of so many bytes, and a FAT volume with sectors of 512 bytes in it.
    fn disk(bytes: usize, nodes: &[Node]) -> (Memory, Partition) {
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
        let shapes = [1, 2, 4, 8].map(|cluster| {
            [FatTypeSelection::Fat32, FatTypeSelection::Fat16, FatTypeSelection::Fat12]
                .map(|kind| (kind, cluster))
        });
        let options = |(kind, cluster)| {
            FatFormatOptions::new(bytes as u64)
                .volume_label("EFI")
                .volume_id(0x1234_abcd)
                .fat_type(kind)
                .sectors_per_cluster(cluster)
        };
        let fits =
            |shape: &(FatTypeSelection, u8)| FatVolumeFormatter::calculate_params(&options(*shape)).is_ok();
        let options = options(shapes.into_iter().flatten().find(fits).unwrap());
        let volume = FatVolumeFormatter::format(place, options).unwrap();
        for node in nodes {
            copy(&volume, node).unwrap();
        }
        volume.into_inner();
        (memory, partition)
    }

    fn file(path: &[&str], length: usize) -> Node {
        Node { path: path.iter().map(ToString::to_string).collect(), data: Some(vec![7; length]) }
    }

    #[test]
    fn a_volume_of_any_size_has_the_same_files_label_and_number_in_larger_sectors() {
        let directory = Node { path: vec!["EFI".into()], data: None };
        let nodes =
            [directory, file(&["EFI", "a long name of a loader.efi"], 300_000), file(&["grub.cfg"], 0)];
        for mib in [4, 16, 17, 33, 260, 300] {
            let (memory, partition) = disk(mib << 20, &nodes);
            assert_eq!(refit(&memory, std::slice::from_ref(&partition), 512), Ok(vec![]), "nothing to do");
            assert_eq!(refit(&memory, std::slice::from_ref(&partition), 4096), Ok(vec![15]), "{mib} MiB");
            let region = Region::new(&memory, partition.start_byte, partition.size_byte);
            assert_eq!(unit(&region).unwrap().bytes, 4096);
            // Without a fixed root directory it is FAT32, which needs as many clusters; here each is a sector.
            let boot = region.bytes(0, 64).unwrap();
            let sectors = u32::from_le_bytes(boot[32..36].try_into().unwrap());
            assert_eq!(boot[17..19] == [0, 0], mib >= 260, "{mib} MiB");
            assert!(boot[17..19] != [0, 0] || (sectors > 65_525 && boot[13] == 1), "{mib} MiB: {sectors}");
            let volume = Volume::read(&region).unwrap();
            assert_eq!((volume.label.as_str(), volume.serial), ("EFI", 0x1234_abcd));
            let mut found = volume.nodes;
            found.sort_by(|a, b| a.path.cmp(&b.path));
            assert!(found == nodes, "{mib} MiB");
            assert!(memory.bytes_now()[..START].iter().all(|byte| *byte == 0xa5), "nothing beside it");
            assert_eq!(refit(&memory, &[partition], 4096), Ok(vec![]), "and no second time");
        }
    }

    #[test]
    fn more_files_than_may_be_held_are_refused_and_left_alone() {
        let (memory, partition) = disk(64 << 20, &[file(&["a"], REFIT_LIMIT), file(&["b"], 1)]);
        let before = memory.bytes_now().clone();
        assert!(refit(&memory, &[partition], 4096).unwrap_err().contains("publish an image for such disks"));
        assert!(*memory.bytes_now() == before);
    }

    #[test]
    fn file_systems_with_smaller_units_are_refused_by_partition_and_remedy() {
        let (memory, partition) = disk(64 << 20, &[]);
        let put = |offset: usize, bytes: &[u8]| memory.write_at((START + offset) as u64, bytes).unwrap();
        put(0, &[0; 4096]);
        put(0, b"XFSB");
        put(102, &512u16.to_be_bytes());
        let reason = refit(&memory, std::slice::from_ref(&partition), 4096).unwrap_err();
        assert!(reason.contains("partition 15") && reason.contains("mkfs.xfs -s size=4096"), "{reason}");
        put(102, &4096u16.to_be_bytes());
        assert_eq!(refit(&memory, std::slice::from_ref(&partition), 4096), Ok(vec![]));
        put(0, &[0; 4096]);
        put(1080, &[0x53, 0xef]);
        put(1024 + 24, &0u32.to_le_bytes());
        let reason = refit(&memory, std::slice::from_ref(&partition), 4096).unwrap_err();
        assert!(reason.contains("1024") && reason.contains("mkfs.ext4 -b 4096"), "{reason}");
        put(1024 + 24, &2u32.to_le_bytes());
        assert_eq!(refit(&memory, &[partition], 4096), Ok(vec![]));
    }
}
