//! Runs the collectors, one after another, and keeps going when one fails. Blocks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;
use serde_json::{Map, Value};

use super::collector::Collector;
use super::failures::Failures;
use super::{Machine, Plan, default, payload};

/// What was found, and what went wrong meanwhile.
pub(super) struct Findings {
    pub(super) data: Map<String, Value>,
    pub(super) failures: Failures,
}

/// Runs the collectors of a plan in its order.
///
/// Unlike upstream, which then posts nothing but the error, a name that nobody knows does not keep the others from being run: a
/// conductor refuses data without an inventory, and the node's operator would never read the error.
pub(super) fn run(machine: &Machine, plan: &Plan) -> Findings {
    let mut findings = Findings { data: Map::new(), failures: Failures::default() };
    let unknown: Vec<_> = plan
        .names
        .iter()
        .filter(|name| Collector::named(name).is_none())
        .map(|name| format!("'{name}'"))
        .collect();
    if !unknown.is_empty() {
        let known = Collector::ALL.map(Collector::name).join(", ");
        let unknown = unknown.join(", ");
        findings.failures.add(format!("Failed to load collector [{unknown}]; there are {known}"));
    }
    for collector in plan.names.iter().filter_map(|name| Collector::named(name)) {
        tracing::debug!(collector = collector.name(), "collecting");
        // What was collected before a panic stays valid: each collector adds whole values.
        let outcome = catch_unwind(AssertUnwindSafe(|| one(collector, machine, plan, &mut findings.data)));
        let failure = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(failure)) => failure,
            Err(_) => "it panicked: a defect, please report it".into(),
        };
        findings.failures.add(format!("collector {} failed: {failure}", collector.name()));
    }
    findings
}

fn one(
    collector: Collector,
    machine: &Machine,
    plan: &Plan,
    data: &mut Map<String, Value>,
) -> Result<(), String> {
    let Machine { registry, context, log: _ } = machine;
    let text = |error: hwm::Error| hwm::chain(&error);
    match collector {
        Collector::Default => default::collect(machine, plan, data),
        Collector::Logs => {
            // Never a failure: they only help to understand others.
            if let Some(logs) = payload::logs(machine, payload::WHOLE_MEMBERS) {
                data.insert(payload::LOGS.into(), logs);
            }
            Ok(())
        }
        Collector::PciDevices => {
            insert(data, "pci_devices", &hardware_managers::pci_devices(&context.host).map_err(text)?)
        }
        Collector::NumaTopology => {
            match hardware_managers::numa_topology(&context.host) {
                Ok(Some(topology)) => insert(data, "numa_topology", &topology)?,
                Ok(None) => tracing::warn!("the kernel knows no NUMA nodes"),
                // As upstream: half a topology is none, and no reason to fail the inspection.
                Err(error) => tracing::warn!(error = text(error), "the NUMA topology is left out"),
            }
            Ok(())
        }
        Collector::DmiDecode => insert(data, "dmi", &hardware_managers::dmi(&context.host).map_err(text)?),
        Collector::Lldp => {
            insert(data, "lldp_raw", &registry.first("collect_lldp_data", |m| m.lldp(context)).map_err(text)?)
        }
        Collector::ExtraHardware => {
            if !plan.benchmarks.is_empty() {
                let benchmarks = plan.benchmarks.join(",");
                tracing::warn!(benchmarks, "this agent runs no benchmarks: `data` has the facts alone");
            }
            let inventory = registry.inventory(context).map_err(text)?;
            insert(data, "data", &hardware_managers::extra_hardware(&context.host, &inventory))
        }
        Collector::UsbDevices => insert(
            data,
            "usb_devices",
            &registry.first("get_usb_devices", |m| m.usb_devices(context)).map_err(text)?,
        ),
    }
}

/// Adds a value under its key.
pub(super) fn insert(data: &mut Map<String, Value>, key: &str, value: &impl Serialize) -> Result<(), String> {
    let value = serde_json::to_value(value).map_err(|error| format!("writing `{key}` as JSON: {error}"))?;
    data.insert(key.into(), value);
    Ok(())
}
