//! What the agent's configuration says to hardware managers. Plain data; the agent fills it and changes it after lookup.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use disk::AllowList;
use imaging::{Transport, TrustedKeys};
use wire::Secret;

/// What RAID configuration said of its volumes (`/dev/md0`): whether one is the root volume. A volume that it said nothing of
/// is not among them. Source: data plane page, 2.2.
pub type RootVolumes = BTreeMap<String, bool>;

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
    /// What RAID configuration said in this boot. [`crate::Deployment`] fills it in; configuration knows nothing of it.
    pub root_volumes: RootVolumes,
    /// The interface that the machine booted from, as the boot loader wrote it.
    pub boot_interface: Option<String>,
    /// The longest silence after which listening to switches ends.
    pub lldp_timeout: Duration,
    /// Whether what switches announce is part of the inventory (`collect_lldp`, deprecated).
    pub collect_lldp: bool,
    /// Whether the conductor knows the management controller already, so that nobody need ask it.
    pub skip_bmc_detect: bool,
    /// Whether a deployment goes on when no boot entry can be made and the command does not say.
    pub ignore_bootloader_failure: bool,
    /// Whether images are written without a look at what they are.
    pub disable_deep_image_inspection: bool,
    /// Whether a GPT made for sectors of another size than the disk's is rewritten for them; for each image, its own key may say so.
    pub translate_sector_size: bool,
    /// Whether disks are read back and compared after an image was written.
    pub verify_writes: bool,
    /// Which images must be signed, and by whom.
    pub signatures: Signatures,
    /// Whether a boot loader may be installed for BIOS.
    pub enable_bios_bootloader_install: bool,
    /// Whether a config drive is always written as a new file system.
    pub config_drive_rebuild: bool,
    /// Whether disks with a shared file system (VMFS, GPFS, GFS2) are kept from being erased.
    pub guard_special_filesystems: bool,
    /// How long a disk that is erased may take for one request before the disk fails.
    pub erase_stall_limit: Duration,
    /// Whether bootc deployments are not offered.
    pub disable_bootc_deploy: bool,
    /// Priority of the step `inject_files`, 0 to 99; 0 runs it only when asked for.
    pub inject_files_priority: u32,
    /// Sizes and patience for making partitions.
    pub partitioning: Partitioning,
    /// Which containers steps may run, and how.
    pub containers: Containers,
}

/// Signatures of images, as far as options say. Keys in the ramdisk ([`IMAGE_KEYS`]) come before these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Whether nothing unsigned may be written.
    pub require: bool,
    /// The keys whose signatures count.
    pub keys: TrustedKeys,
}

/// The folder with the public keys (`*.pub`) that came with the ramdisk.
pub const IMAGE_KEYS: &str = "/etc/ferric/image-keys.d";

/// How partitions are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitioning {
    /// Size of an EFI system partition in MiB.
    pub efi_system_mib: u32,
    /// Size of a BIOS boot partition in MiB.
    pub bios_boot_mib: u32,
    /// How often to look for a new partition before giving up; at least once.
    pub detection_attempts: u32,
    /// How often to ask the kernel to read a new table before giving up; at least once.
    pub reread_attempts: u32,
    /// Time between two looks whether a disk is still in use.
    pub busy_interval: Duration,
    /// How often to look again before giving up.
    pub busy_retries: u32,
}

impl Settings {
    /// When a config drive becomes a new file system.
    pub(crate) fn rebuild(&self) -> disk::config_drive::Rebuild {
        match self.config_drive_rebuild {
            true => disk::config_drive::Rebuild::Always,
            false => disk::config_drive::Rebuild::WhenNeeded,
        }
    }
}

impl Partitioning {
    /// How long to wait for the nodes of partitions: a second for each look, and as long as a disk may be busy.
    pub(crate) fn patience(&self) -> disk::Patience {
        disk::Patience {
            limit: Duration::from_secs(self.detection_attempts.into())
                .saturating_add(self.busy_interval.saturating_mul(self.busy_retries)),
            reread_attempts: self.reread_attempts.max(1),
        }
    }
}

impl Default for Partitioning {
    fn default() -> Self {
        Self {
            efi_system_mib: 550,
            bios_boot_mib: 1,
            detection_attempts: 3,
            reread_attempts: 10,
            busy_interval: Duration::from_secs(1),
            busy_retries: 20,
        }
    }
}

/// What steps may do with containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containers {
    /// Whether any image may be run.
    pub allow_arbitrary: bool,
    /// The images that may be run otherwise.
    pub allowed: Vec<String>,
    /// The file that defines steps.
    pub steps_file: PathBuf,
    /// The program: `podman` or `docker`.
    pub runner: String,
    /// Its options for `pull`.
    pub pull_options: Vec<String>,
    /// Its options for `run`.
    pub run_options: Vec<String>,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            allow_arbitrary: false,
            allowed: Vec::new(),
            steps_file: "/etc/ironic-python-agent.d/mysteps.yaml".into(),
            runner: "podman".into(),
            pull_options: Vec::new(),
            run_options: ["--rm", "--network=host"].map(str::to_owned).into(),
        }
    }
}

/// User and password for HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl Credentials {
    /// The value of the `Authorization` header. Source: RFC 7617.
    pub fn header(&self) -> Secret {
        let pair = format!("{}:{}", self.user, self.password.expose());
        Secret::new(format!("Basic {}", BASE64.encode(pair)))
    }
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
            root_volumes: RootVolumes::new(),
            boot_interface: None,
            lldp_timeout: Duration::from_secs(30),
            collect_lldp: false,
            skip_bmc_detect: false,
            ignore_bootloader_failure: false,
            disable_deep_image_inspection: false,
            translate_sector_size: false,
            verify_writes: false,
            signatures: Signatures::default(),
            enable_bios_bootloader_install: false,
            config_drive_rebuild: false,
            guard_special_filesystems: true,
            erase_stall_limit: disk::erase::STALL_LIMIT,
            disable_bootc_deploy: false,
            inject_files_priority: 0,
            partitioning: Partitioning::default(),
            containers: Containers::default(),
        }
    }
}
