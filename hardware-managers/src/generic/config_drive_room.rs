//! Whether a config drive finds a place beside an image, asked by `imaging` before the first byte is written.

use std::sync::Arc;

use disk::Target;
use disk::config_drive::{ImageBytes, Room};
use imaging::{Peek, Preflight};

/// The config drive and the disk that it goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForConfigDrive(Room);

impl ForConfigDrive {
    /// For a config drive in the form in which it will be written. `translates` says whether a GPT may be rewritten for other
    /// sectors.
    pub(super) fn arc(drive: &[u8], target: &Target, translates: bool) -> Arc<dyn Preflight> {
        Arc::new(Self(Room {
            sector_bytes: target.logical_sector_bytes(),
            disk_bytes: target.size_bytes(),
            length: u64::try_from(drive.len()).unwrap_or(u64::MAX),
            translates,
        }))
    }
}

impl Preflight for ForConfigDrive {
    fn judge(&self, image: &mut dyn Peek, disk: u64) -> Result<(), String> {
        let head = image.head().to_vec();
        if head.is_empty() {
            return Ok(()); // a qcow2 whose tables come last: judged after the write
        }
        let room = Room { disk_bytes: disk, ..self.0 };
        room.check(&head, &mut Image(image)).map_err(|error| hwm::chain(&error))
    }
}

struct Image<'a>(&'a mut dyn Peek);

impl ImageBytes for Image<'_> {
    fn read(&mut self, offset: u64, length: usize) -> Option<Vec<u8>> {
        self.0.read(offset, length)
    }
}
