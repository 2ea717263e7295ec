//! The reply to `GET /v1/lookup`. Source: Ironic `api/controllers/v1/ramdisk.py`; agent protocol page, 3.4.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Secret;

/// The node this machine is, and the configuration its conductor wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupReply {
    /// The node.
    pub node: LookupNode,
    /// The configuration.
    pub config: AgentConfig,
}

/// A node as lookup shows it: a few fields of the whole, secrets masked with `******`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupNode {
    /// The node's id; the one field that must be there.
    pub uuid: String,
    /// Everything else, as it came: `properties`, `instance_info`, `driver_internal_info`, `links`.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What lookup configures. Unknown keys are kept in `rest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Seconds without a heartbeat after which the conductor gives up; base of the heartbeat interval.
    pub heartbeat_timeout: u64,
    /// The token of this boot (43 characters), or `******` when somebody has already fetched it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token: Option<Secret>,
    /// Always true nowadays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token_required: Option<bool>,
    /// Whether MD5 checksums count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_md5_checksum_enable: Option<bool>,
    /// Whether to accept images without looking into them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_deep_image_inspection: Option<bool>,
    /// Formats a conductor permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permitted_image_formats: Option<Vec<String>>,
    /// Whether to leave the BMC alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_skip_bmc_detect: Option<bool>,
    /// Whether grub may be installed for BIOS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_bios_bootloader_install: Option<bool>,
    /// `1.2` or `1.3`, for the API server and for image downloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_min_version: Option<String>,
    /// The rest: `metrics`, `metrics_statsd`, `agent_containers`, `tls_cipher_suites`, and what is new.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}
