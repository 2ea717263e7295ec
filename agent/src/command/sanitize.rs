//! A command's parameters as they may stand in a log: without secrets, and short. Source: agent protocol page, 1.13; upstream
//! hides `configdrive` and `system_logs` alone.

use serde_json::{Map, Value};

/// Longest text that is shown, in bytes.
const TEXT: usize = 200;
/// Longest line, in bytes.
const LINE: usize = 4096;
/// Keys whose texts and numbers are shown, in lower case. A conductor's node has any keys, and any of them may hold a secret: what
/// is not known to be harmless is hidden.
const HARMLESS: &[&str] = &[
    // Commands and steps.
    "step",
    "interface",
    "priority",
    "reboot_requested",
    "abortable",
    "requires_ramdisk",
    "order",
    "method",
    "flow",
    "wait",
    "target_boot_mode",
    "deploy_boot_mode",
    "boot_mode",
    "boot_option",
    "disk_label",
    "root_uuid",
    "efi_system_part_uuid",
    "prep_boot_part_uuid",
    // Images and partitions.
    "id",
    "image_source",
    "urls",
    "image_type",
    "disk_format",
    "container_format",
    "node_uuid",
    "stream_raw_images",
    "checksum",
    "image_checksum",
    "os_hash_algo",
    "os_hash_value",
    "image_os_hash_algo",
    "image_os_hash_value",
    "root_mb",
    "swap_mb",
    "ephemeral_mb",
    "root_gb",
    "swap_gb",
    "ephemeral_gb",
    "ephemeral_format",
    "preserve_ephemeral",
    // Nodes and ports.
    "uuid",
    "name",
    "driver",
    "resource_class",
    "provision_state",
    "target_provision_state",
    "power_state",
    "target_power_state",
    "created_at",
    "updated_at",
    "address",
    "node_id",
    "pxe_enabled",
    "physical_network",
    "switch_id",
    "port_id",
    "switch_info",
    "cpus",
    "cpu_arch",
    "memory_mb",
    "local_gb",
    "capabilities",
    // Root device hints.
    "size",
    "model",
    "vendor",
    "serial",
    "wwn",
    "wwn_with_extension",
    "wwn_vendor_extension",
    "rotational",
    "hctl",
    "by_path",
    // RAID and erasing.
    "raid_level",
    "size_gb",
    "volume_name",
    "is_root_volume",
    "controller",
    "physical_disks",
    "number_of_physical_disks",
    "disk_type",
    "interface_type",
    "device",
    "devices",
    "device_hint",
    "match_patterns",
];
/// Keys whose values are hidden with all that is in them, wherever part of their name is one of these.
const SECRET: [&str; 9] = [
    "configdrive",
    "system_logs",
    "password",
    "secret",
    "token",
    "passphrase",
    "credential",
    "authorization",
    "private_key",
];
/// Maps from names that are not known to versions of hardware managers.
const VERSIONS: [&str; 3] = ["clean_version", "deploy_version", "service_version"];

/// The parameters as JSON, in one bounded line.
pub(super) fn shown(params: &Map<String, Value>) -> String {
    let mut text =
        Value::Object(params.iter().map(|(key, value)| (key.clone(), of(key, value))).collect()).to_string();
    if text.len() > LINE {
        text.truncate(text.floor_char_boundary(LINE));
        text.push_str("...");
    }
    text
}

/// Texts and numbers under a harmless key; of other keys, only that there is one. What is in an object has its own keys; what is
/// in a list has the list's.
fn of(key: &str, value: &Value) -> Value {
    let key = key.to_ascii_lowercase();
    let are_versions = VERSIONS.contains(&key.as_str());
    let is_secret = SECRET.iter().any(|word| key.contains(word));
    match value {
        Value::Object(_) | Value::Array(_) if is_secret => Value::from("<...>"),
        Value::Object(map) if are_versions => {
            Value::Object(map.iter().map(|(name, value)| (name.clone(), of("step", value))).collect())
        }
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), of(key, value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| of(&key, item)).collect()),
        Value::Null | Value::Bool(_) => value.clone(),
        Value::String(_) | Value::Number(_) if !HARMLESS.contains(&key.as_str()) => Value::from("<...>"),
        Value::String(text) => Value::String(without_credentials(text)),
        Value::Number(_) => value.clone(),
    }
}

/// A text, shortened; of a URL neither user nor query, for both may let somebody in.
fn without_credentials(text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(LINE)).unwrap_or(text); // a long one is not copied
    let mut shown = match text.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(char::is_whitespace) => {
            let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?..."));
            let host_at = rest.split('/').next().and_then(|host| host.rfind('@'));
            let rest = host_at
                .and_then(|at| rest.get(at..))
                .map_or_else(|| rest.to_owned(), |rest| format!("...{rest}"));
            format!("{scheme}://{rest}{query}")
        }
        // The end of a URL, as Ironic makes an image's id of it: what follows may be a signature.
        _ => match text.split_once('?') {
            Some((name, _)) if !name.contains(char::is_whitespace) => format!("{name}?..."),
            _ => text.to_owned(),
        },
    };
    if shown.len() > TEXT {
        shown.truncate(shown.floor_char_boundary(TEXT));
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(params: Value) -> String {
        shown(params.as_object().unwrap())
    }

    #[test]
    fn secrets_are_hidden_at_any_depth() {
        let text = line(json!({
            "step": {"step": "write_image", "args": {"configdrive": "s3cret", "image_info": {
                "id": "image?signature=s3cret", "image_server_password": "s3cret", "image_request_authorization": "s3cret",
                "urls": ["https://user:s3cret@h/image?signature=s3cret"], "configdrive": {"meta_data": {"name": "s3cret"}}}}},
            "node": {"driver_internal_info": {"agent_secret_token": "s3cret"}, "extra": [{"Password": "s3cret"}]},
            "rescue_password": "s3cret", "pull_secret": "s3cret", "agent_token_required": true,
        }));
        assert!(!text.contains("s3cret"), "{text}");
        for part in [
            "write_image",
            "https://...@h/image?...",
            r#""id":"image?...""#,
            r#""agent_token_required":true"#,
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn values_of_keys_that_are_not_known_to_be_harmless_are_hidden() {
        let text = line(json!({
            "node": {"uuid": "shown-1", "driver_info": {"snmp_community": "s3cret", "auth.username": "s3cret", "pin": 12345678,
                "redfish": ["s3cret", {"x": "s3cret"}]}, "properties": {"root_device": {"serial": "shown-2", "size": 4711}}},
            "step": {"step": "create_configuration", "interface": "raid", "priority": 42}, "ports": [{"address": "shown-3"}],
            "clean_version": {"site_manager": "shown-4"}, "s3": null, "any": true, "UNKNOWN": {"deep": "s3cret"},
            "image_info": {"urls": ["http://h/shown-5"], "id": "https://h/shown-6?sig=s3cret"},
        }));
        assert!(!text.contains("s3cret") && !text.contains("12345678"), "{text}");
        for part in [
            "shown-1",
            "shown-2",
            "4711",
            "shown-3",
            "shown-4",
            "shown-5",
            "shown-6?...",
            "42",
            "create_configuration",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn lines_are_bounded() {
        let text = line(json!({"name": "ü".repeat(10_000)}));
        assert!(text.len() < 2 * TEXT && text.contains("..."));
        let many: Map<String, Value> = (0..10_000).map(|at| (format!("k{at}"), json!(at))).collect();
        assert!((LINE..=LINE + 3).contains(&shown(&many).len()));
    }
}
