//! ONE configuration: every value knows where it came from.
//!
//! Precedence, low to high: built-in default, kernel command line, configuration files, command-line flags (and their
//! environment variables), the conductor's lookup reply. One exception: `ipa-debug` on the kernel command line beats the
//! files. Source: agent protocol page, 5.2. [`options`] is the table; this file only applies the sources to it.
//! Environment variables are read by clap in `cli`, and nowhere else.

mod file;
mod hardware;
mod options;
mod value;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use sys::Host;
use wire::AgentConfig;

use crate::cmdline::Cmdline;

pub use options::{Config, OPTIONS, OptionSpec};
pub use value::{Curve, Protocol, TlsVersion};

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value in force.
    pub value: T,
    /// Who set it.
    pub origin: Origin,
}

impl<T> Deref for Sourced<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: built in.
    Default,
    /// The kernel command line, under this parameter.
    Kernel(&'static str),
    /// A configuration file.
    File(PathBuf),
    /// A command-line flag or its environment variable.
    Flag,
    /// The conductor, in its lookup reply.
    Lookup,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Kernel(parameter) => write!(f, "kernel parameter {parameter}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Flag => f.write_str("command line"),
            Origin::Lookup => f.write_str("lookup"),
        }
    }
}

/// Why a configuration can not be used. All of these are for a person to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can not be read.
    #[error("reading the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of a file makes no sense.
    #[error("{}, line {line}: expected `key = value`, `[section]` or a comment", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A value is not of its option's type.
    #[error("option {name} (from {origin}): `{value}` is not {expected}; correct it there")]
    Value {
        /// The option.
        name: &'static str,
        /// Who set it.
        origin: Origin,
        /// The text.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A flag names an option that does not exist.
    #[error("there is no option `{name}`; `ferric-agent config` lists them all")]
    UnknownOption {
        /// The name.
        name: String,
    },
}

/// What the command line of the program says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Read instead of `/etc/ironic-python-agent.conf`; must exist.
    pub files: Vec<PathBuf>,
    /// Read instead of `/etc/ironic-python-agent.d`.
    pub directories: Vec<PathBuf>,
    /// Option name and text, in order.
    pub values: Vec<(String, String)>,
}

const DEFAULT_FILE: &str = "/etc/ironic-python-agent.conf";
const DEFAULT_DIRECTORIES: [&str; 2] = ["/etc/ironic-python-agent.conf.d", "/etc/ironic-python-agent.d"];

impl Config {
    /// Applies every source that is known before lookup. The second value holds warnings, to be logged once logging is up.
    pub fn load(host: &Host, cmdline: &Cmdline, overrides: &Overrides) -> Result<(Self, Vec<String>), Error> {
        let mut config = Self::default();
        let mut warnings = config.apply_kernel(cmdline)?;
        config.apply_files(host, overrides, &mut warnings)?;
        if cmdline.get("ipa-debug").is_some() {
            config.apply_kernel_option("debug", cmdline)?;
        }
        for (name, text) in &overrides.values {
            if !config.set("DEFAULT", name, text, Origin::Flag)? {
                return Err(Error::UnknownOption { name: name.clone() });
            }
        }
        Ok((config, warnings))
    }

    fn apply_kernel(&mut self, cmdline: &Cmdline) -> Result<Vec<String>, Error> {
        let mut warnings = Vec::new();
        for (key, text) in cmdline.iter() {
            let known = OPTIONS.iter().find(|option| option.kernel == Some(key));
            if let Some(OptionSpec { section, name, kernel: Some(parameter) }) = known {
                self.set(section, name, text, Origin::Kernel(parameter))?;
            } else if key.starts_with("ipa-") {
                warnings.push(format!("kernel parameter {key} is not known to this agent and is ignored"));
            }
        }
        Ok(warnings)
    }

    fn apply_kernel_option(&mut self, name: &str, cmdline: &Cmdline) -> Result<(), Error> {
        for option in OPTIONS.iter().filter(|option| option.name == name) {
            if let Some((parameter, text)) = option.kernel.and_then(|key| Some((key, cmdline.get(key)?))) {
                self.set(option.section, option.name, text, Origin::Kernel(parameter))?;
            }
        }
        Ok(())
    }

    fn apply_files(
        &mut self,
        host: &Host,
        overrides: &Overrides,
        warnings: &mut Vec<String>,
    ) -> Result<(), Error> {
        for path in file::paths(host, overrides, DEFAULT_FILE, &DEFAULT_DIRECTORIES)? {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            for entry in file::parse(&text).map_err(|line| Error::Syntax { path: path.clone(), line })? {
                if !self.set(&entry.section, &entry.key, &entry.value, Origin::File(path.clone()))? {
                    let (section, key) = (entry.section, entry.key);
                    warnings.push(format!(
                        "{}: option [{section}] {key} is not known to this agent",
                        path.display()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Applies what the conductor configures at lookup. A value that makes no sense is left out, with a warning in the log.
    pub fn apply_lookup(&mut self, reply: &AgentConfig) {
        let text = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        let bios = reply.enable_bios_bootloader_install.filter(|on| *on); // false never resets it
        let values = [
            ("md5_enabled", text(reply.agent_md5_checksum_enable)),
            ("disable_deep_image_inspection", text(reply.disable_deep_image_inspection)),
            ("permitted_image_formats", reply.permitted_image_formats.as_ref().map(|list| list.join(","))),
            ("enable_bios_bootloader_install", text(bios)),
            ("tls_min_version", reply.tls_min_version.clone().filter(|text| !text.is_empty())),
        ];
        for (name, value) in values {
            let Some(value) = value else { continue };
            if let Err(error) = self.set("DEFAULT", name, &value, Origin::Lookup) {
                tracing::warn!(%error, "the conductor's configuration holds a value that is not understood");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn load(root: &std::path::Path, cmdline: &str, values: &[(&str, &str)]) -> (Config, Vec<String>) {
        let values = values.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let overrides = Overrides { values, ..Overrides::default() };
        Config::load(&sys::fake::host(root), &Cmdline::parse(cmdline), &overrides).unwrap()
    }

    #[test]
    fn a_later_source_beats_an_earlier_one_and_is_remembered() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/ironic-python-agent.d");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(root.path().join("etc/ironic-python-agent.conf"), "[DEFAULT]\nlisten_port = 2\n")
            .unwrap();
        std::fs::write(directory.join("b.conf"), "lookup_timeout = 33\ndebug = false\n").unwrap();
        std::fs::write(directory.join("a.conf"), "lookup_timeout = 22\n").unwrap();
        std::fs::write(directory.join("ignored.txt"), "lookup_timeout = 1\n").unwrap();
        let cmdline = "ipa-api-url=http://192.0.2.1:6385/ ipa-listen-port=1 ipa-debug=1 ipa-advertise-port=4";
        let (config, warnings) = load(root.path(), cmdline, &[("advertise_port", "5")]);
        assert_eq!(*config.api_url, vec!["http://192.0.2.1:6385".to_owned()]);
        assert_eq!(config.api_url.origin, Origin::Kernel("ipa-api-url"));
        assert_eq!((*config.listen_port, *config.advertise_port), (2, 5));
        assert_eq!(*config.lookup_timeout, Duration::from_secs(33));
        assert_eq!(config.lookup_timeout.origin, Origin::File(directory.join("b.conf")));
        assert!(*config.debug, "ipa-debug beats the file");
        assert_eq!(config.http_request_timeout.origin, Origin::Default);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn unknown_ipa_parameters_are_warned_about_and_others_are_not() {
        let (_, warnings) =
            load("/nonexistent".as_ref(), "ipa-teleport=1 root=/dev/sda BOOTIF=01-52-54", &[]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("ipa-teleport"), "{warnings:?}");
    }

    #[test]
    fn a_bad_value_names_the_option_its_origin_and_what_was_expected() {
        let host = sys::fake::host("/nonexistent");
        let cmdline = Cmdline::parse("ipa-listen-port=99999");
        let error = Config::load(&host, &cmdline, &Overrides::default()).unwrap_err().to_string();
        assert!(
            error.contains("listen_port") && error.contains("kernel parameter ipa-listen-port"),
            "{error}"
        );
        let overrides = Overrides { values: vec![("colour".into(), "red".into())], ..Overrides::default() };
        assert!(matches!(
            Config::load(&host, &Cmdline::default(), &overrides),
            Err(Error::UnknownOption { .. })
        ));
    }

    #[test]
    fn lookup_sets_what_it_may_and_nonsense_is_left_out() {
        let mut config = Config::default();
        let reply: AgentConfig = serde_json::from_value(serde_json::json!({
            "heartbeat_timeout": 300, "agent_md5_checksum_enable": false, "tls_min_version": "9",
            "permitted_image_formats": ["raw", "iso"], "enable_bios_bootloader_install": false,
        }))
        .unwrap();
        config.apply_lookup(&reply);
        assert!(!*config.md5_enabled);
        assert_eq!(config.md5_enabled.origin, Origin::Lookup);
        assert_eq!(config.tls_min_version.origin, Origin::Default);
        assert_eq!(config.enable_bios_bootloader_install.origin, Origin::Default);
        assert_eq!(*config.permitted_image_formats, ["raw", "iso"]);
    }

    #[test]
    fn showing_the_configuration_never_shows_a_secret() {
        let (config, _) =
            load("/nonexistent".as_ref(), "ipa-agent-token=hunter2", &[("image_server_password", "pw9")]);
        let text: String = config.rows().iter().map(|row| format!("{} {}\n", row.name, row.value)).collect();
        assert!(!text.contains("hunter2") && !text.contains("pw9"), "{text}");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.rows().len(), OPTIONS.len());
    }
}
