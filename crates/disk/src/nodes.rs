//! Making the kernel show the partitions of a disk, and waiting until their device nodes are there.

use std::time::{Duration, Instant};

use sys::Host;

use crate::Error;
use crate::list::{kernel_name, partition_path};
use crate::table::{Partition, PartitionType, Table};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long the kernel, or whoever stands in for it, may take to find partitions by itself.
const GRACE: Duration = Duration::from_millis(500);
/// Time between two tries to have the table read while somebody still holds the disk.
const REREAD_INTERVAL: Duration = Duration::from_millis(200);

/// How long to wait for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long partitions and their nodes may take.
    pub limit: Duration,
    /// How often to ask for the table to be read while somebody still holds the disk; at least once.
    pub reread_attempts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { limit: Duration::from_secs(23), reread_attempts: 10 }
    }
}

/// Makes the kernel read the partition table of a disk (`/dev/sda`) again, if it does not show it yet, and waits until every
/// partition of `table` is there, with a device node. Partitions that the kernel does not find, for it may know no such
/// tables, it is told one by one. The disk itself is not written.
///
/// # Errors
/// After the limit, with the partition that is missing and why.
pub fn show_partitions(host: &Host, device: &str, table: &Table, patience: Patience) -> Result<(), Error> {
    // Reading the table again takes all partitions away for a moment.
    if first_missing(host, device, table).is_none() {
        forget_cached(host, device, table);
        return Ok(());
    }
    let path = host.path(device);
    let started = Instant::now();
    let reads_tables = reread(host, device, patience.reread_attempts);
    let mut refused = None;
    loop {
        let missing = first_missing(host, device, table);
        let Some(missing) = missing else { return Ok(()) };
        if !reads_tables || started.elapsed() > GRACE {
            refused = tell(host, device, table).err().or(refused);
        }
        if first_missing(host, device, table).is_none() {
            return Ok(());
        }
        if started.elapsed() > patience.limit {
            let reason = format!("{missing} within {} s; is the disk in use?", patience.limit.as_secs());
            let source = refused.unwrap_or_else(|| std::io::Error::other("no device node was made"));
            return Err(Error::Io { action: format!("partitions of {}: {reason}", path.display()), source });
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Drops what the kernel caches of partitions that stay: each has a cache of its own, and what was written through the
/// whole disk is not in it.
fn forget_cached(host: &Host, device: &str, table: &Table) {
    for partition in table.partitions() {
        let node = partition_path(device, partition.number);
        if let Err(error) = host.kernel().flush_buffers(&host.path(&node)) {
            tracing::debug!(node, %error, "the cache of a partition was not dropped");
        }
    }
}

/// Whether the kernel reads partition tables of this device itself.
fn reread(host: &Host, device: &str, attempts: u32) -> bool {
    for attempt in 1..=attempts {
        match host.kernel().reread_partition_table(&host.path(device)) {
            Ok(()) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && attempt < attempts => {
                std::thread::sleep(REREAD_INTERVAL);
            }
            Err(error) => {
                tracing::debug!(device, %error, "the kernel does not read the partition table itself");
                return false;
            }
        }
    }
    false
}

/// What is not as it should be, as a clause.
fn first_missing(host: &Host, device: &str, table: &Table) -> Option<String> {
    let shown = shown_numbers(host, device).unwrap_or_default();
    let stale = shown.iter().find(|number| table.partitions().iter().all(|p| p.number != **number));
    if let Some(number) = stale {
        return Some(format!("partition {number}, which is no more, did not go away"));
    }
    table.partitions().iter().find_map(|partition| {
        let node = partition_path(device, partition.number);
        if !is_shown(host, device, partition) {
            return Some(format!("partition {} did not appear", partition.number));
        }
        let number = host.attribute(format!("{}/dev", directory(device, partition.number)));
        let found = sys::device::block_device_number(&host.path(&node)).ok().flatten();
        let found = found.map(|(major, minor)| format!("{major}:{minor}"));
        if number.is_none() || found != number {
            return Some(format!("no device node {node} appeared"));
        }
        // A node may be left from a partition that was there before, and whoever guards devices may not know it yet.
        let opened = sys::device::open_read(&host.path(&node));
        opened.err().map(|error| format!("{node} can not be opened ({error})"))
    })
}

fn directory(device: &str, number: u32) -> String {
    let disk = kernel_name(device);
    format!("/sys/block/{disk}/{}", kernel_name(&partition_path(device, number)))
}

/// Whether the kernel has this partition at its place.
fn is_shown(host: &Host, device: &str, partition: &Partition) -> bool {
    let directory = directory(device, partition.number);
    // In units of 512 bytes, whatever the disk's sectors are.
    let start = host.number::<u64>(format!("{directory}/start"));
    let size = host.number::<u64>(format!("{directory}/size"));
    // Of an extended partition the kernel shows its first sectors only.
    let is_extended = matches!(partition.kind, PartitionType::Id(0x05 | 0x0f | 0x85));
    start == Some(partition.start_byte / 512) && (is_extended || size == Some(partition.size_byte / 512))
}

/// Tells the kernel what it does not know, after making it forget what is not so any more.
fn tell(host: &Host, device: &str, table: &Table) -> std::io::Result<()> {
    let path = host.path(device);
    let wrong = |partition: &&Partition| !is_shown(host, device, partition);
    let stale = shown_numbers(host, device)?.into_iter().filter(|number| {
        !table.partitions().iter().any(|p| p.number == *number && is_shown(host, device, p))
    });
    let mut result = Ok(());
    for number in stale {
        result = result.and(host.kernel().delete_partition(&path, number));
    }
    for partition in table.partitions().iter().filter(wrong) {
        let size = match partition.kind {
            PartitionType::Id(0x05 | 0x0f | 0x85) => partition.size_byte.min(1024),
            PartitionType::Id(_) | PartitionType::Guid(_) => partition.size_byte,
        };
        tracing::debug!(device, partition = partition.number, "telling the kernel of a partition");
        result = result.and(host.kernel().add_partition(&path, partition.number, partition.start_byte, size));
    }
    result
}

/// The numbers of the partitions that the kernel has now.
fn shown_numbers(host: &Host, device: &str) -> std::io::Result<Vec<u32>> {
    let disk = format!("/sys/block/{}", kernel_name(device));
    let names = host.names(&disk)?;
    Ok(names.iter().filter_map(|name| host.number(format!("{disk}/{name}/partition"))).collect())
}
