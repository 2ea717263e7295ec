//! The collector `default`: the inventory, the disk an image would go to, and who collected.

use std::time::Duration;

use serde_json::{Map, Value, json};
use wire::Disk;

use super::collect::insert;
use super::{Machine, Plan, dhcp};

/// An image needs as much. Source: ironic-python-agent `utils.py`, `guess_root_disk`.
const ROOT_DISK_BYTES: u64 = 4 << 30;

pub(super) fn collect(machine: &Machine, plan: &Plan, data: &mut Map<String, Value>) -> Result<(), String> {
    let Machine { registry, context, log: _ } = machine;
    if let Some(wait) = &plan.dhcp {
        dhcp::wait(wait, || {
            registry
                .first("list_network_interfaces", |manager| manager.interfaces(context))
                .unwrap_or_default()
        });
    }
    wait_for_disk(machine, plan.disk_looks, plan.disk_pause);
    let inventory = registry.inventory(context).map_err(|error| hwm::chain(&error))?;
    insert(data, "inventory", &inventory)?;
    match root_disk(&inventory.disks) {
        Some(disk) => insert(data, "root_disk", disk)?,
        None => tracing::warn!("no disk is large enough to be the root disk"),
    }
    insert(data, "boot_interface", &inventory.boot.pxe_interface)?;
    let managers: Vec<_> = registry
        .versions()
        .into_iter()
        .map(|(name, version)| json!({ "name": name, "version": version }))
        .collect();
    insert(data, "configuration", &json!({ "collectors": plan.names, "managers": managers }))
}

/// Controllers may still be finding their disks.
fn wait_for_disk(machine: &Machine, looks: u32, pause: Duration) {
    let Machine { registry, context, log: _ } = machine;
    for look in 1..looks {
        let disks =
            registry.first("list_block_devices", |manager| manager.disks(context)).unwrap_or_default();
        if root_disk(&disks).is_some() || context.is_cancelled() {
            return;
        }
        tracing::info!(look, looks, "waiting for a disk that an image could go to");
        std::thread::sleep(pause);
    }
}

/// The smallest disk that is large enough; of equals the first by name. The rule of a deployment without hints.
fn root_disk(disks: &[Disk]) -> Option<&Disk> {
    let large = disks.iter().filter(|disk| disk.size >= ROOT_DISK_BYTES);
    large.min_by(|one, other| (one.size, &one.name).cmp(&(other.size, &other.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_disk_is_the_smallest_of_four_gibibytes_and_of_equals_the_first() {
        let disk = |name: &str, size: u64| Disk { name: name.into(), size, ..Disk::default() };
        let name = |disks: &[Disk]| root_disk(disks).map(|disk| disk.name.clone());
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[disk("a", ROOT_DISK_BYTES - 1)]), None);
        assert_eq!(name(&[disk("a", ROOT_DISK_BYTES)]).as_deref(), Some("a"));
        let disks = [disk("tiny", 1), disk("large", 9 << 30), disk("c", 5 << 30), disk("b", 5 << 30)];
        assert_eq!(name(&disks).as_deref(), Some("b"));
    }
}
