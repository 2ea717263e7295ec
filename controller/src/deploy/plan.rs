//! What is to be run: the step list of a deployment, the image as the agent wants it described. Source: Ironic
//! `drivers/modules/agent.py`, `conductor/steps.py` (agent protocol page, 8.5).

use serde_json::{Map, Value, json};
use wire::{ImageInfo, Node, OtherKeys, Secret, StepKind};

use crate::power::BootMode;

/// Ironic's priority of `write_image`: what an agent advertises above runs before it, what it advertises below after it.
const WRITE_IMAGE_PRIORITY: u64 = 80;
/// Steps of the agent at or above this would run before there is an agent.
const IN_BAND_LIMIT: u64 = 100;

/// Why a node can not be deployed as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(String);

/// Whether the node's image is a root file system, for which the agent makes the partitions.
pub fn is_partition_image(node: &Node) -> bool {
    node.instance_info.get("image_type").and_then(Value::as_str) == Some("partition")
}

/// The image of a node's `instance_info`, as it goes to the agent.
pub fn image_info(node: &Node, boot_mode: BootMode) -> Result<ImageInfo, PlanError> {
    let info = &node.instance_info;
    let text = |key: &str| match info.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
        Some(_) => Err(PlanError(format!("instance_info/{key} must be a text"))),
    };
    let source = text("image_source")?
        .ok_or_else(|| PlanError("instance_info/image_source is missing: give the image's URL".into()))?;
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return Err(PlanError(format!(
            "instance_info/image_source is \"{source}\": it must be an http or https URL"
        )));
    }
    let image_type = text("image_type")?;
    let rest = match image_type.as_deref() {
        None | Some("whole-disk") => Map::new(),
        Some("partition") => partitions(info)?,
        Some(other) => {
            let known = "it must be partition or whole-disk";
            return Err(PlanError(format!("instance_info/image_type is \"{other}\": {known}")));
        }
    };
    let checksum = text("image_checksum")?;
    let (algorithm, value) = (text("image_os_hash_algo")?, text("image_os_hash_value")?);
    match (&checksum, &algorithm, &value) {
        (_, Some(_), None) | (_, None, Some(_)) => {
            let both = "instance_info/image_os_hash_algo and image_os_hash_value go together";
            return Err(PlanError(both.into()));
        }
        (None, None, None) => {
            return Err(PlanError(
                "the image has no checksum: set instance_info/image_os_hash_algo and image_os_hash_value, or image_checksum".into(),
            ));
        }
        _ => {}
    }
    // A label for messages: what stands behind the last slash, without a query.
    let path = source.split(['?', '#']).next().unwrap_or(&source);
    let id = path.trim_end_matches('/').rsplit('/').next().filter(|id| !id.is_empty()).unwrap_or("image");
    Ok(ImageInfo {
        id: id.to_owned(),
        urls: vec![source.clone()],
        checksum,
        os_hash_algo: algorithm,
        os_hash_value: value,
        disk_format: text("image_disk_format")?,
        stream_raw_images: true,
        node_uuid: Some(node.uuid.to_string()),
        image_server_auth_strategy: text("image_server_auth_strategy")?,
        image_server_user: text("image_server_user")?,
        image_server_password: text("image_server_password")?.map(Secret::new),
        signature: text("image_signature")?,
        signature_url: text("image_signature_url")?,
        signature_keys: keys(info.get("image_signature_keys"))?,
        verify: truth(info.get("image_verify"))?,
        deploy_boot_mode: image_type.as_ref().map(|_| boot_mode.name().to_owned()),
        image_type,
        rest: OtherKeys(rest),
        ..ImageInfo::default()
    })
}

/// The public keys that the image may be signed with: one, or a list.
fn keys(value: Option<&Value>) -> Result<Option<Vec<String>>, PlanError> {
    let wrong = || PlanError("instance_info/image_signature_keys must be a list of texts".into());
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(key)) => Ok(Some(vec![key.clone()])),
        Some(Value::Array(keys)) => keys
            .iter()
            .map(|key| key.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Some)
            .ok_or_else(wrong),
        Some(_) => Err(wrong()),
    }
}

fn truth(value: Option<&Value>) -> Result<Option<bool>, PlanError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(*truth)),
        Some(_) => Err(PlanError("instance_info/image_verify must be true or false".into())),
    }
}

/// The sizes of a partition image: as an operator gives them, and as the agent takes them.
fn partitions(info: &Map<String, Value>) -> Result<Map<String, Value>, PlanError> {
    let size = |key: &str| match info.get(key) {
        None | Some(Value::Null) => Ok(0),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(0),
        Some(value) => {
            let number = value.as_u64().or_else(|| value.as_str()?.trim().parse().ok());
            number.filter(|size| *size <= u64::from(u32::MAX)).ok_or_else(|| {
                PlanError(format!("instance_info/{key} is {value}: it must be a whole number, such as 10"))
            })
        }
    };
    let (root_gb, swap_mb, ephemeral_gb) = (size("root_gb")?, size("swap_mb")?, size("ephemeral_gb")?);
    if root_gb == 0 {
        let text = "a partition image needs instance_info/root_gb, the size of its partition in GiB";
        return Err(PlanError(text.into()));
    }
    let format = match info.get("ephemeral_format") {
        Some(format @ Value::String(_)) => format.clone(),
        _ if ephemeral_gb > 0 => "ext4".into(),
        _ => Value::Null,
    };
    let preserve = info.get("preserve_ephemeral").and_then(Value::as_bool).unwrap_or(false);
    let sizes = json!({
        "root_gb": root_gb, "root_mb": root_gb * 1024, "swap_mb": swap_mb, "ephemeral_gb": ephemeral_gb,
        "ephemeral_mb": ephemeral_gb * 1024, "ephemeral_format": format, "preserve_ephemeral": preserve,
    });
    Ok(sizes.as_object().cloned().unwrap_or_default())
}

/// Checks that a node can be deployed: a ramdisk to boot, an image to write, and that it will boot.
pub fn check(node: &Node, has_ramdisk: bool, may_run_grub: bool) -> Result<(), PlanError> {
    if !has_ramdisk {
        let text = "the controller has no ramdisk: start it with `ferric serve --ramdisk DIR`, where DIR holds kernel and initramfs";
        return Err(PlanError(text.into()));
    }
    if is_partition_image(node) && !may_run_grub {
        let text = "a partition image boots by its own grub, which runs in the ramdisk with all rights: where that is wanted, start \
                    the controller with `ferric serve --enable-bios-bootloader-install`; or deploy a whole-disk image";
        return Err(PlanError(text.into()));
    }
    image_info(node, BootMode::Uefi).map(|_| ())
}

/// The steps of a deployment: the agent's own with a priority, and `write_image`, by descending priority; `deploy` before
/// `raid` where they are equal.
pub fn deploy_steps(
    node: &Node,
    listed: &Value,
    boot_mode: BootMode,
) -> Result<Vec<Map<String, Value>>, PlanError> {
    let mut steps = in_band(StepKind::Deploy, listed)?;
    steps.retain(|step| priority(step) < IN_BAND_LIMIT);
    let image = serde_json::to_value(image_info(node, boot_mode)?)
        .map_err(|e| PlanError(format!("describing the image: {e}")))?;
    let configdrive = node.instance_info.get("configdrive").cloned().unwrap_or(Value::Null);
    let write = json!({
        "interface": "deploy", "step": "write_image", "priority": WRITE_IMAGE_PRIORITY,
        "args": { "image_info": image, "configdrive": configdrive },
    });
    if let Value::Object(write) = write {
        steps.push(write);
    }
    sort(&mut steps);
    Ok(steps)
}

/// The steps of an automated cleaning: those with a priority, descending.
pub fn clean_steps(listed: &Value) -> Result<Vec<Map<String, Value>>, PlanError> {
    let mut steps = in_band(StepKind::Clean, listed)?;
    sort(&mut steps);
    Ok(steps)
}

/// The agent's steps with a priority above 0.
fn in_band(kind: StepKind, listed: &Value) -> Result<Vec<Map<String, Value>>, PlanError> {
    let key = format!("{}_steps", kind.name());
    let managers = listed
        .get(&key)
        .and_then(Value::as_object)
        .ok_or_else(|| PlanError(format!("the agent's answer has no {key}")))?;
    let mut steps = Vec::new();
    for step in managers.values().filter_map(Value::as_array).flatten() {
        let object =
            step.as_object().ok_or_else(|| PlanError(format!("the agent lists {step}, which is no step")))?;
        for needed in ["step", "interface", "priority"] {
            if object.get(needed).is_none() {
                return Err(PlanError(format!("the agent lists a step without {needed}: {step}")));
            }
        }
        if priority(object) > 0 {
            steps.push(object.clone());
        }
    }
    Ok(steps)
}

fn priority(step: &Map<String, Value>) -> u64 {
    step.get("priority").and_then(Value::as_u64).unwrap_or(0)
}

fn sort(steps: &mut [Map<String, Value>]) {
    let interface = |step: &Map<String, Value>| {
        step.get("interface").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    steps.sort_by(|a, b| priority(b).cmp(&priority(a)).then_with(|| interface(a).cmp(&interface(b))));
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn node(info: Value) -> Node {
        let mut node = Node::new(Uuid::from_u128(3), "qemu");
        node.instance_info = info.as_object().unwrap().clone();
        node
    }

    fn image() -> Value {
        json!({
            "image_source": "http://h/images/debian.qcow2?x=1", "image_os_hash_algo": "sha256",
            "image_os_hash_value": "aa", "image_disk_format": "qcow2", "configdrive": "H4sI",
        })
    }

    #[test]
    fn the_image_is_written_between_the_agents_own_steps() {
        let listed = json!({"deploy_steps": {
            "A": [
                {"step": "before", "priority": 90, "interface": "deploy", "reboot_requested": false},
                {"step": "after", "priority": 70, "interface": "deploy", "reboot_requested": false},
                {"step": "on_request", "priority": 0, "interface": "deploy", "reboot_requested": false},
                {"step": "raid_first", "priority": 90, "interface": "raid", "reboot_requested": false},
                {"step": "too_early", "priority": 100, "interface": "deploy", "reboot_requested": false},
            ],
        }, "hardware_manager_version": {}});
        let steps = deploy_steps(&node(image()), &listed, BootMode::Uefi).unwrap();
        let names: Vec<_> = steps.iter().map(|s| s.get("step").unwrap().as_str().unwrap()).collect();
        assert_eq!(names, ["before", "raid_first", "write_image", "after"]);
        let args = steps.get(2).unwrap().get("args").unwrap();
        assert_eq!(args.get("configdrive"), Some(&json!("H4sI")));
        assert_eq!(args.pointer("/image_info/id"), Some(&json!("debian.qcow2")));
        assert_eq!(args.pointer("/image_info/urls/0"), Some(&json!("http://h/images/debian.qcow2?x=1")));
        assert_eq!(args.pointer("/image_info/stream_raw_images"), Some(&json!(true)));
    }

    #[test]
    fn what_can_not_be_deployed_is_said_before_the_machine_is_touched() {
        for (change, word) in [
            (json!({"image_source": null}), "image_source is missing"),
            (json!({"image_source": "file:///etc/passwd"}), "http or https"),
            (json!({"image_os_hash_value": null}), "go together"),
            (json!({"image_os_hash_value": null, "image_os_hash_algo": null}), "no checksum"),
            (json!({"image_type": "partition"}), "root_gb"),
            (json!({"image_type": "partition", "root_gb": "big"}), "root_gb is \"big\""),
            (json!({"image_type": "bootc"}), "whole-disk"),
        ] {
            let mut info = image();
            info.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = check(&node(info), true, true).unwrap_err();
            assert!(error.0.contains(word), "{error}");
        }
        assert!(check(&node(image()), false, false).unwrap_err().0.contains("--ramdisk"));
        assert_eq!(check(&node(image()), true, false), Ok(()));
        let mut partition = image();
        partition.as_object_mut().unwrap().extend(sizes(json!({})));
        assert!(check(&node(partition.clone()), true, false).unwrap_err().0.contains("--enable-bios"));
        assert_eq!(check(&node(partition), true, true), Ok(()));
    }

    fn sizes(more: Value) -> Map<String, Value> {
        let mut sizes = json!({"image_type": "partition", "root_gb": "3"});
        sizes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sizes.as_object().unwrap().clone()
    }

    #[test]
    fn a_partition_image_goes_out_with_its_sizes_in_mebibytes() {
        let mut info = image();
        info.as_object_mut().unwrap().extend(sizes(json!({"ephemeral_gb": 1, "swap_mb": 64})));
        let sent = serde_json::to_value(image_info(&node(info.clone()), BootMode::Bios).unwrap()).unwrap();
        for (key, value) in [
            ("image_type", json!("partition")),
            ("deploy_boot_mode", json!("bios")),
            ("root_mb", json!(3072)),
            ("swap_mb", json!(64)),
            ("ephemeral_mb", json!(1024)),
            ("ephemeral_format", json!("ext4")),
            ("preserve_ephemeral", json!(false)),
        ] {
            assert_eq!(sent[key], value, "{key}");
        }
        let whole = serde_json::to_value(image_info(&node(image()), BootMode::Bios).unwrap()).unwrap();
        assert_eq!((whole.get("root_mb"), whole.get("image_type")), (None, None));
    }

    #[test]
    fn a_step_without_its_mandatory_keys_is_refused() {
        let listed = json!({"clean_steps": {"A": [{"step": "x", "priority": 1}]}});
        assert!(clean_steps(&listed).unwrap_err().0.contains("without interface"));
        assert!(clean_steps(&json!({})).is_err());
    }
}
