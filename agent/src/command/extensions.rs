//! Does what commands ask, on the machine: the real [`Handler`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hwm::{Context, Registry};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::deployment::Deployment;
use super::ending::Ending;
use super::error::{ErrorClass, Failure};
use super::executor::Handler;
use super::parse::Command;
use super::record::Outcome;
use crate::clock::Timekeeper;
use crate::logging::LogRing;

/// What commands work with.
pub struct Machine {
    /// Host and events, without a node.
    pub context: Context,
    /// The hardware managers.
    pub registry: Arc<Registry>,
    /// The deployment of this boot.
    pub deployment: Arc<dyn Deployment>,
    /// Whether this is a ramdisk: anywhere else, power commands are refused.
    pub ramdisk: bool,
    /// The agent's own log.
    pub log: LogRing,
    /// Sets the clock right before the machine goes away.
    pub clock: Timekeeper,
    /// Where commands say that the agent has to stop serving once their reply went out.
    pub ending: watch::Sender<Option<Ending>>,
}

/// The real handler. One file per extension holds its methods.
pub struct Extensions {
    pub(super) machine: Machine,
    /// The context with the node as last received.
    current: Mutex<Context>,
}

impl Extensions {
    /// A handler that knows no node yet.
    pub fn new(machine: Machine) -> Self {
        let current = Mutex::new(machine.context.clone());
        Self { machine, current }
    }

    /// Remembers the node of a lookup.
    pub fn set_node(&self, node: Value) -> Result<(), Failure> {
        self.remember(node).map(drop)
    }

    /// The context with the node as last received.
    pub(super) fn context(&self) -> Context {
        self.lock().clone()
    }

    /// Takes a node that came with a command. One without an id is refused before it replaces what is known.
    pub(super) fn remember(&self, node: Value) -> Result<Context, Failure> {
        let uuid = node.get("uuid").and_then(Value::as_str).filter(|uuid| !uuid.is_empty());
        if uuid.is_none() {
            return Err(Failure::new(ErrorClass::InvalidCommandParamsError, "the node has no uuid"));
        }
        let mut node = node;
        forget_config_drive(&mut node);
        let mut current = self.lock();
        *current = current.with_node(node);
        Ok(current.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Context> {
        // Replaced in one assignment: valid whatever happened under the lock.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In `execute_deploy_step` alone the node holds the whole config drive, tens of megabytes of it, which is written from the
/// step's arguments. Everywhere else it is masked, so nothing can rely on it.
fn forget_config_drive(node: &mut Value) {
    if let Some(drive @ (Value::String(_) | Value::Object(_))) =
        node.pointer_mut("/instance_info/configdrive")
    {
        *drive = Value::from(wire::MASK);
    }
}

impl Handler for Extensions {
    fn validate(&self, command: &Command) -> Result<(), Failure> {
        if let Command::PrepareImage { image_info, .. } = command {
            self.machine.deployment.check_image(image_info)?;
        }
        Ok(())
    }

    fn learn_secrets(&self, params: &Map<String, Value>) {
        let secrets = self.machine.log.secrets();
        for (name, value) in params {
            secrets.add_json(name, value);
        }
    }

    fn run(&self, command: Command) -> Result<Outcome, Failure> {
        match command {
            Command::PrepareImage { image_info, configdrive } => self.prepare_image(*image_info, configdrive),
            Command::ExecuteBootcInstall(request) => {
                let text = self.machine.deployment.install_bootc(&self.context(), &request)?;
                Ok(Outcome::Text(text))
            }
            Command::RunImage => self.power(sys::Power::Reboot),
            Command::PowerOff => self.power(sys::Power::Off),
            Command::Sync => self.sync(),
            Command::GetPartitionUuids => Ok(Outcome::Json(self.machine.deployment.partition_uuids())),
            Command::InstallBootloader(request) => {
                self.machine.deployment.install_bootloader(&self.context(), &request)?;
                Ok(Outcome::Nothing)
            }
            Command::GetSteps { kind, node } => self.get_steps(kind, node),
            Command::ExecuteStep(call) => self.execute_step(*call),
            Command::FinalizeRescue { password, hashed } => self.finalize_rescue(&password, hashed),
            Command::StartFlow(flow) => self.start_flow(flow),
            Command::CollectSystemLogs => self.collect_system_logs(),
            Command::GetHardwareInfo => {
                let inventory = self.machine.registry.inventory(&self.context())?;
                serde_json::to_value(inventory)
                    .map(Outcome::Json)
                    .map_err(|error| Failure::new(ErrorClass::CommandExecutionError, error.to_string()))
            }
            Command::SetNodeInfo => Err(Failure::new(
                ErrorClass::InvalidCommandError,
                "Node lookup data can only be set when the Ironic Python Agent is running in standalone mode.",
            )),
            Command::Lockdown => {
                self.machine.ending.send_replace(Some(Ending::Lockdown));
                Ok(Outcome::Nothing)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_config_drive_of_a_node_is_not_kept() {
        for drive in [json!("H4sI"), json!({"meta_data": {}})] {
            let mut node = json!({"uuid": "u", "instance_info": {"configdrive": drive, "image_source": "x"}});
            forget_config_drive(&mut node);
            assert_eq!(node["instance_info"], json!({"configdrive": "******", "image_source": "x"}));
        }
        for node in [json!({"uuid": "u"}), json!({"instance_info": {"configdrive": null}}), json!(7)] {
            let mut same = node.clone();
            forget_config_drive(&mut same);
            assert_eq!(same, node);
        }
    }
}
