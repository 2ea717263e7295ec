//! What the conductor and the configuration say about erasing.

use std::time::Duration;

use disk::erase::Overwrite;
use hwm::{Context, Error};
use serde_json::Value;

use crate::generic::arguments::invalid;
use crate::settings::Settings;

/// The options of the erase steps. The conductor writes all but the last three into `driver_internal_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EraseOptions {
    /// How a disk is written over that can not erase itself.
    pub(super) overwrite: Overwrite,
    /// Whether a disk is written over after its own erasing failed.
    pub(super) continue_after_failure: bool,
    /// Whether NVMe disks shall format themselves.
    pub(super) nvme: bool,
    /// Whether other disks are asked for ATA secure erase.
    pub(super) ata: bool,
    /// Whether a disk that can only be read is left out, instead of failing the step.
    pub(super) skip_read_only: bool,
    /// How many disks are erased at once.
    pub(super) concurrency: usize,
    /// Whether disks with a file system that other machines share are kept.
    pub(super) guard: bool,
    /// How long a disk may take for one request before it counts as one that does not answer.
    pub(super) stall_limit: Duration,
}

impl EraseOptions {
    pub(super) fn read(cx: &Context, settings: &Settings) -> Result<Self, Error> {
        let info = Info(cx);
        let failed = "agent_continue_if_secure_erase_failed";
        // The older name counts where the newer one is not there.
        let failed = if info.get(failed).is_some() { failed } else { "agent_continue_if_ata_erase_failed" };
        let concurrency = info.number("disk_erasure_concurrency", 1)?.max(1);
        Ok(Self {
            overwrite: Overwrite {
                random_passes: info.number("agent_erase_devices_iterations", 1)?,
                zero_pass: info.flag("agent_erase_devices_zeroize", true)?,
                verify: info.flag("agent_erase_devices_verify", false)?,
            },
            continue_after_failure: info.flag(failed, false)?,
            nvme: info.flag("agent_enable_nvme_secure_erase", true)?,
            ata: info.flag("agent_enable_ata_secure_erase", true)?,
            skip_read_only: info.flag("agent_erase_skip_read_only", false)?,
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX),
            guard: settings.guard_special_filesystems && info.flag("wipe_special_filesystems", true)?,
            stall_limit: settings.erase_stall_limit,
        })
    }
}

/// `driver_internal_info`.
struct Info<'a>(&'a Context);

impl Info<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.node_field(&format!("/driver_internal_info/{name}"))
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(invalid(format!("driver_internal_info.{name} is {other}, not true or false"))),
        }
    }

    fn number(&self, name: &str, default: u32) -> Result<u32, Error> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .or_else(|| value.as_str()?.trim().parse().ok())
                .and_then(|number| u32::try_from(number).ok())
                .ok_or_else(|| {
                    invalid(format!("driver_internal_info.{name} is {value}, not a number from 0"))
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use serde_json::json;

    fn read(info: Value) -> Result<EraseOptions, Error> {
        let cx = Context::new(Fixture::new().host(), events::Events::default())
            .with_node(json!({"uuid": "u", "driver_internal_info": info}));
        EraseOptions::read(&cx, &Settings::default())
    }

    #[test]
    fn what_the_conductor_leaves_out_has_the_defaults_of_ironic_python_agent() {
        let defaults = read(json!({})).unwrap();
        let wanted = EraseOptions {
            overwrite: Overwrite { random_passes: 1, zero_pass: true, verify: false },
            continue_after_failure: false,
            nvme: true,
            ata: true,
            skip_read_only: false,
            concurrency: 1,
            guard: true,
            stall_limit: Duration::from_secs(600),
        };
        assert_eq!(defaults, wanted);
        assert_eq!(read(json!({"disk_erasure_concurrency": null})).unwrap(), wanted);
    }

    #[test]
    fn what_it_sends_counts() {
        let options = read(json!({
            "agent_erase_devices_iterations": 3, "agent_erase_devices_zeroize": false,
            "agent_enable_nvme_secure_erase": false, "agent_enable_ata_secure_erase": false,
            "agent_erase_skip_read_only": true, "disk_erasure_concurrency": 4, "wipe_special_filesystems": false,
        }))
        .unwrap();
        let wanted = EraseOptions {
            overwrite: Overwrite { random_passes: 3, zero_pass: false, verify: false },
            continue_after_failure: false,
            nvme: false,
            ata: false,
            skip_read_only: true,
            concurrency: 4,
            guard: false,
            stall_limit: Duration::from_secs(600),
        };
        assert_eq!(options, wanted);
        let cx = Context::new(Fixture::new().host(), events::Events::default());
        let unguarded = Settings { guard_special_filesystems: false, ..Settings::default() };
        assert!(!EraseOptions::read(&cx, &unguarded).unwrap().guard);
        assert_eq!(read(json!({"disk_erasure_concurrency": 0})).unwrap().concurrency, 1);
    }

    #[test]
    fn the_older_name_of_the_fallback_counts_only_without_the_newer() {
        for (info, wanted) in [
            (json!({"agent_continue_if_ata_erase_failed": true}), true),
            (json!({"agent_continue_if_secure_erase_failed": true}), true),
            (
                json!({"agent_continue_if_secure_erase_failed": false, "agent_continue_if_ata_erase_failed": true}),
                false,
            ),
            (
                json!({"agent_continue_if_secure_erase_failed": null, "agent_continue_if_ata_erase_failed": true}),
                true,
            ),
        ] {
            assert_eq!(read(info.clone()).unwrap().continue_after_failure, wanted, "{info}");
        }
    }

    #[test]
    fn values_of_another_type_are_refused_by_name() {
        for (name, value) in [
            ("agent_erase_devices_iterations", json!(-1)),
            ("agent_erase_devices_zeroize", json!("perhaps")),
            ("disk_erasure_concurrency", json!([4])),
        ] {
            let error = read(json!({name: value})).unwrap_err();
            assert!(matches!(error, Error::InvalidParameters { .. }), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
