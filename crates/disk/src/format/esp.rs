//! An empty EFI system partition: FAT32, as the UEFI specification wants it on a fixed disk (2.10, 13.3).

use std::io::{Read, Seek, SeekFrom, Write};

use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter, SectorSize};
use uuid::Uuid;

use super::Window;
use super::volume::label_places;
use crate::fat::LABEL;
use crate::layout::Planned;
use crate::{Error, Target};

/// Bytes of a cluster: what makes enough of them for FAT32 on any partition of 260 MiB and more.
const CLUSTER: usize = 4096;

/// **Makes an empty FAT32 file system** for the sectors of this disk. Returns its UUID, `XXXX-XXXX`.
pub fn make_esp(target: &Target, partition: &Planned, label: &str) -> Result<String, Error> {
    let (id, _, _, _) = Uuid::new_v4().as_fields();
    make_esp_like(target, partition, label, id)
}

/// The same with the serial number of another file system, from which its UUID is made.
pub fn make_esp_like(target: &Target, partition: &Planned, label: &str, id: u32) -> Result<String, Error> {
    let device = target.open()?;
    let fail =
        |error: hadris_fat::Error| Error::Fat { reason: format!("making an EFI system partition: {error}") };
    let sector =
        usize::try_from(device.sector_bytes()).ok().and_then(|bytes| SectorSize::try_from(bytes).ok());
    let sector = sector.ok_or_else(|| Error::Fat {
        reason: format!("no file system can be made for sectors of {} bytes", device.sector_bytes()),
    })?;
    let first_sector = partition.start_byte / u64::from(device.sector_bytes());
    let options = FatFormatOptions::new(partition.size_byte)
        .volume_label(label)
        .volume_id(id)
        .sector_size(sector)
        .sectors_per_cluster(u8::try_from(CLUSTER / sector.bytes()).unwrap_or(1).max(1))
        .fat_type(FatTypeSelection::Fat32)
        .hidden_sectors(u32::try_from(first_sector).unwrap_or_default());
    let parameters = FatVolumeFormatter::calculate_params(&options).map_err(fail)?;
    let volume = FatVolumeFormatter::format(Window::new(&device, partition), options).map_err(fail)?;
    drop(volume);
    let places = label_places(&parameters);
    let mut window = Window::new(&device, partition);
    for offset in places.boot.into_iter().chain([places.root]) {
        keep_case(&mut window, offset, label).map_err(Error::io("labelling the EFI system partition"))?;
    }
    device.flush()?;
    Ok(format!("{:04X}-{:04X}", id >> 16, id & 0xffff))
}

/// Puts the label as it was given where its upper-case form stands: systems look for it by the exact text.
fn keep_case(window: &mut (impl Read + Write + Seek), offset: u64, label: &str) -> std::io::Result<()> {
    let mut wanted = [b' '; LABEL];
    for (slot, byte) in wanted.iter_mut().zip(label.bytes()) {
        *slot = byte;
    }
    let mut found = [0; LABEL];
    window.seek(SeekFrom::Start(offset))?;
    window.read_exact(&mut found)?;
    if !found.eq_ignore_ascii_case(&wanted) {
        return Err(std::io::Error::other("the label is not where it belongs"));
    }
    window.seek(SeekFrom::Start(offset))?;
    window.write_all(&wanted)
}
