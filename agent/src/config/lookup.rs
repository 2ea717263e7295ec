//! What the conductor's lookup reply configures. Source: agent protocol page, 3.5.

use serde_json::Value;
use wire::AgentConfig;

use super::{Config, Origin};

impl Config {
    /// Applies what the conductor configures at lookup, and logs each value that changes. A value that makes no sense is left
    /// out, with a warning in the log.
    pub fn apply_lookup(&mut self, reply: &AgentConfig) {
        let flag = |flag: Option<bool>| flag.map(Value::from);
        let formats = reply.permitted_image_formats.clone().map(Value::from);
        self.apply("DEFAULT", "md5_enabled", flag(reply.agent_md5_checksum_enable));
        self.apply("DEFAULT", "disable_deep_image_inspection", flag(reply.disable_deep_image_inspection));
        self.apply("DEFAULT", "permitted_image_formats", formats);
        self.apply("DEFAULT", "agent_skip_bmc_detect", flag(reply.agent_skip_bmc_detect));
        // False never resets it.
        let bios = reply.enable_bios_bootloader_install.filter(|on| *on);
        self.apply("DEFAULT", "enable_bios_bootloader_install", flag(bios));
        let given = |text: &String| !text.is_empty();
        let version = reply.tls_min_version.clone().filter(given).map(Value::from);
        self.apply("DEFAULT", "tls_min_version", version);
        let suites = reply.rest.get("tls_cipher_suites").cloned();
        let suites = suites.filter(|suites| suites.as_str() != Some(""));
        self.apply("DEFAULT", "tls_cipher_suites", suites);
        let containers = reply.rest.get("agent_containers").and_then(Value::as_object);
        for (name, value) in containers.into_iter().flatten() {
            self.apply("container", name, Some(value.clone()));
        }
    }

    /// Sets one option; null and absence leave it as it is.
    fn apply(&mut self, section: &str, name: &str, value: Option<Value>) {
        let Some(value) = value.filter(|value| !value.is_null()) else { return };
        let before = self.shown(section, name);
        match self.set_json(section, name, &value, Origin::Lookup) {
            Ok(true) => {
                let now = self.shown(section, name);
                if now == before {
                    tracing::debug!(section, name, "lookup confirms the option");
                } else {
                    tracing::info!(section, name, before, now, "lookup sets the option");
                }
            }
            Ok(false) => {
                tracing::warn!(section, name, "the conductor sets an option that is not known here");
            }
            Err(error) => {
                tracing::warn!(%error, "the conductor's configuration holds a value that is not understood");
            }
        }
    }

    fn shown(&self, section: &str, name: &str) -> Option<String> {
        let wanted = |row: &super::Row| row.option.section == section && row.option.name == name;
        self.rows().into_iter().find(wanted).map(|row| row.value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ContainerRunner;
    use super::*;
    use serde_json::json;

    fn applied(reply: Value) -> Config {
        let mut config = Config::default();
        config.apply_lookup(&serde_json::from_value(reply).unwrap());
        config
    }

    #[test]
    fn lookup_sets_what_it_may_and_nonsense_is_left_out() {
        let config = applied(json!({
            "heartbeat_timeout": 300, "agent_md5_checksum_enable": false, "tls_min_version": "9",
            "permitted_image_formats": ["raw", "iso"], "enable_bios_bootloader_install": false,
            "disable_deep_image_inspection": null, "tls_cipher_suites": "ECDHE-RSA-AES256-GCM-SHA384",
        }));
        assert!(!*config.md5_enabled);
        assert_eq!(config.md5_enabled.origin, Origin::Lookup);
        assert_eq!(config.tls_min_version.origin, Origin::Default);
        assert_eq!(config.enable_bios_bootloader_install.origin, Origin::Default);
        assert_eq!(config.disable_deep_image_inspection.origin, Origin::Default);
        assert_eq!(*config.permitted_image_formats, ["raw", "iso"]);
        let suites = config.tls_cipher_suites.as_ref().unwrap();
        assert_eq!(suites.names().collect::<Vec<_>>(), ["ECDHE-RSA-AES256-GCM-SHA384"]);
    }

    #[test]
    fn container_options_are_set_one_by_one() {
        let config = applied(json!({
            "heartbeat_timeout": 300, "tls_cipher_suites": null,
            "agent_containers": {"allow_arbitrary_containers": true, "runner": "rkt", "unheard_of": 1,
                "allowed_containers": ["a/b", "c"], "run_options": ["--env=X=1,2"]},
        }));
        assert!(*config.container_allow_arbitrary);
        assert_eq!(*config.container_runner, ContainerRunner::Podman, "rkt is not known");
        assert_eq!(*config.container_allowed, ["a/b", "c"]);
        assert_eq!(*config.container_run_options, ["--env=X=1,2"], "a comma in an item stays");
        assert!(config.tls_cipher_suites.is_none());
    }
}
