//! Software RAID: the steps `create_configuration`, `apply_configuration` and `delete_configuration`, and starting arrays
//! that an earlier boot made. Source: data plane page, 9.
//!
//! - [`config`] reads what is wanted, [`plan`] says which disks and where on them: pure, all problems found at once.
//! - [`fate`] says what becomes of arrays that exist where the operator wants some to be kept.
//! - [`create`] and [`delete`] do it, by [`mdadm`] and this agent's own partition tables.
//! - [`root`] says which array the node's root volume is.

mod config;
mod create;
mod delete;
mod fate;
pub(crate) mod mdadm;
mod plan;
pub(crate) mod root;
mod start;

use hwm::{Context, Error};
use serde_json::{Map, Value, json};

pub(crate) use start::start_arrays;

use super::arguments::{invalid, only, required};
use super::partition::boot_mode::is_true;
use crate::settings::Settings;

/// **Makes the arrays of `target_raid_config`.** Disks with partitions are refused. Returns what the conductor keeps as the
/// node's configuration.
pub(crate) fn create_configuration(
    cx: &Context,
    settings: &Settings,
    arguments: &Map<String, Value>,
) -> Result<Value, Error> {
    only(arguments, "create_configuration", &[])?;
    match cx.node_field("/target_raid_config") {
        Some(wanted) if !is_nothing(wanted) => create::run(cx, settings, wanted),
        _ => Ok(json!({})),
    }
}

/// **Makes the arrays of the argument `raid_config`**, after deleting those that exist unless `delete_existing` is false.
/// Returns the same as [`create_configuration`].
pub(crate) fn apply_configuration(
    cx: &Context,
    settings: &Settings,
    arguments: &Map<String, Value>,
) -> Result<Value, Error> {
    const STEP: &str = "apply_configuration";
    only(arguments, STEP, &["raid_config", "delete_existing"])?;
    let wanted = required(arguments, STEP, "raid_config")?;
    if !wanted.is_object() {
        return Err(invalid(format!("argument raid_config of step {STEP} is not an object")));
    }
    // Before anything is deleted: a configuration that can not be must not cost the old one.
    config::parse(wanted, &fate::kept_volumes(cx)?)?;
    if arguments.get("delete_existing").is_none_or(is_true) {
        delete::run(cx, settings)?;
    }
    create::run(cx, settings, wanted)
}

/// **Deletes every array and empties the disks that it lay on**, but for volumes that the node wants to be kept.
pub(crate) fn delete_configuration(
    cx: &Context,
    settings: &Settings,
    arguments: &Map<String, Value>,
) -> Result<(), Error> {
    only(arguments, "delete_configuration", &[])?;
    delete::run(cx, settings)
}

fn is_nothing(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn failed(message: impl Into<String>) -> Error {
    Error::SoftwareRaid { message: message.into() }
}

/// Passes what `disk` says on as a failure of this step.
fn wrapped(error: &dyn std::error::Error) -> Error {
    failed(hwm::chain(error))
}
