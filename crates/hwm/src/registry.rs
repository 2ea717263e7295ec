//! The managers of this machine, in the order in which they are asked.

use sys::Host;
use wire::{Bmc, Inventory, StepKind, StepList, VersionMap};

use crate::steps::{Offer, merge};
use crate::{Answer, Context, Error, HardwareManager, StepCall, Support};

/// Sorted once: support descending, then the order of registration.
pub struct Registry {
    managers: Vec<(Support, Box<dyn HardwareManager>)>,
}

impl Registry {
    /// Asks every manager how well it knows the machine, and leaves out those that do not.
    pub fn probe(host: &Host, managers: Vec<Box<dyn HardwareManager>>) -> Self {
        let mut managers: Vec<_> = managers
            .into_iter()
            .map(|manager| (manager.support(host), manager))
            .filter(|(support, _)| *support > Support::NONE)
            .collect();
        managers.sort_by_key(|(support, _)| std::cmp::Reverse(*support));
        for (support, manager) in &managers {
            tracing::info!(
                manager = manager.name(),
                version = manager.version(),
                support = support.0,
                "hardware manager"
            );
        }
        Self { managers }
    }

    /// The answer of the first manager whose business it is.
    pub fn first<T>(
        &self,
        method: &str,
        ask: impl Fn(&dyn HardwareManager) -> Result<Answer<T>, Error>,
    ) -> Result<T, Error> {
        for (_, manager) in &self.managers {
            if let Answer::Mine(answer) = ask(manager.as_ref())? {
                tracing::debug!(manager = manager.name(), method, "answered");
                return Ok(answer);
            }
        }
        Err(Error::NoManager { method: method.into() })
    }

    /// The merged steps of a kind, and every manager's version.
    pub fn steps(&self, kind: StepKind, cx: &Context) -> Result<StepList, Error> {
        let mut offers = Vec::new();
        for (support, manager) in &self.managers {
            if let Answer::Mine(steps) = manager.steps(kind, cx)? {
                offers.push(Offer { manager: manager.name().to_owned(), support: *support, steps });
            }
        }
        if offers.is_empty() {
            return Err(Error::NoManager { method: format!("get_{}_steps", kind.name()) });
        }
        Ok(StepList { kind, steps: merge(offers), versions: self.versions() })
    }

    /// Runs a step on the first manager that knows it. **Steps may destroy what is on disks.**
    pub fn run_step(&self, call: &StepCall, cx: &Context) -> Result<serde_json::Value, Error> {
        self.first(&call.step, |manager| manager.run_step(call, cx))
    }

    /// Declared name -> version of every manager: what `hardware_manager_version` carries.
    pub fn versions(&self) -> VersionMap {
        let versions = self.managers.iter();
        versions.map(|(_, m)| (m.declared_name().to_owned(), m.version().to_owned())).collect()
    }

    /// The inventory, piece by piece: a manager that overrides one piece shows up in it. A machine without anybody who knows
    /// its management controller has none.
    pub fn inventory(&self, cx: &Context) -> Result<Inventory, Error> {
        let bmc = match self.first("get_bmc_address", |m| m.bmc(cx)) {
            Err(Error::NoManager { .. }) => Bmc::default(),
            answer => answer?,
        };
        Ok(Inventory {
            interfaces: self.first("list_network_interfaces", |m| m.interfaces(cx))?,
            cpu: self.first("get_cpus", |m| m.cpu(cx))?,
            disks: self.first("list_block_devices", |m| m.disks(cx))?,
            memory: self.first("get_memory", |m| m.memory(cx))?,
            system_vendor: self.first("get_system_vendor_info", |m| m.system_vendor(cx))?,
            boot: self.first("get_boot_info", |m| m.boot_info(cx))?,
            hostname: cx.host.attribute("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".into()),
            bmc_address: bmc.address,
            bmc_v6address: bmc.v6address,
            bmc_mac: bmc.mac,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use wire::Memory;

    struct Manager {
        name: &'static str,
        support: u32,
        memory: Option<u64>,
    }

    impl HardwareManager for Manager {
        fn name(&self) -> &str {
            self.name
        }
        fn declared_name(&self) -> &str {
            self.name
        }
        fn version(&self) -> &str {
            "1"
        }
        fn support(&self, _: &Host) -> Support {
            Support(self.support)
        }
        fn memory(&self, _: &Context) -> Result<Answer<Memory>, Error> {
            Ok(match self.memory {
                Some(physical) => Answer::Mine(Memory { total: None, physical_mb: Some(physical) }),
                None => Answer::NotMine,
            })
        }
        fn run_step(&self, call: &StepCall, _: &Context) -> Result<Answer<serde_json::Value>, Error> {
            Ok(if call.step == "mine" { Answer::Mine(json!(self.name)) } else { Answer::NotMine })
        }
    }

    fn registry(managers: Vec<Manager>) -> (Registry, Context) {
        let host = sys::fake::host("/nonexistent");
        let boxed = managers.into_iter().map(|m| Box::new(m) as Box<dyn HardwareManager>).collect();
        (Registry::probe(&host, boxed), Context::new(host, events::Events::default()))
    }

    fn memory(registry: &Registry, cx: &Context) -> Option<u64> {
        registry.first("memory", |m| m.memory(cx)).unwrap().physical_mb
    }

    #[test]
    fn the_most_specific_manager_answers_and_others_pass() {
        let generic = Manager { name: "generic", support: 1, memory: Some(1) };
        let silent = Manager { name: "silent", support: 3, memory: None };
        let vendor = Manager { name: "vendor", support: 2, memory: Some(2) };
        let absent = Manager { name: "absent", support: 0, memory: Some(9) };
        let (registry, cx) = registry(vec![generic, silent, vendor, absent]);
        assert_eq!(memory(&registry, &cx), Some(2));
        assert_eq!(registry.versions().len(), 3);
    }

    #[test]
    fn equal_support_keeps_the_order_of_registration() {
        let a = Manager { name: "a", support: 2, memory: Some(1) };
        let b = Manager { name: "b", support: 2, memory: Some(2) };
        let (registry, cx) = registry(vec![a, b]);
        assert_eq!(memory(&registry, &cx), Some(1));
    }

    #[test]
    fn a_step_that_nobody_knows_is_an_error_that_names_it() {
        let (registry, cx) = registry(vec![Manager { name: "a", support: 1, memory: None }]);
        let mut call = StepCall {
            kind: StepKind::Clean,
            step: "mine".into(),
            arguments: Default::default(),
            ports: json!([]),
        };
        assert_eq!(registry.run_step(&call, &cx).unwrap(), json!("a"));
        call.step = "nobody".into();
        assert!(registry.run_step(&call, &cx).unwrap_err().to_string().contains("nobody"));
    }
}
