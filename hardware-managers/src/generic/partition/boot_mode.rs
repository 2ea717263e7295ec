//! How the deployed system will boot, and which partition table it gets. Source: data plane page, 3.1 and A.4.

use disk::layout::Label;
use hwm::Context;
use serde_json::Value;

/// The firmware's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootMode {
    Uefi,
    Bios,
}

/// What the node says, else how this ramdisk was started.
pub(crate) fn of_node(cx: &Context) -> (BootMode, Label) {
    let instance = Capabilities::of(cx.node_field("/instance_info/capabilities"));
    let properties = Capabilities::of(cx.node_field("/properties/capabilities"));
    let own = if cx.host.is_uefi() { BootMode::Uefi } else { BootMode::Bios };
    let text =
        |pointer| cx.node_field(pointer).and_then(Value::as_str).filter(|s| !s.is_empty()).map(Into::into);
    let is_secure = |capabilities: &Capabilities| {
        capabilities.get("secure_boot").is_some_and(|value| is_true(&Value::String(value)))
    };
    let mode = if is_secure(&instance) || is_secure(&properties) {
        BootMode::Uefi
    } else {
        let named: Option<String> = text("/instance_info/deploy_boot_mode")
            .or_else(|| properties.get("boot_mode"))
            .or_else(|| text("/driver_internal_info/deploy_boot_mode"));
        match named.map(|mode| mode.to_lowercase()).as_deref() {
            Some("uefi") => BootMode::Uefi,
            Some("bios") => BootMode::Bios,
            Some(other) => {
                tracing::warn!(
                    mode = other,
                    "the node's boot mode is neither uefi nor bios: taking this ramdisk's"
                );
                own
            }
            None => own,
        }
    };
    let label = instance.get("disk_label").or_else(|| properties.get("disk_label"));
    let label = match (mode, label.as_deref()) {
        (BootMode::Uefi, _) | (BootMode::Bios, Some("gpt")) => Label::Gpt,
        (BootMode::Bios, _) => Label::Mbr,
    };
    (mode, label)
}

/// Whether a value says yes, as a flag or as one of the usual words.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => {
            matches!(text.trim().to_lowercase().as_str(), "t" | "true" | "on" | "y" | "yes" | "1")
        }
        Value::Number(number) => number.as_u64() == Some(1),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Capabilities: an object, its JSON text, or `key:value,key:value`.
struct Capabilities(Vec<(String, String)>);

impl Capabilities {
    fn of(value: Option<&Value>) -> Self {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match value {
            Some(Value::Object(map)) => {
                Self(map.iter().map(|(key, value)| (key.clone(), plain(value))).collect())
            }
            Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
                Ok(object @ Value::Object(_)) => Self::of(Some(&object)),
                _ => Self(
                    text.split(',')
                        .filter_map(|pair| pair.split_once(':'))
                        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                        .collect(),
                ),
            },
            _ => Self(Vec::new()),
        }
    }

    fn get(&self, key: &str) -> Option<String> {
        self.0.iter().find(|(found, _)| found == key).map(|(_, value)| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generic::fixture::Fixture;
    use serde_json::json;

    fn on(is_uefi: bool, node: Value) -> (BootMode, Label) {
        let machine = Fixture::new();
        let machine = if is_uefi { machine.directory("/sys/firmware/efi") } else { machine };
        of_node(&Context::new(machine.host(), events::Events::default()).with_node(node))
    }

    #[test]
    fn upstream_vectors() {
        use BootMode::{Bios, Uefi};
        for (node, expected) in [
            (json!({}), (Bios, Label::Mbr)),
            (json!({"instance_info": {"capabilities": "{\"secure_boot\": \"True\"}"}}), (Uefi, Label::Gpt)),
            (json!({"properties": {"capabilities": "boot_mode:bios,disk_label:gpt"}}), (Bios, Label::Gpt)),
            (json!({"instance_info": {"deploy_boot_mode": "UEFI"}}), (Uefi, Label::Gpt)),
            (json!({"properties": {"capabilities": {"boot_mode": "weird"}}}), (Bios, Label::Mbr)),
            (json!({"driver_internal_info": {"deploy_boot_mode": "uefi"}}), (Uefi, Label::Gpt)),
            (json!({"properties": {"capabilities": "disk_label:msdos"}}), (Bios, Label::Mbr)),
            (
                json!({"instance_info": {"capabilities": {"disk_label": "gpt"}, "deploy_boot_mode": "bios"},
                       "properties": {"capabilities": "disk_label:msdos,boot_mode:uefi"}}),
                (Bios, Label::Gpt),
            ),
        ] {
            assert_eq!(on(false, node.clone()), expected, "{node}");
        }
        assert_eq!(on(true, json!({})), (Uefi, Label::Gpt));
        assert_eq!(
            on(true, json!({"properties": {"capabilities": {"boot_mode": "weird"}}})),
            (Uefi, Label::Gpt)
        );
    }
}
