//! `/v1/nodes`: list, create, show, change, delete. Source: Ironic `api/controllers/v1/node.py`.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value};
use uuid::Uuid;
use wire::{Node, PowerState, ProvisionState};

use super::root::base;
use super::{ApiError, patch, view};
use crate::controller::Controller;
use crate::record::Record;
use crate::store::StoreError;

type Parameters = Query<HashMap<String, String>>;

/// Fields a client may set when it creates a node.
const SETTABLE: [&str; 12] = [
    "uuid",
    "name",
    "driver",
    "driver_info",
    "properties",
    "extra",
    "instance_info",
    "resource_class",
    "owner",
    "description",
    "automated_clean",
    "instance_uuid",
];

/// `GET /v1/nodes`.
pub async fn list(
    State(controller): State<Controller>,
    query: Parameters,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let detail = query.get("detail").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    collection(&controller, &query, &headers, detail).await
}

/// `GET /v1/nodes/detail`.
pub async fn detail(
    State(controller): State<Controller>,
    query: Parameters,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    collection(&controller, &query, &headers, true).await
}

async fn collection(
    controller: &Controller,
    query: &Parameters,
    headers: &HeaderMap,
    detail: bool,
) -> Result<Json<Value>, ApiError> {
    let base = base(headers);
    let state = match query.get("provision_state") {
        None => None,
        Some(text) => Some(text.parse::<ProvisionState>().map_err(|e| ApiError::bad(e.to_string()))?),
    };
    let limit: usize = match query.get("limit") {
        None => usize::MAX,
        Some(text) => match text.parse() {
            Ok(0) => usize::MAX,
            Ok(limit) => limit,
            Err(_) => return Err(ApiError::bad("Limit must be a whole number")),
        },
    };
    let records = controller.store.nodes().await?;
    let after_marker = match query.get("marker") {
        None => 0,
        Some(marker) => match records.iter().position(|r| r.node.uuid.to_string() == *marker) {
            Some(at) => at + 1,
            None => return Err(ApiError::missing(format!("Node {marker} could not be found."))),
        },
    };
    let mut wanted = records
        .iter()
        .skip(after_marker)
        .filter(|record| state.is_none_or(|state| record.node.provision_state == state))
        .filter(|r| query.get("driver").is_none_or(|driver| r.node.driver == *driver))
        .peekable();
    let mut nodes = Vec::new();
    let mut last = None;
    while let Some(record) = wanted.next_if(|_| nodes.len() < limit) {
        let mut map = view::node(record, &base);
        match query.get("fields") {
            Some(fields) => keep(&mut map, &fields.split(',').map(str::trim).collect::<Vec<_>>())?,
            None if detail => {}
            None => keep(&mut map, &view::SHORT)?,
        }
        last = Some(record.node.uuid);
        nodes.push(Value::Object(map));
    }
    let mut reply = Map::new();
    reply.insert("nodes".into(), Value::Array(nodes));
    if let (Some(last), true) = (last, wanted.peek().is_some()) {
        reply.insert("next".into(), format!("{base}/v1/nodes?limit={limit}&marker={last}").into());
    }
    Ok(Json(Value::Object(reply)))
}

fn keep(map: &mut Map<String, Value>, fields: &[&str]) -> Result<(), ApiError> {
    let mut kept = Map::new();
    for field in fields {
        let value = map
            .get(*field)
            .ok_or_else(|| ApiError::bad(format!("Field \"{field}\" is not a field of a node")))?;
        kept.insert((*field).to_owned(), value.clone());
    }
    if let Some(links) = map.get("links") {
        kept.insert("links".into(), links.clone());
    }
    *map = kept;
    Ok(())
}

/// `POST /v1/nodes`.
pub async fn create(
    State(controller): State<Controller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let given = object(&body)?;
    if let Some(key) = given.keys().find(|key| !SETTABLE.contains(&key.as_str())) {
        return Err(ApiError::bad(format!(
            "Schema error for node: Additional properties are not allowed ('{key}' was unexpected)"
        )));
    }
    let driver = match given.get("driver") {
        Some(Value::String(driver)) => driver.clone(),
        _ => return Err(ApiError::bad("Schema error for node: 'driver' is a required property")),
    };
    let uuid = match given.get("uuid") {
        None | Some(Value::Null) => Uuid::new_v4(),
        Some(Value::String(text)) => {
            text.parse().map_err(|_| ApiError::bad(format!("Expected a UUID but received {text}.")))?
        }
        Some(other) => return Err(ApiError::bad(format!("Expected a UUID but received {other}."))),
    };
    let mut full = Node::new(uuid, driver).to_full_map();
    full.extend(given.into_iter().filter(|(key, _)| key != "uuid"));
    let node = patch::to_node(full)?;
    check_driver_info(&controller, &node)?;
    let record = controller.store.create_node(Record::new(node)).await?;
    tracing::info!(node = %record.node.label(), uuid = %uuid, "node created");
    let base = base(&headers);
    Ok(view::created(view::node(&record, &base), &format!("{base}/v1/nodes/{uuid}")))
}

/// `GET /v1/nodes/{node}`.
pub async fn show(
    State(controller): State<Controller>,
    Path(node): Path<String>,
    query: Parameters,
    headers: HeaderMap,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let record = controller.store.node(&node).await?;
    let mut map = view::node(&record, &base(&headers));
    if let Some(fields) = query.get("fields") {
        keep(&mut map, &fields.split(',').map(str::trim).collect::<Vec<_>>())?;
    }
    Ok(Json(map))
}

/// `PATCH /v1/nodes/{node}`: a JSON patch.
pub async fn change(
    State(controller): State<Controller>,
    Path(node): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let operations = patch::parse(&body)?;
    let checker = controller.clone();
    let apply = move |record: &mut Record| {
        let invalid = |error: ApiError| StoreError::Invalid(error.text);
        let changed = patch::apply(&record.node, &operations).map_err(invalid)?;
        if changed.driver != record.node.driver || changed.driver_info != record.node.driver_info {
            check_driver_info(&checker, &changed).map_err(invalid)?;
        }
        record.node = changed;
        Ok(())
    };
    let (record, ()) = controller.store.update(&node, apply).await?;
    controller.hub.wake(record.node.uuid);
    Ok(Json(view::node(&record, &base(&headers))))
}

/// `DELETE /v1/nodes/{node}`.
pub async fn delete(
    State(controller): State<Controller>,
    Path(node): Path<String>,
) -> Result<StatusCode, ApiError> {
    let record = match controller.store.node(&node).await {
        Ok(record) => record,
        Err(StoreError::Damaged { .. }) => return delete_damaged(&controller, &node).await,
        Err(error) => return Err(error.into()),
    };
    let state = record.node.provision_state;
    let idle = matches!(
        state,
        ProvisionState::Enroll
            | ProvisionState::Manageable
            | ProvisionState::Available
            | ProvisionState::CleanFailed
            | ProvisionState::DeployFailed
    );
    let label = record.node.label();
    // As Ironic: not while something is done to it, and not while somebody uses it, unless it is in maintenance.
    if !idle && !record.node.maintenance {
        let hint = if state == ProvisionState::Active { "; take it back first (target deleted)" } else { "" };
        return Err(ApiError::conflict(format!(
            "Can not delete node \"{label}\" while it is in provision state \"{state}\"{hint}."
        )));
    }
    // What the driver holds for a node goes with it; a machine that is running ends.
    if record.node.power_state == Some(PowerState::On) {
        tracing::info!(node = %label, "the node is deleted: its machine is switched off");
    }
    if let Err(error) = controller.power(&record, |driver, machine| driver.forget(machine)).await {
        return Err(error.into());
    }
    controller.store.delete_node(record.node.uuid).await?;
    controller.hub.forget(record.node.uuid);
    tracing::info!(node = %label, "node deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// A record that does not read hides its driver and its state: every driver forgets the machine, then the record goes.
async fn delete_damaged(controller: &Controller, node: &str) -> Result<StatusCode, ApiError> {
    let uuid = controller.store.node_uuid(node).await?;
    controller.power.forget_everywhere(uuid).await.map_err(crate::controller::PowerFault::Power)?;
    controller.store.delete_node(uuid).await?;
    controller.hub.forget(uuid);
    tracing::info!(node = %uuid, "damaged record deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a driver that is not there, and settings that no client may make.
fn check_driver_info(controller: &Controller, node: &Node) -> Result<(), ApiError> {
    let refused = |problem: String| ApiError::bad(format!("driver_info of node {}: {problem}", node.label()));
    let driver = controller.power.driver(&node.driver).ok_or_else(|| {
        let known = controller.power.names().join(", ");
        ApiError::bad(format!(
            "No valid host was found. Reason: no driver {}; there are: {known}",
            node.driver
        ))
    })?;
    driver.check(&node.driver_info).map_err(refused)?;
    match node.driver_info.get("kernel_append_params") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) => crate::boot::check_parameters(text)
            .map_err(|problem| refused(format!("kernel_append_params: {problem}"))),
        Some(_) => Err(refused("kernel_append_params must be a text".into())),
    }
}

/// A JSON object in a request body.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ApiError::bad("The request body must be a JSON object")),
        Err(error) => Err(ApiError::bad(format!("The request body is no JSON: {error}"))),
    }
}
