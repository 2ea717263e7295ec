//! `/v1/ports`: how machines are recognised. Source: Ironic `api/controllers/v1/port.py`.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use wire::{Port, normalize_mac};

use super::nodes::object;
use super::root::base;
use super::{ApiError, view};
use crate::controller::Controller;
use crate::store::StoreError;

/// `GET /v1/ports`, by node or address where asked.
pub async fn list(
    State(controller): State<Controller>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let node = match query.get("node").or_else(|| query.get("node_uuid")) {
        Some(ident) => Some(controller.store.node(ident).await?.node.uuid),
        None => None,
    };
    let mut ports = controller.store.ports(node).await?;
    if let Some(address) = query.get("address") {
        let mac = mac(address)?;
        ports.retain(|port| port.address == mac);
    }
    Ok(Json(collection(&ports, &headers)))
}

/// `GET /v1/nodes/{node}/ports`.
pub async fn of_node(
    State(controller): State<Controller>,
    Path(node): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let record = controller.store.node(&node).await?;
    let ports = controller.store.ports(Some(record.node.uuid)).await?;
    Ok(Json(collection(&ports, &headers)))
}

fn collection(ports: &[Port], headers: &HeaderMap) -> Value {
    let base = base(headers);
    json!({ "ports": ports.iter().map(|port| view::port(port, &base)).collect::<Vec<_>>() })
}

/// `POST /v1/ports`.
pub async fn create(
    State(controller): State<Controller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let given = object(&body)?;
    let known = ["address", "node_uuid", "uuid", "extra", "pxe_enabled"];
    if let Some(key) = given.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(ApiError::bad(format!(
            "Schema error for port: Additional properties are not allowed ('{key}' was unexpected)"
        )));
    }
    let text = |key: &str| given.get(key).and_then(Value::as_str);
    let address = text("address")
        .ok_or_else(|| ApiError::bad("Schema error for port: 'address' is a required property"))?;
    let node = text("node_uuid")
        .ok_or_else(|| ApiError::bad("Schema error for port: 'node_uuid' is a required property"))?;
    let node_uuid = match controller.store.node(node).await {
        Ok(record) => record.node.uuid,
        // As Ironic: the port's address is fine, what it says is not.
        Err(StoreError::NoNode(_)) => return Err(ApiError::bad(format!("Node {node} could not be found."))),
        Err(error) => return Err(error.into()),
    };
    let port = Port {
        uuid: text("uuid").and_then(|uuid| uuid.parse().ok()).unwrap_or_else(Uuid::new_v4),
        node_uuid,
        address: mac(address)?,
        pxe_enabled: given.get("pxe_enabled").and_then(Value::as_bool).unwrap_or(true),
        extra: given.get("extra").and_then(Value::as_object).cloned().unwrap_or_default(),
        created_at: None,
        updated_at: None,
    };
    let port = controller.store.create_port(port).await?;
    let base = base(&headers);
    Ok(view::created(view::port(&port, &base), &format!("{base}/v1/ports/{}", port.uuid)))
}

/// `GET /v1/ports/{port}`.
pub async fn show(
    State(controller): State<Controller>,
    Path(port): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Map<String, Value>>, ApiError> {
    let port = controller.store.port(&port).await?;
    Ok(Json(view::port(&port, &base(&headers))))
}

/// `DELETE /v1/ports/{port}`.
pub async fn delete(
    State(controller): State<Controller>,
    Path(port): Path<String>,
) -> Result<StatusCode, ApiError> {
    let port = controller.store.port(&port).await?;
    controller.store.delete_port(port.uuid).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn mac(text: &str) -> Result<String, ApiError> {
    normalize_mac(text).ok_or_else(|| ApiError::bad(format!("Expected a MAC address but received {text}.")))
}
