//! The version documents. Source: as recorded from a running Ironic.

use axum::Json;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::version::{MAXIMUM, MINIMUM};

/// Scheme and authority of our API as this client reached it.
pub fn base(headers: &HeaderMap) -> String {
    let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}

fn version(base: &str) -> Value {
    json!({
        "id": "v1", "links": [{ "href": format!("{base}/v1/"), "rel": "self" }], "status": "CURRENT",
        "min_version": MINIMUM.to_string(), "version": MAXIMUM.to_string(),
    })
}

/// `GET /`.
pub async fn root(headers: HeaderMap) -> Json<Value> {
    let version = version(&base(&headers));
    Json(json!({
        "name": "OpenStack Ironic API",
        "description": "Ferric controller: bare metal provisioning with Ironic's API",
        "default_version": version, "versions": [version],
    }))
}

/// `GET /v1`.
pub async fn v1(headers: HeaderMap) -> Json<Value> {
    let base = base(&headers);
    let pair = |what: &str| {
        json!([
            { "href": format!("{base}/v1/{what}/"), "rel": "self" },
            { "href": format!("{base}/{what}/"), "rel": "bookmark" },
        ])
    };
    Json(json!({
        "id": "v1", "links": [{ "href": format!("{base}/v1/"), "rel": "self" }],
        "media_types": [{ "base": "application/json", "type": "application/vnd.openstack.ironic.v1+json" }],
        "nodes": pair("nodes"), "ports": pair("ports"), "lookup": pair("lookup"), "heartbeat": pair("heartbeat"),
        "version": version(&base),
    }))
}
