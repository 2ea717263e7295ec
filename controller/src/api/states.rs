//! `/v1/nodes/{node}/states`: what a node is, and what it shall become. Source: Ironic `api/controllers/v1/node.py`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value};
use wire::{PowerState, ProvisionState, StepKind};

use super::nodes::object;
use super::{ApiError, view};
use crate::config_drive;
use crate::controller::Controller;
use crate::deploy::{automated_clean, check_deploy};
use crate::machine::{self, Verb};
use crate::record::{BootDevice, Record, Work};
use crate::store::{StoreError, apply};

/// `GET .../states`.
pub async fn show(
    State(controller): State<Controller>,
    Path(node): Path<String>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    Ok(Json(view::states(&controller.store.node(&node).await?)))
}

/// `PUT .../states/provision`: starts an operation. 202 says that it began.
pub async fn provision(
    State(controller): State<Controller>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let given = object(&body)?;
    let target = given.get("target").and_then(Value::as_str).unwrap_or_default();
    let verb = Verb::from_target(target).ok_or_else(|| {
        ApiError::bad(format!(
            "The requested action \"{target}\" is not known; there are: manage, provide, active, rebuild, deleted, clean, abort"
        ))
    })?;
    let record = controller.store.node(&node).await?;
    let uuid = record.node.uuid;
    if record.node.maintenance && matches!(verb, Verb::Deploy | Verb::Rebuild) {
        return Err(ApiError::bad(format!("The node \"{}\" is in maintenance.", record.node.label())));
    }
    let configdrive = match verb {
        Verb::Deploy | Verb::Rebuild => {
            // A wrong state is the more helpful thing to hear first.
            let at = record.node.provision_state;
            if machine::next(at, record.node.target_provision_state, verb).is_some() {
                check_deploy(
                    &record.node,
                    controller.config.ramdisk_files().is_some(),
                    controller.config.enable_bios_bootloader_install,
                )?;
                controller.power(&record, |driver, machine| driver.validate(machine)).await?;
                check_image_is_reached(&controller, &record)?;
            }
            configdrive(&record, given.get("configdrive"))?
        }
        _ => None,
    };
    let clean_steps = clean_steps(verb, &given)?;
    let start = move |record: &mut Record| start(record, verb, configdrive, clean_steps);
    let (record, ()) = controller.store.update(&uuid.to_string(), start).await?;
    match verb {
        Verb::Deploy | Verb::Rebuild => {
            controller.store.clear_marks(uuid).await?;
            controller.hub.begin(uuid);
        }
        Verb::Abort => {
            let label = record.node.label();
            tracing::info!(node = %label, "aborted by an operator: switching the machine off");
            controller.power_off(&record).await?;
        }
        _ => {}
    }
    controller.hub.wake(uuid);
    controller.work_on(uuid);
    Ok(StatusCode::ACCEPTED)
}

/// A machine whose network is cut off finds out after minutes; better said now.
fn check_image_is_reached(controller: &Controller, record: &Record) -> Result<(), ApiError> {
    let info = &record.node.instance_info;
    let image = info.get("image_source").and_then(Value::as_str).unwrap_or_default();
    let driver = controller.power.driver(&record.node.driver);
    if !image.starts_with("http") {
        return Ok(()); // not a URL that a machine fetches from a web server
    }
    match driver.and_then(|driver| driver.unreachable(image, &controller.config.advertise)) {
        Some(problem) => Err(ApiError::bad(format!("node {}: {problem}", record.node.label()))),
        None => Ok(()),
    }
}

fn start(
    record: &mut Record,
    verb: Verb,
    configdrive: Option<Value>,
    clean_steps: Option<Vec<Map<String, Value>>>,
) -> Result<(), StoreError> {
    let label = record.node.label();
    apply(record, verb)?;
    record.node.last_error = None;
    match verb {
        Verb::Deploy | Verb::Rebuild => {
            if let Some(drive) = configdrive {
                record.node.instance_info.insert("configdrive".into(), drive);
            }
            record.node.driver_internal_info.clear();
            record.work = Some(Work::new(StepKind::Deploy));
        }
        Verb::Provide => record.work = automated_clean(record),
        Verb::Clean => {
            let mut work = Work::new(StepKind::Clean);
            work.steps = clean_steps.unwrap_or_default();
            record.work = Some(work);
        }
        Verb::Delete => record.work = None,
        Verb::Abort => {
            record.work = None;
            record.boot = BootDevice::Disk;
            record.node.last_error =
                Some(format!("the operation on node {label} was aborted by an operator"));
        }
        Verb::Manage | Verb::Done | Verb::Fail | Verb::Wait | Verb::Resume => {}
    }
    Ok(())
}

/// A text goes to the agent as it is; an object becomes an image here.
fn configdrive(record: &Record, given: Option<&Value>) -> Result<Option<Value>, ApiError> {
    match given {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(Value::String(text.clone()))),
        Some(Value::Object(object)) => {
            let uuid = record.node.uuid.to_string();
            Ok(Some(Value::String(config_drive::from_object(object, &uuid, &record.node.label())?)))
        }
        Some(_) => Err(ApiError::bad(
            "configdrive must be a text (base64 of a gzipped ISO image, or a URL) or an object",
        )),
    }
}

fn clean_steps(verb: Verb, given: &Map<String, Value>) -> Result<Option<Vec<Map<String, Value>>>, ApiError> {
    let wrong = "clean_steps must be a list of objects with interface and step, when the target is clean";
    match (verb, given.get("clean_steps")) {
        (Verb::Clean, Some(Value::Array(list))) if !list.is_empty() => {
            let steps: Option<Vec<_>> = list.iter().map(|step| step.as_object().cloned()).collect();
            let steps = steps.ok_or_else(|| ApiError::bad(wrong))?;
            let complete = |step: &Map<String, Value>| {
                ["interface", "step"].iter().all(|key| step.get(*key).is_some_and(Value::is_string))
            };
            if steps.iter().all(complete) { Ok(Some(steps)) } else { Err(ApiError::bad(wrong)) }
        }
        (Verb::Clean, _) => Err(ApiError::bad(wrong)),
        _ => Ok(None),
    }
}

/// `PUT .../states/power`.
pub async fn power(
    State(controller): State<Controller>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let given = object(&body)?;
    let target = given.get("target").and_then(Value::as_str).unwrap_or_default();
    let action = match target {
        "power on" => Action::On,
        "power off" | "soft power off" => Action::Off,
        "rebooting" | "soft rebooting" => Action::Reset,
        other => {
            return Err(ApiError::bad(format!(
                "The requested power target \"{other}\" is not known; there are: power on, power off, rebooting"
            )));
        }
    };
    let record = controller.store.node(&node).await?;
    let state = record.node.provision_state;
    // While an agent is awaited nobody else acts on the machine: whoever switches it off ends the operation.
    if state.is_transient() && !matches!(state, ProvisionState::WaitCallback | ProvisionState::CleanWait) {
        return Err(ApiError::conflict(format!(
            "Node {} is in state \"{}\": its power belongs to that operation. Abort it first (target abort).",
            record.node.label(),
            record.node.provision_state
        )));
    }
    let label = record.node.label();
    tracing::info!(node = %label, target, "power action asked for");
    let device = record.boot;
    let seen = match action {
        Action::On => {
            controller.power_on(&record, device).await?;
            PowerState::On
        }
        Action::Off => {
            controller.power_off(&record).await?;
            PowerState::Off
        }
        Action::Reset => {
            controller.power(&record, |driver, machine| driver.reset(machine)).await?;
            PowerState::On
        }
    };
    controller.saw_power(record.node.uuid, seen, action != Action::On).await?;
    Ok(StatusCode::ACCEPTED)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    On,
    Off,
    Reset,
}
