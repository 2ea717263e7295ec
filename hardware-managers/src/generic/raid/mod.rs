//! Software RAID: the steps `create_configuration`, `apply_configuration` and `delete_configuration`, and starting arrays
//! that an earlier boot made. Source: data plane page, 9.
//!
//! - [`config`] reads what is wanted, [`plan`] says which disks and where on them: pure, all problems found at once.
//! - [`fate`] says what becomes of arrays that exist where the operator wants some to be kept.
//! - [`create`] and [`delete`] do it, by [`mdadm`] and this agent's own partition tables.
//! - [`esp`] puts what UEFI boots from beside the arrays, [`below`] makes room there for what BIOS boots from.
//! - [`root`] says which array the node's root volume is.

pub(crate) mod below;
mod config;
mod create;
mod delete;
pub(crate) mod esp;
mod fate;
pub(crate) mod mdadm;
mod plan;
pub(crate) mod root;
mod start;

use disk::{AllowList, Policy, Refusal, Target, md};
use hwm::{Context, Error};
use serde_json::{Map, Value, json};

pub(crate) use start::start_arrays;

use super::arguments::{invalid, only, required};
use super::deploy::protected;
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

/// The array of this device, if it is one.
pub(crate) fn array_of(cx: &Context, device: &str) -> Result<Option<md::Array>, Error> {
    let arrays = md::arrays(&cx.host).map_err(|error| wrapped(&error))?;
    Ok(arrays.into_iter().find(|array| array.device == device))
}

/// A claim on an array, which may be written where all its members may: they were looked at before. `None` for one that does
/// not run, or that another array holds.
fn array_target(cx: &Context, array: &md::Array) -> Result<Option<Target>, Error> {
    if array.size_bytes == 0 {
        return Ok(None);
    }
    let disk = disk::describe(&cx.host, array.device.trim_start_matches("/dev/"));
    let allow = AllowList::parse(&array.device).map_err(|error| wrapped(&error))?;
    let policy = Policy { allow: Some(allow), ..Policy::detect(&cx.host, None) };
    match Target::claim(&cx.host, &disk, &policy) {
        Ok(target) => Ok(Some(target)),
        // One that failed can only be read: there is nothing to be wiped any more.
        Err(Refusal::ReadOnly { .. }) => Ok(None),
        // One that is a member of another goes when that is gone.
        Err(Refusal::Held { holder, .. }) if holder.starts_with("md") => Ok(None),
        Err(refusal) => Err(protected(&refusal)),
    }
}

/// Passes what `disk` says on as a failure of this step.
fn wrapped(error: &dyn std::error::Error) -> Error {
    failed(hwm::chain(error))
}
