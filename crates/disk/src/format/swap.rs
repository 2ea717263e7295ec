//! The header of swap space (`union swap_header` of `linux/swap.h`), as `mkswap` writes it.

use uuid::Uuid;

use crate::layout::Planned;
use crate::{Error, Target};

/// Bytes that `mkswap` leaves to boot loaders; zero here.
const INFO: usize = 1024;
/// Smallest swap space that the kernel takes, in pages.
const SMALLEST_PAGES: u64 = 10;

/// **Makes swap space** with a label of at most 16 bytes, for the page size of this machine. Returns its UUID.
pub fn make_swap(target: &Target, partition: &Planned, label: &str) -> Result<Uuid, Error> {
    let uuid = Uuid::new_v4();
    let fail = |reason: String| Error::Table { device: target.device().display().to_string(), reason };
    let header = header(partition.size_byte, sys::memory::page_bytes(), label, uuid).map_err(fail)?;
    super::write_partition(target, partition, &header)?;
    Ok(uuid)
}

fn header(size_bytes: u64, page_bytes: usize, label: &str, uuid: Uuid) -> Result<Vec<u8>, String> {
    let pages = size_bytes / u64::try_from(page_bytes).unwrap_or(u64::MAX);
    if pages < SMALLEST_PAGES {
        return Err(format!("swap space of {size_bytes} bytes is too small"));
    }
    // More than 2^32 pages is what the header can not tell: the kernel then uses what it can.
    let last_page = u32::try_from(pages - 1).unwrap_or(u32::MAX);
    let mut page = vec![0; page_bytes];
    let mut name = [0; 16];
    for (slot, byte) in name.iter_mut().zip(label.bytes()) {
        *slot = byte;
    }
    let info = [
        1u32.to_le_bytes().as_slice(), // version
        &last_page.to_le_bytes(),
        &0u32.to_le_bytes(), // bad pages
        uuid.as_bytes(),
        &name,
    ]
    .concat();
    for (slot, byte) in page.iter_mut().skip(INFO).zip(info) {
        *slot = byte;
    }
    for (slot, byte) in page.iter_mut().rev().zip(b"SWAPSPACE2".iter().rev()) {
        *slot = *byte;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::probe;

    #[test]
    fn the_header_is_recognised_with_label_and_uuid() {
        let uuid = Uuid::from_bytes([7; 16]);
        for page in [4096, 16384, 65536] {
            let header = header(1 << 20, page, "swap1", uuid).unwrap();
            assert_eq!(header.len(), page);
            let found = probe(&header).unwrap();
            assert_eq!((found.kind, found.label.as_deref()), ("swap", Some("swap1")));
            assert_eq!(found.uuid, Some(uuid.to_string()));
        }
        assert!(header(4096 * 9, 4096, "x", uuid).is_err());
        assert_eq!(
            header(1 << 20, 4096, "longer than sixteen bytes", uuid).unwrap()[1052..1068],
            *b"longer than sixt"
        );
    }
}
