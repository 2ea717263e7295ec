//! The table of options: one row each. A new option is a new row; nothing else has to change.
//!
//! A row: doc, field (with the name in parentheses where that differs), type, default, section of the configuration file,
//! kernel parameter; and, for an option that is read but changes nothing, why.
//! Source: ironic-python-agent `config.py` (agent protocol page, 5.4).

use crate::secrets::hide_by_place;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tls::CipherSuites;
use wire::{Microversion, Secret};

use super::value::{CallbackUrls, Disks, ImageKeys, OptionValue, Priority, ProxyUrl, Urls};
use super::{
    ContainerRunner, Curve, Error, FractionalSeconds, MetricsBackend, Origin, Protocol, Sourced, TimeLimit,
    TlsVersion,
};

/// What is fixed about an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// Section of the configuration file.
    pub section: &'static str,
    /// Name in the configuration file and for `--set`.
    pub name: &'static str,
    /// Name of its field in [`Config`].
    pub field: &'static str,
    /// Kernel parameter, where it has one.
    pub kernel: Option<&'static str>,
    /// Why setting it changes nothing, where that is so.
    pub without_effect: Option<&'static str>,
}

impl OptionSpec {
    /// The name for a person: with its section, unless that is `[DEFAULT]`.
    pub fn full_name(&self) -> String {
        match self.section {
            "DEFAULT" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }
}

/// An option as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is fixed about it.
    pub option: &'static OptionSpec,
    /// Value, secrets hidden.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// The name of an option: that of its field, unless another one is given.
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

macro_rules! reason {
    () => {
        None
    };
    ($reason:literal) => {
        Some($reason)
    };
}

macro_rules! options {
    ($( $(#[$doc:meta])* $field:ident $(($key:literal))?: $type:ty = $default:expr, $section:literal, $kernel:expr
        $(, without effect: $reason:literal)?; )*) => {
        /// The configuration. Read a value by dereferencing: `*config.listen_port`.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[$doc])* pub $field: Sourced<$type>, )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $( $field: Sourced { value: $default, origin: Origin::Default }, )* }
            }
        }

        /// Every option there is.
        pub const OPTIONS: &[OptionSpec] = &[
            $( OptionSpec {
                section: $section,
                name: key!($field $($key)?),
                field: stringify!($field),
                kernel: $kernel,
                without_effect: reason!($($reason)?),
            }, )*
        ];

        impl Config {
            /// Sets an option from text. `Ok(false)`: there is no such option.
            pub(super) fn set(
                &mut self,
                section: &str,
                name: &str,
                text: &str,
                origin: Origin,
            ) -> Result<bool, Error> {
                self.set_json(section, name, &Value::from(text.trim()), origin)
            }

            /// Sets an option from JSON: a text, or what the text would say. `Ok(false)`: there is no such option.
            pub(super) fn set_json(
                &mut self,
                section: &str,
                name: &str,
                value: &Value,
                origin: Origin,
            ) -> Result<bool, Error> {
                match (section, name) {
                    $( ($section, key!($field $($key)?)) => {
                        let value = parse(key!($field $($key)?), value, &origin)?;
                        self.$field = Sourced { value, origin };
                    } )*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            /// Every option with its value and origin, in the table's order.
            pub fn rows(&self) -> Vec<Row> {
                let shown = [ $( (without_secrets(&self.$field.value.show()), self.$field.origin.clone()), )* ];
                let row = |(option, (value, origin))| Row { option, value, origin };
                OPTIONS.iter().zip(shown).map(row).collect()
            }
        }
    };
}

/// A value for a person: URLs without user, password and query.
fn without_secrets(text: &str) -> String {
    String::from_utf8_lossy(&hide_by_place(text.as_bytes())).into_owned()
}

fn parse<T: OptionValue>(name: &'static str, value: &Value, origin: &Origin) -> Result<T, Error> {
    T::from_json(value).ok_or_else(|| Error::Value {
        name,
        origin: origin.clone(),
        value: without_secrets(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        expected: value.as_str().map_or(T::EXPECTED, T::expected),
    })
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A number that the table itself gives.
const fn count(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

options! {
    /// The conductor's API; several are tried in turn, and `mdns` looks for one on the local network.
    api_url: Urls = Urls::default(), "DEFAULT", Some("ipa-api-url");
    /// Proxy for every call to the conductor, and for none else; without it the conductor is called directly, whatever `http_proxy` says.
    conductor_proxy: Option<ProxyUrl> = None, "DEFAULT", Some("ferric-conductor-proxy");
    /// Sent as `X-OpenStack-Request-ID` with every call to the conductor.
    global_request_id: Option<String> = None, "DEFAULT", Some("ipa-global-request-id");
    /// Address to listen on; all addresses when unset.
    listen_host: Option<String> = None, "DEFAULT", Some("ipa-listen-host");
    /// Port to listen on; 0 is any free one.
    listen_port: u16 = 9999, "DEFAULT", Some("ipa-listen-port");
    /// Serve with the certificate of `tls_cert_file` instead of a generated one.
    listen_tls: bool = false, "DEFAULT", None;
    /// Certificate chain (PEM) for `listen_tls`.
    tls_cert_file: Option<PathBuf> = None, "DEFAULT", None;
    /// Key (PEM) for `listen_tls`.
    tls_key_file: Option<PathBuf> = None, "DEFAULT", None;
    /// Make a certificate at start-up and send it with heartbeats.
    enable_auto_tls: bool = true, "DEFAULT", None;
    /// How far the generated certificate's start lies in the past.
    auto_tls_allowed_clock_skew: Duration = seconds(3600), "DEFAULT", None;
    /// Oldest TLS version, as server and as client.
    tls_min_version: TlsVersion = TlsVersion::V1_2, "DEFAULT", Some("ipa-tls-min-version");
    /// Cipher suites of TLS 1.2, as server and as client, in OpenSSL's words; TLS 1.3 always has all of its own.
    tls_cipher_suites: Option<CipherSuites> = None, "DEFAULT", Some("ipa-tls-cipher-suites");
    /// Curve of the generated certificate.
    tls_certificate_curve: Curve = Curve::P384, "DEFAULT", Some("ipa-tls-certificate-curve");
    /// Address told to the conductor; found by the route to it when unset.
    advertise_host: Option<String> = None, "DEFAULT", Some("ipa-advertise-host");
    /// Port told to the conductor; 0 is the one listened on.
    advertise_port: u16 = 9999, "DEFAULT", Some("ipa-advertise-port");
    /// Protocol told to the conductor; a generated certificate makes it https.
    advertise_protocol: Protocol = Protocol::Http, "DEFAULT", Some("ipa-advertise-protocol");
    /// Rounds of the search for the advertised address.
    ip_lookup_attempts: NonZeroU32 = count(6), "DEFAULT", Some("ipa-ip-lookup-attempts");
    /// Pause between those rounds.
    ip_lookup_sleep: Duration = seconds(10), "DEFAULT", Some("ipa-ip-lookup-timeout");
    /// Advertise this interface's address.
    network_interface: Option<String> = None, "DEFAULT", Some("ipa-network-interface");
    /// How long to go on asking who this machine is.
    lookup_timeout: Duration = seconds(600), "DEFAULT", Some("ipa-lookup-timeout");
    /// Shortest pause between two lookups.
    lookup_interval: Duration = seconds(1), "DEFAULT", Some("ipa-lookup-interval");
    /// Where to send what inspection finds, several separated by commas; `mdns` looks for it on the local network.
    inspection_callback_url: Option<CallbackUrls> = None, "DEFAULT", Some("ipa-inspection-callback-url");
    /// Collectors of inspection data; `default,logs` when unset.
    inspection_collectors: Option<Vec<String>> = None, "DEFAULT", Some("ipa-inspection-collectors");
    /// How long inspection waits for the interface booted from to get an address; 0 is not at all.
    inspection_dhcp_wait_timeout: Duration = seconds(60), "DEFAULT", Some("ipa-inspection-dhcp-wait-timeout");
    /// Whether inspection waits for all interfaces.
    inspection_dhcp_all_interfaces: bool = false, "DEFAULT", Some("ipa-inspection-dhcp-all-interfaces");
    /// Benchmarks of the collector `extra-hardware`. *Changes nothing:* Ferric runs none, and logs a warning.
    inspection_benchmarks: Vec<String> = Vec::new(), "DEFAULT", Some("ipa-inspection-benchmarks");
    /// Put the LLDP packets of the neighbours into the inventory's interfaces.
    collect_lldp: bool = false, "DEFAULT", Some("ipa-collect-lldp");
    /// How long to wait for LLDP packets.
    lldp_timeout: FractionalSeconds = FractionalSeconds(seconds(30)), "DEFAULT", Some("ipa-lldp-timeout");
    /// Do not ask the management controller for its addresses.
    agent_skip_bmc_detect: bool = false, "DEFAULT", None;
    /// VLAN interfaces to make: `INTERFACE.ID` or `MAC.ID`; without ID, and for `all`, the ids that LLDP tells.
    enable_vlan_interfaces: Vec<String> = Vec::new(), "DEFAULT", Some("ipa-enable-vlan-interfaces");
    /// How often to look for a usable disk; 0 is not at all.
    disk_wait_attempts: u32 = 10, "DEFAULT", Some("ipa-disk-wait-attempts");
    /// Pause between those looks.
    disk_wait_delay: Duration = seconds(3), "DEFAULT", Some("ipa-disk-wait-delay");
    /// Pause after the hardware managers were probed.
    hardware_initialization_delay: Duration = seconds(0), "DEFAULT", Some("ipa-hardware-initialization-delay");
    /// Do NOT verify certificates, of the conductor and of image servers.
    insecure: bool = false, "DEFAULT", Some("ipa-insecure");
    /// Trust anchors (PEM) instead of the system's.
    cafile: Option<PathBuf> = None, "DEFAULT", None;
    /// Client certificate (PEM) for calls to the conductor.
    certfile: Option<PathBuf> = None, "DEFAULT", None;
    /// Its key (PEM).
    keyfile: Option<PathBuf> = None, "DEFAULT", None;
    /// Time server.
    ntp_server: Option<String> = None, "DEFAULT", Some("ipa-ntp-server");
    /// End when the clock can not be set.
    fail_if_clock_not_set: bool = false, "DEFAULT", None;
    /// Token known before lookup (virtual media).
    agent_token: Option<Secret> = None, "DEFAULT", Some("ipa-agent-token");
    /// User for image servers.
    image_server_user: Option<String> = None, "DEFAULT", None;
    /// Password for image servers.
    image_server_password: Option<Secret> = None, "DEFAULT", None;
    /// `http_basic` or `noauth`.
    image_server_auth_strategy: String = "noauth".into(), "DEFAULT", None;
    /// Wait for an image server to answer.
    image_download_connection_timeout: TimeLimit = TimeLimit(seconds(60)), "DEFAULT", Some("ipa-image-download-connection-timeout");
    /// Further attempts after the first.
    image_download_connection_retries: u32 = 9, "DEFAULT", Some("ipa-image-download-connection-retries");
    /// Pause between attempts.
    image_download_connection_retry_interval: Duration = seconds(10), "DEFAULT", Some("ipa-image-download-connection-retry-interval");
    /// Longest download; 0 is unlimited.
    image_download_max_duration: Duration = seconds(0), "DEFAULT", Some("ipa-image-download-max-duration");
    /// API version to use instead of asking.
    ironic_api_version: Option<Microversion> = None, "DEFAULT", Some("ipa-ironic-api-version");
    /// Limit of each call to the conductor.
    http_request_timeout: TimeLimit = TimeLimit(seconds(30)), "DEFAULT", Some("ipa-http-request-timeout");
    /// Whether MD5 checksums count.
    md5_enabled: bool = true, "DEFAULT", None;
    /// Accept images without looking into them.
    disable_deep_image_inspection: bool = false, "DEFAULT", None;
    /// Image formats that may be written.
    permitted_image_formats: Vec<String> = words(["raw", "gpt", "qcow2"]), "DEFAULT", None;
    /// Go on when boot entries can not be made.
    ignore_bootloader_failure: Option<bool> = None, "DEFAULT", Some("ipa-ignore-bootloader-failure");
    /// Priority of the step `inject_files`; 0 runs it only when asked for.
    inject_files_priority: Priority = Priority(0), "DEFAULT", Some("ipa-inject-files-priority");
    /// Refuse to erase a disk that holds a shared file system (VMFS, GPFS, GFS2).
    guard_special_filesystems: bool = true, "DEFAULT", Some("ipa-guard-special-filesystems");
    /// Write the config drive as a new file system instead of the bytes that came.
    config_drive_rebuild: bool = false, "DEFAULT", None;
    /// Do not offer bootc deployments.
    disable_bootc_deploy: bool = false, "DEFAULT", None;
    /// Whether grub may be installed for BIOS.
    enable_bios_bootloader_install: bool = false, "DEFAULT", None;
    /// Log more.
    debug: bool = false, "DEFAULT", Some("ipa-debug");
    /// File for the log, besides the usual places; a relative one lies in `log_dir`.
    log_file: Option<PathBuf> = None, "DEFAULT", None;
    /// Folder for the log, `ferric-agent.log` unless `log_file` names it.
    log_dir: Option<PathBuf> = None, "DEFAULT", None;
    /// MAC of the interface that the machine booted from, as the boot loader wrote it.
    boot_interface: Option<String> = None, "DEFAULT", Some("BOOTIF");
    /// The only disks that may be written: names, by-path or serial globs, comma-separated.
    disks: Disks = Disks::default(), "DEFAULT", Some("ferric-disks");
    /// MiB of memory that unpacking a zstd or xz image may take; images that need more are refused. Unset, a quarter of what is
    /// available, and at least 24.
    image_decoder_memory: Option<NonZeroU32> = None, "DEFAULT", Some("ferric-image-decoder-memory");
    /// Rewrite a GPT that was made for sectors of another size than the disk's, instead of refusing the image.
    translate_sector_size: bool = false, "DEFAULT", Some("ferric-translate-sector-size");
    /// Read disks back and compare after an image was written, before they can boot.
    verify_writes: bool = false, "DEFAULT", Some("ferric-verify-writes");
    /// How long a disk that is erased may take for one write before it fails as one that does not answer.
    erase_stall_limit: TimeLimit = TimeLimit(seconds(600)), "DEFAULT", Some("ferric-erase-stall-limit");
    /// Write no image that is not signed by a trusted key.
    require_signature: bool = false, "DEFAULT", Some("ferric-require-signature");
    /// Public keys of minisign whose signatures of images count, unless the ramdisk brings keys of its own.
    image_keys: ImageKeys = ImageKeys::default(), "DEFAULT", Some("ferric-image-keys");
    /// Post inspection data again and again.
    introspection_daemon: bool = false, "DEFAULT", None,
        without effect: "it belongs to a program of its own, ironic-collect-introspection-data";
    /// Seconds between those posts.
    introspection_daemon_post_interval: Duration = seconds(300), "DEFAULT", None,
        without effect: "it belongs to a program of its own, ironic-collect-introspection-data";
    /// Size of the EFI system partition made for a partition image, in MiB.
    efi_system_partition_size: NonZeroU32 = count(550), "disk_utils", None;
    /// Size of the BIOS boot partition made for a partition image, in MiB.
    bios_boot_partition_size: NonZeroU32 = count(1), "disk_utils", None;
    /// Block size of `dd`.
    dd_block_size: String = "1M".into(), "disk_utils", None,
        without effect: "images are streamed to the disk without dd";
    /// How often to look for a new partition.
    partition_detection_attempts: NonZeroU32 = count(3), "disk_utils", None;
    /// How often to ask the kernel to read a new partition table.
    partprobe_attempts: NonZeroU32 = count(10), "disk_utils", None;
    /// Memory for converting an image, in MiB.
    image_convert_memory_limit: u32 = 2048, "disk_utils", None,
        without effect: "images are converted while they stream, in bounded memory";
    /// Attempts at converting an image.
    image_convert_attempts: u32 = 3, "disk_utils", None,
        without effect: "images are converted while they stream, without a program that could fail by itself";
    /// Pause between looks whether a disk is still in use.
    check_device_interval: Duration = seconds(1), "disk_partitioner", None;
    /// How often to look whether a disk is still in use.
    check_device_max_retries: u32 = 20, "disk_partitioner", None;
    /// Where metrics go: `noop`, `statsd`, `collector` (*changes nothing:* Ferric offers its own at `/metrics` in any case).
    metrics_backend ("backend"): MetricsBackend = MetricsBackend::Noop, "metrics", None;
    /// Put the host name before the names of metrics.
    metrics_prepend_host ("prepend_host"): bool = false, "metrics", None;
    /// Turn the parts of that host name around.
    metrics_prepend_host_reverse ("prepend_host_reverse"): bool = true, "metrics", None;
    /// Put this before the names of metrics.
    metrics_global_prefix ("global_prefix"): Option<String> = None, "metrics", None;
    /// Server that takes metrics.
    statsd_host: String = "localhost".into(), "metrics_statsd", None;
    /// Its UDP port.
    statsd_port: u16 = 8125, "metrics_statsd", None;
    /// Let steps run any container image.
    container_allow_arbitrary ("allow_arbitrary_containers"): bool = false, "container", None;
    /// The container images that steps may run.
    container_allowed ("allowed_containers"): Vec<String> = Vec::new(), "container", None;
    /// File that defines steps that run containers.
    container_steps_file: PathBuf = "/etc/ironic-python-agent.d/mysteps.yaml".into(), "container", None;
    /// Program that runs containers: `podman` or `docker`.
    container_runner ("runner"): ContainerRunner = ContainerRunner::Podman, "container", None;
    /// Options of its `pull`.
    container_pull_options ("pull_options"): Vec<String> = Vec::new(), "container", None;
    /// Options of its `run`.
    container_run_options ("run_options"): Vec<String> = words(["--rm", "--network=host"]), "container", None;
    /// Look for an API URL that is not given on the local network.
    mdns_use ("use_mdns"): bool = false, "mdns", Some("ipa-use-mdns");
    /// Options that an mDNS answer may set.
    mdns_allowed_overrides ("allowed_overrides"): Vec<String> =
        words(["inspection_callback_url", "ntp_server"]), "mdns", None;
    /// How often to ask.
    mdns_lookup_attempts ("lookup_attempts"): NonZeroU32 = count(3), "mdns", None;
    /// Addresses of the interfaces to ask on; all when unset.
    mdns_interfaces ("interfaces"): Vec<String> = Vec::new(), "mdns", None;
    /// What a service would be announced with.
    mdns_params ("params"): Option<String> = None, "mdns", None,
        without effect: "the agent announces no service, it only looks for them";
}
