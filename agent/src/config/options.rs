//! The table of options: one row each. A new option is a new row; nothing else has to change.
//!
//! A row: doc, name (ironic-python-agent's), type, default, section of the configuration file, kernel parameter.
//! Source: ironic-python-agent `config.py` (agent protocol page, 5.4).

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use wire::{Microversion, Secret};

use super::value::{Disks, OptionValue, Urls};
use super::{Curve, Error, Origin, Protocol, Sourced, TlsVersion};

/// What is fixed about an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// Section of the configuration file.
    pub section: &'static str,
    /// Name in the configuration file and for `--set`.
    pub name: &'static str,
    /// Kernel parameter, where it has one.
    pub kernel: Option<&'static str>,
}

/// An option as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name.
    pub name: &'static str,
    /// Value, secrets hidden.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

macro_rules! options {
    ($( $(#[$doc:meta])* $name:ident: $type:ty = $default:expr, $section:literal, $kernel:expr; )*) => {
        /// The configuration. Read a value by dereferencing: `*config.listen_port`.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[$doc])* pub $name: Sourced<$type>, )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $( $name: Sourced { value: $default, origin: Origin::Default }, )* }
            }
        }

        /// Every option there is.
        pub const OPTIONS: &[OptionSpec] = &[
            $( OptionSpec { section: $section, name: stringify!($name), kernel: $kernel }, )*
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
                match (section, name) {
                    $( ($section, stringify!($name)) => {
                        let value = parse(stringify!($name), text, &origin)?;
                        self.$name = Sourced { value, origin };
                    } )*
                    _ => return Ok(false),
                }
                Ok(true)
            }

            /// Every option with its value and origin, in the table's order.
            pub fn rows(&self) -> Vec<Row> {
                vec![ $( Row {
                    name: stringify!($name),
                    value: self.$name.value.show(),
                    origin: self.$name.origin.clone(),
                }, )* ]
            }
        }
    };
}

fn parse<T: OptionValue>(name: &'static str, text: &str, origin: &Origin) -> Result<T, Error> {
    T::parse(text.trim()).ok_or_else(|| Error::Value {
        name,
        origin: origin.clone(),
        value: text.trim().to_owned(),
        expected: T::EXPECTED,
    })
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

options! {
    /// The conductor's API; several are tried in turn.
    api_url: Urls = Urls::default(), "DEFAULT", Some("ipa-api-url");
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
    /// Curve of the generated certificate.
    tls_certificate_curve: Curve = Curve::P384, "DEFAULT", Some("ipa-tls-certificate-curve");
    /// Address told to the conductor; found by the route to it when unset.
    advertise_host: Option<String> = None, "DEFAULT", Some("ipa-advertise-host");
    /// Port told to the conductor; 0 is the one listened on.
    advertise_port: u16 = 9999, "DEFAULT", Some("ipa-advertise-port");
    /// Protocol told to the conductor; a generated certificate makes it https.
    advertise_protocol: Protocol = Protocol::Http, "DEFAULT", Some("ipa-advertise-protocol");
    /// Rounds of the search for the advertised address.
    ip_lookup_attempts: NonZeroU32 = NonZeroU32::MIN.saturating_add(5), "DEFAULT", Some("ipa-ip-lookup-attempts");
    /// Pause between those rounds.
    ip_lookup_sleep: Duration = seconds(10), "DEFAULT", Some("ipa-ip-lookup-timeout");
    /// Advertise this interface's address.
    network_interface: Option<String> = None, "DEFAULT", Some("ipa-network-interface");
    /// How long to go on asking who this machine is.
    lookup_timeout: Duration = seconds(600), "DEFAULT", Some("ipa-lookup-timeout");
    /// Shortest pause between two lookups.
    lookup_interval: Duration = seconds(1), "DEFAULT", Some("ipa-lookup-interval");
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
    /// Token known before lookup (virtual media).
    agent_token: Option<Secret> = None, "DEFAULT", Some("ipa-agent-token");
    /// User for image servers.
    image_server_user: Option<String> = None, "DEFAULT", None;
    /// Password for image servers.
    image_server_password: Option<Secret> = None, "DEFAULT", None;
    /// `http_basic` or `noauth`.
    image_server_auth_strategy: String = "noauth".into(), "DEFAULT", None;
    /// Wait for an image server to answer.
    image_download_connection_timeout: Duration = seconds(60), "DEFAULT", Some("ipa-image-download-connection-timeout");
    /// Further attempts after the first.
    image_download_connection_retries: u32 = 9, "DEFAULT", Some("ipa-image-download-connection-retries");
    /// Pause between attempts.
    image_download_connection_retry_interval: Duration = seconds(10), "DEFAULT", Some("ipa-image-download-connection-retry-interval");
    /// Longest download; 0 is unlimited.
    image_download_max_duration: Duration = seconds(0), "DEFAULT", Some("ipa-image-download-max-duration");
    /// API version to use instead of asking.
    ironic_api_version: Option<Microversion> = None, "DEFAULT", Some("ipa-ironic-api-version");
    /// Limit of each call to the conductor.
    http_request_timeout: Duration = seconds(30), "DEFAULT", Some("ipa-http-request-timeout");
    /// Whether MD5 checksums count.
    md5_enabled: bool = true, "DEFAULT", None;
    /// Accept images without looking into them.
    disable_deep_image_inspection: bool = false, "DEFAULT", None;
    /// Image formats that may be written.
    permitted_image_formats: Vec<String> = vec!["raw".into(), "gpt".into(), "qcow2".into()], "DEFAULT", None;
    /// Go on when boot entries can not be made.
    ignore_bootloader_failure: Option<bool> = None, "DEFAULT", Some("ipa-ignore-bootloader-failure");
    /// Whether grub may be installed for BIOS.
    enable_bios_bootloader_install: bool = false, "DEFAULT", None;
    /// Log more.
    debug: bool = false, "DEFAULT", Some("ipa-debug");
    /// MAC of the interface that the machine booted from, as the boot loader wrote it.
    boot_interface: Option<String> = None, "DEFAULT", Some("BOOTIF");
    /// The only disks that may be written: names, by-path or serial globs, comma-separated.
    disks: Disks = Disks::default(), "DEFAULT", Some("ferric-disks");
    /// MiB of memory that unpacking a zstd or xz image may take; images that ask for more are refused.
    image_decoder_memory: NonZeroU32 = NonZeroU32::MIN.saturating_add(23), "DEFAULT", Some("ferric-image-decoder-memory");
}
