//! Making a config drive that the installed system can mount: Linux refuses ISO 9660 on sectors larger than 2048 bytes, and
//! FAT with sectors smaller than the disk's (data plane page, 4.3, step 5; Launchpad bug 2028002).

use std::borrow::Cow;
use std::io::Cursor;

use hadris_fat::format::{FatFormatOptions, FatVolumeFormatter, SectorSize};
use hadris_fat::{FatVolume, FatVolumeWriteExt};
use uuid::Uuid;

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
        _ => return Ok(Cow::Borrowed(image)),
    };
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(reason) => {
            tracing::warn!(
                reason,
                sector_bytes,
                "config drive does not suit the disk's sectors and can not be rebuilt"
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
    let size = (content + content / 8 + 4 * MIB).next_multiple_of(MIB);
    let fail = |error: hadris_fat::Error| Error::config_drive(format!("making a FAT volume for it: {error}"));
    let (id, _, _, _) = Uuid::new_v4().as_fields();
    let options = FatFormatOptions::new(u64::try_from(size).unwrap_or(u64::MAX))
        .volume_label("CONFIG-2")
        .volume_id(id)
        .sector_size(sector);
    let volume = FatVolumeFormatter::format(Cursor::new(vec![0u8; size]), options).map_err(fail)?;
    for node in nodes {
        copy(&volume, node).map_err(|error| {
            Error::config_drive(format!("copying `{}` into a FAT volume: {error}", node.path.join("/")))
        })?;
    }
    Ok(volume.into_inner().into_inner())
}

fn copy(volume: &FatVolume<Cursor<Vec<u8>>>, node: &Node) -> Result<(), hadris_fat::Error> {
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
    fn an_image_that_suits_the_disk_stays_as_it_is() {
        let small = build(&nodes(), 512).unwrap();
        assert!(matches!(suited(&small, 512, Rebuild::WhenNeeded).unwrap(), Cow::Borrowed(_)));
        let large = suited(&small, 4096, Rebuild::WhenNeeded).unwrap();
        assert_eq!(fat_sector_bytes(&large), 4096);
        assert!(
            matches!(suited(&large, 512, Rebuild::WhenNeeded).unwrap(), Cow::Borrowed(_)),
            "larger sectors are no hindrance"
        );
        let anew = suited(&large, 512, Rebuild::Always).unwrap();
        assert_eq!(fat_sector_bytes(&anew), 512);
        assert!(matches!(suited(b"junk", 4096, Rebuild::Always).unwrap(), Cow::Borrowed(_)));
    }
}
