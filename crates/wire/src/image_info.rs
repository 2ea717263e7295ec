//! `image_info`: which image to write, as `write_image` and `prepare_image` carry it.
//! Source: Ironic `drivers/modules/agent.py`; data plane page, 1.1. Written as Ironic writes it: in its order, `disk_format`
//! and `container_format` always, the rest only where there is something to say. Keys not known here are kept.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Secret;

/// An image and how to check it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// A label for messages.
    pub id: String,
    /// Where it can be had, in order of preference.
    pub urls: Vec<String>,
    /// Declared format: `raw`, `qcow2`.
    #[serde(default)]
    pub disk_format: Option<String>,
    /// Glance's `bare` and the like; nothing depends on it.
    #[serde(default)]
    pub container_format: Option<String>,
    /// Whether raw images may be streamed (Ferric streams all).
    #[serde(default)]
    pub stream_raw_images: bool,
    /// Ferric's own: rewrite a partition table that was made for sectors of another size than the disk's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translate_sector_size: Option<bool>,
    /// Ferric's own: accept a whole-disk image that has no partition table, for a data disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_no_partition_table: Option<bool>,
    /// Digest, or the http(s) URL of a checksum file; algorithm by length (32 md5, 64 sha256, 128 sha512).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Algorithm of `os_hash_value`; the pair is preferred over `checksum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_hash_algo: Option<String>,
    /// Digest, or URL of a checksum file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_hash_value: Option<String>,
    /// Base64 of the complete `Authorization` header; wins over everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_request_authorization: Option<Secret>,
    /// `http_basic`, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_server_auth_strategy: Option<String>,
    /// User for `http_basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_server_user: Option<String>,
    /// Password for `http_basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_server_password: Option<Secret>,
    /// Proxy by scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<std::collections::BTreeMap<String, String>>,
    /// Hosts that need no proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// The node's id, a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_uuid: Option<String>,
    /// Legacy copy of the config drive; used when the separate argument is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configdrive: Option<Secret>,
    /// `partition` for a partition image; whole disk otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_type: Option<String>,
    /// `uefi` or `bios`; partition images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_boot_mode: Option<String>,
    /// A detached signature of the published bytes: the text of a `.minisig` file. Not of Ironic, as the three that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Where that file is; beside the image (`.minisig`) when there must be one and neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_url: Option<String>,
    /// Public keys of minisign whose signatures count, where the agent has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_keys: Option<Vec<String>>,
    /// Read the disk back after writing and compare, before it can boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<bool>,
    /// What else there is: the sizes of a partition image, and what a newer Ironic adds.
    #[serde(flatten)]
    pub rest: OtherKeys,
}

/// Keys without a field of their own, as they came. `Debug` gives their names only: any of them may hold a secret.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OtherKeys(pub Map<String, Value>);

impl ImageInfo {
    /// Returns the id for messages, logs and events: without what follows `?`. Ironic makes the id from the end of the URL,
    /// so that may be a signature.
    pub fn label(&self) -> &str {
        self.id.split(['?', '#']).next().unwrap_or_default()
    }
}

impl std::fmt::Debug for OtherKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
