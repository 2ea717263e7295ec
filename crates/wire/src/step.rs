//! Clean, deploy and service steps. Source: ironic-python-agent `hardware.py`, `extensions/clean.py`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The three families of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Between two tenants.
    Clean,
    /// While deploying.
    Deploy,
    /// On a node in use.
    Service,
}

impl StepKind {
    /// `clean`, `deploy` or `service`: the extension's name and the prefix of every key.
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Clean => "clean",
            StepKind::Deploy => "deploy",
            StepKind::Service => "service",
        }
    }
}

/// A step as a hardware manager advertises it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name: this is API.
    pub step: String,
    /// 0 means only on request; higher runs earlier. Deploy steps stay below 100.
    pub priority: u32,
    /// `deploy` or `raid`.
    pub interface: String,
    /// Whether the conductor reboots the machine after it.
    pub reboot_requested: bool,
    /// Whether an operator may abort it; absent on deploy steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abortable: Option<bool>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argsinfo: Option<BTreeMap<String, Argument>>,
}

/// The description of one argument of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argument {
    /// What it means.
    pub description: String,
    /// Whether it must be given.
    pub required: bool,
}

/// Manager class name -> its steps.
pub type StepMap = BTreeMap<String, Vec<Step>>;

/// Manager declared name -> its version.
pub type VersionMap = BTreeMap<String, String>;

/// The result of `get_clean_steps` and its sisters; the first key carries the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepList {
    /// Which kind.
    pub kind: StepKind,
    /// The steps, by manager.
    pub steps: StepMap,
    /// The managers' versions.
    pub versions: VersionMap,
}

impl StepList {
    /// `{"<kind>_steps": {...}, "hardware_manager_version": {...}}`.
    pub fn to_value(&self) -> serde_json::Result<Value> {
        let mut map = Map::new();
        map.insert(format!("{}_steps", self.kind.name()), serde_json::to_value(&self.steps)?);
        map.insert("hardware_manager_version".into(), serde_json::to_value(&self.versions)?);
        Ok(Value::Object(map))
    }
}
