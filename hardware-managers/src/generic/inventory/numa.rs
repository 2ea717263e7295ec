//! Which memory, cores and network interfaces belong together, from `/sys/devices/system/node`.

use hwm::Error;
use sys::Host;
use wire::{NumaCore, NumaInterface, NumaMemory, NumaTopology};

const NODES: &str = "/sys/devices/system/node";
const NET: &str = "/sys/class/net";

/// The topology; `None` on a kernel that knows no nodes.
///
/// # Errors
/// When any piece can not be understood: half a topology would mislead whoever pins work by it.
pub fn numa_topology(host: &Host) -> Result<Option<NumaTopology>, Error> {
    let names = host.names(NODES).map_err(|error| Error::other(format!("listing {NODES}"), error))?;
    let mut nodes: Vec<i64> = names.iter().filter_map(|name| number_after(name, "node")).collect();
    nodes.sort_unstable();
    if nodes.is_empty() {
        return Ok(None);
    }
    let mut topology = NumaTopology::default();
    for node in nodes {
        topology.ram.push(NumaMemory { numa_node: node, size_kb: size_kb(host, node)? });
        topology.cpus.extend(cores(host, node)?);
    }
    topology.nics = interfaces(host)?;
    Ok(Some(topology))
}

/// `Node 0 MemTotal:  1560000 kB`.
fn size_kb(host: &Host, node: i64) -> Result<u64, Error> {
    let path = format!("{NODES}/node{node}/meminfo");
    let text = host.attribute(&path).unwrap_or_default();
    let total = text.lines().find_map(|line| line.split_once("MemTotal:")).map(|(_, value)| value.trim());
    let kib = total.and_then(|value| value.strip_suffix("kB")?.trim().parse().ok());
    kib.ok_or_else(|| Error::Failed { message: format!("{path} holds no `MemTotal: ... kB`") })
}

/// A core is the processors of one core id: the ids are unique within a node only.
fn cores(host: &Host, node: i64) -> Result<Vec<NumaCore>, Error> {
    let directory = format!("{NODES}/node{node}");
    let names =
        host.names(&directory).map_err(|error| Error::other(format!("listing {directory}"), error))?;
    let mut processors: Vec<u32> = names
        .iter()
        .filter(|name| host.path(format!("{directory}/{name}")).is_dir())
        .filter_map(|name| number_after(name, "cpu"))
        .collect();
    processors.sort_unstable();
    let mut cores: Vec<NumaCore> = Vec::new();
    for processor in processors {
        let path = format!("{directory}/cpu{processor}/topology/core_id");
        // A processor that is switched off has no topology.
        let Some(text) = host.attribute(&path) else {
            tracing::warn!(processor, "a processor without a core id is left out: is it switched off?");
            continue;
        };
        let cpu = text
            .parse()
            .map_err(|error| Error::other(format!("reading the core id `{text}` of {path}"), error))?;
        match cores.iter_mut().find(|core| core.cpu == cpu) {
            Some(core) => core.thread_siblings.push(processor),
            None => cores.push(NumaCore { cpu, numa_node: node, thread_siblings: vec![processor] }),
        }
    }
    Ok(cores)
}

fn interfaces(host: &Host) -> Result<Vec<NumaInterface>, Error> {
    let names = host.names(NET).map_err(|error| Error::other(format!("listing {NET}"), error))?;
    let mut found = Vec::new();
    for name in names {
        let path = format!("{NET}/{name}/device/numa_node");
        let Some(text) = host.attribute(&path) else { continue };
        let numa_node = text
            .parse()
            .map_err(|error| Error::other(format!("reading the node `{text}` of {path}"), error))?;
        found.push(NumaInterface { name, numa_node });
    }
    Ok(found)
}

/// The number in `node7`; nothing for `node` or `nodes`.
fn number_after<N: std::str::FromStr>(name: &str, prefix: &str) -> Option<N> {
    let digits = name.strip_prefix(prefix)?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use serde_json::json;

    /// Two sockets of two cores with two threads each, numbered as Linux does.
    fn machine() -> Fixture {
        let mut machine = Fixture::new()
            .file("/sys/devices/system/node/has_cpu", "0-1\n")
            .file("/sys/devices/system/node/node0/cpulist", "0-1,4-5\n")
            .file("/sys/class/net/lo/address", "00:00:00:00:00:00\n")
            .file("/sys/class/net/eth0/device/numa_node", "1\n")
            .file("/sys/class/net/eth1/device/numa_node", "-1\n");
        for node in 0..2 {
            let at = format!("/sys/devices/system/node/node{node}");
            let meminfo =
                format!("Node {node} MemTotal:       {} kB\nNode {node} MemFree: 1 kB\n", 1_560_000 + node);
            machine = machine.file(&format!("{at}/meminfo"), &meminfo);
            for (processor, core) in [(2 * node, 0), (2 * node + 1, 1), (2 * node + 4, 0), (2 * node + 5, 1)]
            {
                machine =
                    machine.file(&format!("{at}/cpu{processor}/topology/core_id"), &format!("{core}\n"));
            }
        }
        machine
    }

    #[test]
    fn threads_of_a_core_stand_together_and_core_ids_repeat_on_each_node() {
        let topology = numa_topology(&machine().host()).unwrap().unwrap();
        let expected = json!({
            "ram": [{"numa_node": 0, "size_kb": 1_560_000}, {"numa_node": 1, "size_kb": 1_560_001}],
            "cpus": [
                {"cpu": 0, "numa_node": 0, "thread_siblings": [0, 4]},
                {"cpu": 1, "numa_node": 0, "thread_siblings": [1, 5]},
                {"cpu": 0, "numa_node": 1, "thread_siblings": [2, 6]},
                {"cpu": 1, "numa_node": 1, "thread_siblings": [3, 7]},
            ],
            "nics": [{"name": "eth0", "numa_node": 1}, {"name": "eth1", "numa_node": -1}],
        });
        assert_eq!(serde_json::to_value(topology).unwrap(), expected);
    }

    #[test]
    fn a_piece_that_makes_no_sense_spoils_the_whole() {
        let machine = machine().file("/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal: many\n");
        let error = numa_topology(&machine.host()).unwrap_err();
        assert!(error.to_string().contains("node1/meminfo"), "{error}");
        let machine = self::machine().file("/sys/class/net/eth0/device/numa_node", "north\n");
        assert!(numa_topology(&machine.host()).is_err());
    }

    #[test]
    fn a_kernel_without_nodes_has_no_topology_and_a_processor_that_is_off_no_core() {
        assert_eq!(numa_topology(&Fixture::new().host()).unwrap(), None);
        let machine = machine().directory("/sys/devices/system/node/node0/cpu9");
        assert_eq!(numa_topology(&machine.host()).unwrap().unwrap().cpus.len(), 4);
    }
}
