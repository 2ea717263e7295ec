//! ONE configuration: every value knows where it came from.
//!
//! Precedence, low to high: built-in default, kernel command line (and the parameters of virtual media), configuration
//! files, command-line flags (and their environment variables), mDNS, the conductor's lookup reply. One exception: `ipa-debug`
//! on the kernel command line beats the files. Source: agent protocol page, 5.2. [`options`] is the table; this file only
//! applies the sources to it. Environment variables are read in `cli`, and nowhere else.

mod file;
mod hardware;
mod lookup;
mod nearest;
mod options;
mod value;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use sys::Host;

use crate::cmdline::{Cmdline, Source};
use crate::secrets::Secrets;

pub use options::{Config, OPTIONS, OptionSpec, Row};
/// The oldest TLS version to speak, as client and as server.
pub use tls::Version as TlsVersion;
pub use value::{
    CallbackUrls, ContainerRunner, Curve, FractionalSeconds, MetricsBackend, Priority, Protocol, ProxyUrl,
    TimeLimit, Urls,
};

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
    /// The parameter file of virtual media, under this parameter.
    VirtualMedia(&'static str),
    /// A configuration file.
    File {
        /// Which one.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A command-line flag or its environment variable.
    Flag,
    /// An answer of the local network.
    Mdns,
    /// The conductor, in its lookup reply.
    Lookup,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Kernel(parameter) => write!(f, "kernel parameter {parameter}"),
            Origin::VirtualMedia(parameter) => write!(f, "virtual media parameter {parameter}"),
            Origin::File { path, line } => write!(f, "file {}:{line}", path.display()),
            Origin::Flag => f.write_str("command line"),
            Origin::Mdns => f.write_str("mDNS"),
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
    #[error("there is no option `{name}`{}; `ferric-agent config` lists them all", nearest::question(suggestion.as_deref()))]
    UnknownOption {
        /// The name.
        name: String,
        /// The name that was meant, perhaps.
        suggestion: Option<String>,
    },
}

/// What the command line of the program says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Where the user's own files lie, before those in `/etc`.
    pub home: Option<PathBuf>,
    /// Read instead of `/etc/ironic-python-agent.conf`; must exist.
    pub files: Vec<PathBuf>,
    /// Read instead of `/etc/ironic-python-agent.d`.
    pub directories: Vec<PathBuf>,
    /// Option name (`section.name` outside `[DEFAULT]`) and text, in order.
    pub values: Vec<(String, String)>,
}

/// Options that a value which makes no sense must not loosen: without a list all disks may be written, without a key any image.
/// And the one that has no default to work with.
const MUST_BE_RIGHT: [&str; 3] = ["api_url", "disks", "image_keys"];
/// What a senseless value of an option means where the default would allow more than was asked for.
const STRICT: [(&str, &str); 2] = [("require_signature", "true"), ("verify_writes", "true")];
/// Kernel parameters of the agent that are no options, and who reads them.
const OTHER_PARAMETERS: [&str; 1] = ["ferric-on-fatal"]; // init
/// Kernel parameters that become variables by which programs find a proxy.
const PROXIES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
/// Names that options had earlier: section, name; section and name today.
const LEGACY: [(&str, &str, &str, &str); 2] =
    [("ssl", "cert_file", "DEFAULT", "tls_cert_file"), ("ssl", "key_file", "DEFAULT", "tls_key_file")];

impl Config {
    /// Applies every source that is known before the network is. The second value holds warnings, to be logged once logging
    /// is up.
    ///
    /// A value of the kernel command line or of a file that makes no sense is a warning, and the value before it stays: nobody
    /// can correct a machine that has no network. Those of [`MUST_BE_RIGHT`] are errors, and so is everything on the program's
    /// own command line.
    pub fn load(host: &Host, cmdline: &Cmdline, overrides: &Overrides) -> Result<(Self, Vec<String>), Error> {
        let mut config = Self::default();
        let mut warnings = config.apply_kernel(cmdline)?;
        config.apply_files(host, overrides, &mut warnings)?;
        if cmdline.get("ipa-debug").is_some() {
            config.apply_kernel_option("debug", cmdline)?;
        }
        for (full_name, text) in &overrides.values {
            let (section, name) = full_name.split_once('.').unwrap_or(("DEFAULT", full_name));
            if !config.set(section, name, text, Origin::Flag)? {
                let known = OPTIONS.iter().map(OptionSpec::full_name);
                return Err(Error::UnknownOption {
                    name: full_name.clone(),
                    suggestion: nearest::nearest(full_name, known),
                });
            }
        }
        // A certificate without its key serves nobody: then the error says what is missing.
        if config.listen_tls.origin == Origin::Default
            && let (Some(_), Some(_)) = (&config.tls_cert_file.value, &config.tls_key_file.value)
        {
            config.listen_tls = Sourced { value: true, origin: config.tls_cert_file.origin.clone() };
        }
        if config.certfile.is_some() != config.keyfile.is_some() {
            warnings.push("only one of certfile and keyfile is set: no client certificate is used".into());
        }
        for name in PROXIES {
            if config.conductor_proxy.is_none() && cmdline.get(name).is_some_and(|proxy| !proxy.is_empty()) {
                warnings.push(format!(
                    "kernel parameter {name} is not used for calls to the conductor, which is called directly; \
                     ferric-conductor-proxy=URL is what changes that"
                ));
            }
        }
        warnings.extend(config.idle_settings());
        Ok((config, warnings))
    }

    /// Sets an option of `[DEFAULT]` to what an mDNS answer says, if that makes sense; a warning in the log if not.
    pub fn override_by_mdns(&mut self, name: &str, text: &str) {
        match self.set("DEFAULT", name, text, Origin::Mdns) {
            Ok(true) => tracing::info!(name, text, "mDNS sets the option"),
            Ok(false) => tracing::warn!(name, "an mDNS answer sets an option that is not known here"),
            Err(error) => tracing::warn!(%error, "an mDNS answer holds a value that is not understood"),
        }
    }

    /// What the kernel command line alone says: before any file can be read. What makes no sense there is left out:
    /// [`Config::load`] reports it once the machine has a network.
    pub fn from_cmdline(cmdline: &Cmdline) -> Self {
        let mut config = Self::default();
        for option in OPTIONS {
            if let Some((parameter, text)) = option.kernel.and_then(|key| Some((key, cmdline.get(key)?))) {
                let _ = config.set(option.section, option.name, text, parameter_origin(cmdline, parameter));
            }
        }
        config
    }

    /// Sets an option; a value that makes no sense becomes a warning, unless the option must be right. `Ok(false)`: there is no
    /// such option.
    fn set_or_warn(
        &mut self,
        section: &str,
        name: &str,
        text: &str,
        origin: Origin,
        warnings: &mut Vec<String>,
    ) -> Result<bool, Error> {
        match self.set(section, name, text, origin.clone()) {
            Err(Error::Value { name, origin: _, value, expected }) if !MUST_BE_RIGHT.contains(&name) => {
                if let Some((_, strict)) = STRICT.iter().find(|(strict, _)| *strict == name) {
                    self.set(section, name, strict, origin.clone())?;
                }
                let row = self
                    .rows()
                    .into_iter()
                    .find(|row| row.option.section == section && row.option.name == name);
                let stays = row.map_or_else(String::new, |row| format!("; `{}` is used instead", row.value));
                warnings.push(format!(
                    "option {name} (from {origin}): `{value}` is not {expected} and is ignored{stays}; correct it there"
                ));
                Ok(true)
            }
            other => other,
        }
    }

    /// The file for the log, where one is wanted: `log_file`, in `log_dir` unless it is absolute.
    pub fn log_path(&self) -> Option<PathBuf> {
        let (file, folder) = (self.log_file.value.clone(), self.log_dir.value.clone());
        match (folder, file) {
            (None, file) => file,
            (Some(folder), file) => Some(folder.join(file.unwrap_or_else(|| "ferric-agent.log".into()))),
        }
    }

    /// Reports every secret of the configuration: values of secret options, and what stands in URLs and options of programs.
    pub fn tell_secrets(&self, secrets: &Secrets) {
        let own = [&self.agent_token.value, &self.image_server_password.value];
        for secret in own.into_iter().flatten() {
            secrets.add(secret.expose());
        }
        secrets.add_words(self.api_url.iter().map(String::as_str));
        for options in [&self.container_pull_options.value, &self.container_run_options.value] {
            secrets.add_words(options.iter().map(String::as_str));
            secrets.add_url(&options.join(" ")); // an option and its value may be two items
        }
        secrets.add_words(self.inspection_callback_url.as_deref());
        secrets.add_words(self.conductor_proxy.as_ref().map(ProxyUrl::url));
    }

    /// A line for each option that somebody set for nothing.
    fn idle_settings(&self) -> impl Iterator<Item = String> {
        let set = self.rows().into_iter().filter(|row| row.origin != Origin::Default);
        set.filter_map(|row| {
            let reason = row.option.without_effect?;
            Some(format!("option {} ({}) changes nothing here: {reason}", row.option.full_name(), row.origin))
        })
    }

    fn apply_kernel(&mut self, cmdline: &Cmdline) -> Result<Vec<String>, Error> {
        let mut warnings = Vec::new();
        for (key, text) in cmdline.iter() {
            let known = OPTIONS.iter().find(|option| option.kernel == Some(key));
            if let Some(OptionSpec { section, name, kernel: Some(parameter), .. }) = known {
                self.set_or_warn(section, name, text, parameter_origin(cmdline, parameter), &mut warnings)?;
            } else if is_ours(key) && !OTHER_PARAMETERS.contains(&key) {
                let known = OPTIONS.iter().filter_map(|option| option.kernel).chain(OTHER_PARAMETERS);
                let suggestion = nearest::nearest(key, known.map(str::to_owned));
                warnings.push(format!(
                    "kernel parameter {key} is not known to this agent and is ignored{}",
                    nearest::question(suggestion.as_deref())
                ));
            }
        }
        Ok(warnings)
    }

    fn apply_kernel_option(&mut self, name: &str, cmdline: &Cmdline) -> Result<(), Error> {
        for option in OPTIONS.iter().filter(|option| option.name == name) {
            if let Some((parameter, text)) = option.kernel.and_then(|key| Some((key, cmdline.get(key)?))) {
                let origin = parameter_origin(cmdline, parameter);
                // Its warning has been given before.
                self.set_or_warn(option.section, option.name, text, origin, &mut Vec::new())?;
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
        for path in file::paths(host, overrides)? {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            for entry in file::parse(&text).map_err(|line| Error::Syntax { path: path.clone(), line })? {
                let origin = Origin::File { path: path.clone(), line: entry.line };
                let (section, name) = todays_name(&entry.section, &entry.key);
                if !self.set_or_warn(section, name, &entry.value, origin, warnings)? {
                    let known = OPTIONS.iter().filter(|option| option.section == section);
                    let suggestion = nearest::nearest(name, known.map(|option| option.name.to_owned()));
                    warnings.push(format!(
                        "{}, line {}: option [{section}] {name} is not known to this agent and is ignored{}",
                        path.display(),
                        entry.line,
                        nearest::question(suggestion.as_deref())
                    ));
                }
            }
        }
        Ok(())
    }
}

fn parameter_origin(cmdline: &Cmdline, parameter: &'static str) -> Origin {
    match cmdline.source(parameter) {
        Source::Kernel => Origin::Kernel(parameter),
        Source::VirtualMedia => Origin::VirtualMedia(parameter),
    }
}

/// Whether a kernel parameter is meant for an agent.
fn is_ours(parameter: &str) -> bool {
    parameter.starts_with("ipa-") || parameter.starts_with("ferric-")
}

/// Section and name that an option of a file has nowadays. oslo.config takes dashes for underscores.
fn todays_name<'a>(section: &'a str, key: &'a str) -> (&'a str, &'a str) {
    if let Some((.., section, name)) = LEGACY.iter().find(|(old, name, ..)| (*old, *name) == (section, key)) {
        return (section, name);
    }
    let dashed =
        OPTIONS.iter().find(|option| option.section == section && option.name.replace('_', "-") == key);
    dashed.map_or((section, key), |option| (option.section, option.name))
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
        assert_eq!(config.lookup_timeout.origin, Origin::File { path: directory.join("b.conf"), line: 1 });
        assert!(*config.debug, "ipa-debug beats the file");
        assert_eq!(config.http_request_timeout.origin, Origin::Default);
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn passwords_in_urls_are_shown_nowhere_and_told_to_the_log() {
        let url = "https://user:s3cret-1@h:6385";
        let cmdline = format!("ipa-api-url={url} ipa-inspection-callback-url={url}/v1/continue?sig=s3cret-2");
        let options = [
            ("conductor_proxy", "http://user:s3cret-3@p:3128"),
            ("container.pull_options", "--creds,user:s3cret-4"),
            ("agent_token", "s3cret-5"),
            ("image_server_password", "s3cret-6"),
        ];
        let (config, _) = load("/nonexistent".as_ref(), &cmdline, &options);
        let rows = config.rows().into_iter().filter(|row| !row.option.full_name().contains("pull_options"));
        let shown: Vec<_> = rows.map(|row| row.value).collect();
        assert!(!shown.iter().any(|value| value.contains("s3cret")), "{shown:?}");
        assert!(shown.contains(&"https://***@h:6385".to_owned()), "{shown:?}");
        let secrets = Secrets::default();
        config.tell_secrets(&secrets);
        for number in 1..=6 {
            let text = secrets.hide(format!("x s3cret-{number} y").as_bytes());
            assert_eq!(String::from_utf8(text).unwrap(), "x *** y", "{number}");
        }
        let overrides = Overrides {
            values: vec![("conductor_proxy".into(), "ftp://u:s3cret@p".into())],
            ..Overrides::default()
        };
        let error =
            Config::load(&sys::fake::host("/nonexistent"), &Cmdline::default(), &overrides).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[test]
    fn a_proxy_of_the_kernel_command_line_is_said_not_to_be_for_the_conductor() {
        let (_, warnings) = load("/nonexistent".as_ref(), "http_proxy=http://p:3128", &[]);
        assert!(warnings[0].contains("http_proxy is not used for calls to the conductor"), "{warnings:?}");
        let words = "http_proxy=http://p:3128 ferric-conductor-proxy=http://q:3128";
        assert!(load("/nonexistent".as_ref(), words, &[]).1.is_empty());
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
        let overrides =
            Overrides { values: vec![("listen_port".into(), "99999".into())], ..Overrides::default() };
        let error = Config::load(&host, &Cmdline::default(), &overrides).unwrap_err().to_string();
        assert!(error.contains("listen_port") && error.contains("`99999` is not a port number"), "{error}");
        let overrides = Overrides { values: vec![("colour".into(), "red".into())], ..Overrides::default() };
        assert!(matches!(
            Config::load(&host, &Cmdline::default(), &overrides),
            Err(Error::UnknownOption { .. })
        ));
    }

    #[test]
    fn a_senseless_value_of_a_parameter_or_a_file_is_a_warning_and_the_value_before_it_stays() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(
            root.path().join("etc/ironic-python-agent.conf"),
            "lookup_timeout = soon\nlisten_port = 7\n",
        )
        .unwrap();
        let cmdline =
            "ipa-debug=maybe ipa-listen-port=99999 ipa-lookup-timeout=44 ipa-http-request-timeout=0";
        let (config, warnings) = load(root.path(), cmdline, &[]);
        assert_eq!((*config.debug, *config.listen_port), (false, 7));
        assert_eq!(*config.lookup_timeout, Duration::from_secs(44));
        assert_eq!(**config.http_request_timeout, Duration::from_secs(30));
        assert_eq!(warnings.len(), 4, "{warnings:?}");
        for part in [
            "option debug (from kernel parameter ipa-debug): `maybe` is not true or false and is ignored; `false` is used instead",
            "kernel parameter ipa-listen-port",
            "kernel parameter ipa-http-request-timeout",
            "ironic-python-agent.conf:1): `soon`",
        ] {
            assert!(warnings.iter().any(|warning| warning.contains(part)), "{part}: {warnings:?}");
        }
        assert!(!*Config::from_cmdline(&Cmdline::parse("ipa-debug=maybe")).debug);
    }

    #[test]
    fn every_kernel_parameter_survives_a_typo_or_is_an_error_that_names_it() {
        for option in OPTIONS {
            let Some(parameter) = option.kernel else { continue };
            let cmdline = Cmdline::parse(&format!("{parameter}=\u{1f980}?"));
            match Config::load(&sys::fake::host("/nonexistent"), &cmdline, &Overrides::default()) {
                Ok((config, warnings)) => {
                    let row = config.rows().into_iter().find(|row| row.option == option).unwrap();
                    let told = warnings.iter().any(|warning| warning.contains(parameter));
                    assert!(
                        told || row.value.contains('?') || row.value == "(hidden)",
                        "{parameter}: {row:?}"
                    );
                }
                Err(error) => {
                    assert!(MUST_BE_RIGHT.contains(&option.name), "{error}");
                    assert!(error.to_string().contains(parameter), "{error}");
                }
            }
            let _ = Config::from_cmdline(&cmdline);
        }
    }

    #[test]
    fn a_senseless_wish_for_more_safety_counts_as_the_wish() {
        let (config, warnings) =
            load("/nonexistent".as_ref(), "ferric-require-signature=yse ferric-verify-writes=ture", &[]);
        assert!(*config.require_signature && *config.verify_writes);
        assert!(warnings.iter().all(|warning| warning.contains("`true` is used instead")), "{warnings:?}");
    }

    #[test]
    fn nearly_right_names_are_suggested() {
        let (_, warnings) = load("/nonexistent".as_ref(), "ipa-apiurl=http://a ferric-disk=sda", &[]);
        assert!(warnings[0].ends_with("is ignored; did you mean ferric-disks?"), "{warnings:?}");
        assert!(warnings[1].ends_with("is ignored; did you mean ipa-api-url?"), "{warnings:?}");
        let overrides = Overrides { values: vec![("log-file".into(), "x".into())], ..Overrides::default() };
        let host = sys::fake::host("/nonexistent");
        let error = Config::load(&host, &Cmdline::default(), &overrides).unwrap_err().to_string();
        assert!(error.contains("did you mean log_file?"), "{error}");
    }

    #[test]
    fn sections_old_names_and_dashes_are_understood_and_what_changes_nothing_is_told() {
        let root = tempfile::tempdir().unwrap();
        let text = "[ssl]\ncert_file = /c\nkey_file = /k\n[container]\nrunner = docker\nrun-options = --a, --b\n\
                    [disk_utils]\ndd_block_size = 4M\nnot_there = 1\n";
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/ironic-python-agent.conf"), text).unwrap();
        let (config, warnings) = load(root.path(), "", &[("mdns.use_mdns", "yes")]);
        assert_eq!(config.tls_cert_file.as_deref(), Some("/c".as_ref()));
        assert!(*config.listen_tls, "both files present means TLS");
        assert_eq!(*config.container_runner, ContainerRunner::Docker);
        assert_eq!(*config.container_run_options, ["--a", "--b"]);
        assert!(*config.mdns_use);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[0].contains("line 9") && warnings[0].contains("[disk_utils] not_there"),
            "{warnings:?}"
        );
        assert!(warnings[1].contains("disk_utils.dd_block_size") && warnings[1].contains("changes nothing"));
    }

    #[test]
    fn the_users_own_file_goes_before_that_of_the_machine_and_named_ones_before_both() {
        let root = tempfile::tempdir().unwrap();
        for (folder, port) in [("etc", 1), ("home", 2), ("named", 3)] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
            let file = root.path().join(folder).join("ironic-python-agent.conf");
            std::fs::write(file, format!("listen_port = {port}\n")).unwrap();
        }
        let port = |overrides: Overrides| {
            let host = sys::fake::host(root.path());
            *Config::load(&host, &Cmdline::default(), &overrides).unwrap().0.listen_port
        };
        let home = Overrides { home: Some("/home".into()), ..Overrides::default() };
        let named = root.path().join("named/ironic-python-agent.conf");
        assert_eq!(port(Overrides::default()), 1);
        assert_eq!(port(home.clone()), 2);
        assert_eq!(port(Overrides { files: vec![named], ..home }), 3);
    }

    #[test]
    fn the_log_file_lies_in_the_log_folder_unless_it_is_absolute() {
        for (values, expected) in [
            (&[][..], None),
            (&[("log_file", "/var/log/a")][..], Some("/var/log/a")),
            (&[("log_dir", "/var/log")], Some("/var/log/ferric-agent.log")),
            (&[("log_dir", "/var/log"), ("log_file", "a")], Some("/var/log/a")),
            (&[("log_dir", "/var/log"), ("log_file", "/a")], Some("/a")),
        ] {
            let (config, _) = load("/nonexistent".as_ref(), "", values);
            assert_eq!(config.log_path(), expected.map(PathBuf::from), "{values:?}");
        }
    }

    #[test]
    fn every_option_takes_its_own_default_back() {
        // What `ferric-agent config` prints can be put into a file.
        let mut config = Config::default();
        for row in Config::default().rows() {
            if row.value != "-" && row.value != "(hidden)" {
                let known = config.set(row.option.section, row.option.name, &row.value, Origin::Flag);
                assert!(known.unwrap(), "{}", row.option.full_name());
            }
        }
        let rows = |config: &Config| config.rows().into_iter().map(|row| row.value).collect::<Vec<_>>();
        assert_eq!(rows(&config), rows(&Config::default()));
    }

    #[test]
    fn showing_the_configuration_never_shows_a_secret() {
        let (config, _) =
            load("/nonexistent".as_ref(), "ipa-agent-token=hunter2", &[("image_server_password", "pw9")]);
        let text: String =
            config.rows().iter().map(|row| format!("{} {}\n", row.option.name, row.value)).collect();
        assert!(!text.contains("hunter2") && !text.contains("pw9"), "{text}");
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.rows().len(), OPTIONS.len());
    }
}
