//! A disk that running arrays lie on: it may get one more partition, where nothing is, and nothing else of it may be written.
//!
//! Such a disk can not be claimed as a [`crate::Target`]: its arrays hold it. The kernel is told of the new partition alone,
//! for it does not read the table of a disk in use.

use sys::Host;
use uuid::Uuid;
use wire::Disk;

use crate::layout::{Label, Planned, Role};
use crate::nodes::{Patience, show_partitions};
use crate::table::{Partition, PartitionType, Table};
use crate::target::{check_in_use_by_arrays_alone, check_permission};
use crate::{Device, Error, Policy, Refusal};

const MIB: u64 = 1 << 20;

/// Such a disk. Only [`Holder::claim`] makes one.
pub struct Holder {
    host: Host,
    disk: Disk,
}

impl Holder {
    /// Checks that a disk may be written, and that arrays are the only ones who use it. Changes nothing.
    pub fn claim(host: &Host, disk: &Disk, policy: &Policy) -> Result<Self, Refusal> {
        check_permission(disk, policy)?;
        check_in_use_by_arrays_alone(host, disk)?;
        Ok(Self { host: host.clone(), disk: disk.clone() })
    }

    /// The partition table as it is now.
    pub fn table(&self) -> Result<Table, Error> {
        Table::read_device(&self.host.path(&self.disk.name))
    }

    /// **Adds a partition** of this size in bytes (a whole number of MiB) in the first gap, and waits for its node. What lay
    /// in both ends of the gap is zeroed first. Only GPT.
    pub fn add_partition(
        &self,
        role: Role,
        name: &str,
        size_byte: u64,
        patience: Patience,
    ) -> Result<Partition, Error> {
        let fail = |reason: String| Error::Table { device: self.disk.name.clone(), reason };
        let Table::Gpt(mut gpt) = self.table()? else {
            return Err(fail("a partition can be added to a GPT only".into()));
        };
        let device = Device::open_beside_arrays(&self.host.path(&self.disk.name))?;
        gpt.make_room(&device, crate::Source::size(&device)).map_err(fail)?;
        let sector = u64::from(gpt.sector_bytes);
        let used: Vec<(u64, u64)> = gpt
            .partitions
            .iter()
            .map(|part| (part.start_byte, part.start_byte.saturating_add(part.size_byte)))
            .collect();
        let usable = (gpt.first_usable_sector * sector, (gpt.last_usable_sector + 1) * sector);
        let start = first_gap(&used, usable, size_byte).ok_or_else(|| {
            fail(format!(
                "there is no gap of {} MiB before, between or behind its partitions",
                size_byte / MIB
            ))
        })?;
        let planned = Planned::new(role, Label::Gpt, 0, start, size_byte);
        let PartitionType::Guid(kind) = planned.kind else {
            return Err(fail("a type of GPT was expected".into()));
        };
        for at in [start, start + size_byte - MIB] {
            device.write_at(at, &vec![0; 1 << 20])?;
        }
        tracing::info!(device = self.disk.name, name, start, size_byte, "adding a partition");
        let number = gpt
            .add(kind, Uuid::new_v4(), name, start / sector, (start + size_byte) / sector - 1)
            .and_then(|number| gpt.write(&device).map(|()| number))
            .map_err(fail)?;
        device.flush()?;
        drop(device);
        if let Err(error) =
            self.host.kernel().add_partition(&self.host.path(&self.disk.name), number, start, size_byte)
        {
            tracing::debug!(device = self.disk.name, number, %error, "the kernel was not told of the partition yet");
        }
        let table = self.table()?;
        show_partitions(&self.host, &self.disk.name, &table, patience)?;
        let added = table.partitions().iter().find(|partition| partition.number == number);
        added.cloned().ok_or_else(|| fail(format!("partition {number} was written and is not there")))
    }
}

/// Where the first gap of this size begins, at a MiB. `used` and `usable` are (start, end) in bytes.
fn first_gap(used: &[(u64, u64)], usable: (u64, u64), size: u64) -> Option<u64> {
    let aligned = |at: u64| at.div_ceil(MIB).checked_mul(MIB);
    let candidates = std::iter::once(usable.0).chain(used.iter().map(|(_, end)| *end)).filter_map(aligned);
    let fits = |start: &u64| {
        let Some(end) = start.checked_add(size) else { return false };
        *start >= usable.0 && end <= usable.1 && used.iter().all(|(from, to)| end <= *from || *start >= *to)
    };
    candidates.filter(fits).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_large_enough_is_taken() {
        let usable = (34 * 512, 1000 * MIB);
        for (used, size, expected) in [
            (vec![(551 * MIB, 900 * MIB)], 550, Some(1)),
            (vec![(551 * MIB, 900 * MIB)], 551, None),
            (vec![(MIB, 10 * MIB), (20 * MIB, 900 * MIB)], 10, Some(10)),
            (vec![(MIB, 10 * MIB), (20 * MIB, 900 * MIB)], 11, Some(900)),
            (vec![], 999, Some(1)),
            (vec![], 1000, None),
            (vec![(MIB, 2 * MIB + 512)], 10, Some(3)),
        ] {
            let found = first_gap(&used, usable, size * MIB);
            assert_eq!(found, expected.map(|mib: u64| mib * MIB), "{used:?} {size}");
        }
    }
}
