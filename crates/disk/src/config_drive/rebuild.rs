//! Making a config drive that the installed system can mount: Linux refuses ISO 9660 on sectors larger than 2048 bytes, and
//! FAT with sectors smaller than the disk's (data plane page, 4.3, step 5; Launchpad bug 2028002).

use std::borrow::Cow;
use std::io::{Cursor, Read, Seek, Write};

use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter, SectorSize};
use hadris_fat::{FatVolume, FatVolumeWriteExt};
use uuid::Uuid;

use super::LIMIT_BYTES;
use super::iso::{Node, tree};
use crate::fat::{Entry, Fat};
use crate::probe::probe;
use crate::{Error, Source};

const MIB: usize = 1 << 20;
/// Depth of directories copied from a FAT image.
const DEPTH_LIMIT: usize = 16;

/// When a config drive is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuild {
    /// Where the disk's sectors are too large for its file system.
    WhenNeeded,
    /// On every disk (`config_drive_rebuild`).
    Always,
}

/// The image itself where the kernel can mount it on sectors of this size; else the same files in a FAT labelled `CONFIG-2`
/// made for them. What can not be read is left as it is, as Ironic's agent does: the operator may know why.
pub fn suited(image: &[u8], sector_bytes: u32, rebuild: Rebuild) -> Result<Cow<'_, [u8]>, Error> {
    let always = rebuild == Rebuild::Always;
    let nodes = match probe(image).map(|file_system| file_system.kind) {
        Some("iso9660") if always || sector_bytes > 2048 => tree(image),
        Some("vfat") if always || fat_sector_bytes(image) < sector_bytes => {
            fat_tree(image).map_err(|error| error.to_string())
        }
        Some("iso9660" | "vfat") => return Ok(Cow::Borrowed(image)),
        Some(kind) if always || sector_bytes > 512 => Err(format!("files of {kind} can not be read here")),
        None if always || sector_bytes > 512 => Err("its file system is not known".into()),
        Some(_) | None => return Ok(Cow::Borrowed(image)),
    };
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(reason) => {
            tracing::warn!(
                reason,
                sector_bytes,
                "the config drive can not be rebuilt and is written as it is"
            );
            return Ok(Cow::Borrowed(image));
        }
    };
    tracing::info!(
        sector_bytes,
        files = nodes.len(),
        "rebuilding the config drive as FAT for this disk's sectors"
    );
    build(&nodes, sector_bytes).map(Cow::Owned)
}

fn fat_sector_bytes(image: &[u8]) -> u32 {
    match image.get(11..13) {
        Some(&[low, high]) => u32::from(u16::from_le_bytes([low, high])),
        _ => 0,
    }
}

fn fat_tree(image: &[u8]) -> Result<Vec<Node>, Error> {
    let fat = Fat::open(image)?;
    let mut nodes = Vec::new();
    copy_directory(&fat, fat.root()?, &[], image.len(), &mut nodes)?;
    Ok(nodes)
}

fn copy_directory<S: Source + ?Sized>(
    fat: &Fat<'_, S>,
    entries: Vec<Entry>,
    path: &[String],
    limit: usize,
    nodes: &mut Vec<Node>,
) -> Result<(), Error> {
    for entry in entries {
        let path = [path, std::slice::from_ref(&entry.name)].concat();
        if path.len() > DEPTH_LIMIT || nodes.len() > 10_000 {
            return Err(Error::config_drive("its directories are nested too deeply"));
        }
        if entry.is_directory {
            nodes.push(Node { path: path.clone(), data: None });
            copy_directory(fat, fat.directory(&entry)?, &path, limit, nodes)?;
        } else {
            nodes.push(Node { path, data: Some(fat.file(&entry, limit)?) });
        }
    }
    Ok(())
}

/// A FAT volume with these files.
fn build(nodes: &[Node], sector_bytes: u32) -> Result<Vec<u8>, Error> {
    let sector = usize::try_from(sector_bytes).ok().and_then(|bytes| SectorSize::try_from(bytes).ok());
    let sector = sector.ok_or_else(|| {
        Error::config_drive(format!("no file system can be made for sectors of {sector_bytes} bytes"))
    })?;
    // Each file ends in a cluster of its own, and each directory takes some: 16 KiB are more than any needs here.
    let content: usize = nodes.iter().map(|node| node.data.as_ref().map_or(0, Vec::len) + 16 * 1024).sum();
    // A large one has no room for that in its partition, and rarely needs it.
    let limit = usize::try_from(LIMIT_BYTES).unwrap_or(usize::MAX);
    let size = (content + content / 8 + 4 * MIB).next_multiple_of(MIB).min(limit);
    let fail = |error: hadris_fat::Error| Error::config_drive(format!("making a FAT volume for it: {error}"));
    let (id, _, _, _) = Uuid::new_v4().as_fields();
    let options = shape(size, sector)?.volume_label("CONFIG-2").volume_id(id);
    let volume = FatVolumeFormatter::format(Cursor::new(vec![0u8; size]), options).map_err(fail)?;
    for node in nodes {
        copy(&volume, node).map_err(|error| {
            Error::config_drive(format!("copying `{}` into a FAT volume: {error}", node.path.join("/")))
        })?;
    }
    Ok(volume.into_inner().into_inner())
}

/// The smallest clusters that a volume of this size can have: the count of clusters decides what kind of FAT it is, and not
/// every combination is one.
fn shape(size: usize, sector: SectorSize) -> Result<FatFormatOptions, Error> {
    let kinds = [FatTypeSelection::Fat16, FatTypeSelection::Fat12];
    let shapes = [1u8, 2, 4, 8].into_iter().flat_map(|sectors| kinds.map(|kind| (sectors, kind)));
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    let options = |(sectors, kind)| {
        FatFormatOptions::new(size).sector_size(sector).sectors_per_cluster(sectors).fat_type(kind)
    };
    let is_valid = |options: &FatFormatOptions| FatVolumeFormatter::calculate_params(options).is_ok();
    shapes
        .map(options)
        .find(is_valid)
        .ok_or_else(|| Error::config_drive(format!("no FAT volume of {size} bytes can be made for it")))
}

/// Puts a file or directory into a FAT volume; directories come before what is in them.
pub(crate) fn copy<T: Read + Write + Seek>(
    volume: &FatVolume<T>,
    node: &Node,
) -> Result<(), hadris_fat::Error> {
    let Some((name, parents)) = node.path.split_last() else { return Ok(()) };
    let mut directory = volume.root_dir();
    for parent in parents {
        directory = directory.open_dir(parent)?;
    }
    match &node.data {
        None => {
            volume.create_dir(&directory, name)?;
        }
        Some(data) => {
            let file = volume.create_file(&directory, name)?;
            let mut writer = volume.write_file(&file)?;
            let mut rest = data.as_slice();
            while !rest.is_empty() {
                let written = writer.write(rest)?;
                rest = rest.get(written..).unwrap_or_default();
            }
            writer.finish()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Node> {
        let node = |path: &[&str], data: Option<Vec<u8>>| Node {
            path: path.iter().map(ToString::to_string).collect(),
            data,
        };
        vec![
            node(&["openstack"], None),
            node(&["openstack", "2018-08-27"], None),
            node(&["openstack", "2018-08-27", "meta_data.json"], Some(b"{}".to_vec())),
            node(&["openstack", "2018-08-27", "vendor_data with a long name.json"], Some(vec![7; 100_000])),
            node(&["openstack", "empty"], Some(vec![])),
        ]
    }

    #[test]
    fn files_survive_every_rebuild() {
        for sector in [512, 4096] {
            let volume = build(&nodes(), sector).unwrap();
            assert_eq!(fat_sector_bytes(&volume), sector);
            let found = probe(&volume).unwrap();
            assert_eq!((found.kind, found.label.as_deref()), ("vfat", Some("CONFIG-2")));
            let mut files = fat_tree(&volume).unwrap();
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let mut expected = nodes();
            expected.sort_by(|a, b| a.path.cmp(&b.path));
            assert_eq!(files, expected);
        }
    }

    #[test]
    fn a_volume_of_any_size_can_be_made() {
        for sector in [SectorSize::S512, SectorSize::S4096] {
            for mebibytes in 4..=64 {
                shape(mebibytes * MIB, sector).unwrap();
            }
        }
    }

    #[test]
    fn an_image_that_suits_the_disk_stays_as_it_is() {
        let small = build(&nodes(), 512).unwrap();
        assert!(matches!(suited(&small, 512, Rebuild::WhenNeeded).unwrap(), Cow::Borrowed(_)));
        let large = suited(&small, 4096, Rebuild::WhenNeeded).unwrap();
        assert_eq!(fat_sector_bytes(&large), 4096);
        assert!(
            matches!(suited(&large, 512, Rebuild::WhenNeeded).unwrap(), Cow::Borrowed(_)),
            "larger sectors are no hindrance"
        );
        let nearly_full =
            [Node { path: vec!["large".into()], data: Some(vec![7; 62 * MIB]) }, nodes().remove(0)];
        let full = build(&nearly_full, 4096).unwrap();
        assert_eq!(full.len(), 64 * MIB, "no larger than its partition");
        assert_eq!(fat_tree(&full).unwrap().len(), 2);
        let anew = suited(&large, 512, Rebuild::Always).unwrap();
        assert_eq!(fat_sector_bytes(&anew), 512);
        assert!(matches!(suited(b"junk", 4096, Rebuild::Always).unwrap(), Cow::Borrowed(_)));
    }
}
