//! What the controller keeps about a node besides the node itself: the agent's session of this boot, and the work at hand.
//! All of it is persisted after every change, so that a controller that was killed goes on where it was.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wire::{Node, Secret, StepKind};

/// A node with everything that belongs to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The node.
    pub node: Node,
    /// The agent of this boot; empty when none has called.
    #[serde(default)]
    pub agent: AgentSession,
    /// What is being done to the node; `None` at rest.
    pub work: Option<Work>,
    /// What the machine boots from next.
    #[serde(default)]
    pub boot: BootDevice,
}

impl Record {
    /// A node at rest.
    pub fn new(node: Node) -> Self {
        Self { node, agent: AgentSession::default(), work: None, boot: BootDevice::Disk }
    }
}

/// What a machine boots from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BootDevice {
    /// The network: our ramdisk.
    Pxe,
    /// Its own disk.
    #[default]
    Disk,
}

/// The agent as it introduced itself in this boot. Wiped whenever we switch the machine off or reset it: the next boot
/// is a new agent with a new token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentSession {
    /// Made at the first lookup.
    pub token: Option<Secret>,
    /// Callback URL of the first heartbeat.
    pub url: Option<String>,
    /// PEM text of its certificate: the only one we speak to.
    pub certificate: Option<String>,
    /// What it calls its version.
    pub version: Option<String>,
    /// Unix time of its latest heartbeat.
    pub last_heartbeat: Option<f64>,
}

/// An operation that takes more than a moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Deploying or cleaning.
    pub kind: StepKind,
    /// How far it is.
    pub stage: Stage,
    /// The steps to run; empty until the agent was asked.
    #[serde(default)]
    pub steps: Vec<Map<String, Value>>,
    /// The step at work.
    #[serde(default)]
    pub index: usize,
    /// The agent's hardware manager versions, to be sent with each step.
    pub versions: Option<Value>,
    /// What the agent says of the root it wrote.
    pub root_uuid: Option<String>,
    /// As `root_uuid`, for the EFI system partition.
    pub efi_uuid: Option<String>,
    /// Unix time at which the wait for the agent began, or of its latest heartbeat since.
    #[serde(default)]
    pub touched_at: f64,
}

impl Work {
    /// Work that has not begun.
    pub fn new(kind: StepKind) -> Self {
        Self {
            kind,
            stage: Stage::BootRamdisk,
            steps: Vec::new(),
            index: 0,
            versions: None,
            root_uuid: None,
            efi_uuid: None,
            touched_at: 0.0,
        }
    }

    /// The step at work.
    pub fn step(&self) -> Option<&Map<String, Value>> {
        self.steps.get(self.index)
    }
}

/// The stages of a deployment or a cleaning, in order. Each can be entered again after a restart of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Power off, choose the network, power on.
    BootRamdisk,
    /// Until the agent's first heartbeat, then ask it for its steps.
    AwaitAgent,
    /// Run the steps, one by one.
    RunSteps,
    /// Ask what was written.
    PartitionUuids,
    /// Firmware boot entries (UEFI), the grub of a partition image.
    InstallBootloader,
    /// Switch the machine off, by the agent, else by force.
    PowerOff,
    /// Power on from the disk, and done.
    BootFromDisk,
}
