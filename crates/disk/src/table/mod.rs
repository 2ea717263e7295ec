//! Partition tables: reading GPT and MBR, making new ones, moving the backup GPT to the end of the disk.
//!
//! Own codecs. The `gpt` crate was the first choice for GPT; it packs the used entries together when it writes, which renumbers
//! the partitions of every image that leaves gaps (Ubuntu's 1, 14, 15), and it panics on entry sizes other than 128.

mod gpt;
mod make;
mod mbr;
mod remains;
mod translate;

use std::path::Path;

use uuid::Uuid;

#[cfg(test)]
pub(crate) use gpt::tests as gpt_tests;
pub use gpt::{BIOS_BOOT_TYPE, ESP_TYPE, Gpt, LINUX_FILE_SYSTEM_TYPE};
pub use make::write_table;
pub(crate) use mbr::Record as MbrRecord;
pub use mbr::{ESP_MBR_TYPE, Mbr};
pub(crate) use mbr::{free_record, records_end};
pub(crate) use remains::Remains;
pub use translate::Translation;

use crate::{Device, Error, Source, Target};

/// The partition table of a disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Table {
    /// GUID partition table (UEFI specification, 5.3).
    Gpt(Gpt),
    /// Master boot record, with its logical partitions.
    Mbr(Mbr),
    /// Nothing that is a partition table.
    None,
}

/// A partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// From 1; logical partitions of an MBR from 5.
    pub number: u32,
    /// Where it starts on the disk, in bytes.
    pub start_byte: u64,
    /// Its size in bytes.
    pub size_byte: u64,
    /// What it is for.
    pub kind: PartitionType,
    /// The name in the GPT; empty for MBR.
    pub name: String,
    /// PARTUUID as Linux shows it: the GUID, or `1a2b3c4d-01` for MBR.
    pub uuid: String,
    /// Active in the MBR, or "legacy BIOS bootable" in the GPT.
    pub bootable: bool,
}

/// The type of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionType {
    /// GPT partition type GUID.
    Guid(Uuid),
    /// MBR system id.
    Id(u8),
}

impl Partition {
    /// Whether it is marked as an EFI system partition.
    pub fn is_esp(&self) -> bool {
        match self.kind {
            PartitionType::Guid(guid) => guid == ESP_TYPE,
            PartitionType::Id(id) => id == ESP_MBR_TYPE,
        }
    }

    /// Whether it is room for grub on a disk that boots with BIOS. An MBR has no such partitions: grub lies before the first one.
    pub fn is_bios_boot(&self) -> bool {
        self.kind == PartitionType::Guid(BIOS_BOOT_TYPE)
    }
}

impl Table {
    /// Reads the partition table.
    ///
    /// An MBR that protects a GPT counts as GPT; a stale GPT behind an ordinary MBR is ignored, as the kernel does.
    ///
    /// # Errors
    /// A disk that can not be read, and an MBR that promises a GPT where there is no intact one.
    pub fn read<S: Source + ?Sized>(source: &S, sector_bytes: u32) -> Result<Self, Error> {
        Self::read_named(source, sector_bytes, "the disk")
    }

    /// As [`Table::read`], from a device node or an image file.
    pub fn read_device(path: &Path) -> Result<Self, Error> {
        let device = Device::open(path)?;
        Self::read_named(&device, device.sector_bytes(), &path.display().to_string())
    }

    fn read_named<S: Source + ?Sized>(source: &S, sector_bytes: u32, device: &str) -> Result<Self, Error> {
        if source.size() < u64::from(sector_bytes) {
            return Ok(Self::None);
        }
        let head =
            source.bytes(0, 512).map_err(Error::io(format!("reading the first sector of {device}")))?;
        let Some(mbr) = Mbr::read(source, &head, sector_bytes) else { return Ok(Self::None) };
        if !mbr.is_protective {
            return Ok(Self::Mbr(mbr));
        }
        match Gpt::read(source, sector_bytes, mbr.signature) {
            Ok(gpt) => Ok(Self::Gpt(gpt)),
            Err(reason) => Err(Error::Table { device: device.into(), reason }),
        }
    }

    /// `gpt`, `dos` or `none`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gpt(_) => "gpt",
            Self::Mbr(_) => "dos",
            Self::None => "none",
        }
    }

    /// Its partitions by number.
    pub fn partitions(&self) -> &[Partition] {
        match self {
            Self::Gpt(gpt) => &gpt.partitions,
            Self::Mbr(mbr) => &mbr.partitions,
            Self::None => &[],
        }
    }

    /// Logical sector size in bytes; 512 where there is no table.
    pub fn sector_bytes(&self) -> u32 {
        match self {
            Self::Gpt(gpt) => gpt.sector_bytes,
            Self::Mbr(mbr) => mbr.sector_bytes,
            Self::None => 512,
        }
    }

    /// The number at offset 440 of the disk in the form `0x1a2b3c4d`: what `get_partition_uuids` gives as `root uuid` of a
    /// whole-disk image. Nearly always `0x00000000` on GPT.
    pub fn disk_signature(&self) -> String {
        let signature = match self {
            Self::Gpt(gpt) => gpt.mbr_signature,
            Self::Mbr(mbr) => mbr.signature,
            Self::None => 0,
        };
        format!("0x{signature:08x}")
    }

    /// The first EFI system partition: by type, or on GPT else the first that is marked bootable (data plane page, 5.2).
    pub fn esp(&self) -> Option<&Partition> {
        let partitions = self.partitions();
        let by_flag = || match self {
            Self::Gpt(_) => partitions.iter().find(|partition| partition.bootable),
            Self::Mbr(_) | Self::None => None,
        };
        partitions.iter().find(|partition| partition.is_esp()).or_else(by_flag)
    }

    /// Checks what a written image must have: a partition table with at least one partition, all of them on the disk.
    pub fn validate(&self, device: &str, size_bytes: u64) -> Result<(), Error> {
        let fail = |reason: String| Err(Error::Table { device: device.into(), reason });
        if self.partitions().is_empty() {
            return fail(match self {
                Self::None => "there is none".into(),
                Self::Gpt(_) | Self::Mbr(_) => "it has no partition".into(),
            });
        }
        for partition in self.partitions() {
            if partition.start_byte.checked_add(partition.size_byte).is_none_or(|end| end > size_bytes) {
                return fail(format!(
                    "partition {} ends beyond the disk; the disk is too small for the image",
                    partition.number
                ));
            }
        }
        Ok(())
    }
}

/// What [`fix_gpt`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GptFix {
    /// The disk has no GPT: nothing to do.
    NotGpt,
    /// The backup is where it belongs: nothing done.
    Correct,
    /// Both copies were written, the backup at the end of the disk.
    Moved,
}

/// **Writes** the backup GPT to the end of the disk and lets the partitions reach up to there, if it is not so already
/// (data plane page, 1.10; `sgdisk -e`). Disk GUID, partitions and their numbers stay as they are.
pub fn fix_gpt(target: &Target) -> Result<GptFix, Error> {
    let device = target.open()?;
    let Table::Gpt(mut gpt) = target.table()? else { return Ok(GptFix::NotGpt) };
    if gpt.is_intact(&device) {
        return Ok(GptFix::Correct);
    }
    tracing::info!(device = %target.device().display(), "moving the backup partition table to the end of the disk");
    gpt.fit(device.size())
        .and_then(|()| gpt.write(&device))
        .map_err(|reason| Error::Table { device: target.device().display().to_string(), reason })?;
    device.flush()?;
    drop(device);
    target.reread_partitions();
    Ok(GptFix::Moved)
}
