//! What lies on a disk: partition tables, file systems, config drives.

use disk::config_drive::{self, Rebuild};
use disk::fat::Fat;
use disk::iso::Iso;
use disk::table::Table;
use disk::{Contents, Files};

/// The most that is read of one file.
const FILE_LIMIT: usize = 1 << 20;
/// Directories that are entered, one below the other.
const DEPTH: usize = 6;
/// Directories that are entered in all: they may lead in a circle.
const DIRECTORIES: usize = 64;

/// A partition table of either kind, with sectors of both sizes.
pub(crate) fn partition_table(data: &[u8]) {
    for sector_bytes in [512, 4096] {
        let Ok(table) = Table::read(data, sector_bytes) else { continue };
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let numbers: Vec<u32> = table.partitions().iter().map(|partition| partition.number).collect();
        assert!(numbers.is_sorted(), "partitions out of order: {numbers:?}");
        if table.validate("the disk", size).is_ok() {
            for partition in table.partitions() {
                let end = partition.start_byte.checked_add(partition.size_byte);
                assert!(end.is_some_and(|end| end <= size), "a partition beyond the disk: {partition:?}");
            }
        }
        let _ = (table.esp(), table.kind(), table.disk_signature());
    }
}

/// Everything that is recognised, in words.
pub(crate) fn contents(data: &[u8]) {
    for sector_bytes in [512, 4096] {
        let contents = Contents::read(data, sector_bytes);
        assert!(!contents.to_string().is_empty(), "nothing is said of {contents:?}");
    }
}

/// Everything in a FAT file system.
pub(crate) fn fat(data: &[u8]) {
    let Ok(fat) = Fat::open(data) else { return };
    let _ = (fat.serial(), fat.volume_label());
    let mut waiting = vec![(fat.root(), 0)];
    let mut entered = 0;
    while let Some((entries, depth)) = waiting.pop() {
        for entry in entries.unwrap_or_default() {
            if !entry.is_directory {
                if let Ok(bytes) = fat.file(&entry, FILE_LIMIT) {
                    assert_eq!(u32::try_from(bytes.len()).ok(), Some(entry.size), "{entry:?}");
                    assert!(bytes.len() <= data.len(), "more in a file than in the file system");
                }
            } else if depth < DEPTH && entered < DIRECTORIES {
                entered += 1;
                waiting.push((fat.directory(&entry), depth + 1));
            }
        }
    }
    by_path(data);
}

/// Everything in an ISO 9660 file system.
pub(crate) fn iso9660(data: &[u8]) {
    let Ok(iso) = Iso::open(data) else { return };
    let mut waiting = vec![(iso.directory(iso.root()), 0)];
    let mut entered = 0;
    while let Some((entries, depth)) = waiting.pop() {
        for entry in entries.unwrap_or_default() {
            assert!(!entry.name.contains(['/', '\0']) && entry.name != "..", "a name that leads elsewhere");
            if !entry.is_directory {
                if let Ok(bytes) = iso.file(&entry, FILE_LIMIT) {
                    assert_eq!(u32::try_from(bytes.len()).ok(), Some(entry.size), "{entry:?}");
                }
            } else if depth < DEPTH && entered < DIRECTORIES {
                entered += 1;
                waiting.push((iso.directory(&entry), depth + 1));
            }
        }
    }
    by_path(data);
}

/// The files that virtual media hold.
fn by_path(data: &[u8]) {
    if let Ok(files) = Files::open(data) {
        let _ = (files.names(""), files.names("etc/ironic-python-agent.d"));
        for path in ["parameters.txt", "openstack/latest/network_data.json"] {
            if let Ok(Some(bytes)) = files.read(path, FILE_LIMIT) {
                assert!(bytes.len() <= FILE_LIMIT);
            }
        }
    }
}

/// A config drive as it is sent, and what is made of it for a disk.
pub(crate) fn config_drive(data: &[u8]) {
    let Ok(image) = config_drive::decode(data) else { return };
    for (sector_bytes, rebuild) in [(4096, Rebuild::WhenNeeded), (512, Rebuild::Always)] {
        if let Ok(suited) = config_drive::suited(&image, sector_bytes, rebuild) {
            assert!(disk::probe::probe(&*suited).is_some(), "what was made anew is not recognised");
        }
    }
}
