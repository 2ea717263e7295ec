//! Power control behind one trait. A driver is plain blocking code; [`Power`] runs it on a blocking thread, one action a
//! node at a time. Today there is `qemu`; Redfish and IPMI will stand beside it.

mod qemu;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use uuid::Uuid;
use wire::PowerState;

use crate::record::BootDevice;

pub use qemu::{Outgoing, Places, QemuDriver, QemuOptions};

/// Why a power action did not happen. The text names the node.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// `driver_info` is not what the driver needs.
    #[error("driver_info of node {node}: {problem}")]
    Settings {
        /// Its name.
        node: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The action failed.
    #[error("{action} of node {node}: {problem}")]
    Failed {
        /// Its name.
        node: String,
        /// `power on`, `reset`.
        action: &'static str,
        /// What went wrong, and what to do.
        problem: String,
    },
    /// No driver of that name.
    #[error("node {node} has the driver \"{driver}\", which is none of: {known}")]
    UnknownDriver {
        /// Its name.
        node: String,
        /// What it asks for.
        driver: String,
        /// What there is.
        known: String,
    },
    /// The blocking thread died.
    #[error("the power thread died")]
    Thread,
}

/// What a driver gets to know of a node.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its id.
    pub uuid: Uuid,
    /// What people call it.
    pub label: String,
    /// The driver's settings.
    pub driver_info: Map<String, Value>,
    /// MAC addresses of its ports, lower case.
    pub macs: Vec<String>,
    /// How it gets at the ramdisk when it boots from the network.
    pub netboot: NetBoot,
}

/// The way to the ramdisk, for drivers that hand it to the machine themselves.
#[derive(Clone, Debug)]
pub struct NetBoot {
    /// The iPXE script, as the machine sees it.
    pub script_url: String,
    /// The kernel on the controller's host, if there is a ramdisk.
    pub kernel: Option<PathBuf>,
    /// The initramfs on the controller's host, if there is a ramdisk.
    pub initramfs: Option<PathBuf>,
    /// The kernel command line.
    pub command_line: String,
}

/// How firmware boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMode {
    /// UEFI.
    Uefi,
    /// Legacy BIOS.
    Bios,
}

impl BootMode {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::Bios => "bios",
        }
    }
}

/// One way of controlling machines. Blocking; each call ends within a minute.
pub trait PowerDriver: Send + Sync {
    /// The `driver` that a node names.
    fn name(&self) -> &'static str;
    /// Checks what a client may set at all, complete or not: no programs, no raw arguments, no files of others. The error
    /// says what to do.
    fn check(&self, driver_info: &Map<String, Value>) -> Result<(), String>;
    /// Says why a machine that boots the ramdisk cannot reach this URL, where the driver knows.
    fn unreachable(&self, url: &str, advertise: &str) -> Option<String>;
    /// Checks the settings, without touching the machine.
    fn validate(&self, machine: &Machine) -> Result<(), PowerError>;
    /// Whether it runs.
    fn power_state(&self, machine: &Machine) -> Result<PowerState, PowerError>;
    /// Starts it from the boot device set before; no harm when it runs.
    fn power_on(&self, machine: &Machine) -> Result<(), PowerError>;
    /// Switches it off the hard way; no harm when it is off.
    fn power_off(&self, machine: &Machine) -> Result<(), PowerError>;
    /// Starts it anew, from the boot device set before.
    fn reset(&self, machine: &Machine) -> Result<(), PowerError>;
    /// Chooses what it boots from, from the next start on.
    fn set_boot_device(&self, machine: &Machine, device: BootDevice) -> Result<(), PowerError>;
    /// How its firmware boots, where the driver knows.
    fn boot_mode(&self, machine: &Machine) -> Option<BootMode>;
    /// Kernel parameters that the ramdisk needs because of how this driver's machines are connected.
    fn kernel_parameters(&self, machine: &Machine) -> Result<Vec<String>, PowerError>;
    /// Drops what the driver keeps about a node that is being deleted. **Disks stay.**
    fn forget(&self, machine: &Machine) -> Result<(), PowerError>;
}

/// The drivers there are, and one lock a node: two actions on one machine never overlap.
#[derive(Clone)]
pub struct Power {
    drivers: Arc<Vec<Box<dyn PowerDriver>>>,
    locks: Arc<Mutex<HashMap<Uuid, Arc<Mutex<()>>>>>,
}

impl Power {
    /// With these drivers.
    pub fn new(drivers: Vec<Box<dyn PowerDriver>>) -> Self {
        Self { drivers: Arc::new(drivers), locks: Arc::default() }
    }

    /// The names of the drivers.
    pub fn names(&self) -> Vec<&'static str> {
        self.drivers.iter().map(|driver| driver.name()).collect()
    }

    /// The driver of this name.
    pub fn driver(&self, name: &str) -> Option<&dyn PowerDriver> {
        self.drivers.iter().find(|driver| driver.name() == name).map(AsRef::as_ref)
    }

    /// Makes every driver drop what it keeps of a machine whose record does not read. **Disks stay.**
    pub async fn forget_everywhere(&self, node: Uuid) -> Result<(), PowerError> {
        for name in self.names() {
            let netboot = NetBoot {
                script_url: String::new(),
                kernel: None,
                initramfs: None,
                command_line: String::new(),
            };
            let label = node.to_string();
            let machine = Machine { uuid: node, label, driver_info: Map::new(), macs: Vec::new(), netboot };
            self.run(name, machine, |driver, machine| driver.forget(machine)).await?;
        }
        Ok(())
    }

    /// Runs `action` with the driver that the node names, on a blocking thread.
    pub async fn run<T, F>(&self, driver: &str, machine: Machine, action: F) -> Result<T, PowerError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn PowerDriver, &Machine) -> Result<T, PowerError> + Send + 'static,
    {
        let Some(at) = self.drivers.iter().position(|known| known.name() == driver) else {
            let known = self.names().join(", ");
            return Err(PowerError::UnknownDriver { node: machine.label, driver: driver.to_owned(), known });
        };
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.entry(machine.uuid).or_default().clone()
        };
        let drivers = self.drivers.clone();
        let run = move || {
            let _one_at_a_time = lock.lock().unwrap_or_else(PoisonError::into_inner);
            match drivers.get(at) {
                Some(driver) => action(driver.as_ref(), &machine),
                None => Err(PowerError::Thread),
            }
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| PowerError::Thread)?
    }
}
