//! What everything in `ferric serve` shares: settings, store, power, event streams, and the workers. Clones are handles.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use events::EventKind;
use http_server::Bodies;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{PowerState, Secret};

use crate::boot;
use crate::deploy::WorkerHandle;
use crate::hub::{Hub, Source};
use crate::power::{BootMode, Machine, NetBoot, Power, PowerDriver, PowerError};
use crate::record::{BootDevice, Record, Stage};
use crate::store::{Store, StoreError};

/// Most uploads at a time.
const UPLOADS: usize = 4;

/// The settings of `ferric serve`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory, absolute.
    pub state: PathBuf,
    /// Our API as machines see it, without a trailing slash.
    pub advertise: String,
    /// The directory with `kernel` and `initramfs`, absolute.
    pub ramdisk: Option<PathBuf>,
    /// Directories served below `/images/`, absolute; the last is `STATE/images`.
    pub images: Vec<PathBuf>,
    /// Seconds, told to agents.
    pub heartbeat_timeout: u64,
    /// How long to wait for an agent; `None` is for ever.
    pub callback_timeout: Option<Duration>,
    /// More kernel parameters for every ramdisk boot.
    pub kernel_params: String,
    /// Whether agents may run the grub of a partition image.
    pub enable_bios_bootloader_install: bool,
    /// How often to look at a running command between heartbeats.
    pub poll: Duration,
    /// Hosts by which the API may be called, besides the addresses that it listens on.
    pub hosts: Vec<String>,
    /// The token of operators.
    pub token: Secret,
}

impl Config {
    /// The directory for uploaded images.
    pub fn uploads(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Kernel and initramfs, if there is a ramdisk and both are in it.
    pub fn ramdisk_files(&self) -> Option<(PathBuf, PathBuf)> {
        let directory = self.ramdisk.as_ref()?;
        let (kernel, initramfs) = (directory.join("kernel"), directory.join("initramfs"));
        (kernel.is_file() && initramfs.is_file()).then_some((kernel, initramfs))
    }
}

/// The controller.
#[derive(Clone)]
pub struct Controller(Arc<Parts>);

/// Its parts.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// Nodes, ports, timelines.
    pub store: Store,
    /// Power control.
    pub power: Power,
    /// Live events.
    pub hub: Hub,
    /// One for each node that something is being done to.
    pub workers: Mutex<HashMap<Uuid, Arc<WorkerHandle>>>,
    /// Reads the bodies of requests.
    pub bodies: Bodies,
    /// One for each upload that is being received.
    pub uploads: Arc<Semaphore>,
    /// Set when the program ends.
    pub shutdown: CancellationToken,
}

impl std::ops::Deref for Controller {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Controller {
    /// Puts the parts together. Nothing runs yet.
    pub fn new(config: Config, store: Store, power: Power) -> Self {
        Self(Arc::new(Parts {
            config,
            store,
            power,
            hub: Hub::default(),
            workers: Mutex::default(),
            bodies: Bodies::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            shutdown: CancellationToken::new(),
        }))
    }

    /// What a power driver needs to know of a node.
    pub async fn machine(&self, record: &Record) -> Result<Machine, StoreError> {
        let ports = self.store.ports(Some(record.node.uuid)).await?;
        let macs: Vec<String> = ports.into_iter().map(|port| port.address).collect();
        let mac = macs.first().cloned().unwrap_or_default();
        let (kernel, initramfs) = self.config.ramdisk_files().unzip();
        Ok(Machine {
            uuid: record.node.uuid,
            label: record.node.label(),
            driver_info: record.node.driver_info.clone(),
            netboot: NetBoot {
                script_url: boot::script_url(&self.config.advertise, &mac),
                kernel,
                initramfs,
                command_line: String::new(),
            },
            macs,
        })
    }

    /// Runs a power action on a node.
    pub async fn power<T, F>(&self, record: &Record, action: F) -> Result<T, PowerFault>
    where
        T: Send + 'static,
        F: FnOnce(&dyn PowerDriver, &Machine) -> Result<T, PowerError> + Send + 'static,
    {
        let machine = self.machine(record).await?;
        Ok(self.power.run(&record.node.driver, machine, action).await?)
    }

    /// Switches a node on from `device`, with the ramdisk's command line at hand for drivers that load it themselves.
    pub async fn power_on(&self, record: &Record, device: BootDevice) -> Result<(), PowerFault> {
        let config = self.config.clone();
        let node = record.node.clone();
        self.power(record, move |driver, machine| {
            let mut machine = machine.clone();
            let mac = machine.macs.first().cloned().unwrap_or_default();
            let extra = driver.kernel_parameters(&machine)?;
            machine.netboot.command_line = boot::command_line(&config, &node, &mac, &extra);
            driver.set_boot_device(&machine, device)?;
            driver.power_on(&machine)
        })
        .await
    }

    /// Switches a node off; its agent is gone with that.
    pub async fn power_off(&self, record: &Record) -> Result<(), PowerFault> {
        self.power(record, |driver, machine| driver.power_off(machine)).await?;
        self.saw_power(record.node.uuid, PowerState::Off, true).await?;
        Ok(())
    }

    /// Notes the power state as seen. `wipe` also forgets the agent of the boot that ended.
    pub async fn saw_power(&self, node: Uuid, seen: PowerState, wipe: bool) -> Result<(), StoreError> {
        self.store
            .update(&node.to_string(), move |record| {
                record.node.power_state = Some(seen);
                record.node.target_power_state = None;
                if wipe {
                    record.agent = Default::default();
                }
                Ok(())
            })
            .await?;
        self.hub.wake(node);
        Ok(())
    }

    /// How the node's firmware boots: as its capabilities say, else as its driver knows, else UEFI.
    pub async fn boot_mode(&self, record: &Record) -> Result<BootMode, PowerFault> {
        let named = |info: &serde_json::Map<String, serde_json::Value>| boot::capability(info, "boot_mode");
        match named(&record.node.instance_info).or_else(|| named(&record.node.properties)).as_deref() {
            Some("bios") => return Ok(BootMode::Bios),
            Some("uefi") => return Ok(BootMode::Uefi),
            Some(_) | None => {}
        }
        let known = self.power(record, |driver, machine| Ok(driver.boot_mode(machine))).await?;
        Ok(known.unwrap_or(BootMode::Uefi))
    }

    /// Changes a record if it still is where `seen` was: nobody moved the node meanwhile. `None` when somebody did.
    pub async fn change<F>(&self, seen: &Record, change: F) -> Result<Option<Record>, StoreError>
    where
        F: FnOnce(&mut Record) -> Result<(), StoreError> + Send + 'static,
    {
        let before = position(seen);
        let ident = seen.node.uuid.to_string();
        let changed = self
            .store
            .update(&ident, move |record| {
                if position(record) != before {
                    return Ok(false);
                }
                change(record)?;
                Ok(true)
            })
            .await;
        match changed {
            Ok((record, true)) => {
                self.hub.wake(record.node.uuid);
                Ok(Some(record))
            }
            Ok((_, false)) | Err(StoreError::NoNode(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a point on a node's timeline, and tells watchers.
    pub async fn mark(&self, node: Uuid, mark: &'static str) {
        match self.store.mark(node, mark).await {
            Ok(true) => self.hub.wake(node),
            Ok(false) => {}
            // The timeline is worth less than the deployment it describes.
            Err(error) => {
                tracing::warn!(%node, mark, error = &error as &dyn std::error::Error, "mark was lost")
            }
        }
    }

    /// Relays an event of the agent.
    pub fn agent_event(&self, node: Uuid, kind: EventKind) {
        self.hub.push(node, Source::Agent, kind);
    }
}

fn position(record: &Record) -> (wire::ProvisionState, Option<(Stage, usize)>) {
    (record.node.provision_state, record.work.as_ref().map(|work| (work.stage, work.index)))
}

/// A power action that failed, or whose node could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PowerFault {
    /// The action.
    #[error(transparent)]
    Power(#[from] PowerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
