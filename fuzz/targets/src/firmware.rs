//! What the firmware and an EFI system partition say about booting.

use boot::{Firmware, LoadOption, device_path, efivars, loaders};
use disk::fat::Fat;

/// Bytes of a sector and of a cluster of the EFI system partition that is made here.
const SECTOR: usize = 512;
/// First sector of the data: boot sector, one allocation table, a root directory of 16 entries.
const DATA: usize = 3;

/// Boot entries: as the data of a variable, and as the files that the kernel shows.
pub(crate) fn variables(data: &[u8]) {
    let _ = (device_path::text(data), device_path::is_bootable(data));
    if let Some(option) = LoadOption::parse(data) {
        let _ = (device_path::text(&option.path), device_path::is_bootable(&option.path));
        let again = option.encode().and_then(|bytes| LoadOption::parse(&bytes));
        assert_eq!(again.map(|again| again.path), Some(option.path), "an entry does not read back");
    }
    listed(data).unwrap_or_else(|error| panic!("no files: {error}"));
}

/// `Boot0001` and `BootOrder` with these bytes, read back as entries.
fn listed(data: &[u8]) -> std::io::Result<()> {
    let root = tempfile::tempdir()?;
    let folder = root.path().join("sys/firmware/efi/efivars");
    std::fs::create_dir_all(&folder)?;
    for name in ["Boot0001", "BootOrder"] {
        std::fs::write(folder.join(format!("{name}-8be4df61-93ca-11d2-aa0d-00e098032b8c")), data)?;
    }
    let host = sys::fake::host(root.path());
    if let Ok(entries) = efivars::current_entries(&host) {
        assert!(entries.len() <= 1, "one variable, many entries");
    }
    if let Ok(order) = efivars::boot_order(&host) {
        assert!(order.len() <= data.len() / 2);
    }
    Ok(())
}

/// An EFI system partition whose `BOOTX64.CSV` has these bytes.
pub(crate) fn loaders(csv: &[u8]) {
    let image = system_partition(csv);
    match loaders::find(&image, Firmware::X64) {
        Ok(found) => {
            for loader in found.into_loaders() {
                assert!(loader.path.starts_with('\\') && !loader.path.contains('\0'), "{loader:?}");
                assert!(!loader.path.contains("\\..\\"), "a loader elsewhere: {loader:?}");
            }
        }
        Err(error) => {
            // The file system is sound, so only the file can be at fault.
            let sound = Fat::open(&image).and_then(|fat| fat.root());
            assert!(sound.is_ok(), "the file system that the target made is not read: {error}");
        }
    }
}

/// The least FAT12 with one file.
fn system_partition(csv: &[u8]) -> Vec<u8> {
    let clusters = csv.len().div_ceil(SECTOR).max(1);
    let mut image = vec![0; (DATA + clusters) * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| {
        for (slot, byte) in image.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    };
    let sectors = u16::try_from(DATA + clusters).unwrap_or(u16::MAX);
    put(0, &[0xeb, 0x3c, 0x90]);
    put(11, &[0, 2, 1, 1, 0, 1, 16, 0]);
    put(19, &sectors.to_le_bytes());
    put(21, &[0xf8, 1, 0]);
    put(510, &[0x55, 0xaa]);
    // A chain through all clusters.
    let mut bits = vec![0xff8, 0xfff];
    bits.extend((0..clusters).map(|n| if n + 1 == clusters { 0xfff } else { n + 3 }));
    for (number, value) in bits.into_iter().enumerate() {
        let at = SECTOR + number * 3 / 2;
        let [low, high, ..] = if number % 2 == 0 { value.to_le_bytes() } else { (value << 4).to_le_bytes() };
        if let Some(slot) = image.get_mut(at) {
            *slot |= low;
        }
        if let Some(slot) = image.get_mut(at + 1) {
            *slot |= high;
        }
    }
    let mut put = |at: usize, bytes: &[u8]| {
        for (slot, byte) in image.iter_mut().skip(at).zip(bytes) {
            *slot = *byte;
        }
    };
    put(2 * SECTOR, b"BOOTX64 CSV\x20");
    put(2 * SECTOR + 26, &[2, 0]);
    put(2 * SECTOR + 28, &u32::try_from(csv.len()).unwrap_or(u32::MAX).to_le_bytes());
    put(DATA * SECTOR, csv);
    image
}
