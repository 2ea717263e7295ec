//! Making a config drive that the installed system can mount: Linux refuses ISO 9660 on sectors larger than 2048 bytes, and
//! FAT with sectors smaller than the disk's (data plane page, 4.3, step 5; Launchpad bug 2028002).

use std::borrow::Cow;
use std::io::Cursor;

use hadris_fat::format::{FatVolumeFormatter, SectorSize};
use uuid::Uuid;

use super::LIMIT_BYTES;
use super::iso::{Node, tree};
use crate::Error;
use crate::fat::Fat;
use crate::format::volume::{self, Item, Room, SMALL};
use crate::probe::probe;

const MIB: usize = 1 << 20;

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
    // Files may share their bytes; together they may not exceed the image, or a small one could fill memory.
    let mut left = image.len();
    let mut nodes = Vec::new();
    for Item { path, entry } in volume::tree(&fat, &mut Room::new())? {
        let data = (!entry.is_directory).then(|| fat.file(&entry, left)).transpose()?;
        left -= data.as_ref().map_or(0, Vec::len);
        nodes.push(Node { path, data, stamp: Some(entry.stamp) });
    }
    Ok(nodes)
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
    let options = volume::shape(u64::try_from(size).unwrap_or(u64::MAX), sector, SMALL)
        .ok_or_else(|| Error::config_drive(format!("no FAT volume of {size} bytes can be made for it")))?
        .volume_label("CONFIG-2")
        .volume_id(id);
    let volume = FatVolumeFormatter::format(Cursor::new(vec![0u8; size]), options).map_err(fail)?;
    for node in nodes {
        let mut data = node.data.iter().map(|data| Ok(data.clone()));
        let data: Option<&mut dyn Iterator<Item = _>> = node.data.is_some().then_some(&mut data as _);
        volume::put(&volume, &node.path, node.stamp.as_ref(), data)
            .map_err(|error| Error::config_drive(format!("making a FAT volume for it: {error}")))?;
    }
    Ok(volume.into_inner().into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Node> {
        let node = |path: &[&str], data: Option<Vec<u8>>| Node {
            path: path.iter().map(ToString::to_string).collect(),
            data,
            stamp: None,
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
            let contents = |nodes: &[Node]| -> Vec<_> {
                nodes.iter().map(|node| (node.path.clone(), node.data.clone())).collect()
            };
            assert_eq!(contents(&files), contents(&expected));
            // From FAT to FAT their times stay.
            let again = fat_tree(&build(&files, 4096).unwrap()).unwrap();
            assert!(again.iter().all(|node| files.contains(node)) && again.len() == files.len());
        }
    }

    #[test]
    fn a_volume_of_any_size_can_be_made() {
        for sector in [SectorSize::S512, SectorSize::S4096] {
            for mebibytes in 4..=64 {
                volume::shape(mebibytes << 20, sector, SMALL).unwrap();
            }
        }
    }

    #[test]
    fn files_that_share_their_bytes_fill_no_memory() {
        let data = Some(vec![7; 3 * MIB]);
        let node = |name: &str, data| Node { path: vec![name.into()], data, stamp: None };
        let mut image =
            build(&[node("A", data), node("B", Some(vec![])), node("C", Some(vec![]))], 512).unwrap();
        assert_eq!(fat_tree(&image).unwrap().len(), 3);
        let record =
            |image: &[u8], name: &[u8; 11]| image.windows(11).position(|bytes| bytes == name).unwrap();
        let (a, b, c) =
            (record(&image, b"A          "), record(&image, b"B          "), record(&image, b"C          "));
        let place: [u8; 6] = image[a + 26..a + 32].try_into().unwrap();
        image[b + 26..b + 32].copy_from_slice(&place);
        image[c + 26..c + 32].copy_from_slice(&place);
        assert!(fat_tree(&image).is_err());
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
        let nearly_full = [
            Node { path: vec!["large".into()], data: Some(vec![7; 62 * MIB]), stamp: None },
            nodes().remove(0),
        ];
        let full = build(&nearly_full, 4096).unwrap();
        assert_eq!(full.len(), 64 * MIB, "no larger than its partition");
        assert_eq!(fat_tree(&full).unwrap().len(), 2);
        let anew = suited(&large, 512, Rebuild::Always).unwrap();
        assert_eq!(fat_sector_bytes(&anew), 512);
        assert!(matches!(suited(b"junk", 4096, Rebuild::Always).unwrap(), Cow::Borrowed(_)));
    }
}
