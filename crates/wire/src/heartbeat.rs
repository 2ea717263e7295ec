//! `POST /v1/heartbeat/<node uuid>`. Source: Ironic `api/controllers/v1/ramdisk.py`.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// The body of a heartbeat. Ironic refuses unknown keys, so absent values are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// `https://host:port`, IPv6 in brackets, no path, no trailing slash. Constant for the whole boot.
    pub callback_url: String,
    /// Microversion 1.62 and later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_token: Option<Secret>,
    /// Microversion 1.36 and later; a conductor refuses null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// PEM text of the agent's certificate; microversion 1.68 and later, with auto-TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_verify_ca: Option<String>,
}
