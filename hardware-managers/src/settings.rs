//! What the agent's configuration says to hardware managers. Plain data; the agent fills it and changes it after lookup.

use std::time::Duration;

use disk::AllowList;
use imaging::Transport;
use wire::Secret;

/// Settings of the built-in managers. The defaults are Ironic's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The only disks that may be written, where there is a list. Outside a ramdisk a list is mandatory.
    pub allow: Option<AllowList>,
    /// How to talk to image servers, and how patient to be.
    pub transport: Transport,
    /// Credentials for image servers, for images that bring none of their own.
    pub image_server: Option<Credentials>,
    /// Whether an MD5 checksum is enough to accept an image.
    pub md5_enabled: bool,
    /// Image formats that a conductor permits, in Ironic's names (`raw`, `gpt`, `qcow2`, `iso`).
    pub permitted_formats: Vec<String>,
    /// How often to look for a disk to deploy to before giving up; at least once.
    pub disk_wait_attempts: u32,
    /// Time between two looks.
    pub disk_wait_delay: Duration,
    /// Whether a deployment goes on when no boot entry can be made and the command does not say.
    pub ignore_bootloader_failure: bool,
}

/// User and password for HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: None,
            transport: Transport::default(),
            image_server: None,
            md5_enabled: true,
            permitted_formats: ["raw", "gpt", "qcow2"].map(str::to_owned).into(),
            disk_wait_attempts: 10,
            disk_wait_delay: Duration::from_secs(3),
            ignore_bootloader_failure: false,
        }
    }
}
