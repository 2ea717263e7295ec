//! Memory: how much, and what is in each slot.

use sys::Host;
use wire::Inventory;

use super::super::smbios::{self, Bank};
use super::Rows;

/// Adds the rows of kind `memory`.
pub(super) fn add(host: &Host, inventory: &Inventory, rows: &mut Rows) {
    let bytes = inventory.memory.physical_mb.map(|mib| mib.saturating_mul(1024 * 1024).to_string());
    rows.add_known("memory", "total", "size", bytes);
    let table = std::fs::read(host.path(smbios::TABLE)).unwrap_or_default();
    let banks = smbios::banks(&table);
    for (number, bank) in banks.iter().enumerate() {
        let Bank { bytes, megahertz, vendor, product, serial, slot } = bank;
        let item = format!("bank:{number}");
        rows.add_known("memory", &item, "size", bytes.map(|bytes| bytes.to_string()));
        rows.add_known(
            "memory",
            &item,
            "clock",
            megahertz.map(|mhz| (u64::from(mhz) * 1_000_000).to_string()),
        );
        let texts = [("vendor", vendor), ("product", product), ("serial", serial), ("slot", slot)];
        for (property, text) in texts {
            rows.add_known("memory", &item, property, text.clone());
        }
    }
    if !banks.is_empty() {
        rows.add("memory", "banks", "count", banks.len().to_string());
    }
}
