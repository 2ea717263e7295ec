//! How nodes and ports look in the API: all of Ironic's fields, secrets masked, links added.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wire::{LookupNode, MASK, Port, mask_secrets};

use crate::record::Record;

/// 201 with the new resource, and where it lies.
pub fn created(resource: Map<String, Value>, place: &str) -> Response {
    let mut reply = (StatusCode::CREATED, Json(resource)).into_response();
    if let Ok(place) = HeaderValue::from_str(place) {
        reply.headers_mut().insert(header::LOCATION, place);
    }
    reply
}

/// A node in full.
pub fn node(record: &Record, base: &str) -> Map<String, Value> {
    let mut map = record.node.to_full_map();
    map.insert("driver_internal_info".into(), Value::Object(internal_info(record)));
    mask_secrets(&mut map);
    let uuid = record.node.uuid.to_string();
    map.insert("chassis_uuid".into(), Value::Null);
    map.remove("chassis_id");
    map.remove("conductor_affinity");
    map.insert("conductor".into(), Value::Null);
    map.insert("allocation_uuid".into(), Value::Null);
    map.remove("allocation_id");
    map.insert("traits".into(), json!([]));
    for key in NODE_KEYS_OF_LATER_VERSIONS {
        map.remove(key);
    }
    map.insert("links".into(), links(base, "nodes", &uuid));
    map.insert("ports".into(), links(base, &format!("nodes/{uuid}"), "ports"));
    map.insert("states".into(), links(base, &format!("nodes/{uuid}"), "states"));
    map
}

/// What agents are sent of a node, but the API shows only above the greatest version spoken here.
const NODE_KEYS_OF_LATER_VERSIONS: [&str; 6] =
    ["firmware_interface", "shard", "parent_node", "disable_power_off", "instance_name", "health"];

/// The same of a port.
const PORT_KEYS_OF_LATER_VERSIONS: [&str; 4] =
    ["description", "vendor", "category", "available_for_dynamic_portgroup"];

/// The fields of the short list.
pub const SHORT: [&str; 7] =
    ["uuid", "name", "instance_uuid", "maintenance", "power_state", "provision_state", "links"];

/// The node as its agent sees it at lookup.
pub fn lookup(record: &Record, base: &str) -> LookupNode {
    let node = &record.node;
    let mut rest = Map::new();
    rest.insert("properties".into(), Value::Object(node.properties.clone()));
    rest.insert("instance_info".into(), Value::Object(node.instance_info.clone()));
    rest.insert("driver_internal_info".into(), Value::Object(internal_info(record)));
    mask_secrets(&mut rest);
    rest.insert("links".into(), links(base, "nodes", &node.uuid.to_string()));
    LookupNode { uuid: node.uuid.to_string(), rest }
}

/// `driver_internal_info` with what Ironic keeps there and we keep elsewhere.
fn internal_info(record: &Record) -> Map<String, Value> {
    let mut info = record.node.driver_internal_info.clone();
    let agent = &record.agent;
    if agent.token.is_some() {
        info.insert("agent_secret_token".into(), MASK.into());
    }
    for (key, value) in [
        ("agent_url", &agent.url),
        ("agent_version", &agent.version),
        ("agent_verify_ca", &agent.certificate),
    ] {
        if let Some(value) = value {
            info.insert(key.into(), value.clone().into());
        }
    }
    if let Some(at) = agent.last_heartbeat {
        info.insert("agent_last_heartbeat".into(), at.into());
    }
    if let Some(work) = &record.work {
        let kind = work.kind.name();
        info.insert(format!("{kind}_step_index"), work.index.into());
        let steps: Vec<Value> = work
            .steps
            .iter()
            .map(|step| {
                let mut step = step.clone();
                // Arguments carry the config drive and image credentials.
                step.shift_remove("args");
                Value::Object(step)
            })
            .collect();
        info.insert(format!("{kind}_steps"), steps.into());
        if let Some(versions) = &work.versions {
            info.insert("hardware_manager_version".into(), versions.clone());
        }
    }
    info
}

/// `GET /v1/nodes/{id}/states`.
pub fn states(record: &Record) -> Map<String, Value> {
    let full = record.node.to_full_map();
    let keys = [
        "boot_mode",
        "console_enabled",
        "last_error",
        "power_state",
        "provision_state",
        "provision_updated_at",
        "raid_config",
        "secure_boot",
        "target_power_state",
        "target_provision_state",
        "target_raid_config",
    ];
    keys.iter().map(|key| ((*key).to_owned(), full.get(*key).cloned().unwrap_or(Value::Null))).collect()
}

/// A port in full.
pub fn port(port: &Port, base: &str) -> Map<String, Value> {
    let mut map = port.to_full_map();
    mask_secrets(&mut map);
    map.remove("portgroup_id");
    map.insert("portgroup_uuid".into(), Value::Null);
    for key in PORT_KEYS_OF_LATER_VERSIONS {
        map.remove(key);
    }
    map.insert("links".into(), links(base, "ports", &port.uuid.to_string()));
    map
}

fn links(base: &str, collection: &str, id: &str) -> Value {
    json!([
        { "href": format!("{base}/v1/{collection}/{id}"), "rel": "self" },
        { "href": format!("{base}/{collection}/{id}"), "rel": "bookmark" },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use wire::Node;

    fn sorted(map: &Map<String, Value>) -> String {
        let mut keys: Vec<&str> = map.keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys.join(" ")
    }

    #[test]
    fn the_api_shows_the_keys_of_its_version_and_no_later_ones() {
        let record = Record::new(Node::new(Uuid::nil(), "qemu"));
        assert_eq!(
            sorted(&node(&record, "http://192.0.2.1:6385")),
            "allocation_uuid automated_clean bios_interface boot_interface boot_mode chassis_uuid clean_step conductor \
             conductor_group console_enabled console_interface created_at deploy_interface deploy_step description driver \
             driver_info driver_internal_info extra fault inspect_interface inspection_finished_at inspection_started_at \
             instance_info instance_uuid last_error lessee links maintenance maintenance_reason management_interface name \
             network_data network_interface owner ports power_interface power_state properties protected protected_reason \
             provision_state provision_updated_at raid_config raid_interface rescue_interface reservation resource_class \
             retired retired_reason secure_boot service_step states storage_interface target_power_state \
             target_provision_state target_raid_config traits updated_at uuid vendor_interface"
        );
        assert_eq!(
            sorted(&states(&record)),
            "boot_mode console_enabled last_error power_state provision_state provision_updated_at raid_config \
             secure_boot target_power_state target_provision_state target_raid_config"
        );
        let of_node = Port {
            uuid: Uuid::nil(),
            node_uuid: Uuid::nil(),
            address: "52:54:00:00:00:01".into(),
            pxe_enabled: true,
            extra: Map::new(),
            created_at: None,
            updated_at: None,
        };
        assert_eq!(
            sorted(&port(&of_node, "http://192.0.2.1:6385")),
            "address created_at extra internal_info is_smartnic links local_link_connection name node_uuid \
             physical_network portgroup_uuid pxe_enabled updated_at uuid"
        );
    }
}
