//! EFI system partitions in memory.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // test code: a panic is a failed test

use std::io::Cursor;

use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter};
use hadris_fat::{FatDir, FatVolume, FatVolumeWriteExt};

pub type Volume = FatVolume<Cursor<Vec<u8>>>;

/// A FAT of so many MiB with what `fill` puts there.
pub fn fat(
    kind: FatTypeSelection,
    mebibytes: usize,
    fill: impl FnOnce(&Volume, &FatDir<'_, Cursor<Vec<u8>>>),
) -> Vec<u8> {
    let size = mebibytes << 20;
    let options = FatFormatOptions::new(u64::try_from(size).unwrap()).volume_label("ESP").fat_type(kind);
    let volume = FatVolumeFormatter::format(Cursor::new(vec![0u8; size]), options).unwrap();
    fill(&volume, &volume.root_dir());
    volume.into_inner().into_inner()
}

/// Puts a file into a directory of it.
pub fn put_file(volume: &Volume, directory: &FatDir<'_, Cursor<Vec<u8>>>, name: &str, bytes: &[u8]) {
    let entry = volume.create_file(directory, name).unwrap();
    let mut writer = volume.write_file(&entry).unwrap();
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = writer.write(rest).unwrap();
        rest = &rest[written..];
    }
    writer.finish().unwrap();
}
