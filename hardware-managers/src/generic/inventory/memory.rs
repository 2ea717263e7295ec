//! The memory: what the kernel can use, and what is plugged in.

use sys::Host;
use wire::Memory;

use super::smbios;

/// `total` in bytes from `/proc/meminfo`; `physical_mb` in MiB from the firmware's table of memory devices, else from the
/// kernel's memory blocks (virtual machines without a table), else unknown.
pub(crate) fn read(host: &Host) -> Memory {
    let table = std::fs::read(host.path(smbios::TABLE)).ok();
    Memory {
        total: total(host),
        physical_mb: table.and_then(|t| smbios::memory_mib(&t)).or_else(|| blocks_mib(host)),
    }
}

fn total(host: &Host) -> Option<u64> {
    let meminfo = host.attribute("/proc/meminfo")?;
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Memory blocks that are online, times their size.
fn blocks_mib(host: &Host) -> Option<u64> {
    const BLOCKS: &str = "/sys/devices/system/memory";
    let size = u64::from_str_radix(&host.attribute(format!("{BLOCKS}/block_size_bytes"))?, 16).ok()?;
    let names = host.names(BLOCKS).ok()?;
    let blocks = names.iter().filter(|name| {
        let number = name.strip_prefix("memory").unwrap_or_default();
        let is_block = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        is_block && host.attribute(format!("{BLOCKS}/{name}/online")).as_deref() != Some("0")
    });
    let bytes = size.checked_mul(u64::try_from(blocks.count()).ok()?)?;
    (bytes > 0).then_some(bytes / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::super::smbios::tests::memory_device;
    use super::*;
    use crate::generic::fixture::Fixture;

    #[test]
    fn firmware_table_beats_memory_blocks() {
        let machine = Fixture::new()
            .file("/proc/meminfo", "MemTotal:        1993924 kB\nMemFree: 1 kB\n")
            .file("/sys/devices/system/memory/block_size_bytes", "8000000\n")
            .file("/sys/devices/system/memory/memory0/online", "1\n")
            .file("/sys/devices/system/memory/memory9/online", "1\n")
            .file("/sys/devices/system/memory/memory10/online", "0\n");
        assert_eq!(read(&machine.host()), Memory { total: Some(1_993_924 * 1024), physical_mb: Some(256) });
        let machine = machine.bytes("/sys/firmware/dmi/tables/DMI", &memory_device(2048, 0));
        assert_eq!(read(&machine.host()).physical_mb, Some(2048));
    }

    #[test]
    fn unknown_memory_is_null() {
        assert_eq!(read(&Fixture::new().host()), Memory { total: None, physical_mb: None });
    }
}
