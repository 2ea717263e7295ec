//! The Ironic API's resources: nodes, their states, ports. Source: Ironic `api/controllers/v1/node.py`, `port.py`,
//! `common/states.py`; shapes as recorded from a running Ironic.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Where a node stands in its life. The texts are Ironic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum ProvisionState {
    /// Known by name only; its power control was never checked.
    Enroll,
    /// Its power control is being checked.
    Verifying,
    /// Under control, not for use.
    Manageable,
    /// Being cleaned; the controller is at work.
    Cleaning,
    /// Being cleaned; the controller waits for the agent.
    CleanWait,
    /// Cleaning failed.
    CleanFailed,
    /// Ready for a deployment.
    Available,
    /// Being deployed; the controller is at work.
    Deploying,
    /// Being deployed; the controller waits for the agent.
    WaitCallback,
    /// Deploying failed.
    DeployFailed,
    /// Deployed and in use.
    Active,
    /// Being taken back.
    Deleting,
    /// Taking it back failed.
    Error,
}

impl ProvisionState {
    /// Every state, in the order of a node's life.
    pub const ALL: [Self; 13] = [
        Self::Enroll,
        Self::Verifying,
        Self::Manageable,
        Self::Cleaning,
        Self::CleanWait,
        Self::CleanFailed,
        Self::Available,
        Self::Deploying,
        Self::WaitCallback,
        Self::DeployFailed,
        Self::Active,
        Self::Deleting,
        Self::Error,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Verifying => "verifying",
            Self::Manageable => "manageable",
            Self::Cleaning => "cleaning",
            Self::CleanWait => "clean wait",
            Self::CleanFailed => "clean failed",
            Self::Available => "available",
            Self::Deploying => "deploying",
            Self::WaitCallback => "wait call-back",
            Self::DeployFailed => "deploy failed",
            Self::Active => "active",
            Self::Deleting => "deleting",
            Self::Error => "error",
        }
    }

    /// Whether the controller is at work on the node, or waits for its agent.
    pub const fn is_transient(self) -> bool {
        match self {
            Self::Verifying
            | Self::Cleaning
            | Self::CleanWait
            | Self::Deploying
            | Self::WaitCallback
            | Self::Deleting => true,
            Self::Enroll
            | Self::Manageable
            | Self::CleanFailed
            | Self::Available
            | Self::DeployFailed
            | Self::Active
            | Self::Error => false,
        }
    }

    /// Whether something went wrong on the way here.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::CleanFailed | Self::DeployFailed | Self::Error)
    }
}

impl fmt::Display for ProvisionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<ProvisionState> for &'static str {
    fn from(state: ProvisionState) -> Self {
        state.name()
    }
}

/// The text names no provision state.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownProvisionState(pub String);

impl fmt::Display for UnknownProvisionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is no provision state", self.0)
    }
}

impl std::error::Error for UnknownProvisionState {}

impl FromStr for ProvisionState {
    type Err = UnknownProvisionState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|state| state.name() == text);
        found.ok_or_else(|| UnknownProvisionState(text.to_owned()))
    }
}

impl TryFrom<String> for ProvisionState {
    type Error = UnknownProvisionState;

    fn try_from(text: String) -> Result<Self, UnknownProvisionState> {
        text.parse()
    }
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    /// It runs.
    #[serde(rename = "power on")]
    On,
    /// It does not.
    #[serde(rename = "power off")]
    Off,
    /// Its power control does not answer sensibly.
    #[serde(rename = "error")]
    Error,
}

impl PowerState {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "power on",
            Self::Off => "power off",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A machine, as its record is kept. The `*_info` objects hold secrets: [`mask_secrets`] before showing them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub uuid: Uuid,
    /// Its name, unique, if it has one.
    pub name: Option<String>,
    /// How its power is controlled (`qemu`).
    pub driver: String,
    /// What the driver needs to know.
    #[serde(default)]
    pub driver_info: Map<String, Value>,
    /// What the controller remembers about it.
    #[serde(default)]
    pub driver_internal_info: Map<String, Value>,
    /// What is, or is to be, deployed.
    #[serde(default)]
    pub instance_info: Map<String, Value>,
    /// Who uses it.
    pub instance_uuid: Option<String>,
    /// What the machine is made of, and its standing hints.
    #[serde(default)]
    pub properties: Map<String, Value>,
    /// Whatever an operator likes to note.
    #[serde(default)]
    pub extra: Map<String, Value>,
    /// A label for schedulers.
    pub resource_class: Option<String>,
    /// Who owns it.
    pub owner: Option<String>,
    /// One line for people.
    pub description: Option<String>,
    /// Where it stands.
    pub provision_state: ProvisionState,
    /// Where it is going.
    pub target_provision_state: Option<ProvisionState>,
    /// When `provision_state` changed last (RFC 3339).
    pub provision_updated_at: Option<String>,
    /// Whether it runs, as last seen.
    pub power_state: Option<PowerState>,
    /// Whether it shall run, while that is being changed.
    pub target_power_state: Option<PowerState>,
    /// Why the last operation failed, for people.
    pub last_error: Option<String>,
    /// Whether an operator took it out of use.
    #[serde(default)]
    pub maintenance: bool,
    /// Why.
    pub maintenance_reason: Option<String>,
    /// What took it out of use by itself.
    pub fault: Option<String>,
    /// The deploy step at work.
    #[serde(default)]
    pub deploy_step: Map<String, Value>,
    /// The clean step at work.
    #[serde(default)]
    pub clean_step: Map<String, Value>,
    /// Whether it is cleaned between two uses; null: as the controller is configured.
    pub automated_clean: Option<bool>,
    /// When it was made known (RFC 3339).
    pub created_at: Option<String>,
    /// When its record changed last (RFC 3339).
    pub updated_at: Option<String>,
}

impl Node {
    /// A node nobody has looked at yet.
    pub fn new(uuid: Uuid, driver: impl Into<String>) -> Self {
        Self {
            uuid,
            name: None,
            driver: driver.into(),
            driver_info: Map::new(),
            driver_internal_info: Map::new(),
            instance_info: Map::new(),
            instance_uuid: None,
            properties: Map::new(),
            extra: Map::new(),
            resource_class: None,
            owner: None,
            description: None,
            provision_state: ProvisionState::Enroll,
            target_provision_state: None,
            provision_updated_at: None,
            power_state: None,
            target_power_state: None,
            last_error: None,
            maintenance: false,
            maintenance_reason: None,
            fault: None,
            deploy_step: Map::new(),
            clean_step: Map::new(),
            automated_clean: None,
            created_at: None,
            updated_at: None,
        }
    }

    /// What people call it: its name, else its id.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uuid.to_string())
    }

    /// Every field that a node has when a conductor sends it to an agent, but its database id (`id`); the ones Ferric keeps
    /// no value for at Ironic's default. **Secrets are in it.** The API's view is made from this, too.
    pub fn to_full_map(&self) -> Map<String, Value> {
        let mut map = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // A struct of strings, maps and enums always serialises to an object.
            Ok(_) | Err(_) => Map::new(),
        };
        let fixed = json!({
            "chassis_id": null, "service_step": {}, "raid_config": {}, "target_raid_config": {}, "reservation": null,
            "conductor_affinity": null, "conductor_group": "", "console_enabled": false, "inspection_finished_at": null,
            "inspection_started_at": null, "protected": false, "protected_reason": null, "allocation_id": null,
            "bios_interface": "no-bios", "boot_interface": "ipxe", "console_interface": "no-console",
            "deploy_interface": "direct", "firmware_interface": "no-firmware", "inspect_interface": "no-inspect", "management_interface": self.driver,
            "network_interface": "noop", "power_interface": self.driver, "raid_interface": "agent",
            "rescue_interface": "no-rescue", "storage_interface": "noop", "vendor_interface": "no-vendor",
            "lessee": null, "retired": false, "retired_reason": null, "network_data": {}, "boot_mode": null,
            "secure_boot": null, "traits": {"objects": []}, "shard": null, "parent_node": null, "disable_power_off": false,
            "instance_name": null, "health": null,
        });
        if let Value::Object(fixed) = fixed {
            for (key, value) in fixed {
                map.entry(key).or_insert(value);
            }
        }
        map
    }
}

/// A network port of a node: how a machine that calls in is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its id.
    pub uuid: Uuid,
    /// Whose port it is.
    pub node_uuid: Uuid,
    /// MAC address, lower case, with colons.
    pub address: String,
    /// Whether the machine boots over it.
    pub pxe_enabled: bool,
    /// Whatever an operator likes to note.
    #[serde(default)]
    pub extra: Map<String, Value>,
    /// When it was made known (RFC 3339).
    pub created_at: Option<String>,
    /// When its record changed last (RFC 3339).
    pub updated_at: Option<String>,
}

impl Port {
    /// The port as a conductor sends it to agents, but for its database ids (`id`, `node_id`). The API's view is made from
    /// this, too.
    pub fn to_full_map(&self) -> Map<String, Value> {
        let mut map = match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // As for nodes: always an object.
            Ok(_) | Err(_) => Map::new(),
        };
        let fixed = json!({
            "local_link_connection": {}, "portgroup_id": null, "internal_info": {}, "physical_network": null,
            "is_smartnic": false, "name": null, "description": null, "vendor": null, "category": null,
            "available_for_dynamic_portgroup": true,
        });
        if let Value::Object(fixed) = fixed {
            for (key, value) in fixed {
                map.entry(key).or_insert(value);
            }
        }
        map
    }
}

/// What stands in the place of a secret.
pub const MASK: &str = "******";

/// Replaces the values of keys that name a secret, at any depth. Source: Ironic `common/utils.py`, `strutils.mask_dict_password`.
pub fn mask_secrets(map: &mut Map<String, Value>) {
    const SECRET: [&str; 9] = [
        "password",
        "secret",
        "token",
        "passphrase",
        "configdrive",
        "private_key",
        "pass_key",
        "image_url",
        "authorization",
    ];
    for (key, value) in map.iter_mut() {
        let key = key.to_ascii_lowercase();
        match value {
            Value::Object(inner) if key != "configdrive" => mask_secrets(inner),
            Value::Null | Value::Bool(_) => {}
            _ if SECRET.iter().any(|word| key.contains(word)) => *value = Value::String(MASK.into()),
            _ => {}
        }
    }
}

/// A MAC address in lower case with colons; `None` when the text is none. Accepts `-` for `:`, and bare hexadecimal.
pub fn normalize_mac(text: &str) -> Option<String> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, ':' | '-')).collect();
    let separators = text.trim().len().checked_sub(digits.len())?;
    if digits.len() != 12 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) || !matches!(separators, 0 | 5) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let pairs: Vec<&str> = (0..12).step_by(2).filter_map(|at| lower.get(at..at + 2)).collect();
    Some(pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_through_their_names() {
        for state in ProvisionState::ALL {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(text, format!("\"{}\"", state.name()));
            assert_eq!(serde_json::from_str::<ProvisionState>(&text).unwrap(), state);
        }
        assert!("nowhere".parse::<ProvisionState>().is_err());
    }

    #[test]
    fn secrets_are_masked_at_any_depth_and_nothing_else_is() {
        let mut map = json!({
            "ipmi_password": "x", "agent_secret_token": "t", "address": "10.0.0.1", "configdrive": {"meta_data": {}},
            "nested": {"image_url": "http://u:p@h/x", "size": 3}, "token": null,
        });
        let object = map.as_object_mut().unwrap();
        mask_secrets(object);
        assert_eq!(
            map,
            json!({
                "ipmi_password": MASK, "agent_secret_token": MASK, "address": "10.0.0.1", "configdrive": MASK,
                "nested": {"image_url": MASK, "size": 3}, "token": null,
            })
        );
    }

    #[test]
    fn mac_addresses_come_in_three_spellings() {
        for good in ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01", "525400abcd01"] {
            assert_eq!(normalize_mac(good).as_deref(), Some("52:54:00:ab:cd:01"));
        }
        for bad in ["", "52:54:00:ab:cd", "52:54:00:ab:cd:0g", "5254:00:ab:cd:01", "52:54:00:ab:cd:01:02"] {
            assert_eq!(normalize_mac(bad), None, "{bad}");
        }
    }
}
