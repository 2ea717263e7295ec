//! Facts in the form of `hardware-detect`, of the Python package `hardware`: rows of kind, item, property and value.
//!
//! Which rows there are, and whether a value is a number or text, follows that program; `docs/inspection.md` says which are missing.
//! Facts that other readers know already come from the inventory.

mod disks;
mod memory;
mod processors;

use serde_json::Value;
use sys::Host;
use wire::{Interface, Inventory};

/// Kind, item, property, value: `["disk", "sda", "size", "480"]`.
pub type Row = (String, String, String, Value);

/// The rows of a machine.
pub fn extra_hardware(host: &Host, inventory: &Inventory) -> Vec<Row> {
    let mut rows = Rows::default();
    disks::add(host, &mut rows);
    system(host, &mut rows);
    memory::add(host, inventory, &mut rows);
    for interface in &inventory.interfaces {
        network(host, interface, &mut rows);
    }
    processors::add(host, inventory, &mut rows);
    kernel(host, &mut rows);
    rows.0
}

/// Rows being collected; what is unknown makes none.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn add(&mut self, kind: &str, item: &str, property: &str, value: impl Into<Value>) {
        self.0.push((kind.into(), item.into(), property.into(), value.into()));
    }

    fn add_known(&mut self, kind: &str, item: &str, property: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(kind, item, property, value);
        }
    }
}

/// Product, board and firmware, from the attributes that the kernel makes of the firmware's table.
fn system(host: &Host, rows: &mut Rows) {
    let text = |name: &str| host.attribute(format!("/sys/class/dmi/id/{name}"));
    for (kind, item, property, attribute) in [
        ("system", "product", "serial", "product_serial"),
        ("system", "product", "name", "product_name"),
        ("system", "product", "vendor", "sys_vendor"),
        ("system", "product", "version", "product_version"),
        ("system", "product", "uuid", "product_uuid"),
        ("system", "motherboard", "name", "board_name"),
        ("system", "motherboard", "vendor", "board_vendor"),
        ("system", "motherboard", "version", "board_version"),
        ("system", "motherboard", "serial", "board_serial"),
        ("firmware", "bios", "version", "bios_version"),
        ("firmware", "bios", "date", "bios_date"),
        ("firmware", "bios", "vendor", "bios_vendor"),
    ] {
        rows.add_known(kind, item, property, text(attribute));
    }
}

fn network(host: &Host, interface: &Interface, rows: &mut Rows) {
    let name = interface.name.as_str();
    let attribute = |part: &str| host.attribute(format!("{}/{name}/{part}", super::interfaces::NET));
    let mut add = |property: &str, value: Option<String>| rows.add_known("network", name, property, value);
    // A PCI address has colons; a virtio device has a name that ends in its number.
    let bus = interface.pci_address.as_deref().and_then(|address| match address.strip_prefix("virtio") {
        Some(number) => Some(format!("virtio@{number}")),
        None => address.contains(':').then(|| format!("pci@{address}")),
    });
    let speed: Option<u64> =
        attribute("speed").and_then(|speed| speed.parse().ok()).filter(|speed| *speed > 0);
    add("businfo", bus);
    add("size", speed.map(|megabits| (megabits.saturating_mul(1_000_000)).to_string()));
    add("ipv4", interface.ipv4_address.clone());
    add("link", Some(if interface.has_carrier { "yes" } else { "no" }.into()));
    add("driver", interface.driver.clone());
    add("duplex", attribute("duplex").filter(|duplex| duplex != "unknown"));
    add(
        "speed",
        speed.map(|megabits| match megabits {
            gigabits if gigabits % 1000 == 0 => format!("{}Gbit/s", gigabits / 1000),
            megabits => format!("{megabits}Mbit/s"),
        }),
    );
    add("serial", Some(interface.mac_address.clone()));
}

/// The kernel's version. Its command line is left out: it may hold secrets.
fn kernel(host: &Host, rows: &mut Rows) {
    rows.add_known("system", "kernel", "version", host.attribute("/proc/sys/kernel/osrelease"));
    rows.add("system", "kernel", "arch", std::env::consts::ARCH);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use serde_json::json;
    use wire::{Cpu, Memory};

    #[test]
    fn a_machine_becomes_rows_of_four() {
        let machine = Fixture::new()
            .file("/sys/block/sda/size", "937703088\n")
            .file("/sys/block/sda/device/model", "SSDSC2KG48\n")
            .file("/sys/block/sda/queue/rotational", "0\n")
            .file("/sys/block/sda/queue/scheduler", "none [mq-deadline] kyber\n")
            .file("/sys/block/sdb/size", "0\n") // a card reader without card
            .file("/sys/block/loop0/size", "100000000\n")
            .file("/sys/class/dmi/id/product_name", "PowerEdge R640\n")
            .file("/sys/class/dmi/id/bios_version", "2.19.1\n")
            .file("/sys/class/net/eth0/speed", "25000\n")
            .file("/sys/class/net/eth0/duplex", "full\n")
            .file("/sys/devices/system/cpu/smt/control", "on\n")
            .file("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n")
            .file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
            .file("/sys/devices/system/node/node0/cpulist", "0-3\n")
            .file("/sys/devices/system/node/node0/cpumap", "0000,0000000f\n")
            .file("/proc/cpuinfo", "processor: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t: 85\nmodel name\t: Xeon\nstepping\t: 7\n")
            .file("/proc/sys/kernel/osrelease", "6.1.0\n")
            .file("/proc/cmdline", "ipa-agent-token=secret\n");
        let inventory = Inventory {
            interfaces: vec![Interface {
                name: "eth0".into(),
                mac_address: "52:54:00:00:00:01".into(),
                has_carrier: true,
                pci_address: Some("0000:3b:00.0".into()),
                driver: Some("i40e".into()),
                ..Interface::default()
            }],
            cpu: Cpu {
                model_name: Some("Xeon".into()),
                count: 4,
                architecture: "x86_64".into(),
                flags: vec!["fpu".into(), "vme".into()],
                socket_count: Some(1),
                ..Cpu::default()
            },
            memory: Memory { total: Some(1), physical_mb: Some(1024) },
            ..Inventory::default()
        };
        let rows = serde_json::to_value(extra_hardware(&machine.host(), &inventory)).unwrap();
        let expected = json!([
            ["disk", "logical", "count", "1"],
            ["disk", "sda", "size", "480"],
            ["disk", "sda", "model", "SSDSC2KG48"],
            ["disk", "sda", "rotational", "0"],
            ["disk", "sda", "scheduler", "mq-deadline"],
            ["system", "product", "name", "PowerEdge R640"],
            ["firmware", "bios", "version", "2.19.1"],
            ["memory", "total", "size", "1073741824"],
            ["network", "eth0", "businfo", "pci@0000:3b:00.0"],
            ["network", "eth0", "size", "25000000000"],
            ["network", "eth0", "link", "yes"],
            ["network", "eth0", "driver", "i40e"],
            ["network", "eth0", "duplex", "full"],
            ["network", "eth0", "speed", "25Gbit/s"],
            ["network", "eth0", "serial", "52:54:00:00:00:01"],
            ["cpu", "physical", "number", 1],
            ["cpu", "physical", "smt", "on"],
            ["cpu", "physical_0", "vendor", "GenuineIntel"],
            ["cpu", "physical_0", "product", "Xeon"],
            ["cpu", "physical_0", "cores", 2],
            ["cpu", "physical_0", "threads", 4],
            ["cpu", "physical_0", "family", 6],
            ["cpu", "physical_0", "model", 85],
            ["cpu", "physical_0", "stepping", 7],
            ["cpu", "physical_0", "architecture", "x86_64"],
            ["cpu", "physical_0", "flags", "fpu vme"],
            ["cpu", "physical_0", "threads_per_core", 2],
            ["cpu", "logical", "number", 4],
            ["cpu", "logical_0", "governor", "performance"],
            ["numa", "nodes", "count", 1],
            ["numa", "node_0", "cpu_count", 4],
            ["numa", "node_0", "cpu_mask", "f"],
            ["system", "kernel", "version", "6.1.0"],
            ["system", "kernel", "arch", std::env::consts::ARCH],
        ]);
        assert_eq!(
            serde_json::to_string_pretty(&rows).unwrap(),
            serde_json::to_string_pretty(&expected).unwrap()
        );
    }

    #[test]
    fn a_machine_that_says_nothing_has_few_rows_and_no_panic() {
        let rows = extra_hardware(&Fixture::new().host(), &Inventory::default());
        assert!(rows.iter().all(|(kind, ..)| ["disk", "cpu", "system"].contains(&kind.as_str())), "{rows:?}");
    }
}
