//! Processors and the nodes they belong to. Sockets are taken to be alike, as `lscpu` does.

use serde_json::Value;
use sys::Host;
use wire::Inventory;

use super::Rows;

const CPUS: &str = "/sys/devices/system/cpu";
const NODES: &str = "/sys/devices/system/node";

/// Adds the rows of kinds `cpu` and `numa`.
pub(super) fn add(host: &Host, inventory: &Inventory, rows: &mut Rows) {
    let cpu = &inventory.cpu;
    let sockets = cpu.socket_count.unwrap_or(1).max(1);
    let threads = cpu.count / sockets;
    let siblings = host.attribute(format!("{CPUS}/cpu0/topology/thread_siblings_list"));
    let threads_per_core = siblings.as_deref().and_then(count_in).unwrap_or(1).max(1);
    let cpuinfo = host.attribute("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
    };
    rows.add("cpu", "physical", "number", sockets);
    rows.add_known("cpu", "physical", "smt", host.attribute(format!("{CPUS}/smt/control")));
    let boost = host.attribute(format!("{CPUS}/cpufreq/boost"));
    let boost = boost.map(|on| if on == "1" { "enabled" } else { "disabled" });
    for socket in 0..sockets {
        let item = format!("physical_{socket}");
        let mut add = |property: &str, value: Option<Value>| rows.add_known("cpu", &item, property, value);
        add("boost", boost.map(Value::from));
        add("vendor", field("vendor_id").map(Value::from));
        add("product", cpu.model_name.clone().map(Value::from));
        add("cores", Some((threads / threads_per_core).into()));
        add("threads", Some(threads.into()));
        for (property, name) in [("family", "cpu family"), ("model", "model"), ("stepping", "stepping")] {
            add(property, field(name).and_then(|number| number.parse::<u64>().ok()).map(Value::from));
        }
        add("architecture", Some(cpu.architecture.clone().into()));
        let megahertz = |name: &str| {
            host.number::<f64>(format!("{CPUS}/cpu0/cpufreq/{name}")).map(|khz| Value::from(khz / 1000.0))
        };
        add("min_Mhz", megahertz("cpuinfo_min_freq"));
        add("max_Mhz", megahertz("cpuinfo_max_freq"));
        add("flags", (!cpu.flags.is_empty()).then(|| cpu.flags.join(" ").into()));
        add("threads_per_core", Some(threads_per_core.into()));
    }
    rows.add("cpu", "logical", "number", cpu.count);
    for number in 0..cpu.count {
        let governor = host.attribute(format!("{CPUS}/cpu{number}/cpufreq/scaling_governor"));
        rows.add_known("cpu", &format!("logical_{number}"), "governor", governor);
    }
    add_nodes(host, rows);
}

fn add_nodes(host: &Host, rows: &mut Rows) {
    let names = host.names(NODES).unwrap_or_default();
    let mut nodes: Vec<u32> =
        names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
    nodes.sort_unstable();
    if nodes.is_empty() {
        return;
    }
    rows.add("numa", "nodes", "count", nodes.len());
    for node in nodes {
        let item = format!("node_{node}");
        let list = host.attribute(format!("{NODES}/node{node}/cpulist")).unwrap_or_default();
        rows.add("numa", &item, "cpu_count", count_in(&list).unwrap_or(0));
        let mask = host.attribute(format!("{NODES}/node{node}/cpumap"));
        let digits = mask.map(|mask| mask.replace(',', "").trim_start_matches('0').to_owned());
        rows.add_known("numa", &item, "cpu_mask", digits.filter(|digits| !digits.is_empty()));
    }
}

/// How many numbers a list such as `0-3,8` has.
fn count_in(list: &str) -> Option<u32> {
    list.split(',').map(str::trim).filter(|range| !range.is_empty()).try_fold(0_u32, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        count.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}
