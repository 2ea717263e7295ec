//! `image_info`: which image to write, as `write_image` and `prepare_image` carry it.
//! Source: Ironic `drivers/modules/agent.py`; data plane page, 1.1. Unknown keys are ignored.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// An image and how to check it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImageInfo {
    /// A label for messages.
    pub id: String,
    /// Where it can be had, in order of preference.
    pub urls: Vec<String>,
    /// Digest, or the http(s) URL of a checksum file; algorithm by length (32 md5, 64 sha256, 128 sha512).
    #[serde(default)]
    pub checksum: Option<String>,
    /// Algorithm of `os_hash_value`; the pair is preferred over `checksum`.
    #[serde(default)]
    pub os_hash_algo: Option<String>,
    /// Digest, or URL of a checksum file.
    #[serde(default)]
    pub os_hash_value: Option<String>,
    /// Declared format: `raw`, `qcow2`.
    #[serde(default)]
    pub disk_format: Option<String>,
    /// Whether raw images may be streamed (Ferric streams all).
    #[serde(default)]
    pub stream_raw_images: bool,
    /// `partition` for a partition image; whole disk otherwise.
    #[serde(default)]
    pub image_type: Option<String>,
    /// The node's id, a label.
    #[serde(default)]
    pub node_uuid: Option<String>,
    /// Proxy by scheme.
    #[serde(default)]
    pub proxies: Option<std::collections::BTreeMap<String, String>>,
    /// Hosts that need no proxy.
    #[serde(default)]
    pub no_proxy: Option<String>,
    /// Base64 of the complete `Authorization` header; wins over everything else.
    #[serde(default)]
    pub image_request_authorization: Option<Secret>,
    /// `http_basic`, or nothing.
    #[serde(default)]
    pub image_server_auth_strategy: Option<String>,
    /// User for `http_basic`.
    #[serde(default)]
    pub image_server_user: Option<String>,
    /// Password for `http_basic`.
    #[serde(default)]
    pub image_server_password: Option<Secret>,
    /// Legacy copy of the config drive; used when the separate argument is null.
    #[serde(default)]
    pub configdrive: Option<Secret>,
    /// `uefi` or `bios`; partition images only.
    #[serde(default)]
    pub deploy_boot_mode: Option<String>,
}
